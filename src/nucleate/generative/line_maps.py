"""Invertible maps of a number onto the line, with parameters for each: the middle bends, far out nothing happens.

x, theta --map--> y, log dy/dx        y, theta --inverse--> x, log dx/dy

LineSpline   monotone rational-quadratic splines in [-reach, reach] with slope 1 at both ends, x -> x beyond
             (Durkan, Bekasov, Murray & Papamakarios 2019), then x -> exp(s) x + t
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.generative.circle_maps import LEAST, SLOPE_1, at, bin_of, inverse_piece, piece

Coordinates = Float[Tensor, "*batch"]
Parameters = Float[Tensor, "*batch parameters"]


@dataclass(frozen=True)
class LineSpline:
    """`bins` pieces with free widths, heights and slopes; then a scale and a shift. Zeros do nothing.

    theta holds widths and heights of the bins (before softmax), slopes where bins meet (before softplus), the
    logarithm of the scale and the shift.
    """

    bins: int = 6
    reach: float = 4.0

    @property
    def size(self) -> int:
        return 3 * self.bins + 1

    def forward(self, x: Coordinates, theta: Parameters) -> tuple[Coordinates, Coordinates]:
        """y and the logarithm of the slope."""
        left, width, low, height, first, last, scale, shift = self._knots(theta)
        middle = x.abs() < self.reach
        inside = torch.where(middle, x, 0.0)
        k = bin_of(inside, left)
        width, height, first, last = (at(v, k) for v in (width, height, first, last))
        u = ((inside - at(left, k)) / width).clamp(0, 1)
        y, grown = piece(u, height / width, first, last)
        y = torch.where(middle, at(low, k) + height * y, x)
        return scale.exp() * y + shift, scale + torch.where(middle, grown, 0.0)

    def inverse(self, y: Coordinates, theta: Parameters) -> tuple[Coordinates, Coordinates]:
        """Where y comes from, and the logarithm of the slope back."""
        left, width, low, height, first, last, scale, shift = self._knots(theta)
        y = (y - shift) * (-scale).exp()
        middle = y.abs() < self.reach
        inside = torch.where(middle, y, 0.0)
        k = bin_of(inside, low)
        width, height, first, last = (at(v, k) for v in (width, height, first, last))
        s, v = height / width, ((inside - at(low, k)) / height).clamp(0, 1)
        u = inverse_piece(v, s, first, last)
        x = torch.where(middle, at(left, k) + width * u, y)
        return x, -scale - torch.where(middle, piece(u, s, first, last)[1], 0.0)

    def _knots(self, theta: Parameters) -> tuple[Tensor, ...]:
        """Left ends, widths, lower ends, heights, slopes at both ends of all bins; log scale and shift."""
        sizes = [self.bins, self.bins, self.bins - 1, 1, 1]
        width, height, slope, scale, shift = theta.split(sizes, -1)
        width, height = (
            2 * self.reach * (LEAST + (1 - LEAST * self.bins) * v.softmax(-1)) for v in (width, height)
        )
        slope = LEAST + (1 - LEAST) * torch.nn.functional.softplus(slope + SLOPE_1)
        one = torch.ones_like(slope[..., :1])
        first, last = torch.cat([one, slope], -1), torch.cat([slope, one], -1)
        left, low = (v.cumsum(-1) - v - self.reach for v in (width, height))
        return left, width, low, height, first, last, scale[..., 0], shift[..., 0]
