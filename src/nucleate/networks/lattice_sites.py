"""A network of the sites of a crystal that knows them by their surroundings alone.

    ideal crystal --> edges within a radius, in the axes of each site --> weights of linear maps between neighbours

Sites have no names: what one tells another is multiplied by a matrix that a small network makes of where the other
lies and how it is turned, seen from the one. So sites that look alike are treated alike (permutations, translations and
rotations of the crystal change nothing), and what was learnt on a small cell can be used on a larger one. Those
matrices do not depend on the sample: they are made once for a batch, and the batch sees one matrix product a layer.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nucleate.geometry.lattice import image_shifts

RADII = 8  # Gaussians of the distance
CALM = 0.05


@dataclass(frozen=True, eq=False)
class SiteEdges:
    """Site j (or one of its images) as site i sees it; every pair within the radius, in both directions."""

    i: Int[Tensor, " edges"]
    j: Int[Tensor, " edges"]
    features: Float[Tensor, "edges features"]
    n: int

    def to(self, like: Tensor) -> "SiteEdges":
        """Features in the precision of a tensor, all on its device."""
        return SiteEdges(self.i.to(like.device), self.j.to(like.device), self.features.to(like), self.n)


def site_edges(
    places: Float[Tensor, "n 3"], axes: Float[Tensor, "n 3 3"], cell: Float[Tensor, "3 3"], radius: float
) -> SiteEdges:
    """Pairs of sites of a crystal at most `radius` Å apart (rows of the cell are its vectors, Å; axes are columns).

    Features, in the axes of site i and units of the radius: the vector, Gaussians of the distance, the nine entries of
    the turn between both, and how near the edge of the sphere it is.
    """
    fractional = places @ torch.linalg.inv(cell)
    spread = float((fractional.amax(0) - fractional.amin(0)).max())
    shifts, _ = image_shifts(cell[None], radius, spread)
    images = places + (shifts.to(cell) @ cell)[:, None]
    away = images[:, None] - places[None, :, None]  # images i j 3
    r = away.norm(dim=-1)
    image, i, j = ((r < radius) & (r > 1e-3)).nonzero(as_tuple=True)
    local = (axes[i].mT @ away[image, i, j, :, None])[..., 0] / radius
    near = r[image, i, j] / radius
    centres = torch.linspace(0, 1, RADII, dtype=near.dtype)
    waves = torch.exp(-(((near[:, None] - centres) * RADII) ** 2))
    between = (axes[i].mT @ axes[j]).flatten(1)
    fade = (1 - near.square()).square()
    return SiteEdges(i, j, torch.cat([fade[:, None], local, waves, between], 1), len(places))


@dataclass(frozen=True, eq=False)
class SiteContext:
    """What the layers make their weights of: learnt features of edges and of sites, without a batch."""

    edges: SiteEdges
    of_edges: Float[Tensor, "edges width"]
    of_sites: Float[Tensor, "sites width"]


class SiteEmbedding(nn.Module):
    """Features of edges by a small network; those of a site from the sum over its edges. All fade out at the radius."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        known = 1 + 3 + RADII + 9
        self.edge = nn.Sequential(nn.Linear(known, width), nn.SiLU(), nn.Linear(width, width))
        self.site = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, edges: SiteEdges) -> SiteContext:
        of_edges = edges.features[:, :1] * self.edge(edges.features)
        summed = of_edges.new_zeros(edges.n, of_edges.shape[1]).index_add(0, edges.i, of_edges)
        return SiteContext(edges, of_edges, self.site(summed))


class LatticeLinear(nn.Module):
    """y_i = A_i x_i + sum_edges W_ij x_j + b_i with matrices made of the features. Zeros to begin with if `still`.

    Still ones are the last before a map that does next to nothing: what they say is taken `CALM` times, so that the
    first steps of an optimizer, which move every weight alike, do not throw molecules at each other.
    """

    def __init__(self, width: int, into: int, out: int, still: bool = False) -> None:
        super().__init__()
        self.into, self.out, self.gain = into, out, CALM if still else 1.0
        self.own = nn.Linear(width, into * out)
        self.other = nn.Linear(width, into * out, bias=False)
        self.bias = nn.Linear(width, out)
        for part, scale in ((self.own, into**-0.5), (self.other, (4 * into) ** -0.5)):
            nn.init.normal_(part.weight, std=0.0 if still else scale * width**-0.5)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.0 if still else scale)
        nn.init.zeros_(self.bias.weight)
        nn.init.zeros_(self.bias.bias)

    def matrix(self, context: SiteContext) -> Float[Tensor, "n_into n_out"]:
        """The linear map of the whole crystal."""
        edges, n = context.edges, context.edges.n
        blocks = context.of_edges.new_zeros(n * n, self.into, self.out)
        diagonal = torch.arange(n, device=blocks.device) * (n + 1)
        blocks = blocks.index_add(0, diagonal, self.own(context.of_sites).unflatten(1, (self.into, self.out)))
        others = self.other(context.of_edges).unflatten(1, (self.into, self.out))
        blocks = blocks.index_add(0, edges.j * n + edges.i, others)
        return self.gain * blocks.unflatten(0, (n, n)).transpose(1, 2).reshape(n * self.into, n * self.out)

    def forward(self, x: Float[Tensor, "batch n into"], context: SiteContext) -> Float[Tensor, "batch n out"]:
        y = (x.flatten(1) @ self.matrix(context)).unflatten(1, (x.shape[1], self.out))
        return y + self.gain * self.bias(context.of_sites)


class LatticeConditioner(nn.Module):
    """Two rounds of messages between neighbours, and what is linear past them; 0 to begin with."""

    def __init__(self, width: int, into: int, hidden: int, out: int) -> None:
        super().__init__()
        self.first = LatticeLinear(width, into, hidden)
        self.second = LatticeLinear(width, hidden, hidden)
        self.last = LatticeLinear(width, hidden, out, still=True)
        self.past = LatticeLinear(width, into, out, still=True)

    def forward(self, x: Float[Tensor, "batch n into"], context: SiteContext) -> Float[Tensor, "batch n out"]:
        h = nn.functional.silu(self.first(x, context))
        h = h + nn.functional.silu(self.second(h, context))
        return self.last(h, context) + self.past(x, context)


class LatticeGenerator(nn.Module):
    """The matrix K of `LatticeExp`: six coordinates of each site by those of its neighbours; 0 to begin with."""

    def __init__(self, width: int, length: float) -> None:
        super().__init__()
        self.linear = LatticeLinear(width, 6, 6, still=True)
        self.length = length  # Å, of a displacement that counts as much as a turn of 1

    def forward(self, context: SiteContext) -> Float[Tensor, "six_n six_n"]:
        units = torch.tensor([self.length] * 3 + [1.0] * 3).repeat(context.edges.n).to(context.of_sites)
        return self.linear.matrix(context).mT * units[:, None] / units
