"""The 18 features: hand-worked values, what they must not depend on, what is refused."""

import math

import pytest
import torch
from rdkit import Chem

from nucleate.crystal.molecule import Molecule
from nucleate.data.molecule_features import FEATURES, molecule_features, shape_features
from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation


def molecule(smiles, sanitize=True):
    graph = Chem.MolFromSmiles(smiles, sanitize=sanitize)
    graph = Chem.AddHs(graph) if sanitize else graph
    n = graph.GetNumAtoms()
    positions = torch.randn(2, n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Molecule(graph, positions)


def named(smiles):
    return dict(zip(FEATURES, molecule_features(molecule(smiles))[0].tolist()))


def test_paracetamol_by_hand():
    found = named("CC(=O)Nc1ccc(O)cc1")
    counts = {
        "num_atoms": 20, "num_heavy_atoms": 11, "is_chiral": 0, "num_hbd": 2, "num_hba": 2,
        "num_rotatable_bonds": 1, "num_rings": 1, "num_aromatic_rings": 1,
    }  # fmt: skip
    assert {name: found[name] for name in counts} == counts
    assert found["molecular_weight"] == pytest.approx(151.16, abs=0.01)
    assert found["tpsa"] == pytest.approx(49.33, abs=0.01)  # amide 29.10 + hydroxyl 20.23
    assert found["logp"] == pytest.approx(1.35, abs=0.01)
    assert len(FEATURES) == 18


def test_methyl_groups_are_not_rotatable_and_chirality_counts_mirror_partners():
    assert named("CC")["num_rotatable_bonds"] == 0
    assert named("CCCC")["num_rotatable_bonds"] == 1
    assert named("C[C@H](N)C(=O)O")["is_chiral"] == 1
    assert named("C[C@H](O)[C@@H](C)O")["is_chiral"] == 0  # meso


def test_shape_of_a_square_a_rod_and_a_point():
    square = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]], dtype=torch.float64)
    rod = torch.tensor([[2.0, 0, 0], [-2.0, 0, 0]], dtype=torch.float64)
    point = torch.zeros(1, 1, 3, dtype=torch.float64)
    expected = {
        "square": [1, 1, 0, math.sqrt(2), 0.5, 0, 1],
        "rod": [4, 0, 0, 2, 4, 1, 1],
        "point": [0, 0, 0, 0, 0, 0, 1],
    }
    for name, x in (("square", square[None]), ("rod", rod[None]), ("point", point)):
        torch.testing.assert_close(shape_features(x)[0], torch.tensor(expected[name]).double(), msg=name)


def test_shape_does_not_see_motions_or_mirrors():
    x = torch.randn(5, 12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    R = random_rotation(5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(shape_features(-x @ R.mT + 3), shape_features(x))


def test_each_conformer_has_its_own_row():
    rows = molecule_features(molecule("CCO"))
    assert rows.shape == (2, 18)
    assert torch.equal(rows[0, :11], rows[1, :11])
    assert not torch.allclose(rows[0, 11:], rows[1, 11:])


@pytest.mark.parametrize(("smiles", "sanitize"), [("[Xe]", True), ("CN(C)(C)(C)C", False)])
def test_what_has_no_value_is_refused_not_zeroed(smiles, sanitize):
    with pytest.raises(InputError, match="leave") as caught:
        molecule_features(molecule(smiles, sanitize))
    assert caught.value.reason == "no features"
