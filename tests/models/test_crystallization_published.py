"""Laws of the published methods: what moves with a cluster, what a perfect network ends on, what can be learnt."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from nucleate.crystal.cluster import ClusterBatch
from nucleate.data.clusters import Loosening
from nucleate.generative import diffusion
from nucleate.geometry.so3 import random_rotation
from nucleate.models.crystallization import ClusterPairs, Walk
from nucleate.models.crystallization_published import METHODS, UNIT, Denoising, ScoreModel

NOISY = [name for name in METHODS if name not in ("regression", "lerp")]
SIZE = {"width": 16, "layers": 2, "basis": 8, "cutoff": 15.0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(name, dtype=torch.float64, loudness=30.0, **size):
    torch.manual_seed(1)
    method = METHODS[name](**{**SIZE, **size})
    with torch.no_grad():  # a first answer is small on purpose; here it shall be of order one
        method.network.head.mix.weight.mul_(loudness)
    for message in method.network.atoms.messages:
        message.neighbours = 10.0  # clusters are small here
    return method.to(dtype)


def ordered(dtype=torch.float64):
    """Two clusters of three molecules of five and four atoms, the second padded."""
    numbers = torch.tensor([[6, 6, 7, 8, 1], [6, 7, 8, 1, 0]])
    local = 1.2 * torch.randn(2, 1, 5, 3, generator=seeded(), dtype=dtype)
    place = 4.0 * torch.randn(2, 3, 1, 3, generator=seeded(1), dtype=dtype)
    return ClusterBatch(numbers, torch.where(numbers[:, None, :, None] > 0, local + place, 0.0))


def pairs(dtype=torch.float64):
    return ClusterPairs(ordered(dtype)).drawn(Loosening(), seeded(2))


def loose(dtype=torch.float64):
    drawn = pairs(dtype)
    return replace(drawn.final, positions=drawn.loose)


def tell_the_truth(monkeypatch, method, truth):
    """Make a method's network know how its clusters end."""
    end = truth.flatten(1, 2)
    if isinstance(method, Denoising):
        monkeypatch.setattr(method, "end", lambda atoms, x, t: end / UNIT)
        return
    start = pairs().loose.flatten(1, 2)
    monkeypatch.setattr(method.network, "forward", lambda *seen: end - start)


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_finite_and_reaches_every_weight(name):
    method = made(name)
    loss, parts = method(pairs(), seeded())
    assert loss.isfinite()
    assert 0.1 < parts["away"] < 20
    loss.backward()
    for parameter in method.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


@pytest.mark.parametrize("name", METHODS)
def test_padding_is_not_in_the_loss(name, monkeypatch):
    """The loss of a batch is the mean of those of its clusters, each without padding, at equal times and noise."""
    together = pairs()
    half = lambda like, generator: like.new_full((len(like),), 0.5)  # noqa: E731
    monkeypatch.setattr("nucleate.models.crystallization_published._times", half)
    fill = torch.randn(2, 15, 3, generator=seeded(3), dtype=torch.float64)
    method, sizes = made(name), (5, 4)

    def loss_of(one, noise):
        monkeypatch.setattr(diffusion, "_normal_like", lambda x, generator: noise)
        return float(method(one, seeded())[0].detach())

    alone = []
    for k, n in enumerate(sizes):
        own = ClusterBatch(together.final.numbers[k : k + 1, :n], together.final.positions[k : k + 1, :, :n])
        noise = fill[k].unflatten(0, (3, 5))[:, :n].flatten(0, 1)[None]
        alone.append(loss_of(ClusterPairs(own, together.loose[k : k + 1, :, :n]), noise))
    assert loss_of(together, fill) == pytest.approx(sum(alone) / 2, rel=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_whoever_knows_the_end_has_no_loss(name, monkeypatch):
    method, known = made(name), pairs()
    tell_the_truth(monkeypatch, method, known.final.positions)
    loss, parts = method(known, seeded())
    assert float(loss) < 1e-18
    assert float(parts["away"]) < 1e-9


@pytest.mark.parametrize("name", [n for n in NOISY if n.startswith("sde")])
def test_the_loss_of_a_score_model_is_that_of_the_noise(name, monkeypatch):
    method, known, seen = made(name), pairs(), {}
    assert isinstance(method, ScoreModel)
    end = known.final.positions.flatten(1, 2) / UNIT + 0.01

    def said(atoms, x, t):
        seen.update(x=x, t=t[:, None, None], mask=atoms.mask)
        return end

    monkeypatch.setattr(method, "end", said)
    loss, _ = method(known, seeded())
    at = method.path.schedule(seen["t"])
    eps, told = ((seen["x"] - at.end * e) / at.variance.sqrt() for e in (end - 0.01, end))
    squared = ((eps - told).square().sum(-1) * seen["mask"]).sum(1) / seen["mask"].sum(1)
    assert float(loss) == pytest.approx(float(squared.mean()), rel=1e-9)


# ---------------------------------------------------------------- the sampler


MOVES = {
    "rotation": (random_rotation(generator=seeded(5), dtype=torch.float64), [0.0, 0, 0], [0, 1, 2]),
    "reflection": (-random_rotation(generator=seeded(5), dtype=torch.float64), [0.0, 0, 0], [0, 1, 2]),
    "translation": (torch.eye(3, dtype=torch.float64), [3.0, -20, 1], [0, 1, 2]),
    "permutation": (torch.eye(3, dtype=torch.float64), [0.0, 0, 0], [2, 0, 1]),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("name", METHODS)
def test_samples_move_with_the_loose_cluster(name, move, monkeypatch):
    """Under motions, reflections and other orders of the molecules, if the noise is turned along."""
    turn, shift, order = MOVES[move]
    place = torch.tensor(shift, dtype=torch.float64)
    method, start = made(name), loose()
    drawn = diffusion._normal_like

    def moved(x):
        there = x[:, order] @ turn.mT + place
        return torch.where(start.mask[:, None, :, None], there, 0.0)

    def noise(x, generator):
        eps = drawn(x, generator).unflatten(1, (3, -1))
        return (eps[:, order] @ turn.mT).flatten(1, 2)

    expected = moved(method.sample(start, seeded(), Walk(4)))
    monkeypatch.setattr(diffusion, "_normal_like", noise)
    found = method.sample(replace(start, positions=moved(start.positions)), seeded(), Walk(4))
    assert (expected - moved(start.positions)).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", METHODS)
def test_whoever_knows_the_end_gets_there(name, steps, monkeypatch):
    method, known = made(name), pairs()
    tell_the_truth(monkeypatch, method, known.final.positions)
    found = method.sample(replace(known.final, positions=known.loose), seeded(), Walk(steps))
    torch.testing.assert_close(found, known.final.positions, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_walk_is_told_in_the_frame_of_the_loose_cluster(name):
    start = loose(torch.float32)
    there = torch.where(start.mask[:, None, :, None], start.positions + 7.0, 0.0).double()
    told = []
    found = made(name, torch.float32).sample(
        replace(start, positions=there), seeded(), Walk(5, lambda t, x: told.append((t, x)))
    )
    assert found.dtype == torch.float64
    assert [t for t, _ in told] == ([1.0] if name == "regression" else pytest.approx([0.2, 0.4, 0.6, 0.8, 1]))
    assert torch.equal(told[-1][1], found)
    assert all(not torch.equal(a, b) for (_, a), (_, b) in pairwise(told))
    assert not found[1, :, 4].any()
    assert not any(x[1, :, 4].any() for _, x in told)


@pytest.mark.parametrize("name", METHODS)
def test_samples_differ_where_there_is_noise_and_are_repeated_by_their_seed(name):
    method, start = made(name), loose()
    one, again, other = (method.sample(start, seeded(seed), Walk(4)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert torch.equal(one, other) == (name not in NOISY)


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize(("name", "steps", "share"), [("regression", 60, 0.1), ("lerp", 150, 0.3)])
@pytest.mark.slow
def test_two_clusters_are_learnt_by_heart(name, steps, share):
    method, known = made(name, torch.float32, 1.0, width=32), pairs(torch.float32)

    def error():
        return sum(float(method(known, seeded(k))[1]["away"]) ** 2 for k in range(5)) / 5

    before, adam = error(), torch.optim.Adam(method.parameters(), 5e-3)
    for step in range(steps):
        adam.zero_grad()
        method(known, seeded(100 + step))[0].backward()
        adam.step()
    assert error() < share * before
