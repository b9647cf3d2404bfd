"""Invertible maps of the unit sphere in n dimensions, with parameters for each point: parts of normalizing flows.

    p, theta --map--> q, log |dq/dp|        q, theta --inverse--> p, log |dp/dq|

A unit quaternion q and -q are one rotation. A map with F(-q) = -F(q) is one of rotations, and its volume change that of
the rotations (Koehler, Invernizzi, de Haan & Noe, ICML 2023). All members but `Moebius` are such maps.

    Moebius             ((1 - |w|^2) p - 2 (1 - p.w) w) / |p - w|^2
    DoubleMoebius       unit(M_w(p) + M_-w(p)) = unit(A p),  A = (1 + |w|^2) I - 2 w w^T
    ProjectiveLinear    unit(A p) for any invertible A; here A = exp(theta)
    ProjectiveGradient  unit(grad u(p)),  u even, convex and of degree 2 in scale, so that nothing folds

On the circle a Moebius map is a map of an angle: that of a periodic position.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

Points = Float[Tensor, "*batch n"]
Parameters = Float[Tensor, "*batch parameters"]
LogVolume = Float[Tensor, "*batch"]

TINY = 1e-24  # of the fourth power of a length
TINY_SINGLE = 1e-20  # of any power, in single precision: its inverse square is still a number
HALVINGS = 5  # of a step of Newton's method


class SphereMap(ABC):
    """A family of maps of the sphere; parameters of 0 are the map that does nothing."""

    @abstractmethod
    def size(self, n: int) -> int:
        """Parameters of a point in n dimensions."""

    @abstractmethod
    def forward(self, p: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        """Where p goes, and the logarithm of how much areas grow there."""

    @abstractmethod
    def inverse(self, q: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        """Where q comes from, and the logarithm of how much areas grow on the way back."""


@dataclass(frozen=True)
class Moebius(SphereMap):
    """M_w with |w| = reach |theta| / (1 + |theta|). Its volume change is ((1 - |w|^2) / |p - w|^2)^(n - 1)."""

    reach: float = 0.95

    def size(self, n: int) -> int:
        return n

    def forward(self, p: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        return self._moved(p, inside(theta, self.reach))

    def inverse(self, q: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        return self._moved(q, -inside(theta, self.reach))

    def _moved(self, p: Points, w: Points) -> tuple[Points, LogVolume]:
        left, squared = 1 - w.square().sum(-1), (p - w).square().sum(-1)
        q = (left[..., None] * p - 2 * (1 - (p * w).sum(-1, keepdim=True)) * w) / squared[..., None]
        return normalize(q, dim=-1), (p.shape[-1] - 1) * (left.log() - squared.log())


@dataclass(frozen=True)
class DoubleMoebius(SphereMap):
    """The symmetrised Moebius map: pushes away from both w and -w.

    In closed form a projective linear map; its inverse is unit(p + 2 w (w.p) / (1 - |w|^2)) and its volume change
    (1 - r^2) (1 + r^2)^(n - 1) / ((1 + r^2)^2 - 4 (p.w)^2)^(n / 2) with r = |w|.
    """

    reach: float = 0.95

    def size(self, n: int) -> int:
        return n

    def forward(self, p: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        w, n = inside(theta, self.reach), p.shape[-1]
        squared, along = w.square().sum(-1), (p * w).sum(-1)
        q = normalize((1 + squared)[..., None] * p - 2 * along[..., None] * w, dim=-1)
        across = (1 + squared).square() - 4 * along.square()
        return q, torch.log1p(-squared) + (n - 1) * torch.log1p(squared) - n / 2 * across.log()

    def inverse(self, q: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        w = inside(theta, self.reach)
        left = 1 - w.square().sum(-1, keepdim=True)
        p = normalize(q + 2 * w * (w * q).sum(-1, keepdim=True) / left, dim=-1)
        return p, -self.forward(p, theta)[1]


@dataclass(frozen=True)
class ProjectiveLinear(SphereMap):
    """unit(A p) with A = exp(theta) as an n x n matrix; the volume change is det A / |A p|^n."""

    def size(self, n: int) -> int:
        return n * n

    def forward(self, p: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        return self._moved(p, theta.unflatten(-1, (p.shape[-1], -1)))

    def inverse(self, q: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        return self._moved(q, -theta.unflatten(-1, (q.shape[-1], -1)))

    def _moved(self, p: Points, generator: Float[Tensor, "*batch n n"]) -> tuple[Points, LogVolume]:
        moved = (torch.linalg.matrix_exp(generator) @ p[..., None])[..., 0]
        trace = generator.diagonal(dim1=-2, dim2=-1).sum(-1)  # log det exp = trace
        return normalize(moved, dim=-1), trace - p.shape[-1] * moved.norm(dim=-1).log()


@dataclass(frozen=True)
class ProjectiveGradient(SphereMap):
    """unit(grad u) of the potential u(x) = |x|^2 / 2 + (sum_m (k_m.x)^2d)^(1/d) / 2, with `ridges` directions k_m.

    u is convex, even and u(sx) = s^2 u(x), so grad u = H x with the Hessian H > 0. The volume change on the sphere is
    det H / |grad u|^n, and the inverse is the direction of the one minimum of u(x) - x.q, which Newton's method finds.
    (Convex potentials of other degrees may fold the sphere.) The larger d, the sharper a ridge: with d = 2 ridges that
    are spread evenly enough add up to a potential without any.
    """

    ridges: int = 8
    d: int = 2
    newton_steps: int = 30

    def size(self, n: int) -> int:
        return self.ridges * n

    def forward(self, p: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        gradient, hessian = self.slopes(p, theta.unflatten(-1, (self.ridges, -1)))
        length = gradient.norm(dim=-1)
        return gradient / length[..., None], torch.logdet(hessian) - p.shape[-1] * length.log()

    def inverse(self, q: Points, theta: Parameters) -> tuple[Points, LogVolume]:
        """Exact to rounding; gradients by the implicit function theorem, through one last Newton step."""
        k = theta.unflatten(-1, (self.ridges, -1))
        with torch.no_grad():
            x = self._minimum(q, k)
        gradient, hessian = self.slopes(x, k)
        x = x - torch.linalg.solve(hessian.detach(), gradient - q)  # moves nothing, and has the gradient
        p = normalize(x, dim=-1)
        return p, -self.forward(p, theta)[1]

    def slopes(
        self, x: Points, k: Float[Tensor, "*batch ridges n"]
    ) -> tuple[Points, Float[Tensor, "*batch n n"]]:
        """grad u and its Hessian, with S = sum_m (k_m.x)^2d, which may be 0."""
        along, S = self._ridges(x, k)
        d, root = self.d, S.pow(1 / self.d)
        pull = (along.pow(2 * d - 1)[..., None, :] @ k)[..., 0, :] / S  # sum (k.x)^(2d - 1) k / S
        gradient = x + root * pull
        bend = (2 * d - 1) * (root / S)[..., None] * (k.mT @ (along.pow(2 * d - 2)[..., None] * k))
        bend = bend - 2 * (d - 1) * root[..., None] * pull[..., :, None] * pull[..., None, :]
        return gradient, torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) + bend

    def potential(self, x: Points, k: Float[Tensor, "*batch ridges n"]) -> LogVolume:
        """u."""
        _, S = self._ridges(x, k)
        return (x.square().sum(-1) + S[..., 0].pow(1 / self.d)) / 2

    def _ridges(self, x: Points, k: Float[Tensor, "*batch ridges n"]) -> tuple[Tensor, Tensor]:
        """k.x of each ridge and S, a little above 0 so that roots have a slope where no ridge is near."""
        along = (k @ x[..., None])[..., 0]
        little = TINY ** (self.d / 2) if x.dtype == torch.float64 else TINY_SINGLE
        return along, along.pow(2 * self.d).sum(-1, keepdim=True) + little

    def _minimum(self, q: Points, k: Float[Tensor, "*batch ridges n"]) -> Points:
        """That of u(x) - x.q by Newton's method; a step that does not lead down is halved."""
        x = q
        for _ in range(self.newton_steps):
            gradient, hessian = self.slopes(x, k)
            step = torch.linalg.solve(hessian, gradient - q)
            size = torch.ones_like(x[..., :1])
            height = self.potential(x, k) - (x * q).sum(-1)
            for _ in range(HALVINGS):
                tried = x - size * step
                worse = self.potential(tried, k) - (tried * q).sum(-1) > height + 1e-12
                size = torch.where(worse[..., None], size / 2, size)
            x = x - size * step
            if float(step.abs().max()) < 1e-12:
                break
        return x


def inside(theta: Points, reach: float) -> Points:
    """A point of the ball of radius `reach` for any theta: reach theta / (1 + |theta|)."""
    length = (theta.square().sum(-1, keepdim=True) + TINY).sqrt()
    return reach * theta / (1 + length)


def log_area(n: int) -> float:
    """Logarithm of the area of the unit sphere in n dimensions, 2 pi^(n/2) / Gamma(n/2)."""
    return math.log(2) + n / 2 * math.log(math.pi) - math.lgamma(n / 2)
