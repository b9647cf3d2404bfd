"""A rate with its interval."""

import math

import pytest

from nucleate.metrics.rate import Rate


def test_wilson_interval_by_hand():
    """hits 8 of 10 at 95 %: 0.490 to 0.943 (Newcombe 1998, table of score intervals)."""
    low, high = Rate(8, 10).interval()
    assert (low, high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))
    p, n, z = 0.8, 10, 1.96
    assert all(abs(p - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n)) for end in (low, high))


@pytest.mark.parametrize(("hits", "asked"), [(0, 5), (5, 5), (1, 3), (0, 1)])
def test_interval_holds_the_value_and_stays_in_range(hits, asked):
    rate = Rate(hits, asked)
    low, high = rate.interval()
    assert 0 <= low <= rate.value <= high <= 1
    assert high > low


def test_nothing_asked_is_nothing_known():
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).interval() == (0.0, 1.0)
    assert str(Rate(0, 0)) == "0/0"


def test_rates_add_with_their_denominators():
    assert Rate(1, 2) + Rate(0, 8) == Rate(1, 10)
    assert str(Rate(1, 10)).startswith("1/10 = 10.0% [")


@pytest.mark.parametrize(("hits", "asked"), [(2, 1), (-1, 3)])
def test_impossible_rates_are_refused(hits, asked):
    with pytest.raises(ValueError, match="0 <= hits <= asked"):
        Rate(hits, asked)
