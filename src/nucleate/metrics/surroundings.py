"""How far the neighbours of each atom are, in crystals without molecules: overlaps, and a cheap sign of equality.

The distances from an atom to its nearest neighbours, images included, know nothing of the choice of cell, origin,
order of atoms or hand. Their means over the atoms of an element are continuous in the positions; equal crystals have
equal means, and different ones hardly ever (the averages of Widdowson et al., MATCH 87, 529 (2022), here by element).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from nucleate.crystal.perceive import RADII, find_neighbours
from nucleate.crystal.sites import Sites, niggli_sites
from nucleate.errors import InputError
from nucleate.geometry.lattice import heights

NEIGHBOURS = 24
OVERLAP = (
    0.6  # of the sum of covalent radii: no contact of 3,583 crystals of the Materials Project is below 0.685
)
SAME = 0.02  # times the cube root of the volume of an atom: largest difference of mean distances
FLATTEST = 0.5  # Å between faces of the reduced cell


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Distances in Å."""

    formula: str  # reduced
    shortest: float  # between any two atoms, images included
    overlap: bool  # some pair is nearer than `OVERLAP` times the sum of their covalent radii
    size: float  # cube root of the volume of an atom
    means: Float[np.ndarray, "elements neighbours"]  # to the nearest neighbours, elements by atomic number


def surroundings(sites: Sites) -> Surroundings:
    """Raises InputError ("flat") for a cell that is flatter than `FLATTEST`: an atom would meet its own image."""
    reduced = niggli_sites(sites)
    if float(heights(reduced.lattice).min()) < FLATTEST:
        raise InputError(
            f"expected a cell of at least {FLATTEST:g} Å between faces, got a flatter one", reason="flat"
        )
    lattice, frac, numbers = (x.numpy() for x in (reduced.lattice, reduced.frac, reduced.numbers))
    size = (reduced.volume / len(reduced)) ** (1 / 3)
    reach = 1.3 * size * (3 * NEIGHBOURS / (4 * np.pi)) ** (1 / 3)  # a sphere that should hold enough of them
    while True:
        near = find_neighbours(lattice, frac, float(reach))
        atom = np.concatenate([near.i, near.j])
        counts = np.bincount(atom, minlength=len(numbers))
        if counts.min() >= NEIGHBOURS:
            break
        reach *= 1.3
    distance = np.concatenate([near.distance, near.distance])
    order = np.lexsort((distance, atom))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    nearest = distance[order][first[:, None] + np.arange(NEIGHBOURS)]
    ratio = near.distance / (RADII[numbers[near.i]] + RADII[numbers[near.j]])
    means = np.stack([nearest[numbers == z].mean(0) for z in np.unique(numbers)])
    return Surroundings(
        reduced.reduced_formula, float(nearest.min()), bool(ratio.min() < OVERLAP), size, means
    )


def first_of_equals(found: Sequence[Surroundings]) -> Bool[np.ndarray, " crystals"]:
    """True for crystals that are like none before them that is kept: one formula, and mean distances that agree."""
    kept: dict[str, list[Surroundings]] = {}
    first = np.zeros(len(found), dtype=bool)
    for i, one in enumerate(found):
        others = kept.setdefault(one.formula, [])
        first[i] = not others or bool(_difference(one, others).min() > SAME)
        if first[i]:
            others.append(one)
    return first


def _difference(one: Surroundings, others: Sequence[Surroundings]) -> Float[np.ndarray, " others"]:
    """The largest difference of mean distances, over the size of an atom."""
    means = np.stack([other.means for other in others])
    return np.abs(means - one.means).max((1, 2)) / one.size
