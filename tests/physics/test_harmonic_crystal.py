"""The harmonic crystal: its partition function by quadrature, exact samples, differences by exponential averages."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.geometry.so3 import quaternion_to_matrix, random_rotation, rotation_exp
from nucleate.metrics.free_energy import one_sided
from nucleate.physics.harmonic_crystal import (
    HarmonicCrystal,
    cubic_lattice,
    log_turn_partition,
    near_identity,
)
from nucleate.physics.parameters import BOLTZMANN

T = 200.0
ANGLES = torch.linspace(0, math.pi / 2, 20_001, dtype=torch.float64)  # w = cos t


def pair(spring: float = 2.0, twist: float = 0.3) -> HarmonicCrystal:
    places = torch.tensor([[0.0, 0, 0], [4.0, 0, 0]], dtype=torch.float64)
    turns = torch.tensor([[1.0, 0, 0, 0], [0.5, -0.5, 0.5, 0.5]], dtype=torch.float64)
    return HarmonicCrystal(places, turns, torch.tensor([[0, 1]]), spring, twist)


def test_energy_by_hand() -> None:
    """A spring drawn by 0.3 Å, one molecule turned by 1 rad about its own axis."""
    crystal = pair()
    moved = crystal.places + torch.tensor([[0.0, 0, 0], [0, 0.3, 0]]).double()
    axis = torch.tensor([2.0, 1.0, -2.0]).double() / 3
    turn = rotation_exp(torch.stack([0 * axis, axis]))
    energy = crystal(moved, quaternion_to_matrix(crystal.turns) @ turn)
    assert float(energy) == pytest.approx(2.0 / 2 * 0.09 + 0.3 * math.sin(0.5) ** 2)


def test_what_does_not_matter() -> None:
    crystal = cubic_lattice(3, 4.0, 1.0, 0.2)
    x, q = crystal.sample(5, T, torch.Generator().manual_seed(0))
    here = crystal(x, quaternion_to_matrix(q))
    torch.testing.assert_close(
        crystal(x + torch.tensor([1.0, -7.0, 0.2]).double(), quaternion_to_matrix(-q)), here
    )
    assert len(crystal.pairs) == 3 * len(crystal)


@pytest.mark.parametrize("k", [0.0, 0.3, 4.0, 60.0, 5e4])
def test_turns_have_the_partition_function_of_bessel_functions(k: float) -> None:
    height = 4 / math.pi * ANGLES.sin().square() * (-k * ANGLES.sin().square()).exp()
    assert log_turn_partition(k) == pytest.approx(float(torch.trapezoid(height, ANGLES).log()), abs=1e-7)


def test_that_partition_function_is_a_mean_over_uniform_rotations() -> None:
    crystal = pair(twist=0.05)
    R = random_rotation(20_000, 2, generator=torch.Generator().manual_seed(1))
    weight = (-crystal(crystal.places.expand(20_000, -1, -1), R) / (BOLTZMANN * T)).exp()
    expected = math.exp(2 * log_turn_partition(0.05 / (BOLTZMANN * T)))
    assert abs(float(weight.mean()) - expected) < 4.5 * float(weight.std()) / math.sqrt(len(weight))


def test_the_free_energy_of_one_spring() -> None:
    """One mode of three directions: the stretch over root 2, of curvature 2 spring."""
    free = pair(twist=0.0).free_energy(T)
    assert free == pytest.approx(-1.5 * math.log(2 * math.pi * BOLTZMANN * T / (2 * 2.0)))


def test_the_mean_energy_is_the_slope_of_the_free_energy() -> None:
    crystal, h = cubic_lattice(2, 4.0, 1.0, 0.1), 1e-3
    beta = [1 / (BOLTZMANN * (T + d)) for d in (-h, h)]
    slope = (crystal.free_energy(T + h) - crystal.free_energy(T - h)) / (beta[1] - beta[0])
    assert crystal.mean_energy(T) == pytest.approx(slope, rel=1e-6)
    assert cubic_lattice(2, 4.0, 1.0, 0.0).mean_energy(T) == pytest.approx(1.5 * 7 * BOLTZMANN * T)


@pytest.mark.parametrize("k", [0.0, 1.0, 2.0, 5.0, 200.0])
def test_turns_are_sampled_from_their_density(k: float) -> None:
    """Counts in ten bins of |w| against quadrature, and no direction before another."""
    q = near_identity(k, 20_000, torch.Generator().manual_seed(2))
    crystal = pair(twist=k * BOLTZMANN * T)
    density = crystal.turn_density(ANGLES.cos(), T) * ANGLES.sin()
    below = torch.cat([torch.zeros(1).double(), torch.cumulative_trapezoid(density, ANGLES)])
    assert float(below[-1]) == pytest.approx(1, abs=1e-6)
    rank = below[(q[:, 0].abs().arccos() / ANGLES[1]).long()]  # uniform, if the density is right
    counts = torch.histc(rank, 10, 0, 1)
    assert float((counts - 2000).square().sum() / 2000) < 34  # chi squared of 9: once in ten thousand
    assert q[:, 1:].mean(0).abs().max() < 4.5 * float(q[:, 1:].std()) / math.sqrt(len(q))


def test_samples_have_the_exact_energy() -> None:
    crystal = cubic_lattice(2, 4.0, 1.0, 0.05)
    x, q = crystal.sample(4_000, T, torch.Generator().manual_seed(0))
    energy = crystal(x, quaternion_to_matrix(q))
    error = float(energy.std()) / math.sqrt(len(energy))
    assert abs(float(energy.mean()) - crystal.mean_energy(T)) < 4.5 * error
    assert error < 0.01 * crystal.mean_energy(T)
    torch.testing.assert_close(x.mean(1), crystal.places.mean(0).expand(4_000, -1))


def test_a_difference_of_temperatures_is_that_of_an_exponential_average() -> None:
    """Zwanzig's average of exact samples, without a map."""
    crystal, hot, cold = cubic_lattice(2, 4.0, 1.0, 0.05), 210.0, 200.0
    x, q = crystal.sample(6_000, hot, torch.Generator().manual_seed(0))
    energy = crystal(x, quaternion_to_matrix(q))
    found = one_sided(energy / (BOLTZMANN * hot) - energy / (BOLTZMANN * cold))
    expected = crystal.free_energy(cold) - crystal.free_energy(hot)
    assert abs(found.difference - expected) < 4 * found.error
    assert 0 < found.error < 0.02


def test_loose_molecules_are_refused() -> None:
    three = torch.zeros(3, 3).double()
    turns = torch.tensor([[1.0, 0, 0, 0]]).double().expand(3, -1)
    with pytest.raises(InputError, match="leave some molecules free"):
        HarmonicCrystal(three, turns, torch.tensor([[0, 1]]), 1.0, 0.1)
    with pytest.raises(InputError, match="spring above 0"):
        pair(spring=0.0)
