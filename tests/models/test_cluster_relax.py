"""Overlaps go, what does not overlap stays, and no cluster sees the others of its batch."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nucleate.crystal.cluster import ClusterBatch
from nucleate.crystal.cluster_poses import ClusterPoses, poses_of_clusters
from nucleate.crystal.io import read_crystal
from nucleate.data.clusters import Loosening, cluster_of, loosened
from nucleate.metrics.clusters import collision_between
from nucleate.models.cluster_relax import least_distances, near_atoms, without_overlaps

DATA = Path(__file__).parents[1] / "data"
NAMES = ["cod_1100989", "cod_2000380", "cod_2100840"]
MOLECULES = 9


@pytest.fixture(scope="module")
def truth() -> ClusterPoses:
    crystals = [cluster_of(read_crystal(DATA / f"{name}.cif"), MOLECULES) for name in NAMES]
    return poses_of_clusters(ClusterBatch.from_list(crystals))


@pytest.fixture(scope="module")
def loose(truth: ClusterPoses) -> ClusterPoses:
    generator = torch.Generator().manual_seed(0)
    moved = loosened(truth.positions, truth.mask, generator, Loosening(translation=1.5))
    return poses_of_clusters(ClusterBatch(truth.numbers, moved))


def overlapping(poses: ClusterPoses) -> list[int]:
    """Pairs of atoms nearer than their limit in each cluster."""
    limit = least_distances(poses.numbers, poses.local)
    near = near_atoms(poses, limit)
    hit = near.overlap(poses) > 0
    return torch.bincount(near.molecule[hit] // MOLECULES, minlength=len(limit)).tolist()


def test_overlaps_are_removed(loose):
    assert min(overlapping(loose)) > 0
    relaxed = without_overlaps(loose)
    assert overlapping(relaxed) == [0, 0, 0]
    for numbers, x in zip(relaxed.numbers, relaxed.positions):
        real = numbers > 0
        assert collision_between(x[:, real], numbers[real]) == 0


def test_molecules_stay_rigid_and_of_their_hand(loose):
    relaxed = without_overlaps(loose)
    eye = torch.eye(3, dtype=torch.float64).expand_as(relaxed.frame)
    torch.testing.assert_close(relaxed.frame @ relaxed.frame.mT, eye, atol=1e-9, rtol=0)
    torch.testing.assert_close(relaxed.hand, loose.hand)
    assert relaxed.local is loose.local


def test_crystals_stay_as_they_are(truth):
    assert torch.equal(without_overlaps(truth).positions, truth.positions)


def test_clusters_of_a_batch_do_not_see_each_other(truth, loose):
    first = slice(0, 1)
    alone = ClusterPoses(loose.numbers[first], loose.local[first], loose.centroid[first], loose.frame[first])
    mixed = replace(
        loose,
        centroid=torch.cat([loose.centroid[first], truth.centroid[1:]]),
        frame=torch.cat([loose.frame[first], truth.frame[1:]]),
    )
    relaxed = without_overlaps(mixed)
    torch.testing.assert_close(relaxed.positions[first], without_overlaps(alone).positions, atol=1e-9, rtol=0)
    assert torch.equal(relaxed.positions[1:], mixed.positions[1:])


def test_near_pairs_are_all_pairs(loose):
    """Against all distances of all atoms, both ways round."""
    limit = least_distances(loose.numbers, loose.local)
    near = near_atoms(loose, limit)
    n = loose.local.shape[1]
    wanted = 0
    for x, numbers, least in zip(loose.positions, loose.numbers, limit):
        flat, kind = x.flatten(0, 1), numbers.repeat(MOLECULES)
        owner, atom = torch.arange(len(flat)) // n, torch.arange(len(flat)) % n
        pair = (owner[:, None] != owner) & (kind > 0)[:, None] & (kind > 0)
        wanted += int((pair & (torch.cdist(flat, flat) < least[atom[:, None], atom] + 1.0)).sum())
    assert len(near.limit) == wanted
