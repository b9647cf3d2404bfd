"""Molecules of a cluster pushed apart, as rigid bodies, until none runs into another.

Two atoms of different molecules overlap by o = limit - d where they are nearer than the least distance for their kind
(`metrics.clashes`), below which hardly any contact of a crystal is. Every molecule follows the mean push of its
overlaps,

    step of the centroid = sum o u / 2n,      turn = (2 I + 1)^-1 sum a x o u

with n overlapping pairs of it, unit vectors u away from the other atom, arms a from the centroid (Å) and the stiffness
I = sum (a x u)(a x u)^T. What overlaps nowhere stays where it is, to the bit, and no cluster sees others of its batch.
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

ROUNDS, STEPS = 16, 6  # pairs are looked for anew after so many steps
# rounds after which overlaps mean molecules that are threaded into each other: their centroids part
LOCKED = 8
MARGIN = 0.05  # Å that overlapping atoms are asked to keep beyond the limit
REACH = 1.0  # Å: pairs nearer than their limit and this are followed
LARGEST_STEP = 0.5  # Å along each axis, and rad


@dataclass(frozen=True, eq=False)
class NearAtoms:
    """Pairs of atoms of different molecules, both ways round; molecules and atoms numbered through the batch."""

    molecule: Int[Tensor, " pairs"]
    other: Int[Tensor, " pairs"]
    atom: Int[Tensor, " pairs"]
    other_atom: Int[Tensor, " pairs"]
    limit: Float[Tensor, " pairs"]  # Å

    def apart(self, poses: ClusterPoses) -> Float[Tensor, "pairs 3"]:
        """Å, from the other atom to the atom."""
        x = poses.positions.flatten(0, 2)
        return x[self.atom] - x[self.other_atom]

    def overlap(self, poses: ClusterPoses) -> Float[Tensor, " pairs"]:
        """Å to part, with `MARGIN`; 0 where a pair is not nearer than its limit."""
        distance = self.apart(poses).norm(dim=-1)
        return torch.where(distance < self.limit, self.limit + MARGIN - distance, 0.0)


@torch.no_grad()
def without_overlaps(poses: ClusterPoses) -> ClusterPoses:
    """The clusters with their molecules pushed apart, in at most `ROUNDS` times `STEPS` steps."""
    limit = least_distances(poses.numbers, poses.local)
    for k in range(ROUNDS):
        near = near_atoms(poses, limit)
        if not near.overlap(poses).any():
            break
        for _ in range(STEPS):
            poses = _pushed(poses, near, locked=k >= LOCKED)
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


def _pushed(poses: ClusterPoses, near: NearAtoms, locked: bool) -> ClusterPoses:
    """One step; of molecules that are `locked` along the line of their centroids."""
    c = poses.centroid.flatten(0, 1)
    apart, overlap = near.apart(poses), near.overlap(poses)[:, None]
    away = c[near.molecule] - c[near.other] if locked else apart
    u = away / away.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    twist = torch.linalg.cross(poses.positions.flatten(0, 2)[near.atom] - c[near.molecule], u)
    met = (overlap > 0).to(overlap)

    def total(values: Float[Tensor, "pairs numbers"]) -> Float[Tensor, "bodies numbers"]:
        return values.new_zeros(len(c), values.shape[1]).index_add(0, near.molecule, values)

    shift = total(overlap * u) / (2 * total(met).clamp(min=1))
    stiffness = total((met * twist)[:, :, None].mul(twist[:, None]).flatten(1)).unflatten(1, (3, 3))
    softened = 2 * stiffness + torch.eye(3, dtype=c.dtype, device=c.device)
    turn = torch.linalg.solve(softened, total(overlap * twist))
    shift, turn = (v.clamp(-LARGEST_STEP, LARGEST_STEP).reshape(poses.centroid.shape) for v in (shift, turn))
    return poses.moved(poses.centroid + shift, rotation_exp(turn) @ poses.rotation)
