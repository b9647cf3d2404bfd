"""Couplings against brute force; what they may never mix; what they do to the law of the noise."""

import itertools
import math

import pytest
import torch

from nucleate.generative.coupling import (
    assign,
    body_labels,
    chi_grouped,
    joint,
    pairwise_distance,
    permuted,
)
from nucleate.geometry.so3 import SO3, rotation_angle, rotation_exp
from nucleate.geometry.torus import Torus, wrap_difference

BATCH = 12


def random_state(bodies, seed, batch=BATCH, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return {
        "lattice": torch.randn(batch, 6, generator=g, dtype=dtype),
        "centroid": Torus().random(batch, bodies, generator=g, dtype=dtype),
        "rotation": SO3().random(batch, bodies, generator=g, dtype=dtype),
    }


def cells(seed, batch=BATCH, dtype=torch.float64):
    noise = torch.randn(batch, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return torch.diag(torch.tensor([5.0, 9.0, 14.0], dtype=dtype)) + 0.7 * noise


def legal_orders(label):
    """Every permutation that keeps labels and leaves padding in place, for one crystal."""
    n = len(label)
    for order in itertools.permutations(range(n)):
        if all(label[i] == label[j] and (label[j] >= 0 or i == j) for j, i in enumerate(order)):
            yield torch.tensor(order)


LABELS = {
    "one group": [0, 0, 0, 0],
    "two groups": [0, 3, 0, 3, 3],
    "padding": [2, 2, 2, -1, -1],
    "padding between": [1, -1, 1, 0, -1, 0],
    "strangers": [5, 1, 0],
    "six alike": [4, 4, 4, 4, 4, 4],
    "six alike and two": [1, 7, 1, 1, 7, 1, 1, 1],
}


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_assign_is_the_best_of_all_orders(label, dtype):
    n = len(label)
    cost = torch.rand(BATCH, n, n, generator=torch.Generator().manual_seed(0), dtype=dtype)
    orders = torch.stack(list(legal_orders(label)))
    total = cost[:, orders, torch.arange(n)].sum(-1)
    found = assign(cost, torch.tensor(label).expand(BATCH, n))
    torch.testing.assert_close(
        cost.gather(1, found[:, None]).squeeze(1).sum(-1), total.min(1).values, atol=1e-6, rtol=0
    )
    assert all((orders == f).all(1).any() for f in found)


def test_crystals_of_one_batch_have_their_own_groups():
    labels = [[0, 0, 0, -1], [0, 1, 0, 1], [3, 3, 3, 3], [-1, -1, -1, -1]]
    cost = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = assign(cost, torch.tensor(labels))
    alone = [assign(cost[b : b + 1], torch.tensor(labels[b : b + 1])) for b in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_ties_and_empty_batches_keep_the_order():
    label = torch.zeros(3, 4, dtype=torch.long)
    assert torch.equal(assign(torch.ones(3, 4, 4), label), torch.arange(4).expand(3, 4))
    assert assign(torch.ones(0, 4, 4), label[:0]).shape == (0, 4)


def test_labels_tell_kinds_hands_and_padding_apart():
    kind, hand = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[1, -1, 1, -1]])
    assert len(body_labels(kind, hand).unique()) == 4
    assert body_labels(kind, hand, torch.tensor([[True, True, True, False]]))[0, 3] == -1


def centroid_distance(noise, data):
    return wrap_difference(data[:, None] - noise[:, :, None]).norm(dim=-1)


def angles(noise, data):
    shape = (*noise.shape[:2], data.shape[1], 3, 3)
    return rotation_angle(noise[:, :, None].expand(shape), data[:, None].expand(shape))


def least(cost, label):
    orders = torch.stack(list(legal_orders(label)))
    return cost[:, orders, torch.arange(len(label))].sum(-1).min(1).values


def diagonal(cost):
    return cost.diagonal(dim1=1, dim2=2).sum(-1)


def test_chi_grouped_is_the_published_cost_field_by_field():
    label = LABELS["two groups"]
    noise, data = random_state(5, 0), random_state(5, 1)
    dealt = chi_grouped(noise, data, torch.tensor(label).expand(BATCH, 5))
    for name, cost in (("centroid", centroid_distance), ("rotation", angles)):
        torch.testing.assert_close(
            diagonal(cost(dealt[name], data[name])), least(cost(noise[name], data[name]), label)
        )
    assert torch.equal(dealt["lattice"], noise["lattice"])


@pytest.mark.parametrize("label", [LABELS["two groups"], LABELS["padding"]], ids=["two groups", "padding"])
def test_joint_is_the_least_squared_path_in_angstrom(label):
    n = len(label)
    noise, data, lattice = random_state(n, 2), random_state(n, 3), cells(4)
    radius = torch.rand(BATCH, n, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 3

    def cost(state):
        step = wrap_difference(data["centroid"][:, None] - state["centroid"][:, :, None])
        cartesian = torch.einsum("bijk,bkl->bijl", step, lattice)
        turn = radius[:, None] * angles(state["rotation"], data["rotation"])
        return cartesian.square().sum(-1) + turn.square()

    dealt = joint(noise, data, torch.tensor(label).expand(BATCH, n), lattice, radius)
    torch.testing.assert_close(diagonal(cost(dealt)), least(cost(noise), label))


@pytest.mark.parametrize("translate", [False, True])
def test_joint_moves_whole_bodies_of_the_same_label(translate):
    """Centroid and rotation of a body stay together, relative centroids too; padding does not move."""
    label = torch.tensor([[0, 1, 0, 0, -1], [2, 2, 2, -1, -1]]).repeat(6, 1)
    noise, data = random_state(5, 6), random_state(5, 7)
    dealt = joint(noise, data, label, cells(8), torch.ones(BATCH, 5, dtype=torch.float64), translate)
    source = (dealt["rotation"][:, :, None] == noise["rotation"][:, None]).all((-1, -2)).int().argmax(-1)
    assert torch.equal(source.sort(1).values, torch.arange(5).expand(BATCH, 5))
    assert torch.equal(label.gather(1, source), label)
    moved = wrap_difference(dealt["centroid"] - permuted(noise["centroid"], source))
    real = label >= 0
    assert moved[~real].abs().max() == 0
    common = (moved - moved[:, :1])[real]
    assert wrap_difference(common).abs().max() < 1e-12
    assert (moved.abs().max() > 0.05) == translate


@pytest.mark.parametrize("label", [LABELS["one group"], [-1, 2, 2, 1]], ids=["one group", "padding"])
def test_a_common_translation_of_the_data_is_found(label):
    """Noise that is the data moved and reordered goes straight back: nothing of the path is left."""
    data, radius = random_state(4, 9), torch.full((BATCH, 4), 2.0, dtype=torch.float64)
    shift = torch.rand(BATCH, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(10))
    order = torch.tensor([0, 2, 1, 3])
    real = torch.tensor(label) >= 0
    noise = {
        "centroid": torch.where(
            real[:, None], Torus().exp(data["centroid"], shift)[:, order], random_state(4, 19)["centroid"]
        ),
        "rotation": data["rotation"][:, order],
    }
    dealt = joint(noise, data, torch.tensor(label).expand(BATCH, 4), cells(11), radius, translate=True)
    assert wrap_difference(dealt["centroid"] - data["centroid"])[:, real].abs().max() < 1e-12
    assert torch.equal(dealt["rotation"][:, real], data["rotation"][:, real])


def test_translation_shortens_paths_nearly_as_much_as_can_be():
    """Against every order of four bodies, each from two hundred translations."""
    noise, data, lattice = random_state(4, 12), random_state(4, 13), cells(14)
    label, radius = torch.zeros(BATCH, 4, dtype=torch.long), torch.full((BATCH, 4), 2.0, dtype=torch.float64)

    def cost(centroid, rotation):
        step = wrap_difference(data["centroid"] - centroid) @ lattice
        turn = radius * rotation_angle(rotation, data["rotation"])
        return (step.square().sum(-1) + turn.square()).sum(-1)

    orders = torch.tensor(list(itertools.permutations(range(4))))
    starts = torch.rand(200, 1, 1, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(15))
    centroid = noise["centroid"][:, orders].movedim(1, 0) + starts  # starts, orders, batch, bodies, 3
    for _ in range(4):
        step = wrap_difference(data["centroid"] - centroid)
        centroid = centroid + step.mean(-2, keepdim=True)
    rotation = noise["rotation"][:, orders].movedim(1, 0)[None].expand(200, -1, -1, -1, -1, -1)
    turn = radius * rotation_angle(rotation, data["rotation"].expand_as(rotation))
    step = wrap_difference(data["centroid"] - centroid) @ lattice
    best = (step.square().sum(-1) + turn.square()).sum(-1).amin((0, 1))
    plain, free = (joint(noise, data, label, lattice, radius, t) for t in (False, True))
    plain, free = (cost(s["centroid"], s["rotation"]) for s in (plain, free))
    assert (free >= best - 1e-9).all()
    assert (plain - free).mean() > 0.8 * (plain - best).mean() > 0


# ---------------------------------------------------------------- what dealing does to the law of the noise


def correlated_crystals(n):
    """Two bodies, at 0 unturned and at 1/2 upside down, in random order: place and pose depend on each other."""
    centroid = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    rotation = rotation_exp(torch.tensor([[0.0, 0.0, 0.0], [math.pi, 0.0, 0.0]], dtype=torch.float64))
    swap = torch.rand(n, generator=torch.Generator().manual_seed(16)) < 0.5
    order = torch.where(swap[:, None], torch.tensor([1, 0]), torch.tensor([0, 1]))
    return {"centroid": centroid[order], "rotation": rotation[order]}


def statistics_of(state):
    """Means that vanish for uniform, independent noise, in units of their standard error."""
    place = (2 * math.pi * state["centroid"]).cos().sum(-1)
    upright = state["rotation"].diagonal(dim1=-2, dim2=-1).sum(-1)
    tests = {
        "first place": place[:, 0],
        "first pose": upright[:, 0],
        "place and pose": (place * upright).sum(1),
        "places": place[:, 0] * place[:, 1],
        "poses": upright[:, 0] * upright[:, 1],
        "place and other pose": place[:, 0] * upright[:, 1],
    }
    return {name: float(x.mean() / x.std() * len(x) ** 0.5) for name, x in tests.items()}


def test_dealing_bodies_keeps_the_law_of_the_noise():
    n = 20_000
    data = correlated_crystals(n)
    noise, label = random_state(2, 17, batch=n), torch.zeros(n, 2, dtype=torch.long)
    lattice = (6 * torch.eye(3, dtype=torch.float64)).expand(n, 3, 3)
    radius = torch.full((n, 2), 2.0, dtype=torch.float64)
    together = joint(noise, data, label, lattice, radius)
    assert all(abs(z) < 4 for z in statistics_of(together).values())
    before, after = (
        pairwise_distance(Torus(), x["centroid"], data["centroid"]).diagonal(dim1=1, dim2=2).mean()
        for x in (noise, together)
    )
    assert after < 0.97 * before  # it does deal


def test_dealing_fields_apart_couples_them_in_the_noise():
    """Why `joint` is the default: each field keeps its law, their pairs do not."""
    n = 20_000
    noise, label = random_state(2, 18, batch=n), torch.zeros(n, 2, dtype=torch.long)
    apart = statistics_of(chi_grouped(noise, correlated_crystals(n), label))
    assert all(abs(apart[name]) < 4 for name in ("first place", "first pose", "places", "poses"))
    assert apart["place and pose"] > 20
