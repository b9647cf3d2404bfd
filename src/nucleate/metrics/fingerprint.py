"""A fast invariant of a molecular crystal: mean sorted distances between its molecules.

For classes c, d of heavy atoms (same element and place in the molecular graph) and m = 1 ... k

    r_m(i, d)  the distance from atom i to the m-th nearest atom of class d in other molecules or images
    F(c, d, m) = mean of r_m(i, d) over the atoms i of class c,   S(c, d, m) = their standard deviation

and the mean alone for the centroids of molecules, which see the nearest centroids of any kind. This is the
pointwise distance distribution of Widdowson & Kurlin (2022, "Resolving the data ambiguity for periodic
crystals") resolved by class and reduced to two moments. Nothing in it depends on the choice of the cell,
the origin, supercells, the order or numbers of atoms and molecules, rotations, mirror images or hydrogens.

It is continuous with a known constant. If no atom moves by more than e (and the centroid of a molecule
then neither), every distance changes by at most 2e, so does the m-th smallest of several, and so does a
mean. The standard deviation is a seminorm bounded by half the range, so with changes within [-2e, 2e] it
too changes by at most 2e: the maximum norm of the difference of two fingerprints is at most 2e.

Why by class: on landscapes of aspirin and target XXII, a limit of 1.25 Å keeps all pairs with RMSD_20 below
0.5 Å and lets 0.1 % of the others through. Distances to any atom, whatever its class, need a limit of 0.8 Å,
which lets a third to two thirds through. Small symmetric molecules are harder: 22 % for HMX, where the other
invariant has 47 % (benchmarks/deduplicate.py).
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.metrics.duplicate_kernels import nearest_by_class
from nucleate.metrics.heavy_molecules import HeavyMolecules, classes_of

NEIGHBOURS = 64  # of an atom, over all classes; with fewer classes each gets more of them
MOST_OF_A_CLASS = 8
SHELL = 40  # centroids around a centroid

Chemistry = tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Distances (Å) in an order that only the chemistry decides; comparable where the chemistry is equal."""

    chemistry: Chemistry  # molecular graphs without hydrogens and how many in the formula unit
    volume: float  # Å^3 per formula unit
    values: Float[np.ndarray, " numbers"]  # Å

    def distance(self, other: "Fingerprint") -> float:
        """Maximum norm of the difference (Å). Raises InputError for other chemistry."""
        if self.chemistry != other.chemistry:
            raise InputError(
                f"expected fingerprints of one composition, got {self.chemistry} and {other.chemistry}; "
                "compare crystals of the same molecules in the same ratio"
            )
        return float(np.abs(self.values - other.values).max())


def fingerprint(crystal: Crystal | HeavyMolecules) -> Fingerprint:
    """The invariant of one crystal. Raises InputError for a crystal without atoms or a flat cell.

    With C classes of atoms k = max(1, min(8, 64 // C)), and 40 centroids for each kind of molecule: a few
    hundred to a few thousand numbers.
    """
    if isinstance(crystal, Crystal) and not len(crystal):
        raise InputError("expected a crystal with atoms, got an empty cell; check the file", "no atoms")
    molecules = crystal if isinstance(crystal, HeavyMolecules) else HeavyMolecules.of(crystal)
    kinds, atom_class, kind_of = _classes(molecules.keys)
    present = molecules.present.numpy() > 0
    bodies = Bodies.of(molecules, molecules.positions.numpy()[present], present.sum(1))
    middles = Bodies.of(molecules, molecules.centroids.numpy(), np.ones(len(kind_of), np.int64))
    count = int(atom_class.max()) + 1
    k = max(1, min(MOST_OF_A_CLASS, NEIGHBOURS // count))
    near = nearest_distances(bodies, atom_class, k)
    shells = nearest_distances(middles, np.zeros(len(kind_of), np.int64), SHELL)
    copies = Counter(molecules.keys)
    units = math.gcd(*copies.values())
    return Fingerprint(
        chemistry=tuple((key, copies[key] // units) for key in kinds),
        volume=float(abs(np.linalg.det(bodies.lattice))) / units,
        values=np.concatenate([*moments(near, atom_class), moments(shells, kind_of)[0]]),
    )


def _classes(
    keys: tuple[str, ...],
) -> tuple[list[str], Int[np.ndarray, " atoms"], Int[np.ndarray, " molecules"]]:
    """Kinds of molecules in order of their keys, the class of every atom, the kind of every molecule."""
    kinds = sorted(set(keys))
    place = {key: i for i, key in enumerate(kinds)}
    counts = [int(_ranks(key).max()) + 1 for key in kinds]
    first = np.concatenate([[0], np.cumsum(counts)])
    kind_of = np.array([place[key] for key in keys])
    return kinds, np.concatenate([first[kind] + _ranks(kinds[kind]) for kind in kind_of.tolist()]), kind_of


@lru_cache(maxsize=1024)
def _ranks(key: str) -> Int[np.ndarray, " atoms"]:
    """Classes of the canonical atoms of a molecule, numbered 0, 1, ... without gaps."""
    return np.unique(classes_of(key).numpy(), return_inverse=True)[1]


@dataclass(frozen=True, eq=False)
class Bodies:
    """Points (Å) of molecules, one after the other, in the Niggli cell."""

    points: Float[np.ndarray, "points 3"]
    start: Int[np.ndarray, " molecules_and_one"]
    centre: Float[np.ndarray, "molecules 3"]
    radius: Float[np.ndarray, " molecules"]  # Å, from the centre to the farthest point
    lattice: Float[np.ndarray, "3 3"]

    @staticmethod
    def of(
        molecules: HeavyMolecules, points: Float[np.ndarray, "points 3"], sizes: Int[np.ndarray, " molecules"]
    ) -> "Bodies":
        centre = molecules.centroids.numpy()
        arms = np.linalg.norm(points - np.repeat(centre, sizes, 0), axis=1)
        start = np.concatenate([[0], np.cumsum(sizes)])
        radius = np.maximum.reduceat(arms, start[:-1])
        return Bodies(points, start, centre, radius, molecules.lattice.numpy())


def nearest_distances(
    bodies: Bodies, classes: Int[np.ndarray, " points"], k: int
) -> Float[np.ndarray, "points classes k"]:
    """Sorted distances (Å) to the k nearest of each class; the sphere grows until every one is full."""
    rarest = int(np.bincount(classes).min())
    volume = abs(float(np.linalg.det(bodies.lattice)))
    cutoff = 1.3 * ((k + 1) * volume / rarest * 3 / (4 * math.pi)) ** (1 / 3)
    found = np.full((len(classes), int(classes.max()) + 1, k), math.inf)
    inverse = np.linalg.inv(bodies.lattice)
    while np.isinf(found[:, :, -1]).any():
        nearest_by_class(
            bodies.points,
            bodies.start,
            bodies.centre,
            bodies.radius,
            classes,
            bodies.lattice,
            inverse,
            cutoff,
            found,
        )
        cutoff *= 1.25
    return found


def moments(
    distances: Float[np.ndarray, "points classes k"], group: Int[np.ndarray, " points"]
) -> tuple[Float[np.ndarray, " numbers"], Float[np.ndarray, " numbers"]]:
    """Mean and standard deviation over the points of each group."""
    order = np.argsort(group, kind="stable")
    rows = distances.reshape(len(group), -1)[order]
    counts = np.bincount(group)
    start = np.cumsum(counts) - counts
    mean = np.add.reduceat(rows, start) / counts[:, None]
    square = np.add.reduceat((rows - mean[group[order]]) ** 2, start) / counts[:, None]
    return mean.ravel(), np.sqrt(square).ravel()
