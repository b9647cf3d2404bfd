"""The rigid-body flow: what is dealt to what, what it learns from, and what its samples are."""

from dataclasses import replace

import pytest
import torch

from nucleate.crystal.cluster import ClusterBatch
from nucleate.crystal.cluster_poses import ClusterPoses, fitted, poses_of_clusters
from nucleate.data.clusters import Loosening, loosened
from nucleate.geometry.so3 import random_rotation
from nucleate.models import crystallization_rigid as module
from nucleate.models.crystallization import ClusterPairs, Walk
from nucleate.models.crystallization_rigid import RigidCrystallization, nearest_goal, noised

DOUBLE = {"dtype": torch.float64}
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], **DOUBLE))
MOLECULES = 6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clusters(flat=False, mirrored=True):
    """Two clusters of molecules of seven and of five atoms, far enough apart, of both hands or of one."""
    g = seeded(2)
    numbers = torch.tensor([[6, 8, 7, 6, 6, 1, 1], [6, 7, 6, 16, 1, 0, 0]])
    local = 1.5 * torch.randn(2, 7, 3, generator=g, **DOUBLE) * torch.tensor([1, 1, 1 - flat])
    weight = (numbers > 0)[..., None].double()
    local = weight * (local - (weight * local).sum(1, keepdim=True) / weight.sum(1, keepdim=True))
    grid = torch.cartesian_prod(*[torch.arange(2.0, **DOUBLE)] * 2, torch.arange(2.0, **DOUBLE))[:MOLECULES]
    centroid = 9 * grid + torch.rand(2, MOLECULES, 3, generator=g, **DOUBLE)
    hand = torch.tensor([1.0, -1, 1, -1, 1, 1] if mirrored else [1.0] * 6, **DOUBLE)[:, None, None]
    frame = hand * random_rotation(2, MOLECULES, generator=g)
    return ClusterBatch(numbers, ClusterPoses(numbers, local, centroid, frame).positions)


def moved(batch, how, seed=3):
    return replace(batch, positions=loosened(batch.positions, batch.mask, seeded(seed), how))


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    return RigidCrystallization(16, 2).double()


@pytest.fixture
def noiseless(monkeypatch):
    monkeypatch.setattr(module, "SHIFT_NOISE", 0.0)
    monkeypatch.setattr(module, "TURN_NOISE", 0.0)


# ---------------------------------------------------------------- dealing


@pytest.mark.parametrize("flat", [False, True])
def test_the_shuffled_truth_is_dealt_back(flat):
    """Turned, shifted and in another order, the goal is the truth itself, atom by atom."""
    batch = clusters(flat)
    start = poses_of_clusters(batch)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    turn = random_rotation(generator=seeded(9))
    small = torch.matrix_exp(0.05 * (turn - turn.mT))
    other = batch.positions[:, order] @ small.T + 0.5 * batch.mask[:, None, :, None]
    goal = nearest_goal(start, fitted(start.numbers, start.local, other))
    torch.testing.assert_close(goal.positions, batch.positions, atol=1e-6, rtol=0)
    torch.testing.assert_close(goal.hand, start.hand)


def test_hands_are_kept():
    """A molecule is dealt to one of its own hand, be another one nearer; flat ones have no hand."""
    batch = clusters()
    start = poses_of_clusters(batch)
    swapped = batch.positions.clone()
    first, second = batch.centroids[:, 0], batch.centroids[:, 1]  # of opposite hands
    swapped[:, 0] += (second - first)[:, None]
    swapped[:, 1] += (first - second)[:, None]
    final = fitted(start.numbers, start.local, torch.where(batch.mask[:, None, :, None], swapped, 0.0))
    goal = nearest_goal(start, final)
    assert (start.hand[:, 0] * start.hand[:, 1] < 0).all()
    torch.testing.assert_close(goal.hand, start.hand)
    apart = torch.cdist(goal.positions.flatten(1, 2), goal.positions.flatten(1, 2))
    wanted = torch.cdist(swapped.flatten(1, 2), swapped.flatten(1, 2))
    real = batch.mask[:, None].expand(-1, MOLECULES, -1).flatten(1)
    real = real[:, :, None] & real[:, None]
    torch.testing.assert_close(apart[real], wanted[real], atol=1e-6, rtol=0)


def test_wrong_hands_are_goals_of_their_own_hand():
    """Where the loose cluster has other hands than the final one, goals are poses, near, and of the loose hands."""
    batch = clusters(mirrored=False)
    start = poses_of_clusters(moved(batch, Loosening(translation=0.3, rotation=0.2, inversion=True)))
    assert (start.hand < 0).any()
    goal = nearest_goal(start, fitted(start.numbers, start.local, batch.positions))
    torch.testing.assert_close(goal.hand, start.hand)
    assert (goal.centroid - start.centroid).norm(dim=-1).max() < 2.0


def test_goals_are_never_farther_than_the_truth_in_its_order():
    batch = clusters(flat=True)
    start = poses_of_clusters(moved(batch, Loosening()))
    final = fitted(start.numbers, start.local, batch.positions)
    goal = nearest_goal(start, final)

    def far(poses):
        return (poses.centroid - start.centroid).square().sum() + (
            start.gyration[:, None] * module.SO3().distance(poses.rotation, start.rotation)
        ).square().sum()

    assert far(goal) < far(final)


# ---------------------------------------------------------------- loss and samples


def test_the_loss_reaches_every_weight(method):
    loss, parts = method(ClusterPairs(clusters()).drawn(Loosening(), seeded()), seeded())
    method.zero_grad()
    loss.backward()
    assert loss.isfinite()
    assert set(parts) == {"shift", "turn"}
    torch.testing.assert_close(loss.detach(), parts["shift"] + parts["turn"])
    silent = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_the_loss_does_not_see_the_order_of_the_final_molecules(method):
    pairs = ClusterPairs(clusters()).drawn(Loosening(), seeded())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    other = replace(pairs, final=replace(pairs.final, positions=pairs.final.positions[:, order]))
    with torch.no_grad():
        torch.testing.assert_close(
            method(pairs, seeded())[0], method(other, seeded())[0], atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize("change", ["turned", "mirrored", "reordered"])
def test_samples_follow_the_loose_cluster(method, noiseless, change):
    loose = moved(clusters(), Loosening(translation=0.5))
    order = torch.tensor([3, 0, 5, 1, 4, 2]) if change == "reordered" else torch.arange(MOLECULES)
    R = random_rotation(generator=seeded(4)) @ (MIRROR if change == "mirrored" else MIRROR @ MIRROR)
    shift = 5.0 * loose.mask[:, None, :, None]
    other = replace(loose, positions=loose.positions[:, order] @ R.mT + shift)
    before = method.sample(loose, seeded(), Walk(3))
    after = method.sample(other, seeded(), Walk(3))
    torch.testing.assert_close(after, before[:, order] @ R.mT + shift, atol=1e-7, rtol=0)
    assert (before - loose.positions).abs().max() > 0.01


def test_samples_are_rigid_differ_by_seed_and_are_watched(method):
    loose = moved(clusters(), Loosening(translation=0.5))
    seen = []
    first = method.sample(loose, seeded(1), Walk(4, lambda t, x: seen.append((t, x))))
    again, other = method.sample(loose, seeded(1), Walk(4)), method.sample(loose, seeded(2), Walk(4))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.01
    assert [t for t, _ in seen] == [0.25, 0.5, 0.75, 1.0]
    assert all(x.shape == loose.positions.shape for _, x in seen)
    for k, mask in enumerate(loose.mask):
        inside = torch.cdist(loose.positions[k][:, mask], loose.positions[k][:, mask])
        torch.testing.assert_close(
            torch.cdist(first[k][:, mask], first[k][:, mask]), inside, atol=1e-7, rtol=0
        )
        assert (first[k][:, ~mask] == 0).all()


def test_noise_is_of_its_size():
    batch = clusters()
    many = ClusterBatch(batch.numbers.repeat(300, 1), batch.positions.repeat(300, 1, 1, 1))
    start = poses_of_clusters(many)
    found = noised(start, seeded())
    shift = (found.centroid - start.centroid).square().mean().sqrt()
    turn = module.SO3().log(start.rotation, found.rotation).square().mean().sqrt()
    torch.testing.assert_close(shift, torch.tensor(module.SHIFT_NOISE, **DOUBLE), rtol=0.05, atol=0)
    torch.testing.assert_close(turn, torch.tensor(module.TURN_NOISE, **DOUBLE), rtol=0.05, atol=0)


def test_what_is_shown_is_learned(noiseless):
    torch.manual_seed(0)
    method = RigidCrystallization(16, 1)
    batch = replace(clusters(), positions=clusters().positions.float())
    pairs = ClusterPairs(batch).drawn(Loosening(translation=0.7, rotation=0.4), seeded())
    optimizer = torch.optim.Adam(method.parameters(), 4e-3)
    losses = []
    for step in range(25):
        loss, _ = method(pairs, seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
