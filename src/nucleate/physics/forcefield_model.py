"""The built-in force field as an energy model of all atoms: what lies between molecules, for any crystal."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import build_graph
from nucleate.errors import InputError
from nucleate.geometry.symmetry import P1
from nucleate.physics.charges import mmff_charges
from nucleate.physics.energy import Capability, Energy, EnergyModel, ProcessSettings
from nucleate.physics.forcefield import FINAL, BodyArrays, exp6_tables
from nucleate.physics.parameters import VDW_RADII


class ForceFieldModel(EnergyModel):
    """FIT exp-6 with MMFF94 charges, between molecules only: forces within a molecule are not there.

    So it ranks crystals of one molecule at one geometry, and must not relax free molecules. The crystal's bonds
    decide what a molecule is.
    """

    name = "forcefield"

    def __init__(self) -> None:
        from rdkit import Chem

        table = Chem.GetPeriodicTable()
        self.capability = Capability(
            elements=frozenset(table.GetAtomicNumber(symbol) for symbol in VDW_RADII),
            ions=True,
            stress=True,
            deterministic=True,
            licence="MIT (nucleate)",
            citation="Coombes et al. 1996; Beyer & Price 2000; Mayo et al. 1990; Halgren 1996",
            notes="intermolecular energy only; molecules must be kept rigid",
        )
        self.tables = exp6_tables()

    def evaluate(self, crystals: Sequence[Crystal], *, gradient: bool = False) -> list[Energy]:
        return [self._one(crystal, gradient) for crystal in crystals]

    def _one(self, crystal: Crystal, gradient: bool) -> Energy:
        started = time.perf_counter()
        if refusal := self.capability.refusal(crystal):
            return Energy(failure=refusal)
        try:
            arrays, order = _arrays(crystal)
        except InputError as error:
            return Energy(failure=str(error))
        energy, slope, strain = arrays.evaluate(0, FINAL, self.tables)
        seconds = time.perf_counter() - started
        if not gradient:
            return Energy(energy=float(energy), seconds=seconds)
        forces = torch.empty(len(crystal), 3, dtype=torch.float64)
        forces[order] = -torch.from_numpy(slope)
        stress = torch.from_numpy((strain + strain.T) / 2) / crystal.volume
        return Energy(float(energy), forces, stress, seconds=seconds)


def _arrays(crystal: Crystal) -> tuple[BodyArrays, torch.Tensor]:
    """The crystal in P1, one body a molecule, atoms sorted by molecule; and that order."""
    order = torch.argsort(crystal.molecule, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    charges = None if crystal.charges is None else crystal.charges[order].tolist()
    graph = build_graph(
        crystal.numbers[order].tolist(), place[crystal.bonds].tolist(), crystal.bond_types, charges
    )
    lattice = crystal.lattice.double()
    centres = crystal.centroids.double()
    local = (crystal.frac.double()[order] - centres[crystal.molecule[order]]) @ lattice
    arrays = BodyArrays.build(
        local=local[None],
        sizes=torch.bincount(crystal.molecule).tolist(),
        q=mmff_charges(graph)[None],
        graphs=[graph],
        group=P1,
        lattice=lattice[None],
        centroid=centres[None],
        rotation=torch.from_numpy(np.tile(np.eye(3), (1, len(centres), 1, 1))),
    )
    return arrays, order


def forcefield(name: str, options: Mapping[str, Any], process: ProcessSettings) -> EnergyModel:
    """Factory for the registry; it takes no options and needs no process of its own."""
    if options:
        raise InputError(f"expected no options for the energy model {name!r}, got {dict(options)}")
    return ForceFieldModel()
