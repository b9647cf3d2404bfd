"""A network that sees how the rigid molecules of a cluster lie, every one of them from every other.

    atoms --encoder, once for all copies--> anchors (points of the body frame with features)
    pairs of molecules --centroids, frames, distances of all their anchors--> numbers and vectors
    pairs of pairs --how far from what pairs like it do (`agreed`)--> vectors
    messages between all molecules --> a shift and a turn of each

All is told in the frame F of the molecule that looks (u = F^T v), orthogonal, with determinant -1 for mirrored copies;
answers are turned back. So every output turns, shifts and is mirrored with the cluster, and follows the molecules in
any order.

In a crystal of one molecule steps and turns from molecule to molecule repeat: lattice vectors and operations. Where
noise hides them, pairs that nearly agree tell what they would agree on, and nothing of that need be learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nucleate.geometry.manifold import safe_sqrt
from nucleate.networks.elements import HEAVIEST, refuse_unknown
from nucleate.networks.embed import own_precision, time_waves
from nucleate.networks.pose import ARM, AnchorEncoder, MoleculeBatch, RadialBasis, axial, perceptron

TOUCH = 8.0  # Å: anchors farther apart do not see each other
SIGHT = 30.0  # Å: centroids farther apart look alike
OTHERS = 4.0  # by which sums over the other molecules are divided
SAME_STEP = (1.0, 2.0, 4.0)  # Å: how alike two steps must be to count as one, as standard deviations
SAME_TURN = (0.5, 1.0, 1.5)  # the same of turns, as distances of matrices: 2 sqrt(2) sin(angle / 2)
FIRST_STEP = 0.1  # of the heads' usual size: training begins near "nothing moves"


@dataclass(frozen=True, eq=False)
class ClusterMolecule:
    """What does not change on the way: the molecule of each cluster, read once."""

    anchors: Float[Tensor, "batch anchors 3"]  # Å, body frame
    features: Float[Tensor, "batch anchors width"]  # 0 where padded
    told: Float[Tensor, "batch outer"]  # of the molecule as a whole


@dataclass(frozen=True, eq=False)
class PairViews:
    """Molecule j as molecule i sees it, in the frame of i; nothing where i is j."""

    numbers: Float[Tensor, "batch molecules molecules numbers"]
    direction: Float[Tensor, "batch molecules molecules 3"]  # unit vector to j
    shifts: Float[Tensor, "batch molecules molecules 3 pushes"]  # along which i may be pushed
    turns: Float[Tensor, "batch molecules molecules 3 twists"]  # about which it may be turned


class ClusterNetwork(nn.Module):
    """The cluster at time 1, seen from the cluster at time t.

    `width` features of a molecule, `pair_width` of two, `anchor_width` of an anchor; `touches` channels of contacts
    between anchors at each of `shells` distances; `vectors` that each molecule sends in a layer.
    """

    def __init__(
        self,
        width: int = 96,
        layers: int = 4,
        pair_width: int = 64,
        anchor_width: int = 32,
        touches: int = 8,
        shells: int = 8,
        vectors: int = 16,
    ) -> None:
        super().__init__()
        self.width, self.anchor_width = width, anchor_width
        self.encoder = AnchorEncoder(anchor_width, heaviest=HEAVIEST)
        self.contacts = Contacts(anchor_width, touches, shells)
        self.far = RadialBasis(20, SIGHT)
        channels = touches * shells
        pushes, twists = channels + 2 * len(SAME_STEP), channels + len(SAME_TURN)
        known = channels + 3 * (pushes + twists) + 20 + 3 + 3 + 9
        self.pairs = perceptron(known, 2 * pair_width, pair_width)
        self.molecule = perceptron(anchor_width + 4, width, width)
        self.time = perceptron(width, width, width)
        self.layers = nn.ModuleList(ClusterLayer(width, pair_width, vectors) for _ in range(layers))
        self.along = nn.Linear(2 * width, 1 + pushes + twists)
        last = perceptron(width, width, 6)
        self.own = nn.Sequential(nn.LayerNorm(width), last)
        with torch.no_grad():
            for head in (self.along, last[-1]):
                for parameter in head.parameters():
                    parameter.mul_(FIRST_STEP)

    def read(self, molecules: MoleculeBatch) -> ClusterMolecule:
        """The molecule of each cluster; does not depend on how its copies lie.

        Raises InputError for elements beyond plutonium.
        """
        refuse_unknown(molecules.numbers)
        features = self.encoder(molecules)
        count = (molecules.numbers > 0).sum(1, keepdim=True)
        extent = (molecules.positions.square().sum(1) / count).sqrt() / ARM
        mean = features.sum(1) / molecules.present.sum(1, keepdim=True)
        told = self.molecule(torch.cat([mean, extent, count.to(extent).log()], -1))
        return ClusterMolecule(molecules.anchors, features, told)

    def forward(
        self,
        centroid: Float[Tensor, "batch molecules 3"],
        frame: Float[Tensor, "batch molecules 3 3"],
        t: Float[Tensor, " batch"],
        molecule: ClusterMolecule,
    ) -> tuple[Float[Tensor, "batch molecules 3"], Float[Tensor, "batch molecules 3"]]:
        """Shifts (Å) and turns (rad, rotation vectors in the body frame) that lead to time 1.

        Centroids at time 1 are `centroid + shift`, frames `frame @ exp(turn)`.
        """
        pairs = self.see(centroid, frame, molecule)
        edges = self.pairs(pairs.numbers)
        x = (molecule.told + self.time(time_waves(t, self.width)))[:, None].expand(-1, centroid.shape[1], -1)
        for layer in self.layers:
            x, heard = layer(x, edges, pairs.direction, frame)
        sizes = [1, pairs.shifts.shape[-1], pairs.turns.shape[-1]]
        away, push, twist = self.along(heard).split(sizes, -1)
        shift, turn = self.own(x).split(3, -1)
        shift = shift + torch.einsum("bijk,bijxk->bix", push, pairs.shifts) / OTHERS
        shift = shift + torch.einsum("bij,bijx->bix", away[..., 0], pairs.direction) / OTHERS
        turn = turn + torch.einsum("bijk,bijxk->bix", twist, pairs.turns) / OTHERS
        return (frame @ shift[..., None])[..., 0], turn

    def see(
        self,
        centroid: Float[Tensor, "batch molecules 3"],
        frame: Float[Tensor, "batch molecules 3 3"],
        molecule: ClusterMolecule,
    ) -> PairViews:
        """All pairs of molecules, as numbers and vectors that do not depend on where the cluster lies."""
        with own_precision(centroid):
            step = centroid[:, None] - centroid[:, :, None]
            where, lies = step @ frame, frame.mT[:, :, None] @ frame[:, None]
            distance = safe_sqrt(where.square().sum(-1, keepdim=True))
            direction = where / distance.clamp(min=1.0)
            touch, force, torque = self.contacts(where, lies, molecule)
            again = [agreed(step, SAME_STEP).mT @ frame[:, :, None], agreed(where, SAME_STEP).mT]
            shifts = torch.cat([force, *(v.mT for v in again)], -1)
            turns = torch.cat([torque / ARM, turn_agreed(frame)], -1)
            seen = [self.far(distance[..., 0]), direction, where / SIGHT, lies.flatten(-2)]
            numbers = torch.cat([touch, shifts.flatten(-2), turns.flatten(-2), *seen], -1)
            apart = ~torch.eye(centroid.shape[1], dtype=torch.bool, device=centroid.device)[..., None]
            return PairViews(numbers * apart, direction, shifts * apart[..., None], turns * apart[..., None])


def agreed(
    values: Float[Tensor, "batch molecules molecules d"], widths: Sequence[float]
) -> Float[Tensor, "batch molecules molecules d widths"]:
    """For each pair of molecules the mean over pairs of like values, less its own value; 0 where i is j.

    Weights are Gaussians of the distance between the values, of several standard deviations.
    """
    others = ~torch.eye(values.shape[1], dtype=torch.bool, device=values.device)
    own = values[:, others]
    squared = torch.cdist(own, own).square()
    means = []
    for width in widths:
        weight = torch.exp(
            (-squared / (2 * width**2)).clamp_min(-80)
        )  # beyond it floats are denormal, and slow
        means.append(weight @ own / weight.sum(-1, keepdim=True))
    result = values.new_zeros(*values.shape, len(widths))
    result[:, others] = torch.stack(means, -1) - own[..., None]
    return result


def turn_agreed(
    frame: Float[Tensor, "batch molecules 3 3"],
) -> Float[Tensor, "batch molecules molecules 3 widths"]:
    """`agreed` for the turns Q = F_j F_i^T: the axis of Q^T Q', with their mean Q', in the frame of molecule i."""
    Q = frame[:, None] @ frame.mT[:, :, None]
    mean = agreed(Q.flatten(-2), SAME_TURN).movedim(-1, 3).unflatten(-1, (3, 3)) + Q[:, :, :, None]
    return axial(frame.mT[:, None, :, None] @ mean @ frame[:, :, None, None]).mT


class Contacts(nn.Module):
    """How the anchors of two molecules meet, at several distances:

    sum_ab g_k(|r_ab|) u_a v_b (1, r_ab / |r_ab|, x_a x r_ab / |r_ab|)

    with Gaussians g, learned features u of what looks and v of what is seen, r_ab from anchor a to anchor b, x_a from
    the centroid to anchor a.
    """

    def __init__(self, width: int, touches: int, shells: int) -> None:
        super().__init__()
        self.radial = RadialBasis(shells, TOUCH)
        self.look = nn.Linear(width, touches, bias=False)
        self.seen = nn.Linear(width, touches, bias=False)

    def forward(
        self,
        where: Float[Tensor, "batch molecules molecules 3"],
        lies: Float[Tensor, "batch molecules molecules 3 3"],
        molecule: ClusterMolecule,
    ) -> tuple[
        Float[Tensor, "batch molecules molecules channels"],
        Float[Tensor, "batch molecules molecules 3 channels"],
        Float[Tensor, "batch molecules molecules 3 channels"],
    ]:
        """Sums for all pairs; directions and moments (Å) in the frame of the molecule that looks."""
        x = molecule.anchors
        reached = where[..., None, :] + x[:, None, None] @ lies.mT
        vector = reached[:, :, :, None] - x[:, None, None, :, None]  # batch i j a b 3
        distance = safe_sqrt(vector.square().sum(-1))
        unit = vector / distance.clamp(min=0.5)[..., None]
        near = self.radial(distance)
        look, seen = self.look(molecule.features), self.seen(molecule.features)
        batch, m, n = len(x), where.shape[1], x.shape[1]
        parts = torch.cat(
            [near[..., None], near[..., None] * unit[..., None, :]], -1
        )  # batch i j a b shell 4
        parts = parts.movedim(4, -1).reshape(batch, -1, n)
        at_anchor = (parts @ seen).reshape(batch, m * m, n, -1, 4, seen.shape[-1])
        at_anchor = at_anchor * look[:, None, :, None, None]
        touch, pull = at_anchor[..., 0, :].flatten(3), at_anchor[..., 1:, :].transpose(3, 4).flatten(4)
        # x_a x pull_a summed over a: one product with the matrices of x_a x
        across = torch.linalg.cross(
            torch.eye(3, dtype=x.dtype, device=x.device).expand(batch, n, 3, 3), x[:, :, None]
        )
        moment = across.transpose(1, 2).flatten(2)[:, None] @ pull.flatten(2, 3)
        return (
            touch.sum(2).unflatten(1, (m, m)),
            pull.sum(2).unflatten(1, (m, m)),
            moment.unflatten(1, (m, m)),
        )


class ClusterLayer(nn.Module):
    """Each molecule listens to all others: to who they are, how they lie, and to vectors that they send."""

    def __init__(self, width: int, pair_width: int, vectors: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, 2 * width)
        self.other = nn.Linear(width, 2 * width, bias=False)
        self.edge, self.gate = nn.Linear(pair_width, 2 * width, bias=False), nn.Linear(pair_width, 2 * width)
        self.message = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.SiLU())
        self.sent = nn.Linear(width, 3 * vectors)
        self.weigh = nn.Linear(2 * width, 2 * vectors)
        self.update = perceptron(3 * width + 3 * vectors, 2 * width, width)

    def forward(
        self,
        x: Float[Tensor, "batch molecules width"],
        edges: Float[Tensor, "batch molecules molecules pair_width"],
        direction: Float[Tensor, "batch molecules molecules 3"],
        frame: Float[Tensor, "batch molecules 3 3"],
    ) -> tuple[Float[Tensor, "batch molecules width"], Float[Tensor, "batch molecules molecules messages"]]:
        """What each molecule has become, and what it heard from each other one (0 from itself)."""
        y = self.norm(x)
        pair = self.own(y)[:, :, None] + self.other(y)[:, None] + self.edge(edges)
        heard = self.message(nn.functional.silu(pair) * self.gate(edges))
        others = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)[..., None]
        heard = heard * others
        carried, pointed = (self.weigh(heard) * others).chunk(2, -1)
        sent = self.sent(y).unflatten(-1, (-1, 3)) @ frame.mT  # out of the sender's frame
        arrived = torch.einsum("bijv,bjvx->bivx", carried, sent) @ frame
        arrived = arrived + torch.einsum("bijv,bijx->bivx", pointed, direction)
        total = torch.cat([heard.sum(2), arrived.flatten(2)], -1) / OTHERS
        return x + self.update(torch.cat([y, total], -1)), heard
