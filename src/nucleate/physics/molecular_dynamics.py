"""Langevin dynamics of a crystal of rigid molecules in a fixed cell, by OpenMM (an extra): samples at a temperature.

    places, turns --atoms, constraints, virtual sites--> OpenMM --every 500 steps--> places, turns, energies

The middle scheme of Langevin dynamics (Zhang et al., J. Phys. Chem. A 123, 6056 (2019)) with rigid molecules held by
constraints, Lennard-Jones with OpenMM's switch and dispersion correction, and particle-mesh Ewald sums: the energy of
`rigid_sites.SiteEnergy` to the tolerance of the sums.

Frames come in chunks. Each chunk begins at the last frame of the one before with velocities drawn anew, which leaves
the distribution as it is; so a run that was stopped goes on from its last frame as if it had not been.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.errors import InputError, NucleateError
from nucleate.geometry.so3 import kabsch, matrix_to_quaternion, quaternion_to_matrix
from nucleate.physics.parameters import BOLTZMANN, KJ_PER_MOL
from nucleate.physics.rigid_sites import RigidSites, SiteEnergy

NM = 10.0  # Å
CONSTRAINTS = 1e-6  # relative error of distances
PLANE = 1e-6  # Å, how far a virtual site may be from the plane of its atoms
RIGID = 1e-3  # Å, how far atoms may be off the body before something is wrong
LOWERING = 200  # steps of minimisation at the start, enough to part what is too near


@dataclass(frozen=True)
class DynamicsSettings:
    """How to sample. Step, friction, frames and sums are those of the published free energies of ice XI."""

    step: float = 1.0  # fs
    friction: float = 1.0  # 1/ps
    every: int = 500  # steps between frames
    settling: int = 50_000  # steps before the first frame
    chunk: int = 500  # frames between fresh velocities, and the most that is lost where a run stops
    cutoff: float = 0.0  # Å; 0: the most that fits, 10 Å at most
    tolerance: float = 1e-4  # of Ewald sums
    platform: str = "CPU"  # of OpenMM; Reference is exact to double precision and six times slower

    def __post_init__(self) -> None:
        if min(self.step, self.friction, self.every, self.chunk, self.tolerance) <= 0 or self.settling < 0:
            raise InputError(f"expected positive settings of the dynamics, got {self}")


class Sampled(NamedTuple):
    """Frames that follow one another. Places are continuous: they do not jump back into the cell."""

    places: Float[Tensor, "frames molecules 3"]  # Å
    turns: Float[Tensor, "frames molecules 4"]
    energies: Float[Tensor, " frames"]  # eV, potential
    heat: Float[Tensor, " frames"]  # K, the kinetic temperature


def simulate(
    molecule: RigidSites,
    cell: Float[Tensor, "3 3"],
    places: Float[Tensor, "molecules 3"],
    turns: Float[Tensor, "molecules 4"],
    temperature: float,
    frames: int,
    seed: int = 0,
    settings: DynamicsSettings = DynamicsSettings(),
    done: int = 0,
) -> Iterator[Sampled]:
    """Chunks of `frames` frames in all at a temperature (K), the first after minimisation and settling.

    A run goes on with `done`, the number of frames that it gave before, and the last of them as places and turns.
    One thread. Raises InputError where OpenMM is missing or the molecule is none that it can hold rigid here.
    """
    if temperature <= 0 or frames < 0:
        raise InputError(f"expected a positive temperature and frames, got {temperature} K, {frames} frames")
    run = _Run(molecule, cell, len(places), temperature, settings)
    while done < frames:
        run.start(places, turns, seed=_seed(seed, done), settle=done == 0)
        sampled = run.sample(min(settings.chunk - done % settings.chunk, frames - done))
        places, turns, done = sampled.places[-1], sampled.turns[-1], done + len(sampled.energies)
        yield sampled


class _Run:
    """An OpenMM context of n molecules."""

    def __init__(
        self,
        molecule: RigidSites,
        cell: Float[Tensor, "3 3"],
        n: int,
        temperature: float,
        settings: DynamicsSettings,
    ) -> None:
        self.mm, self.molecule, self.n, self.settings = _openmm(), molecule, n, settings
        self.integrator = self.mm.LangevinMiddleIntegrator(
            temperature, settings.friction, settings.step / 1000
        )
        self.integrator.setConstraintTolerance(CONSTRAINTS)
        self.temperature = temperature
        system = rigid_system(molecule, cell, n, settings.cutoff, settings.tolerance)
        platform = self.mm.Platform.getPlatformByName(settings.platform)
        properties = {"Threads": "1"} if settings.platform == "CPU" else {}
        self.context = self.mm.Context(system, self.integrator, platform, properties)
        self.free = 3 * int((molecule.masses > 0).sum()) * n - system.getNumConstraints()

    def start(
        self, places: Float[Tensor, "n 3"], turns: Float[Tensor, "n 4"], seed: int, settle: bool
    ) -> None:
        sites = places[:, None] + self.molecule.sites @ quaternion_to_matrix(turns).mT
        self.integrator.setRandomNumberSeed(seed)
        self.context.reinitialize()  # a context takes its random numbers when it is made
        self.context.setPositions((sites.flatten(0, 1) / NM).numpy())
        self.context.applyConstraints(CONSTRAINTS)
        self.context.computeVirtualSites()
        if settle:
            self.mm.LocalEnergyMinimizer.minimize(self.context, 10.0, LOWERING)
        self.context.setVelocitiesToTemperature(self.temperature, seed)
        if settle:
            self._advance(self.settings.settling)

    def sample(self, frames: int) -> Sampled:
        positions, energies, kinetic = [], [], []
        for _ in range(frames):
            self._advance(self.settings.every)
            state = self.context.getState(positions=True, energy=True)
            positions.append(state.getPositions(asNumpy=True)._value)
            energies.append(state.getPotentialEnergy()._value)
            kinetic.append(state.getKineticEnergy()._value)
        x = NM * torch.from_numpy(np.stack(positions)).unflatten(1, (self.n, len(self.molecule)))
        bodies = placed(self.molecule, x)
        worst = float(bodies.misfit.max())
        if not worst < RIGID:
            raise NucleateError(f"expected rigid molecules, got atoms {worst:.2g} Å off; take a shorter step")
        heat = 2 * KJ_PER_MOL / BOLTZMANN / self.free * torch.tensor(kinetic, dtype=torch.float64)
        potential = KJ_PER_MOL * torch.tensor(energies, dtype=torch.float64)
        return Sampled(bodies.places, bodies.turns, potential, heat)

    def _advance(self, steps: int) -> None:
        try:
            self.integrator.step(steps)
        except self.mm.OpenMMException as error:
            raise NucleateError(
                f"dynamics at {self.temperature:g} K broke ({error}); take a shorter step, or begin elsewhere"
            ) from None


class Placed(NamedTuple):
    """Rigid bodies, from where their sites are."""

    places: Float[Tensor, "*batch 3"]  # Å
    turns: Float[Tensor, "*batch 4"]
    misfit: Float[Tensor, "*batch"]  # Å, root mean square by mass; 0 for what is rigid


def placed(molecule: RigidSites, x: Float[Tensor, "*batch sites 3"]) -> Placed:
    """Where the body's origin is and how it is turned, from all its sites (Å); exact for what is rigid.

    Atoms are weighed by mass, so that rounding moves heavy ones least.
    """
    body = molecule.sites.to(x).expand_as(x)
    fit = kabsch(body, x, molecule.masses.to(x).expand(x.shape[:-1]))
    return Placed(fit.translation, matrix_to_quaternion(fit.rotation), fit.rmsd)


def rigid_system(
    molecule: RigidSites, cell: Float[Tensor, "3 3"], n: int, cutoff: float = 0.0, tolerance: float = 1e-4
) -> Any:
    """OpenMM's system of n rigid molecules of three atoms and sites in their plane."""
    mm = _openmm()
    energy = SiteEnergy(molecule, n, cell, cutoff, tolerance)
    atoms = (molecule.masses > 0).nonzero().flatten().tolist()
    if molecule.exp6 is not None:
        raise InputError(
            f"expected a Lennard-Jones molecule for OpenMM, got exp-6 atoms ({molecule.name}); use --sampler own"
        )
    if len(atoms) != 3:
        raise InputError(f"expected a molecule of three atoms and massless sites, got {len(atoms)} atoms")
    system = mm.System()
    system.setDefaultPeriodicBoxVectors(*(mm.Vec3(*row) for row in (cell / NM).tolist()))
    force = _nonbonded(mm, energy)
    for start in range(0, n * len(molecule), len(molecule)):
        _add_molecule(mm, system, force, molecule, start, atoms)
    system.addForce(force)
    return system


def _nonbonded(mm: Any, energy: SiteEnergy) -> Any:
    force = mm.NonbondedForce()
    force.setNonbondedMethod(mm.NonbondedForce.PME)
    force.setCutoffDistance(energy.cutoff / NM)
    force.setEwaldErrorTolerance(energy.tolerance)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(energy.switch * energy.cutoff / NM)
    force.setUseDispersionCorrection(True)
    return force


def _add_molecule(
    mm: Any, system: Any, force: Any, molecule: RigidSites, start: int, atoms: list[int]
) -> None:
    for k in range(len(molecule)):
        system.addParticle(float(molecule.masses[k]))
        epsilon = float(molecule.epsilon[k])
        sigma = float(molecule.sigma[k]) / NM if epsilon > 0 else 0.1  # of what has none any will do
        force.addParticle(float(molecule.charges[k]), sigma, epsilon / KJ_PER_MOL)
        for other in range(k):
            force.addException(start + k, start + other, 0.0, 1.0, 0.0)
        if k not in atoms:
            three = [start + a for a in atoms]
            site = mm.ThreeParticleAverageSite(*three, *_shares(molecule, atoms, k))
            system.setVirtualSite(start + k, site)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        a, b = atoms[i], atoms[j]
        distance = float((molecule.sites[a] - molecule.sites[b]).norm()) / NM
        system.addConstraint(start + a, start + b, distance)


def _shares(molecule: RigidSites, atoms: list[int], site: int) -> list[float]:
    """Weights of three atoms, 1 in sum, whose mean is a site in their plane."""
    x, place = molecule.sites[atoms].double(), molecule.sites[site].double()
    edges = (x[1:] - x[0]).mT  # 3 x 2
    along = torch.linalg.pinv(edges) @ (place - x[0])
    off = float((edges @ along - (place - x[0])).norm())
    if off > PLANE:
        raise InputError(f"expected sites in the plane of the three atoms, got one {off:.3g} Å off")
    second, third = along.tolist()
    return [1 - second - third, second, third]


def _seed(seed: int, done: int) -> int:
    """Of OpenMM: 31 bits, never 0, which would mean any."""
    return (seed * 1_000_003 + done * 7_919 + 1) % (2**31 - 1) + 1


def _openmm() -> Any:
    try:
        import openmm
    except ImportError:
        raise InputError(
            "molecular dynamics needs the package openmm, which is not installed here; "
            "pip install 'nucleate[free-energy]'"
        ) from None
    return openmm
