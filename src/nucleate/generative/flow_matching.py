"""Flow matching on any product of manifolds: when to look, what to learn, how to walk from noise to data.

Time runs from 0 (noise) to 1 (data). A pair (x_0, x_1) is joined by a geodesic in every field; at time t it is
at x_t with velocity log(x_t, x_1) / (1 - t), and a network learns the mean of that velocity (Lipman et al.
2023; Chen and Lipman 2024 on manifolds). Fields have a batch axis first and any number of axes (bodies,
atoms) between it and the point; one time per batch element holds for all fields. A mask (batch, bodies) marks
what is there in fields that have such an axis; what is padding never moves.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import scipy.special
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nucleate.errors import InputError
from nucleate.geometry.manifold import Manifold, Product, State

Times = Float[Tensor, " batch"]
Mask = Bool[Tensor, "batch bodies"] | None
Predictor = Callable[[State, Tensor], State]
"""(x_t, t) -> for each field a velocity or an endpoint, as `FlowMatching.endpoint` says."""
AfterStep = Callable[[State, float], State]
"""(state, its time) -> the state to go on from: a projection on a symmetry, guidance, a record."""

# ---------------------------------------------------------------- times to train at

LATEST = 0.999  # x_t and x_1 are apart by (1 - t) of the way, and float32 must still see it


class TimeLaw(ABC):
    """A distribution of training times, given by its quantile function."""

    @abstractmethod
    def quantile(self, u: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The time below which a share u of all times lies."""

    def draw(
        self,
        n: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
        stratified: bool = False,
    ) -> Float[Tensor, " n"]:
        """n times in [0, 0.999].

        Stratified: one time in each n-th of the law, in random order. Each alone still follows the law, while
        the mean of a loss over them varies less.
        """
        u = torch.rand(n, dtype=torch.float64, generator=generator, device=generator.device)
        if stratified:
            u = (torch.randperm(n, generator=generator, device=generator.device) + u) / n
        return self.quantile(u).clamp(0.0, LATEST).to(dtype)


@dataclass(frozen=True)
class Uniform(TimeLaw):
    """All times from `low` to `high` alike."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise InputError(f"expected times 0 <= low < high <= 1, got {self.low} and {self.high}")

    def quantile(self, u: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True)
class Beta(TimeLaw):
    """Density proportional to t^(a-1) (1-t)^(b-1): a > b favours late times."""

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0):
            raise InputError(f"expected positive exponents of a beta law, got a={self.a}, b={self.b}")

    def quantile(self, u: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return torch.as_tensor(scipy.special.betaincinv(self.a, self.b, u.cpu().numpy())).to(u)


@dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """log(t / (1 - t)) is normal (Esser et al. 2024): favours times around the logistic of `mean`."""

    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and self.scale > 0):
            raise InputError(f"expected a finite mean and a positive scale, got {self.mean}, {self.scale}")

    def quantile(self, u: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return torch.sigmoid(self.mean + self.scale * torch.special.ndtri(u))


# ---------------------------------------------------------------- the path and what is learned of it


@dataclass(frozen=True)
class FlowMatching:
    """Geodesic paths from noise to data, field by field, and the velocities that a network learns.

    Fields in `endpoint` are those for which the network predicts x_1 (the mean of the data that x_t may lead
    to); for the others it predicts the velocity. From fields in `centred` the mean over the bodies of each
    crystal is removed: where a network cannot know the origin (the whole cell in P1), the common translation
    of all bodies is noise. An asymmetric unit has its origin fixed by the group: leave it out there.
    """

    product: Product
    endpoint: Collection[str] = frozenset()
    centred: Collection[str] = frozenset()

    def __post_init__(self) -> None:
        for role in ("endpoint", "centred"):
            names = frozenset(getattr(self, role))
            if unknown := names - set(self.product.factors):
                raise InputError(
                    f"expected {role} fields out of {sorted(self.product.factors)}, got {sorted(unknown)}"
                )
            object.__setattr__(self, role, names)

    def interpolate(self, x_0: State, x_1: State, t: Times) -> State:
        """x_t, the points at time t of the geodesics from x_0 to x_1."""
        return {
            name: m.geodesic(x_0[name], x_1[name], time_of(t, m, x_0[name]))
            for name, m in self._named(x_0, x_1)
        }

    def target_velocity(self, x_t: State, x_1: State, t: Times, mask: Mask = None) -> State:
        """log(x_t, x_1) / (1 - t) for t < 1; 0 for padding."""
        return {
            name: self.tidy(name, m.velocity(x_t[name], x_1[name], time_of(t, m, x_t[name])), mask)
            for name, m in self._named(x_t, x_1)
        }

    def as_velocity(self, prediction: State, x_t: State, t: Times, mask: Mask = None) -> State:
        """The velocities of a prediction: of an endpoint x̂ it is log(x_t, x̂) / (1 - t), t < 1."""
        velocities = {}
        for name, m in self._named(x_t, prediction):
            v = prediction[name]
            if name in self.endpoint:
                v = m.velocity(x_t[name], v, time_of(t, m, x_t[name]))
            velocities[name] = self.tidy(name, v, mask)
        return velocities

    def as_endpoint(self, prediction: State, x_t: State, t: Times) -> State:
        """The endpoints of a prediction: of a velocity v it is exp(x_t, (1 - t) v)."""
        ends = dict(prediction)
        for name, m in self._named(x_t, prediction):
            if name not in self.endpoint:
                left = 1 - t.reshape(-1, *[1] * (prediction[name].ndim - 1))
                ends[name] = m.exp(x_t[name], left * prediction[name])
        return ends

    def squared_error(
        self, prediction: State, x_t: State, x_1: State, t: Times, mask: Mask = None, late: float = 0.9
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Squared length of the error in velocity, for each crystal the mean over its bodies.

        An endpoint x̂ errs by log(x̂, x_1) / (1 - min(t, late)): its error in velocity, with the weight of
        late times limited. Units are those of the tangent coordinates.
        """
        errors = {}
        for name, m in self._named(x_t, x_1, prediction):
            time = time_of(t, m, x_t[name])
            error = (
                m.velocity(prediction[name], x_1[name], time.clamp(max=late))
                if name in self.endpoint
                else prediction[name] - m.velocity(x_t[name], x_1[name], time)
            )
            squared = self.tidy(name, error, mask).square().flatten(-len(m.tangent)).sum(-1)
            errors[name] = _mean_over_bodies(squared, mask)
        return errors

    def tidy(self, name: str, v: Float[Tensor, "batch ..."], mask: Mask) -> Float[Tensor, "batch ..."]:
        """A tangent vector of a field with padding at rest and, if the field is centred, no mean."""
        if v.ndim - len(self.product.factors[name].tangent) < 2:
            return v  # one point per crystal: no bodies
        there = None if mask is None else mask.reshape(*mask.shape, *[1] * (v.ndim - 2))
        v = v if there is None else torch.where(there, v, 0.0)
        if name not in self.centred:
            return v
        if there is None:
            return v - v.mean(1, keepdim=True)
        mean = v.sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
        return torch.where(there, v - mean, 0.0)

    def _named(self, *states: State) -> Iterator[tuple[str, Manifold]]:
        for state in states:
            if state.keys() != self.product.factors.keys():
                raise KeyError(f"expected the fields {sorted(self.product.factors)}, got {sorted(state)}")
        yield from self.product.factors.items()


def time_of(t: Times, m: Manifold, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Times of a batch with an axis of length one for each axis between the batch and the point."""
    return t.reshape(-1, *[1] * (x.ndim - 1 - len(m.point)))


def _mean_over_bodies(x: Float[Tensor, "batch ..."], mask: Mask) -> Float[Tensor, " batch"]:
    """The mean over every axis but the first, of what is there; padding must be 0 already."""
    if x.ndim == 1:
        return x
    x = x.reshape(*x.shape[:2], -1).mean(-1)
    return x.mean(1) if mask is None else x.sum(1) / mask.sum(1).clamp(min=1)


# ---------------------------------------------------------------- how fast to walk


@dataclass(frozen=True)
class Annealing:
    """Velocity times 1 + slope * max(0, t - start): presses samples towards the data as they get there.

    No longer the learned flow: a slope of 9 travels 5.5 times the way. Published for centroids (slope 9) and
    for the coordinates of inorganic crystals (slope 5).
    """

    slope: float
    start: float = 0.0

    def __call__(self, t: float) -> float:
        return 1 + self.slope * max(0.0, t - self.start)


@dataclass(frozen=True)
class Approach:
    """For endpoints: a step dt goes the fraction (1 + slope t) dt of the way to the prediction, not dt/(1 - t).

    Published for rotations (slope 3). The step that ends at time 1 goes the rest of the way.
    """

    slope: float

    def __call__(self, t: float) -> float:
        return (1 - t) * (1 + self.slope * t)


# ---------------------------------------------------------------- samplers


def even_times(steps: int, start: float = 0.0) -> tuple[float, ...]:
    """steps + 1 evenly spaced times from `start` to 1."""
    return (*(start + (1 - start) * i / steps for i in range(steps)), 1.0)


@dataclass(frozen=True)
class Sampler(ABC):
    """Walks a state along the learned velocity over any grid of times.

    `pace` multiplies the velocity of a field by a function of the time (`Annealing`, `Approach`); where it
    names no field, the walk is the learned flow. A step from t to t + dt goes the fraction dt / (1 - t) of the
    geodesic to a predicted endpoint, never beyond it, and the step that ends at time 1 ends on it. There is no
    evaluation at time 1 and no step after it. Gradients are not kept.
    """

    flow: FlowMatching
    pace: Mapping[str, Callable[[float], float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.pace) - set(self.flow.product.factors):
            raise InputError(
                f"expected paces of the fields {sorted(self.flow.product.factors)}, got {sorted(unknown)}"
            )

    @abstractmethod
    def step(self, predict: Predictor, x: State, t: float, t_next: float, mask: Mask = None) -> State:
        """The state at t_next of a state that is at x at time t."""

    @torch.no_grad()
    def sample(
        self,
        predict: Predictor,
        x_0: State,
        times: Sequence[float],
        mask: Mask = None,
        after_step: AfterStep | None = None,
    ) -> State:
        """The state at the last of the ascending `times` that starts as x_0 at the first."""
        x = x_0
        for t, t_next in pairwise(_checked(times)):
            x = self.step(predict, x, t, t_next, mask)
            x = x if after_step is None else after_step(x, t_next)
        return x

    def trajectory(
        self,
        predict: Predictor,
        x_0: State,
        times: Sequence[float],
        mask: Mask = None,
        after_step: AfterStep | None = None,
    ) -> State:
        """As `sample`, but the states at all times, stacked along a first axis (memory: one state a step)."""
        states = [x_0]

        def keep(x: State, t: float) -> State:
            states.append(x if after_step is None else after_step(x, t))
            return states[-1]

        self.sample(predict, x_0, times, mask, keep)
        return {name: torch.stack([s[name] for s in states]) for name in x_0}

    def _moves(
        self, predict: Predictor, x: State, t: float, dt: float, mask: Mask, lands: bool = False
    ) -> State:
        """What to walk from x in a time dt, at the velocity of time t."""
        first = next(iter(x.values()))
        prediction = predict(x, torch.full((len(first),), t, dtype=first.dtype, device=first.device))
        moves = {}
        for name, m in self.flow._named(x, prediction):
            pace = self.pace[name](t) if name in self.pace else 1.0
            if name in self.flow.endpoint:
                # Heun's second look may ask for more than the whole way of the unpaced flow: let it
                share = dt / (1 - t)
                fraction = 1.0 if lands else min(pace * share, max(1.0, share))
                move = fraction * m.log(x[name], prediction[name])
            else:
                move = pace * dt * prediction[name]
            moves[name] = self.flow.tidy(name, move, mask)
        return moves


@dataclass(frozen=True)
class Euler(Sampler):
    """One evaluation a step; the error falls as the first power of the step.

    An endpoint that does not change is reached to rounding on any grid, since the fractions dt / (1 - t)
    compose: two steps go as far as one.
    """

    def step(self, predict: Predictor, x: State, t: float, t_next: float, mask: Mask = None) -> State:
        return self.flow.product.exp(x, self._moves(predict, x, t, t_next - t, mask, t_next == 1.0))


@dataclass(frozen=True)
class Heun(Sampler):
    """Two evaluations a step, one in the step that ends at time 1; the error falls as the step squared.

    An Euler step, then half the change of velocity found there. Tangent vectors at the two ends of a step are
    compared in body coordinates; on SO(3) the commutator that this leaves out is of third order in the step.
    """

    def step(self, predict: Predictor, x: State, t: float, t_next: float, mask: Mask = None) -> State:
        dt, lands = t_next - t, t_next == 1.0
        there = self._moves(predict, x, t, dt, mask, lands)
        reached = self.flow.product.exp(x, there)
        if lands:
            return reached
        again = self._moves(predict, reached, t_next, dt, mask)
        return self.flow.product.exp(reached, {name: (again[name] - v) / 2 for name, v in there.items()})


def _checked(times: Sequence[float]) -> list[float]:
    grid = [float(t) for t in times]
    if len(grid) < 2 or not all(a < b for a, b in pairwise(grid)) or grid[0] < 0 or grid[-1] > 1:
        raise InputError(
            f"expected at least two ascending times within [0, 1], got {grid[:8]}{'...' if len(grid) > 8 else ''}"
        )
    return grid
