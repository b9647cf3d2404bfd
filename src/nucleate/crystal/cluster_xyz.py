"""Clusters as extended XYZ: a column `mol_id` says which molecule an atom belongs to; several frames are a trajectory.

Files of other programs have no such column. There the bonds say what a molecule is; where molecules touch, so that
distances alone would join them, the file must list them one after the other, atoms always in one order.
"""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nucleate.crystal.cluster import Cluster
from nucleate.crystal.io import read_frames, refuse_odd_atoms
from nucleate.crystal.open_space import GAP, open_bonds, open_crystal
from nucleate.crystal.rigid import CONFORMER_TOLERANCE, represent_rigid
from nucleate.errors import InputError
from nucleate.geometry.so3 import kabsch

COLUMNS = ("mol_id", "molecule")

# ---------------------------------------------------------------- write


def cluster_text(
    cluster: Cluster,
    frames: Sequence[Float[Tensor, "molecules atoms 3"]],
    comments: Sequence[Mapping[str, str | int | float]],
) -> str:
    """Positions (Å) of the cluster's atoms, frame after frame, each with its comment."""
    m, n = cluster.n_molecules, len(cluster.numbers)
    stream = StringIO()
    for positions, comment in zip(frames, comments, strict=True):
        atoms = ase.Atoms(cluster.numbers.repeat(m).numpy(), positions.double().flatten(0, 1).numpy())
        atoms.info = {"name": cluster.name, **comment}
        atoms.set_array("mol_id", np.repeat(np.arange(m), n))
        ase.io.write(stream, atoms, format="extxyz")
    return stream.getvalue()


# ---------------------------------------------------------------- read


def read_trajectory(
    path: Path, molecules: int
) -> tuple[Int[Tensor, " atoms"], Float[Tensor, "frames molecules atoms 3"]]:
    """Atomic numbers of one molecule and all frames (Å) of a file of `cluster_text`.

    Raises InputError as `read_frames`, and "other atoms" where frames differ or hold no such number of molecules.
    """
    frames = read_frames(path)
    first = frames[0].numbers
    if len(first) % molecules or not all(np.array_equal(frame.numbers, first) for frame in frames):
        raise InputError(
            f"expected {molecules} equal molecules in every frame of {path.name}, got other atoms",
            "other atoms",
        )
    positions = torch.from_numpy(np.stack([frame.positions for frame in frames]))
    numbers = torch.from_numpy(frames[0].numbers).long()
    return numbers[: len(numbers) // molecules], positions.unflatten(1, (molecules, -1))


def read_cluster_xyz(path: Path, molecules: int) -> Cluster:
    """The first frame of an XYZ file of copies of one molecule, in the file's order of molecules.

    Atoms of every copy come in the order of the first, so that copies are congruent where their shapes are. How many
    `molecules` there are need only be known where they touch and there is no column `mol_id`. Raises InputError
    "unreadable", "empty file", "not a number", "single atoms", "one molecule", "several kinds" or "clash".
    """
    atoms = read_frames(path, "0")[0]
    refuse_odd_atoms(atoms, path.name)
    numbers = torch.from_numpy(atoms.numbers).long()
    positions = torch.from_numpy(atoms.positions).double()
    owner, bonds = _molecules(atoms, numbers, positions, molecules, path.name)
    _refuse(owner, numbers, path.name)
    if (listed := _as_listed(numbers, positions, owner, bonds, path.stem)) is not None:
        return listed
    packing, _ = represent_rigid(open_crystal(numbers, positions, owner, bonds), own=True)
    if len(packing.species) > 1:
        counts = torch.bincount(packing.kind).tolist()
        kinds = ", ".join(f"{n} of {m.formula}" for n, m in zip(counts, packing.species))
        raise InputError(
            f"expected copies of one molecule in {path.name}, got {kinds}. Where molecules touch, list them one after "
            f"the other with their atoms in one order and say how many there are (--molecules), or add a column mol_id",
            "several kinds",
        )
    copies = packing.positions()[0].unflatten(0, (packing.n_bodies, -1))
    copies = copies + positions.mean(0) - copies.mean((0, 1))  # out of the box again
    return Cluster(packing.species[0].numbers, copies, path.stem, packing.species[0].bonds)


def _refuse(owner: Int[Tensor, " atoms"], numbers: Int[Tensor, " atoms"], name: str) -> None:
    sizes = torch.bincount(owner)
    if len(sizes) == 1:
        raise InputError(
            f"expected several copies of a molecule in {name}, got one molecule. A cluster is made of the SMILES or "
            "the .mol or .sdf file of a molecule",
            "one molecule",
        )
    if int(sizes.max()) == 1:
        raise InputError(
            f"expected molecules in {name}, got {len(numbers)} single atoms, which have no orientation; check the unit "
            "of the positions (Å)",
            "single atoms",
        )


def _molecules(
    atoms: ase.Atoms,
    numbers: Int[Tensor, " atoms"],
    positions: Float[Tensor, "atoms 3"],
    molecules: int,
    name: str,
) -> tuple[Int[Tensor, " atoms"], Int[Tensor, "bonds 2"]]:
    """The molecule of each atom, numbered as they come, and the bonds within molecules.

    By the column that says so, else by bonds; where those make unequal molecules, or none, by equal stretches.
    """
    if (column := next((c for c in COLUMNS if c in atoms.arrays), None)) is not None:
        owner = _in_order(atoms.arrays[column])
        return owner, _bonds_inside(numbers, positions, owner)
    clash = None
    try:
        bonds = open_bonds(numbers, positions)
        owner = _connected(len(numbers), bonds)
        if _alike(owner, numbers):
            return owner, bonds
    except InputError as error:
        clash = error
    stretches = torch.arange(len(numbers)) // max(1, len(numbers) // molecules)
    if len(numbers) % molecules == 0 and _alike(stretches, numbers):
        bonds = _bonds_inside(numbers, positions, stretches)
        if int(_connected(len(numbers), bonds).max()) == molecules - 1:
            return stretches, bonds
    if clash is not None:
        raise InputError(
            f"expected {name} to tell its molecules apart, got atoms too near for that and no {molecules} equal ones "
            "in a row; list the molecules one after the other with their atoms in one order and say how many there are "
            "(--molecules), or add a column mol_id",
            "clash",
        ) from clash
    return owner, bonds


def _as_listed(
    numbers: Int[Tensor, " atoms"],
    positions: Float[Tensor, "atoms 3"],
    owner: Int[Tensor, " atoms"],
    bonds: Int[Tensor, "bonds 2"],
    name: str,
) -> Cluster | None:
    """The cluster where all copies list their atoms in one order and are of one shape."""
    m = int(owner.max()) + 1
    if not _alike(owner, numbers):
        return None
    order = torch.argsort(owner, stable=True)
    elements, copies = numbers[order].unflatten(0, (m, -1)), positions[order].unflatten(0, (m, -1))
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) % len(elements[0])
    graph = torch.zeros(m, len(elements[0]), len(elements[0]), dtype=torch.bool)
    graph[owner[bonds[:, 0]], place[bonds].amin(1), place[bonds].amax(1)] = True
    if (elements != elements[0]).any() or (graph != graph[0]).any():
        return None
    if (
        float(kabsch(copies[:1].expand_as(copies), copies, allow_mirror=True).rmsd.max())
        > CONFORMER_TOLERANCE
    ):
        return None
    return Cluster(elements[0], copies, name, torch.nonzero(graph[0]))


def _alike(owner: Int[Tensor, " atoms"], numbers: Int[Tensor, " atoms"]) -> bool:
    """Are there several molecules, of equal formulas?"""
    table = torch.zeros(int(owner.max()) + 1, 120, dtype=torch.long)
    table.index_put_((owner, numbers), torch.ones_like(owner), accumulate=True)
    return len(table) > 1 and bool((table == table[0]).all())


def _bonds_inside(
    numbers: Int[Tensor, " atoms"], positions: Float[Tensor, "atoms 3"], owner: Int[Tensor, " atoms"]
) -> Int[Tensor, "bonds 2"]:
    """Bonds of each molecule as if it were alone: the molecules stand in a row, far apart."""
    length = float((positions.amax(0) - positions.amin(0)).norm()) + GAP
    apart = positions + owner[:, None] * positions.new_tensor([length, 0.0, 0.0])
    return open_bonds(numbers, apart)


def _connected(atoms: int, bonds: Int[Tensor, "bonds 2"]) -> Int[Tensor, " atoms"]:
    i, j = bonds.numpy().T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(atoms, atoms))
    return _in_order(connected_components(graph, directed=False)[1])


def _in_order(labels: np.ndarray) -> Int[Tensor, " atoms"]:
    """0, 1, ... in the order in which labels first appear."""
    _, first, member = np.unique(labels, return_index=True, return_inverse=True)
    return torch.from_numpy(np.argsort(np.argsort(first))[member].astype(np.int64))
