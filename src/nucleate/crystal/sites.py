"""A crystal as a cell and its atoms, where there are no molecules to speak of: metals, salts, oxides."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import moyopy
import torch
from ase import Atoms
from ase.formula import Formula
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.cif_read import read_sites
from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.geometry.lattice import niggli_reduce
from nucleate.geometry.torus import wrap

SYMPREC = 0.01  # Å, at which translations and operations count as symmetry
NEARLY = 0.1  # Å, the same for crystals that are generated, or relaxed until forces are small


@dataclass(frozen=True, eq=False)
class Sites:
    """A cell (right-handed) and every atom in it."""

    lattice: Float[Tensor, "3 3"]  # Å, rows a, b, c
    frac: Float[Tensor, "atoms 3"]
    numbers: Int[Tensor, " atoms"]  # atomic numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Å^3"""
        return float(torch.linalg.det(self.lattice.double()))

    @property
    def density(self) -> float:
        """g/cm^3"""
        return crystal_of_sites(self).density

    @property
    def composition(self) -> dict[int, int]:
        """Atomic number -> atoms in the cell, ascending."""
        return dict(sorted(Counter(self.numbers.tolist()).items()))

    @property
    def formula(self) -> str:
        """Of the cell, as Hill wrote it: Ga4Te4."""
        return self.atoms.get_chemical_formula()

    @property
    def reduced_formula(self) -> str:
        """Of the smallest unit, in alphabetical order of the elements: GaTe."""
        unit, _ = Formula(self.formula).reduce()
        return unit.format("abc")

    @property
    def atoms(self) -> Atoms:
        """As ASE knows it."""
        return Atoms(
            self.numbers.numpy(),
            cell=self.lattice.double().numpy(),
            scaled_positions=self.frac.double().numpy(),
            pbc=True,
        )


def sites_of_atoms(atoms: Atoms) -> Sites:
    """What ASE holds, right-handed: an inverted cell is turned over by reversing all three of its vectors.

    Raises InputError where it is not periodic in three dimensions.
    """
    if not atoms.pbc.all() or abs(atoms.cell.volume) < 1e-3:
        raise InputError("expected a crystal, periodic in three dimensions and with a volume, got another")
    lattice = torch.tensor(atoms.cell.array, dtype=torch.float64)
    frac = torch.tensor(atoms.get_scaled_positions(wrap=True), dtype=torch.float64)
    if torch.linalg.det(lattice) < 0:
        lattice, frac = -lattice, wrap(-frac)
    return Sites(lattice, frac, torch.tensor(atoms.numbers, dtype=torch.long))


def crystal_of_sites(sites: Sites) -> Crystal:
    """Every atom a molecule of its own: what the search for symmetry and energy models ask for."""
    no_bonds = torch.zeros(0, 2, dtype=torch.long)
    return Crystal(
        sites.lattice.double(), sites.frac.double(), sites.numbers, torch.arange(len(sites)), no_bonds
    )


def sites_from_cif(source: str | Path) -> Sites:
    """All atoms of the cell that a CIF file (path) or CIF text describes, wrapped into it.

    Raises InputError with `reason` "empty file", "unreadable", "no atoms", "unknown element" or "disordered".
    """
    lattice, frac, numbers = read_sites(source)
    return Sites(torch.from_numpy(lattice), wrap(torch.from_numpy(frac)), torch.from_numpy(numbers))


def primitive_niggli_sites(sites: Sites, symprec: float = SYMPREC) -> Sites:
    """The same crystal in its primitive Niggli cell: right-handed, turned, atoms averaged over the symmetry found.

    Where no symmetry can be found the cell is only reduced.
    """
    lattice, frac, numbers = sites.lattice.double(), sites.frac.double(), sites.numbers
    cell = moyopy.Cell(lattice.tolist(), wrap(frac).tolist(), numbers.tolist())
    try:
        primitive = moyopy.MoyoDataset(cell, symprec=symprec).prim_std_cell
    except (ValueError, RuntimeError):
        pass  # moyo gives up where tolerances contradict each other; the cell as given is then as good as any
    else:
        lattice = torch.tensor(primitive.basis, dtype=torch.float64)
        frac = torch.tensor(primitive.positions, dtype=torch.float64)
        numbers = torch.tensor(primitive.numbers, dtype=torch.long)
    return niggli_sites(Sites(lattice, frac, numbers))


def niggli_sites(sites: Sites) -> Sites:
    """The same atoms in the reduced cell of the same volume: nothing is moved or turned.

    Raises InputError where the cell is too flat to be reduced.
    """
    reduced, change = niggli_reduce(sites.lattice.double())
    return Sites(reduced, wrap(sites.frac.double() @ torch.linalg.inv(change.double())), sites.numbers)
