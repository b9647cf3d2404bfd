"""Molecules of a crystal without their hydrogens, atoms in an order that equal graphs share."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from rdkit import Chem
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import canonical
from nucleate.geometry.lattice import niggli_reduce

MAX_AUTOMORPHISMS = 200  # of a heavy-atom graph; where there are more, equivalent atoms pair by distance


@dataclass(frozen=True, eq=False)
class HeavyMolecules:
    """Molecules as their heavy atoms in canonical order, padded to the widest with zeros.

    The same key means the same graph (elements and connections; bond orders and charges are not looked at),
    and atom i of one such molecule corresponds to atom i of the other, up to automorphisms of the key.
    """

    lattice: Float[Tensor, "3 3"]  # Å, Niggli reduced
    keys: tuple[str, ...]
    positions: Float[Tensor, "molecules width 3"]  # Å
    present: Float[Tensor, "molecules width"]  # 1 for atoms, 0 for padding
    centroids: Float[Tensor, "molecules 3"]  # Å, plain mean of the heavy atoms

    @staticmethod
    def of(crystal: Crystal) -> "HeavyMolecules":
        """Molecules of one cell, numbered as in the crystal; one of hydrogen alone keeps its atoms."""
        lattice, _ = niggli_reduce(crystal.lattice.double())
        positions = crystal.positions.double()
        graphs = [_canonical(*graph) for graph in _heavy_graphs(crystal)]
        width = max(len(atoms) for _, atoms in graphs)
        index = torch.tensor([atoms + atoms[:1] * (width - len(atoms)) for _, atoms in graphs])
        sizes = torch.tensor([len(atoms) for _, atoms in graphs])
        present = (torch.arange(width) < sizes[:, None]).double()
        padded = positions[index] * present[..., None]
        keys = tuple(key for key, _ in graphs)
        return HeavyMolecules(lattice, keys, padded, present, padded.sum(1) / sizes[:, None])


Graph = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]


def _heavy_graphs(crystal: Crystal) -> list[Graph]:
    """For each molecule: atoms of the crystal, their atomic numbers, bonds between them (local indices)."""
    numbers, molecule = crystal.numbers.numpy(), crystal.molecule.numpy()
    heavy = numbers > 1
    counts = np.bincount(molecule, weights=heavy, minlength=crystal.n_molecules)
    kept = np.flatnonzero(heavy | (counts[molecule] == 0))
    kept = kept[np.argsort(molecule[kept], kind="stable")]
    bounds = np.searchsorted(molecule[kept], np.arange(crystal.n_molecules + 1))
    place = np.full(len(numbers), -1)
    place[kept] = np.arange(len(kept)) - bounds[molecule[kept]]
    bonds = crystal.bonds.numpy() if len(crystal.bonds) else _perceived_bonds(crystal)
    bonds = bonds[(place[bonds] >= 0).all(1)]
    owner = molecule[bonds[:, 0]]
    local = np.sort(place[bonds], 1)
    ranked = np.lexsort((local[:, 1], local[:, 0], owner))
    edges = np.searchsorted(owner[ranked], np.arange(crystal.n_molecules + 1))
    pairs, atoms, elements = local[ranked].tolist(), kept.tolist(), numbers[kept].tolist()
    return [
        (
            tuple(atoms[a:b]),
            tuple(elements[a:b]),
            tuple((i, j) for i, j in pairs[c:d]),
        )
        for a, b, c, d in zip(bounds, bounds[1:], edges, edges[1:])
    ]


def _perceived_bonds(crystal: Crystal) -> np.ndarray:
    """Pairs of one molecule nearer than the sum of their covalent radii + 0.4 Å."""
    radius = np.array([Chem.GetPeriodicTable().GetRcovalent(z) for z in crystal.numbers.tolist()])
    near = squareform(pdist(crystal.positions.double().numpy())) < radius[:, None] + radius + 0.4
    molecule = crystal.molecule.numpy()
    return np.argwhere(np.triu(near & (molecule[:, None] == molecule), 1))


def _canonical(
    atoms: tuple[int, ...], numbers: tuple[int, ...], bonds: tuple[tuple[int, int], ...]
) -> tuple[str, tuple[int, ...]]:
    key, order = canonical_order(numbers, bonds)
    return key, tuple(atoms[i] for i in order)


@lru_cache(maxsize=4096)  # a landscape shows the same few molecules again and again
def canonical_order(
    numbers: tuple[int, ...], bonds: tuple[tuple[int, int], ...]
) -> tuple[str, tuple[int, ...]]:
    return canonical(numbers, bonds)


@lru_cache(maxsize=1024)
def automorphisms(key: str) -> Int[Tensor, "maps atoms"] | None:
    """All permutations of the canonical atoms that keep the graph; None for more than MAX_AUTOMORPHISMS."""
    graph = Chem.MolFromSmiles(key, sanitize=False)
    maps = graph.GetSubstructMatches(graph, uniquify=False, maxMatches=MAX_AUTOMORPHISMS + 1)
    return torch.tensor(maps) if len(maps) <= MAX_AUTOMORPHISMS else None


@lru_cache(maxsize=1024)
def classes_of(key: str) -> Int[Tensor, " atoms"]:
    """Equal numbers for atoms that the graph does not tell apart."""
    graph = Chem.MolFromSmiles(key, sanitize=False)
    graph.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(graph)
    return torch.tensor(list(Chem.CanonicalRankAtoms(graph, breakTies=False)))
