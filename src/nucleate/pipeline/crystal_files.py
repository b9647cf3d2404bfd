"""The verbs on CIF files: relax, rank, deduplicate. Each returns rows of a table.

A file that cannot be read is a row with its reason, never the end of the others.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gemmi import cif

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal, write_cif
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.metrics.duplicates import DuplicateSettings, find_duplicates
from nucleate.pipeline.folders import distinct_names, make_folder
from nucleate.pipeline.relax import RelaxSettings, composition_key, energies_per_molecule, relax

Row = dict[str, Any]
ENERGY_TAG = "_nucleate_lattice_energy_kj_mol"


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
    paths, crystals, failed = [], [], []
    for path in cif_files(given):
        try:
            crystals.append(read_crystal(path))
            paths.append(path)
        except InputError as error:
            failed.append({"file": str(path), "failure": str(error)})
    if not crystals:
        raise InputError(f"expected at least one readable crystal; {failed[0]['failure']}")
    return paths, crystals, failed


def relax_files(
    given: Sequence[Path],
    folder: Path,
    settings: RelaxSettings,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Relaxed CIF files under the same names in `folder`, and what happened to each.

    Files of one name from several folders become name-2 and so on. Raises InputError where `folder` holds an input.
    """
    paths, crystals, failed = read_all(given)
    make_folder(folder)
    if any(path.parent.resolve() == folder.resolve() for path in paths):
        raise InputError(f"expected another folder than the input's, got {folder}. Choose another with -o.")
    targets = [folder / f"{name}.cif" for name in distinct_names(path.stem for path in paths)]
    rows: list[Row] = []
    for path, target, before, after in zip(paths, targets, crystals, relax(crystals, settings, progress)):
        row: Row = {"file": str(path), "energy_kj_mol": after.energy, "converged": after.converged}
        if math.isfinite(after.energy):
            write_cif(
                after.crystal, target, energy=after.energy, provenance={"energy_model": settings.energy}
            )
            row["volume_change_percent"] = 100 * (after.crystal.density**-1 / before.density**-1 - 1)
            row["space_group"] = find_symmetry(after.crystal).symbol
        else:
            row |= {"volume_change_percent": math.nan, "space_group": ""}
        rows.append(row | {"failure": after.reason})
    return rows + failed


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


def deduplicate_files(
    given: Sequence[Path],
    settings: DuplicateSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """The cluster of equal crystals that each file belongs to, clusters numbered from 1, and its representative.

    Representatives are lowest in the energy that the CIF files carry (as `predict` and `relax` write it; files
    without one come last), or else first. `rmsd_A` is the RMSD to the representative, NaN where its cluster of
    molecules is not found whole: such members belong to the cluster through others.
    """
    settings = settings or DuplicateSettings()
    paths, crystals, failed = read_all(given)
    energies = [energy_in(path) for path in paths]
    known = bool(np.isfinite(energies).any())
    if settings.energy_window is not None and np.isnan(energies).any():
        missing = str(paths[int(np.isnan(energies).argmax())])
        raise InputError(
            f"expected an energy in every file for an energy window, got none in {missing}; relax or rank the "
            "crystals first, or leave the window out"
        )
    found = find_duplicates(crystals, energies, settings, progress)
    rows: list[Row] = []
    for i, path in enumerate(paths):
        row: Row = {"file": str(path), "cluster": int(found.cluster[i]) + 1}
        row["representative"] = str(paths[found.representative[found.cluster[i]]])
        row["rmsd_A"] = float(found.rmsd[i])
        if known:
            row["lattice_energy_kj_mol"] = energies[i]
        rows.append(row | {"criterion": settings.criterion, "failure": found.failure[i]})
    return rows + failed


def energy_in(path: Path) -> float:
    """Lattice energy (kJ/mol per molecule) that nucleate wrote into a CIF file; NaN where there is none."""
    try:
        blocks = cif.read(str(path))
    except (OSError, RuntimeError, ValueError):  # the reader of crystals has explained what is wrong
        return math.nan
    values = [value for block in blocks if (value := block.find_value(ENERGY_TAG))]
    return cif.as_number(values[0]) if values else math.nan


def write_distinct(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Copy the representatives of `deduplicate_files` into `folder`, in the order of their clusters.

    Names are kept; equal ones from several folders become name-2 and so on. Raises InputError where `folder`
    holds one of the files.
    """
    files = {row["cluster"]: Path(row["representative"]) for row in rows if "cluster" in row}
    kept = [files[cluster] for cluster in sorted(files)]
    make_folder(folder)
    if any(Path(row["file"]).parent.resolve() == folder.resolve() for row in rows):
        raise InputError(f"expected another folder than the input's, got {folder}. Choose another with -o.")
    targets = [folder / f"{name}.cif" for name in distinct_names(path.stem for path in kept)]
    for path, target in zip(kept, targets):
        write_atomically(target, path.read_bytes())
    return targets
