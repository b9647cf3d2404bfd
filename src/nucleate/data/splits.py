"""What may be learnt from, and what is kept to measure: decided by molecule, in one place for all data sets.

A crystal belongs to train, val or test with all crystals of its largest molecule. Data sets that say where they belong
(those of `nucleate data import`) are believed; for others a hash decides.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nucleate.data.packed import about_shard, data_sets, read_rows, shards
from nucleate.data.shard_files import split_said
from nucleate.errors import InputError

SHARES = (("train", 0.8), ("val", 0.1), ("test", 0.1))
HELD_OUT = {"train": 0, "val": 1, "test": 2}  # names of one's own are held out most

Row = dict[str, Any]
R = TypeVar("R")


def main_molecule(key: str) -> str:
    """Of the keys that `PackedCrystal.key` joins, that of the largest molecule: solvates go with what they solvate."""
    return max(key.split("."), key=lambda part: (part.count("["), part))


def split_of(key: str) -> str:
    """train, val or test by a hash of the largest molecule: the same on every machine, today and tomorrow."""
    number = int.from_bytes(hashlib.sha256(main_molecule(key).encode()).digest()[:8], "big") / 2**64
    bounds = np.cumsum([share for _, share in SHARES])
    return SHARES[min(int(np.searchsorted(bounds, number, side="right")), len(SHARES) - 1)][0]


def assign_splits(
    keys: Mapping[str, str], table: Mapping[str, str] | None
) -> tuple[dict[str, str], list[str]]:
    """The split of each crystal, from name -> key, and the names that are not where the table has them."""
    if table is None:
        return {name: split_of(key) for name, key in keys.items()}, []
    held: dict[str, str] = {}
    for name, key in keys.items():
        mine, other = table[name], held.setdefault(main_molecule(key), table[name])
        held[main_molecule(key)] = max(mine, other, key=lambda s: (HELD_OUT.get(s, len(HELD_OUT)), s))
    found = {name: held[main_molecule(key)] for name, key in keys.items()}
    return found, [name for name, split in found.items() if split != table[name]]


def read_split_rows(folder: Path) -> dict[str, list[Row]]:
    """The rows of a data set, or of those in its sub-folders, by split.

    Where data sets disagree about a molecule (one has it in train, another in test), all its crystals go to the most
    held-out of its splits. Raises InputError as `read_rows`.
    """
    places = data_sets(folder) or [folder]  # `read_rows` says what is wrong with an empty one
    said_by = {place: split_said(place, shards(place), about_shard) for place in places}
    rows = [(row, said_by[place]) for place in places for row in read_rows(place)]
    names = [str(i) for i in range(len(rows))]
    said = {name: split or split_of(row["key"]) for name, (row, split) in zip(names, rows)}
    splits, _ = assign_splits({name: row["key"] for name, (row, _) in zip(names, rows)}, said)
    found: dict[str, list[Row]] = {}
    for name, (row, _) in zip(names, rows):
        found.setdefault(splits[name], []).append(row)
    return found


def learnt_and_held(folder: Path) -> tuple[list[Row], list[Row]]:
    """The rows to learn from (train) and those to validate on (val); test is not touched.

    Raises InputError where one of them lacks.
    """
    return train_and_val(read_split_rows(folder), "crystals", folder)


def train_and_val(found: Mapping[str, list[R]], what: str, folder: Path) -> tuple[list[R], list[R]]:
    """Of records by split those of train and of val. Raises InputError where one of them lacks."""
    for name, hint in (
        ("train", "make more"),
        ("val", "give the folder that train and val are in, or make more"),
    ):
        if not found.get(name):
            counts = ", ".join(f"{len(own)} {split}" for split, own in sorted(found.items())) or "none"
            raise InputError(f"expected {what} of the split {name} in {folder}, got {counts}; {hint}")
    return found["train"], found["val"]
