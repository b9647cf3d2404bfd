"""Clusters as rigid bodies: one shape, and a centroid and a frame for each copy of it.

    x_ma = c_m + F_m l_a        (atom a of molecule m, Å)

The shape l lies in a frame of its own (`own_frame`). A frame F = h R is a rotation R, or for a mirrored copy one with
the hand h = -1. Turning, shifting or mirroring the cluster does the same to c and F and leaves l as it is.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nucleate.crystal.cluster import ClusterBatch, padded_centroids
from nucleate.crystal.rigid import own_axes
from nucleate.geometry.so3 import kabsch

OPEN = 1e-3  # third moments below this share of sum |x|^3 count as 0


@dataclass(frozen=True, eq=False)
class ClusterPoses:
    """Clusters as rigid bodies; atoms padded with number 0 at the origin of the shape."""

    numbers: Int[Tensor, "batch atoms"]
    local: Float[Tensor, "batch atoms 3"]  # Å, the shape in its own frame, about its centroid
    centroid: Float[Tensor, "batch molecules 3"]  # Å
    frame: Float[Tensor, "batch molecules 3 3"]  # orthogonal

    @property
    def mask(self) -> Bool[Tensor, "batch atoms"]:
        return self.numbers > 0

    @property
    def hand(self) -> Float[Tensor, "batch molecules"]:
        """+1, or -1 for a copy mirrored to the shape."""
        return torch.linalg.det(self.frame).sign()

    @property
    def rotation(self) -> Float[Tensor, "batch molecules 3 3"]:
        """R of F = h R: proper."""
        return self.hand[..., None, None] * self.frame

    @property
    def gyration(self) -> Float[Tensor, " batch"]:
        """Radius of gyration of the shape (Å)."""
        return (self.local.square().sum((1, 2)) / self.mask.sum(1)).sqrt()

    @property
    def positions(self) -> Float[Tensor, "batch molecules atoms 3"]:
        """Å, padding at the origin."""
        placed = self.centroid[:, :, None] + self.local[:, None] @ self.frame.mT
        return torch.where(self.mask[:, None, :, None], placed, 0.0)

    def moved(
        self, centroid: Float[Tensor, "batch molecules 3"], rotation: Float[Tensor, "batch molecules 3 3"]
    ) -> "ClusterPoses":
        """The same molecules, each of its own hand, elsewhere."""
        return replace(self, centroid=centroid, frame=self.hand[..., None, None] * rotation)


def poses_of_clusters(clusters: ClusterBatch) -> ClusterPoses:
    """The shape of each cluster's first molecule and the frames of all that fit best."""
    arms = clusters.positions[:, 0] - clusters.centroids[:, :1]
    arms = torch.where(clusters.mask[..., None], arms, 0.0)
    return fitted(clusters.numbers, arms @ own_frame(arms), clusters.positions)


def fitted(
    numbers: Int[Tensor, "batch atoms"],
    local: Float[Tensor, "batch atoms 3"],
    positions: Float[Tensor, "batch molecules atoms 3"],
) -> ClusterPoses:
    """Frames of least RMSD of copies (Å) of a shape, atom by atom; proper where both hands fit, as flat shapes do."""
    mask = numbers > 0
    centroid = padded_centroids(positions, mask)
    shape, weight = torch.broadcast_tensors(local[:, None], positions)[0], mask[:, None].to(local)
    fit = kabsch(shape, positions, weight.expand(shape.shape[:-1]), allow_mirror=True)
    return ClusterPoses(numbers, local, centroid, fit.rotation)


def own_frame(arms: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch 3 3"]:
    """Columns: principal axes of centred atoms, each pointing where the shape is heavier by its third moment.

    So mirror images have mirrored frames. A direction that the moment leaves open, as across a flat molecule, makes
    the frame right-handed.
    """
    axes = own_axes(arms)
    moment = (arms @ axes.mT).pow(3).sum(-2)
    noise = OPEN * arms.square().sum(-1).pow(1.5).sum(-1, keepdim=True)
    return (axes * torch.where(moment < -noise, -1.0, 1.0)[..., None]).mT
