"""Laws of paths and velocities on every manifold; samplers on flows whose answers are known."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.generative.flow_matching import (
    LATEST,
    Annealing,
    Approach,
    Beta,
    Euler,
    FlowMatching,
    Heun,
    LogitNormal,
    Uniform,
    even_times,
)
from nucleate.geometry.lattice import LogLattice, lattice_from_log, log_coordinates
from nucleate.geometry.manifold import Euclidean, Product
from nucleate.geometry.so3 import SO3, rotation_angle, rotation_exp
from nucleate.geometry.torus import Torus, wrap, wrap_difference

AXES = {  # field -> manifold and the axes between the batch and its points
    "lattice": (Euclidean(6), ()),
    "cell": (LogLattice(), ()),
    "centroid": (Torus(3), (4,)),
    "rotation": (SO3(), (4,)),
    "position": (Euclidean(3), (4, 2)),
}
PRODUCT = Product({name: m for name, (m, _) in AXES.items()})
VELOCITIES, ENDPOINTS = FlowMatching(PRODUCT), FlowMatching(PRODUCT, endpoint=AXES)
BATCH = 8
samplers = pytest.mark.parametrize("sampler", [Euler, Heun])
precision = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def state(seed, dtype=torch.float64, batch=BATCH):
    g = torch.Generator().manual_seed(seed)
    return {name: m.random(batch, *axes, generator=g, dtype=dtype) for name, (m, axes) in AXES.items()}


def times(seed, low=0.0, high=0.9, dtype=torch.float64):
    u = torch.rand(BATCH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (low + (high - low) * u).to(dtype)


def apart(x, y):
    """The largest distance of two states, over all fields and points."""
    return max(float(m.distance(x[name], y[name]).max()) for name, (m, _) in AXES.items())


def close(a, b, atol):
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def tangents(seed, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return {
        name: scale * torch.randn(BATCH, *axes, *m.tangent, generator=g, dtype=torch.float64)
        for name, (m, axes) in AXES.items()
    }


# ---------------------------------------------------------------- paths


@precision
def test_paths_join_noise_and_data(dtype):
    x_0, x_1 = state(0, dtype), state(1, dtype)
    tolerance = 2e3 * torch.finfo(dtype).eps
    assert apart(VELOCITIES.interpolate(x_0, x_1, torch.zeros(BATCH, dtype=dtype)), x_0) < tolerance
    assert apart(VELOCITIES.interpolate(x_0, x_1, torch.ones(BATCH, dtype=dtype)), x_1) < tolerance
    half = VELOCITIES.interpolate(x_0, x_1, times(2, dtype=dtype))
    assert all(x.dtype == dtype and x.shape == x_0[name].shape for name, x in half.items())


def test_target_is_the_slope_of_the_path():
    x_0, x_1, t, h = state(0), state(1), times(2, 0.1), 1e-5
    before, now, after = (VELOCITIES.interpolate(x_0, x_1, s) for s in (t - h, t, t + h))
    slope = {name: v / (2 * h) for name, v in PRODUCT.log(before, after).items()}
    close(VELOCITIES.target_velocity(now, x_1, t), slope, atol=1e-6)


def test_each_crystal_has_its_own_time():
    x_0, x_1, t = state(0), state(1), times(2)
    together = VELOCITIES.interpolate(x_0, x_1, t)
    for b in (0, BATCH - 1):
        alone = VELOCITIES.interpolate(
            {k: v[b : b + 1] for k, v in x_0.items()},
            {k: v[b : b + 1] for k, v in x_1.items()},
            t[b : b + 1],
        )
        close({k: v[b : b + 1] for k, v in together.items()}, alone, atol=1e-12)


def test_velocities_and_endpoints_are_two_forms_of_one_prediction():
    x_t, x_1, t = state(0), state(1), times(2)
    velocity = ENDPOINTS.as_velocity(x_1, x_t, t)
    close(velocity, VELOCITIES.target_velocity(x_t, x_1, t), atol=1e-12)
    assert apart(VELOCITIES.as_endpoint(velocity, x_t, t), x_1) < 1e-9
    assert ENDPOINTS.as_endpoint(x_1, x_t, t) == x_1
    assert all(VELOCITIES.as_velocity(velocity, x_t, t)[k] is v for k, v in velocity.items())


def test_unknown_fields_are_refused():
    with pytest.raises(InputError, match="rotatoin"):
        FlowMatching(PRODUCT, endpoint=["rotatoin"])
    with pytest.raises(InputError, match="paces"):
        Euler(VELOCITIES, {"rotatoin": Annealing(3.0)})
    with pytest.raises(KeyError, match="rotation"):
        VELOCITIES.interpolate(state(0), {"lattice": state(0)["lattice"]}, times(2))


# ---------------------------------------------------------------- padding and translation

MASK = torch.tensor([[True, True, True, True], [True, True, True, False], [True, False, False, False]])
MASK = torch.cat([MASK, MASK, MASK[:2]])


def test_padding_is_at_rest_and_no_other_body_notices_it():
    x_t, x_1, t = state(0), state(1), times(2)
    bodies = ("centroid", "rotation", "position")
    masked = VELOCITIES.target_velocity(x_t, x_1, t, MASK)
    free = VELOCITIES.target_velocity(x_t, x_1, t)
    for name in bodies:
        assert (masked[name][~MASK] == 0).all()
        assert torch.equal(masked[name][MASK], free[name][MASK])
    assert torch.equal(masked["lattice"], free["lattice"])
    broken = {k: v.clone() for k, v in free.items()}
    for name in bodies:
        broken[name][~MASK] = torch.nan  # what a network says of padding does not matter
    assert all(v.isfinite().all() for v in VELOCITIES.as_velocity(broken, x_t, t, MASK).values())
    end = Heun(VELOCITIES).sample(lambda x, t: broken, x_t, even_times(3), MASK)
    for name in bodies:
        assert torch.equal(end[name][~MASK], x_t[name][~MASK])
        assert end[name].isfinite().all()


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])
def test_centred_velocities_move_bodies_as_before_relative_to_each_other(mask):
    x_t, x_1, t = state(0), state(1), times(2)
    centred = FlowMatching(PRODUCT, centred=["centroid"])
    v = centred.target_velocity(x_t, x_1, t, mask)["centroid"]
    plain = VELOCITIES.target_velocity(x_t, x_1, t, mask)["centroid"]
    weight = (torch.ones_like(MASK) if mask is None else mask)[..., None]  # of what is there
    assert v.sum(1).abs().max() < 1e-14
    assert (v * ~weight == 0).all()
    shift = (v - plain) * weight
    first = shift[:, :1] * weight
    torch.testing.assert_close(shift, first, atol=1e-14, rtol=0)
    assert (first.abs() > 1e-3).any()
    close(
        {"rotation": centred.target_velocity(x_t, x_1, t, mask)["rotation"]},
        {"rotation": VELOCITIES.target_velocity(x_t, x_1, t, mask)["rotation"]},
        atol=0,
    )


def test_centred_samples_reach_the_endpoint_up_to_a_translation():
    x_0, x_1 = state(0), state(1)
    flow = FlowMatching(PRODUCT, endpoint=AXES, centred=["centroid"])
    end = Euler(flow).sample(lambda x, t: x_1, x_0, even_times(1))
    off = wrap_difference(end["centroid"] - x_1["centroid"])
    assert wrap_difference(off - off[:, :1]).abs().max() < 1e-12
    before = Torus().log(x_0["centroid"], end["centroid"])
    assert wrap_difference(before.sum(1)).abs().max() < 1e-12  # no common motion


# ---------------------------------------------------------------- the loss


def test_error_of_the_truth_is_zero_and_of_a_step_its_squared_length():
    x_t, x_1, t = state(0), state(1), times(2)
    truth = VELOCITIES.target_velocity(x_t, x_1, t)
    wrong = tangents(3)
    off = {name: v + wrong[name] for name, v in truth.items()}
    for name, error in VELOCITIES.squared_error(off, x_t, x_1, t, MASK).items():
        manifold, axes = AXES[name]
        squared = wrong[name].flatten(-len(manifold.tangent)).square().sum(-1)
        if axes:
            squared = squared.reshape(BATCH, 4, -1).mean(-1)
            squared = (squared * MASK).sum(1) / MASK.sum(1)
        torch.testing.assert_close(error, squared)
    assert all(e.max() < 1e-20 for e in VELOCITIES.squared_error(truth, x_t, x_1, t).values())
    assert all(e.max() < 1e-20 for e in ENDPOINTS.squared_error(x_1, x_t, x_1, t).values())


def test_endpoints_err_by_a_distance_that_late_times_magnify_to_a_limit():
    x_t, x_1, step = state(0), state(1), tangents(3, 0.05)
    near = PRODUCT.exp(x_1, step)
    early, late, later = (
        ENDPOINTS.squared_error(near, x_t, x_1, torch.full((BATCH,), t, dtype=torch.float64), late=0.9)
        for t in (0.0, 0.9, 0.99)
    )
    for name in AXES:
        torch.testing.assert_close(late[name], 100 * early[name])
        torch.testing.assert_close(later[name], late[name])
    torch.testing.assert_close(early["rotation"], step["rotation"].square().sum(-1).mean(1))


# ---------------------------------------------------------------- samplers: exactness

UNEVEN = (0.0, 0.013, 0.4, 0.41, 0.93, 0.9999, 1.0)


@samplers
@precision
@pytest.mark.parametrize("grid", [(0.0, 1.0), even_times(7), UNEVEN], ids=["one", "even", "uneven"])
def test_a_constant_endpoint_is_reached_on_any_grid(sampler, dtype, grid):
    x_0, x_1 = state(0, dtype), state(1, dtype)
    end = sampler(ENDPOINTS).sample(lambda x, t: x_1, x_0, grid)
    assert apart(end, x_1) < 2e3 * torch.finfo(dtype).eps
    assert all(x.dtype == dtype for x in end.values())


@samplers
def test_until_an_early_end_a_constant_endpoint_gives_the_geodesic(sampler):
    x_0, x_1 = state(0), state(1)
    end = sampler(ENDPOINTS).sample(lambda x, t: x_1, x_0, (0.0, 0.3, 0.35, 0.8))
    expected = VELOCITIES.interpolate(x_0, x_1, torch.full((BATCH,), 0.8, dtype=torch.float64))
    assert apart(end, expected) < 1e-9


@samplers
def test_a_constant_velocity_goes_straight(sampler):
    """One step or many uneven ones, from a time that is not 0."""
    x_0, v = state(0), tangents(1, 0.2)
    expected = PRODUCT.exp(x_0, {name: 0.75 * u for name, u in v.items()})
    for grid in ((0.25, 1.0), (0.25, 0.3, 0.9, 1.0)):
        assert apart(sampler(VELOCITIES).sample(lambda x, t: v, x_0, grid), expected) < 1e-9


@samplers
def test_predictions_are_asked_for_at_the_grid_and_never_at_one(sampler):
    asked = []

    def predict(x, t):
        asked.append(t.clone())
        return state(1)

    sampler(ENDPOINTS).sample(predict, state(0), even_times(4, start=0.2))
    assert all(t.shape == (BATCH,) and (t == t[0]).all() for t in asked)
    seen = [round(float(t[0]), 9) for t in asked]
    expected = {Euler: [0.2, 0.4, 0.6, 0.8], Heun: [0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8]}
    assert seen == expected[sampler]


@pytest.mark.parametrize("grid", [[0.0], [0.0, 0.5, 0.5, 1.0], [0.5, 0.0], [0.0, 1.1], [-0.1, 1.0], []])
def test_grids_that_do_not_ascend_in_time_are_refused(grid):
    with pytest.raises(InputError, match="ascending"):
        Euler(VELOCITIES).sample(lambda x, t: tangents(0), state(0), grid)


# ---------------------------------------------------------------- samplers: order of convergence


def linear_field():
    """x' = A x + b"""
    A = torch.tensor([[0.3, -2.0], [1.5, 0.2]], dtype=torch.float64)
    b = torch.tensor([0.5, -1.0], dtype=torch.float64)
    centre = torch.linalg.solve(A, b)
    x_0 = torch.randn(BATCH, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Euclidean(2), x_0, lambda x, t: x @ A.T + b, (x_0 + centre) @ torch.linalg.matrix_exp(A).T - centre


def wave_field():
    """x' = 2 sin(2 pi x) / (2 pi), which takes tan(pi x) to e^2 tan(pi x)"""
    x_0 = torch.rand(BATCH, 3, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    end = wrap(torch.atan(math.exp(2.0) * (math.pi * x_0).tan()) / math.pi)
    return Torus(1), x_0, lambda x, t: (2 * math.pi * x).sin() / math.pi, end


def turning_field():
    """R(t) = Exp(t a) R_0 Exp(t b): body velocity R^T a + b, which does not commute with itself"""
    a, b = torch.tensor([[1.0, -0.4, 0.6], [-0.7, 1.1, 0.2]], dtype=torch.float64)
    x_0 = SO3().random(BATCH, 2, generator=torch.Generator().manual_seed(2))
    return SO3(), x_0, lambda x, t: x.mT @ a + b, rotation_exp(a) @ x_0 @ rotation_exp(b)


def cell_field():
    """k' = (2 t - 1) k + c of log coordinates: time matters; k(1) = k(0) + c times an integral"""
    x_0 = LogLattice().random(BATCH, generator=torch.Generator().manual_seed(3))
    c = torch.tensor([0.2, -0.1, 0.4, 0.3, -0.5, 1.0], dtype=torch.float64)
    s = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    integral = torch.trapezoid((-(s**2 - s)).exp(), s)
    end = lattice_from_log(log_coordinates(x_0) + c * integral)
    return LogLattice(), x_0, lambda x, t: (2 * t[:, None] - 1) * log_coordinates(x) + c, end


FIELDS = {f.__name__: f for f in (linear_field, wave_field, turning_field, cell_field)}


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())
@pytest.mark.parametrize("kind", ["velocity", "endpoint"])
@pytest.mark.parametrize(("sampler", "order"), [(Euler, 1), (Heun, 2)], ids=["Euler", "Heun"])
def test_the_error_falls_with_the_order_of_the_sampler(field, kind, sampler, order):
    m, x_0, velocity, end = field()
    flow = FlowMatching(Product({"x": m}), endpoint=["x"] if kind == "endpoint" else [])

    def predict(x, t):
        v = {"x": velocity(x["x"], t)}
        return FlowMatching(flow.product).as_endpoint(v, x, t) if kind == "endpoint" else v

    def error(steps):
        grid = [(i / steps) ** 1.3 for i in range(steps + 1)]
        return float(m.distance(sampler(flow).sample(predict, {"x": x_0}, grid)["x"], end).mean())

    coarse, fine = error(32), error(128)
    assert 0.8 * order < math.log(coarse / fine, 4) < 1.35 * order
    assert fine < (0.05 if order == 1 else 1e-3)


# ---------------------------------------------------------------- samplers: known distributions
# Noise of the manifold to a mixture; the mean velocity of all paths through a point in closed form.

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)


def mean_over(weights, steps):
    return (weights[..., None] * steps).sum(-2) / weights.sum(-1, keepdim=True)


class Normals:
    """N(0, 1) to normal laws: E[x_1 | x_t] of each component is linear in x_t."""

    m, axes = Euclidean(2), (4,)
    centres = torch.tensor([[2.0, 0.0], [-1.0, 1.5]], dtype=torch.float64)
    spreads = torch.tensor([0.2, 0.5], dtype=torch.float64)

    def velocity(self, x, t):
        t = t[:, None, None]  # batch, bodies, components
        variance = (1 - t) ** 2 + (t * self.spreads) ** 2
        off = x[..., None, :] - t[..., None] * self.centres
        likely = WEIGHTS / variance * (-off.square().sum(-1) / (2 * variance)).exp()
        ends = self.centres + (t * self.spreads**2 / variance)[..., None] * off
        return mean_over(likely, ends - x[..., None, :]) / (1 - t)

    def check(self, x):
        which = (x[..., None, :] - self.centres).norm(dim=-1).argmin(-1)
        assert_share(which == 1, 0.7)
        for k in (0, 1):
            part = x[which == k]
            error = 5 * self.spreads[k] / len(part) ** 0.5
            assert (part.mean(0) - self.centres[k]).abs().max() < error
            assert (part.std(0) - self.spreads[k]).abs().max() < error


class Boxes:
    """Uniform on the circle to uniform on two arcs: x_t is uniform on an arc of 1 - t around x_1."""

    m, axes = Torus(1), (4,)
    centres = torch.tensor([0.1, 0.55], dtype=torch.float64)
    width = 0.12

    def velocity(self, x, t):
        half = (1 - t)[:, None, None, None] / 2
        image = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        y = wrap_difference(x[..., None] - self.centres[:, None]) + image  # batch, bodies, components, images
        low, high = (y - half).clamp(min=-self.width / 2), (y + half).clamp(max=self.width / 2)
        likely = (WEIGHTS[:, None] * (high - low).clamp(min=0)).flatten(-2)
        steps = ((low + high) / 2 - y).flatten(-2)
        lost = likely.sum(-1, keepdim=True) == 0  # off every arc, by the finite step: go to the nearest
        nearest = torch.nn.functional.one_hot(steps.abs().argmin(-1), 6).double()
        return mean_over(torch.where(lost, nearest, likely), steps[..., None]) / (1 - t)[:, None, None]

    def check(self, x):
        off = wrap_difference(x - self.centres)
        which = off.abs().argmin(-1)
        assert_share(which == 1, 0.7)
        for k in (0, 1):
            part = off[which == k, k]
            assert abs(part.mean()) < 5 * 0.29 * self.width / len(part) ** 0.5
            assert (part.std() - self.width / 12**0.5).abs() < 0.002


class Poses:
    """Haar to two rotations: at time t the angle to x_1 is that of the noise, times 1 - t."""

    m, axes = SO3(), (4,)
    centres = rotation_exp(torch.tensor([[0.3, 0.0, 0.0], [0.0, 1.6, 1.0]], dtype=torch.float64))

    def velocity(self, x, t):
        left = (1 - t)[:, None, None]
        steps = self.m.log(x[..., None, :, :], self.centres)
        angle = steps.norm(dim=-1)
        likely = WEIGHTS * (1 - (angle / left).cos()) / (1 - angle.cos()).clamp(min=1e-12)
        likely = torch.where(angle < math.pi * left, likely, 0.0)
        lost = likely.sum(-1, keepdim=True) == 0
        nearest = torch.nn.functional.one_hot(angle.argmin(-1), 2).double()
        return mean_over(torch.where(lost, nearest, likely), steps) / left

    def check(self, x):
        shape = (*x.shape[:-2], 2, 3, 3)
        angle = rotation_angle(x[..., None, :, :].expand(shape), self.centres.expand(shape))
        assert angle.min(-1).values.max() < 1e-6
        assert_share(angle.argmin(-1) == 1, 0.7)


def assert_share(hits, share):
    n = hits.numel()
    assert abs(hits.double().mean() - share) < 4 * (share * (1 - share) / n) ** 0.5


@pytest.mark.parametrize("kind", ["velocity", "endpoint"])
@pytest.mark.parametrize(("sampler", "steps"), [(Euler, 100), (Heun, 40)], ids=["Euler", "Heun"])
def test_exact_velocities_carry_noise_to_the_mixture(kind, sampler, steps):
    targets = {"x": Normals(), "frac": Boxes(), "rotation": Poses()}
    product = Product({name: target.m for name, target in targets.items()})
    flow = FlowMatching(product, endpoint=targets if kind == "endpoint" else [])
    x_0 = product.random(600, 4, generator=torch.Generator().manual_seed(0))

    def predict(x, t):
        v = {name: target.velocity(x[name], t) for name, target in targets.items()}
        return FlowMatching(product).as_endpoint(v, x, t) if kind == "endpoint" else v

    end = sampler(flow).sample(predict, x_0, even_times(steps))
    for name, target in targets.items():
        target.check(end[name])


def test_the_closed_velocities_are_the_means_of_the_targets():
    """Simulated: among paths that pass close to a point, the mean target velocity is the closed one."""
    n, t = 400_000, 0.4
    g = torch.Generator().manual_seed(0)
    which = (torch.rand(n, generator=g) < 0.7).long()
    boxes, poses, normals = Boxes(), Poses(), Normals()
    x_1 = {
        "x": normals.centres[which]
        + normals.spreads[which, None] * torch.randn(n, 2, generator=g, dtype=torch.float64),
        "frac": wrap(
            boxes.centres[which, None]
            + boxes.width * (torch.rand(n, 1, generator=g, dtype=torch.float64) - 0.5)
        ),
        "rotation": poses.centres[which],
    }
    targets = {"x": normals, "frac": boxes, "rotation": poses}
    flow = FlowMatching(Product({name: target.m for name, target in targets.items()}))
    time = torch.full((n,), t, dtype=torch.float64)
    x_t = flow.interpolate(flow.product.random(n, generator=g), x_1, time)
    v = flow.target_velocity(x_t, x_1, time)
    for name, target in targets.items():
        here = x_t[name][:1]
        near = target.m.distance(x_t[name], here) < {"x": 0.1, "frac": 0.01, "rotation": 0.2}[name]
        off = v[name][near] - target.velocity(x_t[name][near][:, None], time[near])[:, 0]
        assert near.sum() > 200
        assert (off.mean(0).abs() < 4 * off.std(0) / len(off) ** 0.5 + 1e-9).all()


# ---------------------------------------------------------------- samplers: options


def test_annealing_multiplies_the_velocity():
    x_0, v = state(0), tangents(1, 0.05)
    grid = (0.0, 0.4, 0.5)
    end = Euler(VELOCITIES, {"centroid": Annealing(9.0), "lattice": Annealing(5.0, start=0.1)}).sample(
        lambda x, t: v, x_0, grid
    )
    factor = {"centroid": 0.4 + 0.1 * (1 + 9 * 0.4), "lattice": 0.4 + 0.1 * (1 + 5 * 0.3)}
    expected = PRODUCT.exp(x_0, {name: factor.get(name, 0.5) * u for name, u in v.items()})
    assert apart(end, expected) < 1e-9


def test_published_rotations_go_a_growing_fraction_and_then_land():
    x_0, x_1, dt = state(0), state(1), 0.1
    sampler = Euler(ENDPOINTS, {"rotation": Approach(3.0)})
    path = sampler.trajectory(lambda x, t: x_1, x_0, even_times(10))["rotation"]
    assert path.shape == (11, BATCH, 4, 3, 3)
    for i in range(9):
        expected = SO3().geodesic(path[i], x_1["rotation"], (1 + 3 * i * dt) * dt)
        torch.testing.assert_close(path[i + 1], expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(path[10], x_1["rotation"], atol=1e-9, rtol=0)


@samplers
def test_annealed_endpoints_are_not_overshot(sampler):
    """A slope that asks for more than the whole way: the path to the endpoint never gets longer."""
    x_0, x_1 = state(0), state(1)
    path = sampler(ENDPOINTS, {name: Annealing(50.0) for name in AXES}).trajectory(
        lambda x, t: x_1, x_0, even_times(8)
    )
    for name, (m, _) in AXES.items():
        far = torch.stack([m.distance(x, x_1[name]) for x in path[name]])
        assert (far.diff(dim=0) < 1e-6).all()
        assert far[-1].max() < 1e-6


@samplers
def test_a_callback_changes_the_state_that_the_walk_goes_on_from(sampler):
    """Projecting on a mirror symmetry after each step keeps it, though the velocity breaks it."""
    x_0, v, seen = state(0), tangents(1, 0.2), []

    def symmetrise(x, t):
        seen.append(t)
        return {**x, "centroid": torch.cat([x["centroid"][:, :2], wrap(-x["centroid"][:, :2])], 1)}

    end = sampler(VELOCITIES).sample(lambda x, t: v, x_0, even_times(4), after_step=symmetrise)
    assert seen == [0.25, 0.5, 0.75, 1.0]
    assert wrap_difference(end["centroid"][:, :2] + end["centroid"][:, 2:]).abs().max() < 1e-12
    free = sampler(VELOCITIES).sample(lambda x, t: v, x_0, even_times(4))
    torch.testing.assert_close(end["centroid"][:, :2], free["centroid"][:, :2])


@samplers
def test_a_trajectory_starts_at_the_noise_and_ends_at_the_sample(sampler):
    x_0, x_1 = state(0), state(1)
    both = [
        f(lambda x, t: x_1, x_0, UNEVEN) for f in (sampler(ENDPOINTS).sample, sampler(ENDPOINTS).trajectory)
    ]
    for name, end in both[0].items():
        assert both[1][name].shape == (len(UNEVEN), *end.shape)
        assert torch.equal(both[1][name][0], x_0[name])
        assert torch.equal(both[1][name][-1], end)


def test_samples_repeat_and_carry_no_gradient():
    x_0, x_1 = state(0), {k: v.requires_grad_() for k, v in state(1).items()}
    one, two = (Heun(ENDPOINTS).sample(lambda x, t: x_1, x_0, even_times(3)) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) and not one[k].requires_grad for k in one)


# ---------------------------------------------------------------- times

LAWS = [
    Uniform(),
    Uniform(0.01, 0.99),
    Beta(1.8, 1.0),
    Beta(0.5, 2.0),
    LogitNormal(0.0, 1.0),
    LogitNormal(0.8, 0.6),
]
laws = pytest.mark.parametrize("law", LAWS, ids=str)


def shares_below(law, t):
    """Distribution functions by integrating densities, or by the normal law's own."""
    if isinstance(law, Uniform):
        return ((t - law.low) / (law.high - law.low)).clamp(0, 1)
    if isinstance(law, LogitNormal):
        return torch.special.ndtr((torch.logit(t) - law.mean) / law.scale)
    u = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:-1]
    density = u ** (law.a - 1) * (1 - u) ** (law.b - 1)
    total = density.cumsum(0) / density.sum()
    return total[torch.searchsorted(u, t).clamp(max=len(u) - 1)]


@laws
@pytest.mark.parametrize("stratified", [False, True])
def test_times_follow_their_law_and_stay_below_one(law, stratified):
    n = 20_000
    t = law.draw(n, torch.Generator().manual_seed(0), stratified=stratified)
    assert t.shape == (n,)
    assert t.min() >= 0
    assert t.max() <= LATEST < 1
    empirical = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    below = t.sort().values < LATEST  # the rest was moved to it
    off = (shares_below(law, t.sort().values) - empirical)[below].abs().max()
    assert off < (0.01 if isinstance(law, Beta) else 1 / n + 1e-9 if stratified else 1.95 / n**0.5)


@laws
def test_times_repeat_with_their_seed(law):
    one, two, other = (law.draw(64, torch.Generator().manual_seed(s), torch.float32) for s in (0, 0, 1))
    assert one.dtype == torch.float32
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_stratified_times_come_one_from_each_part_in_random_order():
    t = Uniform().draw(100, torch.Generator().manual_seed(0), stratified=True)
    assert torch.equal((t * 100).long().sort().values, torch.arange(100))
    assert not torch.equal(t.argsort(), torch.arange(100))
    means = torch.stack(
        [Uniform().draw(100, torch.Generator().manual_seed(s), stratified=True)[0] for s in range(400)]
    )
    assert abs(means.mean() - 0.5) < 4 * 12**-0.5 / 20  # each alone is uniform


@pytest.mark.parametrize(
    ("law", "numbers"),
    [(Uniform, (0.5, 0.5)), (Uniform, (-0.1, 1.0)), (Beta, (0.0, 1.0)), (LogitNormal, (0.0, 0.0))],
)
def test_impossible_laws_are_refused(law, numbers):
    with pytest.raises(InputError, match="expected"):
        law(*numbers)
