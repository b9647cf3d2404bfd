"""Denoising score matching over several levels of noise, and annealed Langevin dynamics (Song & Ermon 2019).

training    x~ = x + sigma eps,  the score of p(x~ | x) is -eps / sigma,  loss = 1/2 sigma^2 |s(x~) + eps / sigma|^2
sampling    for each level, largest first:  x <- x + a s(x) + sqrt(2 a) z,   a = step (sigma / sigma_last)^2
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.errors import InputError

Points = Float[Tensor, "*n d"]


@dataclass(frozen=True)
class NoiseLevels:
    """`count` deviations from `first` (noise) to `last` (data), each the same part of the one before."""

    first: float = 10.0
    last: float = 0.01
    count: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.last <= self.first < math.inf or self.count < 1:
            raise InputError(
                f"expected deviations first >= last > 0 and at least one level, got {self.first}, {self.last} and "
                f"{self.count}"
            )

    @property
    def sigmas(self) -> Float[Tensor, " levels"]:
        return torch.logspace(math.log10(self.first), math.log10(self.last), self.count)

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """One level for each of n things, all levels alike."""
        level = torch.randint(self.count, (n,), generator=generator, device=generator.device)
        return self.sigmas.to(level.device)[level]


@dataclass(frozen=True)
class AnnealedLangevin:
    """`steps` of Langevin dynamics at each level; `step` is that of the last level, in the unit of x squared.

    Rows of a score longer than `longest` are shortened to it: outliers would never come back.
    """

    levels: NoiseLevels = NoiseLevels()
    step: float = 2.4e-6
    steps: int = 100
    longest: float = 1000.0

    @torch.no_grad()
    def sample(
        self,
        score: Callable[[Points, float], Points],
        start: Points,
        generator: torch.Generator,
        after_level: Callable[[int], None] | None = None,
    ) -> Points:
        """From `start` to the data by `levels.count * steps` calls of `score(x, sigma)`.

        `after_level(number)` is told of each level that is done. Nothing of the way is kept.
        """
        x = start
        for number, sigma in enumerate(self.levels.sigmas.tolist()):
            a = self.step * (sigma / self.levels.last) ** 2
            for _ in range(self.steps):
                noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
                x = x + a * shortened(score(x, sigma), self.longest) + math.sqrt(2 * a) * noise.to(x)
            if after_level is not None:
                after_level(number)
        return x


def shortened(vectors: Points, longest: float) -> Points:
    """Rows longer than `longest` scaled down to it."""
    length = vectors.norm(dim=-1, keepdim=True)
    return vectors * (longest / length.clamp(min=longest))


def denoising_error(
    score: Float[Tensor, " n"], sigma: Float[Tensor, " n"], noise: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """1/2 sigma^2 (s + eps / sigma)^2: least, on average over what x may be, for the score of x~ = x + sigma eps."""
    return (sigma * score + noise).square() / 2
