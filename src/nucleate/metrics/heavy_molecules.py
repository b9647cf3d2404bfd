"""Molecules of a crystal without their hydrogens, atoms in an order that equal graphs share."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from rdkit import Chem
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import canonical
from nucleate.crystal.molecule import Molecule
from nucleate.geometry.lattice import niggli_reduce

MAX_AUTOMORPHISMS = 200  # of a heavy-atom graph; where there are more, equivalent atoms pair by distance


@dataclass(frozen=True)
class MolecularGraph:
    """Some atoms of a crystal and the bonds between them."""

    atoms: tuple[int, ...]  # of the crystal
    numbers: tuple[int, ...]
    bonds: tuple[tuple[int, int], ...]  # local indices, sorted

    @property
    def key(self) -> str:
        """Equal for equal graphs."""
        return canonical_order(self.numbers, self.bonds)[0]

    @property
    def ordered_atoms(self) -> tuple[int, ...]:
        """Atoms of the crystal in canonical order."""
        return tuple(self.atoms[i] for i in canonical_order(self.numbers, self.bonds)[1])


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
        graphs = heavy_graphs(crystal)
        orders = [graph.ordered_atoms for graph in graphs]
        width = max(map(len, orders))
        index = torch.tensor([atoms + atoms[:1] * (width - len(atoms)) for atoms in orders])
        sizes = torch.tensor([len(atoms) for atoms in orders])
        present = (torch.arange(width) < sizes[:, None]).double()
        padded = positions[index] * present[..., None]
        keys = tuple(graph.key for graph in graphs)
        return HeavyMolecules(lattice, keys, padded, present, padded.sum(1) / sizes[:, None])


def heavy_graphs(crystal: Crystal) -> list[MolecularGraph]:
    """Of each molecule without its hydrogens; one of hydrogen alone keeps its atoms."""
    numbers, molecule = crystal.numbers.numpy(), crystal.molecule.numpy()
    heavy = numbers > 1
    kept = heavy | (np.bincount(molecule, weights=heavy, minlength=crystal.n_molecules)[molecule] == 0)
    bonds = crystal.bonds.numpy() if len(crystal.bonds) else _perceived_bonds(crystal)
    return split_graphs(numbers, molecule, kept, bonds)


def heavy_keys(crystal: Crystal) -> list[str]:
    """The key of each molecule: equal for equal graphs of heavy atoms (elements and connections, nothing else)."""
    return [graph.key for graph in heavy_graphs(crystal)]


def molecule_key(molecule: Molecule) -> str:
    """The key of a molecule by itself."""
    return canonical(*molecule.heavy_graph)[0]


def split_graphs(
    numbers: Int[np.ndarray, " atoms"],
    molecule: Int[np.ndarray, " atoms"],
    kept: Bool[np.ndarray, " atoms"],
    bonds: Int[np.ndarray, "bonds 2"],
) -> list[MolecularGraph]:
    """The graph of the kept atoms of molecule 0, 1, ...; bonds to other atoms are left out."""
    atoms = np.flatnonzero(kept)
    atoms = atoms[np.argsort(molecule[atoms], kind="stable")]
    ids = np.arange(int(molecule.max()) + 2)
    bounds = np.searchsorted(molecule[atoms], ids)
    place = np.full(len(numbers), -1)
    place[atoms] = np.arange(len(atoms)) - bounds[molecule[atoms]]
    bonds = bonds[kept[bonds].all(1)]
    owner, local = molecule[bonds[:, 0]], np.sort(place[bonds], 1)
    ranked = np.lexsort((local[:, 1], local[:, 0], owner))
    edges = np.searchsorted(owner[ranked], ids)
    pairs, places, elements = local[ranked].tolist(), atoms.tolist(), numbers[atoms].tolist()
    return [
        MolecularGraph(tuple(places[a:b]), tuple(elements[a:b]), tuple((i, j) for i, j in pairs[c:d]))
        for a, b, c, d in zip(bounds, bounds[1:], edges, edges[1:])
    ]


def _perceived_bonds(crystal: Crystal) -> np.ndarray:
    """Pairs of one molecule nearer than the sum of their covalent radii + 0.4 Å."""
    radius = np.array([Chem.GetPeriodicTable().GetRcovalent(z) for z in crystal.numbers.tolist()])
    near = squareform(pdist(crystal.positions.double().numpy())) < radius[:, None] + radius + 0.4
    molecule = crystal.molecule.numpy()
    return np.argwhere(np.triu(near & (molecule[:, None] == molecule), 1))


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
