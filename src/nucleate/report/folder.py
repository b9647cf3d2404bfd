"""A result folder as the report needs it: `crystals.parquet`, `cif/*.cif` and `run.json`."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from nucleate.errors import InputError

CRYSTALS, SAMPLES, CONFORMERS = "crystals.parquet", "samples.parquet", "conformers.sdf"
FREE_ENERGY = "free_energy.json"


@dataclass(frozen=True)
class Results:
    """Rows of the table best first, and `run.json`; what is not finite is None.

    Columns and keys may be missing: runs may be interrupted, and older versions wrote fewer.
    """

    folder: Path
    rows: tuple[dict[str, Any], ...]
    run: dict[str, Any]

    def cif(self, row: dict[str, Any]) -> str | None:
        """Text of the row's CIF file, or None where there is none inside the folder."""
        path = (self.folder / self.cif_name(row)).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            return None
        return path.read_text(encoding="utf-8", errors="replace")

    def cif_name(self, row: dict[str, Any]) -> str:
        """Path of the row's CIF file relative to the folder: the `cif` column, else `cif/<rank>.cif`."""
        named = row.get("cif")
        if isinstance(named, str) and named.endswith(".cif") and "\n" not in named:
            return named if "/" in named else f"cif/{named}"
        return f"cif/{int(row.get('rank') or 0):04d}.cif"


def read_results(folder: Path, name: str = CRYSTALS) -> Results:
    """Read a result folder; `run.json` may be missing.

    Raises InputError where the table of that name is missing, or one of the two files cannot be parsed.
    """
    table = folder / name
    if not table.is_file():
        raise InputError(
            f"expected a result folder with {name}, found none in {folder}. "
            "Give the folder that `nucleate predict -o` wrote."
        )
    try:
        rows = pyarrow.parquet.read_table(table).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"expected a readable parquet table, got {error} in {table}. Run it again."
        ) from error
    cleaned = [finite(row) for row in rows]
    cleaned.sort(key=lambda row: row["rank"] if row.get("rank") is not None else math.inf)
    return Results(folder, tuple(cleaned), read_run(folder / "run.json"))


def read_run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"expected JSON in {path}, got: {error}. Delete the file or run again.") from error
    if not isinstance(run, dict):
        raise InputError(
            f"expected a JSON object in {path}, got {type(run).__name__}. Delete the file or run again."
        )
    return finite(run)


def finite(value: Any) -> Any:
    """The same nested value with NaN and infinity as None, which JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is a table, else an empty one: files may be damaged or of another version."""
    return value if isinstance(value, dict) else {}
