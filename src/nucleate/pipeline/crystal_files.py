"""The verbs on CIF files: relax and rank. Each returns rows of a table.

A file that cannot be read is a row with its reason, never the end of the others.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal, write_cif
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import InputError
from nucleate.pipeline.folders import distinct_names, make_folder
from nucleate.pipeline.relax import RelaxSettings, composition_key, energies_per_molecule, relax

Row = dict[str, Any]


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
