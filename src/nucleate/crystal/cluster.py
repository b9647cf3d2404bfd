"""A cluster: copies of one molecule in open space, and many clusters as padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def no_bonds() -> Int[Tensor, "0 2"]:
    return torch.zeros(0, 2, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class Cluster:
    """Copies of one molecule, the central one first; every copy lists its atoms in the same order.

    Raises ValueError for a cluster of nothing, for other shapes and for positions that are not finite.
    """

    numbers: Int[Tensor, " atoms"]  # of one molecule
    positions: Float[Tensor, "molecules atoms 3"]  # Å
    name: str = ""
    bonds: Int[Tensor, "bonds 2"] = field(default_factory=no_bonds)  # of one molecule; may be empty

    def __post_init__(self) -> None:
        if self.positions.ndim != 3 or self.positions.shape[1:] != (len(self.numbers), 3):
            raise ValueError(
                f"expected positions (molecules, {len(self.numbers)}, 3), one for each atomic number, got "
                f"{tuple(self.positions.shape)}; list the atoms of every copy in the same order"
            )
        if not self.positions.numel():
            raise ValueError("expected at least one molecule with one atom, got an empty cluster")
        if not torch.isfinite(self.positions).all():
            raise ValueError("expected finite positions, got NaN or infinity")
        if len(self.bonds) and not 0 <= int(self.bonds.min()) <= int(self.bonds.max()) < len(self.numbers):
            raise ValueError(f"expected bonds between the {len(self.numbers)} atoms of one molecule")

    def __len__(self) -> int:
        """Number of atoms of all molecules."""
        return self.n_molecules * len(self.numbers)

    @property
    def n_molecules(self) -> int:
        return len(self.positions)

    @property
    def centroids(self) -> Float[Tensor, "molecules 3"]:
        """Plain mean of each molecule's atoms, Å."""
        return self.positions.mean(1)

    def with_positions(self, positions: Float[Tensor, "molecules atoms 3"]) -> "Cluster":
        return replace(self, positions=positions)


@dataclass(frozen=True, eq=False)
class ClusterBatch:
    """Clusters of different molecules, equally many copies in each; atoms padded with number 0 at the origin."""

    numbers: Int[Tensor, "batch atoms"]  # of one molecule; 0 is padding
    positions: Float[Tensor, "batch molecules atoms 3"]  # Å

    def __len__(self) -> int:
        """Number of clusters."""
        return len(self.numbers)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "ClusterBatch":
        """Clusters by index; always a batch, padded as before."""
        chosen = [index] if isinstance(index, int) else index
        return ClusterBatch(self.numbers[chosen], self.positions[chosen])

    @property
    def mask(self) -> Bool[Tensor, "batch atoms"]:
        """True where there is an atom."""
        return self.numbers > 0

    @property
    def centroids(self) -> Float[Tensor, "batch molecules 3"]:
        """Plain mean of each molecule's atoms, Å."""
        return padded_centroids(self.positions, self.mask)

    @staticmethod
    def from_list(clusters: Sequence[Cluster]) -> "ClusterBatch":
        """Pad clusters of equally many molecules. Raises ValueError for none, or for several sizes."""
        sizes = sorted({c.n_molecules for c in clusters})
        if len(sizes) != 1:
            raise ValueError(
                f"expected clusters of equally many molecules, got {sizes or 'none'}; batch each size alone"
            )
        pad = torch.nn.utils.rnn.pad_sequence
        positions = pad([c.positions.transpose(0, 1) for c in clusters], batch_first=True).transpose(1, 2)
        return ClusterBatch(pad([c.numbers for c in clusters], batch_first=True), positions)

    def split(self, like: Sequence[Cluster]) -> list[Cluster]:
        """The clusters one by one, with the names and bonds of those they were made from."""
        return [c.with_positions(x[:, : len(c.numbers)]) for c, x in zip(like, self.positions, strict=True)]


def padded_centroids(
    positions: Float[Tensor, "batch molecules atoms 3"], mask: Bool[Tensor, "batch atoms"]
) -> Float[Tensor, "batch molecules 3"]:
    """Plain mean of the atoms of each molecule (Å), padding left out."""
    weight = mask.to(positions.dtype)[:, None, :, None]
    return (weight * positions).sum(2) / weight.sum(2)
