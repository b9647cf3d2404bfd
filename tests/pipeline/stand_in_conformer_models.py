"""A model of conformers that has learned nothing: ETKDG shapes, shaken, some mirrored or torn on purpose."""

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.bond_graph import BondGraphs
from nucleate.crystal.molecule import Molecule
from nucleate.models.conformers import Watch
from nucleate.pipeline.conformer_shapes import etkdg


class ShakenEtkdg:
    """Shapes of one molecule, drawn with replacement. Of every ten, `mirrored` are reflected, then `torn` torn."""

    def __init__(self, molecule: Molecule, mirrored: int = 0, torn: int = 0, shake: float = 0.02) -> None:
        self.shapes = etkdg(molecule, 10).positions
        self.mirrored, self.torn, self.shake = mirrored, torn, shake
        self.calls: list[int] = []

    def sample(
        self, graphs: BondGraphs, generator: torch.Generator, watch: Watch | None = None
    ) -> Float[Tensor, "batch atoms 3"]:
        self.calls.append(len(graphs))
        if watch is not None:
            watch(0.5)
        which = torch.randint(len(self.shapes), (len(graphs),), generator=generator)
        x = self.shapes[which]
        x = x + self.shake * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        tenth = torch.arange(len(x)) % 10
        x = torch.where((tenth < self.mirrored)[:, None, None], -x, x)
        x[(tenth >= 10 - self.torn)] *= 3.0
        return x.float()
