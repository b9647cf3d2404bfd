"""`nucleate conform`: what is in the files, and that it reads back as the same molecules."""

import json
from pathlib import Path

import pytest
from rdkit import Chem

from nucleate.crystal.io import read_molecule
from nucleate.errors import InputError
from nucleate.pipeline.conform_files import Conformed, conform_files
from nucleate.pipeline.ensemble import EnsembleSettings

PROPERTIES = {
    *("id", "smiles", "rank", "energy_kj_mol", "boltzmann_weight", "mirror_images", "rmsd_A", "energy_model"),
    *("method", "seed", "nucleate"),
}


def conformed(source: str, output: Path | None, **options: object) -> Conformed:
    return conform_files(source, output, EnsembleSettings.model_validate(options))


def records(path: Path) -> list[Chem.Mol]:
    return list(Chem.SDMolSupplier(str(path), removeHs=False))


@pytest.mark.parametrize(
    "smiles",
    [
        "C[C@H](O)/C=C/[C@@H](C)F",
        "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
        "C[C@H]1CC[C@@H](C)CC1",
        "C[S@](=O)CC",
        "[NH3+][C@@H](C)C(=O)[O-]",
        "C/C=C\\C(=O)N",
    ],
)
def test_every_record_has_the_stereo_and_the_charges(smiles: str, tmp_path: Path) -> None:
    made = conformed(smiles, tmp_path / "c.sdf", n=4, samples=12)
    back = records(made.sdf)
    assert len(back) == len(made.rows) >= 1
    for record in back:
        Chem.AssignStereochemistryFrom3D(record)  # the coordinates decide, not what was written beside them
        assert Chem.MolToSmiles(Chem.RemoveHs(record)) == Chem.CanonSmiles(smiles)
        assert set(record.GetPropNames()) == PROPERTIES


def test_a_folder_holds_everything(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "glycol"
    made = conformed("OCCO", folder, n=3, seed=5)
    assert {p.name for p in folder.iterdir()} == {"conformers.sdf", "run.json", "report.html"}
    [molecule] = read_molecule(made.sdf)
    assert len(molecule.conformers) == len(made.rows) == 3
    back = records(made.sdf)
    assert [float(r.GetProp("energy_kj_mol")) for r in back] == [row["energy_kj_mol"] for row in made.rows]
    assert [int(r.GetProp("rank")) for r in back] == [1, 2, 3]
    assert sum(float(r.GetProp("boltzmann_weight")) for r in back) == pytest.approx(1, abs=1e-5)
    run = json.loads((folder / "run.json").read_text())
    assert run == made.run
    assert run["seed"] == run["settings"]["seed"] == 5
    assert run["counts"]["handed_over"] == 3
    assert [s["smiles"] for s in run["molecule"]["species"]] == ["OCCO"]


def test_a_file_alone_is_all_that_is_written(tmp_path: Path) -> None:
    made = conformed("OCCO", tmp_path / "one.SDF", n=2)
    assert [p.name for p in tmp_path.iterdir()] == ["one.SDF"]
    assert made.report is None


def test_the_folder_is_named_after_the_molecule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    conformed("CCO", None, n=1)
    assert (tmp_path / "results" / "CCO-conformers" / "report.html").is_file()


def test_results_of_a_prediction_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "crystals.parquet").touch()
    (tmp_path / "run.json").write_text("theirs")
    with pytest.raises(InputError, match=r"crystals\.parquet"):
        conformed("CCO", tmp_path, n=1)
    assert (tmp_path / "run.json").read_text() == "theirs"
    conformed("CCO", tmp_path / "c.sdf", n=1)  # a file of its own harms nothing


def test_every_species_of_a_salt_has_its_conformers(tmp_path: Path) -> None:
    made = conformed("OCC[NH3+].[Cl-].O.O", tmp_path / "salt", n=2)
    assert [row["smiles"] for row in made.rows] == ["[NH3+]CCO", "[NH3+]CCO", "[Cl-]", "O"]
    assert [row["rank"] for row in made.rows] == [1, 2, 1, 1]
    assert len({row["id"] for row in made.rows}) == 4
    assert [s["count"] for s in made.run["molecule"]["species"]] == [1, 1, 2]
    assert len(read_molecule(made.sdf)) == 3


def test_coordinates_of_a_file_do_not_matter(tmp_path: Path) -> None:
    first = conformed("OCCO", tmp_path / "first.sdf", n=2)
    again = conformed(str(first.sdf), tmp_path / "again.sdf", n=2)
    assert [row["energy_kj_mol"] for row in again.rows] == pytest.approx(
        [row["energy_kj_mol"] for row in first.rows], abs=0.05
    )


def test_energies_that_nothing_knows_are_left_out(tmp_path: Path) -> None:
    made = conformed("F[Xe]F", tmp_path / "x", n=1, optimise="none")
    assert made.rows[0]["energy_kj_mol"] is None
    assert "energy_kj_mol" not in records(made.sdf)[0].GetPropsAsDict()
    assert any("no force field" in note for note in made.run["notes"])


def test_notes_tell_what_one_should_know(tmp_path: Path) -> None:
    assert any("hand of some" in n for n in conformed("CC(O)CF", tmp_path / "a.sdf", n=1).run["notes"])
    assert any("UFF" in n for n in conformed("CB(C)C", tmp_path / "b.sdf", n=1).run["notes"])
    assert conformed("CCO", tmp_path / "c.sdf", n=1).run["notes"] == []


def test_nothing_is_written_for_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        conformed("C1CC", tmp_path / "out")
    with pytest.raises(InputError):
        conformed("[NH3][Pt]([NH3])(Cl)Cl", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
