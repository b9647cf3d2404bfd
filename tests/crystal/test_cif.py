"""Reading CIF (laws, traps, refusals) and writing it so that everybody reads the same crystal back."""

import io
from collections import Counter
from pathlib import Path

import ase.io
import gemmi
import pytest
import torch
from rdkit import Chem

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.cif_write import cif_text, write_cif
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.rigid import species_from_crystal
from nucleate.crystal.standardise import find_symmetry, primitive_niggli
from nucleate.errors import InputError, NucleateError
from tests.crystal.conftest import DATA, EXPECTED, distances, farthest

UREA = """data_urea
_cell_length_a 5.565(2)
_cell_length_b 5.565
_cell_length_c 4.684
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_chemical_formula_sum 'C H4 N2 O'
_cell_formula_units_Z 2
_symmetry_space_group_name_H-M 'P -4 21 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
_atom_site_disorder_group
_atom_site_calc_flag
C1 C 0 0.5 0.3280(2) 1 . d
O1 O 0 0.5 0.5963 1 . d
N1 N 0.1447 0.6447 0.1784 1 . d
H1 H 0.2557 0.7557 0.2841 1 . d
H2 H 0.1428 0.6428 -0.0339 1 . d
"""


def edited(*changes: tuple[str, str]) -> str:
    text = UREA
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("name", EXPECTED)
def test_real_files_have_the_known_molecules_and_symmetry(name: str, crystals: dict[str, Crystal]) -> None:
    crystal, (number, z, z_prime, formulae, n) = crystals[name], EXPECTED[name]
    assert crystal.n_molecules == n
    found = {m.formula for m in species_from_crystal(crystal)}
    assert found == set(formulae.split())
    symmetry = find_symmetry(crystal)
    assert (symmetry.number, symmetry.z) == (number, z)
    assert symmetry.z_prime == pytest.approx(z_prime)
    assert crystal.charges is not None
    assert crystal.charges.sum() == 0
    assert "warnings" not in (crystal.info or {})


def test_molecules_are_whole_and_their_centres_in_the_cell(crystals: dict[str, Crystal]) -> None:
    for crystal in crystals.values():
        ends = crystal.positions[crystal.bonds]
        assert (ends[:, 0] - ends[:, 1]).norm(dim=-1).max() < 1.7
        assert ((crystal.centroids > -1e-6) & (crystal.centroids < 1)).all()


@pytest.mark.parametrize("name", EXPECTED)
def test_written_cif_reads_back_as_the_same_crystal(name: str, crystals: dict[str, Crystal]) -> None:
    crystal = crystals[name]
    text = cif_text(crystal, energy=-80.5, provenance={"seed": 3})
    back = read_crystal(text)
    assert back.density == pytest.approx(crystal.density, rel=1e-6)
    assert back.volume == pytest.approx(crystal.volume, rel=1e-6)
    torch.testing.assert_close(distances(back), distances(crystal), atol=1e-3, rtol=0)
    block = gemmi.cif.read_string(text).sole_block()
    number, z, z_prime, *_ = EXPECTED[name]
    assert int(block.find_value("_space_group_IT_number")) == number
    assert int(block.find_value("_cell_formula_units_Z")) == z
    assert float(block.find_value("_cell_formula_units_Z_prime")) == pytest.approx(z_prime, rel=1e-5)
    assert float(block.find_value("_nucleate_lattice_energy_kj_mol")) == -80.5
    assert len(block.find_values("_geom_bond_distance")) > 0 or name == "2100840"


@pytest.mark.parametrize("name", EXPECTED)
def test_ase_and_gemmi_read_the_same_atoms(name: str, crystals: dict[str, Crystal]) -> None:
    text = cif_text(crystals[name])
    back = read_crystal(text)
    atoms = ase.io.read(io.StringIO(text), format="cif")
    theirs = back.replace(
        frac=torch.tensor(atoms.get_scaled_positions()), numbers=torch.tensor(atoms.numbers.astype("int64"))
    )
    assert atoms.get_volume() == pytest.approx(back.volume, rel=1e-6)
    assert farthest(theirs, back) < 1e-3
    small = gemmi.make_small_structure_from_block(gemmi.cif.read_string(text).sole_block())
    assert Counter(s.element.atomic_number for s in small.get_all_unit_cell_sites()) == Counter(
        back.numbers.tolist()
    )


@pytest.mark.extra
def test_pymatgen_reads_the_same_crystal(crystals: dict[str, Crystal]) -> None:
    parser = pytest.importorskip("pymatgen.io.cif").CifParser
    for crystal in crystals.values():
        structure = parser.from_str(cif_text(crystal)).parse_structures(primitive=False)[0]
        assert len(structure) == len(crystal)
        assert structure.volume == pytest.approx(crystal.volume, rel=1e-6)


def test_a_primitive_cell_is_written_in_the_conventional_one(crystals: dict[str, Crystal]) -> None:
    primitive, _ = primitive_niggli(crystals["2000380"])
    assert len(primitive) * 3 == len(crystals["2000380"])
    back = read_crystal(cif_text(primitive))
    assert len(back) == len(crystals["2000380"])
    torch.testing.assert_close(distances(back), distances(crystals["2000380"]), atol=1e-3, rtol=0)


def test_noise_below_the_tolerance_is_symmetrised_away(crystals: dict[str, Crystal]) -> None:
    crystal = crystals["7210454"]
    generator = torch.Generator().manual_seed(0)
    noise = 1e-3 * torch.randn(len(crystal), 3, generator=generator, dtype=torch.float64)  # Å
    noisy = crystal.replace(frac=crystal.frac + noise @ torch.linalg.inv(crystal.lattice))
    assert find_symmetry(noisy).number == 14
    back = read_crystal(cif_text(noisy))
    torch.testing.assert_close(distances(back, 3.0), distances(crystal, 3.0), atol=0.02, rtol=0)


def test_writing_is_atomic_and_says_where_it_cannot(tmp_path: Path, crystals: dict[str, Crystal]) -> None:
    path = write_cif(crystals["2100840"], tmp_path / "a" / "acetylene.cif")
    assert read_crystal(path).info["id"] == "acetylene"  # type: ignore[index]
    assert [p.name for p in path.parent.iterdir()] == ["acetylene.cif"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(NucleateError, match="writable"):
        write_cif(crystals["2100840"], tmp_path / "file" / "no.cif")


def test_hostile_names_and_provenance_stay_inside_their_quotes(crystals: dict[str, Crystal]) -> None:
    evil = {"note": 'it\'s "fine"\n; _cell_length_a 1 <script>', "empty": ""}
    text = cif_text(crystals["2100840"], provenance=evil, name="x y\n_cell_length_a 1")
    block = gemmi.cif.read_string(text).sole_block()
    values = [gemmi.cif.as_string(v) for v in block.find_values("_nucleate_provenance_value")]
    assert values == [" ".join(v.split()) for v in evil.values()]
    assert read_crystal(text).volume == pytest.approx(crystals["2100840"].volume, rel=1e-6)


def test_a_molecule_on_a_special_position_is_completed() -> None:
    crystal = read_crystal(UREA)
    assert (len(crystal), crystal.n_molecules) == (16, 2)
    (urea,) = species_from_crystal(crystal)
    assert Chem.MolToSmiles(Chem.RemoveHs(urea.graph)) == "NC(N)=O"


def test_symmetry_comes_from_the_operations_not_from_the_symbol() -> None:
    text = (DATA / "cod_7210454.cif").read_text()
    lying = text.replace("P 1 21/c 1", "P 1 21/n 1")
    assert lying != text
    assert farthest(read_crystal(lying), read_crystal(text)) == 0
    other = text.replace("P 1 21/c 1", "P 21 21 21")
    assert any("symbol says" in w for w in read_crystal(other).info["warnings"])  # type: ignore[index]


def test_a_whole_cell_listed_in_p1_and_a_list_with_repeats_are_the_same_crystal() -> None:
    crystal = read_crystal(UREA)
    rows = [
        f"X{k} {gemmi.Element(z).name} {x:.6f} {y:.6f} {w:.6f} 1 . d"
        for k, (z, (x, y, w)) in enumerate(zip(crystal.numbers.tolist(), crystal.frac.tolist()))
    ]
    head = UREA.split("C1 C 0")[0]
    repeated = read_crystal(head + "\n".join(rows) + "\n")
    flat = read_crystal(head.replace("P -4 21 m", "P 1") + "\n".join(rows) + "\n")
    assert farthest(repeated, crystal) < 1e-4
    assert farthest(flat, crystal) < 1e-4


@pytest.mark.parametrize(
    "change",
    [
        ("H1 H 0.2557", "D1 D 0.2557"),  # deuterium is hydrogen
        ("H2 H 0.1428 0.6428 -0.0339 1 . d", "H2 H 0.1428 0.6428 -0.0339 1 . d\nQ1 C 0.3 0.3 0.3 1 . dum"),
        ("H2 H 0.1428 0.6428 -0.0339 1 . d", "H2 H 0.1428 0.6428 -0.0339 ? ? ?\nC9 C ? ? ? 1 . d"),
        ("C1 C 0 0.5 0.3280(2)", "C1 C4+ 0.0001 0.4999 0.3280(2)"),  # charge in the symbol, rounding
        ("O1 O 0 0.5 0.5963 1 .", "O1 O 0 0.5 0.5963 1 1"),  # a disorder flag on a full site
        ("H2 H 0.1428 0.6428 -0.0339 1 . d", "H2 H 0.1428 0.6428 -0.0339 1 . d\nO9 O 0.5 0.5 0.5 0 . d"),
    ],
)
def test_harmless_oddities_are_read(change: tuple[str, str]) -> None:
    assert farthest(read_crystal(edited(change)), read_crystal(UREA)) < 0.01


REFUSALS = {
    "empty file": "  \n",
    "unreadable": UREA.replace("loop_", "loop_ 'never closed", 1),
    "no atoms": UREA.split("loop_")[0],
    "unknown element": edited(("O1 O 0", "Xx1 Xx 0")),
    "disordered": edited(("0.5963 1 .", "0.5963 0.6 1")),
    "clash": edited(("O1 O 0 0.5 0.5963", "O1 O 0 0.5 0.43")),
    "missing hydrogens": edited(("H2 H 0.1428 0.6428 -0.0339 1 . d\n", "")),
}
CHAIN = """data_chain
_cell_length_a 8
_cell_length_b 8
_cell_length_c 2.55
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
C1 0.5 0.5 0.0
C2 0.6 0.5 0.5
H1 0.4 0.61 0.0
H2 0.4 0.39 0.0
H3 0.7 0.61 0.5
H4 0.7 0.39 0.5
"""
REFUSALS["polymeric"] = CHAIN


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals_have_a_reason_and_one_line(reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_crystal("\n" + REFUSALS[reason])
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("expected")


def test_a_missing_heavy_atom_is_incomplete_unless_the_formula_is_distrusted() -> None:
    text = edited(("O1 O 0 0.5 0.5963 1 . d\n", ""))
    with pytest.raises(InputError) as caught:
        read_crystal(text)
    assert caught.value.reason == "incomplete"
    assert len(read_crystal(text, check_contents=False)) == 14


def test_missing_hydrogens_are_seen_without_a_formula() -> None:
    text = (DATA / "cod_7210454.cif").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("H", "_chemical_formula"))]
    with pytest.raises(InputError) as caught:
        read_crystal("\n".join(lines))
    assert caught.value.reason == "missing hydrogens"


def test_the_major_component_is_read_on_request() -> None:
    minor = "O1 O 0 0.5 0.5963 0.7 1 d\nO2 O 0 0.5 0.61 0.3 2 d"
    text = edited(("O1 O 0 0.5 0.5963 1 . d", minor))
    with pytest.raises(InputError, match="disorder='major'"):
        read_crystal(text)
    assert farthest(read_crystal(text, disorder="major"), read_crystal(UREA)) < 1e-9


def test_disorder_about_a_special_position_is_never_resolved() -> None:
    text = edited(("O1 O 0 0.5 0.5963 1 . d", "O1 O 0 0.5 0.5963 0.5 -1 d"))
    with pytest.raises(InputError, match="special position"):
        read_crystal(text, disorder="major")


def test_blocks_are_chosen_by_name_or_by_having_atoms() -> None:
    text = "data_report\n_audit_creation_method x\n" + UREA + UREA.replace("data_urea", "data_other")
    assert read_crystal(text).info["id"] == "urea"  # type: ignore[index]
    assert read_crystal(text, block="other").info["id"] == "other"  # type: ignore[index]
    with pytest.raises(InputError, match="report, urea, other"):
        read_crystal(text, block="nothing")


def test_a_missing_file_is_a_plain_refusal(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check the path"):
        read_crystal(tmp_path / "none.cif")
    (tmp_path / "empty.cif").write_text("")
    with pytest.raises(InputError) as caught:
        read_crystal(tmp_path / "empty.cif")
    assert caught.value.reason == "empty file"
