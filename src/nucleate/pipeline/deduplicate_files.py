"""Group equal crystals of files of any format."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import write_cif
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.metrics.duplicates import DuplicateSettings, find_duplicates
from nucleate.pipeline.folders import distinct_names, hold_folder, make_folder
from nucleate.pipeline.samples import LabelledSample, read_samples
from nucleate.reading import real_path

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Deduplicated:
    """A row for every crystal asked for, and the crystals that stand for their clusters, in order of these."""

    rows: list[Row]
    kept: list[LabelledSample]


def deduplicate_files(
    given: Sequence[Path],
    settings: DuplicateSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
    output: Path | None = None,
) -> Deduplicated:
    """The cluster of equal crystals that each belongs to, clusters numbered from 1, and its representative.

    Files and folders of any format that `read_predictions` knows. Representatives are lowest in the energy that the
    files carry (those without one come last), or else first. `rmsd_A` is the RMSD to the representative, NaN where
    its cluster of molecules is not found whole: such members belong to the cluster through others. With `output`
    the representatives go to that folder as CIF files, and no other run may write there meanwhile.
    """
    settings = settings or DuplicateSettings()
    if output is not None:
        _refuse_input_folder(given, output)
    with hold_folder(make_folder(output)) if output is not None else nullcontext():
        return _deduplicate(given, settings, progress, output)


def _deduplicate(
    given: Sequence[Path],
    settings: DuplicateSettings,
    progress: Callable[[int, int], None] | None,
    output: Path | None,
) -> Deduplicated:
    samples = read_samples(given)
    good = [s for s in samples if s.sample.crystal is not None and s.sample.periodic]
    failed = [
        {"file": s.label, "failure": s.sample.failure or "a cluster without a cell"}
        for s in samples
        if s.sample.crystal is None or not s.sample.periodic
    ]
    if not good:
        raise InputError(f"expected at least one readable crystal; {failed[0]['failure']}")
    crystals: list[Crystal] = [s.sample.crystal for s in good if s.sample.crystal is not None]
    energies = [math.nan if s.sample.energy is None else s.sample.energy for s in good]
    if settings.energy_window is not None and np.isnan(energies).any():
        missing = good[int(np.isnan(energies).argmax())].label
        raise InputError(
            f"expected an energy with every crystal for an energy window, got none for {missing}; relax or rank the "
            "crystals first, or leave the window out"
        )
    found = find_duplicates(crystals, energies, settings, progress)
    kept = [good[i] for i in found.representative.tolist()]
    rows: list[Row] = []
    for i, sample in enumerate(good):
        row: Row = {"file": sample.label, "cluster": int(found.cluster[i]) + 1}
        row["representative"] = kept[found.cluster[i]].label
        row["rmsd_A"] = float(found.rmsd[i])
        if bool(np.isfinite(energies).any()):
            row["energy"] = energies[i]
        rows.append(row | {"criterion": settings.criterion, "failure": found.failure[i]})
    if output is not None:
        write_distinct(kept, output)
    return Deduplicated(rows + failed, kept)


def write_distinct(kept: Sequence[LabelledSample], folder: Path) -> list[Path]:
    """The crystals as CIF files in order: a file of one crystal is copied, others are written with their symmetry.

    Names are kept; equal ones become name-2 and so on.
    """
    targets = [folder / f"{name}.cif" for name in distinct_names(Path(s.label).stem for s in kept)]
    for sample, target in zip(kept, targets):
        if sample.file is not None:
            write_atomically(target, sample.file.read_bytes())
        elif sample.sample.crystal is not None:
            write_cif(sample.sample.crystal, target, provenance={"source": sample.label})
    return targets


def _refuse_input_folder(given: Sequence[Path], folder: Path) -> None:
    taken = {real_path(path if path.is_dir() else path.parent) for path in given}
    if real_path(folder) in taken:
        raise InputError(f"expected another folder than the input's, got {folder}. Choose another with -o.")
