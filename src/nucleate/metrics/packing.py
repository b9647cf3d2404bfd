"""Are two crystals the same packing? Coordination shells compared as in Chisholm & Motherwell (2005).

A molecule of the reference and its 14 nearest neighbours are looked for in the other crystal, atom by atom,
hydrogens left out. The answer is how many of the 15 molecules were found within the tolerances, and the RMSD
(Å) of their atoms after the best superposition. No cell enters, so settings, origins, supercells and the
order of atoms or molecules do not matter; densities do, within the tolerances.

    molecules of a cell (heavy_molecules)  ->  cluster of the reference (coordination)  ->  starts, one rigid
    motion each (packing_starts)  ->  assign, judge, superpose, repeat (packing_kernels)  ->  the best motion

What is ours, and why:

* neighbours are the nearest by shortest contact between heavy atoms (ties: by centroid): for long molecules
  the nearest centroids are not the coordination shell;
* a molecule is found when, after superposition, its distances to the centre (centroid to centroid, and each
  centroid to each atom of the other molecule) agree within 20 %, and its direction from the centre and its
  own orientation within 20 degrees. Distances below 3 Å are given the tolerance of 3 Å, so that a guest at
  the centroid of its host can be compared.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.metrics import packing_kernels
from nucleate.metrics.coordination import Cluster, distinct_clusters
from nucleate.metrics.heavy_molecules import HeavyMolecules, automorphisms, classes_of
from nucleate.metrics.packing_starts import Tolerances, find_starts


@dataclass(frozen=True, eq=False)
class PackingMatch:
    """What two crystals have in common. Reference positions map as `x @ rotation.T + translation`."""

    n_matched: int  # molecules found, the central one included; 0 where the molecules differ
    n: int  # molecules asked for
    rmsd: float  # Å over the heavy atoms of the matched molecules; NaN where none
    rmsd_1: float  # Å over the central molecule alone, superposed on its own
    rotation: Float[Tensor, "3 3"]  # improper where the other crystal is the mirror image
    translation: Float[Tensor, "3"]  # Å
    centres: tuple[int, int] | None  # index of the central molecule in the reference and in the other crystal

    @property
    def is_match(self) -> bool:
        """True where every molecule of the cluster was found. How small an RMSD must be is yours to say."""
        return self.n_matched == self.n

    @property
    def mirrored(self) -> bool:
        return bool(torch.linalg.det(self.rotation) < 0)

    @staticmethod
    def nothing(n: int) -> "PackingMatch":
        eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        return PackingMatch(0, n, math.nan, math.nan, eye, zero, None)

    def _better_than(self, other: "PackingMatch") -> bool:
        return (self.n_matched, -self.rmsd) > (other.n_matched, -other.rmsd if other.n_matched else -math.inf)


def compare_packing(
    reference: Crystal,
    other: Crystal,
    n: int = 15,
    distance_tolerance: float = 0.2,
    angle_tolerance: float = 20.0,
    mirror: bool = True,
) -> PackingMatch:
    """Look for the reference's cluster of n molecules in the other crystal.

    Tolerances: distances relative, angles in degrees. `mirror` lets the mirror image count as the same
    packing. Bonds are those of the crystals; where a crystal has none they are perceived from distances. The
    cluster is the reference's, so the count may differ by a molecule or two when the arguments are swapped.
    For many crystals against one reference build a `PackingReference` once.
    """
    return PackingReference(reference, n, distance_tolerance, angle_tolerance, mirror).compare(other)


class PackingReference:
    """A reference crystal with its clusters prepared, to be compared with a whole landscape.

    One cluster for each kind of environment: with several molecules in the asymmetric unit, or several
    species, each is tried as the centre (the largest first), and the best answer counts.
    """

    def __init__(
        self,
        reference: Crystal,
        n: int = 15,
        distance_tolerance: float = 0.2,
        angle_tolerance: float = 20.0,
        mirror: bool = True,
    ) -> None:
        if n < 1 or not 0 < distance_tolerance < 1 or not 0 < angle_tolerance < 180:
            raise ValueError(
                "expected n >= 1, 0 < distance_tolerance < 1 (relative), 0 < angle_tolerance < 180 (degree), "
                f"got {n}, {distance_tolerance}, {angle_tolerance}"
            )
        self.n = n
        self.tolerances = Tolerances(distance_tolerance, math.radians(angle_tolerance), mirror)
        self.clusters = distinct_clusters(HeavyMolecules.of(reference), n)
        self._prepared = [Prepared.of(cluster) for cluster in self.clusters]

    def compare(self, other: Crystal | HeavyMolecules) -> PackingMatch:
        """The best match over the reference's centres; one with all n molecules ends the search.

        A crystal that is compared with many references is best given as `HeavyMolecules`, made once.
        """
        molecules = other if isinstance(other, HeavyMolecules) else HeavyMolecules.of(other)
        best = PackingMatch.nothing(self.n)
        for prepared in self._prepared:
            found = prepared.search(molecules, self.tolerances)
            best = found if found._better_than(best) else best
            if best.is_match:
                break
        return best


@dataclass(frozen=True, eq=False)
class Prepared:
    """A cluster as the compiled search wants it: see `packing_kernels` for the two tuples."""

    cluster: Cluster
    kinds: dict[str, int]
    arrays: tuple[Any, ...]
    graphs: tuple[Any, ...]

    @staticmethod
    def of(cluster: Cluster) -> "Prepared":
        kinds = {key: i for i, key in enumerate(dict.fromkeys(cluster.keys))}
        arrays = (
            cluster.positions.contiguous().numpy(),
            cluster.present.sum(1).long().numpy(),
            cluster.centroids.contiguous().numpy(),
            np.array([kinds[key] for key in cluster.keys]),
        )
        return Prepared(cluster, kinds, arrays, _graphs(kinds, cluster.positions.shape[1]))

    def search(self, molecules: HeavyMolecules, tolerances: Tolerances) -> PackingMatch:
        """The best match of this cluster in the other crystal."""
        nothing = PackingMatch.nothing(len(self.cluster.keys))
        if self.cluster.keys[0] not in molecules.keys:
            return nothing
        starts = find_starts(self.cluster, molecules, tolerances)
        if not len(starts):
            return nothing
        crystal = (
            molecules.positions.contiguous().numpy(),
            molecules.centroids.contiguous().numpy(),
            np.array([self.kinds.get(key, -1) for key in molecules.keys]),
            molecules.lattice.contiguous().numpy(),
            torch.linalg.inv(molecules.lattice).contiguous().numpy(),
        )
        count, rmsd, start, rotation, translation, alone = packing_kernels.search(
            self.arrays,
            crystal,
            self.graphs,
            (tolerances.distance, tolerances.angle),
            starts.rotation.contiguous().numpy(),
            starts.translation.contiguous().numpy(),
            starts.hand.contiguous().numpy(),
            starts.centre.contiguous().numpy(),
        )
        return PackingMatch(
            n_matched=count,
            n=len(self.cluster.keys),
            rmsd=rmsd,
            rmsd_1=alone,
            rotation=torch.from_numpy(rotation),
            translation=torch.from_numpy(translation),
            centres=(self.cluster.centre, int(starts.centre[start])),
        )


def _graphs(kinds: dict[str, int], width: int) -> tuple[Any, ...]:
    """Automorphisms of every kind one after the other, where each kind's begin, and classes of atoms."""
    maps = [automorphisms(key) for key in kinds]
    counts = [0 if m is None else len(m) for m in maps]
    rows = np.zeros((max(sum(counts), 1), width), np.int64)
    classes = np.full((len(kinds), width), -1)
    first = np.cumsum([0, *counts])
    for i, (key, found) in enumerate(zip(kinds, maps)):
        own = classes_of(key).numpy()
        classes[i, : len(own)] = own
        if found is not None:
            rows[first[i] : first[i + 1], : len(own)] = found.numpy()
    return rows, first, classes
