"""Parquet, CSV and safetensors from outside: a value, or an InputError, whatever is in the file.

The libraries below raise a dozen kinds of errors on damaged files; every reader of ours would have to know them all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
from safetensors import SafetensorError, safe_open

from nucleate.errors import InputError
from nucleate.reading import check_file, parse_json, why

# ValueError: names and texts that are no UTF-8; KeyError: names that are there twice
ARROW = (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """Columns as they are stored, whatever the folders are called (`x=1` is a partition to arrow).

    Raises InputError "unreadable".
    """
    check_file(path, "a table")
    wanted = None if columns is None else list(columns)
    try:
        return _sound(pyarrow.parquet.read_table(path, columns=wanted, partitioning=None), path)
    except ARROW as error:
        raise _no_table(path, error) from None


def read_csv(path: Path) -> pyarrow.Table:
    """A table whose texts may hold line ends. Raises InputError "unreadable"."""
    check_file(path, "a table")
    quoted = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        return _sound(pyarrow.csv.read_csv(path, parse_options=quoted), path)
    except ARROW as error:
        raise _no_table(path, error) from None


def rows_of(table: pyarrow.Table, path: Path) -> list[dict[str, Any]]:
    """The rows as dictionaries. Raises InputError "unreadable" where a text in them is none."""
    try:
        return table.to_pylist()
    except ARROW as error:
        raise _no_table(path, error) from None


def read_tensors_and_json(path: Path, key: str) -> tuple[dict[str, Any], Any]:
    """The tensors of a safetensors file, on the CPU, and the JSON in its metadata under `key`; None where it has none.

    Raises ValueError or OSError with the reason where it is no whole file.
    """
    check_file(path, "tensors")
    try:
        with safe_open(str(path), "pt") as file:
            about = parse_json((file.metadata() or {}).get(key, "null"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, TypeError, RuntimeError, MemoryError, OverflowError, AttributeError) as error:
        raise ValueError(why(error)) from None


def _sound(table: pyarrow.Table, path: Path) -> pyarrow.Table:
    """The table, once its names are known to be text, each there once, and its values to be whole."""
    names = list(table.column_names)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"expected columns of different names in {path}, got {twice!r} twice", "unreadable")
    table.validate()
    return table


def _no_table(path: Path, error: BaseException) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(
        f"expected a readable table in {path}, got a damaged one or none ({why(error)})", "unreadable"
    )
