"""A result folder as the report needs it: `crystals.parquet`, `cif/*.cif` and `run.json`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucleate.data.containers import read_parquet, rows_of
from nucleate.errors import InputError
from nucleate.reading import read_json, real_path

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
        path = real_path(self.folder / self.cif_name(row))
        if not path.is_relative_to(real_path(self.folder)) or not path.is_file():
            return None
        return path.read_text(encoding="utf-8", errors="replace")

    def cif_name(self, row: dict[str, Any]) -> str:
        """Path of the row's CIF file relative to the folder: the `cif` column, else `cif/<rank>.cif`."""
        named = row.get("cif")
        if isinstance(named, str) and named.endswith(".cif") and named.isprintable():
            return named if "/" in named else f"cif/{named}"
        return f"cif/{_rank(row) or 0:04d}.cif"


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
    cleaned = [finite(row) for row in rows_of(read_parquet(table), table)]
    cleaned.sort(key=lambda row: rank if (rank := _rank(row)) is not None else math.inf)
    return Results(folder, tuple(cleaned), read_run(folder / "run.json"))


def _rank(row: dict[str, Any]) -> int | None:
    """Where there is one that is a number."""
    rank = row.get("rank")
    return int(rank) if isinstance(rank, int | float) else None


def read_run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    run = read_json(path)
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
