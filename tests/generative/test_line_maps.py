"""Laws of maps of the line: inverses, slopes, and nothing far out."""

import torch

from nucleate.generative.line_maps import LineSpline

SPLINE = LineSpline(5, 3.0)


def drawn(n: int, scale: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = 2.5 * torch.randn(n, generator=generator, dtype=torch.float64)  # some beyond the reach
    return x, scale * torch.randn(n, SPLINE.size, generator=generator, dtype=torch.float64)


def test_inverse_undoes_forward_and_slopes_are_those_of_autograd() -> None:
    x, theta = drawn(2000)
    x.requires_grad_()
    y, grown = SPLINE.forward(x, theta)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grown, slope.log(), atol=1e-8, rtol=0)
    back, shrunk = SPLINE.inverse(y, theta)
    torch.testing.assert_close(back, x, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(shrunk, -grown, atol=1e-6, rtol=0)


def test_beyond_the_reach_only_scale_and_shift_are_left() -> None:
    _, theta = drawn(50)
    far = torch.full((50,), 3.5, dtype=torch.float64)
    expected = theta[:, -2].exp() * far + theta[:, -1]
    torch.testing.assert_close(SPLINE.forward(far, theta)[0], expected)
    edge = torch.full((50,), 3.0, dtype=torch.float64)
    inside, outside = (SPLINE.forward(edge + step, theta) for step in (-1e-9, 1e-9))
    torch.testing.assert_close(inside[0], outside[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(inside[1], outside[1], atol=1e-4, rtol=0)  # the slope has no step


def test_parameters_of_nothing_do_nothing() -> None:
    x, theta = drawn(100, 0.0)
    y, grown = SPLINE.forward(x, theta)
    torch.testing.assert_close(y, x)
    assert grown.abs().max() < 1e-12
