"""Crystallization of clusters: loose copies of a molecule in, the ordered cluster out.

    final cluster --every molecule moved--> loose cluster --a method--> ordered clusters, several samples

What every method shares: the pairs it learns from, how its sampler is asked, and the frame it works in. Positions are
told relative to the centre of the loose cluster, which is known in training and in sampling alike, so no method sees,
or has to find, where in space a cluster lies.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.cluster import ClusterBatch
from nucleate.data.clusters import Loosening, loosened

Positions = Float[Tensor, "batch molecules atoms 3"]
Watch = Callable[[float, Positions], None]  # time in [0, 1] and positions (Å), after each step of a sampler


@dataclass(frozen=True, eq=False)
class ClusterPairs:
    """Ordered clusters to learn from, and the loose ones where they came with the data (`loose`, Å)."""

    final: ClusterBatch
    loose: Positions | None = None

    def __len__(self) -> int:
        return len(self.final)

    def drawn(self, how: Loosening, generator: torch.Generator) -> "ClusterPairs":
        """With loose clusters: those of the data, or else drawn; both about the centre of the loose one."""
        mask = self.final.mask
        loose = self.loose
        if loose is None:
            loose = loosened(self.final.positions, mask, generator, how)
        centre = ClusterBatch(self.final.numbers, loose).centroids.mean(1)[:, None, None]
        keep = mask[:, None, :, None]
        moved = torch.where(keep, self.final.positions - centre, 0.0)
        return ClusterPairs(replace(self.final, positions=moved), torch.where(keep, loose - centre, 0.0))


@dataclass(frozen=True)
class Walk:
    """How a sampler goes from loose to ordered."""

    steps: int = 8  # ignored by methods of one step
    watch: Watch | None = None


@runtime_checkable
class Crystallizer(Protocol):
    """A method; an `nn.Module` as well."""

    def __call__(self, pairs: ClusterPairs, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss, the mean over clusters, and its parts; `pairs` are drawn (`ClusterPairs.drawn`)."""

    def sample(self, loose: ClusterBatch, generator: torch.Generator, walk: Walk) -> Positions:
        """One ordered cluster of each loose one, in the same frame and order of molecules and atoms (Å)."""
