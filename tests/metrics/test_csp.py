"""Match rate, RMSE, METRe and cRMSE: hand-worked cases, and nothing lost on the way."""

import json
import math

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from tests.crystal.inorganic import rattled
from tests.metrics.inorganic_disguises import (
    CAESIUM_CHLORIDE,
    PEROVSKITE,
    ROCK_SALT,
    ZINC_BLENDE,
    anywhere,
    disguised,
    relabelled,
    seeded,
)

from nucleate.crystal.sites import Sites
from nucleate.metrics.csp import (
    Attempt,
    Row,
    judge_csp,
    pairs_to_ask,
    random_coordinates,
    recipe,
    summarise_csp,
)
from nucleate.metrics.structure_matcher import StructureMatching

POLYMORPHS = {"rock salt": ROCK_SALT, "caesium chloride": CAESIUM_CHLORIDE, "perovskite": PEROVSKITE}
VALID = dict.fromkeys(POLYMORPHS, True)


@pytest.fixture(scope="module")
def matching():
    with StructureMatching("crystalflow") as one:
        yield one


def judged(matching, crystals: dict[str, list[Sites | None]], **options) -> list[Row]:
    attempts = [Attempt(t, k, c) for t, own in crystals.items() for k, c in enumerate(own)]
    return judge_csp("prediction", attempts, POLYMORPHS, matching, compositions=False, **options)


# ---------------------------------------------------------------- rows


def test_the_same_crystal_in_any_disguise_has_no_error(matching) -> None:
    rows = judged(matching, {name: [c, disguised(c), disguised(c, 1)] for name, c in POLYMORPHS.items()})
    assert [row["rms"] for row in rows] == pytest.approx([0.0] * 9, abs=1e-6)
    assert not any(row["also"] for row in rows)
    assert rows[0]["formula"] == "ClNa"


def test_another_prototype_and_another_composition_do_not_match(matching) -> None:
    wrong = {
        "rock salt": [CAESIUM_CHLORIDE, relabelled(ROCK_SALT, {11: 19}), PEROVSKITE],
        "perovskite": [anywhere(PEROVSKITE, 0), ROCK_SALT],
    }
    rows = judged(matching, wrong)
    assert [row["rms"] for row in rows] == [None] * 5
    assert [row["also"] for row in rows] == [["caesium chloride"], [], ["perovskite"], [], ["rock salt"]]


def test_what_the_published_tolerances_let_pass(matching) -> None:
    # Zinc blende has half of rock salt's atoms displaced by a quarter of the body diagonal, a √3/4; without the mean
    # half of that is left, in units of (a³/8)^(1/3). It is below 0.5: the criterion takes them for one.
    [row] = judged(matching, {"rock salt": [ZINC_BLENDE]})
    assert row["rms"] == pytest.approx(3**0.5 / 4, abs=1e-6)


def test_failures_are_rows(matching) -> None:
    attempts = [Attempt("rock salt", 0, None, "unreadable: no cell"), Attempt("rock salt", 1, ROCK_SALT)]
    rows = judge_csp("prediction", attempts, POLYMORPHS, matching, compositions=False)
    assert [(row["failure"], row["rms"] is None) for row in rows] == [
        ("unreadable: no cell", True),
        (None, False),
    ]
    scores = summarise_csp(rows, "prediction", POLYMORPHS, VALID, 0.5)
    assert scores.failures == {"unreadable": 1}
    assert (scores.structure.hits, scores.structure.asked) == (1, 2)


def test_leaving_out_pairs_of_other_recipes_changes_no_answer(matching) -> None:
    plain = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    attempts = [
        Attempt(name, k, crystal)
        for name, true in POLYMORPHS.items()
        for k, crystal in enumerate([rattled(true, 0.1), anywhere(true, 1), disguised(ZINC_BLENDE)])
    ]
    rows = judge_csp("prediction", attempts, POLYMORPHS, matching, compositions=False)
    matched = 0
    for attempt, row in zip(attempts, rows):
        found = dict(zip(row["also"], row["also_rms"])) | {row["target"]: row["rms"]}
        for name, true in POLYMORPHS.items():
            expected = plain.get_rms_dist(_structure(attempt.crystal), _structure(true))
            matched += expected is not None
            assert found.get(name) == (pytest.approx(expected[0], abs=1e-6) if expected else None)
    assert matched >= 5
    assert pairs_to_ask(attempts, POLYMORPHS) == 7 * 2 + 2 * 1  # sodium chlorides, perovskites


def test_without_everyone_only_the_own_target_is_asked_about(matching) -> None:
    [row] = judged(matching, {"rock salt": [CAESIUM_CHLORIDE]}, everyone=False)
    assert row["also"] == []


def test_recipes_have_no_common_divisor() -> None:
    assert recipe(disguised(PEROVSKITE)) == recipe(PEROVSKITE) == ((8, 3), (22, 1), (38, 1))


def _structure(crystal: Sites) -> Structure:
    return Structure(crystal.lattice.numpy(), crystal.numbers.tolist(), crystal.frac.numpy())


# ---------------------------------------------------------------- scores


def row(target: str, sample: int, rms: float | None, valid: bool | None = True, **also: float) -> Row:
    return {
        "target": target, "source": "prediction", "sample": sample, "failure": None, "volume_A3": 9.0,
        "structure_valid": True, "composition_valid": valid, "valid": valid, "rms": rms, "unanswered": 0,
        "also": [name.replace("_", " ") for name in also], "also_rms": list(also.values()),
    }  # fmt: skip


def scores(rows: list[Row], valid: dict[str, bool | None] = VALID, **options):
    return summarise_csp(rows, "prediction", POLYMORPHS, valid, 0.5, **options)


def test_the_best_of_the_first_k_counts() -> None:
    rows = [row("rock salt", 0, 0.3), row("rock salt", 1, 0.1), row("perovskite", 2, 0.2)]
    own = scores(rows, top=(1, 2, 3)).own
    assert [str(own[k].any.found).split(" ")[0] for k in ("1", "2", "3")] == ["1/3", "1/3", "2/3"]
    assert [own[k].any.rmse for k in ("1", "2", "3")] == pytest.approx([0.3, 0.1, 0.15])
    assert own["3"].any.crmse == pytest.approx((0.1 + 0.2 + 0.5) / 3)


def test_a_polymorph_found_under_another_name_is_a_find_for_metre() -> None:
    swapped = [
        row("rock salt", 0, None, caesium_chloride=0.02),
        row("caesium chloride", 0, None, rock_salt=0.04),
    ]
    one = scores(swapped)
    assert one.own["1"].any.found.hits == 0
    assert math.isnan(one.own["1"].any.rmse)
    assert one.own["1"].any.crmse == 0.5
    assert one.everyone["1"].any.found.hits == 2
    assert one.everyone["1"].any.rmse == pytest.approx(0.03)
    assert one.everyone["1"].any.crmse == pytest.approx((0.02 + 0.04 + 0.5) / 3)
    assert scores(swapped, everyone=False).everyone is None


def test_finding_fewer_crystals_cannot_lower_the_corrected_error() -> None:
    both = scores([row("rock salt", 0, 0.1), row("perovskite", 0, 0.4)]).own["1"].any
    one = scores([row("rock salt", 0, 0.1), row("perovskite", 0, None)]).own["1"].any
    assert one.rmse < both.rmse
    assert one.crmse > both.crmse


def test_valid_asks_for_a_valid_sample_and_a_valid_reference() -> None:
    rows = [row("rock salt", 0, 0.3, valid=False), row("rock salt", 1, 0.4), row("perovskite", 0, 0.1)]
    own = scores(rows, VALID | {"perovskite": False}, top=(1, 2)).own
    assert [(own[k].any.found.hits, own[k].valid.found.hits) for k in ("1", "2")] == [(2, 0), (2, 1)]
    assert own["2"].valid.rmse == pytest.approx(0.4)  # the better sample of rock salt is not valid
    assert own["2"].any.rmse == pytest.approx((0.3 + 0.1) / 2)
    assert own["2"].valid.found.asked == 3


@pytest.mark.parametrize("valid", [VALID | {"perovskite": None}, VALID])
def test_validity_that_was_not_tested_is_not_known(valid: dict[str, bool | None]) -> None:
    known = scores([row("rock salt", 0, 0.3, valid=None)], valid)
    assert known.own["1"].valid is None
    assert known.composition is None
    assert known.own["1"].any.found.hits == 1


def test_references_without_samples_were_missed_and_sizes_add_up() -> None:
    one = scores([row("rock salt", 0, 0.3), row("perovskite", 0, 0.2)])
    assert {label: str(k["1"].any.found).split(" ")[0] for label, k in one.by_size.items()} == {
        "1-4": "1/2",
        "5-8": "1/1",
    }
    assert (
        json.loads(json.dumps(one.as_json(), allow_nan=False))["by_size"]["5-8"]["20"]["any"]["rmse"] == 0.2
    )


def test_the_control_keeps_cell_and_contents() -> None:
    drawn = random_coordinates(PEROVSKITE, 3, seeded(0))
    assert len(drawn) == 3
    for crystal in drawn:
        assert crystal.composition == PEROVSKITE.composition
        torch.testing.assert_close(crystal.lattice, PEROVSKITE.lattice)
        assert ((crystal.frac >= 0) & (crystal.frac < 1)).all()
    assert not torch.equal(drawn[0].frac, drawn[1].frac)
    torch.testing.assert_close(random_coordinates(PEROVSKITE, 3, seeded(0))[2].frac, drawn[2].frac)
