"""Laws of maps of the sphere: inverses, volumes, signs, densities that stay densities."""

import math

import pytest
import torch

from nucleate.generative.sphere_maps import (
    DoubleMoebius,
    Moebius,
    ProjectiveGradient,
    ProjectiveLinear,
    SphereMap,
    inside,
    log_area,
)

MAPS = [Moebius(), DoubleMoebius(), ProjectiveLinear(), ProjectiveGradient(3), ProjectiveGradient(3, d=4)]
EVEN = MAPS[1:]


def name(m: object) -> str:
    return type(m).__name__


def on_sphere(shape: tuple[int, ...], n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(
        torch.randn(*shape, n, generator=generator, dtype=torch.float64), dim=-1
    )


def parameters(m: SphereMap, shape: tuple[int, ...], n: int, scale: float = 0.8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return scale * torch.randn(*shape, m.size(n), generator=generator, dtype=torch.float64)


def log_volume_by_autograd(m: SphereMap, p: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Of the Jacobian between bases of both tangent planes."""
    J = torch.autograd.functional.jacobian(lambda x: m.forward(x / x.norm(), theta)[0], p)
    q = m.forward(p, theta)[0]
    planes = [torch.linalg.svd(x[None])[2][1:] for x in (p, q)]
    return torch.linalg.slogdet(planes[1] @ J @ planes[0].mT)[1]


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("m", MAPS, ids=name)
def test_inverse_undoes_forward(m: SphereMap, n: int) -> None:
    p, theta = on_sphere((5, 20), n), parameters(m, (5, 20), n)
    q, grown = m.forward(p, theta)
    back, shrunk = m.inverse(q, theta)
    torch.testing.assert_close(q.norm(dim=-1), torch.ones(5, 20, dtype=torch.float64))
    torch.testing.assert_close(back, p, atol=1e-9, rtol=0)
    torch.testing.assert_close(shrunk, -grown, atol=1e-8, rtol=0)
    there, _ = m.forward(m.inverse(p, theta)[0], theta)
    torch.testing.assert_close(there, p, atol=1e-9, rtol=0)
    assert (q - p).norm(dim=-1).mean() > 0.05


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("m", MAPS, ids=name)
def test_volumes_are_those_of_autograd(m: SphereMap, n: int) -> None:
    p, theta = on_sphere((6,), n, 1), parameters(m, (6,), n)
    _, grown = m.forward(p, theta)
    for k in range(len(p)):
        torch.testing.assert_close(grown[k], log_volume_by_autograd(m, p[k], theta[k]), atol=1e-8, rtol=0)


@pytest.mark.parametrize("m", EVEN, ids=name)
def test_opposite_points_stay_opposite(m: SphereMap) -> None:
    p, theta = on_sphere((50,), 4), parameters(m, (50,), 4)
    (q, one), (opposite, other) = m.forward(p, theta), m.forward(-p, theta)
    torch.testing.assert_close(opposite, -q)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("m", MAPS, ids=name)
def test_parameters_of_nothing_do_nothing(m: SphereMap) -> None:
    p = on_sphere((10,), 4)
    q, grown = m.forward(p, torch.zeros(10, m.size(4), dtype=torch.float64))
    torch.testing.assert_close(q, p, atol=1e-7, rtol=0)
    torch.testing.assert_close(grown, torch.zeros(10, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("m", MAPS, ids=name)
def test_the_density_of_moved_points_is_one(m: SphereMap) -> None:
    """Uniform points moved have the density exp(log volume of the way back) / area, whose integral is 1."""
    n, many = 4, 20_000
    theta = parameters(m, (1,), n, 0.6).expand(many, -1)
    back = m.inverse(on_sphere((many,), n, 3), theta)[1]
    mean, error = back.exp().mean(), back.exp().std() / math.sqrt(many)
    assert abs(float(mean) - 1) < 5 * float(error)
    assert float(error) < 0.05


@pytest.mark.parametrize("m", MAPS, ids=name)
def test_gradients_reach_points_and_parameters_both_ways(m: SphereMap) -> None:
    p = on_sphere((2,), 4).requires_grad_()
    theta = parameters(m, (2,), 4, 0.4).requires_grad_()
    for way in (m.forward, m.inverse):

        def told(x: torch.Tensor, y: torch.Tensor, way=way) -> torch.Tensor:
            moved, grown = way(torch.nn.functional.normalize(x, dim=-1), y)
            return (moved * torch.arange(4.0, dtype=torch.float64)).sum() + grown.sum()

        assert torch.autograd.gradcheck(told, (p, theta), atol=1e-6, rtol=1e-5)


def test_the_closed_form_is_the_sum_of_two_moebius_maps() -> None:
    """As published: the image is the direction of M_w(p) + M_-w(p)."""
    p, theta = on_sphere((100,), 4), parameters(DoubleMoebius(), (100,), 4, 3.0)
    both = Moebius().forward(p, theta)[0] + Moebius().forward(p, -theta)[0]
    torch.testing.assert_close(
        DoubleMoebius().forward(p, theta)[0], torch.nn.functional.normalize(both, dim=-1), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_the_gradient_map_is_that_of_a_convex_even_potential(d: int) -> None:
    m, x = ProjectiveGradient(5, d), 1.7 * on_sphere((20,), 4, 2)
    k = parameters(m, (20,), 4, 1.5).unflatten(-1, (5, 4))
    x.requires_grad_()
    (slope,) = torch.autograd.grad(m.potential(x, k).sum(), x)
    gradient, hessian = m.slopes(x, k)
    torch.testing.assert_close(gradient, slope)
    torch.testing.assert_close(gradient, (hessian @ x[..., None])[..., 0])  # degree 2: grad u = H x
    assert torch.linalg.eigvalsh(hessian).min() >= 1 - 1e-9


def test_the_ball_and_the_area() -> None:
    assert inside(torch.tensor([1e6, 0.0]), 0.95).norm() < 0.95
    assert log_area(2) == pytest.approx(math.log(2 * math.pi))
    assert log_area(4) == pytest.approx(math.log(2 * math.pi**2))


@pytest.mark.parametrize("d", [2, 3, 4])
def test_parameters_of_nothing_can_be_learnt_from_in_single_precision(d: int) -> None:
    m, p = ProjectiveGradient(3, d), on_sphere((6,), 4).float()
    theta = torch.zeros(6, m.size(4), requires_grad=True)
    q, grown = m.forward(p, theta)
    (slope,) = torch.autograd.grad(q.sum() + grown.sum(), theta)
    assert slope.isfinite().all()
