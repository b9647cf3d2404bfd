"""Parquet tables with a column of CIF text: nucleate's own, Clari's, FastCSP's, or any with a column `cif`.

* nucleate: `crystals.parquet`, target from `run.json` (`molecule.name`), name `id`, energy `energy_kj_mol` (kJ/mol per
  molecule);
* Clari (github.com/aspuru-guzik-group/clari, clari/inference): `predictions.parquet` with `id` (the target),
  `sample_idx`, `cif` (P 1); beside it `config.json` (`requests`: `id`, `samples` or `n_samples`) and, after ranking,
  `energies.csv` (`sample_idx`, `energies`: UMA, eV per cell, `inf` for a failure);
* FastCSP (fairchem, src/fairchem/applications/fastcsp/core/workflow): `raw_structures/<mol>/<conf>/partition_id=*/`,
  `relaxed/*/filtered_structures/<mol>.parquet`, `matched_structures_*`, with `cif_relaxed` (`relaxed_cif` in older
  files), else `cif_generated` or `cif`; target `mol_id`, name `structure_id`, energy `energy_relaxed_per_molecule`
  (kJ/mol; eV in older files);
* any other: `cif`, target `target`, `mol_id` or `molecule`, name `name`, `structure_id` or `id`, energy
  `energy_per_molecule`, `energy_kj_mol` or `energy` (taken as per molecule).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from nucleate.data.predictions.cif import entry_of_text
from nucleate.data.predictions.sample import Entry, finite_number
from nucleate.errors import InputError
from nucleate.reading import parse_csv, parse_json, read_file

CIF = ("cif_relaxed", "relaxed_cif", "cif", "cif_generated", "generated_cif")
TARGET = ("target", "mol_id", "molecule")
NAME = ("name", "structure_id", "id")
BROKEN = (pyarrow.ArrowException, OSError, ValueError)  # ValueError: names of columns that are no UTF-8
ENERGY = ("energy_relaxed_per_molecule", "energy_per_molecule", "energy_kj_mol", "energy")
TABLES: dict[str, frozenset[str]] = {
    "nucleate": frozenset({"id", "cif"}),
    "clari": frozenset({"id", "sample_idx", "cif"}),
    "fastcsp": frozenset({"mol_id", "structure_id"}),
    "parquet": frozenset(),
}
"""Kinds of tables, with the columns that they cannot do without (beside one of `CIF`)."""


def table_format(columns: Sequence[str], path: Path) -> str:
    """Who wrote a table with these columns. Raises InputError where none of them holds CIF text."""
    have = set(columns)
    if not have & set(CIF):
        raise InputError(
            f"expected a column with CIF text ({', '.join(CIF)}), got {', '.join(columns) or 'none'} in {path}"
        )
    if {"cif", "rank", "lattice_energy_kj_mol"} <= have:
        return "nucleate"
    if {"cif", "id", "sample_idx"} <= have:
        return "clari"
    return "fastcsp" if {"mol_id", "structure_id"} <= have else "parquet"


def columns_of(path: Path) -> list[str]:
    """Names of the columns. Raises InputError where it is no parquet file."""
    try:
        return [str(name) for name in pyarrow.parquet.read_schema(path).names]
    except BROKEN as error:
        raise InputError(
            f"expected a parquet file, got {path}: {error!s:.100}", reason="unreadable"
        ) from None


def entries_of_table(path: Path, kind: str | None = None) -> Iterator[Entry]:
    """One entry a row, in the order of the rows; Clari's in the order of `sample_idx`."""
    columns = columns_of(path)
    found = table_format(columns, path)
    kind = kind or found
    if lacking := TABLES[kind] - set(columns):
        raise InputError(
            f"expected the columns of {kind}, got none named {', '.join(sorted(lacking))} in {path}"
        )
    wanted = [c for c in columns if c in {*CIF, *TARGET, *NAME, *ENERGY, "sample_idx"}]
    try:
        table = pyarrow.parquet.read_table(path, columns=wanted, partitioning=None)
    except BROKEN as error:
        raise InputError(
            f"expected a parquet file, got {path}: {error!s:.100}", reason="unreadable"
        ) from None
    rows = _rows(table)
    if kind == "clari":
        return _clari(rows, path)
    if kind == "nucleate":
        return _own(rows, path)
    return (_generic(row, k, wanted) for k, row in enumerate(rows))


def _rows(table: pyarrow.Table) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries, some at a time: the CIF texts of 10^5 samples need not all be Python strings."""
    for batch in table.to_batches(max_chunksize=256):
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:
            rows = _with_marks(batch)
        yield from rows


def _with_marks(batch: pyarrow.RecordBatch) -> list[dict[str, Any]]:
    """Rows of damaged text: bytes that are no UTF-8 are replaced, as in every other file."""
    columns = [c.cast(pyarrow.binary()) if pyarrow.types.is_string(c.type) else c for c in batch.columns]
    raw = pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()
    return [
        {k: v.decode("utf-8", errors="replace") if isinstance(v, bytes) else v for k, v in row.items()}
        for row in raw
    ]


def _own(rows: Iterator[dict[str, Any]], path: Path) -> Iterator[Entry]:
    run = read_json(path.with_name("run.json"))
    molecule = run.get("molecule")
    target = str(molecule["name"]) if isinstance(molecule, dict) and molecule.get("name") else None
    for row in rows:
        energy = finite_number(row.get("energy_kj_mol"))
        yield replace(entry_of_text(str(row.get("id")), row["cif"]), target=target, energy=energy)


def _clari(rows: Iterator[dict[str, Any]], path: Path) -> Iterator[Entry]:
    energies = _clari_energies(path.with_name("energies.csv"))
    numbered = sorted(rows, key=lambda row: (row["sample_idx"] is None, row["sample_idx"]))
    for row in numbered:
        name, energy = f"{row['id']}_{row['sample_idx']}", energies.get(str(row["sample_idx"]))
        target = None if row["id"] is None else str(row["id"])
        yield replace(entry_of_text(name, row["cif"]), target=target, energy=energy, per_cell=True)


def _clari_energies(path: Path) -> dict[str, float | None]:
    if not path.is_file():
        return {}
    text = read_file(path, "energies").decode("utf-8", errors="replace")
    return {row.get("sample_idx", ""): finite_number(row.get("energies")) for row in parse_csv(text, path)[1]}


def _generic(row: dict[str, Any], k: int, columns: Sequence[str]) -> Entry:
    def first(names: Sequence[str]) -> Any:
        return next((row[c] for c in names if c in columns and row[c] is not None), None)

    name, target = first(NAME), first(TARGET)
    entry = entry_of_text(str(k + 1) if name is None else str(name), first(CIF))
    return replace(entry, target=None if target is None else str(target), energy=finite_number(first(ENERGY)))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none, or none that can be read."""
    try:
        found = parse_json(read_file(path, "JSON").decode("utf-8", errors="replace"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
