"""Bonds and whole molecules from bare coordinates in a periodic cell.

Distances give the bonds, each with the lattice shift it crosses; walking the bonds with their shifts makes
the molecules whole, however long they are. What is not a molecular crystal is refused here, by name.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from rdkit import Chem
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from nucleate.errors import InputError

TABLE = Chem.GetPeriodicTable()
RADII = np.array([0.0] + [TABLE.GetRcovalent(z) for z in range(1, 119)])  # Å; Cordero et al. 2008
NONMETALS = frozenset({1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 33, 34, 35, 36, 52, 53, 54, 85, 86})
IONIC = frozenset(
    {3, 11, 19, 20, 37, 38, 55, 56, 87, 88}
)  # their contacts are electrostatic: ions, not bonds
SLACK_LIGHT, SLACK = 0.3, 0.4  # Å beyond the sum of radii: rows 1 and 2 only, and everything else
MOST_IMAGES, MOST_PAIRS = 10_000_000, 5_000_000  # of one cell: what memory has room for
MOST_NEIGHBOURS = {6: 4, 7: 4, 8: 3, 9: 2}  # non-metal neighbours; one more means overlapping molecules


@dataclass(frozen=True)
class Neighbours:
    """Pairs closer than a cut-off, each once: atom `i` at x_i, atom `j` at x_j + shift, `distance` apart
    (Å).
    """

    i: Int[np.ndarray, " pairs"]
    j: Int[np.ndarray, " pairs"]
    shift: Int[np.ndarray, "pairs 3"]
    distance: Float[np.ndarray, " pairs"]

    def __getitem__(self, mask: np.ndarray) -> "Neighbours":
        return Neighbours(self.i[mask], self.j[mask], self.shift[mask], self.distance[mask])

    def __len__(self) -> int:
        return len(self.i)


def find_neighbours(
    lattice: Float[np.ndarray, "3 3"], frac: Float[np.ndarray, "atoms 3"], cutoff: float
) -> Neighbours:
    """Every pair of atoms or images within `cutoff` Å, each pair once; positions need not be wrapped.

    Raises InputError "absurd cell" or "clash" for cells so thin, or atoms so dense, that there are pairs without end.
    """
    floor = np.floor(frac)
    wrapped = frac - floor
    margin = cutoff * np.linalg.norm(
        np.linalg.inv(lattice), axis=0
    )  # the cut-off in units of the cell heights
    if not np.isfinite(frac).all() or np.prod(2 * np.ceil(margin) + 1) * len(frac) > MOST_IMAGES:
        raise InputError(
            f"expected finite positions in a cell of ordinary size, got {len(frac)} atoms in one of "
            f"{abs(np.linalg.det(lattice)):.3g} Å^3; check its lengths and angles",
            reason="absurd cell",
        )
    reach = np.ceil(margin).astype(int)
    cells = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), -1).reshape(-1, 1, 3)
    images = wrapped + cells
    cell, atom = np.nonzero(((images > -margin - 1e-9) & (images < 1 + margin + 1e-9)).all(-1))
    near = cKDTree(images[cell, atom] @ lattice)
    home = cKDTree(wrapped @ lattice)
    if len(frac) * len(cell) > MOST_PAIRS and home.count_neighbors(near, cutoff) > MOST_PAIRS:
        raise InputError(
            f"expected atoms at bonding distance or farther, got over {MOST_PAIRS} pairs of {len(frac)} atoms within "
            f"{cutoff:.1f} Å; are they all in one place?",
            reason="clash",
        )
    pairs = home.sparse_distance_matrix(near, cutoff, output_type="ndarray")
    i, j, crossed = pairs["i"], atom[pairs["j"]], cells[cell[pairs["j"]], 0]
    first = crossed[
        np.arange(len(crossed)), (crossed != 0).argmax(1)
    ]  # sign of an atom's shift to its own image
    once = (i < j) | ((i == j) & (first > 0))
    i, j, crossed, distance = i[once], j[once], crossed[once], pairs["v"][once]
    return Neighbours(i, j, (crossed - floor[j] + floor[i]).astype(int), distance)


def perceive_bonds(
    lattice: Float[np.ndarray, "3 3"], frac: Float[np.ndarray, "atoms 3"], numbers: Int[np.ndarray, " atoms"]
) -> Neighbours:
    """Bonded pairs with lattice shifts: closer than the sum of covalent radii plus 0.3 Å (rows 1-2) or 0.4 Å.

    A hydrogen keeps its nearest partner only (two if they tie within 0.01 Å, a centred hydrogen bond);
    alkali and heavy alkaline-earth metals are ions. Raises InputError "clash" where atoms sit on each
    other.
    """
    bonds, contacts = _bonds_and_contacts(lattice, frac, numbers)
    _refuse_clashes(contacts, numbers)
    _refuse_overcrowding(bonds, numbers)
    return bonds


def whole_molecules(
    frac: Float[np.ndarray, "atoms 3"], bonds: Neighbours
) -> tuple[Float[np.ndarray, "atoms 3"], Int[np.ndarray, " atoms"]]:
    """Positions shifted so that no bond crosses a cell face, and the molecule index of each atom.

    Molecules are numbered by their first atom and their centroids lie in [0, 1). A ring of bonds that comes
    back to another image of its start is a polymer: InputError "polymeric".
    """
    n = len(frac)
    graph = coo_array((np.ones(len(bonds)), (bonds.i, bonds.j)), shape=(n, n))
    count, molecule = connected_components(graph, directed=False)
    i, j = np.concatenate([bonds.i, bonds.j]), np.concatenate([bonds.j, bonds.i])
    step = np.concatenate([bonds.shift, -bonds.shift])
    offset, known = np.zeros((n, 3), dtype=int), np.zeros(n, dtype=bool)
    known[np.unique(molecule, return_index=True)[1]] = (
        True  # one seed each; all molecules grow level by level
    )
    while (front := known[i] & ~known[j]).any():
        offset[j[front]] = offset[i[front]] + step[front]
        known[j[front]] = True
    torn = (offset[bonds.i] + bonds.shift != offset[bonds.j]).any(1)
    if torn.any():
        raise InputError(
            f"expected separate molecules, got a network that runs through the crystal "
            f"({int(torn.sum())} bonds "
            "close on another image of themselves); nucleate handles molecular crystals only",
            reason="polymeric",
        )
    whole = frac + offset
    centres = np.zeros((count, 3))
    np.add.at(centres, molecule, whole)
    centres /= np.bincount(molecule, minlength=count)[:, None]
    return whole - np.floor(centres + 1e-9)[molecule], molecule.astype(np.int64)


def refuse_bare_atoms(
    positions: Float[np.ndarray, "atoms 3"],
    numbers: Int[np.ndarray, " atoms"],
    bonds: Int[np.ndarray, "bonds 2"],
) -> None:
    """Raise InputError "missing hydrogens" where the geometry of an atom asks for a hydrogen that is not
    there.

    Two neighbours of carbon lie on a line, three in a plane; one is bound by a short bond. An oxygen without
    neighbours is a water without hydrogens. `positions` (Å) are those of whole molecules.
    """
    i, j = np.concatenate([bonds, bonds[:, ::-1]]).T
    degree = np.bincount(i, minlength=len(numbers))
    order = np.argsort(i, kind="stable")
    start = np.concatenate([[0], np.cumsum(degree)])[:-1]
    arm = positions[j[order]] - positions[i[order]]
    length = np.linalg.norm(arm, axis=1)
    unit = arm / length[:, None]
    odd = np.zeros(len(numbers), dtype=bool)
    odd[i[~np.isin(numbers[j], [1, 6, 7, 8, 9, 15, 16, 17, 34, 35, 53])]] = True  # boron cages and metals
    carbon = (numbers == 6) & ~odd

    def cosine(at: np.ndarray, a: int, b: int) -> np.ndarray:
        return (unit[start[at] + a] * unit[start[at] + b]).sum(1)

    bare = (np.isin(numbers, [6, 7, 8])) & (degree == 0)
    one = np.nonzero(carbon & (degree == 1))[0]
    bare[one] |= length[start[one]] > 1.25
    two = np.nonzero(carbon & (degree == 2))[0]
    bare[two] |= cosine(two, 0, 1) > np.cos(np.radians(145))
    three = np.nonzero(carbon & (degree == 3))[0]
    angles = sum(np.arccos(np.clip(cosine(three, a, b), -1, 1)) for a, b in ((0, 1), (0, 2), (1, 2)))
    bare[three] |= angles < np.radians(338)
    if bare.any():
        raise InputError(
            f"expected every hydrogen, got {int(bare.sum())} atoms in the cell whose geometry asks for "
            "one more "
            f"(first: atom {int(bare.argmax())}, "
            f"{TABLE.GetElementSymbol(int(numbers[bare.argmax()]))}); add the "
            "hydrogens to the file",
            reason="missing hydrogens",
        )


def _bonds_and_contacts(
    lattice: np.ndarray, frac: np.ndarray, numbers: np.ndarray
) -> tuple[Neighbours, Neighbours]:
    radii = RADII[numbers]
    near = find_neighbours(lattice, frac, float(2 * radii.max() + SLACK) if len(radii) else 1.0)
    z_i, z_j = numbers[near.i], numbers[near.j]
    slack = np.where((z_i <= 10) & (z_j <= 10), SLACK_LIGHT, SLACK)
    close = near.distance < radii[near.i] + radii[near.j] + slack
    ionic = np.isin(z_i, list(IONIC)) | np.isin(z_j, list(IONIC))
    return _one_partner(near[close & ~ionic], numbers), near


def _one_partner(bonds: Neighbours, numbers: np.ndarray) -> Neighbours:
    """Leave each hydrogen its nearest partner; another within 0.01 Å stays, as in a centred hydrogen bond."""
    nearest = np.full(len(numbers), np.inf)
    np.minimum.at(nearest, bonds.i, bonds.distance)
    np.minimum.at(nearest, bonds.j, bonds.distance)
    limit = np.where(numbers == 1, nearest + 0.01, np.inf)
    return bonds[(bonds.distance <= limit[bonds.i]) & (bonds.distance <= limit[bonds.j])]


def _refuse_clashes(near: Neighbours, numbers: np.ndarray) -> None:
    """Atoms far inside each other's covalent radius; hydrogens in X-ray structures may be 0.3 Å too near."""
    z_i, z_j = numbers[near.i], numbers[near.j]
    hydrogens = (z_i == 1).astype(int) + (z_j == 1)
    allowed = np.choose(hydrogens, [0.65, 0.5, 1.1]) * (RADII[z_i] + RADII[z_j])
    if (clash := near.distance < allowed).any():
        worst = int(np.where(clash, near.distance, np.inf).argmin())
        pair = "-".join(TABLE.GetElementSymbol(int(z[worst])) for z in (z_i, z_j))
        raise InputError(
            f"expected atoms at bonding distance or farther, got {int(clash.sum())} pairs too close "
            "(closest: "
            f"{pair} at {near.distance[worst]:.2f} Å); check for overlapping molecules or unlabelled "
            "disorder",
            reason="clash",
        )


def _refuse_overcrowding(bonds: Neighbours, numbers: np.ndarray) -> None:
    z_i, z_j = numbers[bonds.i], numbers[bonds.j]
    simple = [1, 6, 7, 8, 9, 15, 16, 17, 34, 35, 53]
    plain = np.isin(z_i, simple) & np.isin(z_j, simple)
    degree = np.bincount(np.concatenate([bonds.i[plain], bonds.j[plain]]), minlength=len(numbers))
    most = np.array([MOST_NEIGHBOURS.get(z, 99) for z in range(119)])[numbers]
    if (crowded := degree > most).any():
        atom = int(crowded.argmax())
        raise InputError(
            f"expected at most {most[atom]} neighbours of {TABLE.GetElementSymbol(int(numbers[atom]))}, got "
            f"{degree[atom]} ({int(crowded.sum())} such atoms); check for overlapping molecules or disorder",
            reason="clash",
        )
