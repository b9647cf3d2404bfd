"""One crystal as all the atoms of one cell."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from rdkit import Chem
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Crystal:
    """Every atom of one cell (no symmetry), molecules whole: no bond crosses a cell face.

    `frac` is therefore not wrapped: an atom may lie outside [0, 1). Atoms of one molecule need not be
    contiguous; `molecule` says which molecule (0, 1, ...) each belongs to. `bonds` may be empty where nobody
    knows them. `info` carries what files say besides (id, energies, provenance).
    """

    lattice: Float[Tensor, "3 3"]  # Å, rows a, b, c, right-handed
    frac: Float[Tensor, "atoms 3"]
    numbers: Int[Tensor, " atoms"]
    molecule: Int[Tensor, " atoms"]
    bonds: Int[Tensor, "bonds 2"]
    bond_types: tuple[Chem.BondType, ...] = ()
    charges: Int[Tensor, " atoms"] | None = None  # formal charges, where known
    info: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        n = len(self.frac)
        if len(self.numbers) != n or len(self.molecule) != n:
            raise ValueError(
                f"expected one number and one molecule index per atom: {n} positions, {len(self.numbers)} "
                f"numbers, {len(self.molecule)} molecule indices"
            )
        if not torch.isfinite(self.lattice).all() or not torch.isfinite(self.frac).all():
            raise ValueError("expected finite coordinates and lattice, got NaN or infinity")
        if torch.linalg.det(self.lattice) <= 0:
            raise ValueError(
                "expected a right-handed cell with positive volume; swap two axes or check the file"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def n_molecules(self) -> int:
        return int(self.molecule.max()) + 1 if len(self) else 0

    @property
    def positions(self) -> Float[Tensor, "atoms 3"]:
        """Å"""
        return self.frac @ self.lattice

    @property
    def volume(self) -> float:
        """Å^3"""
        return float(torch.linalg.det(self.lattice))

    @cached_property
    def mass(self) -> float:
        """g/mol of cell contents"""
        table = Chem.GetPeriodicTable()
        return sum(table.GetAtomicWeight(int(z)) for z in self.numbers)

    @property
    def density(self) -> float:
        """g/cm^3"""
        return self.mass / self.volume * 1.66053906660

    @cached_property
    def centroids(self) -> Float[Tensor, "molecules 3"]:
        """Plain mean of each molecule's atoms, fractional, not wrapped."""
        sums = torch.zeros(self.n_molecules, 3, dtype=self.frac.dtype).index_add(0, self.molecule, self.frac)
        return sums / torch.bincount(self.molecule, minlength=self.n_molecules)[:, None]

    def replace(self, **changes: Any) -> "Crystal":
        return replace(self, **changes)
