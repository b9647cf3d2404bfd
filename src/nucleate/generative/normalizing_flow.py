"""Normalizing flows of rigid bodies in a crystal: invertible maps of all of them, with exact log-determinants.

    bodies --layer--> ... --layer--> bodies, log |volume|          and back

A body is where its place is (from its ideal site, Å, in the site's own axes) and how it is turned (a unit quaternion
relative to the site's; p and -p are one rotation, and every layer maps -p to minus what it maps p to). The volume is
that of R^3 times the rotations for each body; log-determinants of p on the sphere are those of the rotations.

    HarmonicScaling   d -> c d, p -> unit(diag(1, c, c, c) p): exact for a harmonic crystal, c^2 the ratio of kT
    LatticeExp        (d, g) -> exp(K) (d, g) with g = tan(half angle) x axis, for one matrix K of the whole crystal
    PlaceCoupling     some axes of all places, by splines that what is left alone decides
    TurnCoupling      all turns, by maps of the sphere that the places decide

Conditioners are networks of the sites (`networks.lattice_sites`); they see rotations as matrices, so the sign of p is
nothing to them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from nucleate.generative.line_maps import LineSpline
from nucleate.generative.sphere_maps import SphereMap
from nucleate.geometry.so3 import quaternion_to_matrix

LogVolume = Float[Tensor, " batch"]


class Bodies(NamedTuple):
    """All bodies of a batch of crystals."""

    places: Float[Tensor, "batch bodies 3"]  # Å from the ideal site, in its axes
    turns: Float[Tensor, "batch bodies 4"]  # unit quaternions (w, x, y, z), 1 at the ideal site


class FlowLayer(nn.Module, ABC):
    """An invertible map. `sites` is what conditioners know of the ideal crystal; layers pass it on."""

    @abstractmethod
    def forward(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        """Where bodies go, and the logarithm of how much volume grows."""

    @abstractmethod
    def inverse(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        """Where they come from, and the logarithm of how much volume grows on the way back."""


class Chain(FlowLayer):
    """One layer after the other."""

    def __init__(self, layers: Sequence[FlowLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        grown = bodies.places.new_zeros(len(bodies.places))
        for layer in self.layers:
            bodies, more = layer(bodies, sites)
            grown = grown + more
        return bodies, grown

    def inverse(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        grown = bodies.places.new_zeros(len(bodies.places))
        for layer in reversed(self.layers):
            bodies, more = layer.inverse(bodies, sites)  # type: ignore[operator]
            grown = grown + more
        return bodies, grown


class HarmonicScaling(FlowLayer):
    """Displacements and turns (as tangents of half their angles) grow by c = sqrt(T_target / T_base)."""

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = c

    def forward(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        return self._scaled(bodies, self.c)

    def inverse(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        return self._scaled(bodies, 1 / self.c)

    def _scaled(self, bodies: Bodies, c: float) -> tuple[Bodies, LogVolume]:
        moved = bodies.turns * bodies.turns.new_tensor([1, c, c, c])
        grown = 3 * math.log(c) - 4 * moved.norm(dim=-1).log()
        volume = 3 * math.log(c) * bodies.places.shape[1] + grown.sum(1)
        return Bodies(c * bodies.places, normalize(moved, dim=-1)), volume


class LatticeExp(FlowLayer):
    """exp(K) on the six coordinates of all bodies together: what a change of the elastic constants does.

    `generator` gives K, 6n x 6n, of the sites. log det exp(K) = tr K; the tangents g = p_xyz / p_w have the volume
    (1 + g^2)^-2 dg on the sphere.
    """

    def __init__(self, generator: Callable[..., Tensor]) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        return self._moved(bodies, self.generator(sites))

    def inverse(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        return self._moved(bodies, -self.generator(sites))

    def _moved(self, bodies: Bodies, K: Float[Tensor, "six_n six_n"]) -> tuple[Bodies, LogVolume]:
        places, turns = bodies
        tangent = turns[..., 1:] / turns[..., :1]
        both = torch.cat([places, tangent], -1).flatten(1) @ torch.linalg.matrix_exp(K).mT
        places, moved = both.unflatten(1, (places.shape[1], 6)).split(3, -1)
        turned = torch.cat([torch.ones_like(moved[..., :1]), moved], -1)
        turned = normalize(turned, dim=-1) * torch.where(turns[..., :1] < 0, -1.0, 1.0)
        stretch = torch.log1p(tangent.square().sum(-1)) - torch.log1p(moved.square().sum(-1))
        return Bodies(places, turned), K.trace() + 2 * stretch.sum(1)


class PlaceCoupling(FlowLayer):
    """The places along some axes of each site, by splines in units of `length` (Å); the rest decides.

    The conditioner takes what stays: the other axes (in units of length) and nine entries of the rotation less 1.
    """

    def __init__(
        self, axes: Sequence[int], conditioner: nn.Module, spline: LineSpline, length: float
    ) -> None:
        super().__init__()
        self.axes, self.conditioner, self.spline, self.length = list(axes), conditioner, spline, length

    def forward(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        return self._moved(bodies, sites, self.spline.forward)

    def inverse(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        return self._moved(bodies, sites, self.spline.inverse)

    def _moved(
        self, bodies: Bodies, sites: object, spline: Callable[..., tuple[Tensor, Tensor]]
    ) -> tuple[Bodies, LogVolume]:
        moving = torch.zeros(3, dtype=torch.bool, device=bodies.places.device)
        moving[self.axes] = True
        seen = torch.cat([bodies.places[..., ~moving] / self.length, turned(bodies.turns)], -1)
        theta = self.conditioner(seen, sites).unflatten(-1, (len(self.axes), self.spline.size))
        along, grown = spline(bodies.places[..., self.axes] / self.length, theta)
        places = bodies.places.clone()
        places[..., self.axes] = self.length * along
        return Bodies(places, bodies.turns), grown.sum((1, 2))


class TurnCoupling(FlowLayer):
    """All turns, by one or more maps of the sphere one after the other; the places (in units of length) decide."""

    def __init__(self, conditioner: nn.Module, maps: Sequence[SphereMap], length: float) -> None:
        super().__init__()
        self.conditioner, self.maps, self.length = conditioner, list(maps), length

    def forward(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        return self._turned(bodies, sites, back=False)

    def inverse(self, bodies: Bodies, sites: object) -> tuple[Bodies, LogVolume]:
        return self._turned(bodies, sites, back=True)

    def _turned(self, bodies: Bodies, sites: object, back: bool) -> tuple[Bodies, LogVolume]:
        theta = self.conditioner(bodies.places / self.length, sites)
        parts = list(zip(self.maps, theta.split([m.size(4) for m in self.maps], -1)))
        turns, grown = bodies.turns, torch.zeros_like(bodies.turns[..., 0])
        for one, its in reversed(parts) if back else parts:
            turns, more = (one.inverse if back else one.forward)(turns, its)
            grown = grown + more
        return Bodies(bodies.places, turns), grown.sum(1)


def turned(p: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 9"]:
    """The rotation matrix less 1: small for small turns, and the same for p and -p."""
    return (quaternion_to_matrix(p) - torch.eye(3, dtype=p.dtype, device=p.device)).flatten(-2)
