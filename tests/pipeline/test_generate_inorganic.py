"""From a formula to files: what is asked for is made, made again, gone on with, relaxed and counted."""

import json
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from nucleate.crystal.sites import sites_from_cif
from nucleate.crystal.sites_cif import sites_cif_text
from nucleate.errors import InputError
from nucleate.models.crystalflow import CrystalFlow
from nucleate.pipeline.crystal_files import relax_files
from nucleate.pipeline.generate_inorganic import Generated, InorganicSettings, generate_inorganic
from nucleate.pipeline.inorganic_samples import COLUMNS
from nucleate.pipeline.inorganic_tasks import PAIRS, Target, Task, batches
from nucleate.pipeline.relax import RelaxSettings
from tests.crystal.inorganic import rattled, textbook
from tests.pipeline.conftest import STAND_INS
from tests.pipeline.tiny_crystalflow import write_tiny_crystalflow

EMT = "ase:ase.calculators.emt:EMT"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_crystalflow(folder / "dng.safetensors", "dng")
    return write_tiny_crystalflow(folder / "csp.safetensors", conditions=("pressure",))


def made(folder: Path, weights: Path, resume: bool = False, **settings: object) -> Generated:
    asked = {"formula": "TiO2", "formula_units": 2, "n": 3, "steps": 2, "weights": weights, **settings}
    return generate_inorganic(InorganicSettings.model_validate(asked), folder, resume=resume)


def texts(result: Generated) -> list[str]:
    return [row["cif"] for row in result.rows]


def test_files_table_and_record_agree(weights: Path, tmp_path: Path) -> None:
    result = made(tmp_path, weights, n=4)
    table = pyarrow.parquet.read_table(tmp_path / "samples.parquet")
    assert table.schema.equals(COLUMNS)
    assert table.to_pylist() == result.rows
    assert json.loads((tmp_path / "run.json").read_text()) == result.run
    assert sorted(p.name for p in (tmp_path / "cif").iterdir()) == [f"{i:04d}.cif" for i in range(1, 5)]
    for number, row in enumerate(result.rows):
        assert (row["target"], row["sample"], row["failure"]) == (None, number, None)
        assert (row["formula"], row["atoms"]) == ("TiO2", 6)
        file, text = sites_from_cif(tmp_path / row["file"]), sites_from_cif(row["cif"])
        assert file.composition == text.composition == {8: 4, 22: 2}
        assert file.volume == pytest.approx(row["volume_A3"], rel=1e-5)
        assert row["density_g_cm3"] == pytest.approx(
            6 / 6 * 2 * 79.866 / row["volume_A3"] * 1.66054, rel=1e-4
        )
    counts = result.run["counts"]
    assert (counts["asked"], counts["built"], counts["distinct"]) == (4, 4, 4)
    assert result.run["settings"]["returns"] == 4
    assert counts["overlapping"] == sum(row["overlap"] for row in result.rows)
    assert result.run["space_groups"] == {"P1": 4}


def test_more_samples_begin_with_the_same_and_resuming_adds_the_rest(weights: Path, tmp_path: Path) -> None:
    few, many = made(tmp_path / "a", weights, n=2), made(tmp_path / "b", weights, n=5)
    assert [r["seed"] for r in few.rows] == [r["seed"] for r in many.rows[:2]]
    for a, b in zip(few.rows, many.rows):
        torch.testing.assert_close(
            sites_from_cif(a["cif"]).lattice, sites_from_cif(b["cif"]).lattice, rtol=0, atol=1e-4
        )
    before = (tmp_path / "a" / "cif" / "0001.cif").stat().st_mtime_ns
    resumed = made(tmp_path / "a", weights, n=5, resume=True)
    assert [r["id"] for r in resumed.rows] == [r["id"] for r in many.rows]
    assert resumed.rows[:2] == few.rows
    assert resumed.run["counts"] == many.run["counts"]
    assert (tmp_path / "a" / "cif" / "0001.cif").stat().st_mtime_ns == before
    again, other = made(tmp_path / "c", weights, n=5), made(tmp_path / "d", weights, n=5, seed=1)
    assert texts(again) == texts(many)
    assert not set(texts(other)) & set(texts(many))


def test_a_folder_is_not_shared_by_accident(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--resume: expected earlier samples"):
        made(tmp_path, weights, resume=True)
    made(tmp_path, weights)
    with pytest.raises(InputError, match="without samples"):
        made(tmp_path, weights)
    with pytest.raises(InputError, match=r"other samples \(other formula_units, contents\)"):
        made(tmp_path, weights, formula_units=1, resume=True)
    with pytest.raises(InputError, match="--n"):
        made(tmp_path, weights, n=2, resume=True)
    for name in ("samples.parquet", "generate.json"):
        (tmp_path / name).write_text("damaged")
        with pytest.raises(InputError, match="damaged ones"):
            made(tmp_path, weights, resume=True)


def test_conditions_and_guidance_change_what_is_made(weights: Path, tmp_path: Path) -> None:
    """A network that has learnt nothing still hears its conditions."""
    plain = made(tmp_path / "a", weights)
    told = made(tmp_path / "b", weights, condition={"pressure": 20.0})
    guided = made(tmp_path / "c", weights, condition={"pressure": 20.0}, guidance=3.0)
    assert len({texts(r)[0] for r in (plain, told, guided)}) == 3
    far = made(tmp_path / "d", weights, condition={"pressure": 1e3}, formula_units=9)
    assert len(far.run["notes"]) == 2
    assert told.run["notes"] == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"formula": "RbCl"}, "have learnt, got Rb"),
        ({"formula": "tio2"}, "such as TiO2"),
        ({"formula_units": 80}, "at most 200 atoms"),
        ({"condition": {"band_gap": 1.0}}, "--condition: expected properties out of pressure"),
        ({"guidance": 2.0}, "--guidance: expected a --condition"),
        ({"formula": None}, "--formula: expected a formula"),
        ({"formula_list": Path("list.csv")}, "got both"),
        ({"formula": None, "formula_list": Path("list.csv")}, "found none at list.csv"),
        ({"relax": "nonsense"}, "expected an energy model"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_written(
    settings: dict[str, object], says: str, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        made(tmp_path / "out", weights, **settings)
    assert not list(tmp_path.glob("out/*.*"))


def test_weights_that_choose_atoms(weights: Path, tmp_path: Path) -> None:
    dng = weights.with_name("dng.safetensors")
    result = made(tmp_path / "a", dng, formula=None, n=4, seed=10)
    assert len({row["formula"] for row in result.rows}) == 4
    fewer = made(tmp_path / "b", dng, formula=None, n=2, seed=10)
    assert [(r["formula"], r["seed"]) for r in fewer.rows] == [
        (r["formula"], r["seed"]) for r in result.rows[:2]
    ]
    assert result.run["settings"]["returns"] == 0  # going back hurts there
    with pytest.raises(InputError, match="choose the atoms themselves"):
        made(tmp_path / "c", dng)


def test_a_list_of_formulas_and_of_known_crystals(weights: Path, tmp_path: Path) -> None:
    rows = {"formula": ["TiO2", "Na0.5Cl", "RbCl", "MgO"], "formula_units": [1, 1, 1, 2]}
    pyarrow.csv.write_csv(pyarrow.table(rows), tmp_path / "list.csv")
    asked = {"formula": None, "formula_list": tmp_path / "list.csv", "formula_units": 1, "n": 2}
    result = made(tmp_path / "a", weights, **asked)
    assert [row["target"] for row in result.rows] == [f for f in rows["formula"] for _ in range(2)]
    assert [row["atoms"] for row in result.rows] == [3, 3, None, None, None, None, 4, 4]
    assert "whole numbers" in result.rows[2]["failure"]
    assert "got Rb" in result.rows[4]["failure"]
    assert result.rows[6]["file"] == "cif/MgO/0001.cif"
    assert result.run["counts"] | {"overlapping": 0} == {
        "targets": 4, "asked": 8, "built": 4, "overlapping": 0, "distinct": 4,
    }  # fmt: skip
    crystals = {
        "material_id": ["a/1", "a/1", "b"],
        "cif": [sites_cif_text(textbook(name), "x") for name in ("rutile", "spinel", "rock salt")],
    }
    pyarrow.parquet.write_table(pyarrow.table(crystals), tmp_path / "known.parquet")
    known = made(tmp_path / "b", weights, **{**asked, "formula_list": tmp_path / "known.parquet", "n": 1})
    assert [(row["target"], row["atoms"]) for row in known.rows] == [("a/1", 6), ("a/1-2", 14), ("b", 2)]
    assert (tmp_path / "b" / "cif" / "a_1-2" / "0001.cif").is_file()


def test_lists_that_are_none(weights: Path, tmp_path: Path) -> None:
    for name, text, says in (
        ("a.csv", "x,y\n1,2\n", "a column formula or cif"),
        ("b.csv", "formula\n", "at least one row"),
        ("c.csv", "", "readable table"),
        ("d.parquet", "no table", "readable table"),
        ("e.csv", "formula\nRbCl\nXx\n", "got Rb"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=says):
            made(tmp_path / "out", weights, formula=None, formula_list=tmp_path / name)


def test_relaxed_samples_come_with_both_energies(weights: Path, tmp_path: Path) -> None:
    spring = f"ase:{STAND_INS}:Springs"
    plain = made(tmp_path / "a", weights)
    result = made(tmp_path / "b", weights, relax=spring, relax_steps=5)
    for row, before in zip(result.rows, plain.rows):
        assert row["energy_eV"] < row["energy_before_eV"]
        assert row["cif"] != before["cif"]
        assert row["seed"] == before["seed"]
        assert row["converged"] or "5 steps" in row["failure"] or "the cell went" in row["failure"]
        each = float(row["cif"].split("_nucleate_energy_ev_per_atom")[1].split()[0])
        assert each == pytest.approx(row["energy_eV"] / 6, abs=1e-5)
    counts = result.run["counts"]
    assert counts["relaxed"] == 3
    assert counts["converged"] == sum(row["converged"] for row in result.rows)
    crash = made(tmp_path / "c", weights, relax=EMT, n=1)  # EMT knows neither titanium nor oxygen in crystals
    assert crash.rows[0]["failure"]
    assert crash.run["counts"]["built"] == 1


def test_ctrl_c_leaves_what_is_done(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nucleate.pipeline.inorganic_tasks.MOST", 2)
    sample, calls = CrystalFlow.sample, iter(range(9))

    def twice(self: CrystalFlow, *arguments: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return sample(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CrystalFlow, "sample", twice)
    result = made(tmp_path, weights, n=7)
    assert result.run["interrupted"]
    assert [row["id"] for row in result.rows] == ["0001", "0002", "0003", "0004"]
    assert pyarrow.parquet.read_table(tmp_path / "samples.parquet").num_rows == 4
    whole = made(tmp_path, weights, n=7, resume=True)
    assert not whole.run["interrupted"]
    assert len(whole.rows) == whole.run["counts"]["built"] == 7


def test_batches_hold_everything_once_within_their_size() -> None:
    sizes = [3, 100, 3, 250, 7, *range(1, 60), *[5] * 600]
    tasks = [Task(str(i), Target(None, "", None), i, i, (1,) * s) for i, s in enumerate(sizes)]
    found = list(batches(tasks))
    assert sorted(int(t.id) for batch in found for t in batch) == list(range(len(sizes)))
    assert all(len(b) == 1 or len(b) * max(t.size for t in b) ** 2 <= PAIRS for b in found)
    assert all(b for b in found)
    assert len(found) < 12


# ------------------------------------------------------------------ nucleate relax


def test_relax_takes_crystals_without_molecules(tmp_path: Path) -> None:
    given = tmp_path / "in"
    given.mkdir()
    copper = textbook("copper")
    (given / "copper.cif").write_text(sites_cif_text(copper, "copper"))
    (given / "rattled.cif").write_text(sites_cif_text(rattled(copper, 0.1), "rattled"))
    (given / "empty.cif").touch()
    rows = {
        Path(r["file"]).stem: r for r in relax_files([given], tmp_path / "out", RelaxSettings(energy=EMT))
    }
    assert "empty file" in rows["empty"]["failure"]
    energies = [rows[name]["energy_ev_per_atom"] for name in ("copper", "rattled")]
    assert energies[0] == pytest.approx(energies[1], abs=1e-3)
    assert rows["rattled"]["energy_before_ev_per_atom"] > energies[1] + 0.01
    assert [rows[name]["space_group"] for name in ("copper", "rattled")] == ["Fm-3m", "Fm-3m"]
    assert sites_from_cif(tmp_path / "out" / "rattled.cif").volume / 4 == pytest.approx(3.59**3 / 4, rel=0.01)


def test_salts_are_no_molecules_and_the_force_field_says_so(tmp_path: Path) -> None:
    (tmp_path / "salt.cif").write_text(sites_cif_text(textbook("rock salt"), "salt"))
    [row] = relax_files([tmp_path / "salt.cif"], tmp_path / "out", RelaxSettings())
    assert "without molecules" in row["failure"]
    assert not row["converged"]
    spring = RelaxSettings(energy=f"ase:{STAND_INS}:Springs", max_steps=1, time_limit=20.0)
    [row] = relax_files([tmp_path / "salt.cif"], tmp_path / "out", spring)
    assert row["energy_ev_per_atom"] is not None
