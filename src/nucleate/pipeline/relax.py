"""Relax given crystals: rigid molecules in the built-in force field, or all atoms with any energy model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, PositiveFloat, PositiveInt

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.crystal.sites import Sites, crystal_of_sites
from nucleate.crystal.standardise import formula_units, represent_symmetric
from nucleate.errors import InputError
from nucleate.geometry.torus import wrap
from nucleate.physics.energy import EnergyModel, ProcessSettings, energy_model
from nucleate.physics.forcefield import FINAL, ForceField
from nucleate.physics.minimise import TIGHT, minimise
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.physics.relax_atoms import RelaxAtomsSettings, relax_atoms


class RelaxSettings(BaseModel, frozen=True, extra="forbid"):
    """`energy` "forcefield" keeps molecules rigid (hydrogens at neutron distances) and the space group; any other
    name frees all atoms."""

    energy: str = "forcefield"
    fmax: PositiveFloat = 0.05  # eV/Å, all-atom
    max_steps: PositiveInt = 200
    time_limit: PositiveFloat = 600.0  # s a structure
    workers: PositiveInt = 1

    @property
    def all_atoms(self) -> RelaxAtomsSettings:
        """How to relax where every atom is free."""
        return RelaxAtomsSettings(fmax=self.fmax, max_steps=self.max_steps, time_limit=self.time_limit)

    def model(self) -> EnergyModel:
        """The model of that name, not started yet. Raises InputError for one that does not exist here."""
        process = ProcessSettings(workers=self.workers, time_limit=self.time_limit)
        return energy_model(self.energy, process=process)


@dataclass(frozen=True, eq=False)
class RelaxedCrystal:
    """One crystal after relaxation; `energy` in kJ/mol per molecule, NaN where it failed for `reason`."""

    crystal: Crystal
    energy: float
    converged: bool
    reason: str


def relax(
    crystals: Sequence[Crystal],
    settings: RelaxSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[RelaxedCrystal]:
    """Relax each crystal; one result for each, in order, failures included."""
    settings = settings or RelaxSettings()
    done: list[RelaxedCrystal] = []
    if settings.energy == "forcefield":
        for crystal in crystals:
            done.append(_rigid(crystal, settings))
            if progress is not None:
                progress(len(done), len(crystals))
        return done
    with settings.model() as model:
        model.start()
        for first in range(0, len(crystals), settings.workers):
            for r in relax_atoms(crystals[first : first + settings.workers], model, settings.all_atoms):
                energy = math.nan if r.energy is None else _per_molecule(r.energy, r.crystal)
                done.append(RelaxedCrystal(r.crystal, energy, r.converged, r.reason))
            if progress is not None:
                progress(len(done), len(crystals))
    return done


@dataclass(frozen=True, eq=False)
class RelaxedSites:
    """A crystal without molecules after relaxation; energies in eV per cell, None where it failed for `reason`."""

    sites: Sites
    energy_before: float | None
    energy: float | None
    converged: bool
    reason: str


def refuse_without_molecules(energy: str) -> None:
    """Raises InputError ("no molecules") for a model that needs molecules."""
    if energy == "forcefield":
        raise InputError(
            "expected an energy model for crystals without molecules, got forcefield; choose chgnet or "
            "ase:module:Class",
            reason="no molecules",
        )


def relax_sites(
    sites: Sequence[Sites],
    model: EnergyModel,
    settings: RelaxSettings,
    progress: Callable[[int, int], None] | None = None,
) -> list[RelaxedSites]:
    """Relax atoms and cells of crystals without molecules; one result for each, in order, failures included.

    `model` is `settings.model()`, started once for many calls. Raises InputError where it knows molecules only.
    """
    refuse_without_molecules(settings.energy)
    done: list[RelaxedSites] = []
    for first in range(0, len(sites), settings.workers):
        crystals = [crystal_of_sites(s) for s in sites[first : first + settings.workers]]
        before = model.evaluate(crystals)
        after = relax_atoms(crystals, model, settings.all_atoms, molecules=False)
        for b, a in zip(before, after):
            relaxed = Sites(a.crystal.lattice, wrap(a.crystal.frac), a.crystal.numbers)
            done.append(RelaxedSites(relaxed, b.energy, a.energy, a.converged, a.reason))
        if progress is not None:
            progress(len(done), len(sites))
    return done


def _rigid(crystal: Crystal, settings: RelaxSettings) -> RelaxedCrystal:
    try:
        packing, _ = represent_symmetric(normalise_hydrogens(crystal))
        field = ForceField.for_molecules(packing.species)
    except InputError as error:
        return RelaxedCrystal(crystal, math.nan, False, str(error))
    result = minimise(packing, field, TIGHT._replace(max_steps=settings.max_steps))
    if bool(result.collapsed[0]):
        return RelaxedCrystal(crystal, math.nan, False, "the cell collapsed")
    energy = field.energy(result.packings, FINAL).item() * len(packing.group)
    relaxed = result.packings.crystal(0, **(crystal.info or {}))
    converged = bool(result.converged[0])
    reason = "" if converged else f"not converged in {int(result.steps[0])} steps"
    return RelaxedCrystal(relaxed, _per_molecule(energy, relaxed), converged, reason)


def _per_molecule(energy: float, crystal: Crystal) -> float:
    return energy / crystal.n_molecules / KJ_PER_MOL


def energies_per_molecule(
    crystals: Sequence[Crystal], name: str, process: ProcessSettings | None = None
) -> list[tuple[float, str]]:
    """kJ/mol per molecule of each crystal as it is, by a named model; NaN with a reason where it failed."""
    with energy_model(name, process=process or ProcessSettings()) as model:
        model.start()
        answers = model.evaluate(list(crystals))
    return [
        (math.nan if a.energy is None else _per_molecule(a.energy, c), a.failure or "")
        for a, c in zip(answers, crystals)
    ]


def composition_key(crystal: Crystal) -> tuple[Any, ...]:
    """Elements of a formula unit: crystals can only be ranked against others with the same."""
    units = formula_units(crystal)
    counts = crystal.numbers.bincount()
    return tuple((z, n // units) for z, n in enumerate(counts.tolist()) if n)
