"""Molecules and crystals from other files than CIF; batches."""

from pathlib import Path

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import (
    read_extxyz,
    read_molecule,
    read_molecule_list,
    read_stoichiometry,
    write_extxyz,
)
from nucleate.crystal.rigid import species_from_crystal
from nucleate.errors import InputError
from tests.crystal.conftest import DATA, farthest


def test_a_smiles_is_a_molecule_without_conformers() -> None:
    (aspirin,) = read_molecule("CC(=O)Oc1ccccc1C(=O)O")
    assert aspirin.conformers.shape == (0, 21, 3)
    assert aspirin.formula == "C9H8O4"


def test_dots_separate_species_and_repetition_counts() -> None:
    found = {m.formula: n for m, n in read_stoichiometry("[Na+].O.O.[Cl-].O")}
    assert found == {"Na+": 1, "Cl-": 1, "H2O": 3}


def test_stereo_and_charges_are_kept_and_isotopes_dropped() -> None:
    (alanine,) = read_molecule("C[C@H]([NH3+])C(=O)[O-]")
    assert Chem.MolToSmiles(Chem.MolFromSmiles(alanine.smiles)) == Chem.CanonSmiles("C[C@H]([NH3+])C(=O)[O-]")
    (water,) = read_molecule("[2H]O[2H]")
    assert (len(water), water.formula) == (3, "H2O")


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("", "bad SMILES"),
        ("c1ccccc", "bad SMILES"),
        ("C(C)(C)(C)(C)C", "bad SMILES"),
        ("no molecule", "bad SMILES"),
        ("C[CH2]", "radical"),
        ("*CC", "unknown element"),
        ("[Xq]", "bad SMILES"),
        ("C" * 400, "too large"),
        ("missing.sdf", "unreadable"),
        ("notes.txt", "bad SMILES"),
    ],
)
def test_bad_molecules_are_refused_in_one_line(smiles: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_molecule(smiles)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


def embedded(smiles: str, seed: int = 1) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=seed)
    return mol


def test_sdf_records_of_one_molecule_are_its_conformers(tmp_path: Path) -> None:
    path = tmp_path / "two.sdf"
    with Chem.SDWriter(str(path)) as writer:
        for seed in (1, 2):
            writer.write(embedded("C[C@H](N)C(=O)O", seed))
        writer.write(embedded("O"))
    alanine, water = read_molecule(path)
    assert (len(alanine.conformers), len(water.conformers)) == (2, 1)
    assert "@" in alanine.smiles
    (tmp_path / "empty.sdf").write_text("")
    (tmp_path / "cut.sdf").write_text(path.read_text()[:200])
    for name, reason in (("empty.sdf", "empty file"), ("cut.sdf", "unreadable")):
        with pytest.raises(InputError) as caught:
            read_molecule(tmp_path / name)
        assert caught.value.reason == reason


def test_xyz_gets_bonds_and_keeps_its_shape(tmp_path: Path) -> None:
    mol = embedded("O=[N+]([O-])c1ccc(O)cc1")
    path = tmp_path / "nitrophenol.xyz"
    path.write_text(Chem.MolToXYZBlock(mol))
    (molecule,) = read_molecule(path)
    assert Chem.CanonSmiles(molecule.smiles) == Chem.CanonSmiles("O=[N+]([O-])c1ccc(O)cc1")
    assert len(molecule.conformers) == 1
    path.write_text("3\nbroken\nH 0 0\n")
    with pytest.raises(InputError):
        read_molecule(path)


def test_a_cif_gives_its_molecules_with_counts() -> None:
    found = {m.formula: (n, len(m.conformers)) for m, n in read_stoichiometry(DATA / "cod_2003526.cif")}
    assert found == {"C10H20NO3+": (1, 1), "Cl-": (1, 1)}


def test_lists_keep_broken_lines_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("# comment\nCCO ethanol\nc1cccc broken one\n\nO\n")
    (first, ethanol), (second, broken), (third, water) = read_molecule_list(tmp_path / "a.smi")
    assert (first, second, third) == ("ethanol", "broken one", "0003")
    assert (ethanol, water) == ("CCO", "O")
    assert isinstance(broken, InputError)
    (tmp_path / "b.csv").write_text('id,SMILES\nx,"CCO"\n')
    assert read_molecule_list(tmp_path / "b.csv") == [("x", "CCO")]
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="smiles"):
        read_molecule_list(tmp_path / "c.csv")


def test_extxyz_round_trip_with_molecules(tmp_path: Path, crystals: dict[str, Crystal]) -> None:
    some = [crystals[k] for k in ("2100840", "2003526")]
    back = read_extxyz(write_extxyz(some, tmp_path / "some.extxyz"))
    for old, new in zip(some, back):
        assert farthest(old, new) < 1e-5
        assert new.n_molecules == old.n_molecules
        assert torch.equal(new.info["mol_id"], old.molecule)  # type: ignore[index]
        assert {m.smiles for m in species_from_crystal(new)} == {m.smiles for m in species_from_crystal(old)}
    (tmp_path / "flat.extxyz").write_text("1\n\nH 0 0 0\n")
    with pytest.raises(InputError, match="cell"):
        read_extxyz(tmp_path / "flat.extxyz")


def test_batches_split_back_and_index_by_crystal(crystals: dict[str, Crystal]) -> None:
    some = list(crystals.values())[:4]
    batch = CrystalBatch.from_list(some)
    assert len(batch) == 4
    for old, new in zip(some, batch.split()):
        assert torch.equal(old.frac, new.frac)
        assert torch.equal(old.molecule, new.molecule)
    fewer = batch[[2, 0]]
    assert isinstance(fewer, CrystalBatch)
    assert torch.equal(fewer.split()[0].frac, some[2].frac)
    assert int(fewer.molecule_of_atom.max()) + 1 == some[2].n_molecules + some[0].n_molecules
    one = batch[-1]
    assert isinstance(one, Crystal)
    torch.testing.assert_close(batch.positions[-len(one) :], one.positions)


def test_batches_refuse_what_does_not_fit(crystals: dict[str, Crystal]) -> None:
    batch = CrystalBatch.from_list([crystals["2100840"]])
    with pytest.raises(ValueError, match="sliced by atom"):
        CrystalBatch(
            batch.lattice, batch.frac, batch.numbers, batch.crystal_of_atom + 1, batch.molecule_of_atom
        )
    with pytest.raises(ValueError, match="at least one"):
        CrystalBatch.from_list([])


def test_automorphisms_see_through_charges_and_bond_orders() -> None:
    (nitrobenzene,) = read_molecule("[O-][N+](=O)c1ccccc1")
    assert len(nitrobenzene.automorphisms) == 4
    assert nitrobenzene.automorphisms[0].tolist() == list(range(14))
