"""Tables of inorganic crystals judged: found or not, from nothing, resumed, refused."""

# ruff: noqa: F811  (fixtures are imported, and asked for by their names)

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from nucleate.crystal.sites import Sites
from nucleate.crystal.sites_cif import sites_cif_text
from nucleate.errors import InputError
from nucleate.metrics import inorganic_validity
from nucleate.metrics.csp import CspScores
from nucleate.metrics.dng import SAME, DngScores
from nucleate.metrics.structure_matcher import StructureMatching
from nucleate.pipeline import evaluate_inorganic as verb
from nucleate.pipeline.evaluate_inorganic import (
    InorganicEvaluation,
    InorganicResult,
    evaluate_inorganic,
    read_attempts,
    read_references,
)
from tests.metrics.inorganic_disguises import (
    CAESIUM_CHLORIDE,
    PEROVSKITE,
    ROCK_SALT,
    disguised,
    relabelled,
)
from tests.test_cli import Program, _keep_warnings, program, refused  # noqa: F401

REFERENCES = {"mp-1": ROCK_SALT, "mp-2": CAESIUM_CHLORIDE, "mp-3": PEROVSKITE}
SALTS = ((11, 1), (17, 1)), ((8, 3), (22, 1), (38, 1))


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    found = pyarrow.Table.from_pylist(rows)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(found, path)
    else:
        pyarrow.parquet.write_table(found, path)
    return path


def cif(crystal: Sites) -> str:
    return sites_cif_text(crystal, "crystal")


def sample(
    target: str | None, number: int, crystal: Sites | None, failure: str | None = None
) -> dict[str, object]:
    return {"target": target, "sample": number, "cif": crystal and cif(crystal), "failure": failure}


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return table(
        tmp_path / "test.parquet", [{"material_id": n, "cif": cif(c)} for n, c in REFERENCES.items()]
    )


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rows = [
        sample("mp-1", 0, CAESIUM_CHLORIDE),
        sample("mp-1", 1, disguised(ROCK_SALT)),
        sample("mp-2", 0, ROCK_SALT),
        sample("mp-2", 1, None, "flat: no cell"),
        sample("mp-3", 0, disguised(PEROVSKITE)),
        sample("mp-3", 1, PEROVSKITE),
        sample("mp-9", 0, PEROVSKITE),
    ]
    folder = tmp_path / "generated"
    folder.mkdir()
    table(folder / "samples.parquet", rows)
    return folder


@pytest.fixture(scope="module")
def matchings() -> Iterator[dict[str, StructureMatching]]:
    with StructureMatching("crystalflow") as one, StructureMatching(SAME) as other:
        yield {one.settings.name: one, other.settings.name: other}


@pytest.fixture(autouse=True)
def _shared_processes(matchings: dict[str, StructureMatching], monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes take seconds to start."""
    monkeypatch.setattr(verb, "StructureMatching", lambda settings, *_: nullcontext(matchings[settings.name]))


@pytest.fixture(autouse=True)
def smact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule of compositions without SMACT: two of them are valid."""
    monkeypatch.setattr(verb, "require_smact", lambda: None)
    monkeypatch.setattr(inorganic_validity, "_follows_rule", lambda parts: parts in SALTS)


def at(result: InorganicResult, k: str) -> CspScores:
    assert isinstance(result.predictions, CspScores)
    return result.predictions.own[k]


def test_asked_for_by_contents(samples: Path, references: Path, tmp_path: Path) -> None:
    settings = InorganicEvaluation(top=(1, 2), seed=3)
    out = tmp_path / "rows.parquet"
    result = evaluate_inorganic(samples, references, settings, output=out)
    assert [str(at(result, k).any.found).split(" ")[0] for k in ("1", "2")] == ["1/3", "2/3"]
    assert [str(result.predictions.everyone[k].any.found).split(" ")[0] for k in ("1", "2")] == ["3/3", "3/3"]
    assert at(result, "2").any.rmse == pytest.approx(0, abs=1e-4)
    assert at(result, "2").any.crmse == pytest.approx(0.5 / 3, abs=1e-4)
    assert at(result, "2").valid == at(result, "2").any
    assert result.predictions.failures == {"flat": 1}
    assert (result.predictions.asked, result.control.asked) == (6, 6)  # as many controls, target by target
    assert result.real.structure.hits == 3
    assert any("1 samples of targets that are no reference" in w for w in result.warnings)
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [r["target"] for r in rows if r["source"] == "control"] == ["mp-1"] * 2 + ["mp-2"] * 2 + [
        "mp-3"
    ] * 2
    again = evaluate_inorganic(samples, references, settings)
    assert again.as_json() == result.as_json()  # the control is drawn by seed
    json.dumps(result.as_json(), allow_nan=False)


def test_the_control_of_a_target_does_not_depend_on_the_others(references: Path, tmp_path: Path) -> None:
    alone = table(tmp_path / "one.csv", [sample("mp-3", k, PEROVSKITE) for k in range(2)])
    result = evaluate_inorganic(alone, references, InorganicEvaluation(controls=2, only_asked=True))
    full = evaluate_inorganic(alone, references, InorganicEvaluation(controls=2))
    assert (at(result, "1").any.found.asked, at(full, "1").any.found.asked) == (1, 3)
    assert any("2 references have no sample and count as missed" in w for w in full.warnings)

    def drawn(found: InorganicResult) -> list[float]:
        return [r["shortest_A"] for r in found.rows if (r["target"], r["source"]) == ("mp-3", "control")]

    assert drawn(result) == drawn(full)
    assert len(drawn(result)) == 2


def test_an_interruption_keeps_finished_targets(
    samples: Path, references: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "AT_ONCE", 1)
    settings = InorganicEvaluation(top=(1, 2))
    whole = evaluate_inorganic(samples, references, settings).as_json()
    out, judged, judge = tmp_path / "rows.parquet", [], verb.judge_csp

    def impatient(source: str, *rest: object, **options: object) -> object:
        judged.append(source)
        if len(judged) == 4:  # the control of the second target
            raise KeyboardInterrupt
        return judge(source, *rest, **options)

    monkeypatch.setattr(verb, "judge_csp", impatient)
    cut = evaluate_inorganic(samples, references, settings, output=out)
    assert (cut.pending, cut.predictions.targets) == (2, 1)
    assert {r["target"] for r in cut.rows} == {"mp-1"}
    judged.clear()
    monkeypatch.setattr(
        verb, "judge_csp", lambda *args, **options: judged.append(args[0]) or judge(*args, **options)
    )
    more = InorganicEvaluation(top=(1, 2), workers=2)  # the number of processes may change
    done = evaluate_inorganic(samples, references, more, output=out, resume=True)
    assert judged == ["prediction", "control"] * 2  # the first target was not judged again
    assert done.as_json() | {"settings": 0} == whole | {"settings": 0}
    with pytest.raises(InputError, match="same files with the same settings"):
        evaluate_inorganic(samples, references, InorganicEvaluation(seed=1), output=out, resume=True)


def test_metre_is_left_out_where_it_takes_too_long(
    samples: Path, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "MOST_PAIRS", 3)
    result = evaluate_inorganic(samples, references, InorganicEvaluation(controls=0))
    assert result.predictions.everyone is None
    assert any("METRe is left out: it takes 8 pairs" in w for w in result.warnings)
    asked_for = evaluate_inorganic(samples, references, InorganicEvaluation(controls=0, everyone=True))
    assert asked_for.predictions.everyone is not None


def test_from_nothing(references: Path, tmp_path: Path) -> None:
    crystals = [ROCK_SALT, disguised(ROCK_SALT), relabelled(ROCK_SALT, {11: 19}), PEROVSKITE]
    made = table(tmp_path / "made.parquet", [sample(None, k, c) for k, c in enumerate([*crystals, None])])
    training = table(tmp_path / "train.csv", [{"material_id": "known", "cif": cif(PEROVSKITE)}])
    out = tmp_path / "rows.parquet"
    result = evaluate_inorganic(made, references, InorganicEvaluation(), training, out)
    model = result.predictions
    assert isinstance(model, DngScores)
    rates = (model.structure, model.composition, model.valid, model.unique, model.novel, model.new)
    assert [r.hits for r in rates] == [4, 3, 3, 3, 3, 1]
    assert {r.asked for r in rates} == {5}
    assert result.control.asked == 5
    assert [r["like"] for r in pyarrow.parquet.read_table(out).to_pylist()][:5] == [None, 0, None, None, None]
    assert result.rows[3]["known_as"] == "known"
    without = evaluate_inorganic(made, references, InorganicEvaluation())
    assert any("novelty is not known" in w for w in without.warnings)


def test_without_smact_everything_else_is_told(
    samples: Path, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise InputError("smact is not there", reason="missing package")

    monkeypatch.setattr(verb, "require_smact", missing)
    result = evaluate_inorganic(samples, references, InorganicEvaluation(controls=1))
    assert list(result.predictions.own) == ["1", "2"]  # of 20 that were asked about there are two
    assert at(result, "2").valid is None
    assert at(result, "2").any.found.hits == 2
    assert result.real.composition is None
    assert any("smact is not there" in w for w in result.warnings)


def test_tables_of_others(references: Path, tmp_path: Path) -> None:
    known, _ = read_references(references)
    theirs = table(tmp_path / "a.csv", [{"material_id": "mp-3", "cif": cif(PEROVSKITE)}] * 2)
    found, _ = read_attempts(theirs, known)
    assert [a.sample for a in found["mp-3"]] == [0, 1]
    named = table(
        tmp_path / "b.csv", [{"material_id": f"mine-{k}", "cif": cif(PEROVSKITE)} for k in range(2)]
    )
    nothing, crystals = read_attempts(named, known)
    assert nothing is None
    assert [a.sample for a in crystals] == [0, 1]
    broken = table(tmp_path / "c.parquet", [{"cif": "no crystal at all"}, {"cif": None}])
    _, failed = read_attempts(broken, known)
    assert [a.crystal for a in failed] == [None, None]
    assert failed[0].failure.split(":")[0] in ("no atoms", "unreadable")


def test_references_must_be_unique_and_readable(tmp_path: Path) -> None:
    twice = table(tmp_path / "twice.csv", [{"material_id": "a", "cif": cif(ROCK_SALT)}] * 2)
    with pytest.raises(InputError, match="one row for each material_id"):
        read_references(twice)
    some = table(tmp_path / "some.csv", [{"cif": cif(ROCK_SALT)}, {"cif": "broken"}])
    crystals, notes = read_references(some)
    assert list(crystals) == ["0"]
    assert "1 crystals of" in notes[0]
    with pytest.raises(InputError, match="none that can be read"):
        read_references(table(tmp_path / "none.csv", [{"cif": "broken"}]))


# ---------------------------------------------------------------- the program


def test_the_program_prints_tables(program: Program, samples: Path, references: Path) -> None:
    code, out, err = program(
        "evaluate", samples, "--reference", references, "--inorganic", "--top", "1,2", "--workers", "1"
    )
    assert (code, err) == (0, "")
    assert "3 targets, 6 samples, 6 random controls" in out
    assert "METRe, 2 samples" in out
    assert "failed: 1 x flat" in out
    assert Path("evaluation.parquet").is_file()


def test_the_program_speaks_json(program: Program, references: Path, tmp_path: Path) -> None:
    made = table(tmp_path / "made.parquet", [sample(None, 0, ROCK_SALT)])
    given = (
        "evaluate",
        "--inorganic",
        made,
        "--reference",
        references,
        "--train",
        references,
        "--workers",
        "1",
    )
    code, out, _ = program(*given, "--json")
    found = json.loads(out)
    assert (code, found["task"], found["predictions"]["novel"]) == (0, "dng", {"hits": 0, "asked": 1})
    code, out, _ = program(*given)
    assert code == 0
    assert "valid, unique and novel" in out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--reference", "nowhere.parquet"), "found none at nowhere.parquet"),
        (("--train", "test.parquet"), "expected --train with crystals from nothing only"),
        (("--top", "0"), "greater than 0"),
        (("--output", "test.parquet"), "one of the files to read"),
        (("--workers", "0"), "--workers"),
    ],
)
def test_bad_input_is_one_line(
    refused: Callable[..., str], samples: Path, references: Path, more: tuple[str, str], says: str
) -> None:
    given = () if "--reference" in more else ("--reference", references)
    assert says in refused("evaluate", samples, "--inorganic", *given, *more)
