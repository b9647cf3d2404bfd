"""Do molecules run into each other? Contacts between molecules of a crystal, periodic images included.

Two atoms are in contact when they belong to different molecules, or to a molecule and its own image in another
cell. A contact of length d is judged by d / reference, where the reference depends on what the atoms are:

| kind | the pair | reference | clash below |
|---|---|---|---|
| van der Waals | any other pair | sum of van der Waals radii (Bondi 1964, `VDW_RADII`) | 0.80 |
| hydrogen bond | H on N, O, F, S and an acceptor (N, O, F, S, Cl, Br, I) | the same | 0.45 |
| bridged | heavy atoms, both acceptors, one of them with such an H | the same | 0.76 |
| halogen bond | S, Se, Te, Cl, Br, I and an acceptor | the same | 0.70 |
| metal | at least one is a metal | sum of covalent radii (Cordero 2008) | 0.90 |

A pair that fits several rows takes the lowest of them in the table. A hydrogen belongs to the nearest heavy atom of
its molecule, so bonds need not be known. Where a molecule has no hydrogen at all (left out of the file, or none to
begin with) any of its N, O, F and S may be a donor. Nothing else is guessed about hydrogens that are missing:
contacts that they would have made are not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data.vdw_alvarez import vdw_radii as alvarez_table
from jaxtyping import Bool, Float, Int
from rdkit import Chem

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.perceive import NONMETALS, Neighbours, find_neighbours
from nucleate.crystal.perceive import RADII as COVALENT
from nucleate.crystal.shapes import CARRIED, DONORS
from nucleate.errors import InputError
from nucleate.geometry.lattice import heights, niggli_reduce
from nucleate.metrics.rate import Rate
from nucleate.physics.parameters import VDW_RADII

KINDS = ("van der Waals", "hydrogen bond", "bridged", "halogen bond", "metal")
LIMITS = (0.80, 0.45, 0.76, 0.70, 0.90)  # of the reference, one a kind; chosen in benchmarks/clashes.py

ALVAREZ = np.full(len(COVALENT), 2.0)  # Å; Alvarez, Dalton Trans. 42, 8617 (2013); 2 Å where unknown
ALVAREZ[: len(alvarez_table)] = np.nan_to_num(alvarez_table, nan=2.0)
BONDI = ALVAREZ.copy()  # Å; the project's table where it has the element
for _symbol, _radius in VDW_RADII.items():
    BONDI[Chem.GetPeriodicTable().GetAtomicNumber(_symbol)] = _radius

ACCEPTORS = np.array([7, 8, 9, 16, 17, 35, 53])
SIGMA_HOLES = np.array([16, 17, 34, 35, 52, 53])  # they meet acceptors head on, inside the sum of radii
METAL = ~np.isin(np.arange(119), list(NONMETALS))
FLAT = 2.0  # Å: cells thinner than this are reduced first, or their images would be too many


@dataclass(frozen=True)
class Contact:
    """Atoms `atoms[0]` and the image of `atoms[1]` in cell `shift` (as the crystal's unwrapped fractions count)."""

    atoms: tuple[int, int]
    shift: tuple[int, int, int]
    distance: float  # Å
    ratio: float  # distance over the reference of its kind
    kind: str
    limit: float  # a ratio below this is a clash

    @property
    def is_clash(self) -> bool:
        return self.ratio < self.limit


@dataclass(frozen=True, eq=False)
class Contacts:
    """Many contacts, each pair of atoms once; `kind` indexes `KINDS`."""

    atoms: Int[np.ndarray, "n 2"]
    shift: Int[np.ndarray, "n 3"]
    distance: Float[np.ndarray, " n"]  # Å
    ratio: Float[np.ndarray, " n"]
    kind: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, index: int) -> Contact:
        i, j = self.atoms[index].tolist()
        a, b, c = self.shift[index].tolist()
        kind = int(self.kind[index])
        return Contact(
            (i, j),
            (a, b, c),
            float(self.distance[index]),
            float(self.ratio[index]),
            KINDS[kind],
            LIMITS[kind],
        )


def contacts(crystal: Crystal, reach: float | None = None) -> Contacts:
    """Every contact between molecules within `reach` Å, closest for its kind first.

    Without `reach` every contact that touches (ratio below 1) is there, and some that do not. Molecules are those
    of `crystal.molecule`. Raises InputError for a crystal without atoms or an atomic number that is none.
    """
    if reach is None:
        reach = 2 * float(np.maximum(BONDI, COVALENT)[_checked_numbers(crystal)].max())
    near, numbers = _between_molecules(crystal, reach)
    i, j = near.i, near.j
    kind = pair_kinds(numbers, *_hydrogen_bonding(crystal, numbers), i, j)
    ratio = near.distance / references(numbers, kind, i, j)
    order = np.argsort(ratio / np.array(LIMITS)[kind], kind="stable")
    atoms = np.stack([i, j], 1)
    return Contacts(atoms[order], near.shift[order], near.distance[order], ratio[order], kind[order])


def closest_contact(crystal: Crystal) -> Contact:
    """The contact that is closest for its kind (smallest ratio over limit), however far apart molecules are."""
    reach = 5.0
    while not len(found := contacts(crystal, reach)):
        reach *= 2  # a molecule always meets an image of itself
    return found[0]


def has_clash(crystal: Crystal, fraction: float = LIMITS[0]) -> bool:
    """True where molecules run into each other.

    `fraction` is the limit for ordinary (van der Waals) contacts; the other kinds keep theirs. Raises InputError
    where it is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise InputError(f"expected a fraction of the van der Waals sum in (0, 1], got {fraction}")
    if _is_collapsed(crystal):
        return True
    found = contacts(crystal)
    limits = np.array([fraction, *LIMITS[1:]])
    return bool((found.ratio < limits[found.kind]).any())


def clash_rate(samples: Sequence[Crystal | InputError | None], fraction: float = LIMITS[0]) -> Rate:
    """Samples with a clash out of all that were asked for.

    A failure is None or the InputError that says why. One with reason "clash" (the reader found atoms on each
    other) is a hit; any other is in the denominator only, so a generator that fails a lot looks free of
    clashes here. Quote `clash_free_rate` where that matters.
    """
    hits = sum(_clashes(sample, fraction) is True for sample in samples)
    return Rate(hits, len(samples))


def clash_free_rate(samples: Sequence[Crystal | InputError | None], fraction: float = LIMITS[0]) -> Rate:
    """Crystals without a clash out of all samples asked for: a failure never counts in favour."""
    hits = sum(_clashes(sample, fraction) is False for sample in samples)
    return Rate(hits, len(samples))


def _clashes(sample: Crystal | InputError | None, fraction: float) -> bool | None:
    if isinstance(sample, Crystal):
        return has_clash(sample, fraction)
    return True if isinstance(sample, InputError) and sample.reason == "clash" else None


# ---------------------------------------------------------------- the condition of OXtal and Clari


def overlaps(crystal: Crystal, definition: str = "clari", overlap: float = 0.7) -> bool:
    """Heavy atoms of different molecules closer than the sum of their radii less `overlap` Å.

    The condition "no clash" of the OXtal and Clari papers (`oxtal/metrics/crystal_similarity.py`,
    `clari/pipelines/utils/metrics.py`): r_i + r_j - d >= 0.7 Å. "clari" takes Alvarez radii (C-C below 2.84 Å),
    "oxtal" Bondi's, as the CSD has them (C-C below 2.70 Å). Ours looks at all periodic images, those of the same
    molecule too. What is odd about theirs:

    * 0.2 Å stands as the default of OXtal's function, but its program always passes 0.7 Å;
    * OXtal asks the molecules written in the file, not the crystal, for contacts: no periodic images; and an
      error while asking counts as "no clash". Its authors note that it misses obvious clashes;
    * Clari takes the nearest image of each pair of different molecules in the cell, so a molecule that overlaps
      its own image (always, with one molecule in the cell) is not seen;
    * hydrogens are left out, and hydrogen bonds are not treated apart: O-H...O at 2.3 Å is a clash, H...H at
      0.5 Å is none.

    Raises InputError for an unknown definition.
    """
    tables = {"oxtal": BONDI, "clari": ALVAREZ}
    if definition not in tables:
        raise InputError(f"expected a definition out of {', '.join(tables)}; got {definition!r}")
    if _is_collapsed(crystal):
        return True
    radii = tables[definition]
    heavy = crystal.numbers.numpy() > 1
    near, numbers = _between_molecules(crystal, 2 * float(radii.max()) - overlap, heavy)
    return bool((near.distance <= radii[numbers[near.i]] + radii[numbers[near.j]] - overlap).any())


# ---------------------------------------------------------------- pairs and their kinds


def _between_molecules(
    crystal: Crystal, reach: float, keep: Bool[np.ndarray, " atoms"] | None = None
) -> tuple[Neighbours, Int[np.ndarray, " kept"]]:
    """Pairs of different molecules or images of them within `reach` Å, and the atomic numbers they index."""
    numbers, molecule = _checked_numbers(crystal), crystal.molecule.numpy()
    frac = crystal.frac.double().numpy()
    if keep is not None:
        numbers, molecule, frac = numbers[keep], molecule[keep], frac[keep]
    lattice, change = crystal.lattice.double(), np.eye(3, dtype=np.int64)
    if float(heights(lattice).min()) < FLAT:
        if _is_collapsed(crystal):
            raise InputError(
                f"expected a cell that atoms fit into, got {crystal.volume:.3g} Å^3 for {len(crystal)} atoms or a "
                "translation below 1 Å: it has collapsed; generate or relax it again",
                reason="clash",
            )
        lattice, steps = niggli_reduce(lattice)
        change = steps.numpy()
        frac = frac @ np.linalg.inv(change)
    near = find_neighbours(lattice.numpy(), frac, reach)
    near = Neighbours(near.i, near.j, near.shift @ change, near.distance)
    return near[(molecule[near.i] != molecule[near.j]) | near.shift.any(1)], numbers


def _is_collapsed(crystal: Crystal) -> bool:
    """Less than 1 Å^3 an atom, or atoms within 1 Å of their own images: a clash, and too many images to list."""
    lattice = crystal.lattice.double()
    if crystal.volume < len(crystal) or float(lattice.norm(dim=1).min()) < 1.0:
        return True
    if float(heights(lattice).min()) < FLAT:
        return float(niggli_reduce(lattice)[0].norm(dim=1).min()) < 1.0
    return False


def _checked_numbers(crystal: Crystal) -> Int[np.ndarray, " atoms"]:
    numbers = crystal.numbers.numpy()
    if not len(numbers) or not 0 < numbers.min() <= numbers.max() < len(ALVAREZ):
        span = f"{numbers.min()} to {numbers.max()}" if len(numbers) else "no atoms"
        raise InputError(
            f"expected atoms with atomic numbers from 1 to {len(ALVAREZ) - 1}, got {span}",
            reason="unknown element",
        )
    return numbers


def pair_kinds(
    numbers: Int[np.ndarray, " atoms"],
    polar: Bool[np.ndarray, " atoms"],
    donor: Bool[np.ndarray, " atoms"],
    i: Int[np.ndarray, "*pairs"],
    j: Int[np.ndarray, "*pairs"],
) -> Int[np.ndarray, "*pairs"]:
    """Which of `KINDS` each pair of atoms i, j is; `polar` are hydrogens on donors."""
    acceptor, sigma = np.isin(numbers, ACCEPTORS), np.isin(numbers, SIGMA_HOLES)
    both = acceptor[i] & acceptor[j]
    kind = np.zeros(both.shape, dtype=np.int64)
    kind[both & (donor[i] | donor[j])] = 2
    kind[(sigma[i] & acceptor[j]) | (acceptor[i] & sigma[j])] = 3
    kind[(polar[i] & acceptor[j]) | (acceptor[i] & polar[j])] = 1
    kind[METAL[numbers[i]] | METAL[numbers[j]]] = 4
    return kind


def references(
    numbers: Int[np.ndarray, " atoms"],
    kind: Int[np.ndarray, "*pairs"],
    i: Int[np.ndarray, "*pairs"],
    j: Int[np.ndarray, "*pairs"],
) -> Float[np.ndarray, "*pairs"]:
    """The distance (Å) that a contact of each pair of atoms is judged by: a sum of radii."""
    return np.where(
        kind == 4, COVALENT[numbers[i]] + COVALENT[numbers[j]], BONDI[numbers[i]] + BONDI[numbers[j]]
    )


def _hydrogen_bonding(
    crystal: Crystal, numbers: Int[np.ndarray, " atoms"]
) -> tuple[Bool[np.ndarray, " atoms"], Bool[np.ndarray, " atoms"]]:
    """Which atoms are hydrogens on a donor, and which are donors (that may carry one where none are written)."""
    positions, molecule = crystal.positions.double(), crystal.molecule
    light, heavy = (
        torch.nonzero(crystal.numbers == 1).flatten(),
        torch.nonzero(crystal.numbers > 1).flatten(),
    )
    polar, donor = np.zeros(len(numbers), dtype=bool), np.zeros(len(numbers), dtype=bool)
    if len(light) and len(heavy):
        away = torch.cdist(positions[light], positions[heavy])
        away[molecule[light][:, None] != molecule[heavy]] = torch.inf
        length, nearest = (x.numpy() for x in away.min(1))
        carrier = heavy.numpy()[nearest]
        carried = (length < CARRIED) & np.isin(numbers[carrier], DONORS)
        polar[light.numpy()[carried]] = True
        donor[carrier[carried]] = True
    has_hydrogen = np.bincount(molecule[light].numpy(), minlength=crystal.n_molecules) > 0
    donor |= np.isin(numbers, DONORS) & ~has_hydrogen[molecule.numpy()]
    return polar, donor
