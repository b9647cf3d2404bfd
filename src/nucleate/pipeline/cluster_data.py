"""Crystals -> a data set of clusters, split by molecule: one cluster of each crystal that has one kind of molecule.

    CIFs | data set of crystals | COD-Cluster17 --read--> crystal --cut--> cluster --split--> shards

Whatever is left out is counted with its reason in `clusters.json`.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, PositiveInt

from nucleate import __version__
from nucleate.crystal.io import read_crystal
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.data.cluster_files import (
    FINAL,
    ClusterRecord,
    published_names,
    read_published,
    write_clusters,
)
from nucleate.data.clusters import SIZE, cluster_of, cluster_of_packing
from nucleate.data.packed import data_sets, from_row
from nucleate.data.splits import read_split_rows, split_of
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.pipeline.crystal_files import cif_files
from nucleate.pipeline.folders import distinct_names, hold_folder, make_folder

RECORD = "clusters.json"
CUT = "cluster"  # the outcome of those that are in
SHARD = 1000  # clusters

Row = dict[str, Any]


class ClusterSettings(BaseModel, frozen=True, extra="forbid"):
    """Which clusters are made."""

    size: int = Field(SIZE, ge=2, description="molecules, the central one included")
    n: PositiveInt | None = None  # crystals drawn from the source; all of them by default
    lowest: bool = False  # of a data set: only the lowest crystal known of each molecule
    seed: int = 0  # of the draw


@dataclass(frozen=True)
class ClustersMade:
    """What became of every crystal; `outcomes` counts `CUT` and the reasons of the others."""

    folder: Path
    outcomes: Counter[str]
    splits: dict[str, int]  # clusters
    asked: int
    interrupted: bool

    @property
    def clusters(self) -> int:
        return self.outcomes[CUT]


@dataclass(frozen=True)
class _Source:
    """A crystal that may become a cluster; `split` is None where its molecule decides."""

    name: str
    read: Callable[[], ClusterRecord]
    split: str | None = None


def make_clusters(
    source: Path,
    folder: Path,
    settings: ClusterSettings | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> ClustersMade:
    """Clusters of the crystals in `source`, as data sets in sub-folders of `folder`, one for each split.

    `source` is a CIF or a folder of them, a data set of `nucleate data synthesize` or `import` (its splits are
    believed), or the folder that `FinalPositions` and `InitialPositions` of COD-Cluster17 are in. Otherwise 80, 10 and
    10 % of the molecules go to train, val and test by a hash of their graphs. Ctrl-C ends the run early with what is
    done. Raises InputError where the source cannot be read or the folder is not empty.
    """
    settings = settings or ClusterSettings()
    sources = _sources(source, settings)
    with hold_folder(make_folder(folder)):
        if data_sets(folder) or (folder / RECORD).exists():
            raise InputError(f"expected an empty folder, got {folder} with data; choose another with -o")
        about = {"settings": settings.model_dump(mode="json"), "source": source.name}
        return _make(sources, _Shards(folder, about), progress or (lambda *_: None))


@dataclass
class _Shards:
    """Clusters on their way to files: those of each split that fill no shard yet."""

    folder: Path
    about: dict[str, Any]
    waiting: dict[str, list[ClusterRecord]] = field(default_factory=dict)
    written: Counter[str] = field(default_factory=Counter)  # clusters of each split
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> reason, message

    def take(self, record: ClusterRecord, split: str) -> None:
        own = self.waiting.setdefault(split, [])
        own.append(record)
        if len(own) == SHARD:
            self.write(split)

    def write(self, split: str) -> None:
        records = self.waiting.pop(split)
        path = self.folder / split / f"{self.written[split] // SHARD:05d}.parquet"
        write_clusters(records, path, self.about | {"split": split})
        self.written[split] += len(records)


def _make(sources: Sequence[_Source], files: _Shards, tell: Callable[[int, int, str], None]) -> ClustersMade:
    interrupted = False
    try:
        for done, source in enumerate(sources):
            tell(done, len(sources), source.name)
            try:
                record = source.read()
            except InputError as error:
                files.failed[source.name] = (error.reason, str(error))
            else:
                files.take(record, source.split or split_of(record.key))
        tell(len(sources), len(sources), "")
    except KeyboardInterrupt:
        interrupted = True
    for split in sorted(files.waiting):
        files.write(split)
    outcomes = Counter({CUT: files.written.total()} if files.written else {})
    outcomes.update(reason for reason, _ in files.failed.values())
    made = ClustersMade(
        files.folder, outcomes, dict(sorted(files.written.items())), len(sources), interrupted
    )
    write_atomically(files.folder / RECORD, json.dumps(_record(made, files), indent=1) + "\n")
    return made


def _record(made: ClustersMade, files: _Shards) -> dict[str, Any]:
    return {
        "nucleate": __version__,
        **files.about,
        "asked": made.asked,
        "counts": dict(made.outcomes.most_common()),
        "splits": made.splits,
        "interrupted": made.interrupted,
        "left_out": {n: {"outcome": reason, "why": why} for n, (reason, why) in files.failed.items()},
    }


# ---------------------------------------------------------------- sources


def _sources(source: Path, settings: ClusterSettings) -> list[_Source]:
    """What may become a cluster, in order; a sample of it where `n` says so."""
    if not source.exists():
        raise InputError(
            f"expected a CIF, a folder of them, a data set of crystals or COD-Cluster17, got {source}"
        )
    if (source / FINAL).is_dir():
        found = _published(source, settings)
    elif source.is_dir() and data_sets(source):
        found = _data_set(source, settings)
    else:
        found = _cifs(source, settings)
    if not found:
        raise InputError(f"expected crystals, found none in {source}", "empty file")
    if settings.n is None or settings.n >= len(found):
        return found
    drawn = random.Random(settings.seed).sample(range(len(found)), settings.n)
    return [found[i] for i in sorted(drawn)]


def _cifs(source: Path, settings: ClusterSettings) -> list[_Source]:
    paths = cif_files([source])
    names = distinct_names(path.stem for path in paths)

    def reader(path: Path, name: str) -> Callable[[], ClusterRecord]:
        def read() -> ClusterRecord:
            crystal = normalise_hydrogens(read_crystal(path))
            return ClusterRecord(cluster_of(crystal.replace(info={"id": name}), settings.size))

        return read

    return [_Source(name, reader(path, name)) for path, name in zip(paths, names)]


def _data_set(source: Path, settings: ClusterSettings) -> list[_Source]:
    def reader(row: Row, name: str) -> Callable[[], ClusterRecord]:
        return lambda: ClusterRecord(cluster_of_packing(from_row(row).packing, name, settings.size))

    by_split = read_split_rows(source)
    rows = [
        (row, split)
        for split, own in sorted(by_split.items())
        for row in own
        if not (settings.lowest and row["above"])
    ]
    names = distinct_names(row["id"] for row, _ in rows)
    return [_Source(name, reader(row, name), split) for (row, split), name in zip(rows, names)]


def _published(source: Path, settings: ClusterSettings) -> list[_Source]:
    def reader(name: str) -> Callable[[], ClusterRecord]:
        def read() -> ClusterRecord:
            record = read_published(source, name)
            if (molecules := record.cluster.n_molecules) != settings.size:
                raise InputError(f"expected {settings.size} molecules in {name}, got {molecules}", "size")
            return record

        return read

    return [_Source(name, reader(name)) for name in published_names(source)]
