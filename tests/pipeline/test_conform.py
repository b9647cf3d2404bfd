"""Conformers: stereo, order, distinctness, repeatability, time."""

import time

import pytest
import torch
from rdkit import Chem

from nucleate.crystal.io import read_molecule
from nucleate.crystal.molecule import Molecule
from nucleate.errors import InputError
from nucleate.pipeline.composition import default_name, folder_name, read_subject
from nucleate.pipeline.conform import Conformers, ConformSettings, conform
from tests.pipeline.conftest import DATA


def conformers_of(smiles: str, seed: int = 0, **options: float) -> Conformers:
    [molecule] = read_molecule(smiles)
    return conform(molecule, ConformSettings.model_validate(options), seed)


def smiles_from_geometry(molecule: Molecule, k: int) -> str:
    """What the coordinates alone say, stereo of the graph forgotten."""
    bare = Chem.RWMol(molecule.graph)
    Chem.RemoveStereochemistry(bare)
    shape = Chem.Conformer(len(molecule))
    shape.SetPositions(molecule.conformers[k].double().numpy())
    bare.RemoveAllConformers()
    bare.AddConformer(shape)
    Chem.AssignStereochemistryFrom3D(bare)
    return Chem.MolToSmiles(Chem.RemoveHs(bare))


@pytest.mark.parametrize(
    "smiles",
    [
        "C[C@H](N)C(=O)O",
        "C[C@@H](N)C(=O)O",
        "OC(=O)/C=C/C(=O)O",
        "OC(=O)/C=C\\C(=O)O",
        "O[C@H]1CCCC[C@@H]1N",
        "C[C@H](O)/C=C/[C@@H](C)F",
    ],
)
def test_every_conformer_has_the_stereo_of_the_graph(smiles: str) -> None:
    found = conformers_of(smiles)
    wanted = Chem.CanonSmiles(smiles)
    assert {smiles_from_geometry(found.molecule, k) for k in range(len(found.energies))} == {wanted}


def test_lowest_first_within_the_window_and_centred() -> None:
    found = conformers_of("OCCCO", keep=8, window=10.0)
    assert len(found.energies) > 2
    assert found.energies[0] == 0
    assert (found.energies.diff() >= 0).all()
    assert found.energies.max() <= 10.0 * 0.010364270 + 1e-9
    assert found.molecule.conformers.mean(1).abs().max() < 1e-9
    assert len(conformers_of("OCCCO", keep=2).energies) == 2


def test_the_same_seed_gives_the_same_conformers() -> None:
    one, two, other = (conformers_of("CCOC(=O)CO", seed=s) for s in (4, 4, 5))
    assert torch.equal(one.molecule.conformers, two.molecule.conformers)
    assert torch.equal(one.energies, two.energies)
    same_shape = one.molecule.conformers.shape == other.molecule.conformers.shape
    assert not same_shape or not torch.equal(one.molecule.conformers, other.molecule.conformers)


@pytest.mark.parametrize(
    "smiles",
    ["C1CCCCCCCCCCC1", "C12C3C4C1C5C2C3C45", "C1CC2CCC1CC2", "CCCCCCCCCCCCCC"],
    ids=["cyclododecane", "cubane", "bicyclooctane", "tetradecane"],
)
def test_rings_cages_and_chains_within_the_time(smiles: str) -> None:
    started = time.monotonic()
    found = conformers_of(smiles, time_limit=4.0)
    assert len(found.energies) >= 1
    assert time.monotonic() - started < 10.0


def test_rigid_molecules_have_one_conformer() -> None:
    for smiles in ("c1ccccc1", "O", "NC(N)=O", "[Cl-]"):
        assert len(conformers_of(smiles).energies) == 1


def test_an_unnamed_stereocentre_keeps_to_one_diastereomer() -> None:
    found = conformers_of("CC(O)C(F)Cl", keep=6)
    kinds = {smiles_from_geometry(found.molecule, k) for k in range(len(found.energies))}
    one = min(kinds)
    mirror = Chem.CanonSmiles(one.replace("@@", "!").replace("@", "@@").replace("!", "@"))
    assert kinds <= {one, mirror}
    subject = read_subject("CC(O)C(F)Cl")
    assert any("stereocentre is not given" in note for note in subject.notes)
    assert not subject.composition.enantiopure


# ------------------------------------------------------------------ what is searched


def test_molecules_of_a_cif_stay_as_they_are() -> None:
    subject = read_subject(str(DATA / "cod_7210454.cif"))
    assert subject.name == "cod_7210454"
    assert subject.smiles == "O=C(O)c1ccccc1"
    assert [len(m.conformers) for m in subject.composition.species] == [1]


def test_the_hand_of_a_cif_follows_its_space_group() -> None:
    assert read_subject(str(DATA / "cod_2003526.cif")).composition.enantiopure  # a chiral salt in P212121
    assert not read_subject(str(DATA / "cod_1100989.cif")).composition.enantiopure


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C[C@H](N)C(=O)O.C[C@@H](N)C(=O)O", "both enantiomers"),
        ("[NH4+]", "charged"),
        ("C" * 45, "too large"),
        ("C[CH2]", "radical"),
        ("C1CC", "bad SMILES"),
    ],
)
def test_what_cannot_be_searched_is_refused(smiles: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_subject(smiles)
    assert caught.value.reason == reason


def test_names_are_harmless() -> None:
    assert folder_name("../../etc/passwd") == "etc_passwd"
    assert folder_name("..") == folder_name("") == folder_name("乙") == "molecule"
    assert folder_name("<script>") == "script"
    assert default_name("dir/form-II.cif", "C") == "form-II"
    assert len(folder_name("x" * 500)) == 60
