"""Rigid Body Flows as published: Moebius maps of positions on circles and of turns, steered by attention.

    places less that of molecule 0 --circles--> Moebius maps, one for each coordinate, that the turns steer
    turns --spheres--> symmetrised Moebius maps that the places steer                                     4 such blocks

Molecule 0 stays where it is. There is no harmonic start: the flow has to learn the cold crystal from the warm one.
Turns are seen relative to the ideal crystal: a fixed rotation of the sphere, which the weights of every layer can undo.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nucleate.generative.circle_maps import CircularMoebius
from nucleate.generative.normalizing_flow import Bodies, Chain, FlowLayer
from nucleate.generative.sphere_maps import DoubleMoebius
from nucleate.models.rigid_body_flow import IdealCrystal
from nucleate.networks.site_attention import SiteAttention

BLOCKS = 4
CLOSED_PLACES, CLOSED_TURNS = 6.0, 3.0  # of the gates
CIRCLE, SPHERE = CircularMoebius(), DoubleMoebius()


class PublishedFlow(nn.Module):
    """The flow for the n molecules of one crystal, in their order."""

    places: Tensor
    turns: Tensor
    cell: Tensor
    hands: Tensor

    def __init__(self, ideal: IdealCrystal) -> None:
        super().__init__()
        self.register_buffer("places", ideal.places.clone())
        self.register_buffer("turns", ideal.turns.clone())
        self.register_buffer("cell", ideal.cell.clone())
        n = len(ideal.places)
        hands = torch.ones_like(ideal.places[:, 0]) if ideal.hands is None else ideal.hands
        self.register_buffer("hands", hands.clone())
        self.chain = Chain([layer for _ in range(BLOCKS) for layer in (CirclePlaces(n), SphereTurns(n))])

    @property
    def ideal(self) -> IdealCrystal:
        return IdealCrystal(self.places, self.turns, self.cell, self.hands)

    def forward(self, bodies: Bodies) -> tuple[Bodies, Float[Tensor, " batch"]]:
        """Bodies at T_A to bodies at T_B, and the logarithm of how much volume grows."""
        return self.chain(bodies, self.ideal)

    def inverse(self, bodies: Bodies) -> tuple[Bodies, Float[Tensor, " batch"]]:
        """The way back."""
        return self.chain.inverse(bodies, self.ideal)


class CirclePlaces(FlowLayer):
    """Every fractional coordinate relative to molecule 0 by a Moebius map of its circle; molecule 0 is left alone."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conditioner = SiteAttention(n, 4, 3 * CIRCLE.size, even=True, closed=CLOSED_PLACES)

    def forward(self, bodies: Bodies, sites: object) -> tuple[Bodies, Tensor]:
        return self._moved(bodies, sites, back=False)

    def inverse(self, bodies: Bodies, sites: object) -> tuple[Bodies, Tensor]:
        return self._moved(bodies, sites, back=True)

    def _moved(self, bodies: Bodies, sites: object, back: bool) -> tuple[Bodies, Tensor]:
        assert isinstance(sites, IdealCrystal)
        theta = self.conditioner(bodies.turns).unflatten(-1, (3, CIRCLE.size))
        before = around_first(bodies, sites)
        after, grown = (CIRCLE.inverse if back else CIRCLE.forward)(before, theta)
        moving = torch.ones_like(grown)
        moving[:, 0] = 0
        step = moving * (torch.remainder(after - before + 0.5, 1.0) - 0.5)  # the short way round
        cell, axes = sites.cell.to(step), sites.axes.to(step)
        places = bodies.places + (axes.mT @ (step @ cell)[..., None])[..., 0]
        return Bodies(places, bodies.turns), (moving * grown).sum((1, 2))


class SphereTurns(FlowLayer):
    """All turns by a symmetrised Moebius map, steered by where the molecules are."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conditioner = SiteAttention(n, 6, SPHERE.size(4), even=False, closed=CLOSED_TURNS)

    def forward(self, bodies: Bodies, sites: object) -> tuple[Bodies, Tensor]:
        turns, grown = SPHERE.forward(bodies.turns, self._theta(bodies, sites))
        return Bodies(bodies.places, turns), grown.sum(1)

    def inverse(self, bodies: Bodies, sites: object) -> tuple[Bodies, Tensor]:
        turns, grown = SPHERE.inverse(bodies.turns, self._theta(bodies, sites))
        return Bodies(bodies.places, turns), grown.sum(1)

    def _theta(self, bodies: Bodies, sites: object) -> Tensor:
        assert isinstance(sites, IdealCrystal)
        angle = 2 * math.pi * around_first(bodies, sites) - math.pi
        return self.conditioner(torch.cat([angle.cos(), angle.sin()], -1))


def around_first(bodies: Bodies, ideal: IdealCrystal) -> Float[Tensor, "batch n 3"]:
    """Fractional coordinates relative to molecule 0, in [0, 1)."""
    places, _ = ideal.build(bodies)
    return (places - places[:, :1]) @ torch.linalg.inv(ideal.cell).to(places) % 1.0
