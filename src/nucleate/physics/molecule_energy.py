"""Energies and minima of one molecule in open space: MMFF94 (RDKit) for many conformers, GFN2-xTB (tblite) for a few.

graph, positions --optimise_mmff--> Optimised       a conformer of a small molecule in milliseconds
numbers, positions, charge --gfn2--> XtbState       a minimum in seconds, and the gap of its orbitals
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize import BFGS
from jaxtyping import Bool, Float, Int
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers
from torch import Tensor

from nucleate.errors import InputError
from nucleate.physics.charges import mmff_properties
from nucleate.physics.energy import ProcessSettings, Requirement
from nucleate.physics.parameters import KCAL_PER_MOL

HEAVIEST = 86  # radon, the last element of GFN2-xTB


@dataclass(frozen=True, eq=False)
class Optimised:
    """Conformers of one molecule in a force field."""

    positions: Float[Tensor, "conformers atoms 3"]  # Å
    energies: Float[Tensor, " conformers"]  # eV; comparable among conformers only
    converged: Bool[Tensor, " conformers"]
    method: str  # MMFF94, or UFF where that does not fit the molecule


@dataclass(frozen=True, eq=False)
class XtbState:
    """One conformer in GFN2-xTB; energy and gap are NaN where the electrons did not converge."""

    positions: Float[Tensor, "atoms 3"]  # Å
    energy: float  # eV, total
    gap: float  # eV, between the highest occupied and the lowest empty orbital; NaN where there is no empty one
    force: float  # eV/Å, on the atom with the largest
    converged: bool  # the electrons, and where a minimum was asked for the atoms


# ---------------------------------------------------------------- force field


def optimise_mmff(
    graph: Chem.Mol,
    positions: Float[Tensor, "conformers atoms 3"],
    dielectric: float = 1.0,
    steps: int = 1000,
    deadline: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Optimised:
    """The minimum (Å) that each conformer leads to, and its energy; with no steps the energies of what was given.

    Of those that `deadline` (`time.monotonic()`) leaves no time for nothing is given back, but always of the first.
    `progress` is told the number of each before it is begun. `dielectric` screens the charges of MMFF94: 1 in vacuum.
    Raises InputError with reason "unknown element" where neither MMFF94 nor UFF knows an atom.
    """
    full = Chem.Mol(graph)
    properties = mmff_properties(full)
    if properties is not None:
        properties.SetMMFFDielectricConstant(float(dielectric))
    done: list[tuple[Float[Tensor, "atoms 3"], float, bool]] = []
    for number, x in enumerate(positions):
        if done and deadline is not None and time.monotonic() > deadline:
            break
        if progress is not None:
            progress(number)
        done.append(_optimised(full, properties, x, steps))
    places = torch.stack([x for x, _, _ in done]) if done else positions.double()
    return Optimised(
        positions=places,
        energies=torch.tensor([energy for _, energy, _ in done], dtype=torch.float64),
        converged=torch.tensor([ended for _, _, ended in done], dtype=torch.bool),
        method="UFF" if properties is None else "MMFF94",
    )


def _optimised(
    graph: Chem.Mol, properties: Any | None, positions: Float[Tensor, "atoms 3"], steps: int
) -> tuple[Float[Tensor, "atoms 3"], float, bool]:
    """Positions, energy (eV), and whether the minimiser came to an end."""
    conformer = Chem.Conformer(len(positions))
    conformer.SetPositions(np.ascontiguousarray(positions.double().numpy()))
    graph.RemoveAllConformers()
    graph.AddConformer(conformer)
    mmff = rdForceFieldHelpers.MMFFGetMoleculeForceField
    field = _uff(graph) if properties is None else mmff(graph, properties)
    if field is None:
        raise InputError(
            f"neither MMFF94 nor UFF knows all atoms of {Chem.MolToSmiles(Chem.RemoveHs(graph, sanitize=False))}; "
            "leave its conformers as they are, or optimise them with GFN2-xTB",
            reason="unknown element",
        )
    ended = steps == 0 or field.Minimize(maxIts=steps) == 0
    return (
        torch.tensor(field.Positions(), dtype=torch.float64).reshape(-1, 3),
        field.CalcEnergy() * KCAL_PER_MOL,
        ended,
    )


def _uff(graph: Chem.Mol) -> Any | None:
    with rdBase.BlockLogs():  # where it lacks an atom it would go on without
        known = rdForceFieldHelpers.UFFHasAllMoleculeParams(graph)
        return rdForceFieldHelpers.UFFGetMoleculeForceField(graph) if known else None


# ---------------------------------------------------------------- GFN2-xTB


def gfn2(
    numbers: Int[Tensor, " atoms"],
    positions: Float[Tensor, "atoms 3"],
    charge: int = 0,
    unpaired: int = 0,
    optimise: bool = False,
    force: float = 0.05,
    steps: int = 200,
    deadline: float | None = None,
) -> XtbState:
    """Energy and gap of one conformer, or of the minimum that it leads to (`optimise`).

    A minimum is where no atom feels more than `force` (eV/Å); after `steps`, or when `time.monotonic()` is past
    `deadline`, the last geometry is given back as not converged. Raises InputError where tblite is not installed, for
    elements beyond radon, and where the electrons cannot be paired as asked.
    """
    Requirement("tblite", "'nucleate[xtb]'").check("gfn2", ProcessSettings())
    _refuse(numbers, charge, unpaired)
    atoms = Atoms(numbers.numpy(), positions.double().numpy())
    atoms.calc = calculator = Gfn2(charge, unpaired)
    still = not optimise
    try:
        with _one_thread():
            atoms.get_potential_energy()
            if optimise:
                still = _relax(atoms, force, steps, deadline)
    except ElectronsError:
        return XtbState(torch.from_numpy(atoms.get_positions()), math.nan, math.nan, math.nan, False)
    return XtbState(
        positions=torch.from_numpy(atoms.get_positions()),
        energy=float(atoms.get_potential_energy()),
        gap=calculator.gap,
        force=_largest(atoms),
        converged=still,
    )


class ElectronsError(Exception):
    """The electrons did not converge, which happens with atoms on top of each other."""


class Gfn2(Calculator):
    """GFN2-xTB of one open-shell or closed-shell molecule for ASE; starts from the electrons of the last geometry.

    tblite's own adapter for ASE keeps the orbitals to itself.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE wants a list)

    def __init__(self, charge: int, unpaired: int) -> None:
        super().__init__()
        self.charge, self.unpaired = charge, unpaired
        self.gap = math.nan  # eV, of the last geometry
        self._engine: Any = None
        self._electrons: Any = None

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        here: Any = self.atoms
        from tblite.interface import Calculator as Engine

        places = here.positions / units.Bohr
        try:
            if self._engine is None:
                self._engine = Engine("GFN2-xTB", here.numbers, places, charge=self.charge, uhf=self.unpaired)
                self._engine.set("verbosity", 0)
            else:
                self._engine.update(positions=places)
            self._electrons = found = self._engine.singlepoint(self._electrons)
        except RuntimeError as error:
            raise ElectronsError(" ".join(str(error).split())) from error
        self.results = {
            "energy": float(found["energy"]) * units.Hartree,
            "forces": -np.asarray(found["gradient"]) * units.Hartree / units.Bohr,
        }
        self.gap = _gap(found["orbital-energies"], found["orbital-occupations"]) * units.Hartree


@contextmanager
def _one_thread() -> Iterator[None]:
    """Molecules of this size gain nothing from several threads, and where cores are busy these wait for each other: a
    minimum took a hundred times as long. tblite and torch share the library that torch tells here.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _relax(atoms: Atoms, force: float, steps: int, deadline: float | None) -> bool:
    """Move the atoms to a minimum; True where they are there."""
    for _ in BFGS(atoms, logfile=None).irun(fmax=force, steps=steps):
        if deadline is not None and time.monotonic() > deadline:
            break
    return _largest(atoms) <= force


def _largest(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


def _gap(levels: np.ndarray, occupations: np.ndarray) -> float:
    """Between the highest level with an electron or more and the next one."""
    occupied = int((np.ravel(occupations) >= 0.99).sum())
    ordered = np.sort(np.ravel(levels))
    return float(ordered[occupied] - ordered[occupied - 1]) if occupied < len(ordered) else math.nan


def _refuse(numbers: Int[Tensor, " atoms"], charge: int, unpaired: int) -> None:
    if int(numbers.max()) > HEAVIEST:
        symbol = Chem.GetPeriodicTable().GetElementSymbol(int(numbers.max()))
        raise InputError(
            f"expected elements up to radon, which is what GFN2-xTB knows, got {symbol}",
            reason="unknown element",
        )
    electrons = int(numbers.sum()) - charge
    if electrons < unpaired or (electrons - unpaired) % 2:
        raise InputError(
            f"expected electrons that can be paired, got {electrons} of them with {unpaired} unpaired; "
            "check the charge, or say how many are unpaired",
            reason="radical",
        )
