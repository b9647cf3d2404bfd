"""Shards: parquet files whose metadata `nucleate` is JSON that says how they were made.

Each kind of record has its columns; a file with others, or without the metadata, is none of ours.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from nucleate.data.containers import ARROW, read_parquet, rows_of
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.reading import check_file, parse_json, why

BROKEN = (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError, OverflowError)
"""What torch, RDKit and our classes raise of a record whose parts do not fit."""


@dataclass(frozen=True)
class ShardKind:
    """What the records are called, and their columns."""

    what: str
    schema: pyarrow.Schema

    def write(self, table: pyarrow.Table, path: Path, about: dict[str, Any]) -> None:
        """One file, whole or not there; `about` becomes the metadata."""
        table = table.replace_schema_metadata({"nucleate": json.dumps(about)})
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        write_atomically(path, sink.getvalue().to_pybytes())

    def has(self, path: Path) -> bool:
        """Is this file of our kind?"""
        try:
            self.about(path)
        except InputError:
            return False
        return True

    def about(self, path: Path) -> dict[str, Any]:
        """What `write` was told. Raises InputError for a file of another kind."""
        check_file(path, f"a shard of {self.what}")
        try:
            schema = pyarrow.parquet.read_schema(path)
            about = parse_json((schema.metadata or {})[b"nucleate"])
        except ARROW as error:
            raise InputError(
                f"expected a shard of {self.what}, got {path} ({why(error)}); remove it", "unreadable"
            ) from error
        if not schema.remove_metadata().equals(self.schema) or not isinstance(about, dict):
            raise InputError(
                f"expected a shard of {self.what}, got {path} with other columns; remove it", "unreadable"
            )
        return about

    def read(self, path: Path, columns: list[str] | None = None) -> pyarrow.Table:
        """Raises InputError for a file of another kind, or a damaged one."""
        self.about(path)
        try:
            return read_parquet(path, columns)
        except InputError as error:
            raise InputError(
                f"expected a shard of {self.what}, got {path}, which is damaged; remove it", "unreadable"
            ) from error

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """As `read`, the records as dictionaries; raises InputError as well where one has no `key`."""
        rows = rows_of(self.read(path), path)
        if any(not row["key"] for row in rows):
            raise InputError(
                f"expected a key with every record of {path}, got some without; remove it", "unreadable"
            )
        return rows

    def keys(self, path: Path) -> set[str]:
        """The keys of all records, without anything else. Raises InputError as `rows`."""
        keys = {row["key"] for row in rows_of(self.read(path, ["key"]), path)}
        if not all(keys):
            raise InputError(
                f"expected a key with every record of {path}, got some without; remove it", "unreadable"
            )
        return keys

    def contradiction(self, name: object, error: Exception) -> InputError:
        """What to raise where a record does not make sense."""
        return InputError(
            f"expected a record of {self.what}, got {name!s:.40} which contradicts itself ({why(error)})",
            "unreadable",
        )


def split_said(place: Path, paths: list[Path], about: Callable[[Path], dict[str, Any]]) -> str:
    """The split that the shards of a data set name, or nothing. Raises InputError where they name several."""
    said = {str(about(path).get("split", "")) for path in paths}
    if len(said) > 1:
        raise InputError(
            f"expected shards of one split in {place}, got {', '.join(sorted(said))}; sort them out"
        )
    return next(iter(said), "")
