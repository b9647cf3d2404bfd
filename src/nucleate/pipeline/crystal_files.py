"""The verbs on CIF files: relax and rank. Each returns rows of a table.

A file that cannot be read is a row with its reason, never the end of the others.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal, write_cif
from nucleate.crystal.perceive import NONMETALS
from nucleate.crystal.sites import NEARLY, Sites, sites_from_cif
from nucleate.crystal.sites_cif import write_sites_cif
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import InputError
from nucleate.pipeline.folders import distinct_names, hold_folder, make_folder
from nucleate.pipeline.relax import (
    RelaxedCrystal,
    RelaxedSites,
    RelaxSettings,
    composition_key,
    energies_per_molecule,
    relax,
    relax_sites,
)
from nucleate.reading import real_path

Row = dict[str, Any]
Read = TypeVar("Read")

DENSE = ("clash", "missing hydrogens")  # what networks without carbon are taken for


def cif_files(given: Sequence[Path]) -> list[Path]:
    """The files, and the CIF files inside folders, in order. Raises InputError where there are none."""
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise InputError(f"expected an existing CIF file or folder, got {path}")
        found += sorted(path.glob("*.cif")) if path.is_dir() else [path]
    if not found:
        raise InputError(f"expected CIF files, found none in {', '.join(map(str, given))}")
    return found


def read_all(given: Sequence[Path]) -> tuple[list[Path], list[Crystal], list[Row]]:
    """Crystals that could be read with their paths, and a row for each that could not."""
    return _read(given, read_crystal)


def _read(given: Sequence[Path], reader: Callable[[Path], Read]) -> tuple[list[Path], list[Read], list[Row]]:
    paths, crystals, failed = [], [], []
    for path in cif_files(given):
        try:
            crystals.append(reader(path))
            paths.append(path)
        except InputError as error:
            failed.append({"file": str(path), "failure": str(error)})
    if not crystals:
        raise InputError(f"expected at least one readable crystal; {failed[0]['failure']}")
    return paths, crystals, failed


def read_either(path: Path) -> Crystal | Sites:
    """A crystal of molecules, or one where there are none to speak of.

    There are none where a network of bonds runs through the crystal, and where metals meet no carbon: a salt of bare
    ions could be read as molecules of one atom. Raises InputError as `read_crystal` does.
    """
    sites = sites_from_cif(path)
    elements = set(sites.composition)
    if 6 not in elements and elements - NONMETALS:
        return sites
    try:
        return read_crystal(path)
    except InputError as error:
        if error.reason == "polymeric" or (6 not in elements and error.reason in DENSE):
            return sites
        raise


def relax_files(
    given: Sequence[Path],
    folder: Path,
    settings: RelaxSettings,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Relaxed CIF files under the same names in `folder`, and what happened to each.

    Crystals without molecules (`read_either`) have energies in eV per atom instead. Files of one name from several
    folders become name-2 and so on. Raises InputError where `folder` holds an input, or another run is under way there.
    """
    paths, found, failed = _read(given, read_either)
    if any(real_path(path.parent) == real_path(folder) for path in paths):
        raise InputError(f"expected another folder than the input's, got {folder}. Choose another with -o.")
    with hold_folder(make_folder(folder)):
        return _relax_to(folder, paths, found, settings, progress) + failed


def _relax_to(
    folder: Path,
    paths: Sequence[Path],
    found: Sequence[Crystal | Sites],
    settings: RelaxSettings,
    progress: Callable[[int, int], None] | None,
) -> list[Row]:
    """A row and, where it has an energy, a file for each crystal."""
    targets = [folder / f"{name}.cif" for name in distinct_names(path.stem for path in paths)]
    molecular = {i: crystal for i, crystal in enumerate(found) if isinstance(crystal, Crystal)}
    others = {i: sites for i, sites in enumerate(found) if isinstance(sites, Sites)}
    rows: dict[int, Row] = {}

    def tell(done: int, _: int) -> None:
        if progress is not None:
            progress(len(rows) + done, len(found))

    if molecular:
        relaxed = relax(list(molecular.values()), settings, tell)
        for (i, crystal), after in zip(molecular.items(), relaxed):
            rows[i] = _relaxed_row(crystal, after, targets[i], settings)
    if others:
        for (i, sites), end in zip(others.items(), _relax_sites(list(others.values()), settings, tell)):
            rows[i] = _relaxed_sites_row(sites, end, targets[i], settings)
    return [{"file": str(path)} | rows[i] for i, path in enumerate(paths)]


def _relaxed_row(before: Crystal, after: RelaxedCrystal, target: Path, settings: RelaxSettings) -> Row:
    row: Row = {"energy_kj_mol": after.energy, "converged": after.converged}
    if math.isfinite(after.energy):
        write_cif(after.crystal, target, energy=after.energy, provenance={"energy_model": settings.energy})
        row["volume_change_percent"] = 100 * (after.crystal.density**-1 / before.density**-1 - 1)
        row["space_group"] = find_symmetry(after.crystal).symbol
    else:
        row |= {"volume_change_percent": math.nan, "space_group": ""}
    return row | {"failure": after.reason}


def _relax_sites(
    sites: Sequence[Sites], settings: RelaxSettings, progress: Callable[[int, int], None]
) -> list[RelaxedSites]:
    """One result for each, also where the model knows molecules only."""
    try:
        with settings.model() as model:
            model.start()
            return relax_sites(sites, model, settings, progress)
    except InputError as error:
        if error.reason != "no molecules":
            raise
        return [RelaxedSites(s, None, None, False, str(error)) for s in sites]


def _relaxed_sites_row(before: Sites, after: RelaxedSites, target: Path, settings: RelaxSettings) -> Row:
    row: Row = {"energy_before_ev_per_atom": after.energy_before, "energy_ev_per_atom": None}
    row |= {"converged": after.converged, "volume_change_percent": math.nan, "space_group": ""}
    if after.energy_before is not None:
        row["energy_before_ev_per_atom"] = after.energy_before / len(before)
    if after.energy is not None:
        each = after.energy / len(before)
        about = {"energy_model": settings.energy}
        group = write_sites_cif(after.sites, target, about, energy=each, symprec=NEARLY)
        row |= {"energy_ev_per_atom": each, "space_group": group.symbol}
        row["volume_change_percent"] = 100 * (after.sites.volume / before.volume - 1)
    return row | {"failure": after.reason}


def rank_files(given: Sequence[Path], energy: str) -> list[Row]:
    """Crystals by energy, lowest first; all must have the same composition."""
    paths, crystals, failed = read_all(given)
    if len({composition_key(c) for c in crystals}) > 1:
        raise InputError(
            "expected crystals of one composition, got several; energies of different ones mean nothing"
        )
    answers = energies_per_molecule(crystals, energy)
    order = sorted(range(len(paths)), key=lambda i: (math.isnan(answers[i][0]), answers[i][0]))
    lowest = answers[order[0]][0]
    return [
        {
            "rank": rank,
            "file": str(paths[i]),
            "energy_kj_mol": answers[i][0] - lowest,
            "lattice_energy_kj_mol": answers[i][0],
            "density_g_cm3": crystals[i].density,
            "failure": answers[i][1],
        }
        for rank, i in enumerate(order, start=1)
    ] + failed
