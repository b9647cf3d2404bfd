"""Any ASE calculator as an energy model, and any energy model as an ASE calculator."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from nucleate.crystal.crystal import Crystal
from nucleate.errors import EnergyModelError, InputError
from nucleate.physics.energy import Capability, EnergyModel, ProcessSettings
from nucleate.physics.process import ProcessModel

UNKNOWN = Capability(
    elements=None,
    ions=True,
    stress=True,
    deterministic=False,
    licence="see the calculator",
    citation="see the calculator",
    notes="Nothing is known about this calculator; run `self_test` before trusting it.",
)


def ase_model(name: str, options: Mapping[str, Any], process: ProcessSettings) -> ProcessModel:
    """`ase:module:Class` (or a function that returns a calculator), made with `options`, in its own process.

    The module is imported by the worker: an installed package, a module in the current folder, or the path of
    a .py file (`ase:/home/me/potential.py:Mine`). Raises InputError for a name of another form; whether the
    class exists, the worker finds out (`start`).
    """
    parts = name.split(":", 1)[1].rsplit(":", 1) if ":" in name else []
    if len(parts) != 2 or not parts[1].isidentifier() or not parts[0]:
        raise InputError(
            f"expected ase:module:Class, such as ase:ase.calculators.lj:LennardJones, got {name!r}",
            reason="unknown energy model",
        )
    source, calculator = parts
    recipe = {"source": source, "name": calculator, "options": dict(options)}
    return ProcessModel(name, UNKNOWN, recipe, process)


class ModelCalculator(Calculator):
    """An `EnergyModel` as an ASE calculator, for atoms that began as `crystal` (same atoms, same order)."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012  (ASE wants a list)

    def __init__(self, model: EnergyModel, crystal: Crystal) -> None:
        super().__init__()
        self.model, self.crystal = model, crystal

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        [answer] = self.model.evaluate([moved(self.crystal, atoms)], gradient=True)
        if answer.failure is not None or answer.energy is None or answer.forces is None:
            raise EnergyModelError(answer.failure or f"{self.model.name} gave no forces")
        self.results = {"energy": answer.energy, "forces": answer.forces.numpy()}
        if answer.stress is not None:
            self.results["stress"] = answer.stress.numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def atoms_of(crystal: Crystal) -> Atoms:
    """The crystal for ASE; atoms are not wrapped, so molecules stay whole."""
    return Atoms(
        crystal.numbers.numpy(),
        crystal.positions.double().numpy(),
        cell=crystal.lattice.double().numpy(),
        pbc=True,
    )


def moved(crystal: Crystal, atoms: Atoms) -> Crystal:
    """The crystal with the positions and the cell of `atoms`; everything else as it was."""
    lattice = torch.tensor(np.asarray(atoms.cell.array), dtype=torch.float64)
    positions = torch.tensor(atoms.get_positions(), dtype=torch.float64)
    return crystal.replace(lattice=lattice, frac=positions @ torch.linalg.inv(lattice))
