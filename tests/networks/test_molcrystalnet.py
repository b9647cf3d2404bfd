"""MolCrystalNet: what it must not depend on, what it must see, what it is known not to see."""

import math
from dataclasses import replace

import pytest
import torch

from nucleate.geometry.lattice import lattice_from_log, log_coordinates, volume
from nucleate.geometry.so3 import random_rotation, rotation_exp
from nucleate.networks.molcrystalnet import (
    BodyCondition,
    MolCrystalNet,
    cell_in_body,
    rotation_powers,
    unit_metric,
)

SMALL = {
    "hidden": 32, "layers": 3, "time_width": 16, "molecule_width": 8, "node_width": 16, "harmonics": 5, "turns": 3,
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small_network(dtype=torch.float64, sees_cell=False):
    """Random weights; the heads louder than they start, so that a change in them shows."""
    torch.manual_seed(0)
    net = MolCrystalNet(**SMALL, sees_cell=sees_cell)
    for head in (net.velocity, net.turn, net.strain):
        torch.nn.init.normal_(head[-1].weight, std=0.3, generator=generator(9))
    return net.to(dtype)


@pytest.fixture(scope="module")
def blind():
    """As published."""
    return small_network()


@pytest.fixture(scope="module", params=[False, True], ids=["published", "sees_cell"])
def net(request):
    return small_network(sees_cell=request.param)


@pytest.fixture(scope="module")
def crystals():
    """(state, t, condition) of five crystals of four bodies, two of them padding in the last crystal."""
    k = 0.3 * torch.randn(5, 6, generator=generator(), dtype=torch.float64)
    k[:, 5] += 4
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[4, 2:] = False
    state = {
        "lattice": k,
        "centroid": torch.rand(5, 4, 3, generator=generator(1), dtype=torch.float64),
        "rotation": random_rotation(5, 4, generator=generator(2)),
    }
    condition = BodyCondition(
        embedding=torch.randn(5, 4, 8, generator=generator(3), dtype=torch.float64),
        features=torch.randn(5, 4, 18, generator=generator(4), dtype=torch.float64),
        handedness=2 * torch.randint(0, 2, (5, 4), generator=generator(5)) - 1,
        mask=mask,
    )
    return state, torch.linspace(0, 1, 5, dtype=torch.float64), condition


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )


def change(found, expected, mask):
    """The largest change of each field over the bodies that are there, and of the lattice."""
    return {
        name: (found[name] - expected[name])[mask if name != "lattice" else slice(None)].abs().max().item()
        for name in expected
    }


def test_the_published_size():
    assert 4.5e6 < sum(p.numel() for p in MolCrystalNet().parameters()) < 4.6e6


def test_bodies_come_out_in_the_order_they_went_in(net, crystals):
    state, t, condition = crystals
    order = torch.tensor([2, 0, 3, 1])
    permuted = {n: v if n == "lattice" else v[:, order] for n, v in state.items()}
    again = BodyCondition(*(getattr(condition, f)[:, order] for f in BodyCondition.__dataclass_fields__))
    expected = net(state, t, condition)
    assert_same(
        net(permuted, t, again), {n: v if n == "lattice" else v[:, order] for n, v in expected.items()}
    )


def test_a_lattice_translation_of_any_body_and_a_common_shift_change_nothing(net, crystals):
    state, t, condition = crystals
    expected = net(state, t, condition)
    whole = torch.randint(-3, 4, (5, 4, 3), generator=generator(6)).double()
    assert_same(net(state | {"centroid": state["centroid"] + whole}, t, condition), expected)
    common = torch.rand(5, 1, 3, generator=generator(7), dtype=torch.float64)
    assert_same(net(state | {"centroid": state["centroid"] + common}, t, condition), expected)


def test_padding_and_company_change_nothing(net, crystals):
    state, t, condition = crystals
    expected = net(state, t, condition)
    alone = {n: v[4:] if n == "lattice" else v[4:, :2] for n, v in state.items()}
    small = BodyCondition(*(getattr(condition, f)[4:, :2] for f in BodyCondition.__dataclass_fields__))
    assert_same(
        net(alone, t[4:], small), {n: v[4:] if n == "lattice" else v[4:, :2] for n, v in expected.items()}
    )
    torch.testing.assert_close(expected["centroid"][4, 2:], torch.zeros(2, 3).double())
    torch.testing.assert_close(expected["rotation"][4, 2:], state["rotation"][4, 2:])


def test_turning_all_molecules_together_is_not_seen_as_published(blind, crystals):
    """The known blindness: rotations of the molecules against the cell change no output but turn along."""
    state, t, condition = crystals
    turned = random_rotation(5, 1, generator=generator(8)) @ state["rotation"]
    turn = turned[:, :1] @ state["rotation"][:, :1].mT
    expected = blind(state, t, condition)
    found = blind(state | {"rotation": turned}, t, condition)
    assert_same(found, expected | {"rotation": turn @ expected["rotation"]})
    sighted = small_network(sees_cell=True)
    expected, found = sighted(state, t, condition), sighted(state | {"rotation": turned}, t, condition)
    seen = change(found, expected | {"rotation": turn @ expected["rotation"]}, condition.mask)
    assert all(size > 1e-3 for size in seen.values()), seen


def test_everything_else_is_seen(net, crystals):
    state, t, condition = crystals
    expected = net(state, t, condition)
    one = torch.zeros(5, 4, 3, dtype=torch.float64)
    one[:, 0] = 0.1
    others = {
        "a centroid": (state | {"centroid": state["centroid"] + one}, t, condition),
        "a rotation": (state | {"rotation": state["rotation"] @ rotation_exp(one)}, t, condition),
        "the cell": (state | {"lattice": state["lattice"] + 0.1}, t, condition),
        "the time": (state, t / 2 + 0.1, condition),
        "the handedness": (state, t, replace(condition, handedness=-condition.handedness)),
        "the features": (state, t, replace(condition, features=condition.features + 1)),
        "the molecule": (state, t, replace(condition, embedding=condition.embedding + 1)),
    }
    for what, arguments in others.items():
        moved = change(net(*arguments), expected, condition.mask)
        assert all(size > 1e-4 for size in moved.values()), (what, moved)


def test_nothing_jumps_where_a_molecule_crosses_a_face_or_turns_by_pi(net, crystals):
    state, t, condition = crystals
    step = 1e-7
    across = state["centroid"][:, :1] + 0.5  # body 0 exactly half a cell from body 1
    before, after = (
        state | {"centroid": torch.cat([state["centroid"][:, :1], across + s, state["centroid"][:, 2:]], 1)}
        for s in (-step, step)
    )
    assert_same(net(before, t, condition), net(after, t, condition), atol=1e-4, rtol=0)
    axis = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(5, 4, 3)
    base = torch.eye(3, dtype=torch.float64).expand(5, 4, 3, 3).clone()
    turned = []
    for s in (-step, step):
        rotation = base.clone()
        rotation[:, 1] = rotation_exp((math.pi + s) * axis[:, 1])
        turned.append(net(state | {"rotation": rotation}, t, condition))
    difference = turned[0]["rotation"] - turned[1]["rotation"]
    assert difference.abs().max() < 1e-4
    assert_same(turned[0], turned[1], atol=1e-4, rtol=0)


def test_half_turns_about_different_axes_are_told_apart(net, crystals):
    """The commonest case, two-fold screws; the published angles lose the signs of these axes."""
    state, t, condition = crystals
    found = []
    for axis in ([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0.6, 0.8], [0, 0.6, -0.8]):
        rotation = torch.eye(3, dtype=torch.float64).expand(5, 4, 3, 3).clone()
        rotation[:, 1] = rotation_exp(math.pi * torch.tensor(axis, dtype=torch.float64))
        found.append(net(state | {"rotation": rotation}, t, condition)["centroid"][0])
    apart = torch.cdist(*[torch.stack(found).flatten(1)] * 2).fill_diagonal_(math.inf)
    assert apart.min() > 1e-3


def test_outputs_are_rotations_and_cells_and_velocities_without_drift(net, crystals):
    state, t, condition = crystals
    out = net(state, t, condition)
    R = out["rotation"]
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=R.dtype).expand_as(R))
    assert (torch.linalg.det(R) > 0).all()
    assert (volume(lattice_from_log(out["lattice"])) > 0).all()
    torch.testing.assert_close(out["centroid"].sum(1), torch.zeros(5, 3).double())
    assert {n: v.shape for n, v in out.items()} == {n: v.shape for n, v in state.items()}


def test_an_untrained_network_changes_little(crystals):
    state, t, condition = crystals
    out = MolCrystalNet(**SMALL).double()(state, t, condition)
    assert all(
        size < 0.05
        for size in change(out, state | {"centroid": 0 * state["centroid"]}, condition.mask).values()
    )


def test_one_molecule_in_the_cell_is_enough(net, crystals):
    state, t, condition = crystals
    single = {n: v if n == "lattice" else v[:, :1] for n, v in state.items()}
    first = BodyCondition(*(getattr(condition, f)[:, :1] for f in BodyCondition.__dataclass_fields__))
    out = net(single, t, first)
    torch.testing.assert_close(out["centroid"], torch.zeros(5, 1, 3).double())
    bigger = net(single | {"lattice": single["lattice"] + 0.2}, t, first)
    assert ((bigger["lattice"] - out["lattice"] - 0.2).abs().amax(1) > 1e-4).all()


def test_gradients_reach_every_parameter(crystals):
    """Through the embedder too, in one training step."""
    state, t, condition = crystals
    net = small_network()
    numbers = torch.randint(1, 10, (2, 7), generator=generator())
    x = torch.randn(2, 7, 3, generator=generator(1), dtype=torch.float64) * 2
    charges = torch.randint(-1, 2, (2, 7), generator=generator(2))
    vectors = net.embedder(numbers, x, charges)[torch.tensor([0, 1, 0, 0, 1])]
    out = net(state, t, replace(condition, embedding=vectors[:, None].expand(-1, 4, -1)))
    sum((v - 0.5).square().sum() for v in out.values()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name
        assert parameter.grad.isfinite().all(), name


def test_single_precision_agrees_with_double_and_half_stays_near(net, crystals):
    state, t, condition = crystals
    expected = net(state, t, condition)
    single = small_network(torch.float32, net.sees_cell)
    low = {n: v.float() for n, v in state.items()}
    told = replace(condition, embedding=condition.embedding.float(), features=condition.features.float())
    found = single(low, t.float(), told)
    assert_same({n: v.double() for n, v in found.items()}, expected, atol=2e-4, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = single(low, t.float(), told)
    assert all(v.dtype == torch.float32 for v in rough.values())
    assert_same({n: v.double() for n, v in rough.items()}, expected, atol=0.1, rtol=0)
    R = rough["rotation"]
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5, rtol=0)


def test_conditions_are_taken_by_crystal(net, crystals):
    state, t, condition = crystals
    chosen = torch.tensor([3, 3, 0])
    found = net({n: v[chosen] for n, v in state.items()}, t[chosen], condition[chosen])
    assert_same(found, {n: v[chosen] for n, v in net(state, t, condition).items()})


def test_the_metric_is_that_of_the_cell_at_unit_volume():
    L = torch.randn(20, 3, 3, generator=generator(), dtype=torch.float64)
    L = L * torch.linalg.det(L).sign()[:, None, None]
    expected = L @ L.mT / volume(L)[:, None, None] ** (2 / 3)
    torch.testing.assert_close(unit_metric(log_coordinates(L)), expected)


def test_the_cell_in_the_frame_of_a_body_turns_against_it():
    k = torch.randn(4, 6, generator=generator(), dtype=torch.float64)
    R = random_rotation(4, 3, generator=generator(1))
    seen = cell_in_body(k, R)
    torch.testing.assert_close(seen @ seen.mT, unit_metric(k)[:, None].expand_as(seen))
    torch.testing.assert_close(seen @ R.mT, cell_in_body(k, torch.eye(3).double().expand_as(R)))


def test_powers_turn_by_multiples_of_the_angle():
    v = torch.randn(10, 3, generator=generator(), dtype=torch.float64)
    expected = torch.cat([rotation_exp(k * v).flatten(1) for k in (1, 2, 3, 4, 5)], 1)
    torch.testing.assert_close(rotation_powers(rotation_exp(v), 5), expected)
