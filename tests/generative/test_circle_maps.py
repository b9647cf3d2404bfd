"""Laws of maps of the circle: inverses, slopes, periodicity."""

import pytest
import torch

from nucleate.generative.circle_maps import CircularMoebius, CircularSpline

Map = CircularSpline | CircularMoebius
MAPS: list[Map] = [CircularSpline(6), CircularMoebius()]


def drawn(m: Map, shape: tuple[int, ...], scale: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(*shape, generator=generator, dtype=torch.float64)
    return x, scale * torch.randn(*shape, m.size, generator=generator, dtype=torch.float64)


def apart(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((x - y + 0.5) % 1.0 - 0.5).abs()


@pytest.mark.parametrize("m", MAPS, ids=lambda m: type(m).__name__)
def test_inverse_undoes_forward(m: Map) -> None:
    x, theta = drawn(m, (30, 40))
    y, grown = m.forward(x, theta)
    back, shrunk = m.inverse(y, theta)
    assert apart(back, x).max() < 1e-9
    torch.testing.assert_close(shrunk, -grown, atol=1e-7, rtol=0)
    assert apart(m.forward(m.inverse(x, theta)[0], theta)[0], x).max() < 1e-9
    assert apart(x, y).mean() > 0.05


@pytest.mark.parametrize("m", MAPS, ids=lambda m: type(m).__name__)
def test_slopes_are_those_of_autograd_and_positive(m: Map) -> None:
    x, theta = drawn(m, (200,))
    x.requires_grad_()
    y, grown = m.forward(x, theta)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    torch.testing.assert_close(grown, slope.log(), atol=1e-8, rtol=0)


@pytest.mark.parametrize("m", MAPS, ids=lambda m: type(m).__name__)
def test_the_circle_closes_smoothly_and_is_covered_once(m: Map) -> None:
    _, theta = drawn(m, (20,))
    near = torch.tensor(1e-9, dtype=torch.float64)
    after, before = (m.forward(x.expand(20) % 1.0, theta) for x in (near, -near))
    assert apart(after[0], before[0]).max() < 1e-6
    torch.testing.assert_close(after[1], before[1], atol=1e-3, rtol=0)
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    grown = m.forward(grid.expand(20, -1), theta[:, None].expand(-1, 2000, -1))[1]
    torch.testing.assert_close(grown.exp().mean(1), torch.ones(20, dtype=torch.float64), atol=2e-2, rtol=0)


@pytest.mark.parametrize("m", MAPS, ids=lambda m: type(m).__name__)
def test_parameters_of_nothing_do_nothing(m: Map) -> None:
    x, theta = drawn(m, (50,), 0.0)
    y, grown = m.forward(x, theta)
    assert apart(y, x).max() < 1e-12
    assert grown.abs().max() < 1e-12


@pytest.mark.parametrize("m", MAPS, ids=lambda m: type(m).__name__)
def test_gradients_reach_parameters_both_ways(m: Map) -> None:
    x, theta = drawn(m, (2,), 0.7)
    theta.requires_grad_()
    for way in (m.forward, m.inverse):
        assert torch.autograd.gradcheck(lambda t, way=way: way(x, t)[0].sum() + way(x, t)[1].sum(), (theta,))
