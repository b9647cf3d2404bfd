"""Denoising score matching and Langevin dynamics on distributions with known scores."""

import pytest
import torch

from nucleate.errors import InputError
from nucleate.generative.score_matching import AnnealedLangevin, NoiseLevels, denoising_error, shortened


def test_levels_are_geometric() -> None:
    sigmas = NoiseLevels(10.0, 0.01, 50).sigmas
    assert sigmas[0] == pytest.approx(10.0)
    assert sigmas[-1] == pytest.approx(0.01)
    torch.testing.assert_close(sigmas[1:] / sigmas[:-1], torch.full((49,), 0.001 ** (1 / 49)))
    with pytest.raises(InputError, match="deviations"):
        NoiseLevels(0.1, 1.0, 3)


def test_the_error_is_least_for_the_score_of_a_gaussian() -> None:
    """x ~ N(0, 4): that of x + sigma eps is -x~ / (4 + sigma^2); any other line is worse."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 400_000, dtype=torch.float64, generator=generator)
    sigma = torch.full_like(x, 0.7)
    noisy = 2 * x + sigma * noise

    def error(slope: float) -> float:
        return float(denoising_error(slope * noisy, sigma, noise).mean())

    exact = -1 / (4 + 0.49)
    # 1/2 sigma^2 E(s + eps/sigma)^2 at the optimum: 1/2 (1 - sigma^2 / (4 + sigma^2))
    assert error(exact) == pytest.approx(0.5 * 4 / 4.49, rel=5e-3)
    assert error(exact) < min(error(exact * 1.1), error(exact * 0.9))


def test_langevin_finds_mean_and_variance_of_a_bond() -> None:
    """Two atoms on a harmonic bond: lengths come out with the density of the last level."""
    length, spread = 1.5, 0.1
    walk = AnnealedLangevin(NoiseLevels(1.0, 0.05, 10), step=6e-4, steps=150)

    def score(x: torch.Tensor, sigma: float) -> torch.Tensor:
        d = x[:, 1] - x[:, 0]
        r = d.norm(dim=-1, keepdim=True)
        # per atom: half of the exact score of the length, as if its noise were shared
        pull = -(r - length) / (spread**2 + sigma**2) * d / r
        return torch.stack([-pull, pull], 1) / 2

    generator = torch.Generator().manual_seed(1)
    start = torch.randn(2000, 2, 3, generator=generator, dtype=torch.float64)
    x = walk.sample(score, start, generator)
    r = (x[:, 1] - x[:, 0]).norm(dim=-1)
    # each atom moves with half the score: the stationary density of r is r^2 exp(-(r - 1.5)^2 / (2 v) / 2 ...)
    variance = 2 * (spread**2 + 0.05**2)
    grid = torch.linspace(0.3, 3.0, 20_001, dtype=torch.float64)
    density = grid.square() * torch.exp(-((grid - length) ** 2) / (2 * variance))
    density = density / density.sum()
    mean = (density * grid).sum()
    assert float(r.mean()) == pytest.approx(float(mean), abs=0.02)
    assert float(r.var()) == pytest.approx(float((density * (grid - mean) ** 2).sum()), rel=0.15)


def test_outliers_are_shortened_and_others_are_not() -> None:
    x = torch.tensor([[3e4, 4e4, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(
        shortened(x, 1000.0), torch.tensor([[600.0, 800.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    )


def test_levels_are_told_of_and_draws_repeat() -> None:
    walk = AnnealedLangevin(NoiseLevels(1.0, 0.1, 3), step=1e-3, steps=2)
    told: list[int] = []
    runs = [
        walk.sample(lambda x, s: -x, torch.ones(4, 3), torch.Generator().manual_seed(5), told.append)
        for _ in range(2)
    ]
    assert told == [0, 1, 2] * 2
    assert runs[0].equal(runs[1])
