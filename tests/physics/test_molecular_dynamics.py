"""Dynamics of rigid water by OpenMM: energies as ours, the temperature asked for, molecules that stay rigid."""

import sys
from dataclasses import replace

import pytest
import torch

from nucleate.errors import InputError, NucleateError
from nucleate.geometry.so3 import quaternion_to_matrix, random_rotation
from nucleate.physics.molecular_dynamics import DynamicsSettings, Sampled, placed, rigid_system, simulate
from nucleate.physics.rigid_sites import TIP4P_EW, TIP4P_ICE, RigidSites, SiteEnergy

CELL = torch.diag(torch.tensor([8.9846, 7.7808, 7.3358], dtype=torch.float64))
QUICK = DynamicsSettings(every=20, settling=200, chunk=4)


def grid(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight molecules far enough apart in the cell, turned at random; quaternions."""
    halves = torch.tensor([0.0, 0.5], dtype=torch.float64)
    turns = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.cartesian_prod(halves, halves, halves) @ CELL, turns / turns.norm(dim=1, keepdim=True)


def run(
    frames: int,
    seed: int = 0,
    settings: DynamicsSettings = QUICK,
    molecule: RigidSites = TIP4P_EW,
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
    done: int = 0,
) -> Sampled:
    pytest.importorskip("openmm")
    places, turns = start or grid()
    chunks = list(simulate(molecule, CELL, places, turns, 250.0, frames, seed, settings, done))
    assert all(len(chunk.energies) <= settings.chunk for chunk in chunks)
    return Sampled(*(torch.cat(parts) for parts in zip(*chunks)))


@pytest.mark.extra
@pytest.mark.parametrize("molecule", [TIP4P_EW, TIP4P_ICE], ids=lambda m: m.name)
def test_energies_are_those_of_site_energy(molecule: RigidSites) -> None:
    """To the tolerance of its Ewald sums, from places and turns: so these say where the atoms are."""
    found = run(6, molecule=molecule)
    ours = SiteEnergy(molecule, 8, CELL)(found.places, quaternion_to_matrix(found.turns))
    assert len(ours) == 6
    assert ((found.energies - ours).abs() < 1e-4 * ours.abs()).all()
    assert found.energies.std() > 100 * (found.energies - ours).std()


@pytest.mark.extra
def test_the_temperature_is_the_one_asked_for() -> None:
    """48 degrees of freedom, 2 T^2 / 48 of variance in each of frames 50 fs apart and strong friction."""
    settings = replace(QUICK, every=50, friction=50.0, chunk=30)
    heat = run(60, settings=settings).heat
    error = 250 * (2 / 48 / 60) ** 0.5
    assert float(heat.mean()) == pytest.approx(250, abs=5 * error)
    assert float(heat.std()) == pytest.approx(250 * (2 / 48) ** 0.5, rel=0.3)


@pytest.mark.extra
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been() -> None:
    settings = replace(QUICK, platform="Reference", settling=5, every=2)
    whole, first = run(6, 3, settings), run(4, 3, settings)
    rest = run(6, 3, settings, start=(first.places[-1], first.turns[-1]), done=4)
    torch.testing.assert_close(torch.cat([first.places, rest.places]), whole.places, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat([first.energies, rest.energies]), whole.energies, atol=1e-4, rtol=0)
    assert (run(4, 4, settings).places - first.places).abs().max() > 1e-3


@pytest.mark.extra
def test_bad_molecules_are_refused() -> None:
    pytest.importorskip("openmm")
    places, turns = grid()
    off = replace(
        TIP4P_EW, sites=TIP4P_EW.sites + torch.tensor([0, 1.0, 0]) * (TIP4P_EW.masses == 0)[:, None]
    )
    with pytest.raises(InputError, match="in the plane"):
        next(simulate(off, CELL, places, turns, 250.0, 1))
    two = replace(TIP4P_EW, masses=torch.tensor([16.0, 1.0, 0.0, 0.0]))
    with pytest.raises(InputError, match="three atoms"):
        next(simulate(two, CELL, places, turns, 250.0, 1))
    atoms = replace(TIP4P_EW, exp6=torch.ones(4, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="--sampler own"):
        rigid_system(atoms, CELL, 8)


def test_places_and_turns_of_a_rigid_body_are_exact() -> None:
    rotations = random_rotation(5, generator=torch.Generator().manual_seed(0))
    where = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = where[:, None] + TIP4P_EW.sites @ rotations.mT
    found = placed(TIP4P_EW, x)
    torch.testing.assert_close(found.places, where)
    torch.testing.assert_close(quaternion_to_matrix(found.turns), rotations)
    assert (found.misfit < 1e-6).all()
    stretched = x + 0.1 * (TIP4P_EW.masses < 2)[:, None] * (x - where[:, None])
    assert (placed(TIP4P_EW, stretched).misfit > 0.01).all()


@pytest.mark.extra
def test_bonds_keep_their_lengths_or_it_says_so() -> None:
    """Constraints hold all atoms on the body to 1e-4 Å; with a step of 40 fs nothing holds."""
    openmm = pytest.importorskip("openmm")
    places, turns = grid()
    system = rigid_system(TIP4P_EW, CELL, 8)
    integrator = openmm.LangevinMiddleIntegrator(250, 1.0, 0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
    x = places[:, None] + TIP4P_EW.sites @ quaternion_to_matrix(turns).mT
    context.setPositions((x.flatten(0, 1) / 10).numpy())
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 50)
    for _ in range(5):
        integrator.step(20)
        now = 10 * torch.from_numpy(context.getState(positions=True).getPositions(asNumpy=True)._value)
        assert (placed(TIP4P_EW, now.unflatten(0, (8, 4))).misfit < 1e-4).all()
    with pytest.raises(NucleateError, match="shorter step"):
        run(4, settings=replace(QUICK, step=40.0))


def test_without_openmm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openmm", None)
    places, turns = grid()
    with pytest.raises(InputError, match=r"nucleate\[free-energy\]"):
        next(simulate(TIP4P_EW, CELL, places, turns, 250.0, 1))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="positive settings"):
        DynamicsSettings(every=0)
    with pytest.raises(InputError, match="positive temperature"):
        next(simulate(TIP4P_EW, CELL, *grid(), -1.0, 1))
