"""Conditional Gaussian paths from noise to data, and what walks along them: LERP, VE and VP (Liu et al. 2024, eq. 7-9).

    x_t = a(t) x_0 + b(t) x_1 + sigma(t) eps,   eps standard normal, t from 0 (noise) to 1 (data)

All else follows from the three coefficients and their slopes in time:

    velocity at fixed eps       u = a' x_0 + b' x_1 + (sigma'/sigma) (x - mean)
    score of p_t(x | x_0, x_1)  s = -(x - mean) / sigma^2 = -eps / sigma

The paper prints x_0 where x stands in the velocities of VE and VP (its eq. 29 and 32); that is not the velocity of
these paths. Diffusions have no x_0 in their mean (a = 0). Averaged over the data that x may lead to, score and
velocity say the same, b x_1 = x + sigma^2 s, and with D = sigma^2 (b'/b - sigma'/sigma)

    dx = [(b'/b) x + D s] dt                               the probability flow
    dx = [(b'/b) x + 2 D s] dt + sqrt(2 D) dW              the reverse-time diffusion

carry the same densities (Song et al. 2021, eq. 6 and 13, with the time turned round: 2 D is their g^2). Only positions
in Euclidean space diffuse here. Where x_0 is at hand, as for clusters that wait to be put in order, a network is told
it; that changes no formula.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.errors import InputError
from nucleate.generative.flow_matching import Mask, Predictor, Sampler, Times
from nucleate.geometry.manifold import Euclidean, State

Points = Float[Tensor, "batch ..."]


class Schedule(NamedTuple):
    """Coefficients of a path at some times, and their slopes. The variance is sigma^2: its slope stays finite."""

    start: Tensor  # a, of x_0
    end: Tensor  # b, of x_1
    variance: Tensor
    start_slope: Tensor
    end_slope: Tensor
    variance_slope: Tensor


# ---------------------------------------------------------------- paths


class GaussianPath(ABC):
    """x_t = a x_0 + b x_1 + sigma eps. One time for each element of a batch; points have any axes after the batch."""

    @abstractmethod
    def schedule(self, t: Float[Tensor, "*n"]) -> Schedule:
        """a, b, sigma^2 and their slopes at times in [0, 1]."""

    def mean(self, t: Times, x0: Points, x1: Points) -> Points:
        """The mean of x_t for given ends."""
        a, b = self.schedule(_beside(t, x1))[:2]
        return a * x0 + b * x1

    def deviation(self, t: Times) -> Times:
        """sigma(t), in the unit of the points."""
        return self.schedule(t).variance.sqrt()

    def draw(self, t: Times, x0: Points, x1: Points, generator: torch.Generator) -> Points:
        """x_t: what a network is shown in training; at time 0 and with a guess of x_1, where sampling starts.

        The guess counts for little: b(0) is 1 for VE, with a wide sigma, and near 0 for VP.
        """
        return self.mean(t, x0, x1) + _beside(self.deviation(t), x1) * _normal_like(x1, generator)

    def velocity(self, x: Points, t: Times, x0: Points, x1: Points) -> Points:
        """d x_t / dt at fixed eps, of the path that is at x at time t: the target of flow matching.

        Raises InputError where sigma ends at 0 (VP at t = 1): there is no velocity there; draw t <= 0.999.
        """
        at = self.schedule(_beside(t, x))
        fixed = at.variance_slope == 0  # a sigma that does not change, 0 included, carries nothing along
        if ((at.variance == 0) & ~fixed).any():
            raise InputError(
                f"expected times at which {self} still has noise, got one without; draw t <= 0.999"
            )
        rate = torch.where(fixed, 0.0, at.variance_slope / torch.where(fixed, 1.0, 2 * at.variance))
        mean = at.start * x0 + at.end * x1
        return at.start_slope * x0 + at.end_slope * x1 + rate * (x - mean)

    def score(self, x: Points, t: Times, x0: Points, x1: Points) -> Points:
        """grad log p_t(x | x_0, x_1) = -(x - mean) / sigma^2; with a predicted x_1 the score that this implies.

        Raises InputError where sigma is 0.
        """
        at = self.schedule(_beside(t, x))
        if (at.variance == 0).any():
            raise InputError(
                f"expected a path with noise to have a score, got {self} where its deviation is 0"
            )
        return (at.start * x0 + at.end * x1 - x) / at.variance

    def score_of_noise(self, eps: Points, t: Times) -> Points:
        """-eps / sigma: the score that a prediction of the noise means."""
        return -eps / _beside(self.deviation(t), eps)


@dataclass(frozen=True)
class Lerp(GaussianPath):
    """Straight from x_0 to x_1: mean (1 - t) x_0 + t x_1, sigma going straight from `first` to `last`.

    Without noise (as the paper used it) the velocity is x_1 - x_0 wherever one looks. The printed sigma is
    first = 1, last = s_min; the velocity then has the part of the noise as well.
    """

    first: float = 0.0
    last: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.first < math.inf and 0 <= self.last < math.inf):
            raise InputError(f"expected deviations of at least 0, got {self.first} and {self.last}")

    def schedule(self, t: Float[Tensor, "*n"]) -> Schedule:
        one, slope = torch.ones_like(t), self.last - self.first
        sigma = self.first + slope * t
        return Schedule(1 - t, t, sigma.square(), -one, one, 2 * slope * sigma)


class Diffusion(GaussianPath):
    """Paths whose mean is b(t) x_1: the noise does not know where it comes from. A member gives b and sigma^2."""

    @abstractmethod
    def end_and_variance(self, t: Float[Tensor, "*n"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """b, sigma^2 and their slopes."""

    def schedule(self, t: Float[Tensor, "*n"]) -> Schedule:
        b, variance, b_slope, variance_slope = self.end_and_variance(t)
        zero = torch.zeros_like(t)
        return Schedule(zero, b, variance, zero, b_slope, variance_slope)

    def diffusivity(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """D(t) = sigma^2 (b'/b - sigma'/sigma), half of Song's g^2; at least 0."""
        at = self.schedule(t)
        return at.variance * at.end_slope / at.end - at.variance_slope / 2

    def flow(self, x: Points, t: Times, score: Points) -> Points:
        """The velocity of the probability flow, (b'/b) x + D s, of a (predicted) marginal score."""
        return self._drift(x, t, score, 1.0)

    def reverse_drift(self, x: Points, t: Times, score: Points) -> Points:
        """The drift of the reverse-time diffusion, (b'/b) x + 2 D s; its noise has the variance 2 D dt."""
        return self._drift(x, t, score, 2.0)

    def _drift(self, x: Points, t: Times, score: Points, share: float) -> Points:
        t = _beside(t, x)
        at = self.schedule(t)
        return at.end_slope / at.end * x + share * self.diffusivity(t) * score


@dataclass(frozen=True)
class VarianceExploding(Diffusion):
    """Mean x_1, sigma = low (high / low)^(1 - t): from `high` at noise to `low` at data, in the unit of the points.

    `high` should be as wide as the data (the largest distance of two of them), so that the start is forgotten.
    """

    low: float = 0.01
    high: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise InputError(f"expected deviations 0 < low < high, got {self.low} and {self.high}")

    def end_and_variance(self, t: Float[Tensor, "*n"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        log_ratio = math.log(self.high / self.low)
        variance = (2 * (math.log(self.low) + (1 - t) * log_ratio)).exp()
        return torch.ones_like(t), variance, torch.zeros_like(t), -2 * log_ratio * variance


@dataclass(frozen=True)
class VariancePreserving(Diffusion):
    """Mean alpha x_1, sigma^2 = 1 - alpha^2, alpha = exp(-T/2), T = r low + r^2 (high - low)/2 with r = 1 - t.

    T is the integral of the rate beta(r) = low + r (high - low) of forgetting. Data should have about unit
    variance: divide positions by a length first.
    """

    low: float = 0.1
    high: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high < math.inf:
            raise InputError(f"expected rates 0 <= low < high, got {self.low} and {self.high}")

    def end_and_variance(self, t: Float[Tensor, "*n"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r = 1 - t
        beta = self.low + r * (self.high - self.low)
        forgotten = r * self.low + r.square() * (self.high - self.low) / 2
        alpha = torch.exp(-forgotten / 2)
        return alpha, -torch.expm1(-forgotten), beta * alpha / 2, -beta * alpha.square()


# ---------------------------------------------------------------- samplers


def probability_flow(path: Diffusion, scores: Predictor) -> Predictor:
    """Scores (of every field) as velocities, for the samplers `Euler` and `Heun` of `flow_matching`."""

    def velocities(x: State, t: Tensor) -> State:
        predicted = scores(x, t)
        return {name: path.flow(x[name], t, score) for name, score in predicted.items()}

    return velocities


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """The reverse-time diffusion, one evaluation of the scores (what `predict` gives here) a step.

    The step that ends at time 1 adds no noise: it would stay. Errors in distribution fall as the first power of the
    step. Draws come from `generator`, so that two calls of `sample` differ.
    """

    path: Diffusion = field(kw_only=True)
    generator: torch.Generator = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        curved = [name for name, m in self.flow.product.factors.items() if not isinstance(m, Euclidean)]
        if curved or self.flow.endpoint or self.pace:
            raise InputError(
                "expected Euclidean fields with scores, without endpoints or paces, got the curved fields "
                f"{curved}, endpoints {sorted(self.flow.endpoint)} and paces {sorted(self.pace)}"
            )

    def step(self, predict: Predictor, x: State, t: float, t_next: float, mask: Mask = None) -> State:
        dt = t_next - t

        def drifts(x: State, times: Tensor) -> State:
            predicted = predict(x, times)
            return {name: self.path.reverse_drift(x[name], times, s) for name, s in predicted.items()}

        moves = self._moves(drifts, x, t, dt, mask)
        reached = self.flow.product.exp(x, moves)
        if t_next == 1.0:
            return reached
        size = math.sqrt(2 * float(self.path.diffusivity(torch.tensor(t, dtype=torch.float64))) * dt)
        noise = {
            name: self.flow.tidy(name, size * _normal_like(x[name], self.generator), mask) for name in moves
        }
        return self.flow.product.exp(reached, noise)


def _beside(t: Float[Tensor, " batch"], x: Points) -> Points:
    """A number for each element of a batch, with an axis of length one for every other axis of x."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def _normal_like(x: Points, generator: torch.Generator) -> Points:
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
    return drawn.to(x.device)
