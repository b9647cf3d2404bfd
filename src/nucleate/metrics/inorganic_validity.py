"""Could this be a crystal at all? The two cheap tests of generated inorganic crystals, and what they let pass.

    atoms apart, a cell with a volume, no odd cell  -> structure
    charges that balance, electronegativities in order -> composition

Structure: no two atoms, images included, nearer than 0.5 Å and at least 0.1 Å^3 of cell (CDVAE, Xie et al.,
ICLR 2022), and none of the odd cells that CrystalFlow refuses: an angle outside 10 to 170 degrees, an edge
over N^(1/3) outside 0.1 to 20 Å, or a volume per atom outside 0.1 to 100 Å^3. CDVAE looks at pairs of different
atoms only; here the images of an atom count too.

Composition: the rule of SMACT (Davies et al., Chem 1, 617 (2016)), as CDVAE uses it. Every element takes one
of its known oxidation states such that the charges cancel and each cation is less electronegative than
each anion. One element alone, and metals among themselves, always pass. The known states are the list of 2014
that published numbers rest on; later versions of SMACT have other lists by default.

Both are weak: they tell what is certainly wrong, not what is right. Some tenth of the Materials Project fails the
second. So a rate of validity is to be read beside that of the reference crystals.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import gcd

import numpy as np
import torch
from ase.data import chemical_symbols
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.sites import Sites
from nucleate.errors import InputError
from nucleate.geometry.lattice import niggli_reduce, parameters_from_lattice
from nucleate.geometry.torus import wrap_difference

NEAREST = 0.5  # Å
SMALLEST = 0.1  # Å^3 of a cell
ANGLES = (10.0, 170.0)  # degrees
EDGES = (0.1, 20.0)  # Å, of an edge over the cube root of the number of atoms
ROOM = (0.1, 100.0)  # Å^3 of an atom
AT_ONCE = 64  # crystals whose pairs of atoms are in memory together


@dataclass(frozen=True)
class Validity:
    """What the tests say of one crystal."""

    shortest: float  # Å between two atoms, images included; 0 for a cell too flat to tell
    volume: float  # Å^3 of the cell
    odd: bool
    composition: bool | None  # None: not tested

    @property
    def structure(self) -> bool:
        """Atoms apart, a cell with a volume, and not an odd one."""
        return self.shortest >= NEAREST and self.volume >= SMALLEST and not self.odd

    @property
    def valid(self) -> bool | None:
        """Both tests passed; None where the second was not made and the first does not fail."""
        return self.structure and self.composition


def validities(crystals: Sequence[Sites], compositions: bool = True) -> list[Validity]:
    """The tests for each crystal. Raises InputError ("missing package") where SMACT is needed and missing."""
    if not crystals:
        return []
    cells = torch.stack([c.lattice.double() for c in crystals])
    sizes = torch.tensor([len(c) for c in crystals])
    known = [composition_valid(c.composition) if compositions else None for c in crystals]
    rows = zip(
        shortest_distances(crystals).tolist(),
        torch.linalg.det(cells).tolist(),
        odd_cells(cells, sizes),
        known,
    )
    return [Validity(shortest, volume, odd, fits) for shortest, volume, odd, fits in rows]


# ---------------------------------------------------------------- structure


def odd_cells(lattices: Float[Tensor, "n 3 3"], sizes: Int[Tensor, " n"]) -> list[bool]:
    """Whether each cell (Å, rows) of so many atoms is one that CrystalFlow refuses."""
    lengths, angles = parameters_from_lattice(lattices.double())
    edges, room = lengths / sizes[:, None] ** (1 / 3), torch.linalg.det(lattices.double()).abs() / sizes
    degrees = torch.rad2deg(angles)

    def inside(x: Tensor, limits: tuple[float, float]) -> Tensor:
        return (x >= limits[0]) & (x <= limits[1])

    good = inside(degrees, ANGLES).all(1) & inside(edges, EDGES).all(1)
    return (~(good & (room > ROOM[0]) & (room < ROOM[1]))).tolist()


def shortest_distances(crystals: Sequence[Sites]) -> Float[Tensor, " crystals"]:
    """Å between the two nearest atoms of each crystal, an atom and its own images included.

    In a Niggli cell the nearest image of a difference in [-1/2, 1/2)^3 is at most one cell away, as in every cell
    that is reduced in the sense of Minkowski. 0 for a cell that is too flat to be reduced.
    """
    order = np.argsort([len(c) for c in crystals], kind="stable")  # crystals of a size together
    found = torch.zeros(len(crystals), dtype=torch.float64)
    for start in range(0, len(crystals), AT_ONCE):
        rows = [int(i) for i in order[start : start + AT_ONCE]]
        reduced = [_reduced(crystals[i]) for i in rows]
        good = [(i, r) for i, r in zip(rows, reduced) if r is not None]
        if good:
            found[[i for i, _ in good]] = _shortest([r for _, r in good])
    return found


def _reduced(crystal: Sites) -> tuple[Tensor, Tensor] | None:
    """Niggli cell and coordinates in it, wrapped or not."""
    if not (torch.isfinite(crystal.lattice).all() and torch.isfinite(crystal.frac).all()):
        return None
    try:
        cell, change = niggli_reduce(crystal.lattice.double())
    except InputError:
        return None
    return cell, crystal.frac.double() @ torch.linalg.inv(change.double())


def _shortest(reduced: Sequence[tuple[Tensor, Tensor]]) -> Float[Tensor, " crystals"]:
    cells = torch.stack([cell for cell, _ in reduced])
    frac = torch.cat([x for _, x in reduced])
    sizes = torch.tensor([len(x) for _, x in reduced])
    i, j, owner = _pairs(sizes)
    images = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3)
    apart = (wrap_difference(frac[j] - frac[i])[:, None] + images) @ cells[owner]
    own = (images[images.abs().sum(1) > 0] @ cells).norm(dim=-1).amin(1)
    return own.scatter_reduce(0, owner, apart.norm(dim=-1).amin(1), "amin")


def _pairs(sizes: Int[Tensor, " n"]) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Pairs i < j of atoms of one crystal in a flat list of atoms, and the crystal of each."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    first = torch.cumsum(sizes, 0) - sizes
    i = torch.repeat_interleave(torch.arange(len(owner)), sizes[owner])
    turn = torch.arange(len(i)) - torch.repeat_interleave(
        torch.cumsum(sizes[owner], 0) - sizes[owner], sizes[owner]
    )
    j = first[owner[i]] + turn
    kept = i < j
    return i[kept], j[kept], owner[i[kept]]


# ---------------------------------------------------------------- composition


def composition_valid(composition: Mapping[int, int]) -> bool:
    """The SMACT rule for a composition: atomic number -> atoms. Each is worked out once.

    Raises InputError ("missing package") where the tables of SMACT are not installed.
    """
    divisor = gcd(*composition.values())
    return _follows_rule(tuple(sorted((z, n // divisor) for z, n in composition.items())))


@cache
def _follows_rule(parts: tuple[tuple[int, int], ...]) -> bool:
    if len(parts) == 1:
        return True
    known = [_element(z) for z, _ in parts]
    if all(element.metal for element in known):
        return True
    counts = [count for _, count in parts]
    return balances(counts, [e.states for e in known], [e.electronegativity for e in known])


def balances(
    counts: Sequence[int], states: Sequence[Sequence[int]], electronegativities: Sequence[float | None]
) -> bool:
    """Whether elements can take oxidation states that cancel, each cation less electronegative than each anion.

    That is: for some electronegativity, those below are cations and the others anions. So for every such division the
    sums of charge that can be reached are collected, element by element; nothing grows with the number of
    combinations, which for ten elements of ten states are 10^10. An element whose electronegativity is not known fails.
    """
    if any(x is None for x in electronegativities) or not all(states):
        return False
    divisions = sorted({float(x) for x in electronegativities if x is not None})
    return any(_can_cancel(counts, states, electronegativities, limit) for limit in divisions)


def _can_cancel(
    counts: Sequence[int],
    states: Sequence[Sequence[int]],
    electronegativities: Sequence[float | None],
    limit: float,
) -> bool:
    sums = {0}
    for count, own, x in zip(counts, states, electronegativities):
        sign = 1 if x is not None and x < limit else -1
        sums = {total + count * state for total in sums for state in own if state * sign >= 0}
    return 0 in sums


@dataclass(frozen=True)
class _Element:
    states: tuple[int, ...]
    electronegativity: float | None  # Pauling's
    metal: bool


@cache
def _element(number: int) -> _Element:
    """From the tables of SMACT, with its oxidation states of 2014."""
    require_smact()
    import smact

    symbol = chemical_symbols[number]
    element = smact.Element(symbol)
    states = tuple(element.oxidation_states_smact14 or ())
    return _Element(states, element.pauling_eneg, symbol in smact.metals)


def require_smact() -> None:
    """Raises InputError ("missing package") where SMACT is not installed."""
    if importlib.util.find_spec("smact") is None:
        raise InputError(
            "the test of compositions needs the package 'smact', which is not installed here. "
            'Type: pip install "nucleate[inorganic]"',
            reason="missing package",
        )
