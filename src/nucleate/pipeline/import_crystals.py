"""Experimental crystals (CIF) -> a data set: rigid bodies of the asymmetric unit, split by molecule.

    read -> X-H bonds at neutron lengths -> asymmetric unit of whole molecules -> row -> rebuilt and compared -> split

Nothing is approximated: every body keeps its own conformer, and what is rebuilt from a row is the crystal again. Every
file that is left out is counted with its reason in `import.json`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt
from scipy.spatial import KDTree

from nucleate import __version__
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import normalise_hydrogens, represent_rigid
from nucleate.crystal.standardise import SYMPREC, represent_symmetric
from nucleate.data.packed import (
    PackedCrystal,
    about_shard,
    data_sets,
    from_row,
    read_rows,
    shards,
    to_row,
    write_shard,
)
from nucleate.data.splits import assign_splits
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.metrics.heavy_molecules import heavy_keys
from nucleate.pipeline.crystal_files import cif_files
from nucleate.pipeline.folders import distinct_names, hold_folder, make_folder
from nucleate.pipeline.jobs import Answer, Job, answers
from nucleate.reading import parse_csv, read_file, read_json

PROGRAM = Path(__file__).with_name("import_worker.py")
RECORD = "import.json"
IMPORTED = "imported"
EXACT = 1e-4  # Å, how far an atom of the rebuilt crystal may be from where it was
SHARD = 1000  # crystals
CHECKPOINT = 500  # files, after which what is there is written
NO_SPLIT = "no split"

Row = dict[str, Any]


class ImportSettings(BaseModel, frozen=True, extra="forbid"):
    """Which crystals are taken."""

    largest: PositiveInt = 500  # atoms of the asymmetric unit
    bodies: PositiveInt = 16  # molecules of the asymmetric unit
    source: str = "cod"
    time_limit: PositiveFloat = 120.0  # s for one file
    workers: PositiveInt = Field(1, le=256)


@dataclass(frozen=True)
class ImportedCrystal:
    """A row, and how far the crystal rebuilt from it is from the one in the file."""

    row: Row
    error: float  # Å, of the farthest atom


@dataclass(frozen=True)
class Imported:
    """What became of every file; `outcomes` counts `IMPORTED` and the reasons of the others."""

    folder: Path
    outcomes: Counter[str]
    splits: dict[str, int]  # crystals
    moved: list[str]  # crystals in another split than the table says, because of their molecules
    error: float  # Å, the largest of all crystals
    interrupted: bool


@dataclass
class _Progress:
    """What is known so far, by file name."""

    outcomes: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def take(self, name: str, answer: Answer) -> None:
        """The outcome of one file."""
        reply = answer.reply
        self.outcomes[name] = answer.lost or reply["outcome"]
        if why := answer.why or reply.get("why", ""):
            self.why[name] = why
        if "row" in reply:
            self.rows[name] = reply["row"] | {"id": name}
            self.errors[name] = reply["error"]

    def leave_out(self, name: str) -> None:
        """It has no split, whatever is known of it."""
        self.outcomes[name] = NO_SPLIT
        for table in (self.why, self.rows, self.errors):
            table.pop(name, None)


def import_crystals(
    given: Sequence[Path],
    folder: Path,
    settings: ImportSettings | None = None,
    splits: Path | None = None,
    resume: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Imported:
    """CIF files (or folders of them) to data sets in sub-folders of `folder`, one for each split.

    `splits` is a CSV table with the columns `cod_id` (the file's name without .cif) and `split`; crystals that it does
    not name are left out. Without it 80, 10 and 10 % of the molecules go to train, val and test by a hash of their
    graphs. Either way crystals of one molecule (the largest, of several) are in one split: where the table says
    otherwise they all go to the most held-out one, and are listed in `moved`. Ctrl-C ends the run early with what is
    done. Raises InputError where the files or the table cannot be read, the folder is not empty and `resume` not set,
    and NucleateError where no process can be started.
    """
    settings = settings or ImportSettings()
    files = cif_files(given)
    names = dict(zip(distinct_names(_name_of(path) for path in files), files))
    table = None if splits is None else read_splits(splits)
    with hold_folder(make_folder(folder)):
        known = _earlier(folder, settings, resume)
        return _import(names, folder, settings, table, known, progress or (lambda *_: None))


def _import(
    names: Mapping[str, Path],
    folder: Path,
    settings: ImportSettings,
    table: Mapping[str, str] | None,
    known: _Progress,
    tell: Callable[[int, int, str], None],
) -> Imported:
    """Take up the files that are not known yet, and write everything."""
    interrupted = False
    tell(len(known.outcomes), len(names), "")
    try:
        if table is not None:
            for name in {*names, *known.rows} - table.keys():
                known.leave_out(name)
        todo = [name for name in names if name not in known.outcomes]
        jobs = [Job(i, {"file": str(names[name])}) for i, name in enumerate(todo)]
        with closing(_run(jobs, settings)) as finished:
            for answer in finished:
                known.take(todo[answer.number], answer)
                tell(len(known.outcomes), len(names), f"{len(known.rows)} crystals")
                if len(known.outcomes) % CHECKPOINT == 0:
                    _write(known, folder, settings, table, interrupted)
    except KeyboardInterrupt:
        interrupted = True
    return _write(known, folder, settings, table, interrupted)


def import_crystal(path: Path, settings: ImportSettings) -> ImportedCrystal:
    """One CIF file as a row of a data set. Raises InputError with the reason why it cannot be one.

    Reasons are those of `read_crystal`, "too many atoms", "too many molecules", "no SMILES" (a graph that SMILES cannot
    hold) and "not reproduced" (the crystal rebuilt from the row is not the one in the file).
    """
    crystal = normalise_hydrogens(read_crystal(path))
    packing = represent_exactly(crystal)
    _refuse(packing, settings)
    row = to_row(PackedCrystal(packing, _name_of(path), settings.source))
    rebuilt = from_row(row).packing.crystal(0)
    error = farthest_atom(crystal, rebuilt)
    if error > EXACT or Counter(heavy_keys(crystal)) != Counter(heavy_keys(rebuilt)):
        raise InputError(
            f"expected a crystal that its asymmetric unit reproduces to {EXACT:g} Å, got {error:.2g} Å",
            reason="not reproduced",
        )
    return ImportedCrystal(row, error)


def represent_exactly(crystal: Crystal) -> Packings:
    """The smallest asymmetric unit of whole molecules from which the crystal is rebuilt to a tenth of `EXACT`.

    A crystal that is nearly, but not exactly, more symmetric than its file says keeps what is exact, at worst P1.
    """
    for symprec in (SYMPREC, 0.1 * SYMPREC, 0.01 * SYMPREC):
        packing, _ = represent_symmetric(crystal, symprec, own=True)
        if farthest_atom(crystal, packing.crystal(0)) < 0.1 * EXACT:
            return packing
    return represent_rigid(crystal, own=True)[0]


def farthest_atom(crystal: Crystal, other: Crystal) -> float:
    """The largest distance (Å) of an atom from its own in a crystal of the same cell; infinite where one lacks.

    Atoms are paired with the nearest of their element, which is the right one wherever the answer is small.
    """
    if not torch.equal(crystal.numbers.bincount(minlength=119), other.numbers.bincount(minlength=119)):
        return math.inf
    cell = crystal.lattice.double().numpy()
    worst = float(np.abs(cell - other.lattice.double().numpy()).max())
    for element in crystal.numbers.unique():
        here, there = (_wrapped(c.frac[c.numbers == element]) for c in (crystal, other))
        nearest = KDTree(there, boxsize=1.0).query(here)[1]
        if len(np.unique(nearest)) < len(here):
            return math.inf
        step = here - there[nearest]
        worst = max(worst, float(np.linalg.norm((step - step.round()) @ cell, axis=1).max()))
    return worst


def _wrapped(frac: torch.Tensor) -> np.ndarray:
    wrapped = frac.double().numpy() % 1.0
    return np.where(wrapped < 1.0, wrapped, 0.0)  # -1e-20 % 1.0 is 1.0


def _refuse(packing: Packings, settings: ImportSettings) -> None:
    n = len(packing.numbers)
    if n > settings.largest:
        raise InputError(
            f"expected at most {settings.largest} atoms in the asymmetric unit, got {n}", "too many atoms"
        )
    if packing.n_bodies > settings.bodies:
        raise InputError(
            f"expected at most {settings.bodies} molecules in the asymmetric unit, got {packing.n_bodies}",
            "too many molecules",
        )


def _name_of(path: Path) -> str:
    return path.name[: -len(".cif")] if path.name.lower().endswith(".cif") else path.name


# ---------------------------------------------------------------- splits


def read_splits(path: Path) -> dict[str, str]:
    """`cod_id` -> `split` of a CSV table. Raises InputError where a column lacks or a split cannot name a folder."""
    try:
        text = read_file(path, "a table of splits").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"expected a readable table of splits, got {path} (not text); check the path"
        ) from None
    columns, rows = parse_csv(text, path)
    if not {"cod_id", "split"} <= set(columns):
        raise InputError(
            f"expected the columns cod_id and split in {path.name}, got {', '.join(columns) or 'none'}; name them in "
            "line 1"
        )
    table = {row["cod_id"].strip(): row["split"].strip() for row in rows}
    for name, split in table.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", split):
            raise InputError(
                f"expected splits such as train, val, test in {path.name}, got {split!r} for {name!r}; splits name "
                "folders"
            )
    return table


# ---------------------------------------------------------------- processes and files


def _run(jobs: Sequence[Job], settings: ImportSettings) -> Generator[Answer, None, None]:
    """Answers of the worker processes, as they come."""
    opening = {"settings": settings.model_dump(mode="json")}
    return answers(PROGRAM, opening, jobs, settings.workers, settings.time_limit)


def _earlier(folder: Path, settings: ImportSettings, resume: bool) -> _Progress:
    """What an earlier run left in the folder."""
    there = data_sets(folder)
    if not resume:
        if there or (folder / RECORD).exists():
            raise InputError(f"expected an empty folder, got {folder} with data; --resume goes on with it")
        return _Progress()
    if not (folder / RECORD).exists():
        return _Progress()
    record = read_json(folder / RECORD)
    files = record.get("files") if isinstance(record, dict) else None
    if not isinstance(files, dict) or not all(isinstance(f, dict) and "outcome" in f for f in files.values()):
        raise InputError(
            f"expected the record of an import in {folder / RECORD}, got something else; choose another folder with -o"
        )
    if record.get("settings") != _identity(settings):
        raise InputError(
            f"expected an import with the same settings in {folder}; choose another folder with -o"
        )
    rows = {row["id"]: row for place in there for row in read_rows(place)}
    kept = {n: f for n, f in files.items() if f["outcome"] != NO_SPLIT and ("error" not in f or n in rows)}
    return _Progress(
        outcomes={name: file["outcome"] for name, file in kept.items()},
        why={name: file["why"] for name, file in kept.items() if "why" in file},
        rows={name: rows[name] for name in kept if name in rows},
        errors={name: file["error"] for name, file in kept.items() if "error" in file},
    )


def _write(
    known: _Progress,
    folder: Path,
    settings: ImportSettings,
    table: Mapping[str, str] | None,
    interrupted: bool,
) -> Imported:
    """All shards of all splits, and the record of every file."""
    split, moved = assign_splits({name: row["key"] for name, row in sorted(known.rows.items())}, table)
    splits = Counter(split.values())
    written = set()
    for name in splits:
        rows = [row for key, row in sorted(known.rows.items()) if split[key] == name]
        for k, first in enumerate(range(0, len(rows), SHARD)):
            path = folder / name / f"{k:05d}.parquet"
            write_shard(rows[first : first + SHARD], path, {"settings": _identity(settings), "split": name})
            written.add(path)
    for place in data_sets(folder):
        for path in set(shards(place)) - written:  # of an earlier run with other splits, or nothing of ours
            if about_shard(path).get("settings") == _identity(settings):
                path.unlink()
    imported = Imported(
        folder, Counter(known.outcomes.values()), dict(sorted(splits.items())), moved,
        max(known.errors.values(), default=0.0), interrupted,
    )  # fmt: skip
    write_atomically(folder / RECORD, json.dumps(_record(known, settings, imported, split), indent=1) + "\n")
    return imported


def _record(
    known: _Progress, settings: ImportSettings, imported: Imported, split: Mapping[str, str]
) -> dict[str, Any]:
    columns = (("why", known.why), ("error", known.errors), ("split", split))
    return {
        "nucleate": __version__,
        "settings": _identity(settings),
        "counts": dict(imported.outcomes.most_common()),
        "splits": imported.splits,
        "moved": imported.moved,
        "largest_error_A": imported.error,
        "files": {
            name: {"outcome": known.outcomes[name]} | {k: t[name] for k, t in columns if name in t}
            for name in sorted(known.outcomes)
        },
    }


def _identity(settings: ImportSettings) -> dict[str, Any]:
    """What must be the same for crystals to belong together."""
    return settings.model_dump(mode="json", exclude={"workers"})
