"""`nucleate evaluate` and `match` on files."""

import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.parquet
import pytest
import torch

from nucleate.crystal.io import read_crystal, write_cif
from nucleate.data.predictions import Sample
from nucleate.errors import InputError
from nucleate.metrics.control import random_poses
from nucleate.metrics.criteria import criterion
from nucleate.metrics.structure_matcher import settings_named
from nucleate.pipeline.evaluate import EvaluateSettings, _controls, _row, evaluate
from nucleate.pipeline.match import match_files, own_criterion
from tests.pipeline.conftest import DATA

BENZOIC, UREIDO, DIMER = (DATA / f"cod_{name}.cif" for name in ("7210454", "1100989", "2003630"))
QUICK = EvaluateSettings(criteria=("strict15", "loose"), controls=2)


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    folder = tmp_path_factory.mktemp("references")
    for path in (BENZOIC, UREIDO, DIMER):
        shutil.copy(path, folder / f"{path.stem}.cif")
    return folder


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    """Benzoic acid: a wrong one, the right one, a broken file. The ureide: a wrong one. The third: nothing."""
    folder = tmp_path_factory.mktemp("predictions")
    right = read_crystal(BENZOIC)
    wrong = random_poses(right, 1, torch.Generator().manual_seed(0))[0]
    for name in (BENZOIC.stem, UREIDO.stem):
        (folder / name).mkdir()
    write_cif(wrong, folder / BENZOIC.stem / "1.cif")
    write_cif(right, folder / BENZOIC.stem / "2.cif")
    (folder / BENZOIC.stem / "3.cif").write_text("data_nothing\n_cell_length_a 5\n")
    other = random_poses(read_crystal(UREIDO), 1, torch.Generator().manual_seed(0))[0]
    write_cif(other, folder / UREIDO.stem / "1.cif")
    return folder


def test_hits_failures_and_missing_targets(predictions, references, tmp_path):
    found = evaluate(predictions, references, QUICK, tmp_path / "e.parquet")
    score = found.predictions.scores["strict15"]
    assert score.first == {BENZOIC.stem: 2, UREIDO.stem: None, DIMER.stem: None}
    assert [(r.hits, r.asked) for r in score.at.values()] == [(0, 3), (1, 3), (1, 3)]
    assert (score.samples.hits, score.samples.asked) == (1, 4)
    assert score.rmsd < 1e-3
    assert sum(found.predictions.failures.values()) == 1
    assert found.predictions.measured == 3
    control = found.control
    assert (control.asked, control.scores["strict15"].samples.hits) == (6, 0)
    assert control.clash.hits >= 5  # thrown together, molecules run into each other
    assert 0 < control.rmad < 0.2
    table = pyarrow.parquet.read_table(tmp_path / "e.parquet").to_pylist()
    assert len(table) == 4 + 6
    assert {r["source"] for r in table} == {"prediction", "control"}
    json.dumps(found.as_json(), allow_nan=False)


def test_the_same_seed_gives_the_same_rows(predictions, references):
    a, b = (evaluate(predictions, references, QUICK) for _ in range(2))
    assert a.rows == b.rows


def test_an_interruption_keeps_what_is_done_and_resume_ends_alike(predictions, references, tmp_path):
    output = tmp_path / "e.parquet"

    def interrupt(stage, done, asked, note):
        if done == 1:
            raise KeyboardInterrupt

    begun = evaluate(predictions, references, QUICK, output, progress=interrupt_once(interrupt))
    assert len(begun.pending) == 2
    assert begun.predictions.targets == 1
    assert {r["target"] for r in pyarrow.parquet.read_table(output).to_pylist()} == {UREIDO.stem}
    seen = []
    whole = evaluate(
        predictions, references, QUICK, output, resume=True, progress=lambda *a: seen.append(a[1])
    )
    assert seen[0] == 1
    straight = evaluate(predictions, references, QUICK)
    key = lambda r: (r["target"], r["source"], r["index"])  # noqa: E731
    assert sorted(whole.rows, key=key) == sorted(straight.rows, key=key)


def interrupt_once(tell):
    """Ctrl-C falls once; the last call, after it, goes through."""
    done = []

    def told(*arguments):
        if not done:
            try:
                tell(*arguments)
            except KeyboardInterrupt:
                done.append(True)
                raise

    return told


def test_resume_refuses_another_evaluation(predictions, references, tmp_path):
    output = tmp_path / "e.parquet"
    evaluate(predictions, references, QUICK, output)
    with pytest.raises(InputError, match="same settings"):
        evaluate(predictions, references, QUICK.model_copy(update={"seed": 1}), output, resume=True)
    output.write_text("no parquet")
    with pytest.raises(InputError, match="expected an evaluation to resume"):
        evaluate(predictions, references, QUICK, output, resume=True)


def test_energies_decide_the_order(references, tmp_path):
    right = read_crystal(BENZOIC)
    wrong = random_poses(right, 2, torch.Generator().manual_seed(3))
    for i, crystal in enumerate((right, *wrong)):
        write_cif(crystal, tmp_path / f"{i}.cif")
    texts = [(tmp_path / f"{i}.cif").read_text() for i in range(3)]
    table = pyarrow.table({"cif": texts, "energy": [-1.0, -3.0, -2.0]})
    (tmp_path / "p").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "p" / "x.parquet")
    found = evaluate(tmp_path / "p" / "x.parquet", BENZOIC, QUICK)
    assert found.predictions.scores["strict15"].first == {BENZOIC.stem: 3}


def test_a_cluster_without_a_cell_is_compared_too():
    """A crop of molecules, as OXtal writes it: the packing is judged, the volume is not."""
    folder = DATA / "predictions" / "oxtal"
    samples = sorted(folder.rglob("*.cif"))
    assert samples
    found = evaluate(folder, BENZOIC, QUICK)
    assert found.predictions.measured == 0
    assert found.predictions.asked >= 1


@pytest.mark.parametrize("bad", [{"criteria": ("strict16",)}, {"controls": -1}, {"top": (0,)}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=r"expected|greater"):
        EvaluateSettings(**bad)


def test_no_controls_is_possible(predictions, references):
    found = evaluate(predictions, references, QUICK.model_copy(update={"controls": 0}))
    assert found.control.asked == 0
    assert str(found.control.clash) == "0/0"


def test_a_target_that_was_requested_and_never_came_was_asked_for(references, tmp_path):
    folder = shutil.copytree(DATA / "predictions" / "clari", tmp_path / "clari")
    known = tmp_path / "known"
    known.mkdir()
    for path in (BENZOIC, UREIDO):
        shutil.copy(path, known / path.name.removeprefix("cod_"))
    table = pyarrow.parquet.read_table(folder / "predictions.parquet")
    pyarrow.parquet.write_table(
        table.filter(pyarrow.compute.equal(table["id"], "1100989")), folder / "predictions.parquet"
    )
    found = evaluate(folder, known, QUICK)
    assert found.predictions.asked == 8
    assert found.predictions.failures["not delivered"] == 5  # one of 1100989, all four of 7210454


def test_polymorphs_take_turns_among_the_controls():
    first = read_crystal(BENZOIC)
    second = first.replace(lattice=first.lattice * 1.5)
    drawn = _controls("x", [first, second], 5, 0)
    assert [c.crystal.volume > 2 * first.volume for c in drawn] == [False, True, False, True, False]


def test_what_a_reader_calls_a_clash_is_one():
    rows = [
        _row("x", "prediction", 0, Sample("x", 0, "a", None, failure=failure), [], [], QUICK)
        for failure in ("clash: two atoms at one place", "unreadable: no CIF")
    ]
    assert [r["clash"] for r in rows] == [True, None]


def test_pairs_without_an_answer_are_told():
    pytest.importorskip("pymatgen")
    settings = EvaluateSettings(criteria=("structurematcher",), controls=1, time_limit=1e-6)
    found = evaluate(BENZOIC, BENZOIC, settings)
    assert found.predictions.scores["structurematcher-1.2"].samples.hits == 0
    assert any("1 pairs of predictions and 1 of controls got no answer" in w for w in found.warnings)


def test_an_evaluation_in_the_folder_is_no_prediction(tmp_path):
    shutil.copy(BENZOIC, tmp_path)
    asked = [
        evaluate(tmp_path, BENZOIC, QUICK, tmp_path / "evaluation.parquet").predictions.asked for _ in "12"
    ]
    assert asked == [1, 1]


# ---------------------------------------------------------------- match


def test_structurematcher_says_what_a_cluster_lacks():
    pytest.importorskip("pymatgen")
    rows = match_files(UREIDO, [DATA / "predictions" / "oxtal"], [], settings_named("molcrystalflow"))
    assert {r["reason"] for r in rows if r["criterion"].startswith("structurematcher")} == {
        "a cluster without a cell"
    }


def test_matching_finds_the_same_crystal_alone(predictions):
    rows = match_files(BENZOIC, [predictions / BENZOIC.stem], [criterion("strict15"), criterion("loose")])
    assert [(Path(r["file"]).name, r["criterion"]) for r in rows if r["same"]] == [
        ("2.cif", "strict15"),
        ("2.cif", "loose"),
    ]
    broken = [r for r in rows if Path(r["file"]).name == "3.cif"]
    assert len(broken) == 1
    assert broken[0]["reason"]
    right = next(r for r in rows if r["same"])
    assert right["matched"] == right["of"] == 15
    assert right["rmsd_A"] < 1e-3


def test_a_criterion_of_ones_own(predictions):
    rows = match_files(BENZOIC, [BENZOIC], [own_criterion(5, 0.1, 10.0)])
    assert (rows[0]["of"], rows[0]["criterion"]) == (5, "own5")
    with pytest.raises(InputError, match="expected n >= 1"):
        own_criterion(5, 10.0, 10.0)


def test_one_bad_file_does_not_end_the_others(tmp_path):
    junk = tmp_path / "junk.txt"
    junk.write_text("hello")
    rows = match_files(BENZOIC, [junk, BENZOIC], [criterion("strict15")])
    assert [r["same"] for r in rows] == [False, True]
    assert "none of them" in rows[0]["reason"]


@pytest.mark.parametrize("given", ["missing.cif", "empty"])
def test_nothing_to_match_is_refused(given, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected"):
        match_files(UREIDO, [tmp_path / given], [criterion("strict15")])
