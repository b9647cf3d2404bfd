"""Rigid Body Flows: samples of a crystal at one temperature become samples at another (Koehler et al., ICML 2023).

    frames at T_A --represent--> bodies --harmonic scaling, then learnt layers--> bodies --build--> crystals at T_B

    log w = u_A(x) - u_B(F(x)) + log |dF/dx|        exp(-(F_B - F_A)) = mean of w,  each u an energy over kT

Bodies are displacements from the sites of the ideal crystal, in its molecules' own axes
(`generative.normalizing_flow`). The crystal as a whole may lie anywhere; a spring holds the mean displacement (stiff as
one mode), so that all bodies are alike and 3n coordinates are free. Its own free energy, 3/2 ln(T_A / T_B), is known
and taken off.

The harmonic start is exact for a harmonic crystal. What is learnt on top is what the crystal has besides.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nucleate.data.rigid_frames import RigidFrames
from nucleate.errors import InputError
from nucleate.generative.line_maps import LineSpline
from nucleate.generative.normalizing_flow import (
    Bodies,
    Chain,
    FlowLayer,
    HarmonicScaling,
    LatticeExp,
    PlaceCoupling,
    TurnCoupling,
)
from nucleate.generative.sphere_maps import ProjectiveGradient, ProjectiveLinear
from nucleate.geometry.so3 import matrix_to_quaternion, nearest_rotation, quaternion_to_matrix
from nucleate.networks.lattice_sites import (
    LatticeConditioner,
    LatticeGenerator,
    SiteEdges,
    SiteEmbedding,
    site_edges,
)
from nucleate.physics.parameters import BOLTZMANN
from nucleate.physics.rigid_minimum import nearest_minimum

Energy = Callable[[Tensor, Tensor], Tensor]  # places, rotations -> eV
LogVolume = Float[Tensor, " batch"]
Map = Callable[[Bodies], tuple[Bodies, LogVolume]]

CRYSTAL = ("places", "turns", "cell", "hands")  # what of a flow is not learnt
HIGH = 50.0  # kT above what is usual: molecules overlap


@dataclass(frozen=True, eq=False)
class IdealCrystal:
    """Where molecules are at rest (float64). Hands are -1 for mirror images of the molecule: axes are reflected."""

    places: Float[Tensor, "n 3"]  # Å
    turns: Float[Tensor, "n 4"]  # quaternions
    cell: Float[Tensor, "3 3"]  # Å
    hands: Float[Tensor, " n"] | None = None

    @property
    def rotations(self) -> Float[Tensor, "n 3 3"]:
        """From the body frame."""
        return quaternion_to_matrix(self.turns)

    @property
    def axes(self) -> Float[Tensor, "n 3 3"]:
        """Of each site: those of its molecule, as columns; left-handed ones for mirror images."""
        return self.rotations if self.hands is None else self.rotations * self.hands[:, None, None]

    def represent(self, frames: RigidFrames) -> Bodies:
        """Bodies of frames, their mean displacement taken off. Raises InputError for another crystal."""
        if frames.places.shape[1] != len(self.places):
            raise InputError(
                f"expected frames of {len(self.places)} molecules, got {frames.places.shape[1]}; "
                "use frames of the crystal that the flow is for"
            )
        away = frames.places - self.places
        away = away - away.mean(1, keepdim=True)
        turned = self.rotations.mT @ quaternion_to_matrix(frames.turns)
        return Bodies((self.axes.mT @ away[..., None])[..., 0], matrix_to_quaternion(turned))

    def build(self, bodies: Bodies) -> tuple[Float[Tensor, "batch n 3"], Float[Tensor, "batch n 3 3"]]:
        """Places (Å) and rotations from the body frame: what energies take."""
        axes, rotations = self.axes.to(bodies.places), self.rotations.to(bodies.places)
        places = self.places.to(bodies.places) + (axes @ bodies.places[..., None])[..., 0]
        return places, rotations @ quaternion_to_matrix(bodies.turns)

    def shift(self, bodies: Bodies) -> Float[Tensor, "batch 3"]:
        """The sum of all displacements over sqrt(n) (Å): the coordinate of the crystal as a whole, of unit length."""
        axes = self.axes.to(bodies.places)
        return (axes @ bodies.places[..., None])[..., 0].sum(1) / math.sqrt(len(self.places))


@dataclass(frozen=True, eq=False)
class HeldCrystal:
    """The energy of bodies, with a spring (eV/Å^2) that holds the crystal as a whole; 0 for none."""

    energy: Energy
    ideal: IdealCrystal
    spring: float

    def reduced(self, bodies: Bodies, temperature: float) -> Float[Tensor, " batch"]:
        """Energy / kT."""
        return (self.energy(*self.ideal.build(bodies)) + self.held(bodies)) / (BOLTZMANN * temperature)

    def held(self, bodies: Bodies) -> Float[Tensor, " batch"]:
        """The energy of the spring (eV)."""
        return self.spring / 2 * self.ideal.shift(bodies).square().sum(-1)

    def spring_share(self, base: float, target: float) -> float:
        """What the spring adds to F_B - F_A (each over its kT): -3/2 ln(2 pi kT / spring) at each temperature."""
        return 1.5 * math.log(base / target) if self.spring else 0.0

    def shifted(self, bodies: Bodies, temperature: float, generator: torch.Generator) -> Bodies:
        """The crystal as a whole moved to where the spring lets it be at this temperature; it was at 0."""
        if self.spring == 0:
            return bodies
        sigma = math.sqrt(BOLTZMANN * temperature / self.spring)
        shape = (len(bodies.places), 1, 3)
        shift = sigma * torch.randn(
            shape, generator=generator, dtype=bodies.places.dtype, device=generator.device
        )
        axes = self.ideal.axes.to(bodies.places)
        away = (axes.mT @ (shift / math.sqrt(len(self.ideal.places)))[..., None])[..., 0]
        return Bodies(bodies.places + away, bodies.turns)

    def work(
        self,
        flow: Map,
        bodies: Bodies,
        energies: Float[Tensor, " batch"],
        base: float,
        target: float,
        generator: torch.Generator,
        softened: bool = False,
    ) -> tuple[Float[Tensor, " batch"], Bodies]:
        """log w of frames at the temperature `base` with their energies (eV), and where the flow takes them.

        Softened (for training), energies more than `HIGH` kT above what is usual count by their logarithm.
        """
        start = self.shifted(bodies, base, generator)
        moved, grown = flow(start)
        before = (energies + self.held(start).double()) / (BOLTZMANN * base)
        after = self.reduced(moved, target).double()
        if softened:
            usual = after.detach().median() + HIGH
            after = torch.where(after > usual, usual + torch.log1p((after - usual).clamp(min=0)), after)
        return before - after + grown.double(), moved


def ideal_crystal(frames: RigidFrames) -> IdealCrystal:
    """The minimum of the energy in the frames' cell that is nearest to their mean."""
    drift = (frames.places - frames.places[:1]).mean(1, keepdim=True)
    places = (frames.places - drift).mean(0)
    turns = matrix_to_quaternion(nearest_rotation(quaternion_to_matrix(frames.turns).mean(0)))
    places, turns = nearest_minimum(frames.potential, places, turns)
    return IdealCrystal(places, turns, frames.cell, frames.hands)


@dataclass(frozen=True)
class Recipe:
    """Sizes of the flow."""

    c: float  # sqrt(T_B / T_A)
    length: float  # Å, root mean square of a displacement at the target
    blocks: int = 4
    width: int = 32  # features of edges and sites
    hidden: int = 48
    bins: int = 6
    ridges: int = 4
    radius: float = 5.0  # Å, of neighbours


class RigidBodyFlow(nn.Module):
    """Our flow: harmonic scaling, a linear map of the whole crystal, couplings of turns and of one axis after another.

    `places`, `turns`, `cell` are the ideal crystal; weights know nothing of their number (`on` another crystal).
    """

    places: Tensor
    turns: Tensor
    cell: Tensor
    hands: Tensor

    def __init__(self, ideal: IdealCrystal, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.register_buffer("scales", torch.tensor([recipe.c, recipe.length], dtype=torch.float64))
        self.register_buffer("places", ideal.places.clone())
        self.register_buffer("turns", ideal.turns.clone())
        self.register_buffer("cell", ideal.cell.clone())
        hands = torch.ones_like(ideal.places[:, 0]) if ideal.hands is None else ideal.hands
        self.register_buffer("hands", hands.clone())
        self._edges: SiteEdges | None = None  # found once, and again after another crystal is loaded
        self.register_load_state_dict_post_hook(_forget_edges)
        self.embedding = SiteEmbedding(recipe.width)
        self.scaling = HarmonicScaling(recipe.c)
        self.chain = Chain(layers_of(recipe))

    @property
    def ideal(self) -> IdealCrystal:
        return IdealCrystal(self.places, self.turns, self.cell, self.hands)

    def forward(self, bodies: Bodies) -> tuple[Bodies, LogVolume]:
        """Bodies at T_A to bodies at T_B, and the logarithm of how much volume grows."""
        bodies, grown = self.scaling(bodies, None)
        bodies, more = self.chain(bodies, self._sites())
        return bodies, grown + more

    def inverse(self, bodies: Bodies) -> tuple[Bodies, LogVolume]:
        """The way back."""
        bodies, grown = self.chain.inverse(bodies, self._sites())
        bodies, more = self.scaling.inverse(bodies, None)
        return bodies, grown + more

    def _sites(self) -> object:
        if self._edges is None:
            self._edges = site_edges(self.places, self.ideal.axes, self.cell, self.recipe.radius)
        kind = next(self.embedding.parameters())
        return self.embedding(self._edges.to(kind))

    def on(self, ideal: IdealCrystal) -> "RigidBodyFlow":
        """The same weights for another crystal of the same molecule, such as a larger cell."""
        other = RigidBodyFlow(ideal, self.recipe).to(next(self.parameters()))
        own = {name: value for name, value in self.state_dict().items() if name not in CRYSTAL}
        other.load_state_dict(own, strict=False)
        return other


def _forget_edges(flow: nn.Module, _: object) -> None:
    flow._edges = None  # type: ignore[assignment]


def layers_of(recipe: Recipe) -> list[FlowLayer]:
    """The linear map, then blocks of four couplings: turns, and each axis."""
    into, spline = 2 + 9, LineSpline(recipe.bins)
    maps = [ProjectiveLinear(), ProjectiveGradient(recipe.ridges)]
    layers: list[FlowLayer] = [LatticeExp(LatticeGenerator(recipe.width, recipe.length))]
    for _ in range(recipe.blocks):
        out = sum(m.size(4) for m in maps)
        layers.append(
            TurnCoupling(LatticeConditioner(recipe.width, 3, recipe.hidden, out), maps, recipe.length)
        )
        for axis in range(3):
            conditioner = LatticeConditioner(recipe.width, into, recipe.hidden, spline.size)
            layers.append(PlaceCoupling([axis], conditioner, spline, recipe.length))
    return layers
