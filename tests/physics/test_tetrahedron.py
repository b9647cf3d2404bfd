"""A tetrahedron in an octupole field: its symmetry, its twelve wells, exact samples and integrals."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation, rotation_exp
from nucleate.physics.parameters import BOLTZMANN
from nucleate.physics.tetrahedron import Tetrahedron

BODY = Tetrahedron()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_lower_fields_do_not_turn_it() -> None:
    """No dipole, and the second moments are those of a ball."""
    corners = BODY.corners
    torch.testing.assert_close(corners.sum(0), torch.zeros(3).double())
    torch.testing.assert_close(corners.mT @ corners, 4 / 3 * BODY.arm**2 * torch.eye(3).double())


def test_the_energy_is_that_of_charges_in_the_field() -> None:
    """By hand: three corners of a tetrahedron on an axis z see V in sum 0 with the one on it."""
    about = torch.tensor([1.0, -1.0, 0.0]).double()
    to_z = rotation_exp(about / about.norm() * math.acos(1 / math.sqrt(3)))
    turned = BODY.corners @ to_z.mT
    on_axis = turned[turned[:, :2].norm(dim=1) < 1e-9]
    assert len(on_axis) == 1
    by_hand = BODY.charge * BODY.field * turned.prod(1).sum()
    torch.testing.assert_close(BODY(to_z), by_hand)


def test_twelve_wells_are_a_group_that_the_energy_does_not_see() -> None:
    wells = BODY.wells
    assert len(wells) == 12
    torch.testing.assert_close(BODY(wells), torch.full((12,), -BODY.depth).double())
    products = (wells[:, None] @ wells).flatten(0, 1)
    apart = (products[:, None] - wells).abs().amax((-1, -2))
    assert (apart.min(1).values < 1e-12).all()
    assert ((wells[:, None] - wells).abs().amax((-1, -2)) > 0.5).sum() == 12 * 11
    R = random_rotation(50, generator=generator())
    for other in (wells[:, None] @ R, R @ wells[:, None]):
        torch.testing.assert_close(BODY(other), BODY(R).expand(12, -1))


def test_a_quarter_turn_is_the_top_and_nothing_lies_outside() -> None:
    quarter = rotation_exp(torch.tensor([0.0, 0.0, math.pi / 2]).double())
    assert float(BODY(quarter)) == pytest.approx(BODY.depth)
    assert BODY(random_rotation(2000, generator=generator())).abs().max() <= BODY.depth


def test_small_turns_cost_twice_the_depth_in_any_direction() -> None:
    v = 1e-3 * torch.nn.functional.normalize(torch.randn(20, 3, generator=generator()).double(), dim=-1)
    torch.testing.assert_close(
        BODY(rotation_exp(v)) + BODY.depth, torch.full((20,), 2e-6 * BODY.depth).double(), rtol=1e-4, atol=0
    )


def test_integrals_agree_with_uniform_rotations() -> None:
    temperature = 200.0
    weight = (-BODY(random_rotation(40_000, generator=generator())) / (BOLTZMANN * temperature)).exp()
    error = float(weight.std() / weight.mean()) / math.sqrt(len(weight))
    found = BODY.log_partition(temperature)
    assert abs(float(weight.mean().log()) - found.value) < 4.5 * error
    assert found.error < 1e-6
    assert abs(BODY.log_partition(1e9).value) < 1e-9


def test_the_mean_energy_is_the_slope_of_the_partition_function() -> None:
    T, h = 150.0, 1e-3
    before, after = (BODY.log_partition(T + d).value for d in (-h, h))
    slope = (after - before) / (1 / (T + h) - 1 / (T - h)) * BOLTZMANN
    assert BODY.mean_energy(T).value == pytest.approx(-slope, rel=1e-6)


def test_samples_are_those_of_the_density() -> None:
    samples = BODY.sample(8_000, 100.0, generator(3))
    energy, exact = BODY(samples), BODY.mean_energy(100.0)
    assert abs(float(energy.mean()) - exact.value) < 4.5 * float(energy.std()) / math.sqrt(len(energy))
    shares = BODY.share_in_wells(samples)
    assert float(shares.sum()) > 0.9
    assert (shares - shares.mean()).abs().max() < 4.5 * math.sqrt(1 / 12 / len(samples))
    normalised = BODY.log_density(random_rotation(40_000, generator=generator(4)), 200.0).exp()
    assert abs(float(normalised.mean()) - 1) < 4.5 * float(normalised.std()) / 200


def test_seeds_reproduce() -> None:
    one, same, other = (BODY.sample(50, 300.0, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_wells_too_deep_for_rejection_and_empty_bodies_are_refused() -> None:
    with pytest.raises(InputError, match="higher temperature"):
        BODY.sample(10, 10.0, generator())
    with pytest.raises(InputError, match="above 0"):
        Tetrahedron(depth=0.0)
