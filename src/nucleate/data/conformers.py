"""Data sets of conformers: what networks of conformers learn from and are measured by, in parquet shards.

    ConformerSet --write--> a row --read--> ConformerSet       one row is one stereoisomer of one molecule

| column | |
|---|---|
| `name`, `source` | of the molecule; where its conformers are from |
| `key` | the molecule's graph without hydrogens, as in data sets of crystals: equal keys belong to one split |
| `smiles` | the graph with every hydrogen and with stereo |
| `positions` | Å, single precision, conformer after conformer, atoms in the order of the SMILES |
| `energies` | eV above the lowest, in the order of the conformers; NaN where not known |
| `weights` | Boltzmann weights, sum 1 |

The metadata `nucleate` of a file is JSON that says how it was made and names the split.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.graph_smiles import read_graph, write_graph
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.data.packed import data_sets, shards
from nucleate.data.shard_files import BROKEN, ShardKind, split_said
from nucleate.data.splits import HELD_OUT, split_of
from nucleate.errors import InputError
from nucleate.metrics.heavy_molecules import molecule_key
from nucleate.physics.parameters import BOLTZMANN

KIND = ShardKind(
    "conformers",
    pyarrow.schema(
        [
            ("name", pyarrow.string()),
            ("source", pyarrow.string()),
            ("key", pyarrow.string()),
            ("smiles", pyarrow.string()),
            ("positions", pyarrow.list_(pyarrow.float32())),
            ("energies", pyarrow.list_(pyarrow.float64())),
            ("weights", pyarrow.list_(pyarrow.float64())),
        ]
    ),
)
ROOM = 298.15  # K


@dataclass(frozen=True, eq=False)
class ConformerSet:
    """Conformers of one stereoisomer, lowest first."""

    molecule: Molecule  # graph with hydrogens and stereo; its conformers (Å)
    energies: Float[Tensor, " conformers"]  # eV above the lowest; NaN where unknown
    weights: Float[Tensor, " conformers"]  # Boltzmann, sum 1
    source: str = ""

    def __post_init__(self) -> None:
        n = len(self.molecule.conformers)
        if n == 0 or len(self.energies) != n or len(self.weights) != n:
            raise ValueError(
                f"expected an energy and a weight for each conformer, at least one, got {n} conformers, "
                f"{len(self.energies)} energies and {len(self.weights)} weights"
            )
        if not (self.weights >= 0).all() or abs(float(self.weights.sum()) - 1) > 1e-3:
            raise ValueError(
                f"expected weights that are not negative and add up to 1, got {self.weights.tolist()}"
            )

    def __len__(self) -> int:
        """Number of conformers."""
        return len(self.energies)

    @cached_property
    def key(self) -> str:
        """Equal for equal graphs of heavy atoms: such molecules belong to one split."""
        return molecule_key(self.molecule)


def boltzmann(
    energies: Float[Tensor, " conformers"],
    copies: Int[Tensor, " conformers"] | None = None,
    kelvin: float = ROOM,
) -> Float[Tensor, " conformers"]:
    """copies x exp(-E / kT), normalised to sum 1; equal weights where energies (eV) are not known."""
    if not torch.isfinite(energies).all():
        return torch.full_like(energies, 1 / len(energies))
    shares = -energies / (BOLTZMANN * kelvin)
    return torch.softmax(shares if copies is None else shares + copies.to(shares).log(), 0)


def write_conformers(sets: Iterable[ConformerSet], path: Path, about: dict[str, Any]) -> None:
    """One parquet file, whole or not there; `about` (JSON) says how it was made, `about["split"]` its split.

    Raises InputError as `to_row`.
    """
    write_rows([to_row(own) for own in sets], path, about)


def write_rows(rows: list[dict[str, Any]], path: Path, about: dict[str, Any]) -> None:
    KIND.write(pyarrow.Table.from_pylist(rows, schema=KIND.schema), path, about)


def to_row(own: ConformerSet) -> dict[str, Any]:
    """A row of plain values.

    Raises InputError with reason "no SMILES" where the graph does not survive as SMILES, "lost stereo" where the
    conformers do not show what that SMILES says.
    """
    molecule = own.molecule
    text, order = _written(molecule)
    return {
        "name": molecule.name,
        "source": own.source,
        "key": own.key,
        "smiles": text,
        "positions": molecule.conformers[:, list(order)].float().flatten().tolist(),
        "energies": own.energies.double().tolist(),
        "weights": own.weights.double().tolist(),
    }


def _written(molecule: Molecule) -> tuple[str, tuple[int, ...]]:
    """SMILES and the atoms in its order.

    Where centres differ only by each other's configuration (1,4-dimethylcyclohexane) RDKit may write both of them
    inverted, which is the same molecule but not the same atoms; a text that begins elsewhere is then right.
    """
    for start in (-1, *molecule.heavy.tolist()):
        text, order = write_graph(molecule.graph, start)
        if right_stereo(read_graph(text), molecule.conformers[:, list(order)]).all():
            return text, order
    raise InputError(
        f"expected conformers that show the stereo of {molecule.smiles}, got others", "lost stereo"
    )


def from_row(row: dict[str, Any]) -> ConformerSet:
    """What `to_row` wrote, atoms in the order of the SMILES. Raises InputError where the row contradicts itself."""
    try:
        graph = read_graph(row["smiles"])
        weights = torch.tensor(row["weights"], dtype=torch.float64)
        positions = torch.tensor(row["positions"], dtype=torch.float64)
        molecule = Molecule(graph, positions.reshape(len(weights), graph.GetNumAtoms(), 3), row["name"])
        energies = torch.tensor(row["energies"], dtype=torch.float64)
        return ConformerSet(molecule, energies, weights, row["source"])
    except InputError:
        raise
    except BROKEN as error:
        raise KIND.contradiction(row["smiles"], error) from error


def read_conformers(folder: Path) -> Iterator[ConformerSet]:
    """The sets of all shards of a folder, one after the other.

    Raises InputError where the folder holds none, or other files.
    """
    return map(from_row, read_rows(folder))


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    files = shards(folder)
    if not files:
        inside = " or ".join(map(str, data_sets(folder)))
        hint = f"; there is one in {inside}" if inside else "; `nucleate data conformers` makes one"
        raise InputError(f"expected a data set of conformers (*.parquet), found none in {folder}{hint}")
    for path in files:
        yield from KIND.rows(path)


def read_conformer_keys(folder: Path) -> frozenset[str]:
    """The keys of all sets, without their coordinates. Raises InputError as `read_conformers`."""
    return frozenset(key for path in shards(folder) for key in KIND.keys(path))


def is_conformers(folder: Path) -> bool:
    """Is this a data set of conformers, rather than one of crystals?"""
    return any(KIND.has(path) for path in shards(folder))


def read_conformer_splits(folder: Path) -> dict[str, list[ConformerSet]]:
    """The sets of a data set, or of those in its sub-folders, by split: the shards' own, or else by hash.

    Where data sets disagree about a molecule, all its sets go to the most held-out of its splits.
    """
    said: list[tuple[str, ConformerSet]] = []
    for place in data_sets(folder) or [folder]:  # `read_conformers` says what is wrong with an empty one
        split = split_said(place, shards(place), KIND.about)
        said += [(split or split_of(own.key), own) for own in read_conformers(place)]
    held: dict[str, str] = {}
    for split, own in said:
        held[own.key] = max(
            held.get(own.key, split), split, key=lambda s: (HELD_OUT.get(s, len(HELD_OUT)), s)
        )
    found: dict[str, list[ConformerSet]] = {}
    for _, own in said:
        found.setdefault(held[own.key], []).append(own)
    return found
