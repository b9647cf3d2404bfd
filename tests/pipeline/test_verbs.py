"""The verbs on files: generate, relax, rank, deduplicate, report."""

import math
import shutil
from pathlib import Path

import pytest

from nucleate.crystal.io import read_crystal, write_cif
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import EnergyModelError, InputError
from nucleate.metrics.duplicates import DuplicateSettings
from nucleate.pipeline.crystal_files import (
    rank_files,
    relax_files,
)
from nucleate.pipeline.deduplicate_files import deduplicate_files
from nucleate.pipeline.generate_files import GenerateSettings, generate_files
from nucleate.pipeline.relax import RelaxSettings
from tests.pipeline.conftest import DATA, STAND_INS

BENZOIC = DATA / "cod_7210454.cif"


@pytest.fixture(scope="module")
def packings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pressed packings of urea and one that is the first again, strained a little."""
    folder = tmp_path_factory.mktemp("packings")
    generate_files("NC(N)=O", folder, GenerateSettings(n=3, space_groups="14", seed=2))
    first = read_crystal(folder / "0001.cif")
    write_cif(first.replace(lattice=first.lattice * 1.005), folder / "0009.cif")
    return folder


def test_generated_files_have_the_group_and_no_overlaps(tmp_path: Path) -> None:
    rows = generate_files("NC(N)=O", tmp_path, GenerateSettings(n=12, space_groups="14,19", seed=1))
    assert [Path(r["file"]).name for r in rows] == [f"{i:04d}.cif" for i in range(1, 13)]
    assert sum(r["clash"] for r in rows) <= 1
    for row in rows[:3]:
        crystal = read_crystal(row["file"])
        assert crystal.density == pytest.approx(row["density_g_cm3"], rel=1e-4)
        assert find_symmetry(crystal, 1e-3).symbol == row["space_group"]
    again = generate_files(
        "NC(N)=O", tmp_path / "again", GenerateSettings(n=12, space_groups="14,19", seed=1)
    )
    assert [r["density_g_cm3"] for r in again] == [r["density_g_cm3"] for r in rows]


def test_raw_starts_overlap(tmp_path: Path) -> None:
    raw = generate_files("NC(N)=O", tmp_path, GenerateSettings(n=12, space_groups="14", press=False))
    assert sum(r["clash"] for r in raw) > 3


def test_rigid_relaxation_keeps_the_group_and_is_idempotent(tmp_path: Path) -> None:
    settings = RelaxSettings()
    [row] = relax_files([BENZOIC], tmp_path / "one", settings)
    assert row["converged"]
    assert row["failure"] == ""
    assert row["space_group"] == "P21/c"
    assert abs(row["volume_change_percent"]) < 15
    [again] = relax_files([tmp_path / "one" / BENZOIC.name], tmp_path / "two", settings)
    assert again["energy_kj_mol"] == pytest.approx(row["energy_kj_mol"], abs=0.02)
    assert abs(again["volume_change_percent"]) < 0.2


def test_all_atom_relaxation_with_a_calculator(packings: Path, tmp_path: Path) -> None:
    settings = RelaxSettings(energy=f"ase:{STAND_INS}:Springs", max_steps=2, time_limit=20.0)
    rows = relax_files([packings / "0001.cif"], tmp_path, settings)
    assert math.isfinite(rows[0]["energy_kj_mol"])
    assert not rows[0]["converged"]
    assert "2 steps" in rows[0]["failure"]
    assert read_crystal(tmp_path / "0001.cif").n_molecules == 4


def test_files_of_one_name_and_inputs_are_not_overwritten(packings: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    twin.mkdir()
    shutil.copy(packings / "0002.cif", twin / "0001.cif")
    settings = RelaxSettings(max_steps=1)
    relax_files([packings / "0001.cif", twin / "0001.cif"], tmp_path / "out", settings)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0001-2.cif", "0001.cif"]
    with pytest.raises(InputError, match="another folder"):
        relax_files([twin], twin, settings)
    with pytest.raises(InputError, match="can be written"):
        relax_files([twin], twin / "0001.cif" / "below", settings)


def test_a_file_that_cannot_be_relaxed_is_a_row(packings: Path, tmp_path: Path) -> None:
    broken = tmp_path / "in"
    broken.mkdir()
    shutil.copy(packings / "0001.cif", broken)
    (broken / "empty.cif").touch()
    selenium = (packings / "0001.cif").read_text().replace(" O ", " Se ").replace("N2 O", "N2 Se")
    (broken / "selenium.cif").write_text(selenium)
    rows = relax_files([broken], tmp_path / "out", RelaxSettings(max_steps=1))
    reasons = {Path(r["file"]).name: r["failure"] for r in rows}
    assert set(reasons) == {"0001.cif", "empty.cif", "selenium.cif"}
    assert "empty file" in reasons["empty.cif"]
    assert "Se" in reasons["selenium.cif"]


def test_ranks_follow_the_energy(packings: Path) -> None:
    rows = rank_files([packings], "forcefield")
    assert [r["rank"] for r in rows] == [1, 2, 3, 4]
    assert rows[0]["energy_kj_mol"] == 0
    energies = [r["lattice_energy_kj_mol"] for r in rows]
    assert energies == sorted(energies)
    springs = rank_files([packings], f"ase:{STAND_INS}:Springs")
    assert {r["file"] for r in springs} == {r["file"] for r in rows}


def test_a_crash_is_a_row_and_the_last_rank(packings: Path, tmp_path: Path) -> None:
    shutil.copytree(packings, tmp_path / "in")
    lengths = {p.name: read_crystal(p).lattice[0].norm().item() for p in packings.glob("*.cif")}
    shortest = min(lengths, key=lengths.__getitem__)
    calculator = tmp_path / "sometimes.py"
    calculator.write_text(
        f"import importlib.util as u\ns = u.spec_from_file_location('stand_ins', {str(STAND_INS)!r})\n"
        "m = u.module_from_spec(s)\ns.loader.exec_module(m)\n"
        f"m.MARK = {lengths[shortest] + 1e-3}\n"
        "def broken():\n    return m.Misbehaving('segfault')\n"
    )
    rows = rank_files([tmp_path / "in"], f"ase:{calculator}:broken")
    assert Path(rows[-1]["file"]).name == shortest
    assert "SIGSEGV" in rows[-1]["failure"]
    assert math.isnan(rows[-1]["energy_kj_mol"])
    assert all(r["failure"] == "" and math.isfinite(r["energy_kj_mol"]) for r in rows[:-1])


def test_only_one_composition_can_be_ranked(packings: Path) -> None:
    with pytest.raises(InputError, match="one composition"):
        rank_files([packings, BENZOIC], "forcefield")
    with pytest.raises(EnergyModelError):
        rank_files([packings], f"ase:{STAND_INS}:NotThere")


def test_duplicates_share_a_representative(packings: Path, tmp_path: Path) -> None:
    rows = {
        Path(r["file"]).name: r
        for r in deduplicate_files([packings, BENZOIC], output=tmp_path / "distinct").rows
    }
    leader = {name: Path(r["representative"]).name for name, r in rows.items()}
    assert leader == {n: n for n in rows} | {"0009.cif": "0001.cif"}
    assert [rows[n]["cluster"] for n in ("0001.cif", "0002.cif", "0003.cif", "0009.cif")] == [1, 2, 3, 1]
    assert rows["0001.cif"]["rmsd_A"] == 0 < rows["0009.cif"]["rmsd_A"] < 0.5
    assert "RMSD_20 < 0.5" in rows["0001.cif"]["criterion"]
    assert "energy" not in rows["0001.cif"]
    assert {p.name for p in (tmp_path / "distinct").iterdir()} == set(rows) - {"0009.cif"}
    assert (tmp_path / "distinct" / "0001.cif").read_bytes() == (packings / "0001.cif").read_bytes()
    with pytest.raises(InputError, match="another folder"):
        deduplicate_files([packings], output=packings)


def test_the_lowest_energy_in_the_files_represents(packings: Path, tmp_path: Path) -> None:
    for name, energy in (("0001", -10.0), ("0002", -30.0), ("0009", -20.0)):
        write_cif(read_crystal(packings / f"{name}.cif"), tmp_path / f"{name}.cif", energy=energy)
    rows = deduplicate_files([tmp_path]).rows
    assert [Path(r["representative"]).stem for r in rows] == ["0009", "0002", "0009"]
    assert [r["cluster"] for r in rows] == [2, 1, 2]
    assert [r["energy"] for r in rows] == [-10, -30, -20]
    apart = deduplicate_files([tmp_path], DuplicateSettings(energy_window=5.0)).rows
    assert len({r["cluster"] for r in apart}) == 3
    shutil.copy(packings / "0003.cif", tmp_path)
    with pytest.raises(InputError, match="0003"):
        deduplicate_files([tmp_path], DuplicateSettings(energy_window=5.0))
    (tmp_path / "empty.cif").touch()
    rows = deduplicate_files([tmp_path]).rows
    assert "empty file" in rows[-1]["failure"]
    assert [Path(r["representative"]).stem for r in rows[:-1]] == ["0009", "0002", "0003", "0009"]
    assert [r["cluster"] for r in rows[:-1]] == [2, 1, 3, 2]


@pytest.mark.parametrize("given", ["missing.cif", "empty"])
def test_nothing_to_read_is_refused(given: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for verb in (deduplicate_files, lambda g: rank_files(g, "forcefield")):
        with pytest.raises(InputError, match="expected"):
            verb([tmp_path / given])
