"""Agreement of two energies: small landscapes worked out by hand, and what must not matter."""

import math

import numpy as np
import pytest

from nucleate.errors import InputError
from nucleate.metrics.energy_agreement import compare_energies
from nucleate.physics.parameters import KJ_PER_MOL

NAMES = ["one", "two", "three", "four", "five"]
LOW = np.array([0.0, 1.0, 2.0, 4.0, 9.0])  # kJ/mol per molecule
OTHER = np.array([1.0, 0.0, 2.0, 4.0, 9.0])  # the first two change places
CELLS = [4, 2, 8, 4, 1]


def per_cell(energy):
    return np.asarray(energy) * np.array(CELLS[: len(energy)]) * KJ_PER_MOL


def agreement(a, b, experimental=()):
    return compare_energies(per_cell(a), per_cell(b), CELLS[: len(a)], NAMES[: len(a)], experimental)


def test_correlations_and_errors_by_hand():
    found = agreement(LOW, OTHER)
    assert found.spearman == pytest.approx(1 - 6 * 2 / (5 * 24))  # 1 - 6 sum d^2 / (n (n^2 - 1))
    assert found.kendall == pytest.approx((9 - 1) / 10)  # one of ten pairs is discordant
    assert found.mean_error == pytest.approx(2 / 5)
    assert found.mean_error_from_lowest == pytest.approx(2 / 5)
    assert (found.compared, found.asked, found.failed) == (5, 5, (0, 0))


def test_one_bad_minimum_shifts_everything_from_the_lowest_only():
    spoiled = LOW - np.array([5.0, 0, 0, 0, 0])
    found = agreement(LOW, spoiled)
    assert found.mean_error == pytest.approx(5 / 5)  # one structure is off by 5
    assert found.mean_error_from_lowest == pytest.approx(4 * 5 / 5)  # four are, once the minimum is shared
    assert found.spearman == pytest.approx(1)


def test_the_zero_of_energy_does_not_matter_and_the_order_of_arguments_neither():
    found, moved, swapped = agreement(LOW, OTHER), agreement(LOW + 1e4, OTHER - 7.0), agreement(OTHER, LOW)
    for other in (moved, swapped):
        for name in ("spearman", "kendall", "mean_error", "mean_error_from_lowest"):
            assert getattr(other, name) == pytest.approx(getattr(found, name), abs=1e-6)


def test_equal_landscapes_agree_and_reversed_ones_do_not():
    assert agreement(LOW, LOW).mean_error == 0
    assert agreement(LOW, LOW).kendall == pytest.approx(1)
    assert agreement(LOW, -LOW).spearman == pytest.approx(-1)


def test_random_energies_never_favour_the_common_minimum():
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = agreement(rng.normal(size=5), rng.normal(size=5))
        assert found.mean_error <= found.mean_error_from_lowest + 1e-9


def test_failed_energies_stay_in_the_denominator():
    broken = OTHER.copy()
    broken[[0, 4]] = np.nan, np.inf
    found = agreement(LOW, broken, ["one", "three"])
    assert (found.compared, found.asked, found.failed) == (3, 5, (0, 2))
    assert found.mean_error == pytest.approx(1 / 3)  # differences 1, 0, 0 about their median
    (first_a, first_b), (third_a, third_b) = found.standings
    assert (first_a.rank, first_b.rank, first_b.below) == (1, None, None)
    assert math.isnan(first_b.above_lowest)
    assert "no energy (3 of 5" in str(first_b)
    assert (third_a.rank, third_b.rank, third_b.ranked, third_b.asked) == (3, 2, 3, 5)


def test_standing_of_the_experimental_form():
    [(by_a, by_b)] = agreement(LOW, OTHER, ["two"]).standings
    assert (by_a.rank, by_a.below, by_b.rank, by_b.below) == (2, 1, 1, 0)
    assert by_a.above_lowest == pytest.approx(1.0)
    assert by_b.above_lowest == 0
    assert "rank 2 of 5, 1.00 kJ/mol above the lowest" in str(by_a)


def test_ties_share_the_better_rank():
    [(first, _)] = agreement(np.array([0.0, 3.0, 3.0, 5.0, 6.0]), LOW, ["three"]).standings
    assert first.rank == 2


def test_too_little_to_correlate_is_nan_and_no_warning():
    assert math.isnan(agreement(LOW[:2], OTHER[:2]).spearman)
    assert math.isnan(agreement(np.zeros(5), OTHER).kendall)
    nothing = agreement(np.full(5, np.nan), OTHER)
    assert math.isnan(nothing.mean_error)
    assert (nothing.compared, nothing.asked) == (0, 5)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="for each structure"):
        compare_energies(LOW, OTHER[:3], CELLS)
    with pytest.raises(InputError, match="at least one molecule"):
        compare_energies(LOW, OTHER, [4, 2, 0, 4, 1])
    with pytest.raises(InputError, match="form I"):
        agreement(LOW, OTHER, ["form I"])
