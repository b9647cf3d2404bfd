"""CSPNet of CrystalFlow (Luo et al. 2025, after DiffCSP, Jiao et al. 2023): messages between all atoms of a cell.

    e_ij = [h_i, h_j, waves(x_j - x_i), k]    m_ij = MLP(e_ij)    h_i <- h_i + MLP([h_i, mean_j m_ij])

The mean runs over all atoms of the crystal, i itself included. Evaluated as written, the first linear map of the edge
MLP takes most of the time (3,590 inputs an edge). It is the sum of four maps, of which two belong to atoms, one to the
crystal, and only one to edges; of that, the cosines are even and the sines odd, so i < j gives both directions:

    W e_ij = W_1 h_i + W_2 h_j + W_k k + W_c cos + W_s sin
    W e_ji = W_1 h_j + W_2 h_i + W_k k + W_c cos - W_s sin

The "reciprocal" block of the reference is cos and sin of 2 pi m.dx with m in {0 .. 7}^3: the lattice cancels in it.
Waves that are there twice, or constant, add nothing to what can be expressed; they are kept, as published.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from nucleate.geometry.manifold import State
from nucleate.networks.atom_pairs import AtomPairs, axis_waves, plane_waves
from nucleate.networks.elements import COLUMNS, HEAVIEST, ROWS
from nucleate.networks.embed import gaussian_basis, time_waves

CODE = ROWS + COLUMNS
CONDITION_CENTRES = 50


@dataclass(frozen=True, eq=False)
class AtomsTold:
    """What a network is told besides the state: the same at all times, so computed once.

    `numbers` are atomic numbers, 0 for padding; a network that generates kinds sees only which are 0. A condition is a
    property as a standard score; where it is not `known` the crystal is one of any value. `cell` and `spread` are mean
    and deviation of the log coordinates of cells that may have such contents.
    """

    numbers: Int[Tensor, "crystals atoms"]
    pairs: AtomPairs
    conditions: Float[Tensor, "crystals conditions"]
    known: Float[Tensor, "crystals conditions"]  # 1 or 0
    cell: Float[Tensor, "crystals 6"]
    spread: Float[Tensor, " 6"]


class ConditionEmbedding(nn.Module):
    """Properties as Gaussians of their standard scores in [-2, 2]; what is not known has a vector of its own."""

    def __init__(self, conditions: int, width: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-2, 2, CONDITION_CENTRES))
        self.centres: Tensor
        self.unknown = nn.Parameter(torch.zeros(conditions, CONDITION_CENTRES))
        self.out = nn.Linear(conditions * CONDITION_CENTRES, width)

    def forward(self, told: AtomsTold) -> Float[Tensor, "crystals width"]:
        known = told.known[..., None]
        basis = gaussian_basis(told.conditions, self.centres)
        return self.out((known * basis + (1 - known) * self.unknown).flatten(1))


class CSPNet(nn.Module):
    """State -> velocities of the lattice (log coordinates), of the fractional coordinates and, if asked, of the kinds.

    Invariant under translation of all atoms and under lattice translations of each; equivariant under permutations.
    The defaults are those of the reference's README: 512 features, 6 layers, 256 harmonics, 8^3 Miller indices.
    """

    def __init__(
        self,
        width: int = 512,
        layers: int = 6,
        harmonics: int = 256,
        miller: int = 8,
        generates_kinds: bool = False,
        conditions: int = 0,
        cell_width: int = 6,
    ) -> None:
        super().__init__()
        self.generates_kinds = generates_kinds
        self.kind = nn.Linear(CODE, width) if generates_kinds else nn.Embedding(HEAVIEST, width)
        self.time_width = 256
        self.enter = nn.Linear(width + self.time_width, width)
        axis = torch.arange(miller)
        waves = torch.cat([axis_waves(0, harmonics - 1), torch.cartesian_prod(axis, axis, axis)])
        self.register_buffer("waves", waves, persistent=False)
        self.waves: Tensor
        self.conditions = nn.ModuleList()
        if conditions:
            self.conditions.extend(ConditionEmbedding(conditions, width) for _ in range(layers))
        self.layers = nn.ModuleList(CSPLayer(width, len(waves)) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.frac = nn.Linear(width, 3, bias=False)
        self.lattice = nn.Linear(width, cell_width, bias=False)
        self.code = nn.Linear(width, CODE) if generates_kinds else None

    def forward(self, state: State, t: Float[Tensor, " crystals"], told: AtomsTold) -> State:
        pairs = told.pairs
        kinds = pairs.flat(state["kind"]) if self.generates_kinds else pairs.flat(told.numbers) - 1
        times = time_waves(t, self.time_width).index_select(0, pairs.crystal)
        h = self.enter(torch.cat([self.kind(kinds), times], -1))
        even, odd = plane_waves(pairs.difference(pairs.flat(state["frac"])), self.waves)
        for number, layer in enumerate(self.layers):
            if self.conditions:
                h = h + self.conditions[number](told).index_select(0, pairs.crystal)
            h = layer(h, even, odd, state["lattice"], pairs)
        h = self.last(h)
        answer = {"frac": pairs.padded(self.frac(h)), "lattice": self.lattice(pairs.mean(h))}
        if self.code is not None:
            answer["kind"] = pairs.padded(self.code(h))
        return answer


class CSPLayer(nn.Module):
    """One round of messages. `first` is the whole first map of the edge MLP: [h_i, h_j, cos, sin, k] -> width."""

    def __init__(self, width: int, waves: int) -> None:
        super().__init__()
        self.widths = [width, width, waves, waves, 6]
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(sum(self.widths), width)
        self.second = nn.Linear(width, width)
        self.update = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(
        self,
        h: Float[Tensor, "atoms width"],
        even: Float[Tensor, "pairs waves"],
        odd: Float[Tensor, "pairs waves"],
        k: Float[Tensor, "crystals 6"],
        pairs: AtomPairs,
    ) -> Float[Tensor, "atoms width"]:
        normed = self.norm(h)
        receiver, sender, cosine, sine, cell = self.first.weight.split(self.widths, 1)
        mine = normed @ receiver.T + (k @ cell.T + self.first.bias).index_select(0, pairs.crystal)
        yours = normed @ sender.T
        E, O = even @ cosine.T, odd @ sine.T  # noqa: E741
        to_first = mine.index_select(0, pairs.first) + yours.index_select(0, pairs.second) + E + O
        to_second = mine.index_select(0, pairs.second) + yours.index_select(0, pairs.first) + E - O
        itself = mine + yours + cosine.sum(1)  # cos 0 = 1, sin 0 = 0
        total = silu(self.second(silu(itself)))
        total = total.index_add(0, pairs.first, silu(self.second(silu(to_first))))
        total = total.index_add(0, pairs.second, silu(self.second(silu(to_second))))
        mean = total / pairs.size.index_select(0, pairs.crystal)[:, None]
        return h + self.update(torch.cat([normed, mean], -1))
