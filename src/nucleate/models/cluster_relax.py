"""Molecules of a cluster pushed apart, as rigid bodies, until none runs into another.

Two atoms of different molecules overlap by o = limit - d where they are nearer than the least distance for their kind
(`metrics.clashes`), below which hardly any contact of a crystal is. Every molecule follows the mean push of its
overlaps,

    step of the centroid = sum o u / 2n,      turn = (I + 1)^-1 sum a x o u / 2

with n overlapping pairs of it, unit vectors u away from the other atom, arms a from the centroid (Å) and the stiffness
I = sum (a x u)(a x u)^T; a part of each step is carried on to the next. A cluster without overlaps stays as it is, to
the bit, and none sees the others of its batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.cluster_poses import ClusterPoses
from nucleate.crystal.shapes import hydrogen_bonding
from nucleate.geometry.so3 import rotation_exp
from nucleate.metrics.clashes import COVALENT, LIMITS, pair_kinds, references

ROUNDS, STEPS = 12, 8  # pairs are looked for anew after so many steps
MARGIN = 0.05  # Å that overlapping atoms are asked to keep beyond the limit
REACH = 1.0  # Å: pairs nearer than their limit and this are followed
CARRY = 0.6  # of a step into the next
LARGEST_STEP = 0.5  # Å


@dataclass(frozen=True, eq=False)
class NearAtoms:
    """Pairs of atoms of different molecules, both ways round; molecules numbered through the batch."""

    molecule: Int[Tensor, " pairs"]
    other: Int[Tensor, " pairs"]
    atom: Int[Tensor, " pairs"]  # numbered through the batch, of one molecule each
    other_atom: Int[Tensor, " pairs"]
    limit: Float[Tensor, " pairs"]  # Å


@torch.no_grad()
def without_overlaps(poses: ClusterPoses) -> ClusterPoses:
    """The clusters with their molecules pushed apart, in at most `ROUNDS` times `STEPS` steps."""
    limit = least_distances(poses.numbers, poses.local)
    carried = poses.centroid.new_zeros(2, *poses.centroid.shape)
    for _ in range(ROUNDS):
        near = near_atoms(poses, limit)
        for _ in range(STEPS):
            poses, carried = _pushed(poses, near, carried)
        if not carried.any():
            break
    return poses


def least_distances(
    numbers: Int[Tensor, "batch atoms"], local: Float[Tensor, "batch atoms 3"]
) -> Float[Tensor, "batch atoms atoms"]:
    """The distance (Å) of an atom of one molecule and one of another copy below which they overlap; 0 for padding.

    The limits of `metrics.clashes`, and never less than the sum of covalent radii.
    """
    polar, donor = (x.flatten().cpu().numpy() for x in hydrogen_bonding(numbers, local))
    flat, place = numbers.flatten().cpu().numpy(), np.arange(numbers.numel()).reshape(numbers.shape)
    i, j = np.broadcast_arrays(place[:, :, None], place[:, None])
    kind = pair_kinds(flat, polar, donor, i, j)
    bare = COVALENT[flat[i]] + COVALENT[flat[j]]
    limit = np.maximum(np.array(LIMITS)[kind] * references(flat, kind, i, j), bare)
    return torch.from_numpy(limit * (flat[i] > 0) * (flat[j] > 0)).to(local)


def near_atoms(poses: ClusterPoses, limit: Float[Tensor, "batch atoms atoms"]) -> NearAtoms:
    """Pairs of atoms of different molecules within their limit and `REACH`."""
    m, n = poses.centroid.shape[1], poses.local.shape[1]
    size = poses.local.norm(dim=-1).amax(1)
    sight = 2 * size + limit.amax((1, 2)) + REACH
    close = torch.cdist(poses.centroid, poses.centroid) < sight[:, None, None]
    close &= ~torch.eye(m, dtype=torch.bool, device=close.device)
    batch, i, j = torch.nonzero(close, as_tuple=True)
    x = poses.positions
    reach = torch.where(limit > 0, limit + REACH, 0.0)
    pair, k, q = torch.nonzero(torch.cdist(x[batch, i], x[batch, j]) < reach[batch], as_tuple=True)
    first, second = (batch * m + i)[pair], (batch * m + j)[pair]
    return NearAtoms(first, second, first * n + k, second * n + q, limit[batch[pair], k, q])


def _pushed(
    poses: ClusterPoses, near: NearAtoms, carried: Float[Tensor, "2 batch molecules 3"]
) -> tuple[ClusterPoses, Float[Tensor, "2 batch molecules 3"]]:
    """One step, and what is carried into the next: shifts (Å) and turns (rad) of the molecules."""
    shape = poses.centroid.shape
    x, c = poses.positions.flatten(0, 2), poses.centroid.flatten(0, 1)
    apart = x[near.atom] - x[near.other_atom]
    distance = apart.norm(dim=-1, keepdim=True)
    overlap = torch.where(distance < near.limit[:, None], near.limit[:, None] + MARGIN - distance, 0.0)
    u = apart / distance.clamp(min=1e-3)
    twist = torch.linalg.cross(x[near.atom] - c[near.molecule], u)
    met = (overlap > 0).to(x)

    def total(values: Float[Tensor, "pairs numbers"]) -> Float[Tensor, "bodies numbers"]:
        return values.new_zeros(len(c), values.shape[1]).index_add(0, near.molecule, values)

    count = total(met)
    shift = total(overlap * u) / (2 * count.clamp(min=1))
    inertia = total((met * twist)[:, :, None].mul(twist[:, None]).flatten(1)).unflatten(1, (3, 3))
    softened = 2 * inertia + torch.eye(3, dtype=x.dtype, device=x.device)
    turn = torch.linalg.solve(softened, total(overlap * twist))
    busy = (count.reshape(shape[:2]).sum(1) > 0)[:, None, None]
    moved = torch.stack([shift, turn]).reshape(carried.shape) + CARRY * carried
    moved = torch.where(busy, moved.clamp(-LARGEST_STEP, LARGEST_STEP), 0.0)
    rotation = rotation_exp(moved[1]) @ poses.rotation
    return poses.moved(poses.centroid + moved[0], rotation), moved
