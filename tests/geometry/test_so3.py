"""Rotations near 0, near pi and in between, quaternions, superposition."""

import math

import pytest
import torch

from nucleate.geometry.so3 import (
    kabsch,
    matrix_to_quaternion,
    nearest_rotation,
    quaternion_to_matrix,
    random_rotation,
    rotation_angle,
    rotation_exp,
    rotation_from_uniform,
    rotation_log,
)

precision = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
ANGLES = [0.0, 1e-8, 1e-4, 0.0632, 0.0633, 1.0, 3.0, math.pi - 1e-3]


def directions(n, dtype, seed=0):
    v = torch.randn(n, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return v / v.norm(dim=-1, keepdim=True)


def cloud(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * 3


@precision
@pytest.mark.parametrize("angle", ANGLES)
def test_exp_and_log_are_inverse_to_rounding(angle, dtype):
    v = directions(200, dtype) * angle
    rotation = rotation_exp(v)
    identity = torch.eye(3, dtype=dtype).expand(200, 3, 3)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(rotation @ rotation.mT, identity, atol=16 * eps, rtol=0)
    assert (torch.linalg.det(rotation) > 0).all()
    torch.testing.assert_close(rotation_log(rotation), v, atol=8 * eps * max(angle, 1e-3), rtol=0)
    torch.testing.assert_close(rotation_angle(identity, rotation), v.norm(dim=-1), atol=8 * eps, rtol=8 * eps)


@precision
def test_exp_is_the_matrix_exponential(dtype):
    v = directions(50, dtype, seed=1) * torch.linspace(0, 12, 50, dtype=dtype)[:, None]
    generator = torch.zeros(50, 3, 3, dtype=dtype)
    generator[:, 2, 1], generator[:, 0, 2], generator[:, 1, 0] = v.unbind(-1)
    expected = torch.linalg.matrix_exp(generator - generator.mT)
    torch.testing.assert_close(rotation_exp(v), expected, atol=100 * torch.finfo(dtype).eps, rtol=0)


@precision
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, 0, 0.8), (0.6, -0.8, 0), (1, 1, 1)])
def test_half_turns_have_one_known_sign(axis, dtype):
    n = torch.tensor(axis, dtype=dtype)
    n = n / n.norm()
    rotation = 2 * torch.outer(n, n) - torch.eye(3, dtype=dtype)
    positive = n if n[n.abs().argmax()] > 0 else -n
    torch.testing.assert_close(rotation_log(rotation), math.pi * positive)


@precision
@pytest.mark.parametrize("side", [1, -1])
def test_beside_a_half_turn_the_short_way_is_taken(side, dtype):
    """Just past pi the axis is turned round, and the angle keeps its last digits."""
    n, step = directions(100, dtype, seed=2), 1e-3
    v = rotation_log(rotation_exp(n * (math.pi + side * step)))
    expected = n * (math.pi - step) * -side
    torch.testing.assert_close(v, expected, atol=64 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.0632456, 0.5, math.pi - 1e-6, math.pi])
def test_log_has_finite_and_right_gradients(angle):
    rotation = rotation_exp(directions(3, torch.float64, seed=3) * angle)
    tangent = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(rotation_log(rotation @ rotation_exp(tangent)).square().sum(), tangent)
    expected = 2 * rotation_log(rotation)  # grad of half the squared distance is the log itself
    torch.testing.assert_close(slope, expected, atol=1e-6, rtol=1e-6)


@precision
def test_quaternions_round_trip(dtype):
    q = torch.randn(500, 4, dtype=dtype, generator=torch.Generator().manual_seed(4))
    q[:4] = torch.eye(4, dtype=dtype)  # the identity and the three half turns
    q = q / q.norm(dim=-1, keepdim=True)
    back = matrix_to_quaternion(quaternion_to_matrix(q))
    sign = (back * q).sum(-1, keepdim=True).sign()
    torch.testing.assert_close(back * sign, q, atol=8 * torch.finfo(dtype).eps, rtol=0)
    assert (back[:, 0] >= 0).all()


def test_quaternion_product_is_matrix_product():
    """Columns rotate as q v q*: i turns j into k."""
    quarter = quaternion_to_matrix(torch.tensor([0.5**0.5, 0.5**0.5, 0, 0], dtype=torch.float64))
    y, z = torch.eye(3, dtype=torch.float64)[1:]
    torch.testing.assert_close(quarter @ y, z)


def test_shoemake_is_uniform_and_deterministic():
    u = torch.quasirandom.SobolEngine(3).draw(8192).double()
    rotation = rotation_from_uniform(u)
    assert rotation.mean(0).abs().max() < 0.01
    assert (rotation.square().mean(0) - 1 / 3).abs().max() < 0.01
    angle = rotation_angle(torch.eye(3, dtype=torch.float64).expand_as(rotation), rotation)
    assert float((angle < math.pi / 2).double().mean()) == pytest.approx(0.5 - 1 / math.pi, abs=0.01)


def test_random_rotations_do_not_prefer_a_direction():
    rotation = random_rotation(20_000, generator=torch.Generator().manual_seed(5))
    turned = rotation @ rotation_exp(torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64))
    for sample in (rotation, turned):
        assert sample.mean(0).abs().max() < 5 * 3**-0.5 / 20_000**0.5


@precision
@pytest.mark.parametrize("improper", [False, True])
def test_kabsch_finds_the_motion(improper, dtype):
    x, rotation = cloud(20, 7, dtype=dtype), random_rotation(20, generator=torch.Generator().manual_seed(6))
    rotation = (-rotation if improper else rotation).to(dtype)
    shift = cloud(20, dtype=dtype, seed=1)
    fit = kabsch(x, x @ rotation.mT + shift[:, None], allow_mirror=True)
    tolerance = 200 * torch.finfo(dtype).eps
    torch.testing.assert_close(fit.rotation, rotation, atol=tolerance, rtol=0)
    torch.testing.assert_close(fit.translation, shift, atol=10 * tolerance, rtol=0)
    assert fit.rmsd.max() < 10 * tolerance
    assert bool((fit.mirrored == improper).all())
    proper = kabsch(x, x @ rotation.mT + shift[:, None])
    assert (torch.linalg.det(proper.rotation) > 0).all()
    assert (proper.rmsd.min() > 0.1) == improper


def test_kabsch_is_the_best_fit_and_weights_leave_atoms_out():
    x, y = cloud(6), cloud(6, seed=1)
    fit = kabsch(x, y)
    for step in directions(40, torch.float64) * 0.01:
        other = (x - x.mean(0)) @ (fit.rotation @ rotation_exp(step)).mT + y.mean(0)
        assert (other - y).square().sum(-1).mean().sqrt() >= fit.rmsd
    weights = torch.tensor([1.0, 1, 1, 1, 0, 0], dtype=torch.float64)
    assert torch.allclose(kabsch(x, y, weights).rotation, kabsch(x[:4], y[:4]).rotation)
    assert torch.allclose(kabsch(x, y, weights).rmsd, kabsch(x[:4], y[:4]).rmsd)


@pytest.mark.parametrize("kept", [0, 1, 2], ids=["point", "line", "plane"])
def test_kabsch_of_degenerate_sets(kept):
    x = cloud(30, 5)
    x[..., kept:] = 0
    rotation = random_rotation(30, generator=torch.Generator().manual_seed(7))
    for allow_mirror in (False, True):
        fit = kabsch(x, x @ rotation.mT, allow_mirror=allow_mirror)
        assert fit.rmsd.max() < 1e-6
        assert not fit.mirrored.any()
        torch.testing.assert_close(torch.linalg.det(fit.rotation), torch.ones(30, dtype=torch.float64))
    if kept == 2:
        torch.testing.assert_close(fit.rotation, rotation)


def test_kabsch_residual_has_the_exact_gradient():
    x, y = cloud(5).requires_grad_(True), cloud(5, seed=1)
    assert torch.autograd.gradcheck(lambda z: kabsch(z, y).rmsd, x)


def test_nearest_rotation_is_proper_and_nearest():
    matrix = cloud(50, 3)
    nearest = nearest_rotation(matrix)
    torch.testing.assert_close(torch.linalg.det(nearest), torch.ones(50, dtype=torch.float64))
    others = random_rotation(200, 50, generator=torch.Generator().manual_seed(8))
    assert ((matrix - nearest).square().sum((-1, -2)) <= (matrix - others).square().sum((-1, -2))).all()
