"""Free energies of states with closed forms: harmonic wells, with and without maps."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.metrics.free_energy import effective_share, gap, one_sided, two_sided

DIMENSIONS = 3
SOFT, STIFF = 1.0, 4.0  # u = k x^2 / 2
EXACT = DIMENSIONS / 2 * math.log(STIFF / SOFT)


def wells(n: int, scale: float, shift: float = 0.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """log w of samples of the soft well mapped by x -> scale x + shift to the stiff one, and of the way back."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, DIMENSIONS, generator=generator, dtype=torch.float64)
    y = y / STIFF**0.5

    def u(k: float, z: torch.Tensor) -> torch.Tensor:
        return k / 2 * z.square().sum(-1)

    grown = DIMENSIONS * math.log(scale)
    there, back = scale * x + shift, (y - shift) / scale
    return u(SOFT, x) + grown - u(STIFF, there), u(STIFF, y) - grown - u(SOFT, back)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.0), (0.6, 0.1)])
def test_one_end_finds_the_exact_difference(scale: float, shift: float) -> None:
    forward, backward = wells(40_000, scale, shift)
    found = one_sided(forward)
    assert abs(found.difference - EXACT) < 5 * max(found.error, 1e-9)
    assert found.error < 0.03
    back = one_sided(backward)
    assert abs(back.difference + EXACT) < 6 * max(back.error, 1e-9) + 0.02 * (scale == 1)
    assert found.overlaps


def test_the_exact_map_has_no_error_and_no_gap() -> None:
    """x -> sqrt(k_A / k_B) x takes one well to the other."""
    forward, backward = wells(100, (SOFT / STIFF) ** 0.5)
    for found in (one_sided(forward), two_sided(forward, backward)):
        assert found.difference == pytest.approx(EXACT, abs=1e-9)
        assert found.error < 1e-9
        assert found.effective == pytest.approx(1)
    assert gap(forward, EXACT) == pytest.approx(0, abs=1e-9)


def test_both_ends_are_better_than_one() -> None:
    forward, backward = wells(5000, 1.0)
    both, one = two_sided(forward, backward), one_sided(forward)
    assert abs(both.difference - EXACT) < 5 * both.error
    assert both.error < one.error


def test_bennett_with_unequal_numbers() -> None:
    forward, backward = wells(20_000, 0.7, 0.05, seed=3)
    found = two_sided(forward[:4000], backward)
    assert abs(found.difference - EXACT) < 5 * found.error


def test_errors_cover_the_truth_as_often_as_they_say() -> None:
    inside = 0
    for seed in range(40):
        found = one_sided(wells(1000, 0.7, 0.0, seed)[0], seed)
        inside += abs(found.difference - EXACT) < 2 * found.error
    assert 32 <= inside <= 40


def test_effective_share() -> None:
    assert effective_share(torch.zeros(10)) == pytest.approx(1)
    assert effective_share(torch.tensor([0.0, -1e3, -1e3, -1e3])) == pytest.approx(0.25)
    assert effective_share(torch.tensor([500.0, 500.0, -1e3, -1e3])) == pytest.approx(0.5)


def test_the_gap_is_the_divergence() -> None:
    """Between normal distributions: KL(s^2 | v) = d/2 (s^2 / v - 1 - log(s^2 / v))."""
    scale = 0.8
    forward, _ = wells(200_000, scale)
    ratio = scale**2 * STIFF / SOFT
    assert gap(forward, EXACT) == pytest.approx(DIMENSIONS / 2 * (ratio - 1 - math.log(ratio)), abs=0.03)


def test_bad_work_is_refused() -> None:
    with pytest.raises(InputError, match="1 of 30 samples"):
        one_sided(torch.cat([torch.zeros(29), torch.tensor([torch.nan])]))
    with pytest.raises(InputError, match="at least 20"):
        one_sided(torch.zeros(5))
