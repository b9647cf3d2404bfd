"""Data sets of clusters: parquet shards of our own, and the CSV folders of the published COD-Cluster17.

A row is one cluster:

| column | |
|---|---|
| `name` | of the crystal that it was cut from |
| `key` | the molecule's graph without hydrogens, as in data sets of crystals: equal keys belong to one split |
| `numbers`, `bonds` | of one molecule; bonds as pairs, one after the other |
| `positions` | Å, single precision, molecule after molecule, the central one first |
| `loose` | initial positions where they came with the data; null where they are drawn (`loosened`) |

The metadata `nucleate` of a file is JSON that says how it was made and names the split.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from jaxtyping import Float, Int
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.cluster import Cluster
from nucleate.crystal.io import FARTHEST
from nucleate.crystal.open_space import open_bonds
from nucleate.data.packed import data_sets, shards
from nucleate.data.shard_files import BROKEN, ShardKind, split_said
from nucleate.data.splits import split_of
from nucleate.errors import InputError
from nucleate.metrics.heavy_molecules import split_graphs
from nucleate.reading import read_file, why

SCHEMA = pyarrow.schema(
    [
        ("name", pyarrow.string()),
        ("key", pyarrow.string()),
        ("numbers", pyarrow.list_(pyarrow.int16())),
        ("bonds", pyarrow.list_(pyarrow.int16())),
        ("positions", pyarrow.list_(pyarrow.float32())),
        ("loose", pyarrow.list_(pyarrow.float32())),
    ]
)
KIND = ShardKind("clusters", SCHEMA)
FINAL, INITIAL = "FinalPositions", "InitialPositions"
FINAL_END, INITIAL_END = "_cluster16.csv", "_cluster16_noised.csv"
TABLE = Chem.GetPeriodicTable()
SYMBOLS = {TABLE.GetElementSymbol(z): z for z in range(1, 119)} | {"D": 1}


@dataclass(frozen=True, eq=False)
class ClusterRecord:
    """A cluster of a data set, and its initial positions where they are fixed."""

    cluster: Cluster
    loose: Cluster | None = None

    @cached_property
    def key(self) -> str:
        """Names the molecule: equal for equal graphs of heavy atoms, as `PackedCrystal.key`."""
        numbers = self.cluster.numbers.numpy()
        heavy = numbers > 1
        kept = heavy if heavy.any() else ~heavy
        one = np.zeros(len(numbers), dtype=np.int64)
        return split_graphs(numbers, one, kept, self.cluster.bonds.numpy())[0].key


# ---------------------------------------------------------------- parquet


def write_clusters(records: Sequence[ClusterRecord], path: Path, about: dict[str, Any]) -> None:
    """One parquet file, whole or not there; `about` (JSON) says how it was made, `about["split"]` its split."""
    columns = {
        "name": [r.cluster.name for r in records],
        "key": [r.key for r in records],
        "numbers": [r.cluster.numbers.numpy() for r in records],
        "bonds": [r.cluster.bonds.flatten().numpy() for r in records],
        "positions": [_flat(r.cluster) for r in records],
        "loose": [None if r.loose is None else _flat(r.loose) for r in records],
    }
    KIND.write(pyarrow.Table.from_pydict(columns, schema=SCHEMA), path, about)


def read_clusters(folder: Path) -> Iterator[ClusterRecord]:
    """Clusters of all shards of a folder, one after the other, in double precision.

    Raises InputError where the folder holds none, or other files.
    """
    files = shards(folder)
    if not files:
        inside = " or ".join(map(str, data_sets(folder)))
        hint = f"; there is one in {inside}" if inside else "; `nucleate data clusters` makes one"
        raise InputError(f"expected a data set of clusters (*.parquet), found none in {folder}{hint}")
    for path in files:
        yield from map(_from_row, _rows(path))


def read_cluster_splits(folder: Path) -> dict[str, list[ClusterRecord]]:
    """The clusters of a data set, or of those in its sub-folders, by split: the shards' own, or else by hash."""
    found: dict[str, list[ClusterRecord]] = {}
    for place in data_sets(folder) or [folder]:  # `read_clusters` says what is wrong with an empty one
        split = split_said(place, shards(place), about_clusters)
        for record in read_clusters(place):
            found.setdefault(split or split_of(record.key), []).append(record)
    return found


def about_clusters(path: Path) -> dict[str, Any]:
    """What `write_clusters` was told. Raises InputError for a file that is no shard of clusters."""
    return KIND.about(path)


def _rows(path: Path) -> list[dict[str, Any]]:
    table = KIND.read(path)
    columns = {name: table.column(name) for name in SCHEMA.names}
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _from_row(row: dict[str, Any]) -> ClusterRecord:
    """Raises InputError where the row contradicts itself."""
    try:
        return _record(row)
    except BROKEN as error:
        raise KIND.contradiction(row["name"], error) from error


def _record(row: dict[str, Any]) -> ClusterRecord:
    numbers = _tensor(row["numbers"], torch.long)
    shape = (-1, len(numbers), 3)
    bonds = _tensor(row["bonds"], torch.long).reshape(-1, 2)
    final = _tensor(row["positions"], torch.float64).reshape(shape)
    cluster = Cluster(numbers, final, row["name"].as_py(), bonds)
    if not row["loose"].is_valid:
        return ClusterRecord(cluster)
    return ClusterRecord(cluster, cluster.with_positions(_tensor(row["loose"], torch.float64).reshape(shape)))


def _tensor(cell: Any, dtype: torch.dtype) -> Tensor:
    """The list in a cell, without a Python number for each entry."""
    return torch.from_numpy(cell.values.to_numpy(zero_copy_only=False).copy()).to(dtype)


def _flat(cluster: Cluster) -> Float[np.ndarray, " coordinates"]:
    return cluster.positions.float().flatten().numpy()


# ---------------------------------------------------------------- the published CSV folders


def published_names(folder: Path) -> list[str]:
    """The clusters in `FinalPositions`, in order. Raises InputError where the two folders are not there."""
    for name in (FINAL, INITIAL):
        if not (folder / name).is_dir():
            raise InputError(
                f"expected the folders {FINAL} and {INITIAL} of COD-Cluster17 in {folder}, found no {name}"
            )
    return sorted(p.name.removesuffix(FINAL_END) for p in (folder / FINAL).glob(f"*{FINAL_END}"))


def read_published(folder: Path, name: str) -> ClusterRecord:
    """One published cluster, both files centred on the central molecule's centroid in the final one.

    The central molecule, made the first, is the one whose farthest neighbour is nearest; the others keep the order of
    the files. Bonds are perceived from the final positions of the central molecule. Raises InputError with
    reason "unreadable", "no partner" (the noised file lacks), "other molecules" (the two files, or the copies,
    disagree about atoms) or "clash".
    """
    numbers, final = _read_csv(folder / FINAL / f"{name}{FINAL_END}")
    noised = folder / INITIAL / f"{name}{INITIAL_END}"
    if not noised.is_file():
        raise InputError(f"expected the initial positions of {name} in {noised}, found none", "no partner")
    others, initial = _read_csv(noised)
    if initial.shape != final.shape or not torch.equal(numbers, others):
        raise InputError(
            f"expected the same molecules in the same order in both files of {name}, got others",
            "other molecules",
        )
    centroids = final.mean(1)
    first = int(torch.cdist(centroids, centroids).amax(1).argmin())
    rest = torch.arange(len(final)) != first
    order = torch.cat([torch.tensor([first]), torch.nonzero(rest).flatten()])
    origin = centroids[first]
    cluster = Cluster(numbers, final[order] - origin, name, open_bonds(numbers, final[first]))
    return ClusterRecord(cluster, cluster.with_positions(initial[order] - origin))


def _read_csv(path: Path) -> tuple[Int[Tensor, " atoms"], Float[Tensor, "molecules atoms 3"]]:
    """Numbers of one molecule and positions (Å) of all, molecules in the order in which they first appear."""
    try:
        text = read_file(path, "a cluster").decode("utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines()) if row][1:]
        molecule = np.array([row[0].strip() for row in rows])
        numbers = np.array([SYMBOLS[row[1].strip().capitalize()] for row in rows], dtype=np.int64)
        positions = np.array([[float(x) for x in row[2:5]] for row in rows]).reshape(-1, 3)
    except (csv.Error, ValueError, IndexError, KeyError) as error:
        raise InputError(
            f"expected lines mol_idx, element, x, y, z below a header, got {path} ({why(error)}); check the file",
            "unreadable",
        ) from error
    if not len(rows) or not (np.abs(positions) < FARTHEST).all():  # false for NaN as well
        raise InputError(f"expected atoms at places in Å, got none or others in {path}", "unreadable")
    _, start, member = np.unique(molecule, return_index=True, return_inverse=True)
    order = np.argsort(start[member], kind="stable")
    sizes = np.bincount(member)
    if len(set(sizes.tolist())) > 1:
        raise InputError(
            f"expected equally many atoms in every molecule, got {sorted(set(sizes.tolist()))} in {path}",
            "other molecules",
        )
    elements = numbers[order].reshape(len(sizes), -1)
    if (elements != elements[0]).any():
        raise InputError(
            f"expected the atoms of every molecule in one order, got others in {path}", "other molecules"
        )
    return torch.from_numpy(elements[0]), torch.from_numpy(positions[order].reshape(len(sizes), -1, 3))
