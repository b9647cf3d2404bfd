"""Many crystals of any sizes as flat tensors with an index."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.crystal import Crystal


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """All atoms of all crystals, one after the other; molecules counted through the batch.

    `batch[i]` is one `Crystal`, `batch[[i, j]]` or a slice a smaller batch. Bonds, their types and charges
    are not carried: they belong to molecules, and a network asks for positions.
    """

    lattice: Float[Tensor, "crystals 3 3"]  # Å, rows a, b, c
    frac: Float[Tensor, "atoms 3"]  # whole molecules, not wrapped
    numbers: Int[Tensor, " atoms"]
    crystal_of_atom: Int[Tensor, " atoms"]  # ascending
    molecule_of_atom: Int[Tensor, " atoms"]  # 0, 1, ... through the whole batch

    def __post_init__(self) -> None:
        n = len(self.frac)
        sizes = {len(self.numbers), len(self.crystal_of_atom), len(self.molecule_of_atom)}
        if sizes != {n}:
            raise ValueError(
                f"expected one entry per atom in every field: {n} positions, but lengths {sorted(sizes)}"
            )
        if n and int(self.crystal_of_atom.max()) >= len(self.lattice):
            raise ValueError(
                f"crystal_of_atom points at crystal {int(self.crystal_of_atom.max())}, but there are only "
                f"{len(self.lattice)} lattices. Was the batch sliced by atom? Slice by crystal instead: "
                "batch[[i, j]]."
            )
        if (self.crystal_of_atom.diff() < 0).any() or (n and int(self.crystal_of_atom[0]) < 0):
            raise ValueError(
                "expected the atoms of crystal 0, then 1, ...: crystal_of_atom must not decrease"
            )
        if not (torch.isfinite(self.frac).all() and torch.isfinite(self.lattice).all()):
            raise ValueError("expected finite coordinates and lattices, got NaN or infinity")

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.lattice)

    def __getitem__(self, index: "int | slice | Sequence[int] | Tensor") -> "Crystal | CrystalBatch":
        if isinstance(index, int):
            return self.split()[index]
        chosen = torch.arange(len(self))[index]
        sizes = self.n_atoms
        start = torch.cumsum(sizes, 0) - sizes
        crystal = torch.repeat_interleave(torch.arange(len(chosen)), sizes[chosen])
        first = torch.cumsum(sizes[chosen], 0) - sizes[chosen]
        atoms = start[chosen][crystal] + torch.arange(len(crystal)) - first[crystal]
        pairs = torch.stack([crystal, self.molecule_of_atom[atoms]], 1)
        molecule = torch.unique(pairs, dim=0, return_inverse=True)[1]
        return CrystalBatch(self.lattice[chosen], self.frac[atoms], self.numbers[atoms], crystal, molecule)

    @property
    def n_atoms(self) -> Int[Tensor, " crystals"]:
        return torch.bincount(self.crystal_of_atom, minlength=len(self))

    @property
    def positions(self) -> Float[Tensor, "atoms 3"]:
        """Å"""
        return torch.einsum("ai,aij->aj", self.frac, self.lattice[self.crystal_of_atom])

    @staticmethod
    def from_list(crystals: Sequence[Crystal]) -> "CrystalBatch":
        """Join crystals. Raises ValueError for an empty list: it has no shape to keep."""
        if not crystals:
            raise ValueError("expected at least one crystal, got an empty list")
        sizes = torch.tensor([len(c) for c in crystals])
        molecules = torch.tensor([c.n_molecules for c in crystals])
        crystal = torch.repeat_interleave(torch.arange(len(crystals)), sizes)
        offset = torch.cumsum(molecules, 0) - molecules
        return CrystalBatch(
            lattice=torch.stack([c.lattice for c in crystals]),
            frac=torch.cat([c.frac for c in crystals]),
            numbers=torch.cat([c.numbers for c in crystals]),
            crystal_of_atom=crystal,
            molecule_of_atom=torch.cat([c.molecule for c in crystals]) + offset[crystal],
        )

    def split(self) -> list[Crystal]:
        """The crystals one by one, without bonds."""
        sizes = self.n_atoms.tolist()
        fields = (self.frac.split(sizes), self.numbers.split(sizes), self.molecule_of_atom.split(sizes))
        no_bonds = torch.zeros(0, 2, dtype=torch.long)
        return [
            Crystal(
                lattice, frac, numbers, molecule - molecule.min() if len(molecule) else molecule, no_bonds
            )
            for lattice, frac, numbers, molecule in zip(self.lattice, *fields)
        ]
