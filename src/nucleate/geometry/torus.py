"""The flat torus: fractional coordinates, each axis wrapping at 1."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.geometry.manifold import Manifold


@dataclass(frozen=True)
class Torus(Manifold):
    """Points in [0, 1)^dim, no unit. The metric is that of the coordinates, not of a cell in Å."""

    dim: int = 3

    @property
    def point(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.dim,)

    @property
    def tangent(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.dim,)

    def exp(self, x: Float[Tensor, "..."], v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return wrap(x + v)

    def log(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Shortest step from x to y, each component in [-0.5, 0.5)."""
        return wrap_difference(y - x)

    def random(
        self, *batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "..."]:
        return torch.rand(*batch, self.dim, generator=generator, dtype=dtype, device=generator.device)

    def project(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return wrap(x)


def wrap(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Coordinates brought to [0, 1)."""
    wrapped = x % 1.0
    return torch.where(wrapped == 1.0, 0.0, wrapped)  # -1e-20 % 1.0 rounds to 1.0, which means 0.0


def wrap_difference(d: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A difference of coordinates brought to [-0.5, 0.5) by whole numbers."""
    return d - torch.floor(d + 0.5)
