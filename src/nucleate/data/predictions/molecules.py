"""Whole molecules from the bare atoms of a prediction: by distances, by the file's labels, by blocks of atoms.

Distances come first, as for any crystal. Raw samples of generative models often have molecules that overlap;
distances then glue them together or are refused. Whose atom is whose is known all the same where the file
labels its atoms, or where the molecules are known and the atoms come one molecule after another: then bonds are
looked for inside each molecule alone, and the overlap is left for the comparison to judge. A molecule so torn that
its own bonds cannot be found gets those of another copy with the same order of elements, or of the known molecule.
What no rule explains is a failure.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from nucleate.crystal.cif_read import MOST_ATOMS
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import FARTHEST
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.perceive import RADII, perceive_bonds, whole_molecules
from nucleate.data.predictions.sample import Frame, composition_of
from nucleate.errors import InputError
from nucleate.metrics.heavy_molecules import heavy_keys, split_graphs

VACUUM = 80.0  # Å around a finite cluster: farther than any cluster of 30 molecules reaches
SMALLEST_HEIGHT = 1.5  # Å: no molecule is thinner
VOLUME_PER_ATOM = (2.0, 2000.0)  # Å^3; molecular crystals have 8 to 25
TORN = 1.5  # Å beyond the sum of covalent radii, from where a bond is not one any more


@dataclass(frozen=True, eq=False)
class Shape:
    """A known molecule, hydrogens included or not, as far as blocks of atoms are concerned."""

    numbers: tuple[int, ...]
    bonds: tuple[tuple[int, int], ...]
    key: str  # of the heavy atoms


@dataclass(frozen=True, eq=False)
class Known:
    """The molecules that predictions are made of."""

    shapes: tuple[Shape, ...]

    @staticmethod
    def of(molecules: Sequence[Molecule]) -> "Known | None":
        shapes = [shape for m in molecules for shape in _shapes(m)]
        return Known(tuple(shapes)) if shapes else None

    def holds(self, keys: Sequence[str]) -> bool:
        return {s.key for s in self.shapes}.issuperset(keys)

    def made_of(self, numbers: np.ndarray) -> bool:
        """True where the atoms could be copies of one of the molecules."""
        return composition_of(numbers) in {composition_of(np.array(s.numbers)) for s in self.shapes}

    def refuse_merged(self, crystal: Crystal) -> None:
        """Raise InputError where a crystal of other molecules has the atoms of a known one."""
        if self.made_of(crystal.numbers.numpy()):
            raise InputError(
                f"expected {' or '.join(dict.fromkeys(s.key for s in self.shapes))}, got other molecules of the same "
                f"atoms ({crystal.n_molecules} in the cell); molecules overlap or are torn",
                reason="molecules overlap",
            )


def build_crystal(frame: Frame, known: Known | None = None) -> Crystal:
    """The crystal of a frame, molecules whole, bonds without orders; a cluster gets a box of vacuum.

    Raises InputError with reason "no atoms", "not a number", "absurd coordinates", "absurd cell", "unknown element",
    "clash", "polymeric" or "molecules overlap".
    """
    _refuse_nonsense(frame)
    boxed = _boxed(frame)
    if frame.labels is not None and frame.bonds is not None:
        return _by_labels(boxed, frame.labels, None)
    crystal, refusal = _perceived(boxed)
    if crystal is not None and _explains(crystal, frame.labels, known):
        return crystal
    return _by_blocks(boxed, crystal, refusal, known)


def _by_blocks(
    frame: Frame, crystal: Crystal | None, refusal: InputError | None, known: Known | None
) -> Crystal:
    """What labels or blocks give where distances did not; else what distances gave; else the reason."""
    labels = frame.labels
    if labels is None and known is not None:
        labels = _block_labels(frame.numbers, known)
    if labels is not None:
        try:
            return _by_labels(frame, labels, known)
        except InputError as error:
            refusal = refusal or (error if known is not None and known.made_of(frame.numbers) else None)
    if refusal is not None:
        raise refusal
    assert crystal is not None  # distances gave a crystal or a refusal
    if known is not None:
        known.refuse_merged(crystal)
    return crystal


def _shapes(molecule: Molecule) -> list[Shape]:
    """The molecule as it is, and without its hydrogens."""
    numbers, bonds = molecule.numbers.numpy(), molecule.bonds.numpy()
    owner = np.zeros(len(numbers), dtype=int)
    kept = numbers > 1 if (numbers > 1).any() else np.ones(len(numbers), dtype=bool)
    bare = split_graphs(numbers, owner, kept, bonds)[0]
    full = split_graphs(numbers, owner, np.ones(len(numbers), dtype=bool), bonds)[0]
    return [Shape(graph.numbers, graph.bonds, bare.key) for graph in dict.fromkeys((full, bare))]


def _refuse_nonsense(frame: Frame) -> None:
    if not len(frame.numbers):
        raise InputError("expected atoms, got none", reason="no atoms")
    if (n := len(frame.numbers)) > MOST_ATOMS:
        raise InputError(f"expected at most {MOST_ATOMS} atoms, got {n}", reason="too large")
    cell = [] if frame.lattice is None else [frame.lattice]
    if not all(np.isfinite(x).all() for x in [frame.positions, *cell]):
        raise InputError(
            "expected coordinates and a cell of numbers, got NaN or infinity", reason="not a number"
        )
    if np.abs(frame.positions).max() > FARTHEST:
        raise InputError(
            f"expected coordinates below {FARTHEST:g} Å, got {np.abs(frame.positions).max():.3g} Å",
            reason="absurd coordinates",
        )
    if ((frame.numbers < 1) | (frame.numbers > 118)).any():
        raise InputError("expected chemical elements, got a dummy atom", reason="unknown element")
    if frame.lattice is not None:
        refuse_absurd_cell(frame.lattice, len(frame.numbers))


def refuse_absurd_cell(lattice: Float[np.ndarray, "3 3"], n_atoms: int) -> None:
    """Raise InputError "absurd cell" for a cell (Å) that no molecular crystal of so many atoms can have.

    Looking for neighbours in a cell 0.01 Å thick would not end.
    """
    if not np.isfinite(lattice).all():
        raise InputError("expected a cell of numbers, got NaN or infinity", reason="not a number")
    volume = abs(np.linalg.det(lattice))
    low, high = (limit * n_atoms for limit in VOLUME_PER_ATOM)
    faces = np.linalg.norm(np.cross(lattice[[1, 2, 0]], lattice[[2, 0, 1]]), axis=1)
    thinnest = (volume / np.maximum(faces, 1e-12)).min()
    if not (low <= volume <= high and thinnest >= SMALLEST_HEIGHT):  # false for NaN as well
        raise InputError(
            f"expected a cell of {low:.0f} to {high:.0f} Å^3 for its {n_atoms} atoms and at least "
            f"{SMALLEST_HEIGHT} Å thick, got {volume:.4g} Å^3, {thinnest:.3g} Å",
            reason="absurd cell",
        )


def _boxed(frame: Frame) -> Frame:
    """With a right-handed lattice; that of a cluster is a box of vacuum."""
    lattice, positions = frame.lattice, frame.positions
    if lattice is None:
        low = positions.min(0)
        lattice = np.diag(positions.max(0) - low + VACUUM)
        positions = positions - low + VACUUM / 2
    elif np.linalg.det(lattice) < 0:
        lattice = -lattice  # the same translations
    return Frame(frame.numbers, positions, lattice, frame.labels, frame.bonds)


def _perceived(frame: Frame) -> tuple[Crystal | None, InputError | None]:
    """Molecules by distances, or why that is not possible."""
    assert frame.lattice is not None
    frac = np.linalg.solve(frame.lattice.T, frame.positions.T).T
    try:
        bonds = perceive_bonds(frame.lattice, frac, frame.numbers)
        whole, molecule = whole_molecules(frac, bonds)
    except InputError as error:
        return None, error
    return _crystal(frame, whole, molecule, np.stack([bonds.i, bonds.j], 1)), None


def _crystal(frame: Frame, frac: np.ndarray, molecule: np.ndarray, bonds: np.ndarray) -> Crystal:
    assert frame.lattice is not None
    return Crystal(
        lattice=torch.tensor(frame.lattice, dtype=torch.float64),
        frac=torch.tensor(frac, dtype=torch.float64),
        numbers=torch.tensor(frame.numbers).long(),
        molecule=torch.tensor(molecule).long(),
        bonds=torch.tensor(bonds).long().reshape(-1, 2),
    )


def _explains(crystal: Crystal, labels: np.ndarray | None, known: Known | None) -> bool:
    """True where the molecules found by distance are those that the file, or the caller, says there are."""
    if labels is not None:
        together = np.unique(np.stack([labels, crystal.molecule.numpy()], 1), axis=0)
        if not len(together) == len(np.unique(labels)) == crystal.n_molecules:
            return False
    return known is None or known.holds(heavy_keys(crystal))


def _block_labels(numbers: np.ndarray, known: Known) -> np.ndarray | None:
    """Molecule of each atom, if the atoms are known molecules one after another (any order of atoms inside each).

    Backtracks: of two molecules that could come next the one is tried, then the other.
    """
    sizes = {len(s.numbers) for s in known.shapes}
    wanted = {(len(s.numbers), frozenset(Counter(s.numbers).items())) for s in known.shapes}
    atoms, dead = numbers.tolist(), set()
    path: list[int] = [0]
    options: list[list[int]] = [sorted(sizes)]
    while path and path[-1] != len(atoms):
        start = path[-1]
        if start in dead or not options[-1]:
            dead.add(path.pop())
            options.pop()
            continue
        end = start + options[-1].pop()
        if end <= len(atoms) and (end - start, frozenset(Counter(atoms[start:end]).items())) in wanted:
            path.append(end)
            options.append(sorted(sizes))
    return np.repeat(np.arange(len(path) - 1), np.diff(path)) if path else None


def _by_labels(frame: Frame, labels: np.ndarray, known: Known | None) -> Crystal:
    """Molecules as labelled, numbered by first appearance; raises InputError "molecules overlap" where one is none."""
    assert frame.lattice is not None
    _, first, molecule = np.unique(labels, return_index=True, return_inverse=True)
    molecule = np.argsort(np.argsort(first))[molecule]
    allowed = None if known is None else {s.key for s in known.shapes}
    members = [np.flatnonzero(molecule == m) for m in range(len(first))]
    graphs = (
        _listed_bonds(frame, molecule) if frame.bonds is not None else [_own_bonds(frame, a) for a in members]
    )
    orders = {s.numbers: s.bonds for s in known.shapes} if known is not None else {}
    elements = [tuple(frame.numbers[a].tolist()) for a in members]
    for numbers, bonds in zip(elements, graphs):
        if bonds is not None and (allowed is None or _key(numbers, bonds) in allowed):
            orders[numbers] = bonds
    positions, pairs = frame.positions.copy(), []
    for atoms, numbers in zip(members, elements):
        if numbers not in orders:
            raise InputError(
                f"expected the {len(atoms)} atoms of each molecule to be bonded as one molecule, got atoms "
                f"{atoms[0]} to {atoms[-1]} which are not",
                reason="molecules overlap",
            )
        own = np.array(orders[numbers], dtype=int).reshape(-1, 2)
        positions[atoms] = _whole(frame.positions[atoms], own, frame.numbers[atoms], frame.lattice)
        pairs.append(atoms[own])
    frac = np.linalg.solve(frame.lattice.T, positions.T).T
    return _crystal(frame, frac, molecule, np.concatenate(pairs))


Bonds = tuple[tuple[int, int], ...]


def _key(numbers: tuple[int, ...], bonds: Bonds) -> str:
    z, pairs = np.array(numbers), np.array(bonds, dtype=int).reshape(-1, 2)
    kept = z > 1 if (z > 1).any() else np.ones(len(z), dtype=bool)
    return split_graphs(z, np.zeros(len(z), dtype=int), kept, pairs)[0].key


def _listed_bonds(frame: Frame, molecule: np.ndarray) -> list[Bonds | None]:
    """The file's bonds by molecule; None for one that they do not connect."""
    assert frame.bonds is not None
    inside = frame.bonds[molecule[frame.bonds[:, 0]] == molecule[frame.bonds[:, 1]]]
    graphs = split_graphs(frame.numbers, molecule, np.ones(len(molecule), dtype=bool), inside)
    return [graph.bonds if _connected(len(graph.numbers), graph.bonds) else None for graph in graphs]


def _own_bonds(frame: Frame, atoms: np.ndarray) -> Bonds | None:
    """Bonds of one molecule by distance, its atoms taken as they stand, else across cell faces; None if several
    fragments.
    """
    assert frame.lattice is not None
    own, numbers = frame.positions[atoms], frame.numbers[atoms]
    box = np.diag(own.max(0) - own.min(0) + 10.0)
    for lattice in (box, frame.lattice):
        frac = np.linalg.solve(lattice.T, (own - own.min(0)).T).T
        try:
            found = perceive_bonds(lattice, frac, numbers)
        except InputError:
            continue  # atoms of one molecule on each other: another copy may be better
        bonds = tuple(sorted({(min(i, j), max(i, j)) for i, j in zip(found.i.tolist(), found.j.tolist())}))
        if _connected(len(atoms), bonds):
            return bonds
    return None


def _connected(n: int, bonds: Bonds) -> bool:
    i, j = np.array(bonds, dtype=int).reshape(-1, 2).T
    return connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(n, n)), directed=False)[0] == 1


def _whole(positions: np.ndarray, bonds: np.ndarray, numbers: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Positions (Å) with every atom next to the one it is bonded to; as they are where they are so already."""
    if len(positions) == 1:
        return positions
    limit = RADII[numbers[bonds]].sum(1) + TORN
    if (np.linalg.norm(positions[bonds[:, 0]] - positions[bonds[:, 1]], axis=1) < limit).all():
        return positions
    n = len(positions)
    graph = coo_array((np.ones(len(bonds)), bonds.T), shape=(n, n)).tocsr()
    order, before = breadth_first_order(graph, 0, directed=False)
    whole = positions.copy()
    for atom in order[1:]:  # each atom to the image nearest to its neighbour
        step = np.linalg.solve(lattice.T, whole[atom] - whole[before[atom]])
        whole[atom] -= np.round(step) @ lattice
    if (np.linalg.norm(whole[bonds[:, 0]] - whole[bonds[:, 1]], axis=1) >= limit).any():
        raise InputError("expected whole molecules, got one whose bonds are torn", reason="molecules overlap")
    return whole
