"""Predictions of any program -> samples: which files, which format, and one `Sample` for everything asked for."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.molecule import Molecule
from nucleate.data.predictions.cif import entries_of_cif
from nucleate.data.predictions.genarris import entries_of_json
from nucleate.data.predictions.molecules import Known, build_crystal
from nucleate.data.predictions.sample import Entry, Frame, Sample, composition_of
from nucleate.data.predictions.tables import (
    BROKEN,
    TABLES,
    columns_of,
    entries_of_table,
    read_json,
    table_format,
)
from nucleate.data.predictions.xyz import entries_of_xyz, read_text
from nucleate.errors import InputError
from nucleate.metrics.heavy_molecules import heavy_keys
from nucleate.reading import real_path

READERS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "cif": entries_of_cif,
    "oxtal": entries_of_cif,
    "xyz": entries_of_xyz,
    "extxyz": entries_of_xyz,
    "molcrystalflow": entries_of_xyz,
    "genarris": entries_of_json,
    **{kind: partial(entries_of_table, kind=kind) for kind in TABLES},
}
"""Formats by name. `cif` and `oxtal`, and the three of xyz, are read alike: the content says what it is."""

SUFFIXES = (".cif", ".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz", ".parquet")
LISTED = "samples listed, failures included"
WHOLE = ("crystals.parquet", "predictions.parquet", "structures.json")  # the file that stands for its folder
INSIDE = ("generated", "cifs")  # where MolCrystalFlow and OXtal keep the structures of a folder
STARTS = "starts of the search (run.json, counts.asked)"


@dataclass(frozen=True)
class Asked:
    """How many predictions were asked for, and what was counted."""

    number: int
    counted: str  # what was counted, for the reader of a table
    listed: int  # samples of the target in the files, failures included

    @property
    def undelivered(self) -> int:
        """Samples that were requested and are not in the files. Starts of a search are no samples."""
        return 0 if self.counted == STARTS else self.number - self.listed


def read_predictions(
    path: str | Path, *, format: str | None = None, molecules: Sequence[Molecule] | None = None
) -> list[Sample]:
    """Every prediction of a file or folder, in order; what could not be read is a sample with its failure.

    Reads what nucleate's `predict` (also of a list) and `generate` write, CIF files of one or many blocks, folders of
    CIFs, extended XYZ, parquet with CIF text, and the files of Clari, OXtal, Genarris, FastCSP and MolCrystalFlow
    (described in `tables`, `cif`, `genarris`, `xyz`). In a folder of folders each sub-folder is a target, unless
    its files name targets themselves. `format` is a key of `READERS` and overrides what the content suggests.

    `molecules` are those that the predictions should consist of (`molecules_of(references)`): with them,
    molecules that overlap are still told apart where the atoms come one molecule after another, and a sample whose
    atoms are right but whose molecules are not is a failure "molecules overlap".

    Raises InputError where the path is not there, is of no known format or holds nothing.
    """
    path = Path(path)
    if format is not None and format not in READERS:
        raise InputError(f"expected a format among {', '.join(READERS)}, got {format!r}")
    if not path.exists():
        raise InputError(
            f"expected an existing file or folder of predictions, got {path}", reason="unreadable"
        )
    known = None if molecules is None else Known.of(molecules)
    seen: Counter[str | None] = Counter()
    samples = []
    try:
        for entry in _entries(path, format):
            samples.append(_sample(entry, seen[entry.target], known))
            seen[entry.target] += 1
    except OSError as error:
        raise InputError(
            f"expected readable files, got {error}; check the permissions", "unreadable"
        ) from error
    if not samples:
        raise InputError(f"expected predictions, found none in {path}", reason="empty file")
    return samples


def count_asked(path: str | Path, samples: Sequence[Sample]) -> dict[str | None, Asked]:
    """For each target of the samples how many were asked for.

    nucleate's own folders: the starts of the search (run.json); Clari's: the samples requested (config.json); else
    the samples themselves, failures included. A target that was requested and of which nothing came is there too.
    """
    said: dict[str | None, tuple[object, str]] = {}
    for source, label in _sources(Path(path)):
        if source.name == "crystals.parquet":
            run = read_json(source.with_name("run.json"))
            name = label or _object(run.get("molecule")).get("name")
            said[None if name is None else str(name)] = _object(run.get("counts")).get("asked"), STARTS
        elif source.name == "predictions.parquet":
            requests = read_json(source.with_name("config.json")).get("requests")
            for request in map(_object, requests if isinstance(requests, list) else []):
                number = request.get("n_samples", request.get("samples"))
                said[str(request.get("id"))] = number, "samples requested (config.json, requests)"
    listed = Counter(s.target for s in samples)
    listed.update(dict.fromkeys(said, 0))
    return {target: _asked(number, *said.get(target, (None, ""))) for target, number in listed.items()}


def _object(value: object) -> dict[str, Any]:
    """An object of JSON; an empty one where it is something else."""
    return value if isinstance(value, dict) else {}


def _asked(listed: int, number: object, counted: str) -> Asked:
    """What a file says was asked for, if that can be: no fewer than are there."""
    if isinstance(number, int) and number >= listed:
        return Asked(number, counted, listed)
    return Asked(listed, LISTED, listed)


def detect_format(path: str | Path) -> str:
    """The key of `READERS` for one file, by its content. Raises InputError for a format that is not known."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a file of predictions, got {path}, which is none", reason="unreadable")
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"PAR1":
        return table_format(columns_of(path), path)
    text = read_text(path)[:65536] if head[:2] == b"\x1f\x8b" else head.decode("utf-8", errors="replace")
    start = text.lstrip("\ufeff \t\r\n")
    if start[:1] == "{":
        return "genarris"
    if start.split("\n", 1)[0].strip().isdecimal():
        return "xyz"
    if "data_" in text or "_cell_length" in text or path.suffix.lower() == ".cif":
        return "cif"
    known = "CIF, extended XYZ, parquet or Genarris JSON"
    hint = "; a .pt file is a pickle, write its structures as xyz" if path.suffix in (".pt", ".pkl") else ""
    raise InputError(f"expected {known}, got {path.name} which is none of them{hint}", reason="unreadable")


def _entries(path: Path, kind: str | None) -> Iterator[Entry]:
    """All entries under a path, each with its target."""
    for source, label in _sources(path):
        for entry in _entries_of_file(source, kind, alone=source == path):
            own = label is not None and source.name == "crystals.parquet"  # the folder's name decides
            yield replace(entry, target=label if own or entry.target is None else entry.target)
    if path.is_dir():
        yield from _failed_of_list(path)


def _entries_of_file(source: Path, kind: str | None, alone: bool) -> Iterator[Entry]:
    """Entries of one file; one that cannot be read is a failed entry, unless it is all that was given."""
    try:
        if not source.is_file():
            raise InputError("expected the crystals of a finished run, got none", reason="unfinished")
        if alone and not source.stat().st_size:
            raise InputError(f"expected predictions, got an empty file: {source}", reason="empty file")
        found = iter(READERS[kind or detect_format(source)](source))
        first = next(found, None)
        if first is None and source.name == "crystals.parquet":
            first = Entry(source.parent.name, failure="no crystals: the run handed over none")
    except InputError as error:
        if alone:
            raise
        name = source.stem if source.name not in WHOLE else source.parent.name
        yield Entry(name, failure=f"{error.reason}: {error}")
        return
    if first is not None:
        yield first
        yield from found


def _sources(path: Path, label: str | None = None) -> Iterator[tuple[Path, str | None]]:
    """Files to read, each with the sub-folder that names its target."""
    if path.is_file():
        yield path, label
        return
    for name in WHOLE:
        if (path / name).is_file() or (name == "crystals.parquet" and (path / "search.json").is_file()):
            yield path / name, label
            return
    for name in INSIDE:
        if (path / name).is_dir():
            yield from _sources(path / name, label)
            return
    if path.name == "structures" or (path / "structures").is_dir():
        yield _only_stage(path if path.name == "structures" else path / "structures"), label
        return
    inside = sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=_natural)
    yield from ((p, label) for p in _chosen([p for p in inside if p.is_file() and p.name.endswith(SUFFIXES)]))
    here = real_path(path)
    for folder in (
        p for p in inside if p.is_dir() and not here.is_relative_to(real_path(p))
    ):  # no way back up
        named = label if "=" in folder.name else label or folder.name  # partition_id=3 is no molecule
        yield from _sources(folder, named)


def _only_stage(folder: Path) -> Path:
    """Genarris keeps the same structures after each of its stages: which are meant has to be said."""
    stages = sorted(folder.glob("*/structures.json"))
    if len(stages) != 1:
        names = ", ".join(p.parent.name for p in stages) or "none"
        raise InputError(f"expected one stage of Genarris in {folder}, got {names}; give its folder")
    return stages[0]


def _chosen(files: list[Path]) -> list[Path]:
    """Without tables (of a list run, of an evaluation), MolCrystalFlow's truth and parts, OXtal's second copies."""
    predicted = [p for p in files if p.name.startswith("pred_") and p.suffix == ".xyz"]
    combined = [p for p in predicted if p.name == "pred_combined.xyz"]
    kept = combined or predicted or files
    tables = ("summary.parquet", "evaluation.parquet")
    return [p for p in kept if p.name not in tables and not p.stem.endswith("_wounresol")]


def _natural(path: Path) -> tuple[object, ...]:
    """Sort key under which sample_2 comes before sample_10."""
    parts = "".join(c if c.isdigit() else f" {c} " for c in path.name).split()
    return tuple((int(x), "") if x.isdecimal() else (-1, x) for x in parts)


def _failed_of_list(folder: Path) -> Iterator[Entry]:
    """Molecules of a list run that came to no folder with crystals."""
    table = folder / "summary.parquet"
    try:
        rows = pyarrow.parquet.read_table(table, columns=["name", "failure"]).to_pylist()
    except BROKEN:
        return  # no list run
    for row in rows:
        begun = [folder / str(row["name"]) / file for file in ("crystals.parquet", "search.json")]
        if row.get("failure") and not any(p.is_file() for p in begun):
            yield Entry(str(row["name"]), target=str(row["name"]), failure=f"not predicted: {row['failure']}")


def _sample(entry: Entry, index: int, known: Known | None) -> Sample:
    structure = entry.structure
    sample = Sample(entry.target, index, entry.name, None, energy=None if entry.per_cell else entry.energy)
    if structure is None:
        return replace(sample, failure=entry.failure)
    periodic = isinstance(structure, Crystal) or structure.lattice is not None
    composition = composition_of(np.asarray(structure.numbers))
    sample = replace(sample, periodic=periodic, composition=composition)
    try:
        crystal = _finished(structure, known)
    except InputError as error:
        return replace(sample, failure=f"{error.reason}: {error}")
    energy = entry.energy
    if energy is not None and entry.per_cell:
        energy /= crystal.n_molecules
    return replace(sample, crystal=crystal, energy=energy)


def _finished(structure: Frame | Crystal, known: Known | None) -> Crystal:
    if isinstance(structure, Frame):
        return build_crystal(structure, known)
    if known is not None and not known.holds(heavy_keys(structure)):
        known.refuse_merged(structure)
    return structure
