"""Rigid molecules in a space group: what generators make and the rigid-body minimiser moves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.molecule import Molecule
from nucleate.geometry.symmetry import SpaceGroup


@dataclass(frozen=True, eq=False)
class Packings:
    """Crystals that share their molecules and space group, as rigid bodies of the asymmetric unit.

    Body m of crystal b is conformer `conformer[b, m]` of `species[kind[m]]`, reflected through its centroid
    if `handedness[b, m]` is -1, rotated by `rotation[b, m]` and put at `centroid[b, m]`:

        x_cart = handedness * local @ rotation.T + centroid @ lattice

    The symmetry operations then make the rest of the cell. P1 with all molecules listed is the general case.
    """

    species: tuple[Molecule, ...]
    group: SpaceGroup
    kind: Int[Tensor, " bodies"]
    lattice: Float[Tensor, "batch 3 3"]  # Å
    centroid: Float[Tensor, "batch bodies 3"]  # fractional
    rotation: Float[Tensor, "batch bodies 3 3"]  # proper
    handedness: Int[Tensor, "batch bodies"]  # +1 or -1
    conformer: Int[Tensor, "batch bodies"]

    def __len__(self) -> int:
        """Number of crystals."""
        return len(self.lattice)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Packings":
        """Crystals by index; always a batch."""
        chosen = [index] if isinstance(index, int) else index
        names = ("lattice", "centroid", "rotation", "handedness", "conformer")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    @property
    def n_bodies(self) -> int:
        """Molecules in the asymmetric unit."""
        return len(self.kind)

    @property
    def volume(self) -> Float[Tensor, " batch"]:
        """Å^3 of the (conventional) cell."""
        return torch.linalg.det(self.lattice)

    @cached_property
    def body_of_atom(self) -> Int[Tensor, " atoms"]:
        sizes = torch.tensor([len(self.species[k]) for k in self.kind.tolist()])
        return torch.repeat_interleave(torch.arange(self.n_bodies), sizes)

    @cached_property
    def numbers(self) -> Int[Tensor, " atoms"]:
        """Atomic numbers of the asymmetric unit, body after body."""
        return torch.cat([self.species[k].numbers for k in self.kind.tolist()])

    def local(self) -> Float[Tensor, "batch atoms 3"]:
        """Body-frame positions (Å) of every atom of the asymmetric unit, handedness applied."""
        parts = [
            self.species[k].conformers[self.conformer[:, m]] * self.handedness[:, m, None, None]
            for m, k in enumerate(self.kind.tolist())
        ]
        return torch.cat(parts, 1).to(self.lattice.dtype)

    def positions(self) -> Float[Tensor, "batch atoms 3"]:
        """Cartesian positions (Å) of the asymmetric unit."""
        body = self.body_of_atom
        turned = torch.einsum("baij,baj->bai", self.rotation[:, body], self.local())
        return turned + (self.centroid @ self.lattice)[:, body]

    def crystal(self, index: int, **info: Any) -> Crystal:
        """All atoms of crystal `index`: every operation applied, molecules whole, centroids in [0, 1)."""
        lattice = self.lattice[index].double()
        frac = self.positions()[index].double() @ torch.linalg.inv(lattice)
        body = self.body_of_atom
        images = self.group.expand(frac)
        centres = self.group.expand(self.centroid[index].double())
        images = images - torch.floor(centres)[:, body]
        n_ops, n_atoms = len(self.group), len(body)
        copy = torch.arange(n_ops)[:, None]
        bonds, types, charges, offset = [], [], [], 0
        for k in self.kind.tolist():
            molecule = self.species[k]
            bonds.append(molecule.bonds + offset)
            types += [b.GetBondType() for b in molecule.graph.GetBonds()]
            charges += [a.GetFormalCharge() for a in molecule.graph.GetAtoms()]
            offset += len(molecule)
        return Crystal(
            lattice=lattice,
            frac=images.flatten(0, 1),
            numbers=self.numbers.repeat(n_ops),
            molecule=(body + copy * self.n_bodies).flatten(),
            bonds=(torch.cat(bonds) + copy[..., None] * n_atoms).flatten(0, 1),
            bond_types=tuple(types) * n_ops,
            charges=torch.tensor(charges).repeat(n_ops),
            info=info or None,
        )

    @staticmethod
    def concatenate(parts: "Sequence[Packings]") -> "Packings":
        """Join batches of the same species, group and kinds."""
        names = ("lattice", "centroid", "rotation", "handedness", "conformer")
        joined: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in parts]) for name in names}
        return replace(parts[0], **joined)
