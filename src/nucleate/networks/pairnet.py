"""PairNet: what two atoms of a crystal are to each other is worked out once, in Å, and every layer reads it.

    p_ij = even(x_j - x_i), q_ij = odd(x_j - x_i)            plane waves, and shells of distance in Å over all images
    m_ij = silu(A h_i + B h_j + P p_ij + Q q_ij)
    V_i  = sum_j (gate m_ij) v_ij / sqrt(n)                  vectors v_ij = -v_ji from i to the images of j
    h_i <- h_i + MLP([h_i, sum_j m_ij / sqrt(n), |V_i|])

CSPNet sees fractional differences and the cell apart, and must learn what a distance is. Here atoms see how far each
is, image by image, less the sum of their covalent radii; and they are pushed and pulled along the lines that join
them: what is said of coordinates is the sum of the V_i of all layers and of a map of h_i. The map that CSPNet puts on
every edge after the first is left out: it comes after the sum, where it costs an atom and not a pair.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from nucleate.geometry.lattice import lattice_from_log
from nucleate.geometry.manifold import State
from nucleate.networks.atom_pairs import (
    AtomPairs,
    NearImages,
    axis_waves,
    miller_half,
    plane_waves,
    self_images,
)
from nucleate.networks.cspnet import CODE, AtomsTold, ConditionEmbedding
from nucleate.networks.elements import HEAVIEST, radii, two_hot
from nucleate.networks.embed import own_precision, time_waves

TIME_WIDTH = 64
CUTOFF = 7.0  # Å
SHELLS = 16
MILLER, HARMONICS = 2, 6  # plane waves |m_i| <= 2, and along the axes up to 6
VECTORS = SHELLS + HARMONICS  # of each pair: towards the images in each shell, and sines along the axes
PUSHES = 8  # vectors of an atom in each layer
GRAPH = (
    TIME_WIDTH + 6 + 2 + SHELLS
)  # time, cell as scores, logs of number and volume of atoms, images of itself


class PairNet(nn.Module):
    """State -> the same fields as `CSPNet`, with the same symmetries. Small first steps: it begins by saying little.
    `cell_width` is how many numbers it says of a cell."""

    def __init__(
        self,
        width: int = 256,
        layers: int = 5,
        pair_width: int = 96,
        generates_kinds: bool = False,
        conditions: int = 0,
        cell_width: int = 6,
    ) -> None:
        super().__init__()
        self.generates_kinds = generates_kinds
        self.kind = nn.Linear(CODE, width) if generates_kinds else nn.Embedding(HEAVIEST, width)
        self.register_buffer("code", two_hot(), persistent=False)
        self.register_buffer("radius", radii(), persistent=False)
        self.register_buffer("waves", torch.cat([miller_half(MILLER), axis_waves(MILLER + 1, HARMONICS)]))
        self.register_buffer("raw", torch.linspace(0.5, CUTOFF, SHELLS), persistent=False)
        self.register_buffer("bonds", torch.linspace(-2.0, 4.0, SHELLS), persistent=False)
        self.code: Tensor
        self.radius: Tensor
        self.waves: Tensor
        self.raw: Tensor
        self.bonds: Tensor
        self.enter = nn.Linear(width + CODE, width)
        self.graph = nn.Sequential(nn.Linear(GRAPH, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = ConditionEmbedding(conditions, width) if conditions else None
        waves = len(self.waves)
        self.even = nn.Sequential(nn.Linear(waves + 2 * SHELLS, pair_width), nn.SiLU())
        self.odd = nn.Linear(waves + 3 * SHELLS, pair_width, bias=False)
        self.layers = nn.ModuleList(PairLayer(width, pair_width) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.frac = _head(width, 3)
        self.lattice = _head(width, cell_width)
        self.out_code = _head(width, CODE) if generates_kinds else None

    def forward(self, state: State, t: Float[Tensor, " crystals"], told: AtomsTold) -> State:
        pairs = told.pairs
        if self.generates_kinds:
            code = pairs.flat(state["kind"])
            kind = self.kind(code)
        else:
            element = pairs.flat(told.numbers) - 1
            code, kind = self.code[element], self.kind(element)
        h = self.enter(torch.cat([kind, code], -1))
        with own_precision(h):
            cell, even, odd, vectors, metric = self._geometry(state, t, told)
        g = self.graph(cell)
        if self.condition is not None:
            g = g + self.condition(told)
        p, q = self.even(even), self.odd(odd)
        pushed = vectors.new_zeros(len(h), 3)
        for layer in self.layers:
            h, push = layer(h, g, p, q, vectors, metric, pairs)
            pushed = pushed + push
        h = self.last(h)
        answer = {
            "frac": pairs.padded(pushed + self.frac(h)),
            "lattice": self.lattice(pairs.mean(h)),
        }
        if self.out_code is not None:
            answer["kind"] = pairs.padded(self.out_code(h))
        return answer

    def _geometry(
        self, state: State, t: Float[Tensor, " crystals"], told: AtomsTold
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What there is to see of crystals; of pairs even, odd and vectors; and the metric of the cell of each atom."""
        pairs, k = told.pairs, state["lattice"]
        lattice = lattice_from_log(k)
        size = pairs.size.log().to(k)
        volume = math.sqrt(3) * k[:, 5] - size
        alone = self_images(lattice, self.raw, CUTOFF)
        scores = (k - told.cell) / told.spread
        cell = torch.cat([time_waves(t, TIME_WIDTH), scores, size[:, None], volume[:, None], alone], -1)
        difference = pairs.difference(pairs.flat(state["frac"]))
        cosine, sine = plane_waves(difference, self.waves)
        images = NearImages(difference, lattice, pairs.pair_crystal())
        raw = images.shells(self.raw, CUTOFF)
        towards = torch.einsum("pis,pic->pcs", raw, images.steps)
        n = torch.arange(1, HARMONICS + 1, device=k.device)
        along = torch.sin(2 * math.pi * difference[..., None] * n)
        metric = (lattice @ lattice.mT).index_select(0, pairs.crystal)
        even = [cosine, raw.sum(1)]
        if self.generates_kinds:
            even.append(torch.zeros_like(even[-1]))  # of elements that are not known yet there are no radii
        else:
            radius = self.radius[pairs.flat(told.numbers) - 1]
            touching = radius.index_select(0, pairs.first) + radius.index_select(0, pairs.second)
            even.append(images.shells(self.bonds, CUTOFF, touching).sum(1))
        odd = torch.cat([sine, towards.flatten(1)], -1)
        return cell, torch.cat(even, -1), odd, torch.cat([towards, along], -1), metric


class PairLayer(nn.Module):
    """One round of messages."""

    def __init__(self, width: int, pair_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.atoms = nn.Linear(width, 2 * width)
        self.crystal = nn.Linear(width, width)
        self.even = nn.Linear(pair_width, width, bias=False)
        self.odd = nn.Linear(pair_width, width, bias=False)
        self.gate = nn.Linear(width, PUSHES)
        self.vectors = nn.Linear(VECTORS, PUSHES, bias=False)
        self.push = nn.Linear(PUSHES, 1, bias=False)
        self.update = nn.Sequential(nn.Linear(2 * width + PUSHES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(
        self,
        h: Float[Tensor, "atoms width"],
        g: Float[Tensor, "crystals width"],
        p: Float[Tensor, "pairs pair_width"],
        q: Float[Tensor, "pairs pair_width"],
        vectors: Float[Tensor, "pairs 3 vectors"],
        metric: Float[Tensor, "atoms 3 3"],
        pairs: AtomPairs,
    ) -> tuple[Float[Tensor, "atoms width"], Float[Tensor, "atoms 3"]]:
        normed = self.norm(h)
        mine, yours = self.atoms(normed).chunk(2, -1)
        mine = mine + self.crystal(g).index_select(0, pairs.crystal)
        E, O = self.even(p), self.odd(q)  # noqa: E741
        to_first = silu(mine.index_select(0, pairs.first) + yours.index_select(0, pairs.second) + E + O)
        to_second = silu(mine.index_select(0, pairs.second) + yours.index_select(0, pairs.first) + E - O)
        total = silu(mine + yours)
        total = total.index_add(0, pairs.first, to_first).index_add(0, pairs.second, to_second)
        scale = pairs.size.to(h).rsqrt().index_select(0, pairs.crystal)[:, None]
        v = self.vectors(vectors)
        V = v.new_zeros(len(h), 3, PUSHES)
        V = V.index_add(0, pairs.first, self.gate(to_first)[:, None] * v)
        V = V.index_add(0, pairs.second, self.gate(to_second)[:, None] * -v) * scale[..., None]
        length = ((metric @ V) * V).sum(1).clamp_min(1e-6).sqrt()  # Å
        return h + self.update(torch.cat([normed, total * scale, length], -1)), self.push(V)[..., 0]


def _head(width: int, out: int) -> nn.Linear:
    """A last map without offset that begins by saying little."""
    head = nn.Linear(width, out, bias=False)
    with torch.no_grad():
        head.weight.mul_(0.05)
    return head
