"""What `nucleate generate crystalflow` is asked for: contents of cells, and samples of each with seeds of their own."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucleate.crystal.formula import cell_contents
from nucleate.crystal.sites import primitive_niggli_sites, sites_from_cif
from nucleate.data.containers import read_csv, read_parquet, rows_of
from nucleate.data.predictions.sample import finite_number
from nucleate.errors import InputError
from nucleate.generative.seeds import generator_of, seed_of
from nucleate.models.crystalflow import CrystalFlow
from nucleate.pipeline.folders import distinct_names

PAIRS = 40_000  # of atoms in a batch: what a network holds at a time grows with them
MOST = 256  # samples in a batch
WINDOW = 1024  # tasks among which those of one size are done together


@dataclass(frozen=True)
class Target:
    """One kind of cell: its name in a list (None: there is no list) and its atoms, or why there are none."""

    name: str | None
    folder: str  # of its files, below cif/; empty where there is no list
    numbers: tuple[int, ...] | InputError | None  # atomic numbers; None: the model chooses


@dataclass(frozen=True)
class Task:
    """One sample. `seed` makes its noise, whatever is sampled beside it."""

    id: str
    target: Target
    sample: int  # 0, 1, ... of its target
    seed: int
    numbers: tuple[int, ...] | InputError  # where the model chooses kinds, only their number counts

    @property
    def size(self) -> int:
        return 0 if isinstance(self.numbers, InputError) else len(self.numbers)


def tasks_of(targets: Sequence[Target], n: int, seed: int, flow: CrystalFlow) -> list[Task]:
    """`n` samples of each target, target by target. A larger n begins with the same samples."""
    return [_task(target, sample, seed, flow) for target in targets for sample in range(n)]


def _task(target: Target, sample: int, seed: int, flow: CrystalFlow) -> Task:
    numbers = target.numbers
    if numbers is None:
        [size] = flow.draw_sizes(1, generator_of(seed, "size", sample))
        numbers = (1,) * size
    name = f"{target.folder}/{sample + 1:04d}" if target.folder else f"{sample + 1:04d}"
    return Task(name, target, sample, seed_of(seed, "crystal", target.name or "", sample), numbers)


def batches(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """Tasks of about one size together, near their order; those that cannot be done come as they are."""
    for first in range(0, len(tasks), WINDOW):
        batch: list[Task] = []
        for task in sorted(tasks[first : first + WINDOW], key=lambda t: t.size):
            if batch and (len(batch) == MOST or (len(batch) + 1) * task.size**2 > PAIRS):
                yield batch
                batch = []
            batch.append(task)
        yield batch


def targets_of(formula: str | None, units: int, listed: Path | None) -> list[Target]:
    """The formula, the rows of a list, or one target without contents where neither is given.

    Raises InputError for a formula that cannot be used and a list that cannot be read; of a list, rows that cannot be
    used are targets with their InputError.
    """
    if listed is not None:
        return _listed(listed, units)
    return [Target(None, "", None if formula is None else tuple(cell_contents(formula, units)))]


def _listed(path: Path, units: int) -> list[Target]:
    rows = _rows(path)
    names = distinct_names(_name(row, i) for i, row in enumerate(rows, start=1))
    folders = distinct_names(re.sub(r"[^A-Za-z0-9_-]", "_", name)[:60] for name in names)
    return [Target(name, folder, _contents(row, units)) for name, folder, row in zip(names, folders, rows)]


def _name(row: dict[str, Any], number: int) -> str:
    given = [row[c] for c in ("material_id", "formula") if row.get(c) is not None]
    return str(given[0]) if given else str(number)


def _contents(row: dict[str, Any], units: int) -> tuple[int, ...] | InputError:
    """Of the known crystal in `cif` (its primitive cell), else of `formula` and `formula_units`."""
    try:
        if row.get("cif"):
            return tuple(sorted(primitive_niggli_sites(sites_from_cif(f"{row['cif']}\n")).numbers.tolist()))
        return tuple(cell_contents(str(row.get("formula") or ""), _units(row.get("formula_units"), units)))
    except InputError as error:
        return error


def _units(given: object, usual: int) -> int:
    """A whole number of formula units, as text or number; the usual one where a row says nothing."""
    if given is None or given == "":
        return usual
    number = finite_number(given)
    if number is None or number != int(number):
        raise InputError(
            f"expected a whole number of formula units, got {str(given)[:40]!r}", reason="bad formula"
        )
    return int(number)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"--formula-list: expected a .csv or .parquet table, found none at {path}")
    table = read_csv(path) if path.suffix == ".csv" else read_parquet(path)
    if not {"formula", "cif"} & set(table.column_names):
        raise InputError(
            f"--formula-list: expected a column formula or cif in {path}, got {', '.join(table.column_names)}"
        )
    if not table.num_rows:
        raise InputError(f"--formula-list: expected at least one row, got none in {path}")
    used = [c for c in ("material_id", "formula", "formula_units", "cif") if c in table.column_names]
    return rows_of(table.select(used), path)
