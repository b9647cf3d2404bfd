"""Translations between the molecules of an ordered cluster, and the lattices that they make.

A motion of a crystal's space group that lays molecule i on j has the orthogonal part W = F_j A F_i^T, with A a symmetry
of the molecule. Two such motions of equal W, i onto j and k onto l, differ by a translation of the lattice,

    v = (c_j - c_l) - W (c_i - c_k),

of which equally oriented pairs (W = 1, i = k) are the plain case. True translations are voted for again and again,
chance ones are not. So translations are known that no two molecules of the cluster are apart, such as the long axes of
screws and glides. A lattice of voted vectors is likely where it explains most molecules: they have a partner in the
cluster a lattice vector away, and the sites in its cell fill it with molecules of about the right volume.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nucleate.crystal.cluster_poses import ClusterPoses
from nucleate.crystal.shapes import shape_symmetries
from nucleate.errors import InputError
from nucleate.geometry.lattice import niggli_reduce
from nucleate.geometry.so3 import nearest_rotation

NEAR = 1.0  # Å: molecules this near to a site belong to it
ANGLE = math.radians(15)  # and turned by no more than this
EXPLAINED = 0.6  # least share of molecules that have a partner one translation away
FILLED = 1.2  # largest ratio, either way, of the volume per site to that of a molecule
SHORTEST, LONGEST = 3.0, 32.0  # Å, of the vectors looked at
MOTIONS = 1200  # looked at, those of central molecules first: pairs of them are compared
VOTERS = 3  # least votes of a vector
LOOKED_AT = 800  # places with most votes
PEAKS = 20  # vectors with most votes, in any direction and out of the strongest plane
LEAST_HEIGHT = 2.0  # Å, of layers
SAME_MAP = 3.0 - 0.02  # trace of the matrix between maps of a molecule, above which they are one
FLATTEST = 0.15  # least volume of a cell as a share of the product of its edges
DOUBLING = 0.1  # a cell twice as large must explain this share of the cluster besides
MISFIT = 0.3  # of the cluster that an Å of mean misfit counts
TRIED = 6  # lattices handed over


@dataclass(frozen=True, eq=False)
class Seen:
    """Molecules of a cluster, and the orthogonal matrices that lay the molecule on itself."""

    centroid: Float[Tensor, "molecules 3"]
    frame: Float[Tensor, "molecules 3 3"]
    maps: Float[Tensor, "maps 3 3"]

    @staticmethod
    def of(poses: ClusterPoses) -> "Seen":
        """The first cluster of a batch."""
        maps, fits = shape_symmetries(poses.numbers, poses.local)
        fitting = maps[0][fits[0]]
        same = fitting.flatten(1) @ fitting.flatten(1).T > SAME_MAP
        return Seen(poses.centroid[0], poses.frame[0], fitting[~(same & _before(len(same))).any(1)])

    def equal(self) -> Bool[Tensor, "molecules molecules"]:
        """Equally oriented, up to the symmetry of the molecule."""
        return same_orientation(self.frame, self.frame, self.maps)

    def steps(self) -> Float[Tensor, "molecules molecules 3"]:
        """From each centroid to each."""
        return self.centroid[None] - self.centroid[:, None]

    def partners(
        self, lattices: Float[Tensor, "lattices 3 3"]
    ) -> Bool[Tensor, "lattices molecules molecules"]:
        """Which molecules are one site of each lattice."""
        return (beyond_lattice(self.steps(), lattices) < NEAR) & self.equal()

    def explained(self, lattices: Float[Tensor, "lattices 3 3"]) -> Bool[Tensor, "lattices molecules"]:
        alone = torch.eye(len(self.centroid), dtype=torch.bool)
        return (self.partners(lattices) & ~alone).any(-1)


def same_orientation(
    first: Float[Tensor, "n 3 3"], second: Float[Tensor, "m 3 3"], maps: Float[Tensor, "maps 3 3"]
) -> Bool[Tensor, "n m"]:
    """Is one frame within `ANGLE` of the other one times a symmetry of the molecule, of the same hand?"""
    trace = torch.einsum("nxy,syz,mxz->nms", first, maps, second)
    return (trace >= 1 + 2 * math.cos(ANGLE)).any(-1)  # improper ones reach at most 1


def beyond_lattice(
    step: Float[Tensor, "points others 3"], lattices: Float[Tensor, "lattices 3 3"]
) -> Float[Tensor, "lattices points others"]:
    """Length (Å) of what is left of a step once the nearest lattice vector is taken away."""
    frac = step.flatten(0, 1) @ torch.linalg.inv(lattices)
    return ((frac - frac.round()) @ lattices).norm(dim=-1).unflatten(1, step.shape[:2])


# ---------------------------------------------------------------- votes for translations


def _peaks(seen: Seen) -> Float[Tensor, "peaks 3"]:
    """The vectors with most votes, of each and its opposite one."""
    votes = _votes(seen)
    if not len(votes):
        return votes
    upper = torch.where(votes[:, :1].abs() > 1e-9, votes[:, :1], votes[:, 1:2]) < 0
    votes = torch.where(upper, -votes, votes)
    voxels, member, count = torch.unique(
        (votes / NEAR).round(), dim=0, return_inverse=True, return_counts=True
    )
    middle = torch.zeros_like(voxels).index_add_(0, member, votes) / count[:, None]
    order = count.argsort(descending=True, stable=True)[:LOOKED_AT]
    middle, weight = middle[order], count[order].double()
    near = torch.minimum(torch.cdist(middle, middle), torch.cdist(middle, -middle)) < NEAR
    score = near.double() @ weight
    stronger = near & (
        (score[None] > score[:, None]) | ((score[None] == score[:, None]) & _before(len(score)))
    )
    best = torch.nonzero(~stronger.any(1)).flatten()
    best = best[score[best].argsort(descending=True, stable=True)]
    best = best[score[best] >= VOTERS]
    best = _in_all_directions(middle[best], best)
    own = (torch.cdist(middle[best], middle) < NEAR).double() * weight
    return own @ middle / own.sum(1, keepdim=True)


def _in_all_directions(
    vectors: Float[Tensor, "vectors 3"], names: Int[Tensor, " vectors"]
) -> Int[Tensor, " chosen"]:
    """The first `PEAKS`, and as many of those out of the plane of the first two that are not on a line.

    In crystals of layers all short translations are within the layer.
    """
    unit = torch.nn.functional.normalize(vectors, dim=1)
    across = torch.linalg.cross(unit[:1].expand_as(unit), unit)
    beside = torch.nonzero(across.norm(dim=1) > 0.2).flatten()
    if not len(beside):
        return names[:PEAKS]
    height = (vectors @ torch.nn.functional.normalize(across[beside[0]], dim=0)).abs()
    return torch.cat([names[:PEAKS], names[height > LEAST_HEIGHT][:PEAKS]]).unique()


def _before(n: int) -> Bool[Tensor, "n n"]:
    return torch.ones(n, n, dtype=torch.bool).tril(-1)


def _votes(seen: Seen) -> Float[Tensor, "votes 3"]:
    """v = (c_j - c_l) - W (c_i - c_k) of all pairs of motions with equal W (to `ANGLE`)."""
    c, frame, maps = seen.centroid, seen.frame, seen.maps
    m, s = len(c), len(maps)
    central = (c - c.mean(0)).norm(dim=1).argsort()[: max(1, MOTIONS // (m * s))]
    first = central[:, None, None].expand(-1, m, s).flatten()
    second = torch.arange(m)[:, None].expand(len(central), m, s).flatten()
    W = torch.einsum("jxy,syz,ivz->ijsxv", frame, maps, frame[central]).flatten(0, 2)
    trace = W.flatten(1) @ W.flatten(1).T
    p, q = torch.nonzero((trace >= 1 + 2 * math.cos(ANGLE)).triu(1), as_tuple=True)
    mean = (W[p] + W[q]) / 2
    hand = torch.linalg.det(W[p]).sign()[:, None, None]
    mean = hand * nearest_rotation(hand * mean)
    arm = (c[first[p]] - c[first[q]])[..., None]
    votes = c[second[p]] - c[second[q]] - (mean @ arm)[..., 0]
    length = votes.norm(dim=1)
    return votes[(length > SHORTEST) & (length < LONGEST)]


# ---------------------------------------------------------------- a lattice of them


def likely_lattices(seen: Seen, volume: float) -> list[Float[Tensor, "3 3"]]:
    """Lattices (Niggli, Å) that explain most molecules in cells filled as they should be, the best first.

    `volume` is that of a molecule (Å^3). Raises InputError "no lattice" that counts what was seen.
    """
    m, peaks = len(seen.centroid), _peaks(seen)
    lattices = peaks[torch.combinations(torch.arange(len(peaks)), 3)].reshape(-1, 3, 3)
    size, edges = torch.linalg.det(lattices).abs(), lattices.norm(dim=-1)
    whole = (size > FLATTEST * edges.prod(-1)) & (size > volume / FILLED)
    lattices, size, edges = lattices[whole], size[whole], edges[whole].sum(-1)
    if not len(lattices):
        raise InputError(
            f"expected translations in three directions, found {len(peaks)} among {m} molecules that span none",
            "no lattice",
        )
    share, score = _scores(seen, lattices, volume)
    if (most := float(share.max())) < EXPLAINED:
        raise InputError(
            f"expected at least {math.ceil(EXPLAINED * m)} of {m} molecules with a partner one translation away, found "
            f"{round(most * m)} at most",
            "no lattice",
        )
    order = (score - 1e-4 * edges).argsort(descending=True, stable=True)
    order = order[share[order] >= EXPLAINED]
    different = torch.cat([torch.tensor([True]), (size[order].diff() / size[order][1:]).abs() > 0.01])
    chosen = lattices[order[different][:TRIED]]
    return [niggli_reduce(lattice * torch.linalg.det(lattice).sign())[0] for lattice in chosen]


def _scores(
    seen: Seen, lattices: Float[Tensor, "lattices 3 3"], volume: float
) -> tuple[Float[Tensor, " lattices"], Float[Tensor, " lattices"]]:
    """The share of molecules with a partner, and how good a lattice is: misfits and empty or large cells take away."""
    away = beyond_lattice(seen.steps(), lattices)
    partners = (away < NEAR) & seen.equal()
    others = partners & ~torch.eye(len(seen.centroid), dtype=torch.bool)
    share = others.any(-1).double().mean(-1)
    misfit = (away * others).sum((1, 2)) / others.sum((1, 2)).clamp(min=1)
    sites = (~(partners & _before(len(away[0]))).any(-1)).sum(-1)
    size = torch.linalg.det(lattices).abs()
    missing = (size / (sites * volume)).log()
    score = share - MISFIT * misfit - DOUBLING * (size / volume).log2()
    score = score - (missing - math.log(FILLED)).clamp(min=0)
    score[(share < EXPLAINED) | (missing < -math.log(FILLED))] -= 10
    return share, score
