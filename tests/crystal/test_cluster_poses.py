"""Clusters as rigid bodies: poses give back the positions, and shapes know their own symmetries."""

import math

import pytest
import torch

from nucleate.crystal.cluster import ClusterBatch
from nucleate.crystal.cluster_poses import ClusterPoses, poses_of_clusters
from nucleate.crystal.shapes import anchor_points, hydrogen_bonding, shape_symmetries
from nucleate.geometry.so3 import random_rotation

DOUBLE = {"dtype": torch.float64}
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], **DOUBLE))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ring(radius, n, number, height=0.0, phase=0.0):
    angle = 2 * math.pi * torch.arange(n, **DOUBLE) / n + phase
    return [number] * n, torch.stack([radius * angle.cos(), radius * angle.sin(), 0 * angle + height], 1)


def joined(*parts):
    numbers = torch.tensor([z for part in parts for z in part[0]])
    positions = torch.cat([part[1] for part in parts])
    return numbers, positions - positions.mean(0)


def blob(n=7, flat=False):
    positions = 1.5 * torch.randn(n, 3, generator=seeded(3), **DOUBLE)
    if flat:
        positions[:, 2] = 0
    return torch.tensor([6, 8, 7, 6, 6, 1, 1])[:n], positions - positions.mean(0)


SHAPES = {
    "chiral": blob(),
    "flat": blob(flat=True),
    "diatomic": (torch.tensor([6, 8]), torch.tensor([[0.0, 0, 0.6], [0, 0, -0.6]], **DOUBLE)),
    "benzene": joined(ring(1.39, 6, 6), ring(2.48, 6, 1)),
    "propeller": joined(ring(1.4, 3, 6), ring(2.5, 3, 8, 0.5, 0.3), ring(2.5, 3, 7, -0.5, 0.9)),
}


def clusters(names, molecules=5, mirrored=True, seed=1):
    """Copies of each shape, turned, and of either hand."""
    g = seeded(seed)
    numbers = torch.nn.utils.rnn.pad_sequence([SHAPES[n][0] for n in names], batch_first=True)
    local = torch.nn.utils.rnn.pad_sequence([SHAPES[n][1] for n in names], batch_first=True)
    hand = torch.where(torch.rand(len(names), molecules, generator=g) < 0.5 * mirrored, -1.0, 1.0).double()
    frame = hand[..., None, None] * random_rotation(len(names), molecules, generator=g)
    centroid = 9 * torch.randn(len(names), molecules, 3, generator=g, **DOUBLE)
    return ClusterBatch(numbers, ClusterPoses(numbers, local, centroid, frame).positions)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_poses_give_back_the_positions(dtype):
    batch = clusters(list(SHAPES))
    single = ClusterBatch(batch.numbers, batch.positions.to(dtype))
    poses = poses_of_clusters(single)
    torch.testing.assert_close(
        poses.positions, single.positions, atol=1e-10 if dtype == torch.float64 else 1e-4, rtol=0
    )
    eye = torch.eye(3, dtype=dtype).expand_as(poses.frame)
    torch.testing.assert_close(poses.frame @ poses.frame.mT, eye, atol=1e-5, rtol=0)
    assert poses.positions.dtype == dtype


@pytest.mark.parametrize("change", ["turned", "mirrored", "other first"])
def test_the_shape_belongs_to_the_molecule(change):
    """Not to where the cluster lies, in which hand it is written, or which copy comes first."""
    batch = clusters(["chiral"])
    R = random_rotation(generator=seeded(5)) @ (MIRROR if change == "mirrored" else MIRROR @ MIRROR)
    order = torch.tensor([4, 2, 0, 1, 3]) if change == "other first" else torch.arange(5)
    before = poses_of_clusters(batch)
    after = poses_of_clusters(ClusterBatch(batch.numbers, batch.positions[:, order] @ R.mT + 3.0))
    torch.testing.assert_close(after.local, before.local, atol=1e-9, rtol=0)
    torch.testing.assert_close(after.frame, R @ before.frame[:, order], atol=1e-9, rtol=0)


def test_flat_molecules_have_one_hand():
    assert (poses_of_clusters(clusters(["flat"], molecules=12)).hand == 1).all()
    assert (poses_of_clusters(clusters(["chiral"], molecules=12)).hand == -1).any()


def distinct(maps):
    found = []
    for A in maps:
        if all((A - B).abs().max() > 0.1 for B in found):
            found.append(A)
    return found


@pytest.mark.parametrize(
    ("name", "proper", "improper"),
    [("chiral", 1, 0), ("flat", 1, 1), ("benzene", 12, 12), ("propeller", 3, 0)],
)
def test_symmetries_are_all_found_and_are_symmetries(name, proper, improper):
    poses = poses_of_clusters(clusters([name, "chiral"]))
    maps, fits = shape_symmetries(poses.numbers, poses.local)
    found = distinct(maps[0][fits[0]])
    hands = [float(torch.linalg.det(A)) for A in found]
    assert (sum(h > 0 for h in hands), sum(h < 0 for h in hands)) == (proper, improper)
    torch.testing.assert_close(maps[0, 0], torch.eye(3, **DOUBLE))
    heavy = poses.local[0][poses.numbers[0] > 1]
    for A in found:
        assert torch.cdist(heavy @ A.mT, heavy).amin(1).max() < 1e-3
        torch.testing.assert_close(A @ A.mT, torch.eye(3, **DOUBLE))
    assert torch.linalg.det(maps[0, 1]) < 0


def test_anchors_are_polar_and_spread():
    """Methanol: the hydrogen on oxygen counts, those on carbon do not; every atom belongs to a real anchor."""
    numbers = torch.tensor([[6, 8, 1, 1, 1, 1, 0]])
    x = [
        [0, 0, 0],
        [1.4, 0, 0],
        [1.8, 0.9, 0],
        [-0.4, 1, 0],
        [-0.4, -0.5, 0.9],
        [-0.4, -0.5, -0.9],
        [0, 0, 0],
    ]
    local = torch.tensor([x], **DOUBLE)
    polar, donor = hydrogen_bonding(numbers, local)
    assert polar[0].tolist() == [False, False, True, False, False, False, False]
    assert donor[0].tolist() == [False, True, False, False, False, False, False]
    anchors, group, present = anchor_points(numbers, local, 5)
    assert present.sum() == 3
    assert present[0, group[0, :6]].all()
    assert torch.cdist(local[0, :3], anchors[0, present[0]]).amin(1).max() < 1e-9
    fewer, group, present = anchor_points(numbers, local, 2)
    assert present.all()
    assert fewer.shape == (1, 2, 3)
