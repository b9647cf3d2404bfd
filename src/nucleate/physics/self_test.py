"""Does an energy model obey the laws that any energy obeys? Measured on a crystal of the user's own.

E(2 x 1 x 1 cell) / 2 = E        a crystal does not know its cell
F · u = -dE/dx                   central difference, atom moved along u
V σ : e = dE/dε                  central difference, cell and positions strained by ε e
E(same again) = E                and the same alone as in a batch
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.errors import EnergyModelError
from nucleate.physics.energy import Energy, EnergyModel

STEP = 0.01  # Å; small enough for the third derivative of a bond, large enough for float32 energies
STRAIN = 0.002
PROBED_ATOMS, PROBED_STRAINS = 3, 2


@dataclass(frozen=True)
class SelfTest:
    """Largest deviations found. None: the model gives no stress, so there was nothing to compare."""

    supercell: float  # eV per atom
    force: float  # eV/Å
    stress: float | None  # eV/Å^3
    repeat: float  # eV per atom
    seconds: float  # of one energy with gradient

    def broken(
        self, *, supercell: float = 1e-3, force: float = 0.01, stress: float = 1e-4, repeat: float = 1e-5
    ) -> list[str]:
        """The laws that do not hold within these limits, in words; empty if all is well."""
        limits = {"supercell": supercell, "force": force, "stress": stress, "repeat": repeat}
        said = {
            "supercell": "the energy per atom changes by {:.2g} eV when the cell is doubled",
            "force": "a force differs from the energy's slope by {:.2g} eV/Å",
            "stress": "the stress differs from the energy's slope by {:.2g} eV/Å^3",
            "repeat": "the energy per atom of one crystal varies by {:.2g} eV from call to call",
        }
        found = {law: getattr(self, law) for law in limits}
        return [
            f"{said[law].format(value)} (limit {limits[law]:.2g})"
            for law, value in found.items()
            if value is not None and not value <= limits[law]
        ]


def self_test(model: EnergyModel, crystal: Crystal, seed: int = 0) -> SelfTest:
    """Compare a model's energies, forces and stress with each other on one crystal (some 14 energies).

    The atoms and strains probed follow from `seed`. The crystal should not be at a minimum, where all forces
    vanish and little is tested. Raises EnergyModelError where the model fails on it.
    """
    generator = torch.Generator().manual_seed(seed)
    crystal = crystal.replace(lattice=crystal.lattice.double(), frac=crystal.frac.double())
    atoms = torch.randperm(len(crystal), generator=generator)[:PROBED_ATOMS]
    ways = torch.nn.functional.normalize(
        torch.randn(len(atoms), 3, dtype=torch.float64, generator=generator), dim=1
    )
    draws = torch.randn(PROBED_STRAINS, 3, 3, dtype=torch.float64, generator=generator)
    strains = draws + draws.mT
    strains /= strains.norm(dim=(1, 2), keepdim=True)

    moved = [_move(crystal, a, s * STEP * u) for a, u in zip(atoms.tolist(), ways) for s in (1, -1)]
    strained = [_strain(crystal, s * STRAIN * e) for e in strains for s in (1, -1)]
    # The cell twice as large comes first: a calculator that is asked the same again may answer from memory.
    here = _sure(model.evaluate([crystal], gradient=True))[0]
    energies = [_energy(a) for a in _sure(model.evaluate([supercell(crystal), crystal, *moved, *strained]))]
    double, again, slopes = energies[0], energies[1], energies[2:]
    if here.forces is None:
        raise EnergyModelError(f"expected forces from {model.name!r} with gradient=True, got none")

    n, split = len(crystal), len(moved)
    differences = torch.tensor([a - b for a, b in pairwise(slopes)][::2], dtype=torch.float64)
    force = (here.forces.double()[atoms] * ways).sum(1) + differences[: split // 2] / (2 * STEP)
    work = differences[split // 2 :] / (2 * STRAIN * crystal.volume)
    stress = None if here.stress is None else (here.stress.double() * strains).sum((1, 2)) - work
    return SelfTest(
        supercell=abs(double / 2 - again) / n,
        force=float(force.abs().max()),
        stress=None if stress is None else float(stress.abs().max()),
        repeat=abs(again - _energy(here)) / n,
        seconds=here.seconds,
    )


def supercell(crystal: Crystal) -> Crystal:
    """Two cells side by side along a."""
    stretch = torch.diag(torch.tensor([2.0, 1.0, 1.0], dtype=crystal.lattice.dtype))
    frac = crystal.frac @ torch.linalg.inv(stretch)
    shift = torch.tensor([0.5, 0.0, 0.0], dtype=frac.dtype)
    return crystal.replace(
        lattice=stretch @ crystal.lattice,
        frac=torch.cat([frac, frac + shift]),
        numbers=crystal.numbers.repeat(2),
        molecule=torch.cat([crystal.molecule, crystal.molecule + crystal.n_molecules]),
        bonds=torch.cat([crystal.bonds, crystal.bonds + len(crystal)]),
        bond_types=crystal.bond_types * 2,
        charges=None if crystal.charges is None else crystal.charges.repeat(2),
    )


def _move(crystal: Crystal, atom: int, step: Float[Tensor, "3"]) -> Crystal:
    frac = crystal.frac.clone()
    frac[atom] += step @ torch.linalg.inv(crystal.lattice)
    return crystal.replace(frac=frac)


def _strain(crystal: Crystal, strain: Float[Tensor, "3 3"]) -> Crystal:
    return crystal.replace(lattice=crystal.lattice @ (torch.eye(3, dtype=strain.dtype) + strain))


def _sure(answers: list[Energy]) -> list[Energy]:
    for answer in answers:
        if answer.failure is not None:
            raise EnergyModelError(f"the self-test needs an energy, and the model failed: {answer.failure}")
    return answers


def _energy(answer: Energy) -> float:
    assert answer.energy is not None  # `_sure` has looked
    return answer.energy
