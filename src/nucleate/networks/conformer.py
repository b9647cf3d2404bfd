"""Where the atoms of a molecule should go, seen from where they are.

    pairs     kind of pair, distance, who they are        -> features, computed once
    layer     pairs, atoms, vectors of atoms along pairs  -> attention over all other atoms -> scalars and vectors
    answer    vectors of atoms, pulls along pairs         -> a step of each atom

Steps turn with the molecule and are mirrored with it. A mirrored molecule has the stereocentres mirrored too, so one
thing must tell hands apart: `faces`, for each neighbour of a stereocentre the normal of the face that the other three
make, in the order that the graph gives. It points to the neighbour's side in one hand and away from it in the other.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nucleate.crystal.bond_graph import BOND_TYPES, CIS, TRANS, BondGraphs, signed_volumes
from nucleate.geometry.manifold import safe_sqrt
from nucleate.networks.elements import HEAVIEST, refuse_unknown
from nucleate.networks.embed import gaussian_basis, own_precision, time_waves

REACH = 12.0  # Å: farther atoms look alike
FARTHEST = 5  # bonds: what is farther is of one kind
KINDS = BOND_TYPES + FARTHEST + 2  # bond types, 2 to `FARTHEST` bonds, cis, trans; 0 for nothing
NEVER = -80.0  # a logit; an infinite one would be no number where an atom is alone
HALF_FACE = 2.0  # Å^2: |normal| of a usual face, half of what the network is told at most


class ConformerNetwork(nn.Module):
    """The positions at time 1, seen from the positions at time t.

    `width` features of an atom, `pair_width` of a pair, `heads` of attention; `vectors` that each atom has.
    """

    def __init__(
        self,
        width: int = 128,
        layers: int = 5,
        pair_width: int = 64,
        heads: int = 8,
        vectors: int = 16,
        basis: int = 24,
    ) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("centres", torch.linspace(0, REACH, basis))
        self.centres: Tensor
        self.element = nn.Embedding(HEAVIEST + 1, width, padding_idx=0)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.around = nn.Embedding(KINDS, width)
        self.volume = nn.Linear(1, width, bias=False)
        self.face = nn.Linear(1, vectors, bias=False)
        self.kind = nn.Embedding(KINDS, pair_width)
        self.distance = nn.Linear(basis, pair_width)
        self.now = nn.Linear(width, pair_width)
        self.layers = nn.ModuleList(ConformerLayer(width, pair_width, heads, vectors) for _ in range(layers))
        self.pull = nn.Sequential(nn.Linear(pair_width, pair_width), nn.SiLU(), nn.Linear(pair_width, 1))
        self.along = nn.Linear(vectors, 1, bias=False)

    def forward(
        self,
        graphs: BondGraphs,
        x: Float[Tensor, "batch atoms 3"],
        t: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch atoms 3"]:
        """The step (Å) of each atom to time 1, 0 at padding. Raises InputError for elements beyond plutonium."""
        refuse_unknown(graphs.numbers)
        real = graphs.mask
        others = real[:, :, None] & real[:, None] & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        with own_precision(x):
            away = x[:, None] - x[:, :, None]  # batch i j 3: from i to j
            distance = safe_sqrt(away.square().sum(-1))
            unit = away / (distance + 0.1)[..., None]
            near = gaussian_basis(distance.clamp(max=REACH), self.centres)
            normal, volume = faces(graphs.centres, x)
        kind = kinds(graphs)
        now = self.time(time_waves(t, self.width))[:, None]
        touching = (graphs.hops == 1)[..., None]
        h = self.element(graphs.numbers) + now + (self.around(kind) * touching).sum(2)
        h = h + self.volume(torch.tanh(volume / 2)[..., None])
        v = self.face(normal[..., None])  # batch atoms 3 vectors
        pairs = self.distance(near) + self.kind(kind) + self.now(now)[:, None]
        for layer in self.layers:
            h, v, pairs = layer(h, v, pairs, unit, others)
        pull = self.pull(pairs)[..., 0] * others
        step = torch.einsum("bij,bijx->bix", pull, away / (1 + distance)[..., None])
        step = step / real.sum(1).sqrt()[:, None, None] + self.along(v)[..., 0]
        return step * real[..., None]


class ConformerLayer(nn.Module):
    """Each atom attends to all others: to who they are, how far they are, and how their vectors point at it."""

    def __init__(self, width: int, pair_width: int, heads: int, vectors: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.pair_norm = nn.LayerNorm(width), nn.LayerNorm(pair_width)
        self.ends = nn.Linear(width, 2 * pair_width, bias=False)
        self.pointed = nn.Linear(2 * vectors, pair_width, bias=False)
        self.pair = nn.Linear(pair_width, pair_width)
        self.told = nn.Linear(pair_width, heads + 2 * vectors)
        self.values = nn.Linear(width, pair_width, bias=False)
        self.sent = nn.Linear(vectors, vectors, bias=False)
        self.mixed = nn.Linear(vectors, 2 * vectors, bias=False)
        self.update = nn.Sequential(
            nn.Linear(width + 2 * pair_width + 2 * vectors, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width + vectors),
        )

    def forward(
        self,
        h: Float[Tensor, "batch atoms width"],
        v: Float[Tensor, "batch atoms 3 vectors"],
        pairs: Float[Tensor, "batch atoms atoms pair_width"],
        unit: Float[Tensor, "batch atoms atoms 3"],
        others: Bool[Tensor, "batch atoms atoms"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Atoms, their vectors, and pairs."""
        y = self.norm(h)
        mine, yours = self.ends(y).chunk(2, -1)
        seen = torch.cat([unit @ v, (unit[..., None, :] @ v[:, None])[..., 0, :]], -1)  # v_i, v_j along r_ij
        pairs = pairs + self.pair(
            nn.functional.silu(self.pair_norm(pairs) + mine[:, :, None] + yours[:, None] + self.pointed(seen))
        )
        weigh, out, carried = self.told(nn.functional.silu(pairs)).split(
            [self.heads, v.shape[-1], v.shape[-1]], -1
        )
        weight = weigh.masked_fill(~others[..., None], NEVER).softmax(2) * others[..., None]
        attended = torch.einsum("bijk,bijkp->bikp", weight, pairs.unflatten(-1, (self.heads, -1))).flatten(2)
        values = self.values(y).unflatten(-1, (self.heads, -1))
        attended_values = torch.einsum("bijk,bjkp->bikp", weight, values).flatten(2)
        share = weight.mean(-1, keepdim=True)
        arrived = torch.einsum("bijv,bijx->bixv", share * out, unit)
        arrived = arrived + torch.einsum("bijv,bjxv->bixv", share * carried, self.sent(v))
        v = v + arrived
        one, two = self.mixed(v).chunk(2, -1)
        told = torch.cat(
            [y, attended, attended_values, (one * two).sum(2), safe_sqrt(one.square().sum(2))], -1
        )
        step, gate = self.update(told).split([h.shape[-1], v.shape[-1]], -1)
        return h + step, v + gate[:, :, None] * two, pairs


def kinds(graphs: BondGraphs) -> Int[Tensor, "batch atoms atoms"]:
    """What each pair of atoms is to one another; below `KINDS`, 0 for an atom and itself and for padding."""
    far = BOND_TYPES - 1 + graphs.hops.clamp(max=FARTHEST)
    kind = torch.where(graphs.hops == 1, graphs.bond, far)
    kind = torch.where(graphs.side == CIS, KINDS - 2, kind)
    kind = torch.where(graphs.side == TRANS, KINDS - 1, kind)
    there = graphs.mask[:, :, None] & graphs.mask[:, None] & (graphs.hops > 0)
    return torch.where(there, kind, 0)


def faces(
    centres: Int[Tensor, "batch centres 5"], x: Float[Tensor, "batch atoms 3"]
) -> tuple[Float[Tensor, "batch atoms 3"], Float[Tensor, "batch atoms"]]:
    """Normals for the neighbours of stereocentres, and for each centre its signed volume (Å^3).

    Summed where an atom has several, and shortened: n / (|n| + 2 Å^2). A lone pair is taken for the centre's place.
    """
    here = torch.where(centres < 0, centres[..., :1], centres).clamp(min=0)
    row = torch.arange(len(x), device=x.device)[:, None, None]
    at = x[row, here]  # batch centres 5 3
    order = torch.tensor([[1, 2, 3, 4], [2, 1, 4, 3], [3, 4, 1, 2], [4, 3, 2, 1]], device=x.device)  # even
    _, p, q, r = at[:, :, order].unbind(3)
    n = torch.linalg.cross(p - r, q - r)
    n = n / (n.norm(dim=-1, keepdim=True) + HALF_FACE)
    n = torch.where((centres[:, :, 1:] >= 0)[..., None], n, 0.0)
    volume = signed_volumes(centres, x)
    normals = torch.zeros_like(x).index_put((row, here[:, :, 1:]), n, accumulate=True)
    volumes = torch.zeros_like(x[..., 0]).index_put((row[..., 0], here[:, :, 0]), volume, accumulate=True)
    return normals, volumes
