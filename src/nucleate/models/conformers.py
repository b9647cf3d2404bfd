"""What every generator of conformers takes and gives, whatever it learns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.bond_graph import BondGraph, BondGraphs

Watch = Callable[[float], None]  # is told how much of the work is done, 0 to 1


@dataclass(frozen=True, eq=False)
class ConformerPairs:
    """Molecules and a conformer of each, to learn from."""

    graphs: BondGraphs
    positions: Float[Tensor, "batch atoms 3"]  # Å, centred; padding at the origin

    @staticmethod
    def from_list(
        graphs: Sequence[BondGraph], conformers: Sequence[Float[Tensor, "_ 3"]]
    ) -> "ConformerPairs":
        together = torch.nn.utils.rnn.pad_sequence([x - x.mean(0) for x in conformers], batch_first=True)
        return ConformerPairs(BondGraphs.from_list(graphs), together)


@runtime_checkable
class ConformerModel(Protocol):
    """Something that makes conformers."""

    def sample(
        self, graphs: BondGraphs, generator: torch.Generator, watch: Watch | None = None
    ) -> Float[Tensor, "batch atoms 3"]:
        """One conformer of each molecule (Å, centred, padding 0). Stereo may be wrong: who asks checks."""


def centred(x: Float[Tensor, "everything 3"], graphs: BondGraphs) -> Float[Tensor, "batch atoms 3"]:
    """Positions of all atoms of a batch, by molecule and each about its centroid."""
    together = x.new_zeros(*graphs.mask.shape, 3)
    together[graphs.mask] = x
    middle = together.sum(1, keepdim=True) / graphs.mask.sum(1)[:, None, None]
    return torch.where(graphs.mask[..., None], together - middle, 0.0)
