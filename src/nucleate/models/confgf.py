"""ConfGF: conformers from the gradient of the log density of distances (Shi et al., ICML 2021).

    represent   conformer -> lengths d of all pairs within three bonds
    loss        d~ = d + sigma eps, one level of noise a molecule, every pair on its own -> s(d~) is to be -eps / sigma
    sample      positions, annealed Langevin dynamics with s(r)_i = sum_j s_ij (r_i - r_j) / d_ij   (eq. 6, chain rule)
    build       what comes out are positions

`ConfGFDist`, the paper's ablation, lets lengths themselves diffuse and then looks for positions that have them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nucleate.crystal.bond_graph import BOND_TYPES, BondGraphs, Pairs
from nucleate.generative.score_matching import AnnealedLangevin, NoiseLevels, denoising_error
from nucleate.models.conformers import ConformerPairs, Watch, centred
from nucleate.networks.gin import PairScores

ORDER = 3  # bonds
DISTANCE_STEP = 2e-6  # Å^2, of ConfGFDist
EMBED_STEPS, EMBED_RATE, FAR_COUNTS = 1000, 3.0, 0.5  # of ConfGFDist: Adam, and the weight of one bond more

PUBLISHED = AnnealedLangevin(NoiseLevels(10.0, 0.01, 50), step=2.4e-6, steps=100)


class ConfGF(nn.Module):
    """`PairScores` with its loss and sampler; a `ConformerModel` of `models.conformers`."""

    def __init__(self, width: int = 256, layers: int = 4, walk: AnnealedLangevin = PUBLISHED) -> None:
        super().__init__()
        self.network = PairScores(width, layers)
        self.walk = walk

    def forward(self, batch: ConformerPairs, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """1/2 sigma^2 (s + eps / sigma)^2 summed over the directed pairs of a molecule, the mean over molecules."""
        graphs = batch.graphs
        pairs = graphs.pairs(ORDER)
        sigma = self.walk.levels.draw(len(graphs), generator)[pairs.molecule]
        noise = torch.randn(len(pairs.i), generator=generator, device=generator.device)
        length = lengths(batch.positions[graphs.mask], pairs)
        sigma, noise = sigma.to(length), noise.to(length)
        score = self.scores(graphs.numbers[graphs.mask], pairs, length + sigma * noise) / sigma
        error = denoising_error(score, sigma, noise)
        loss = 2 * error.sum() / len(graphs)
        return loss, {"error": error.detach().mean()}

    def scores(
        self, numbers: Int[Tensor, " atoms"], pairs: Pairs, length: Float[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """Scores of lengths, times their deviation."""
        kind = torch.where(
            pairs.hops == 1, pairs.bond, pairs.hops - 1 + BOND_TYPES
        )  # two bonds: 23, three: 24
        out: Float[Tensor, " pairs"] = self.network(numbers, pairs.i, pairs.j, kind, length)
        return out

    @torch.no_grad()
    def sample(
        self, graphs: BondGraphs, generator: torch.Generator, watch: Watch | None = None
    ) -> Float[Tensor, "batch atoms 3"]:
        """A conformer of each molecule (Å), from normal positions; either hand of a molecule comes out alike."""
        numbers, pairs = graphs.numbers[graphs.mask], graphs.pairs(ORDER)

        def score(x: Float[Tensor, "atoms 3"], sigma: float) -> Float[Tensor, "atoms 3"]:
            return by_chain_rule(x, pairs, self.scores(numbers, pairs, lengths(x, pairs)) / sigma)

        start = torch.randn(len(numbers), 3, generator=generator, device=generator.device)
        found = self.walk.sample(score, start.to(self._like()), generator, _told(watch, self.walk.levels))
        return centred(found, graphs)

    def _like(self) -> Tensor:
        return next(self.parameters())


@dataclass(frozen=True, eq=False)
class ConfGFDist:
    """Lengths by Langevin dynamics, then positions by minimising sum_ij 0.5^(bonds - 1) (|r_i - r_j| - d_ij)^2."""

    scores: ConfGF

    @torch.no_grad()
    def sample(
        self, graphs: BondGraphs, generator: torch.Generator, watch: Watch | None = None
    ) -> Float[Tensor, "batch atoms 3"]:
        """As `ConfGF.sample`."""
        numbers, pairs = graphs.numbers[graphs.mask], graphs.pairs(ORDER)

        def score(d: Float[Tensor, "pairs 1"], sigma: float) -> Float[Tensor, "pairs 1"]:
            return self.scores.scores(numbers, pairs, d[:, 0])[:, None] / sigma

        like = self.scores._like()
        walk = replace(self.scores.walk, step=DISTANCE_STEP)
        start = torch.rand(len(pairs.i), 1, generator=generator, device=generator.device).to(like)
        wanted = walk.sample(score, start, generator, _told(watch, walk.levels))[:, 0]
        x = torch.randn(len(numbers), 3, generator=generator, device=generator.device).to(like)
        return centred(with_lengths(x, pairs, wanted), graphs)


def lengths(x: Float[Tensor, "atoms 3"], pairs: Pairs) -> Float[Tensor, " pairs"]:
    """|r_i - r_j| (Å)."""
    return (x[pairs.i] - x[pairs.j]).norm(dim=-1)


def by_chain_rule(
    x: Float[Tensor, "atoms 3"], pairs: Pairs, score: Float[Tensor, " pairs"]
) -> Float[Tensor, "atoms 3"]:
    """Scores of lengths as scores of positions: each pair pushes its atoms along its line, one against the other."""
    line = x[pairs.i] - x[pairs.j]
    push = (score / line.norm(dim=-1).clamp(min=1e-6))[:, None] * line
    return torch.zeros_like(x).index_add(0, pairs.i, push).index_add(0, pairs.j, -push)


def with_lengths(
    x: Float[Tensor, "atoms 3"], pairs: Pairs, wanted: Float[Tensor, " pairs"]
) -> Float[Tensor, "atoms 3"]:
    """Positions near `x` whose pairs have the wanted lengths, as well as Adam finds them."""
    x = x.clone().requires_grad_()
    weight = FAR_COUNTS ** (pairs.hops - 1.0)
    adam = torch.optim.Adam([x], lr=EMBED_RATE)
    with torch.enable_grad():
        for _ in range(EMBED_STEPS):
            adam.zero_grad()
            (weight * (lengths(x, pairs) - wanted).square()).sum().backward()
            adam.step()
    return x.detach()


def _told(watch: Watch | None, levels: NoiseLevels) -> Callable[[int], None] | None:
    return None if watch is None else lambda level: watch((level + 1) / levels.count)
