"""Scores keep their denominators."""

import math

import pytest

from nucleate.metrics.evaluation import in_order, summarise

TARGETS = ["a", "b", "c"]


def row(
    target, index, same=False, rmsd=None, energy=None, failure="", source="prediction", order=None, **more
):
    made = {
        "target": target, "source": source, "index": index, "order": index if order is None else order,
        "name": f"{target}{index}",
        "energy": energy, "failure": failure, "periodic": True, "volume_error": None,
        "density_error": None, "clash": None if failure else False, "distinct": None if failure else True,
        "unanswered": 0,
        "x": same, "x_matched": None, "x_of": None, "x_rmsd_A": rmsd,
    }  # fmt: skip
    return made | more


ROWS = [
    row("a", 0),
    row("a", 1, same=True, rmsd=0.5),
    row("a", 2, same=True, rmsd=0.3),
    row("b", 0, failure="unreadable: no atoms in line 7"),
    row("b", 1, failure="unreadable: no atoms in line 9"),
    row("b", 2, clash=True, distinct=False, volume_error=-0.2, density_error=0.25),
    row("a", 0, same=True, rmsd=9.0, source="control", volume_error=0.1),
]


def test_targets_without_samples_were_missed():
    scores = summarise(ROWS, "prediction", TARGETS, ["x"], top=(1, 2)).scores["x"]
    assert {k: (r.hits, r.asked) for k, r in scores.at.items()} == {"1": (0, 3), "2": (1, 3), "all": (1, 3)}
    assert scores.first == {"a": 2, "b": None, "c": None}


def test_failures_were_asked_for():
    scores = summarise(ROWS, "prediction", TARGETS, ["x"])
    assert (scores.scores["x"].samples.hits, scores.scores["x"].samples.asked) == (2, 6)
    assert (scores.clash.hits, scores.clash.asked) == (1, 6)
    assert (scores.clash_free.hits, scores.clash_free.asked) == (3, 6)
    assert (scores.unique.hits, scores.unique.asked) == (3, 6)
    assert scores.failures == {"unreadable": 2}


def test_means_say_over_how_many():
    scores = summarise(ROWS, "prediction", TARGETS, ["x"])
    assert (scores.measured, scores.rmad, scores.bias, scores.density_error) == (1, 0.2, -0.2, 0.25)
    assert scores.scores["x"].rmsd == pytest.approx(0.3)  # the best of the one target that was found
    nothing = summarise(ROWS, "prediction", ["c"], ["x"])
    assert math.isnan(nothing.scores["x"].rmsd)
    assert nothing.as_json()["scores"]["x"]["rmsd"] is None


def test_the_control_is_counted_by_itself():
    control = summarise(ROWS, "control", TARGETS, ["x"])
    assert (control.asked, control.scores["x"].at["1"].hits, control.scores["x"].at["1"].asked) == (1, 1, 3)


def test_order_is_by_energy_then_by_the_file():
    rows = [row("a", i, energy=e) for i, e in enumerate([3.0, None, 1.0, math.nan, 1.0])]
    assert [r["index"] for r in in_order(rows)] == [2, 4, 0, 1, 3]
    assert [r["index"] for r in in_order([row("a", i) for i in (0, 1, 2)])] == [0, 1, 2]


def test_json_has_hits_and_asked():
    found = summarise(ROWS, "prediction", TARGETS, ["x"]).as_json()
    assert found["scores"]["x"]["at"]["all"] == {"hits": 1, "asked": 3}
