"""Weights of crystallization that have learnt nothing, and a method that knows the answer."""

from pathlib import Path
from typing import Any

import torch

from nucleate.crystal.cluster import ClusterBatch
from nucleate.generative.checkpoint import write_tensors
from nucleate.models.crystallization import ClusterPairs, Positions, Walk
from nucleate.models.crystallization_training import CrystallizationSettings, crystallizer_of


def write_tiny_crystallization(path: Path, method: str = "rigid") -> Path:
    """As `nucleate train crystallization` would write them."""
    settings = CrystallizationSettings.model_validate({"method": method, "width": 8, "layers": 1, "basis": 4})
    torch.manual_seed(0)
    about: dict[str, Any] = {"system": "crystallization", "model": settings.model_dump(mode="json")}
    write_tensors(path, crystallizer_of(settings).state_dict(), about)
    return path


class Knowing:
    """Goes straight to the positions it was given, but for a little noise."""

    def __init__(self, truth: Positions, noise: float = 0.0) -> None:
        self.truth, self.noise = truth, noise

    def __call__(
        self, pairs: ClusterPairs, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        raise NotImplementedError("it has nothing to learn")

    def sample(self, loose: ClusterBatch, generator: torch.Generator, walk: Walk) -> Positions:
        shift = torch.randn(*self.truth.shape[:2], 1, 3, generator=generator)
        end = (self.truth + self.noise * shift).to(loose.positions)
        for k in range(1, walk.steps + 1):
            share = k / walk.steps
            if walk.watch is not None:
                walk.watch(share, (1 - share) * loose.positions + share * end)
        return end
