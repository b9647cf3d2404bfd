"""Energies of rigid molecules of sites: lattices with known sums, cut-offs that do not matter, OpenMM."""

import math
from dataclasses import replace

import pytest
import torch

from nucleate.errors import InputError
from nucleate.geometry.so3 import rotation_exp
from nucleate.physics.parameters import COULOMB, KJ_PER_MOL
from nucleate.physics.rigid_sites import TIP4P_EW, TIP4P_ICE, RigidSites, SiteEnergy

SALT = 5.64  # Å
PAIR = RigidSites(
    "NaCl",
    torch.tensor([[0, 0, 0], [SALT / 2, 0, 0]], dtype=torch.float64),
    torch.tensor([1.0, -1.0], dtype=torch.float64),
    torch.zeros(2, dtype=torch.float64),
    torch.ones(2, dtype=torch.float64),
    torch.ones(2, dtype=torch.float64),
)


def some_water(n: int = 8, seed: int = 0, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Molecules near a grid, turned at random: cell, places, rotations."""
    generator = torch.Generator().manual_seed(seed)
    edge = 3.1 * round(n ** (1 / 3))
    cell = torch.diag(torch.tensor([edge, edge + 0.4, edge + 0.9], dtype=torch.float64))
    steps = torch.arange(round(n ** (1 / 3)), dtype=torch.float64) / round(n ** (1 / 3))
    grid = torch.cartesian_prod(steps, steps, steps) @ cell
    places = grid + 0.2 * torch.randn(batch, n, 3, generator=generator, dtype=torch.float64)
    turns = rotation_exp(torch.randn(batch, n, 3, generator=generator, dtype=torch.float64))
    return cell, places, turns


def test_rock_salt_has_its_madelung_constant() -> None:
    """As pairs of ions, whose own attraction does not count: -1.747565 + 1 of e^2 / r each."""
    steps = torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * 3)
    even = steps[(steps.sum(1) % 2 == 0)] * SALT / 2  # sodium; its chloride lies along x
    cell = 2 * SALT * torch.eye(3, dtype=torch.float64)
    energy = SiteEnergy(PAIR, len(even), cell, tolerance=1e-9)
    found = energy(even[None], torch.eye(3, dtype=torch.float64).expand(1, len(even), 3, 3))
    expected = len(even) * COULOMB / (SALT / 2) * (1 - 1.747564594633)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_the_cut_off_does_not_matter_to_charges() -> None:
    cell, places, turns = some_water(27)
    bare = replace(TIP4P_EW, epsilon=torch.zeros(4, dtype=torch.float64))
    wide, narrow = (SiteEnergy(bare, 27, cell, cutoff=c, tolerance=1e-9)(places, turns) for c in (4.6, 3.9))
    torch.testing.assert_close(wide, narrow, rtol=1e-5, atol=1e-5)


def test_what_does_not_matter() -> None:
    """Cells chosen for each molecule, a common shift, the order of molecules, and the batch."""
    cell, places, turns = some_water()
    energy = SiteEnergy(TIP4P_EW, 8, cell)
    here = energy(places, turns)
    hops = torch.randint(-2, 3, places.shape, generator=torch.Generator().manual_seed(1)).double()
    order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    for other in (
        energy(places + hops @ cell, turns),
        energy(places + torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64), turns),
        energy(places[:, order], turns[:, order]),
        torch.stack([energy(x, R) for x, R in zip(places, turns)]),
    ):
        torch.testing.assert_close(other, here, rtol=1e-9, atol=1e-9)


def test_forces_are_minus_the_slope() -> None:
    cell, places, turns = some_water(batch=1)
    energy = SiteEnergy(TIP4P_ICE, 8, cell)
    places = places.requires_grad_()
    (slope,) = torch.autograd.grad(energy(places, turns).sum(), places)
    step = torch.zeros_like(places)
    step[0, 2, 1] = 1e-5
    with torch.no_grad():
        measured = (energy(places + step, turns) - energy(places - step, turns)) / 2e-5
    assert float(measured) == pytest.approx(float(slope[0, 2, 1]), rel=1e-6)


def test_two_molecules_in_a_large_cell_see_each_other_alone() -> None:
    """The sum of their charges' Coulomb energies, to what images add."""
    cell = 60 * torch.eye(3, dtype=torch.float64)
    turns = torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3)
    bare = replace(TIP4P_EW, epsilon=torch.zeros(4).double())
    energy = SiteEnergy(bare, 2, cell, tolerance=1e-8)

    def at(r: float) -> tuple[float, float]:
        places = torch.tensor([[[0.0, 0, 0], [r, 0, 0]]], dtype=torch.float64)
        one, two = bare.sites, bare.sites + places[0, 1]
        q = bare.charges
        direct = COULOMB * (q[:, None] * q / torch.cdist(one, two)).sum()
        return float(energy(places, turns)), float(direct)

    (near, near_direct), (far, far_direct) = at(6.0), at(9.0)
    assert near - far == pytest.approx(near_direct - far_direct, rel=5e-3)


def test_bad_cells_and_charges_are_refused() -> None:
    cell = 7.0 * torch.eye(3, dtype=torch.float64)
    with pytest.raises(InputError, match="cut-off of at most half"):
        SiteEnergy(TIP4P_EW, 8, cell, cutoff=4.0)
    with pytest.raises(InputError, match="neutral"):
        SiteEnergy(replace(PAIR, charges=torch.tensor([1.0, 0.0]).double()), 1, cell)


def test_openmm_gives_the_same_energies() -> None:
    """Switch, dispersion correction and all; Ewald sums in OpenMM to 1e-5 of the energy."""
    openmm = pytest.importorskip("openmm")
    cell, places, turns = some_water(27, batch=4)
    energy = SiteEnergy(TIP4P_EW, 27, cell)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*row) for row in (cell / 10).tolist()))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.Ewald)
    force.setCutoffDistance(energy.cutoff / 10)
    force.setEwaldErrorTolerance(energy.tolerance)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.9 * energy.cutoff / 10)
    force.setUseDispersionCorrection(True)
    for n in range(27):
        for k in range(4):
            system.addParticle(1.0)
            force.addParticle(
                float(TIP4P_EW.charges[k]),
                float(TIP4P_EW.sigma[k]) / 10 or 0.1,
                float(TIP4P_EW.epsilon[k]) / KJ_PER_MOL,
            )
        for a in range(4):
            for b in range(a):
                force.addException(4 * n + a, 4 * n + b, 0, 1, 0)
    # OpenMM chooses the waves of Ewald sums by the tolerance, too few of them for a test: more, the same screening
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setPMEParameters(10 * energy.screening, 96, 96, 96)
    system.addForce(force)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    found = energy(places, turns) / KJ_PER_MOL
    sites = places[..., None, :] + TIP4P_EW.sites @ turns.mT
    for x, ours in zip(sites, found):
        context.setPositions([openmm.Vec3(*row) for row in (x.reshape(-1, 3) / 10).tolist()])
        theirs = context.getState(getEnergy=True).getPotentialEnergy()._value
        assert math.isclose(float(ours), theirs, rel_tol=1e-5, abs_tol=1e-3)
