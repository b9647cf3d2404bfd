"""Unique, novel, distances: the shortcuts change no answer, and every rate keeps its denominator."""

import itertools
import json
import math

import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from tests.crystal.inorganic import rattled, textbook
from tests.metrics.inorganic_disguises import (
    CAESIUM_CHLORIDE,
    PEROVSKITE,
    ROCK_SALT,
    ZINC_BLENDE,
    anywhere,
    disguised,
    relabelled,
)

from nucleate.crystal.sites import Sites
from nucleate.metrics import dng
from nucleate.metrics.csp import Attempt
from nucleate.metrics.dng import SAME, first_of_kind, judge_dng, known_among, summarise_dng
from nucleate.metrics.structure_matcher import StructureMatching

POTASSIUM = relabelled(ROCK_SALT, {11: 19})
CROWD = [
    ROCK_SALT, CAESIUM_CHLORIDE, disguised(ROCK_SALT), PEROVSKITE, POTASSIUM, anywhere(PEROVSKITE, 0),
    rattled(PEROVSKITE, 0.15), ZINC_BLENDE, disguised(CAESIUM_CHLORIDE), disguised(POTASSIUM), anywhere(PEROVSKITE, 1),
    rattled(ROCK_SALT, 0.4, 2), anywhere(ROCK_SALT, 3),
]  # fmt: skip


@pytest.fixture(scope="module")
def matching():
    with StructureMatching(SAME) as one:
        yield one


def same(one: Sites, other: Sites) -> bool:
    """As pymatgen says, without any shortcut."""
    plain = StructureMatcher(ltol=SAME.ltol, stol=SAME.stols[0], angle_tol=SAME.angle, scale=True)
    first, second = (Structure(c.lattice.numpy(), c.numbers.tolist(), c.frac.numpy()) for c in (one, other))
    return plain.get_rms_dist(first, second) is not None


def test_the_settings_are_those_of_pymatgen() -> None:
    plain = StructureMatcher()
    assert (plain.ltol, (plain.stol,), plain.angle_tol) == (SAME.ltol, SAME.stols, SAME.angle)


def test_rounds_find_what_going_through_all_pairs_finds(matching) -> None:
    unique: list[int] = []
    expected: list[int | None] = []
    for i, crystal in enumerate(CROWD):
        like = next((u for u in unique if same(CROWD[u], crystal)), None)
        expected.append(like)
        unique += [i] if like is None else []
    assert first_of_kind(CROWD, matching).of == expected
    assert expected[2] == 0
    assert expected[8] == 1
    assert expected[9] == 4
    assert 5 < len(unique) < len(CROWD)


def test_stopping_early_misses_no_training_crystal(matching) -> None:
    training = [
        POTASSIUM, textbook("rutile"), ZINC_BLENDE, anywhere(ROCK_SALT, 7), anywhere(ROCK_SALT, 8),
        disguised(ROCK_SALT), CAESIUM_CHLORIDE,
    ]  # fmt: skip
    found = known_among(CROWD, training, matching).of
    for crystal, place in zip(CROWD, found):
        assert (place is not None) == any(same(t, crystal) for t in training)
        assert place is None or same(training[place], crystal)
    assert {place is None for place in found} == {True, False}


def test_a_known_crystal_is_asked_about_no_further(matching, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    compare = matching.compare
    monkeypatch.setattr(matching, "compare", lambda pairs: asked.append(len(pairs)) or compare(pairs))
    others = [
        Sites((1.3 + 0.1 * k) * CAESIUM_CHLORIDE.lattice, CAESIUM_CHLORIDE.frac, CAESIUM_CHLORIDE.numbers)
        for k in range(9)
    ]
    assert known_among([ROCK_SALT, PEROVSKITE], [*others, ROCK_SALT], matching).of == [9, None]
    assert asked == [1]  # the nearest in volume was it, and perovskites there are none
    asked.clear()
    assert known_among([ROCK_SALT], others, matching).of == [None]
    assert asked == [1, 2, 4, 2]


def test_rows_name_what_they_are_like(matching) -> None:
    attempts = [
        Attempt("", 0, None, "unreadable: no cell"),
        *(Attempt("", k, c) for k, c in enumerate([ROCK_SALT, PEROVSKITE, disguised(ROCK_SALT)], start=1)),
    ]
    rows = judge_dng("prediction", attempts, {"mp-1": PEROVSKITE}, matching, compositions=False)
    assert [row["like"] for row in rows] == [None, None, None, 1]
    assert [row["known_as"] for row in rows] == [None, None, "mp-1", None]
    assert [row["elements"] for row in rows] == [None, 2, 3, 2]
    assert rows[2]["density_g_cm3"] == pytest.approx(183.48 / 0.602214 / 3.905**3, rel=1e-3)
    scores = summarise_dng(rows, "prediction", [ROCK_SALT, PEROVSKITE])
    assert [(r.hits, r.asked) for r in (scores.structure, scores.unique, scores.novel, scores.new)] == [
        (3, 4), (2, 4), (2, 4), (1, 4),
    ]  # fmt: skip
    assert (scores.composition, scores.valid, scores.measured) == (None, None, 3)
    assert scores.failures == {"unreadable": 1}
    without = judge_dng("prediction", attempts, None, matching, compositions=False)
    unknown = summarise_dng(without, "prediction", [ROCK_SALT], trained=False)
    assert (unknown.novel, unknown.new) == (None, None)


def test_distances_are_of_valid_samples_and_worked_out_by_hand(
    matching, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every composition but that of rock salt is taken for invalid.
    monkeypatch.setattr(
        "nucleate.metrics.inorganic_validity._follows_rule", lambda parts: parts == ((11, 1), (17, 1))
    )
    attempts = [Attempt("", k, c) for k, c in enumerate([ROCK_SALT, PEROVSKITE, ZINC_BLENDE])]
    rows = judge_dng("prediction", attempts, None, matching)
    scores = summarise_dng(rows, "prediction", [PEROVSKITE], trained=False)
    assert (scores.valid.hits, scores.composition.hits, scores.measured) == (2, 2, 2)
    assert scores.elements == 1.0  # two elements instead of three
    mean = (ROCK_SALT.density + ZINC_BLENDE.density) / 2
    assert scores.density == pytest.approx(PEROVSKITE.density - mean)
    same_ones = summarise_dng(rows, "prediction", [ROCK_SALT, ZINC_BLENDE], trained=False)
    assert (same_ones.density, same_ones.elements) == (pytest.approx(0), 0)


def test_nothing_generated_is_no_crash(matching) -> None:
    attempts = [Attempt("", 0, None, "no crystal")]
    rows = judge_dng("prediction", attempts, {"one": ROCK_SALT}, matching, compositions=False)
    scores = summarise_dng(rows, "prediction", [ROCK_SALT])
    assert (scores.unique.hits, scores.unique.asked) == (0, 1)
    assert math.isnan(scores.density)
    assert json.loads(json.dumps(scores.as_json(), allow_nan=False))["density"] is None


def test_every_pair_of_the_crowd_is_told_apart_by_recipe_alone_where_recipes_differ() -> None:
    for one, other in itertools.combinations(CROWD, 2):
        if dng.recipe(one) != dng.recipe(other):
            assert not same(one, other)
