"""Laws of flows of rigid bodies, ours and the published one: exact volumes, signs, symmetry, exact starts."""

import math
from dataclasses import replace

import pytest
import torch

from nucleate.data.rigid_frames import RigidFrames
from nucleate.errors import InputError
from nucleate.generative.normalizing_flow import Bodies, HarmonicScaling
from nucleate.geometry.so3 import matrix_to_quaternion, quaternion_to_matrix, random_rotation
from nucleate.models.rigid_body_flow import HeldCrystal, IdealCrystal, Recipe, RigidBodyFlow, ideal_crystal
from nucleate.models.rigid_body_flow_published import PublishedFlow
from nucleate.models.rigid_body_flow_training import FlowSettings, FlowTraining, lesson_of
from nucleate.physics.parameters import BOLTZMANN
from nucleate.physics.rigid_sites import TIP4P_EW, SiteEnergy

N = 5
RECIPE = Recipe(c=0.6, length=0.1, blocks=1, width=8, hidden=8)


def unit(q: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(q, dim=-1)


def some_ideal(seed: int = 0) -> IdealCrystal:
    generator = torch.Generator().manual_seed(seed)
    cell = torch.tensor([[7.0, 0, 0], [1, 8, 0], [0, -1, 9]], dtype=torch.float64)
    places = torch.rand(N, 3, generator=generator, dtype=torch.float64) @ cell
    return IdealCrystal(places, unit(torch.randn(N, 4, generator=generator, dtype=torch.float64)), cell)


def some_bodies(batch: int = 4, n: int = N) -> Bodies:
    generator = torch.Generator().manual_seed(1)
    places = 0.15 * torch.randn(batch, n, 3, generator=generator, dtype=torch.float64)
    tangent = 0.1 * torch.randn(batch, n, 3, generator=generator, dtype=torch.float64)
    return Bodies(places, unit(torch.cat([torch.ones_like(tangent[..., :1]), tangent], -1)))


def stirred(flow: torch.nn.Module, size: float = 0.05) -> torch.nn.Module:
    """With weights that do something in every layer, the same ones each time."""
    generator = torch.Generator().manual_seed(2)
    for parameter in flow.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return flow


def flows() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    published = PublishedFlow(some_ideal())
    for layer in published.chain.layers:
        layer.conditioner.closed = 0.0  # gates open, so that there is something to see
    return {
        "ours": stirred(RigidBodyFlow(some_ideal(), RECIPE).double(), 0.1),
        "published": stirred(published.double(), 0.3),
    }


@pytest.mark.parametrize("name", ["ours", "published"])
def test_inverse_undoes_forward(name: str) -> None:
    flow, bodies = flows()[name], some_bodies()
    moved, grown = flow(bodies)
    back, shrunk = flow.inverse(moved)
    torch.testing.assert_close(back.places, bodies.places, atol=1e-9, rtol=0)
    torch.testing.assert_close(back.turns, bodies.turns, atol=1e-9, rtol=0)
    torch.testing.assert_close(shrunk, -grown, atol=1e-8, rtol=0)
    assert (moved.places - bodies.places).abs().mean() > 0.01
    assert (moved.turns - bodies.turns).abs().mean() > 0.01


@pytest.mark.parametrize("name", ["ours", "published"])
def test_volumes_are_those_of_autograd(name: str) -> None:
    """In tangents g of the turns, whose volume is (1 + g^2)^-2 dg."""
    flow, bodies = flows()[name], some_bodies(1)
    start = torch.cat([bodies.places, bodies.turns[..., 1:] / bodies.turns[..., :1]], -1)[0]

    def chart(v: torch.Tensor) -> Bodies:
        places, g = v[None].split(3, -1)
        return Bodies(places, unit(torch.cat([torch.ones_like(g[..., :1]), g], -1)))

    def moved(v: torch.Tensor) -> torch.Tensor:
        after = flow(chart(v))[0]
        return torch.cat([after.places, after.turns[..., 1:] / after.turns[..., :1]], -1)[0]

    slope = torch.autograd.functional.jacobian(moved, start).reshape(6 * N, 6 * N)
    expected = torch.linalg.slogdet(slope)[1]
    for v, sign in ((moved(start), -2), (start, 2)):
        expected = expected + sign * torch.log1p(v[:, 3:].square().sum(-1)).sum()
    torch.testing.assert_close(flow(chart(start))[1][0], expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["ours", "published"])
def test_the_sign_of_a_quaternion_means_nothing(name: str) -> None:
    flow, bodies = flows()[name], some_bodies()
    signs = torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float64)[:, None]
    (one, grown), (other, same) = flow(bodies), flow(Bodies(bodies.places, signs * bodies.turns))
    torch.testing.assert_close(other.places, one.places)
    torch.testing.assert_close(other.turns, signs * one.turns)
    torch.testing.assert_close(same, grown)


def test_ours_knows_no_order_and_no_frame() -> None:
    """Molecules renumbered, the crystal turned, moved, and cut out as another cell of the same lattice."""
    flow, bodies, ideal = flows()["ours"], some_bodies(), some_ideal()
    after, grown = flow(bodies)
    order = torch.tensor([3, 0, 4, 1, 2])
    turn = random_rotation(generator=torch.Generator().manual_seed(5))

    hop = torch.tensor([1, 0, -1, 2, 0], dtype=torch.float64)[:, None] * ideal.cell[1]
    renumbered = IdealCrystal(ideal.places[order], ideal.turns[order], ideal.cell)
    turned = IdealCrystal(
        (ideal.places + hop + 0.3) @ turn.mT, matrix_to_quaternion(turn @ ideal.axes), ideal.cell @ turn.mT
    )
    sheared = replace(ideal, cell=torch.stack([ideal.cell[0], ideal.cell[1] + ideal.cell[0], ideal.cell[2]]))
    for other in (turned, sheared):
        same, volume = flow.on(other)(bodies)  # type: ignore[operator]
        torch.testing.assert_close(same.places, after.places, atol=1e-9, rtol=0)
        torch.testing.assert_close(same.turns, after.turns, atol=1e-9, rtol=0)
        torch.testing.assert_close(volume, grown, atol=1e-8, rtol=0)
    same, volume = flow.on(renumbered)(Bodies(bodies.places[:, order], bodies.turns[:, order]))  # type: ignore[operator]
    torch.testing.assert_close(same.places, after.places[:, order], atol=1e-9, rtol=0)
    torch.testing.assert_close(volume, grown, atol=1e-8, rtol=0)


def test_ours_does_not_know_left_from_right() -> None:
    """The crystal seen in a mirror: molecules of the other hand at inverted places, with the same bodies."""
    flow, bodies, ideal = flows()["ours"], some_bodies(), some_ideal()
    mirrored = replace(ideal, places=-ideal.places, hands=-torch.ones(N, dtype=torch.float64))
    (after, grown), (same, volume) = flow(bodies), flow.on(mirrored)(bodies)  # type: ignore[operator]
    torch.testing.assert_close(same.places, after.places, atol=1e-9, rtol=0)
    torch.testing.assert_close(volume, grown, atol=1e-8, rtol=0)
    here, there = ideal.build(bodies)[0], mirrored.build(bodies)[0]
    torch.testing.assert_close(there, -here, atol=1e-12, rtol=0)


def test_a_repeated_crystal_is_treated_like_its_cell() -> None:
    """Two cells in a row with the same bodies in each: the same happens in both, and volumes add."""
    flow, bodies, ideal = flows()["ours"], some_bodies(), some_ideal()
    double = IdealCrystal(
        torch.cat([ideal.places, ideal.places + ideal.cell[0]]),
        ideal.turns.repeat(2, 1),
        ideal.cell * torch.tensor([2.0, 1, 1], dtype=torch.float64)[:, None],
    )
    after, grown = flow(bodies)
    twice, volume = flow.on(double)(Bodies(bodies.places.repeat(1, 2, 1), bodies.turns.repeat(1, 2, 1)))  # type: ignore[operator]
    torch.testing.assert_close(twice.places, after.places.repeat(1, 2, 1), atol=1e-9, rtol=0)
    torch.testing.assert_close(volume, 2 * grown, atol=1e-8, rtol=0)


def test_the_published_conditioners_have_the_published_size() -> None:
    """290,896 parameters for 16 molecules (printed in the authors' notebook)."""
    ideal = IdealCrystal(
        torch.rand(16, 3).double(), unit(torch.randn(16, 4)).double(), 9 * torch.eye(3).double()
    )
    assert sum(p.numel() for p in PublishedFlow(ideal).parameters()) == 290_896


def springs(places: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Neighbours in a ring held together (eV): a harmonic crystal of places; turns cost nothing."""
    rest = some_ideal().places
    away = places - rest
    return 2.0 * (away - away.roll(1, -2)).square().sum((-1, -2))


def test_harmonic_scaling_is_exact_for_a_harmonic_crystal() -> None:
    """Every sample has the weight that the exact free-energy difference asks for: (3n - 3)/2 ln(T_A / T_B)."""
    ideal, base, target = some_ideal(), 250.0, 100.0
    crystal = HeldCrystal(springs, ideal, spring=3.0)
    flow = RigidBodyFlow(
        ideal, replace(RECIPE, c=math.sqrt(target / base))
    )  # nothing learnt: turns shrink too
    bodies = some_bodies(7)
    turns = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(7, N, 4)
    bodies = Bodies(bodies.places - bodies.places.mean(1, keepdim=True), turns)
    start = crystal.shifted(bodies, base, torch.Generator().manual_seed(0))
    moved, grown = flow.scaling(start, None)
    of_turns = -3 * N * math.log(flow.recipe.c)  # volume that turns lose about 1
    log_w = crystal.reduced(start, base) - crystal.reduced(moved, target) + grown + of_turns
    exact = (3 * N - 3) / 2 * math.log(base / target)
    found = -log_w - crystal.spring_share(base, target)
    torch.testing.assert_close(found, torch.full((7,), exact, dtype=torch.float64), atol=1e-8, rtol=0)


def test_work_there_and_back_of_a_harmonic_crystal_is_its_free_energy() -> None:
    ideal = some_ideal()
    crystal = HeldCrystal(springs, ideal, spring=3.0)
    bodies = some_bodies(6)
    still = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(6, N, 4)
    bodies = Bodies(bodies.places - bodies.places.mean(1, keepdim=True), still)
    energies = springs(*ideal.build(bodies))
    for base, target in ((250.0, 100.0), (100.0, 250.0)):
        layer = HarmonicScaling(math.sqrt(target / base))
        generator = torch.Generator().manual_seed(0)
        log_w, _ = crystal.work(lambda b, by=layer: by(b, None), bodies, energies, base, target, generator)  # type: ignore[misc]
        of_turns = 3 * N * math.log(layer.c)
        exact = (3 * N - 3) / 2 * math.log(base / target)
        found = -(log_w + crystal.spring_share(base, target)) + of_turns
        torch.testing.assert_close(found, torch.full((6,), exact, dtype=torch.float64), atol=1e-8, rtol=0)


def test_the_spring_holds_the_crystal_as_a_whole_alone() -> None:
    ideal = some_ideal()
    crystal = HeldCrystal(lambda x, R: torch.zeros(len(x), dtype=x.dtype), ideal, spring=4.0)
    still = Bodies(*(x.expand(4000, *x.shape[1:]) for x in some_bodies(1)))
    still = still._replace(places=still.places * 0)
    drawn = crystal.shifted(still, 200.0, torch.Generator().manual_seed(0))
    shift = ideal.shift(drawn)
    variance = BOLTZMANN * 200 / 4.0
    torch.testing.assert_close(
        shift.var(0), torch.full((3,), variance, dtype=torch.float64), rtol=0.1, atol=0
    )
    torch.testing.assert_close(crystal.reduced(drawn, 200.0), shift.square().sum(-1) / variance / 2)
    moved, _ = ideal.build(drawn)
    torch.testing.assert_close(moved - ideal.places, (shift / math.sqrt(N))[:, None].expand(-1, N, -1))


# ------------------------------------------------------------------ water


def some_frames(count: int = 40, temperature: float = 250.0) -> RigidFrames:
    """Water about the minimum that it falls into from a lattice; not a sample of anything, but energies are theirs."""
    generator = torch.Generator().manual_seed(0)
    cell = torch.diag(torch.tensor([6.4, 6.4, 6.4], dtype=torch.float64))
    grid = torch.cartesian_prod(*[torch.tensor([0.0, 3.2], dtype=torch.float64)] * 3)
    turns = unit(torch.randn(8, 4, generator=generator, dtype=torch.float64))
    energy = SiteEnergy(TIP4P_EW, 8, cell)
    start = RigidFrames(
        TIP4P_EW, cell, temperature, grid[None], turns[None], torch.zeros(1, dtype=torch.float64)
    )
    ideal = ideal_crystal(start)
    bodies = some_bodies(count, 8)
    bodies = Bodies(
        0.3 * bodies.places, unit(bodies.turns + torch.tensor([3.0, 0, 0, 0], dtype=torch.float64))
    )
    places, rotations = ideal.build(bodies)

    return RigidFrames(
        TIP4P_EW, cell, temperature, places, matrix_to_quaternion(rotations), energy(places, rotations)
    )


def test_build_undoes_represent_up_to_the_place_of_the_whole() -> None:
    frames = some_frames()
    ideal = ideal_crystal(frames)
    places, rotations = ideal.build(ideal.represent(frames))
    drift = (frames.places - places).mean(1, keepdim=True)
    torch.testing.assert_close(places + drift, frames.places, atol=1e-9, rtol=0)
    torch.testing.assert_close(rotations, quaternion_to_matrix(frames.turns), atol=1e-9, rtol=0)
    with pytest.raises(InputError, match="frames of 5 molecules"):
        some_ideal().represent(frames)


def test_the_ideal_crystal_is_a_minimum() -> None:
    frames = some_frames()
    ideal = ideal_crystal(frames)
    energy = SiteEnergy(frames.molecule, 8, frames.cell)
    rest = Bodies(torch.zeros(1, 8, 3).double(), torch.tensor([1.0, 0, 0, 0]).double().expand(1, 8, 4))
    lowest = float(energy(*ideal.build(rest)))
    nudged = some_bodies(20, 8)
    nudged = Bodies(0.02 * nudged.places, unit(nudged.turns + torch.tensor([50.0, 0, 0, 0]).double()))
    assert (energy(*ideal.build(nudged)) > lowest).all()


@pytest.mark.parametrize("recipe", ["default", "published"])
@pytest.mark.parametrize("likelihood", [0.0, 0.5])
@pytest.mark.slow
def test_training_lowers_the_loss_it_says(recipe: str, likelihood: float) -> None:
    """On one batch; the loss lies above the free-energy difference that the same weights estimate (Jensen)."""
    settings = FlowSettings(
        recipe=recipe, target=150.0, blocks=1, width=8, hidden=8, batch=8, likelihood=likelihood, held=0.5
    )
    torch.manual_seed(0)
    lesson = lesson_of(settings, some_frames(), some_frames(temperature=150.0) if likelihood else None)
    training = lesson.trainable
    assert isinstance(training, FlowTraining)
    optimizer = torch.optim.Adam(training.network.parameters(), 1e-3)
    batch = next(lesson.batches.batches(0))
    losses = []
    for _ in range(8):
        loss, _ = training.loss(batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.01
    with torch.no_grad():
        found = training.validate(torch.Generator().manual_seed(0))
    assert found["gap"] >= 0


def test_likelihood_asks_for_frames_of_the_target() -> None:
    with pytest.raises(InputError, match="frames at the target"):
        lesson_of(FlowSettings(likelihood=0.5), some_frames(), None)
