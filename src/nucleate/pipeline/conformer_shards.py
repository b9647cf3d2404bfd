"""Conformers on their way to files: one data set for each split, and a record of what became of every molecule.

Sets are in parquet shards (`data.conformers`) whose metadata names the molecules; molecules without a set are in the
record `conformers.json` with the reason. What is there is written every `CHECKPOINT` molecules and at the end, so a
kill costs no more than those.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nucleate import __version__
from nucleate.data.conformers import KIND, write_rows
from nucleate.data.packed import data_sets, shards
from nucleate.data.splits import split_of
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.reading import read_json

RECORD = "conformers.json"
DONE = "done"
SHARD = 1000  # molecules
CHECKPOINT = 200  # molecules


@dataclass(frozen=True)
class ConformersMade:
    """What became of every molecule; `outcomes` counts `DONE` and the reasons of the others."""

    folder: Path
    asked: int
    outcomes: Counter[str]
    splits: dict[str, int]  # molecules
    conformers: int
    counts: dict[str, int]  # shapes on their way: embedded, lost, alike, kept
    interrupted: bool


@dataclass
class _Part:
    """A shard of one split: rows, and of each the number and name of its molecule, how many conformers, counts."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class ConformerShards:
    """Takes sets and failures; `known` are the molecules (by number) that need no more work."""

    def __init__(self, folder: Path, about: dict[str, Any], split: str | None = None) -> None:
        self.folder, self.about, self.split = folder, about, split
        self.known: dict[int, str] = {}  # what was given for them
        self.left_out: dict[int, tuple[str, str, str]] = {}  # number -> what was given, reason, message
        self.splits: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.conformers = 0
        self._parts: dict[str, _Part] = {}
        self._waiting = 0

    def take(self, number: int, given: str, row: dict[str, Any], counts: dict[str, int]) -> None:
        """The set of a molecule, as its row."""
        split = self.split or split_of(row["key"])
        part = self._parts.setdefault(split, _Part(self._next(split)))
        part.rows.append(row)
        part.numbers.append(number)
        part.given.append(given)
        part.counts.update(counts)
        self._count(number, given, split, len(row["weights"]), counts)
        if len(part.rows) == SHARD:
            self._write(split)
            del self._parts[split]
        self._pause()

    def leave_out(self, number: int, given: str, reason: str, why: str) -> None:
        """A molecule without a set."""
        self.known[number] = given
        self.left_out[number] = (given, reason, why)
        self._pause()

    def resume(self) -> None:
        """Take up what an earlier run left. Raises InputError where it was of other settings or another source."""
        for place in data_sets(self.folder):
            for path in shards(place):
                about = KIND.about(path)
                self._refuse_others(about, path)
                try:
                    known = {int(i): given for i, given in about["molecules"].items()}
                    self.splits[str(about["split"])] += len(known)
                    self.conformers += about["conformers"]
                    self.counts.update(about["counts"])
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise KIND.contradiction(path, error) from error
                self.known |= known
        self._resume_record()

    def finish(self, asked: int, interrupted: bool) -> ConformersMade:
        """Write everything that waits, and the record."""
        self._flush()
        outcomes = Counter(reason for _, reason, _ in self.left_out.values())
        outcomes += Counter({DONE: self.splits.total()})
        made = ConformersMade(
            self.folder, asked, outcomes, dict(sorted(self.splits.items())), self.conformers,
            dict(self.counts), interrupted,
        )  # fmt: skip
        write_atomically(self.folder / RECORD, json.dumps(self._record(made), indent=1) + "\n")
        return made

    # ------------------------------------------------------------ files

    def _count(self, number: int, given: str, split: str, conformers: int, counts: dict[str, int]) -> None:
        self.known[number] = given
        self.splits[split] += 1
        self.conformers += conformers
        self.counts.update(counts)

    def _next(self, split: str) -> Path:
        taken = [int(path.stem) for path in shards(self.folder / split) if path.stem.isdigit()]
        return self.folder / split / f"{max(taken, default=-1) + 1:05d}.parquet"

    def _pause(self) -> None:
        self._waiting += 1
        if self._waiting >= CHECKPOINT:
            self.finish(len(self.known), True)

    def _flush(self) -> None:
        self._waiting = 0
        for split in self._parts:
            self._write(split)

    def _write(self, split: str) -> None:
        part = self._parts[split]
        order = sorted(range(len(part.rows)), key=part.numbers.__getitem__)  # whichever worker was first
        about = {
            **self.about,
            "split": split,
            "molecules": {str(i): given for i, given in sorted(zip(part.numbers, part.given))},
            "conformers": sum(len(row["weights"]) for row in part.rows),
            "counts": dict(part.counts),
        }
        write_rows([part.rows[k] for k in order], part.path, about)

    def _refuse_others(self, about: dict[str, Any], path: Path) -> None:
        if not isinstance(about, dict) or any(about.get(name) != value for name, value in self.about.items()):
            raise InputError(
                f"expected conformers made with the same settings, of the same source and with the same molecules "
                f"excluded, got {path}; choose another folder with -o"
            )

    def _resume_record(self) -> None:
        """Molecules that were left out; those of a run that was killed before it wrote the record are tried again."""
        path = self.folder / RECORD
        if not path.exists():
            return
        try:
            record = read_json(path)
        except InputError as error:
            raise InputError(
                f"expected the record of a data set in {path}, got none ({error}); remove it"
            ) from None
        self._refuse_others(record, path)
        try:
            found = {
                int(i): (said["given"], said["outcome"], said["why"])
                for i, said in record["left_out"].items()
                if int(i) not in self.known
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"expected the record of a data set in {path}, got none ({error}); remove it"
            ) from None
        self.left_out |= found
        self.known |= {i: given for i, (given, _, _) in found.items()}

    def _record(self, made: ConformersMade) -> dict[str, Any]:
        return {
            "nucleate": __version__,
            **self.about,
            "asked": made.asked,
            "counts": dict(made.outcomes.most_common()),
            "splits": made.splits,
            "conformers": made.conformers,
            "shapes": made.counts,
            "interrupted": made.interrupted,
            "left_out": {
                str(i): {"given": given, "outcome": reason, "why": why}
                for i, (given, reason, why) in sorted(self.left_out.items())
            },
        }


def refuse_full(folder: Path) -> None:
    """Raises InputError where the folder already holds a data set."""
    if data_sets(folder) or (folder / RECORD).exists():
        raise InputError(f"expected an empty folder, got {folder} with data; --resume goes on with it")
