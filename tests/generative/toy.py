"""The smallest things that can be trained: a line through noisy points, and a mean."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from nucleate.generative.epochs import EpochBatches
from nucleate.generative.system import Lesson, System

SLOPE = torch.tensor([[2.0, -1.0, 0.5]])


class Line:
    """y = slope x + 3 + noise, learnt by a linear layer (behind dropout, if asked for)."""

    def __init__(
        self, dropout: float = 0.0, hook: Callable[[], object] | None = None, noise: float = 0.1
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.network: nn.Module = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1)
            )
        self.hook, self.noise = hook, noise

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        if self.hook is not None:
            self.hook()
        y = self.target(batch) + self.noise * torch.randn(len(batch), 1, generator=generator)
        error = self.network(batch) - y
        return error.square().mean(), {"worst": error.detach().abs().max()}

    def validate(self, generator: torch.Generator) -> Mapping[str, float]:
        x = torch.randn(256, 3, generator=generator)
        return {"rmse": (self.network(x) - self.target(x)).square().mean().sqrt().item()}

    @staticmethod
    def target(x: Tensor) -> Tensor:
        return x @ SLOPE.T + 3.0


POINTS = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))


def points(batch: int = 16, augment: float = 0.0) -> EpochBatches:
    """Batches of 64 fixed points, each moved by some noise of its batch."""

    def collate(items: Tensor, generator: torch.Generator) -> Tensor:
        return POINTS[items] + augment * torch.randn(len(items), 3, generator=generator)

    return EpochBatches(len(POINTS), batch, collate)


class ToySettings(BaseModel, frozen=True, extra="forbid"):
    """Settings as a system has them."""

    batch: int = 16
    dropout: float = 0.1


def prepare(settings: ToySettings, data: Path) -> Lesson:
    """`data` is not looked at, except for its name."""
    return Lesson(
        Line(settings.dropout), points(settings.batch, 0.1), {"points": len(POINTS), "licence": "CC0"}
    )


SYSTEM = System(ToySettings, prepare)
