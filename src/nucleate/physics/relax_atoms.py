"""All-atom relaxation: molecules and cell free, any energy model; then: are they still the same molecules?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from ase.neighborlist import neighbor_list
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from nucleate.crystal.crystal import Crystal
from nucleate.errors import EnergyModelError
from nucleate.far_end import reply_to
from nucleate.physics.ase_model import ModelCalculator, atoms_of
from nucleate.physics.energy import EnergyModel
from nucleate.physics.process import ProcessModel
from nucleate.physics.worker import answer

FORMED, BROKEN = 1.2, 1.3  # times the sum of covalent radii; the gap leaves stretched bonds in peace

Pair = tuple[int, int, int, int, int]  # atom i in the cell, atom j, lattice shift of j


class RelaxAtomsSettings(BaseModel, frozen=True, extra="forbid"):
    """When a relaxation of atoms and cell is done, and when it is given up."""

    fmax: PositiveFloat = 0.05  # eV/Å, largest force on an atom
    smax: PositiveFloat = 1e-3  # eV/Å^3 (0.16 GPa), largest row of the stress
    max_steps: PositiveInt = 500
    time_limit: Annotated[float, Field(gt=0)] = 600.0  # s a structure; what was reached by then is returned
    optimiser: Literal["fire", "lbfgs"] = "lbfgs"
    free_cell: bool = True


DEFAULTS = RelaxAtomsSettings()


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Where the relaxation of one crystal ended. Without an energy it failed, and `crystal` is the start."""

    crystal: Crystal
    energy: float | None  # eV per cell
    converged: bool
    steps: int
    connectivity_kept: bool
    reason: str  # why it failed, stopped early, or is no longer the same molecules; empty if all is well
    seconds: float


def relax_atoms(
    crystals: Sequence[Crystal],
    model: EnergyModel,
    settings: RelaxAtomsSettings = DEFAULTS,
    molecules: bool = True,
) -> list[Relaxed]:
    """Relax each crystal with every atom and the cell (its logarithmic strain) free.

    A model with its own process relaxes there, with its time limit for a hung step; others relax here. One
    result for each crystal, in order; failures are results with a reason. Bonds are compared before and
    after: broken or new ones, and protons that moved, are named. Where there are no `molecules` they are not.
    """
    asked: dict[str, Any] = settings.model_dump()
    if isinstance(model, ProcessModel):
        replies = model.ask_all("relax", crystals, asked, settings.time_limit + model.settings.time_limit)
    else:
        replies = [_relax_here(crystal, model, asked) for crystal in crystals]
    return [_relaxed(crystal, reply, molecules) for crystal, reply in zip(crystals, replies)]


def _relax_here(crystal: Crystal, model: EnergyModel, settings: dict[str, Any]) -> dict[str, Any]:
    if refusal := model.capability.refusal(crystal):
        return {"failure": refusal, "seconds": 0.0}
    atoms = atoms_of(crystal)
    request = {
        "verb": "relax",
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "cell": atoms.cell.array,
        "settings": settings,
    }
    return reply_to(request, partial(answer, calculator=ModelCalculator(model, crystal)))


def _relaxed(crystal: Crystal, reply: dict[str, Any], molecules: bool) -> Relaxed:
    if "failure" in reply:
        return Relaxed(crystal, None, False, 0, True, reply["failure"], reply["seconds"])
    lattice = torch.tensor(reply["cell"], dtype=torch.float64)
    positions = torch.tensor(reply["positions"], dtype=torch.float64).reshape(-1, 3)
    after = crystal.replace(lattice=lattice, frac=positions @ torch.linalg.inv(lattice))
    changes = connectivity_changes(crystal, after) if molecules else []
    reason = "; ".join([*([reply["reason"]] if reply["reason"] else []), *changes])
    return Relaxed(
        after, reply["energy"], reply["converged"], reply["steps"], not changes, reason, reply["seconds"]
    )


def connectivity_changes(before: Crystal, after: Crystal) -> list[str]:
    """What happened to the bonds, in words; empty if nothing did. Same atoms in the same order, unwrapped.

    A bond is broken beyond `BROKEN` times the sum of covalent radii (Cordero et al., Dalton Trans. 2008,
    2832) and formed within `FORMED` times it; contacts that were near before do not count. A hydrogen
    that broke with one atom and is bonded to another is a proton transfer.
    """
    if len(before) != len(after) or not torch.equal(before.numbers, after.numbers):
        raise EnergyModelError("expected the same atoms in the same order before and after a relaxation")
    near_before = _near(before, BROKEN)
    bonds = {_canonical(i, j, 0, 0, 0) for i, j in before.bonds.tolist()} or _near(before, FORMED)
    broken = (bonds & near_before) - _near(after, BROKEN)
    contacts = _near(after, FORMED) - bonds
    moved = _protons(before, broken, contacts)
    taken = {pair for two in moved.values() for pair in two}
    label = [f"{chemical_symbols[z]}{i}" for i, z in enumerate(before.numbers.tolist(), start=1)]
    words = [
        f"proton {label[h]} moved from {label[_other(old, h)]} to {label[_other(new, h)]}"
        for h, (old, new) in moved.items()
    ]
    words += [f"bond {label[p[0]]}-{label[p[1]]} broke" for p in sorted(broken - taken)]
    return words + [f"new bond {label[p[0]]}-{label[p[1]]}" for p in sorted(contacts - near_before - taken)]


def _protons(crystal: Crystal, broken: set[Pair], contacts: set[Pair]) -> dict[int, tuple[Pair, Pair]]:
    """Hydrogens with a broken bond and a new partner: atom -> (old pair, new pair)."""
    hydrogen = (crystal.numbers == 1).tolist()
    gained = {atom: pair for pair in sorted(contacts) for atom in pair[:2] if hydrogen[atom]}
    return {
        atom: (pair, gained[atom])
        for pair in sorted(broken)
        for atom in pair[:2]
        if hydrogen[atom] and atom in gained
    }


def _other(pair: Pair, atom: int) -> int:
    return pair[1] if pair[0] == atom else pair[0]


def _near(crystal: Crystal, factor: float) -> set[Pair]:
    """Pairs closer than `factor` times the sum of their covalent radii, each once, with the lattice shift."""
    atoms = atoms_of(crystal)
    radii = factor * covalent_radii[atoms.numbers]
    i, j, shift = neighbor_list("ijS", atoms, list(radii))
    rows = np.column_stack([i, j, shift])
    first = (i < j) | ((i == j) & _leading_positive(shift))
    return {tuple(row) for row in rows[first].tolist()}


def _leading_positive(shift: np.ndarray) -> np.ndarray:
    """Of a shift and its negative, exactly one is leading positive."""
    return (shift @ np.array([1_000_000, 1_000, 1])) > 0


def _canonical(i: int, j: int, *shift: int) -> Pair:
    a, b, c = shift
    return (i, j, a, b, c) if i < j else (j, i, -a, -b, -c)
