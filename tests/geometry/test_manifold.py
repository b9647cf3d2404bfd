"""Laws that every manifold obeys; a new member is one more entry in MANIFOLDS."""

import math

import pytest
import torch

from nucleate.geometry.lattice import LogLattice
from nucleate.geometry.manifold import Euclidean, Product
from nucleate.geometry.so3 import SO3, rotation_angle
from nucleate.geometry.torus import Torus

MANIFOLDS = [Euclidean(3), Euclidean(1), Torus(3), Torus(2), SO3(), LogLattice()]
law = pytest.mark.parametrize("m", MANIFOLDS, ids=str)
precision = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def points(m, n, dtype, seed=0):
    return m.random(n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tolerance(dtype, m):
    """Rounding of one exp and one log; that of a flat cell is larger than that of a cube."""
    return (40 if isinstance(m, LogLattice) else 10) * torch.finfo(dtype).eps


def apart(m, x, y):
    """Largest distance, measured on the manifold, so that 0.0 and 0.999999 on the torus are near."""
    return float(m.distance(x, y).max())


@law
@precision
def test_exp_undoes_log(m, dtype):
    x, y = points(m, 200, dtype), points(m, 200, dtype, seed=1)
    assert apart(m, m.exp(x, m.log(x, y)), y) < 20 * tolerance(dtype, m)


@law
@precision
def test_log_undoes_short_exp(m, dtype):
    x = points(m, 200, dtype)
    v = torch.randn(200, *m.tangent, dtype=dtype, generator=torch.Generator().manual_seed(2)) * 0.08
    torch.testing.assert_close(m.log(x, m.exp(x, v)), v, atol=20 * tolerance(dtype, m), rtol=0)


@law
@precision
def test_standing_still(m, dtype):
    x = points(m, 50, dtype)
    assert m.log(x, x).abs().max() < tolerance(dtype, m)
    assert apart(m, m.exp(x, torch.zeros(50, *m.tangent, dtype=dtype)), x) < tolerance(dtype, m)


@law
def test_velocity_is_the_slope_of_the_path(m):
    x_0, x_1 = points(m, 32, torch.float64), points(m, 32, torch.float64, seed=1)
    t, h = torch.rand(32, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 0.8, 1e-5
    before, now, after = (m.geodesic(x_0, x_1, s) for s in (t - h, t, t + h))
    slope = m.log(before, after) / (2 * h)
    torch.testing.assert_close(m.velocity(now, x_1, t), slope, atol=1e-7, rtol=1e-6)


@law
def test_geodesic_joins_its_ends_at_constant_speed(m):
    x_0, x_1 = points(m, 32, torch.float64), points(m, 32, torch.float64, seed=1)
    assert apart(m, m.geodesic(x_0, x_1, 0.0), x_0) < 1e-11
    assert apart(m, m.geodesic(x_0, x_1, 1.0), x_1) < 1e-11
    third = m.distance(x_0, m.geodesic(x_0, x_1, 1 / 3))
    torch.testing.assert_close(third, m.distance(x_0, x_1) / 3, atol=1e-11, rtol=0)


@law
def test_log_is_the_short_way(m):
    x, y, z = (points(m, 500, torch.float64, seed=s) for s in range(3))
    assert (m.distance(x, z) <= m.distance(x, y) + m.distance(y, z) + 1e-9).all()
    torch.testing.assert_close(m.distance(x, y), m.distance(y, x), atol=1e-11, rtol=0)


@law
@precision
def test_random_is_on_the_manifold_and_repeats_with_its_seed(m, dtype):
    x = points(m, 100, dtype)
    assert x.shape == (100, *m.point)
    assert x.dtype == dtype
    assert apart(m, m.project(x), x) < 20 * tolerance(dtype, m)
    assert torch.equal(x, points(m, 100, dtype))
    assert not torch.equal(x, points(m, 100, dtype, seed=1))


@law
def test_project_twice_is_project_once(m):
    x = points(m, 50, torch.float64)
    near = x + 0.1 * torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))
    once = m.project(near)
    torch.testing.assert_close(m.project(once), once, atol=1e-9, rtol=1e-9)


@law
@pytest.mark.parametrize("length", [0.0, 1e-9, 0.3])
def test_gradients_are_finite_and_agree_with_differences(m, length):
    x = points(m, 4, torch.float64)
    v = torch.randn(4, *m.tangent, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * length
    v.requires_grad_(True)
    torch.autograd.gradcheck(lambda u: m.exp(x, u), v, atol=1e-5)
    torch.autograd.gradcheck(lambda u: m.log(x, m.exp(x, u)), v, atol=1e-5)
    (slope,) = torch.autograd.grad(m.distance(x, m.exp(x, v)).sum(), v)
    assert torch.isfinite(slope).all()


def test_world_rotation_moves_points_and_not_tangents():
    m = SO3()
    x, y, turn = (points(m, 50, torch.float64, seed=s) for s in range(3))
    torch.testing.assert_close(m.log(turn @ x, turn @ y), m.log(x, y))
    v = m.log(x, y)
    torch.testing.assert_close(m.exp(turn @ x, v), turn @ m.exp(x, v))


def test_torus_stays_below_one():
    m = Torus(1)
    x = m.exp(torch.zeros(3, 1), torch.tensor([[-1e-12], [1.0], [-1.0]]))
    assert ((x >= 0) & (x < 1)).all()
    assert m.log(torch.tensor([0.9]), torch.tensor([0.1])).item() == pytest.approx(0.2)


@pytest.mark.parametrize("m", [Torus(2), SO3()], ids=str)
def test_random_is_uniform(m):
    """Moving uniform points by a fixed step keeps them uniform: means of test functions do not change."""
    x = points(m, 40_000, torch.float64)
    moments = x.flatten(1)
    expected, spread = (0.5, 12**-0.5) if isinstance(m, Torus) else (0.0, 3**-0.5)
    assert (moments.mean(0) - expected).abs().max() < 5 * spread / 200
    assert (moments.std(0) - spread).abs().max() < 0.01


def test_rotation_angles_follow_the_haar_law():
    """The density of the angle is (1 - cos a) / pi: its distribution function is (a - sin a) / pi."""
    n = 20_000
    x = points(SO3(), n, torch.float64)
    angle = rotation_angle(torch.eye(3, dtype=torch.float64).expand(n, 3, 3), x).sort().values
    law = (angle - angle.sin()) / math.pi
    empirical = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert (law - empirical).abs().max() < 1.95 / n**0.5  # Kolmogorov-Smirnov, one false alarm in a thousand


def test_product_works_field_by_field():
    m = Product({"centroid": Torus(3), "rotation": SO3(), "lattice": LogLattice()})
    generators = [torch.Generator().manual_seed(s) for s in (0, 1)]
    x, y = (m.random(5, generator=g) for g in generators)
    end = m.exp(x, m.log(x, y))
    assert all(apart(f, end[name], y[name]) < 1e-10 for name, f in m.factors.items())
    t = torch.full((5,), 0.25, dtype=torch.float64)
    half = m.geodesic(x, y, t)
    assert set(half) == set(m.project(half)) == {"centroid", "rotation", "lattice"}
    speed = m.velocity(half, y, t)
    torch.testing.assert_close(speed["rotation"], SO3().log(x["rotation"], y["rotation"]))
    with pytest.raises(KeyError, match="rotation"):
        m.log(x, {"centroid": y["centroid"]})
