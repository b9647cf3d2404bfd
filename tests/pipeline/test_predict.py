"""The main job on searches of a few dozen starts: files, repeatability, resuming, failures on the way."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load

from nucleate.crystal.io import read_crystal
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import EnergyModelError, InputError
from nucleate.pipeline import predict as predict_module
from nucleate.pipeline.landscape import COLUMNS
from nucleate.pipeline.predict import Prediction, PredictSettings, predict
from nucleate.pipeline.predict_list import predict_list
from nucleate.pipeline.rank import RankSettings, Reranked
from nucleate.pipeline.units import run_unit
from tests.pipeline.conftest import DATA, STAND_INS

SMALL: dict[str, Any] = {"n": 60, "space_groups": "14", "workers": 1, "energy": "forcefield"}
DESIGNED = """id rank energy_kj_mol lattice_energy_kj_mol density_g_cm3 volume_per_molecule_A3 space_group z z_prime
generator conformer seed n_duplicates clash match_reference rmsd_n n_matched cif""".split()  # noqa: SIM905


def run(source: str, folder: Path, **changes: Any) -> Prediction:
    return predict(source, PredictSettings.model_validate({**SMALL, **changes}), folder)


def table(folder: Path) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(folder / "crystals.parquet").to_pylist()


def same_rows(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> bool:
    """Equal but for the command line that the CIF texts carry."""
    strip = [[{k: v for k, v in row.items() if k != "cif"} for row in rows] for rows in (one, two)]
    return strip[0] == strip[1]


@pytest.fixture(scope="module")
def formamide(tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    return run("NC=O", tmp_path_factory.mktemp("results") / "formamide")


def copy_of(done: Prediction, folder: Path) -> Path:
    """A folder in which this search is done already: `run` takes its units up again."""
    shutil.copytree(done.folder, folder)
    return folder


# ------------------------------------------------------------------ files


def test_the_table_has_the_designed_columns_best_first(formamide: Prediction) -> None:
    names = pyarrow.parquet.read_table(formamide.folder / "crystals.parquet").column_names
    assert names[: len(DESIGNED)] == DESIGNED
    assert names == COLUMNS.names
    rows = table(formamide.folder)
    assert len(rows) > 10
    assert [r["rank"] for r in rows] == list(range(1, len(rows) + 1))
    energies = [r["energy_kj_mol"] for r in rows]
    assert energies == sorted(energies)
    assert energies[0] == 0
    assert len({r["id"] for r in rows}) == len(rows)
    assert all(-100 < r["lattice_energy_kj_mol"] < -30 for r in rows)
    assert not any(r["clash"] for r in rows)
    assert all(r["match_reference"] is None for r in rows)
    assert sum(r["n_duplicates"] + 1 for r in rows) <= SMALL["n"]


def test_every_cif_reads_back_as_its_row(formamide: Prediction) -> None:
    rows = table(formamide.folder)
    files = sorted((formamide.folder / "cif").iterdir())
    assert [f.name for f in files] == [f"{r['rank']:04d}.cif" for r in rows]
    for row, file in list(zip(rows, files))[:12]:
        assert file.read_text() == row["cif"]
        crystal = read_crystal(file)
        found = find_symmetry(crystal, 0.05)
        assert crystal.density == pytest.approx(row["density_g_cm3"], rel=1e-4)
        assert crystal.volume / crystal.n_molecules == pytest.approx(row["volume_per_molecule_A3"], rel=1e-4)
        assert (found.number, found.z, found.z_prime) == (row["space_group"], row["z"], row["z_prime"])


def test_run_json_counts_every_start(formamide: Prediction) -> None:
    text = (formamide.folder / "run.json").read_text()
    about = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert about == formamide.run
    assert {"settings", "seed", "versions", "timings", "counts", "failures", "interrupted"} <= about.keys()
    counts = about["counts"]
    order = ["asked", "generated", "clash_free", "within_window", "converged", "handed_over"]
    assert [counts[k] for k in order] == sorted((counts[k] for k in order), reverse=True)
    assert counts["asked"] == 60
    assert counts["distinct"] >= counts["handed_over"] == len(formamide.rows)
    assert sum(g["starts"] for g in about["space_groups"].values()) == 60
    assert sum(g["distinct"] for g in about["space_groups"].values()) == counts["handed_over"]
    assert not about["interrupted"]
    assert about["settings"]["n"] == 60
    assert sum(about["timings"].values()) == pytest.approx(about["wall_seconds"], abs=0.5)


def test_the_report_stands_alone(formamide: Prediction) -> None:
    page = formamide.report.read_text()
    assert "NC_O" in page
    assert "<script src=" not in page
    assert "http-equiv" not in page.lower() or "default-src" in page


# ------------------------------------------------------------------ repeatability


def test_the_same_seed_gives_the_same_crystals(formamide: Prediction, tmp_path: Path) -> None:
    assert run("NC=O", tmp_path / "again").rows == formamide.rows
    other = run("NC=O", tmp_path / "other", seed=1)
    assert [r["energy_kj_mol"] for r in other.rows] != [r["energy_kj_mol"] for r in formamide.rows]


def test_two_processes_find_what_one_finds(formamide: Prediction, tmp_path: Path) -> None:
    assert run("NC=O", tmp_path / "two", workers=2).rows == formamide.rows


def units_of(folder: Path) -> list[Path]:
    return sorted((folder / "units").iterdir())


def stop_after(units: int, how: type[BaseException]) -> Callable[..., Any]:
    """`run_unit` that ends with an exception in place of unit number `units`."""
    done = 0

    def limited(*arguments: Any) -> Any:
        nonlocal done
        if done == units:
            raise how
        done += 1
        return run_unit(*arguments)

    return limited


def test_ctrl_c_in_the_search_keeps_what_was_found(
    formamide: Prediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucleate.pipeline.workers.run_unit", stop_after(4, KeyboardInterrupt))
    cut = run("NC=O", tmp_path)
    assert cut.run["interrupted"]
    assert cut.run["stopped"] == "user"
    assert len(units_of(tmp_path)) == 4
    assert 0 < cut.run["counts"]["asked"] < 60
    assert table(tmp_path) == cut.rows != []
    assert (tmp_path / "report.html").exists()
    monkeypatch.undo()
    assert (
        predict("NC=O", PredictSettings.model_validate(SMALL), tmp_path, resume=True).rows == formamide.rows
    )
    assert {f.name for f in (tmp_path / "cif").iterdir()} == {f"{r['rank']:04d}.cif" for r in formamide.rows}


def test_ctrl_c_before_anything_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nucleate.pipeline.workers.run_unit", stop_after(0, KeyboardInterrupt))
    cut = run("NC=O", tmp_path)
    assert (cut.rows, cut.run["interrupted"]) == ([], True)
    assert table(tmp_path) == []
    assert (tmp_path / "report.html").exists()


def test_ctrl_c_in_ranking_keeps_the_search(
    formamide: Prediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Reranked:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_module, "rerank", interrupted)
    cut = run("NC=O", copy_of(formamide, tmp_path / "copy"), energy=f"ase:{STAND_INS}:Springs")
    assert cut.run["interrupted"]
    assert cut.run["energy_model"] == "forcefield"
    assert same_rows(cut.rows, formamide.rows)


@pytest.mark.parametrize("damage", ["empty", "truncated", "rubbish", "foreign", "missing"])
def test_a_damaged_unit_is_done_again(damage: str, formamide: Prediction, tmp_path: Path) -> None:
    folder = copy_of(formamide, tmp_path / "copy")
    victim, other = units_of(folder)[2:4]
    whole = victim.read_bytes()
    broken = {"empty": b"", "truncated": whole[: len(whole) // 2], "rubbish": b"\xff" * 300}
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(other.read_bytes() if damage == "foreign" else broken[damage])
    assert run("NC=O", folder).rows == formamide.rows
    before, after = load(whole), load(victim.read_bytes())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path: Path) -> None:
    run("NC=O", tmp_path, n=12)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(InputError, match=r"another search \(other space groups\)"):
        run("NC=O", tmp_path, n=12, space_groups="2")
    with pytest.raises(InputError, match=r"other n, perturb"):
        run("NC=O", tmp_path, n=24, perturb=0.1)
    with pytest.raises(InputError, match=r"seed"):
        run("NC=O", tmp_path, n=12, seed=3)
    with pytest.raises(InputError, match=r"other molecules, conformers"):
        run("NC(N)=O", tmp_path, n=12)
    assert (tmp_path / "run.json").read_bytes() == before
    run("NC=O", tmp_path, n=12, keep=3, budget=100.0)  # what does not change the search may change


def test_resuming_nothing_and_damaged_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--resume: expected an earlier search"):
        predict("NC=O", PredictSettings.model_validate(SMALL), tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        run("NC=O", tmp_path)


def test_a_spent_budget_ends_the_search_and_resuming_finishes_it(
    formamide: Prediction, tmp_path: Path
) -> None:
    cut = run("NC=O", tmp_path, budget=1e-3)
    assert (cut.run["stopped"], cut.run["interrupted"]) == ("time", False)
    assert cut.run["counts"]["asked"] < 60
    assert run("NC=O", tmp_path).rows == formamide.rows


# ------------------------------------------------------------------ energy models that fail


def test_an_energy_model_reorders_the_shortlist(formamide: Prediction, tmp_path: Path) -> None:
    judged = run(
        "NC=O", copy_of(formamide, tmp_path / "copy"), energy=f"ase:{STAND_INS}:Springs", rank={"top": 5}
    )
    models = [r["energy_model"] for r in judged.rows]
    assert models.count("forcefield") == len(models) - 5
    energies = [r["energy_kj_mol"] for r in judged.rows]
    assert energies == sorted(energies)
    assert sorted(r["start"] for r in judged.rows) == sorted(r["start"] for r in formamide.rows)


@pytest.mark.parametrize("how", ["segfault", "exit", "raise", "nan", "hang"])
def test_a_failing_model_leaves_the_force_fields_order(
    how: str, formamide: Prediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calculator = tmp_path / "always.py"
    calculator.write_text(
        f"import importlib.util as u\ns = u.spec_from_file_location('stand_ins', {str(STAND_INS)!r})\n"
        "m = u.module_from_spec(s)\ns.loader.exec_module(m)\nm.MARK = 1e9\n"
        f"def broken():\n    return m.Misbehaving({how!r})\n"
    )
    rank = RankSettings(top=2, time_limit=1.0)
    folder = copy_of(formamide, tmp_path / "copy")
    found = run("NC=O", folder, energy=f"ase:{calculator}:broken", rank=rank.model_dump())
    assert same_rows(found.rows, formamide.rows)
    assert found.run["energy_model"] == "forcefield"
    failures = {k: v for k, v in found.run["failures"].items() if k not in formamide.run["failures"]}
    assert sum(failures.values()) == 2, failures


@pytest.mark.parametrize(
    ("energy", "error"),
    [
        ("nonsense", InputError),
        ("ase:only_a_module", InputError),
        (f"ase:{STAND_INS}:NotThere", EnergyModelError),
        (f"ase:{STAND_INS}:not_there", EnergyModelError),
    ],
)
def test_a_model_that_cannot_run_is_refused_before_the_search(
    energy: str, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error, match=r"energy model|ase:module:Class"):
        run("NC=O", tmp_path / "out", energy=energy)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ references


def test_a_found_crystal_is_found_again_as_reference(formamide: Prediction, tmp_path: Path) -> None:
    known = formamide.folder / "cif" / "0003.cif"
    found = run("NC=O", copy_of(formamide, tmp_path / "copy"), reference=known)
    assert found.run["reference"]["found"]
    assert found.run["reference"]["rmsd"] < 0.8
    matched = [r["rank"] for r in found.rows if r["match_reference"]]
    assert found.run["reference"]["rank"] == matched[0] <= 3
    assert found.rows[2]["n_matched"] == 15
    assert found.rows[2]["rmsd_n"] < 0.05


def test_the_crystal_of_another_molecule_is_not_found(tmp_path: Path) -> None:
    found = run("NC=O", tmp_path, n=12, keep=3, reference=DATA / "cod_7210454.cif")
    assert not found.run["reference"]["found"]
    assert found.run["reference"]["rank"] is None
    assert not any(r["match_reference"] for r in found.rows)


# ------------------------------------------------------------------ other compositions


@pytest.mark.parametrize(
    ("smiles", "options", "formula_unit"),
    [
        ("O=C(O)C(=O)O.NC(N)=O", {}, 2),
        ("C[NH3+].[O-]C=O", {}, 2),
        ("NC=O", {"z_prime": (2.0,)}, 1),
    ],
    ids=["co-crystal", "salt", "two in the asymmetric unit"],
)
def test_several_molecules_in_the_asymmetric_unit(
    smiles: str, options: dict[str, Any], formula_unit: int, tmp_path: Path
) -> None:
    found = run(smiles, tmp_path, n=36, space_groups="2", **options)
    assert len(found.rows) > 3
    best = found.rows[0]
    crystal = read_crystal(tmp_path / "cif" / "0001.cif")
    assert crystal.n_molecules == best["z"] * formula_unit
    assert best["volume_per_molecule_A3"] == pytest.approx(crystal.volume / crystal.n_molecules, rel=1e-4)
    assert best["lattice_energy_kj_mol"] < -40
    assert [s["count"] for s in found.run["molecule"]["species"]] == [1] * formula_unit


@pytest.mark.parametrize("smiles", ["O", "C", "[H][H]"])
@pytest.mark.filterwarnings("ignore:MMFF94 has no type")
def test_the_smallest_molecules_work(smiles: str, tmp_path: Path) -> None:
    assert run(smiles, tmp_path, n=12).run["counts"]["asked"] == 12


# ------------------------------------------------------------------ lists


def test_a_list_goes_on_after_a_bad_line_and_keeps_names_apart(tmp_path: Path) -> None:
    source = tmp_path / "list.smi"
    source.write_text("NC=O one\nC1CC broken\nNC(N)=O one\n[NH4+] charged\nC../../up\nC ../../up\n")
    settings = PredictSettings.model_validate({**SMALL, "n": 12})
    rows = predict_list(source, settings, tmp_path / "out")
    assert [r["name"] for r in rows] == ["one", "broken", "one-2", "charged", "0005", "up"]
    assert [bool(r["failure"]) for r in rows] == [False, True, False, True, True, False]
    assert rows[0]["smiles"] != rows[2]["smiles"]
    for name in ("one", "one-2", "up"):
        assert (tmp_path / "out" / name / "report.html").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"list.smi", "out"}
    stored = pyarrow.parquet.read_table(tmp_path / "out" / "summary.parquet").to_pylist()
    assert stored == rows
    lines = (tmp_path / "out" / "summary.csv").read_text().splitlines()
    assert lines[0].startswith("name,smiles,crystals,lattice_energy_kj_mol")
    assert len(lines) == 7
    again = predict_list(source, settings, tmp_path / "out", resume=True)
    assert [replace_seconds(r) for r in again] == [replace_seconds(r) for r in rows]


def replace_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "seconds": None}


def test_ctrl_c_ends_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "list.csv"
    source.write_text("name,smiles\na,NC=O\nb,NC(N)=O\n")
    settings = PredictSettings.model_validate({**SMALL, "n": 12})
    monkeypatch.setattr("nucleate.pipeline.workers.run_unit", stop_after(2, KeyboardInterrupt))
    rows = predict_list(source, settings, tmp_path / "out")
    assert [(r["name"], r["failure"]) for r in rows] == [("a", "interrupted")]
    monkeypatch.undo()
    rows = predict_list(source, settings, tmp_path / "out", resume=True)
    assert [(r["name"], r["failure"]) for r in rows] == [("a", None), ("b", None)]
    assert all(r["crystals"] > 0 and math.isfinite(r["density_g_cm3"]) for r in rows)
