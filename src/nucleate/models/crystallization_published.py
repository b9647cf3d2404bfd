"""The published methods of crystallization: PaiNN on all atoms of a cluster, six ways to use it (Liu et al. 2024).

    loose x_w --PaiNN--> ordered x_s,   every atom on its own: molecules are rigid only where the network has learnt it

| method | what the network is shown | what it learns | how a cluster is sampled |
|---|---|---|---|
| `regression` (GNN-MD) | x_w | x_s - x_w | one step |
| `lerp` | x_t on the straight line from x_w to x_s, t | x_s - x_w | Euler along it from x_w, no noise |
| `sde_ve`, `sde_vp` | x_t = b x_s + sigma eps, x_w, t | eps | reverse-time diffusion from noise, Euler-Maruyama |
| `flow_ve`, `flow_vp` | the same | x_s | probability flow from noise, Euler |

The two paths (VE, VP) are those of `generative.diffusion`, time from 0 (noise) to 1 (order). The paper's own velocities
of them have x_w where x_t belongs, and even the right ones have no end at t = 1. So nothing learns a velocity here:
the network says where x_t ends, from which noise, score and velocity follow at every time below 1. For VE the square
error of the end is that of the velocity, up to a constant; for VP it leaves out a weight that grows without bound.

What was not published, and is ours: positions are about the centre of the loose cluster; paths run in units of 5 Å,
as clusters of 17 molecules of the size in the Crystallography Open Database have 4.8 Å (standard deviation 1.1 Å)
along each axis, so that they have about unit variance, and VE noise goes from 30 Å, the largest distance of two
molecules in nearly all of them, to 0.01 Å (by a factor of e^8: fewer than ten steps are too long); and the network's
part of the answer is scaled as in Karras et al. (2022).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nucleate.crystal.cluster import ClusterBatch
from nucleate.generative.diffusion import (
    Diffusion,
    EulerMaruyama,
    Lerp,
    VarianceExploding,
    VariancePreserving,
    probability_flow,
)
from nucleate.generative.flow_matching import Euler, FlowMatching, Predictor, Sampler, Uniform, even_times
from nucleate.geometry.manifold import Euclidean, Product, State
from nucleate.models.crystallization import ClusterPairs, Positions, Walk
from nucleate.networks.painn import PaiNNVectors

Method = Literal["regression", "sde_ve", "sde_vp", "flow_ve", "flow_vp", "lerp"]
Points = Float[Tensor, "batch cluster_atoms 3"]
Times = Float[Tensor, " batch"]

UNIT = 5.0  # Å: the length in which paths with noise run
DEPARTURE = 0.5  # units, along each axis: about how far the atoms of loose clusters are from where they end
EXPLODING = VarianceExploding(0.01 / UNIT, 30.0 / UNIT)
PRESERVING = VariancePreserving()
FLOW = FlowMatching(Product({"positions": Euclidean(3)}))


@dataclass(frozen=True, eq=False)
class Atoms:
    """All atoms of loose clusters in one row each, about the centre of the cluster."""

    numbers: Int[Tensor, "batch cluster_atoms"]  # 0 is padding
    positions: Points  # Å

    @staticmethod
    def of(loose: ClusterBatch) -> "Atoms":
        return Atoms(loose.numbers.repeat(1, loose.positions.shape[1]), loose.positions.flatten(1, 2))

    @property
    def mask(self) -> Bool[Tensor, "batch cluster_atoms"]:
        return self.numbers > 0


class PublishedCrystallization(nn.Module, ABC):
    """A method around PaiNN. A member says what it learns (`errors`) and how it is sampled (`ordered`)."""

    told_time: ClassVar[bool] = True
    conditional: ClassVar[bool] = False

    def __init__(self, width: int = 128, layers: int = 3, basis: int = 20, cutoff: float = 20.0) -> None:
        """Sizes as published; the cut-off (Å) was 20 or 50."""
        super().__init__()
        self.network = PaiNNVectors(width, layers, basis, cutoff, self.told_time, self.conditional)

    @abstractmethod
    def errors(self, atoms: Atoms, final: Points, generator: torch.Generator) -> tuple[Points, Times]:
        """How far (Å) the predicted ends of atoms are from the true ones, and the weight of each cluster."""

    @abstractmethod
    def ordered(
        self, atoms: Atoms, generator: torch.Generator, steps: int, watch: Callable[[float, Points], None]
    ) -> Points:
        """One sample of each cluster (Å)."""

    def forward(self, pairs: ClusterPairs, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted square error, the mean over atoms and then over clusters; `away` is the error itself (Å)."""
        if pairs.loose is None:
            raise ValueError("expected pairs with loose clusters: those of ClusterPairs.drawn")
        atoms = Atoms.of(replace(pairs.final, positions=pairs.loose))
        error, weight = self.errors(atoms, pairs.final.positions.flatten(1, 2), generator)
        squared = torch.where(atoms.mask, error.square().sum(-1), 0.0).sum(1) / atoms.mask.sum(1)
        return (weight * squared).mean(), {"away": squared.detach().mean().sqrt()}

    @torch.no_grad()
    def sample(self, loose: ClusterBatch, generator: torch.Generator, walk: Walk) -> Positions:
        """One ordered cluster of each loose one, in the same frame and order of molecules and atoms (Å)."""
        centre = loose.centroids.mean(1)[:, None, None]
        kept = loose.mask[:, None, :, None]
        own = next(self.parameters()).dtype
        atoms = Atoms.of(replace(loose, positions=torch.where(kept, loose.positions - centre, 0.0).to(own)))

        def back(points: Points) -> Positions:
            placed = points.to(loose.positions).unflatten(1, loose.positions.shape[1:3]) + centre
            return torch.where(kept, placed, 0.0)

        def tell(t: float, points: Points) -> None:
            if walk.watch is not None:
                walk.watch(t, back(points))

        return back(self.ordered(atoms, generator, walk.steps, tell))


# ---------------------------------------------------------------- without noise


class Regression(PublishedCrystallization):
    """The displacement of every atom, predicted at once: the paper's GNN-MD."""

    told_time = False

    def errors(self, atoms: Atoms, final: Points, generator: torch.Generator) -> tuple[Points, Times]:
        return self._end(atoms) - final, final.new_ones(len(final))

    def ordered(
        self, atoms: Atoms, generator: torch.Generator, steps: int, watch: Callable[[float, Points], None]
    ) -> Points:
        end = self._end(atoms)
        watch(1.0, end)
        return end

    def _end(self, atoms: Atoms) -> Points:
        return atoms.positions + self.network(atoms.numbers, atoms.positions)


class StraightFlow(PublishedCrystallization):
    """LERP without noise: the velocity x_s - x_w, learnt all along the straight line."""

    def errors(self, atoms: Atoms, final: Points, generator: torch.Generator) -> tuple[Points, Times]:
        start, path = atoms.positions, Lerp()
        t = _times(final, generator)
        velocity = self.network(atoms.numbers, path.mean(t, start, final), t)
        return velocity - (final - start), torch.ones_like(t)

    def ordered(
        self, atoms: Atoms, generator: torch.Generator, steps: int, watch: Callable[[float, Points], None]
    ) -> Points:
        def velocities(x: State, t: Tensor) -> State:
            return {"positions": self.network(atoms.numbers, x["positions"], t)}

        return _walked(Euler(FLOW), velocities, atoms, atoms.positions, even_times(steps), watch)


# ---------------------------------------------------------------- from noise


class Denoising(PublishedCrystallization, ABC):
    """Ends of noisy clusters, from which noise, score and velocity follow. Points of the path are in units of 5 Å.

    Of x_t = b x_s + sigma eps with x_s = x_w + d, and d of deviation D along each axis, the best linear guess of d is
    b D^2 (x_t - b x_w) / (sigma^2 + b^2 D^2); what is left has the deviation D sigma / sqrt(sigma^2 + b^2 D^2), and the
    network says it in that unit, from x_w and from x_t brought to its size: x_w + (x_t - b x_w) / sqrt(b^2 + sigma^2).

    The last step of a sampler is the end itself, as predicted there: a step of reverse diffusion would leave noise.
    """

    conditional = True

    def __init__(
        self, path: Diffusion, width: int = 128, layers: int = 3, basis: int = 20, cutoff: float = 20.0
    ) -> None:
        super().__init__(width, layers, basis, cutoff)
        self.path = path

    @abstractmethod
    def weight(self, t: Times) -> Times:
        """Of the square error of the end (Å^2)."""

    @abstractmethod
    def walker(self, scores: Predictor, generator: torch.Generator) -> tuple[Sampler, Predictor]:
        """What walks from noise to order, and what it asks."""

    def end(self, atoms: Atoms, x: Points, t: Times) -> Points:
        """x_s as predicted from x_t, both in units."""
        at = self.path.schedule(t[:, None, None].to(x))
        loose = atoms.positions / UNIT
        away = x - at.end * loose
        spread = (at.variance + (DEPARTURE * at.end).square()).sqrt()
        seen = loose + away / (at.end.square() + at.variance).sqrt()
        learnt = self.network(atoms.numbers, UNIT * seen, t, atoms.positions)
        guess = at.end * (DEPARTURE / spread).square() * away
        return loose + guess + DEPARTURE * at.variance.sqrt() / spread * learnt

    def errors(self, atoms: Atoms, final: Points, generator: torch.Generator) -> tuple[Points, Times]:
        t = _times(final, generator)
        x = self.path.draw(t, atoms.positions / UNIT, final / UNIT, generator)
        x = torch.where(atoms.mask[..., None], x, 0.0)
        return UNIT * self.end(atoms, x, t) - final, self.weight(t)

    def ordered(
        self, atoms: Atoms, generator: torch.Generator, steps: int, watch: Callable[[float, Points], None]
    ) -> Points:
        loose, mask = atoms.positions / UNIT, atoms.mask[..., None]

        def scores(x: State, t: Tensor) -> State:
            points = x["positions"]
            score = self.path.score(points, t, loose, self.end(atoms, points, t))
            return {"positions": torch.where(mask, score, 0.0)}

        *times, last = even_times(steps)[:-1]
        tell = lambda t, points: watch(t, UNIT * points)  # noqa: E731
        x = self.path.draw(loose.new_zeros(len(loose)), loose, loose, generator)
        x = torch.where(mask, x, 0.0)
        if times:
            x = _walked(*self.walker(scores, generator), atoms, x, (*times, last), tell)
        end = UNIT * self.end(atoms, x, x.new_full((len(x),), last))
        watch(1.0, end)
        return end


class ScoreModel(Denoising):
    """CrystalSDE: learns the noise, sampled by the reverse-time diffusion (Song et al. 2021)."""

    def weight(self, t: Times) -> Times:
        """(b / sigma)^2: the square error of the end becomes that of eps."""
        at = self.path.schedule(t)
        return at.end.square() / (at.variance * UNIT**2)

    def walker(self, scores: Predictor, generator: torch.Generator) -> tuple[Sampler, Predictor]:
        return EulerMaruyama(FLOW, path=self.path, generator=generator), scores


class NoiseFlow(Denoising):
    """CrystalFlow-VE and -VP: learns the end, sampled by the probability flow."""

    def weight(self, t: Times) -> Times:
        return torch.ones_like(t)

    def walker(self, scores: Predictor, generator: torch.Generator) -> tuple[Sampler, Predictor]:
        return Euler(FLOW), probability_flow(self.path, scores)


METHODS: dict[Method, Callable[..., PublishedCrystallization]] = {
    "regression": Regression,
    "sde_ve": partial(ScoreModel, EXPLODING),
    "sde_vp": partial(ScoreModel, PRESERVING),
    "flow_ve": partial(NoiseFlow, EXPLODING),
    "flow_vp": partial(NoiseFlow, PRESERVING),
    "lerp": StraightFlow,
}


def _times(like: Points, generator: torch.Generator) -> Times:
    """Of each cluster one, spread over all the path."""
    return Uniform().draw(len(like), generator, like.dtype, stratified=True)


def _walked(
    sampler: Sampler,
    predict: Predictor,
    atoms: Atoms,
    first: Points,
    times: Sequence[float],
    watch: Callable[[float, Points], None],
) -> Points:
    def told(x: State, t: float) -> State:
        watch(t, x["positions"])
        return x

    return sampler.sample(predict, {"positions": first}, times, atoms.mask, told)["positions"]
