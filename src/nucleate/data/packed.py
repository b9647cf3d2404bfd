"""Rigid-molecule crystals as rows of parquet shards: what generators learn from.

A row is one crystal: the molecules of the asymmetric unit as rigid bodies (`Packings` of one), and where it is from.
Molecules are SMILES with every hydrogen written, and coordinates follow the order of their atoms.

| column | |
|---|---|
| `id`, `source` | `cod` number or number of the synthetic crystal; `cod`, `synthetic`, ... |
| `key` | the molecules' graphs without hydrogens: crystals with equal keys belong to one split |
| `smiles` | of each species |
| `kind` | the species of each body |
| `local` | body-frame positions of each body (Å, single precision), before its handedness |
| `lattice`, `centroid`, `rotation`, `handedness` | as in `Packings` |
| `number`, `symbol`, `rotations`, `translations` | the space group in the cell's own setting |
| `energy` | kJ/mol per formula unit in the built-in force field, conformers included; null where not known |
| `above` | kJ/mol above the lowest crystal known of the same molecule |
| `hits` | starts of the search that ended here |

The metadata `nucleate` of a file is JSON that says how it was made. A folder of such files is a data set; its
sub-folders `train`, `val`, `test` are data sets of their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.graph_smiles import read_graph, write_graph
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.data.containers import rows_of
from nucleate.data.shard_files import BROKEN, ShardKind
from nucleate.errors import InputError
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.metrics.heavy_molecules import molecule_key

SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("source", pyarrow.string()),
        ("key", pyarrow.string()),
        ("smiles", pyarrow.list_(pyarrow.string())),
        ("kind", pyarrow.list_(pyarrow.int8())),
        ("local", pyarrow.list_(pyarrow.list_(pyarrow.float32()))),
        ("lattice", pyarrow.list_(pyarrow.float64())),
        ("centroid", pyarrow.list_(pyarrow.float64())),
        ("rotation", pyarrow.list_(pyarrow.float64())),
        ("handedness", pyarrow.list_(pyarrow.int8())),
        ("number", pyarrow.int16()),
        ("symbol", pyarrow.string()),
        ("rotations", pyarrow.list_(pyarrow.int8())),
        ("translations", pyarrow.list_(pyarrow.float64())),
        ("energy", pyarrow.float64()),
        ("above", pyarrow.float64()),
        ("hits", pyarrow.int32()),
    ]
)
KIND = ShardKind("crystals", SCHEMA)


@dataclass(frozen=True, eq=False)
class PackedCrystal:
    """One crystal of a data set; `packing` is a batch of one with one conformer a body."""

    packing: Packings
    id: str
    source: str
    energy: float | None = None  # kJ/mol per formula unit
    above: float | None = None  # kJ/mol above the lowest of the same molecule
    hits: int = 0

    @property
    def key(self) -> str:
        """Names the molecules: equal for equal graphs of heavy atoms, whatever their numbers or stereo."""
        return ".".join(sorted({molecule_key(m) for m in self.packing.species}))


def to_row(crystal: PackedCrystal) -> dict[str, Any]:
    """A row of plain values. Raises InputError where a molecule's graph does not survive as SMILES."""
    packing = crystal.packing
    written = [write_graph(molecule.graph) for molecule in packing.species]
    conformers = [packing.species[k].conformers[c] for k, c in zip(packing.kind, packing.conformer[0])]
    local = [
        own[list(written[k][1])].float().flatten().tolist()
        for own, k in zip(conformers, packing.kind.tolist())
    ]
    return {
        "id": crystal.id, "source": crystal.source, "key": crystal.key, "smiles": [w[0] for w in written],
        "kind": packing.kind.tolist(), "local": local, "lattice": packing.lattice[0].flatten().tolist(),
        "centroid": packing.centroid[0].flatten().tolist(), "rotation": packing.rotation[0].flatten().tolist(),
        "handedness": packing.handedness[0].tolist(), "number": packing.group.number,
        "symbol": packing.group.symbol, "rotations": packing.group.rotations.flatten().tolist(),
        "translations": packing.group.translations.flatten().tolist(), "energy": crystal.energy,
        "above": crystal.above, "hits": crystal.hits,
    }  # fmt: skip


def from_row(row: dict[str, Any]) -> PackedCrystal:
    """What `to_row` wrote: atoms in the order of the SMILES, one conformer for each body of a species.

    Raises InputError where the row contradicts itself.
    """
    try:
        return _from_row(row)
    except InputError:
        raise
    except BROKEN as error:
        raise KIND.contradiction(row.get("id"), error) from error


def _from_row(row: dict[str, Any]) -> PackedCrystal:
    graphs = [read_graph(text) for text in row["smiles"]]
    bodies: list[list[list[float]]] = [[] for _ in graphs]
    conformer = []
    for kind, local in zip(row["kind"], row["local"]):
        conformer.append(len(bodies[kind]))
        bodies[kind].append(local)
    species = tuple(
        Molecule(graph, torch.tensor(own, dtype=torch.float64).reshape(len(own), -1, 3))
        for graph, own in zip(graphs, bodies)
    )

    def numbers(name: str, *shape: int) -> Float[Tensor, "..."]:
        return torch.tensor(row[name], dtype=torch.float64).reshape(shape)

    n = len(row["kind"])
    group = SpaceGroup(
        row["number"],
        row["symbol"],
        torch.tensor(row["rotations"]).reshape(-1, 3, 3),
        numbers("translations", -1, 3),
    )
    packing = Packings(
        species=species,
        group=group,
        kind=torch.tensor(row["kind"]),
        lattice=numbers("lattice", 1, 3, 3),
        centroid=numbers("centroid", 1, n, 3),
        rotation=numbers("rotation", 1, n, 3, 3),
        handedness=torch.tensor([row["handedness"]]),
        conformer=torch.tensor([conformer]),
    )
    return PackedCrystal(packing, row["id"], row["source"], row["energy"], row["above"], row["hits"])


def write_shard(rows: Sequence[dict[str, Any]], path: Path, about: dict[str, Any]) -> None:
    """One parquet file, whole or not there; `about` (JSON) says what was done to make it."""
    KIND.write(pyarrow.Table.from_pylist(list(rows), schema=SCHEMA), path, about)


def shards(folder: Path) -> list[Path]:
    """The parquet files of a data set, in order; those in sub-folders belong to other data sets."""
    return sorted(folder.glob("*.parquet"))


def data_sets(folder: Path) -> list[Path]:
    """The folder if it is a data set, or else those of its sub-folders that are (`train`, `val`, `test`)."""
    return [place for place in (folder, *sorted(folder.glob("*/"))) if shards(place)]


def about_shard(path: Path) -> dict[str, Any]:
    """What `write_shard` was told. Raises InputError for a file that is no shard."""
    return KIND.about(path)


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of all shards, one after the other. Raises InputError where the folder holds none or other files."""
    for path in _files_of(folder):
        if columns is None:
            yield from KIND.rows(path)
        else:
            yield from rows_of(KIND.read(path, list(columns)), path)


def read_crystals(folder: Path) -> Iterator[PackedCrystal]:
    """The crystals of all shards, one after the other. Raises InputError as `read_rows`."""
    return map(from_row, read_rows(folder))


def read_keys(folder: Path) -> frozenset[str]:
    """The keys of all crystals. Raises InputError as `read_rows`."""
    return frozenset(key for path in _files_of(folder) for key in KIND.keys(path))


def _files_of(folder: Path) -> list[Path]:
    files = shards(folder)
    if not files:
        inside = " or ".join(map(str, data_sets(folder)))
        hint = f"; there is one in {inside}" if inside else ""
        raise InputError(f"expected a data set of crystals (*.parquet), found none in {folder}{hint}")
    return files
