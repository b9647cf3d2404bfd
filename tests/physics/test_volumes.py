"""Predicted volumes of molecules in crystals, beside published cells."""

import pytest
import torch
from rdkit import Chem

from nucleate.crystal.molecule import Molecule
from nucleate.errors import InputError
from nucleate.physics.parameters import atomic_volume, has_volume, predicted_volume, volume_parts

PUBLISHED = {  # Å^3 a molecule at room temperature, from the cells of the usual forms
    "c1ccc2ccccc2c1": 180.0,  # naphthalene
    "c1ccc2cc3ccccc3cc2c1": 237.0,  # anthracene
    "C12C3C4C1C5C2C3C45": 123.5,  # cubane
    "OC(=O)c1ccccc1": 154.0,  # benzoic acid
    "CC(=O)Oc1ccccc1C(=O)O": 212.0,  # aspirin
    "CC(=O)Nc1ccc(O)cc1": 192.5,  # paracetamol
}


def molecule(smiles: str) -> Molecule:
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    return Molecule(graph, torch.zeros(0, graph.GetNumAtoms(), 3))


def test_volumes_are_those_of_published_cells_and_nearer_than_atoms_alone() -> None:
    error = [abs(predicted_volume(molecule(s)) / v - 1) for s, v in PUBLISHED.items()]
    plain = [abs(atomic_volume(molecule(s)) / v - 1) for s, v in PUBLISHED.items()]
    assert max(error) < 0.06
    assert sum(error) < 0.7 * sum(plain)


def test_parts_are_atoms_polar_hydrogens_and_rings() -> None:
    assert volume_parts(molecule("Nc1ccc2ccccc2c1")) == {
        **{"C": 10, "H": 9, "N": 1},
        **{"polar hydrogen": 2, "ring": 2},
    }
    assert "ring" not in volume_parts(molecule("CCO"))
    assert volume_parts(molecule("C12C3C4C1C5C2C3C45"))["ring"] == 4  # of five, for eight heavy atoms


@pytest.mark.parametrize("of", [predicted_volume, atomic_volume])
def test_an_unknown_element_is_refused(of: object) -> None:
    selenide = molecule("C[Se]C")
    assert not has_volume(selenide)
    with pytest.raises(InputError, match="no volume is known for Se") as raised:
        of(selenide)  # type: ignore[operator]
    assert raised.value.reason == "unknown element"
