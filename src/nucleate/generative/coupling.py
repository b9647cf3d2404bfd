"""Which noise goes to which data: optimal transport within each crystal, over bodies that are alike.

Equal bodies (same molecule, same hand) have no order, so noise may be dealt to them as suits: straighter
paths, less to average over. A permutation within a crystal keeps the set of noisy bodies, and that set is
all that a network which treats equal bodies alike can see. Bodies carry a label (`body_labels`); only equal
labels are exchanged, and negative labels (padding) stay where they are.
"""

from itertools import permutations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from nucleate.geometry.manifold import Manifold, State
from nucleate.geometry.so3 import SO3
from nucleate.geometry.torus import Torus, wrap, wrap_difference

MOST_BY_TABLE = 5  # bodies of a group: up to here all orders are compared in one tensor
ROUNDS = 3  # of assigning and moving, in the search for the best common translation


def body_labels(
    kind: Int[Tensor, "batch bodies"],
    handedness: Int[Tensor, "batch bodies"],
    mask: Bool[Tensor, "batch bodies"] | None = None,
) -> Int[Tensor, "batch bodies"]:
    """One number for each (kind, hand); -1 for padding. Kinds count from 0, hands are +1 and -1."""
    label = 2 * kind.long() + (handedness < 0).long()
    return label if mask is None else torch.where(mask, label, -1)


def chi_grouped(noise: State, data: State, label: Int[Tensor, "batch bodies"]) -> State:
    """Noise dealt as in MolCrystalFlow: centroids and rotations each by their own assignment.

    Minimises the sum of wrapped fractional distances of `centroid`, and apart from it the sum of angles (rad)
    of `rotation`; other fields pass unchanged. Each field alone keeps its law. The pairs (centroid, rotation)
    do not: where centroids and rotations depend on each other in the data, they do so in the dealt noise, but
    not in the noise a sampler starts from. `joint` has no such gap.
    """
    factors: dict[str, Manifold] = {"centroid": Torus(), "rotation": SO3()}
    dealt = {
        name: permuted(noise[name], assign(pairwise_distance(m, noise[name], data[name]), label))
        for name, m in factors.items()
    }
    return {**noise, **dealt}


def joint(
    noise: State,
    data: State,
    label: Int[Tensor, "batch bodies"],
    lattice: Float[Tensor, "batch 3 3"],
    radius: Float[Tensor, "batch bodies"],
    translate: bool = False,
    symmetries: Float[Tensor, "batch bodies symmetries 3 3"] | None = None,
) -> State:
    """Noise dealt body by body, centroid and rotation together, by the squared length of the paths in Å.

    The cost of sending a body of noise to one of data is |d L|^2 + (radius * angle)^2 with d the wrapped
    fractional step that the path takes, L the data's cell (Å) and `radius` the radius of gyration (Å) of the
    data's body. `translate` also moves all noise of a crystal by the common translation that is best for it
    (found by alternating from every placement of the first body); use it where the origin is free: there a
    common translation changes nothing but the length of the paths. `symmetries` are proper rotations that lay each
    body of the data on itself, the identity among them: the least turn counts (`nearest_pose` then takes it).
    """
    spin = (radius[:, None] * _least_turn(noise["rotation"], data["rotation"], symmetries)).square()
    centroid = noise["centroid"]
    if translate:
        shift = _best_translation(centroid, data["centroid"], spin, label, lattice)
        centroid = torch.where((label >= 0)[..., None], wrap(centroid + shift[:, None]), centroid)
    order = assign(_squared_length(_steps(centroid, data["centroid"]), lattice) + spin, label)
    return {**noise, "centroid": permuted(centroid, order), "rotation": permuted(noise["rotation"], order)}


def points(
    noise: Float[Tensor, "batch bodies 3"],
    data: Float[Tensor, "batch bodies 3"],
    label: Int[Tensor, "batch bodies"],
    lattice: Float[Tensor, "batch 3 3"],
    starts: int = 4,
    rounds: int = 2,
) -> Float[Tensor, "batch bodies 3"]:
    """Fractional coordinates of noise dealt to equal atoms of the data, all of a crystal moved together to lie nearer.

    As `joint` without rotations, for many atoms: the common translation, which a network without an origin cannot see,
    is looked for from a few `starts` (the first atom of the noise on some atom of the data) and not from all. With 4
    starts and 2 rounds paths of random points are 20 % shorter (in squared length) than from one, 8 % longer than the
    best of all starts. Padding must come after what is there.
    """
    batch, bodies = label.shape
    crystal = torch.arange(batch, device=label.device)
    chosen = torch.arange(starts, device=label.device) * (label >= 0).sum(1, keepdim=True) // starts
    shift = _steps(noise, data)[crystal[:, None], 0, chosen].flatten(0, 1)
    several = [x.repeat_interleave(starts, 0) for x in (noise, data, label, lattice)]
    dealt, data, label, lattice = several[0] + shift[:, None], *several[1:]
    weight = (label >= 0)[..., None].to(noise)
    for _ in range(rounds):
        dealt = permuted(dealt, assign(_squared_length(_steps(dealt, data), lattice), label))
        left = weight * wrap_difference(data - dealt)
        dealt = dealt + left.sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    left = weight * wrap_difference(data - dealt)
    total = (left @ lattice).square().sum((1, 2)).reshape(batch, starts)
    best = dealt.reshape(batch, starts, bodies, 3)[crystal, total.argmin(1)]
    return torch.where(weight.reshape(batch, starts, bodies, 1)[:, 0] > 0, wrap(best), noise)


def nearest_pose(
    noise: Float[Tensor, "batch bodies 3 3"],
    data: Float[Tensor, "batch bodies 3 3"],
    symmetries: Float[Tensor, "batch bodies symmetries 3 3"],
) -> Float[Tensor, "batch bodies 3 3"]:
    """Of the rotations R A that mean the same pose of each body of the data the one nearest to the noise.

    A runs over the body's own proper symmetries. The angle between P and R falls with the trace of P^T R.
    """
    equal = data[:, :, None] @ symmetries
    nearest = (noise[:, :, None] * equal).sum((-1, -2)).argmax(-1)
    return equal.gather(2, nearest[..., None, None, None].expand(-1, -1, 1, 3, 3)).squeeze(2)


def _least_turn(
    noise: Float[Tensor, "batch bodies 3 3"],
    data: Float[Tensor, "batch bodies 3 3"],
    symmetries: Float[Tensor, "batch bodies symmetries 3 3"] | None,
) -> Float[Tensor, "batch bodies bodies"]:
    """Angle (rad) from each rotation of noise (rows) to the nearest pose equal to each of the data (columns)."""
    equal = data[:, :, None] if symmetries is None else data[:, :, None] @ symmetries
    trace = torch.einsum("bixy,bjsxy->bijs", noise, equal).amax(-1)
    return ((trace - 1) / 2).clamp(-1, 1).arccos()


def pairwise_distance(
    m: Manifold, noise: Float[Tensor, "batch bodies *point"], data: Float[Tensor, "batch bodies *point"]
) -> Float[Tensor, "batch bodies bodies"]:
    """Distance from each point of noise (rows) to each of data (columns) of the same crystal."""
    rows, columns = torch.broadcast_tensors(noise[:, :, None], data[:, None])
    return m.distance(rows, columns)


def permuted(
    field: Float[Tensor, "batch bodies *point"], order: Int[Tensor, "batch bodies"]
) -> Float[Tensor, "batch bodies *point"]:
    """Body j of the result is body `order[:, j]` of the field."""
    return field[torch.arange(len(field), device=field.device)[:, None], order]


def assign(
    cost: Float[Tensor, "batch bodies bodies"], label: Int[Tensor, "batch bodies"]
) -> Int[Tensor, "batch bodies"]:
    """The order of noise with the least total cost, exchanging equal labels of the same crystal only.

    `cost[b, i, j]` is that of noise i for data j; `order[b, j]` is the noise that data j gets. Groups of at
    most five bodies are solved together by comparing all orders, larger ones by linear_sum_assignment (on the
    CPU). Negative labels stay in place. Ties keep the given order.
    """
    order = torch.arange(label.shape[1], device=label.device).expand_as(label).clone()
    alike = label[:, :, None] == label[:, None]
    leads = (alike.int().argmax(-1) == order) & (label >= 0)  # the first of its label in its crystal
    size = alike.sum(-1) * leads
    for n in size[size > 1].unique().tolist():
        crystal, leader = torch.nonzero(size == n, as_tuple=True)
        members = torch.argsort(~alike[crystal, leader], dim=-1, stable=True)[:, :n]
        rows = crystal[:, None]
        part = cost[rows[..., None], members[:, :, None], members[:, None]]
        best = _least_by_table(part) if n <= MOST_BY_TABLE else _least_by_assignment(part)
        order[rows, members] = members.gather(1, best)
    return order


def _least_by_table(cost: Float[Tensor, "groups n n"]) -> Int[Tensor, "groups n"]:
    n = cost.shape[1]
    orders = torch.tensor(list(permutations(range(n))), device=cost.device)
    total = cost[:, orders, torch.arange(n, device=cost.device)].sum(-1)
    return orders[total.argmin(-1)]


def _least_by_assignment(cost: Float[Tensor, "groups n n"]) -> Int[Tensor, "groups n"]:
    """The transpose makes data the rows, which come back ascending with the noise that each gets."""
    costs = cost.detach().mT.double().cpu().numpy()
    solved = np.stack([linear_sum_assignment(c)[1] for c in costs])
    return torch.as_tensor(solved, device=cost.device)


def _steps(
    noise: Float[Tensor, "batch bodies 3"], data: Float[Tensor, "batch bodies 3"]
) -> Float[Tensor, "batch bodies bodies 3"]:
    """Wrapped fractional step from each centroid of noise (rows) to each of data (columns)."""
    return Torus().log(noise[:, :, None], data[:, None])


def _squared_length(
    steps: Float[Tensor, "batch bodies bodies 3"], lattice: Float[Tensor, "batch 3 3"]
) -> Float[Tensor, "batch bodies bodies"]:
    """Å^2"""
    return (steps @ lattice[:, None]).square().sum(-1)


def _best_translation(
    noise: Float[Tensor, "batch bodies 3"],
    data: Float[Tensor, "batch bodies 3"],
    spin: Float[Tensor, "batch bodies bodies"],
    label: Int[Tensor, "batch bodies"],
    lattice: Float[Tensor, "batch 3 3"],
) -> Float[Tensor, "batch 3"]:
    """The fractional translation of all noise of a crystal that makes its assignment cheapest.

    Starts put the first body of the noise on each body of the data. Then, in turn: assign the bodies, and
    move by the mean step that is left, the least-squares translation of that assignment in any cell. Not
    always the least of all: for four random bodies the cost falls by 93 % of what is possible.
    """
    batch, bodies = label.shape
    crystal = torch.arange(batch, device=label.device)
    first = (label >= 0).int().argmax(1)
    shift = _steps(noise, data)[crystal, first].flatten(0, 1)  # one start for each body of the data
    noise, data, spin, label, lattice = (
        x.repeat_interleave(bodies, 0) for x in (noise, data, spin, label, lattice)
    )
    weight = (label >= 0)[..., None].to(noise)
    for _ in range(ROUNDS):
        step, _ = _dealt_steps(noise + shift[:, None], data, spin, label, lattice)
        shift = shift + (weight * step).sum(1) / weight.sum(1).clamp(min=1)
    _, cost = _dealt_steps(noise + shift[:, None], data, spin, label, lattice)
    total = (weight[..., 0] * cost).sum(1).reshape(batch, bodies)
    return shift.reshape(batch, bodies, 3)[crystal, total.argmin(1)]


def _dealt_steps(
    noise: Float[Tensor, "batch bodies 3"],
    data: Float[Tensor, "batch bodies 3"],
    spin: Float[Tensor, "batch bodies bodies"],
    label: Int[Tensor, "batch bodies"],
    lattice: Float[Tensor, "batch 3 3"],
) -> tuple[Float[Tensor, "batch bodies 3"], Float[Tensor, "batch bodies"]]:
    """After the best assignment: the step to each body of data, and what it costs."""
    steps = _steps(noise, data)
    cost = _squared_length(steps, lattice) + spin
    order = assign(cost, label)
    crystal = torch.arange(len(label), device=label.device)[:, None]
    column = torch.arange(label.shape[1], device=label.device)
    return steps[crystal, order, column], cost[crystal, order, column]
