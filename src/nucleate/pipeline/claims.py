"""Folders of samples: whose they are, and what is in them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucleate.data.containers import read_parquet, rows_of
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.reading import read_json


def claim_again(mark: Path, identity: Mapping[str, Any]) -> None:
    """For runs that write the same files when they are run again: `mark` (JSON) says what they are made of.

    Raises InputError where the folder holds numbered CIF files of another run, or of nobody known.
    """
    folder = mark.parent
    if mark.is_file():
        try:
            before = read_json(mark)
        except InputError:
            before = None
        different = (
            [k for k in identity if before.get(k) != identity[k]] if isinstance(before, dict) else ["run"]
        )
        if different:
            raise InputError(
                f"expected a folder without other samples, got {folder} (other {', '.join(different)}); choose another "
                "with -o, repeat those settings, or delete the folder"
            )
    elif there := next((path for path in folder.glob("*.cif") if path.stem.isdigit()), None):
        raise InputError(
            f"expected a folder without numbered CIF files, got {folder} with {there.name}, which would be written "
            "over; choose another with -o"
        )
    write_atomically(mark, json.dumps(identity, indent=1) + "\n")


def claim(
    mark: Path, table: Path, identity: Mapping[str, Any], wanted: set[str], resume: bool
) -> dict[str, dict[str, Any]]:
    """Rows of an earlier run, by `id`. `mark` (JSON) is written with what must agree for samples to belong together.

    Raises InputError where there is a run that was not to be resumed, or another, or more samples than `wanted`.
    """
    folder = mark.parent
    if mark.is_file() and not resume:
        raise InputError(
            f"expected a folder without samples, got {folder}; --resume goes on with them, or choose another with -o"
        )
    try:
        before = read_json(mark) if mark.is_file() else identity
        rows = rows_of(read_parquet(table), table) if table.is_file() else []
        if not isinstance(before, Mapping) or not all(isinstance(row.get("id"), str) for row in rows):
            raise InputError("something else")
    except InputError as error:
        raise InputError(
            f"--resume: expected samples in {folder} that can be read, got damaged ones ({error}); delete it, or "
            "choose another with -o"
        ) from None
    if different := [key for key in identity if before.get(key) != identity[key]]:
        raise InputError(
            f"--resume: {folder} holds other samples (other {', '.join(different)}); repeat those settings, or "
            "choose another folder with -o"
        )
    if any(row["id"] not in wanted for row in rows):
        raise InputError(f"--n: expected at least the samples that {folder} holds ({len(rows)}), got fewer")
    write_atomically(mark, json.dumps(identity, indent=1) + "\n")
    return {row["id"]: row for row in rows}
