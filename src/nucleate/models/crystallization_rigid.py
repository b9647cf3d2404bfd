"""Crystallization of clusters as a flow of rigid molecules.

    represent   loose cluster -> one shape, a centroid and a rotation for each copy; every copy keeps its hand
    loss        loose, a little noise -> the ordered cluster, its molecules dealt to the nearest -> a point on the way
                -> the network's cluster at time 1
    sample      loose, a little noise -> steps along the geodesic to the network's cluster at time 1 -> no overlaps
    build       shape, centroids and rotations -> positions

Molecules of a cluster have no names and a cluster no place of its own. So molecules of the ordered cluster are dealt to
those of the loose one, by the least sum of

    |c - c'|^2 + (radius of gyration x angle)^2

over the poses that the molecule's own symmetry makes equal, and the whole is laid on the loose cluster: the network
need learn neither which molecule goes where nor how a cluster is turned.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nucleate.crystal.cluster import ClusterBatch
from nucleate.crystal.cluster_poses import ClusterPoses, fitted, poses_of_clusters
from nucleate.crystal.shapes import anchor_points, shape_symmetries
from nucleate.generative.coupling import assign, permuted
from nucleate.generative.flow_matching import Euler, FlowMatching, Uniform, even_times
from nucleate.geometry.manifold import Euclidean, Product, State
from nucleate.geometry.so3 import SO3, kabsch
from nucleate.models.cluster_relax import without_overlaps
from nucleate.models.crystallization import ClusterPairs, Positions, Walk
from nucleate.networks.cluster_poses import ClusterMolecule, ClusterNetwork
from nucleate.networks.pose import MoleculeBatch

FIELDS = Product({"centroid": Euclidean(3), "rotation": SO3()})
FLOW = FlowMatching(FIELDS, endpoint=frozenset(FIELDS.factors))
"""A state has `centroid` (batch, molecules, 3) in Å and `rotation` (batch, molecules, 3, 3)."""

ANCHORS = 12
# of the start, so that there are several samples: Å along each axis, rad about each
SHIFT_NOISE, TURN_NOISE = 0.2, 0.1
LATE = 0.8  # errors are not divided by less than 1 - this of the way that is left
# Å^2: the cost of dealing a chiral molecule to its mirror image; only where hands do not match
WRONG_HAND = 1e4
DEALS = 3  # of dealing and superposing by turns


class RigidCrystallization(nn.Module):
    """`ClusterNetwork` with its start, loss and sampler; a `Crystallizer`."""

    def __init__(self, width: int = 96, layers: int = 4) -> None:
        super().__init__()
        self.network = ClusterNetwork(width, layers)

    def forward(self, pairs: ClusterPairs, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error of the predicted cluster over (1 - t)^2, and its parts in Å^2."""
        if pairs.loose is None:
            raise ValueError("expected pairs with loose clusters, got none; draw them (`ClusterPairs.drawn`)")
        loose = self._poses(replace(pairs.final, positions=pairs.loose))
        start = noised(loose, generator)
        final = fitted(loose.numbers, loose.local, pairs.final.positions.to(loose.local))
        x_0, x_1 = _state(start), _state(nearest_goal(start, final))
        t = Uniform().draw(len(pairs), generator, torch.float32, stratified=True).to(loose.local)
        x_t = FLOW.interpolate(x_0, x_1, t)
        predicted = self._endpoint(x_t, t, loose, self.read(loose))
        errors = FLOW.squared_error(predicted, x_t, x_1, t, late=LATE)
        parts = {"shift": errors["centroid"], "turn": loose.gyration.square() * errors["rotation"]}
        loss = (parts["shift"] + parts["turn"]).mean()
        return loss, {name: error.detach().mean() for name, error in parts.items()}

    @torch.no_grad()
    def sample(self, loose: ClusterBatch, generator: torch.Generator, walk: Walk) -> Positions:
        """One ordered cluster of each loose one, without overlaps, molecules and atoms in the same order (Å)."""
        start = noised(self._poses(loose), generator)
        molecule = self.read(start)

        def tell(x: State, t: float) -> State:
            if walk.watch is not None:
                walk.watch(t, _placed(start, x).positions.to(loose.positions))
            return x

        end = Euler(FLOW).sample(
            lambda x, t: self._endpoint(x, t, start, molecule),
            _state(start),
            even_times(walk.steps),
            after_step=tell,
        )
        return without_overlaps(_placed(start, end)).positions.to(loose.positions)

    def read(self, poses: ClusterPoses) -> ClusterMolecule:
        """The molecule of each cluster as the network knows it, whatever the poses."""
        anchors, group, present = anchor_points(poses.numbers, poses.local, ANCHORS)
        return self.network.read(MoleculeBatch(poses.numbers, poses.local, group, anchors, present))

    def _poses(self, clusters: ClusterBatch) -> ClusterPoses:
        weight = next(self.parameters())
        return poses_of_clusters(replace(clusters, positions=clusters.positions.to(weight)))

    def _endpoint(
        self, x: State, t: Float[Tensor, " batch"], like: ClusterPoses, molecule: ClusterMolecule
    ) -> State:
        """The cluster at time 1."""
        frame = _placed(like, x).frame
        shift, turn = self.network(x["centroid"], frame, t, molecule)
        return FIELDS.exp(x, {"centroid": shift, "rotation": turn})


def noised(poses: ClusterPoses, generator: torch.Generator) -> ClusterPoses:
    """Every molecule moved a little, by normal shifts and turns."""

    def normal() -> Float[Tensor, "batch molecules 3"]:
        drawn = torch.randn(poses.centroid.shape, generator=generator, device=generator.device)
        return drawn.to(poses.centroid)

    moved = FIELDS.exp(_state(poses), {"centroid": SHIFT_NOISE * normal(), "rotation": TURN_NOISE * normal()})
    return _placed(poses, moved)


@torch.no_grad()
def nearest_goal(start: ClusterPoses, final: ClusterPoses) -> ClusterPoses:
    """The final cluster with its molecules dealt to those of the start and turned as near, superposed on the start.

    Of one shape both. Each molecule takes the hand of the one that it is dealt to. Where hands do not match in number
    and the mirror image is another molecule, it is mirrored across its thinnest direction.
    """
    maps, fits = shape_symmetries(final.numbers, final.local)
    label = torch.zeros_like(start.hand, dtype=torch.long)
    goal = final
    for _ in range(DEALS):
        equal = goal.frame[:, :, None] @ maps[:, None]  # batch molecules maps 3 3
        cost, which = _cost(start, goal, equal, fits)
        order = assign(cost.mT, label)
        chosen = which.gather(2, order[..., None])[..., 0]
        row = torch.arange(len(order), device=order.device)[:, None]
        centroid, frame = permuted(goal.centroid, order), equal[row, order, chosen]
        fit = kabsch(centroid, start.centroid)
        goal = replace(
            final,
            centroid=centroid @ fit.rotation.mT + fit.translation[:, None],
            frame=fit.rotation[:, None] @ frame,
        )
    return goal


def _cost(
    start: ClusterPoses,
    goal: ClusterPoses,
    equal: Float[Tensor, "batch molecules maps 3 3"],
    fits: Tensor,
) -> tuple[Float[Tensor, "batch molecules molecules"], Tensor]:
    """What it costs to deal molecules of the goal (columns) to those of the start (rows), and by which map it is least.

    Å^2. Where F A has the other hand than the start's frame a map does not count.
    """
    trace = torch.einsum("bixy,bjsxy->bijs", start.frame, equal)
    angle = ((trace - 1) / 2).clamp(-1, 1).arccos()
    other = start.hand[:, :, None, None] * torch.linalg.det(equal)[:, None] < 0
    turned = (start.gyration[:, None, None, None] * angle).square() + WRONG_HAND * ~fits[:, None, None]
    least = turned.masked_fill(other, torch.inf).min(-1)
    return torch.cdist(start.centroid, goal.centroid).square() + least.values, least.indices


def _state(poses: ClusterPoses) -> State:
    return {"centroid": poses.centroid, "rotation": poses.rotation}


def _placed(poses: ClusterPoses, state: State) -> ClusterPoses:
    return poses.moved(state["centroid"], state["rotation"])
