"""Manifolds: where a state lives, how to walk on it, and how to draw from it.

A member says four things: `exp` (walk from x along v), `log` (the shortest v from x to y), `random` and
`project`. Geodesic points, velocities and distances follow. Points have the shape `(*batch, *point)`, tangent
vectors the shape `(*batch, *tangent)`, and a time is one number per batch element (or one for all).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

State = dict[str, Tensor]
Time = Float[Tensor, "..."] | float


class Manifold(ABC):
    """A Riemannian manifold with a closed form of its geodesics."""

    point: tuple[int, ...]  # trailing shape of a point
    tangent: tuple[int, ...]  # trailing shape of a tangent vector

    @abstractmethod
    def exp(self, x: Float[Tensor, "..."], v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The end of the geodesic that leaves x with velocity v and runs for unit time."""

    @abstractmethod
    def log(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The shortest v with exp(x, v) = y; at the cut locus one of the shortest."""

    @abstractmethod
    def random(
        self, *batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "..."]:
        """Points of shape (*batch, *point): uniform where the manifold is compact, else standard normal."""

    @abstractmethod
    def project(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The nearest point of the manifold (by its own convention); identity on the manifold."""

    def geodesic(self, x_0: Tensor, x_1: Tensor, t: Time) -> Float[Tensor, "..."]:
        """The point at time t in [0, 1] of the shortest path from x_0 to x_1."""
        return self.exp(x_0, self._per_tangent(t, x_0) * self.log(x_0, x_1))

    def velocity(self, x_t: Tensor, x_1: Tensor, t: Time) -> Float[Tensor, "..."]:
        """The velocity of the geodesic path that is at x_t at time t < 1 and at x_1 at time 1."""
        return self.log(x_t, x_1) / (1.0 - self._per_tangent(t, x_t))

    def distance(self, x: Tensor, y: Tensor) -> Float[Tensor, "*batch"]:
        """Length of the shortest path, in the norm of the tangent coordinates; gradient 0 where x = y."""
        squared = self.log(x, y).flatten(-len(self.tangent)).square().sum(-1)
        return safe_sqrt(squared)

    def _per_tangent(self, t: Time, x: Tensor) -> Float[Tensor, "..."]:
        """A time with a trailing axis of length one for each tangent axis."""
        time = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        return time.reshape(*time.shape, *[1] * len(self.tangent))


@dataclass(frozen=True)
class Euclidean(Manifold):
    """Vectors of length `dim`; `random` is standard normal."""

    dim: int = 3

    @property
    def point(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.dim,)

    @property
    def tangent(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.dim,)

    def exp(self, x: Float[Tensor, "..."], v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return x + v

    def log(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return y - x

    def random(
        self, *batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "..."]:
        return torch.randn(*batch, self.dim, generator=generator, dtype=dtype, device=generator.device)

    def project(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return x


@dataclass(frozen=True)
class Product:
    """Independent manifolds by field name; a state is a dict of tensors with the same names.

    Raises KeyError where a state lacks a field; fields that no factor names are refused too.
    """

    factors: Mapping[str, Manifold]

    def exp(self, x: State, v: State) -> State:
        return {name: m.exp(x[name], v[name]) for name, m in self._of(x, v)}

    def log(self, x: State, y: State) -> State:
        return {name: m.log(x[name], y[name]) for name, m in self._of(x, y)}

    def random(self, *batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> State:
        return {name: m.random(*batch, generator=generator, dtype=dtype) for name, m in self.factors.items()}

    def project(self, x: State) -> State:
        return {name: m.project(x[name]) for name, m in self._of(x)}

    def geodesic(self, x_0: State, x_1: State, t: Time) -> State:
        return {name: m.geodesic(x_0[name], x_1[name], t) for name, m in self._of(x_0, x_1)}

    def velocity(self, x_t: State, x_1: State, t: Time) -> State:
        return {name: m.velocity(x_t[name], x_1[name], t) for name, m in self._of(x_t, x_1)}

    def _of(self, *states: State) -> list[tuple[str, Manifold]]:
        for state in states:
            if state.keys() != self.factors.keys():
                raise KeyError(
                    f"expected a state with the fields {sorted(self.factors)}, got {sorted(state)}"
                )
        return list(self.factors.items())


def safe_sqrt(squared: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)
