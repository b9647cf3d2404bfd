import math

import numpy as np
import pytest

from nucleate.metrics.enrichment import censored_median, harvest, ratio_of_totals


def test_a_ratio_is_that_of_the_totals_not_the_mean_of_ratios() -> None:
    found = ratio_of_totals([[9, 1]], [[1, 9]])
    assert found.value == 1.0  # the mean of 9 and 1/9 is 4.6


def test_hits_per_start_of_two_methods() -> None:
    hits, starts = {"a": [4, 2], "b": [1, 1]}, {"a": [100, 100], "b": [50, 50]}
    found = ratio_of_totals([hits["a"], starts["b"]], [hits["b"], starts["a"]])
    assert found.value == pytest.approx((6 / 200) / (2 / 100))


def test_equal_crystals_leave_nothing_open_and_unequal_ones_do() -> None:
    sure = ratio_of_totals([[2.0] * 8], [[1.0] * 8])
    assert (sure.low, sure.value, sure.high) == (2.0, 2.0, 2.0)
    open_ = ratio_of_totals([[16.0] + [0.0] * 7], [[1.0] * 8])
    assert open_.low == 0.0 < open_.value == 2.0 < open_.high


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        over, under = rng.gamma(4.0, 1.5, 40), rng.gamma(4.0, 1.0, 40)
        found = ratio_of_totals([over], [under], draws=400, seed=trial)
        covered += found.low <= 1.5 <= found.high
    assert 0.82 < covered / 200 < 0.96  # 90 % asked for; a standard error is 2 %


def test_nothing_over_nothing_is_unknown_and_makes_the_interval_wide() -> None:
    found = ratio_of_totals([[0, 0, 0]], [[0, 0, 0]])
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0.0, math.inf)
    rare = ratio_of_totals([[3, 0, 0]], [[1, 0, 0]])
    assert rare.value == 3.0
    assert rare.low == 0.0  # a third of the draws leave the only hit out
    assert rare.high == math.inf


def test_columns_of_different_crystals_are_refused() -> None:
    with pytest.raises(ValueError, match="one number for each crystal"):
        ratio_of_totals([[1, 2, 3]], [[1, 2]])
    with pytest.raises(ValueError, match="one number for each crystal"):
        ratio_of_totals([[]], [[]])


def test_a_harvest_worked_by_hand() -> None:
    found = harvest(
        starts=10,
        order=np.array([0, 4, 2, 7, 9]),
        energy=np.array([5.0, 0.0, 0.1, 2.9, 3.1]),
        minimum=np.array([3, 0, 0, 1, 2]),
        wanted=np.array([False, True, True, False]),
        ceiling=3.0,
    )
    assert (found.starts, found.sound, found.hits, found.first) == (10, 5, 2, 8)
    assert (found.low, found.distinct, found.low_distinct) == (3, 4, 2)


def test_a_harvest_of_nothing_has_started_all_the_same() -> None:
    none = np.zeros(0, np.int64)
    found = harvest(7, none, np.zeros(0), none, np.array([True]), 1.0)
    assert (found.starts, found.sound, found.hits, found.first, found.distinct) == (7, 0, 0, None, 0)


def test_more_ends_than_starts_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1 starts"):
        harvest(1, np.arange(2), np.zeros(2), np.zeros(2, np.int64), np.array([False]), 1.0)


@pytest.mark.parametrize(
    ("values", "median"),
    [([3, None, 1], 3), ([None, None, 1], math.inf), ([1, 2, None, None], math.inf), ([4], 4)],
)
def test_what_was_not_found_took_longer_than_anything(values: list[int | None], median: float) -> None:
    assert censored_median(values) == median


def test_the_median_of_nothing_is_unknown() -> None:
    assert math.isnan(censored_median([]))
