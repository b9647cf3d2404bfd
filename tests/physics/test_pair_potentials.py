"""Pairs of sites: the wall of exp-6 that nothing passes, what lies outside of a distance."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.physics.forcefield import exp6_tables
from nucleate.physics.pair_potentials import NEAREST, Exp6Pairs, LennardJonesPairs, steepest
from nucleate.physics.parameters import COULOMB, EXP6, TYPES

KNOWN = torch.tensor([tuple(EXP6[t]) for t in TYPES], dtype=torch.float64)
FIRST, SECOND = torch.triu_indices(len(TYPES), len(TYPES))
PAIRS = Exp6Pairs.of(KNOWN, FIRST, SECOND)


def slope(pairs: Exp6Pairs, r: torch.Tensor) -> torch.Tensor:
    r = r.clone().requires_grad_()
    (found,) = torch.autograd.grad(pairs(r).sum(), r)
    return found


def test_exp6_is_itself_outside_of_its_wall() -> None:
    for times in (1.0001, 1.5, 3.0):
        r = times * PAIRS.wall
        bare = PAIRS.A * torch.exp(-PAIRS.B * r) - PAIRS.C / r**6
        torch.testing.assert_close(PAIRS(r), bare, rtol=1e-12, atol=1e-15)


def test_the_wall_begins_with_the_same_energy_and_force() -> None:
    h, w = 1e-7, PAIRS.wall
    torch.testing.assert_close(PAIRS(w - h), PAIRS(w + h), rtol=1e-5, atol=0)
    torch.testing.assert_close(slope(PAIRS, w - h), slope(PAIRS, w + h), rtol=1e-5, atol=0)


def test_walls_are_where_the_minimiser_of_the_force_field_has_its_straight_lines() -> None:
    """Found there on a grid of 0.001 Å."""
    theirs = torch.from_numpy(exp6_tables()[3])[FIRST, SECOND]
    assert (PAIRS.wall - theirs).abs().max() < 2e-3


def test_opposite_charges_do_not_pull_atoms_through_the_wall() -> None:
    """Every pair of elements but two hydrogens, whose charges are alike: 0.36 e^2 is that of an acid's O and H."""
    hydrogens = torch.tensor([t.startswith("H") for t in TYPES])
    opposite = ~(hydrogens[FIRST] & hydrogens[SECOND])
    pairs = Exp6Pairs.of(KNOWN, FIRST[opposite], SECOND[opposite])
    for times in torch.linspace(0.02, 1.0, 50, dtype=torch.float64):
        r = times * pairs.wall
        assert (slope(pairs, r) + 0.36 * COULOMB / r**2 < 0).all()
    near = 0.2 * pairs.wall
    assert (pairs(near) - 0.36 * COULOMB / near > 100).all()


def test_what_lies_outside_is_the_integral() -> None:
    r = torch.linspace(5.0, 400.0, 2_000_001, dtype=torch.float64)
    k, m = torch.tensor(0), torch.tensor(4)
    argon = torch.tensor([0.01] * 5, dtype=torch.float64)
    for pair in (Exp6Pairs.of(KNOWN, k, m), LennardJonesPairs.of(argon, 300 * argon, k, m)):
        measured = float(torch.trapezoid(pair(r) * r.square(), r))
        assert pair.outside(5.0) == pytest.approx(measured, rel=1e-5)


def test_sites_that_feel_nothing_and_sites_that_only_attract() -> None:
    """Where there is no dispersion the wall is as near as walls come."""
    exp6 = torch.tensor([[0.0, 0, 0], [1000.0, 4.0, 0], [1000.0, 4.0, 20]], dtype=torch.float64)
    nothing, bare = (Exp6Pairs.of(exp6, torch.tensor([k]), torch.tensor([k])) for k in (0, 1))
    r = torch.tensor([0.1, 1.0, 9.0], dtype=torch.float64)
    assert nothing(r).tolist() == [0, 0, 0]
    assert float(bare.wall) == pytest.approx(NEAREST)
    assert float(bare(r)[1]) == pytest.approx(1000 * math.exp(-4))
    for A, B in ((0.0, 4.0), (1.0, 4.0)):
        with pytest.raises(InputError, match="only attracts"):
            steepest(*(torch.tensor([x], dtype=torch.float64) for x in (A, B, 1e5)))
