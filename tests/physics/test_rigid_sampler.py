"""Hamiltonian Monte Carlo of rigid molecules: an integrator that can be undone, samples of exactly known systems."""

import math
from functools import cache

import pytest
import torch

from nucleate.errors import InputError, NucleateError
from nucleate.geometry.so3 import quaternion_to_matrix, random_rotation, rotation_exp, rotation_log
from nucleate.physics.harmonic_crystal import HarmonicCrystal, cubic_lattice
from nucleate.physics.parameters import BOLTZMANN
from nucleate.physics.rigid_sampler import (
    WIDEST,
    Chains,
    Momenta,
    Widths,
    acceptance,
    felt,
    sample,
    trajectory,
)
from nucleate.physics.rigid_sites import TIP4P_EW, SiteEnergy
from nucleate.physics.tetrahedron import Tetrahedron

T = 200.0
KT = BOLTZMANN * T
CRYSTAL = cubic_lattice(2, 4.0, 1.0, 0.05)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_water() -> tuple[SiteEnergy, torch.Tensor, torch.Tensor]:
    """Eight molecules near a grid, two chains of them."""
    edge = 6.4
    grid = torch.cartesian_prod(*[torch.tensor([0.0, edge / 2], dtype=torch.float64)] * 3)
    energy = SiteEnergy(TIP4P_EW, 8, edge * torch.eye(3, dtype=torch.float64))
    return energy, grid + 0.1 * drawn(2, 8, 3), rotation_exp(drawn(2, 8, 3, seed=1))


def widths(molecules: int, place: float = 0.05, turn: float = 0.1) -> Widths:
    """Different for each molecule."""
    by = 1 + torch.arange(molecules, dtype=torch.float64)[:, None] / molecules
    return Widths(place * by, turn * by)


@cache
def crystal_chains() -> Chains:
    return sample(CRYSTAL, CRYSTAL.places, CRYSTAL.turns, T, 40, every=1, chains=32, burn_in=60, steps=5)


def test_slopes_are_those_of_small_moves() -> None:
    energy, x, R = some_water()
    poses, h = felt(energy, KT, x, R), 1e-5
    for of_place, slope in ((True, poses.pull), (False, poses.twist)):
        along = drawn(2, 8, 3, seed=5)
        ends = [
            energy(x + s * h * along, R) if of_place else energy(x, R @ rotation_exp(s * h * along))
            for s in (-1, 1)
        ]
        torch.testing.assert_close(
            (ends[1] - ends[0]) / (2 * h * KT), (slope * along).sum((1, 2)), rtol=1e-6, atol=0
        )


def test_turning_momenta_around_leads_back() -> None:
    energy, x, R = some_water()
    start, momenta, step = (
        felt(energy, KT, x, R),
        Momenta(drawn(2, 8, 3), drawn(2, 8, 3, seed=1)),
        torch.ones(2, 1, 1),
    )
    there, last = trajectory(energy, KT, start, momenta, widths(8), 0.3 * step.double(), 12)
    assert (there.rotations - R).abs().max() > 0.1
    back, first = trajectory(
        energy, KT, there, Momenta(-last.place, -last.turn), widths(8), 0.3 * step.double(), 12
    )
    torch.testing.assert_close(back.places, x, atol=1e-6, rtol=0)
    torch.testing.assert_close(back.rotations, R, atol=1e-6, rtol=0)
    torch.testing.assert_close(-first.turn, momenta.turn, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        acceptance(start, momenta, there, last).log() - acceptance(there, last, start, momenta).log(),
        start.energy - there.energy + sum((a * a - b * b).sum((1, 2)) / 2 for a, b in zip(momenta, last)),
    )


def test_a_trajectory_keeps_volume() -> None:
    """The determinant over places, turns and momenta of one molecule in a rough field is 1, at large steps."""

    def rough(x: torch.Tensor, R: torch.Tensor) -> torch.Tensor:
        return KT * ((2 * x).sin().sum((1, 2)) + (R[..., 0] * x).sum((1, 2)) + R[..., 1, 2].sum(1) * 1.5)

    x, R, momenta = (
        drawn(1, 1, 3),
        random_rotation(1, 1, generator=torch.Generator().manual_seed(0)),
        drawn(2, 3),
    )

    def moved(by: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All 24 small changes at once, as chains."""
        n = len(by)
        place, turn, p, spin = by[:, None].split(3, -1)
        start = felt(rough, KT, x + place, R @ rotation_exp(turn))
        step = torch.full((n, 1, 1), 0.7, dtype=torch.float64)
        end, last = trajectory(
            rough, KT, start, Momenta(momenta[0] + p, momenta[1] + spin), widths(1, 0.8, 0.9), step, 3
        )
        return end.places, end.rotations, last.place, last.turn

    h = 1e-5
    changes = torch.cat([h * torch.eye(12), -h * torch.eye(12), torch.zeros(1, 12)]).double()
    places, rotations, p, spin = moved(changes)
    turned = rotation_log(rotations[-1].mT @ rotations)
    ends = torch.cat([places, turned, p, spin], -1)[:, 0]
    J = (ends[:12] - ends[12:24]) / (2 * h)
    assert (J - torch.eye(12).double()).abs().max() > 0.5
    assert float(torch.linalg.det(J)) == pytest.approx(1, abs=1e-6)


def test_the_harmonic_crystal_has_its_energy() -> None:
    means = crystal_chains().energies.mean(1)  # of independent chains
    error = float(means.std()) / math.sqrt(len(means))
    assert abs(float(means.mean()) - CRYSTAL.mean_energy(T)) < 4.5 * error
    assert error < 0.02 * CRYSTAL.mean_energy(T)


def test_its_turns_have_their_density() -> None:
    """Share below each of nine values of |w|, the deciles by quadrature."""
    t = torch.linspace(math.pi / 2, 0, 20_001, dtype=torch.float64)
    density = CRYSTAL.turn_density(t.cos(), T) * t.sin()
    below = torch.cumulative_trapezoid(density, -t)
    tenths = torch.arange(1, 10, dtype=torch.float64) / 10
    deciles = t.cos()[1:][torch.searchsorted(below, tenths)]
    chains = crystal_chains()
    share = (chains.turns[..., 0].abs()[..., None] < deciles).double().mean((1, 2))
    error = share.std(0) / math.sqrt(len(share))
    assert ((share.mean(0) - tenths).abs() < 4.5 * error).all()
    assert error.max() < 0.02


def test_its_frames_are_what_they_say() -> None:
    chains = crystal_chains()
    assert chains.places.shape == (32, 40, 8, 3)
    assert 0.6 < chains.accepted < 0.95
    x, q, energies = chains.one_after_another()
    torch.testing.assert_close(CRYSTAL(x, quaternion_to_matrix(q)), energies)
    assert (q.norm(dim=-1) - 1).abs().max() < 1e-12


def test_widths_follow_each_molecule() -> None:
    """A molecule on a stiffer spring moves less; without any force on turns they are as wide as allowed."""
    pairs = torch.tensor([[0, 1], [1, 2]] + [[2, 3]] * 50)
    turns = torch.tensor([[1.0, 0, 0, 0]]).double().expand(4, -1)
    chain = HarmonicCrystal(drawn(4, 3), turns, pairs, 1.0, 0.0)
    chains = sample(chain, chain.places, turns, T, 2, chains=16, burn_in=40, steps=4)
    place = chains.widths.place[:, 0]
    assert place[3] < place[0] / 4
    assert (chains.widths.turn > 0.5 * WIDEST).all()


def test_one_body_finds_all_wells_when_hot() -> None:
    body, hot = Tetrahedron(), 500.0
    one = torch.zeros(1, 3).double(), torch.tensor([[1.0, 0, 0, 0]]).double()
    chains = sample(lambda x, R: body(R[:, 0]), *one, hot, 40, chains=100, burn_in=40, steps=5)
    means = chains.energies.mean(1)
    error = float(means.std()) / math.sqrt(len(means))
    assert abs(float(means.mean()) - body.mean_energy(hot).value) < 4.5 * error
    assert (
        body.share_in_wells(quaternion_to_matrix(chains.turns.flatten(0, 2))) > 0.012
    ).all()  # 0.0075 is uniform


def test_seeds_reproduce() -> None:
    def drawn_with(seed: int) -> torch.Tensor:
        return sample(
            CRYSTAL, CRYSTAL.places, CRYSTAL.turns, T, 3, chains=2, seed=seed, burn_in=5, steps=2
        ).places

    assert torch.equal(drawn_with(1), drawn_with(1))
    assert not torch.equal(drawn_with(1), drawn_with(2))


def test_progress_counts_all_trajectories() -> None:
    told: list[tuple[int, int]] = []
    sample(
        CRYSTAL, CRYSTAL.places, CRYSTAL.turns, T, 2, every=3, chains=2, burn_in=4, steps=1,
        progress=lambda *n: told.append(n),
    )  # fmt: skip
    assert told == [(n, 10) for n in range(1, 11)]


def test_bad_starts_are_refused() -> None:
    def overlapping(x: torch.Tensor, R: torch.Tensor) -> torch.Tensor:
        return (x.square().sum((1, 2)) + 1).log() + math.inf

    with pytest.raises(InputError, match="relax it first"):
        sample(overlapping, CRYSTAL.places, CRYSTAL.turns, T, 2)

    with pytest.raises(InputError, match="at least one of frames"):
        sample(CRYSTAL, CRYSTAL.places, CRYSTAL.turns, T, 0)

    heights = iter(range(10_000))

    def rising(x: torch.Tensor, R: torch.Tensor) -> torch.Tensor:
        return 0 * x.sum((1, 2)) + 100 * next(heights)

    with pytest.raises(NucleateError, match="longer burn-in"):
        sample(rising, CRYSTAL.places, CRYSTAL.turns, T, 2, chains=2, burn_in=2, steps=2)
