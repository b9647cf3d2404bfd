"""Invertible maps of fractional coordinates onto themselves, each axis a circle of length 1, with parameters for each.

x, theta --map--> y, log dy/dx        y, theta --inverse--> x, log dx/dy

CircularSpline    monotone rational-quadratic splines (Durkan et al. 2019; on circles Rezende et al. 2020), then a turn
CircularMoebius   the Moebius map of the circle (`sphere_maps`), as published for positions of molecules
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.generative.sphere_maps import Moebius

Coordinates = Float[Tensor, "*batch"]
Parameters = Float[Tensor, "*batch parameters"]

MOEBIUS = Moebius()
SLOPE_1 = math.log(math.e - 1)  # softplus of it is 1
LEAST = 1e-3  # width and height of a bin, and slope, at least


@dataclass(frozen=True)
class CircularSpline:
    """`bins` pieces of x -> y with free widths, heights and slopes, turned as a whole.

    theta holds widths, heights and slopes of the bins (before softmax and softplus) and the turn. Zeros do nothing.
    Within a bin, with s = height / width, u = (x - x_k) / width, slopes d at its ends (Durkan's eq. 4):

        y = y_k + height (s u^2 + d_k u (1 - u)) / (s + (d_k+1 + d_k - 2 s) u (1 - u))
    """

    bins: int = 8

    @property
    def size(self) -> int:
        return 3 * self.bins + 1

    def forward(self, x: Coordinates, theta: Parameters) -> tuple[Coordinates, Coordinates]:
        """Coordinates in [0, 1) and the logarithm of the slope."""
        left, width, low, height, first, last, turn = self._knots(theta)
        k = bin_of(x % 1.0, left)
        width, height, first, last = (at(v, k) for v in (width, height, first, last))
        u = ((x % 1.0 - at(left, k)) / width).clamp(0, 1)
        y, grown = piece(u, height / width, first, last)
        return (at(low, k) + height * y + turn) % 1.0, grown

    def inverse(self, y: Coordinates, theta: Parameters) -> tuple[Coordinates, Coordinates]:
        """Where y comes from, by the quadratic equation of its bin, and the logarithm of the slope back."""
        left, width, low, height, first, last, turn = self._knots(theta)
        y = (y - turn) % 1.0
        k = bin_of(y, low)
        width, height, first, last = (at(v, k) for v in (width, height, first, last))
        s, v = height / width, ((y - at(low, k)) / height).clamp(0, 1)
        u = inverse_piece(v, s, first, last)
        return (at(left, k) + width * u) % 1.0, -piece(u, s, first, last)[1]

    def _knots(self, theta: Parameters) -> tuple[Tensor, ...]:
        """Left ends, widths, lower ends, heights, slopes at both ends of all bins; the turn."""
        width, height, slope, turn = theta.split([self.bins, self.bins, self.bins, 1], -1)
        width, height = (LEAST + (1 - LEAST * self.bins) * v.softmax(-1) for v in (width, height))
        slope = LEAST + (1 - LEAST) * torch.nn.functional.softplus(slope + SLOPE_1)
        first, last = slope, slope.roll(-1, -1)  # one slope where the circle closes
        left, low = (v.cumsum(-1) - v for v in (width, height))
        return left, width, low, height, first, last, turn[..., 0]


@dataclass(frozen=True)
class CircularMoebius:
    """The Moebius map of the circle at the angle 2 pi x."""

    moebius: Moebius = MOEBIUS
    size: int = 2

    def forward(self, x: Coordinates, theta: Parameters) -> tuple[Coordinates, Coordinates]:
        """Coordinates in [0, 1) and the logarithm of the slope."""
        p, grown = self.moebius.forward(_point(x), theta)
        return _coordinate(p), grown

    def inverse(self, y: Coordinates, theta: Parameters) -> tuple[Coordinates, Coordinates]:
        """Where y comes from and the logarithm of the slope back."""
        p, grown = self.moebius.inverse(_point(y), theta)
        return _coordinate(p), grown


def piece(u: Tensor, s: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """How far up its bin a point is that is u along it, and the logarithm of dy/dx."""
    both = u * (1 - u)
    below = s + (first + last - 2 * s) * both
    y = (s * u.square() + first * both) / below
    slope = last * u.square() + 2 * s * both + first * (1 - u).square()
    return y, 2 * s.log() + slope.log() - 2 * below.log()


def inverse_piece(v: Tensor, s: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """How far along its bin a point lies that is v up it: the root of a quadratic equation."""
    bend = first + last - 2 * s
    a, b, c = s - first + v * bend, first - v * bend, -s * v
    return (2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)


def bin_of(x: Tensor, ends: Tensor) -> Tensor:
    """The bin a point lies in, by the lower ends of all."""
    return (torch.searchsorted(ends.contiguous(), x[..., None].contiguous(), right=True) - 1).clamp(min=0)


def at(values: Tensor, k: Tensor) -> Tensor:
    """What bin k has of each."""
    return values.gather(-1, k)[..., 0]


def _point(x: Coordinates) -> Float[Tensor, "*batch 2"]:
    angle = 2 * math.pi * x
    return torch.stack([angle.cos(), angle.sin()], -1)


def _coordinate(p: Float[Tensor, "*batch 2"]) -> Coordinates:
    return torch.atan2(p[..., 1], p[..., 0]) / (2 * math.pi) % 1.0
