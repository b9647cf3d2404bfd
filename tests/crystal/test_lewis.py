"""Lewis structures from coordinates: the SMILES that made the coordinates must come back."""

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from nucleate.crystal.assemble import assemble_crystal, assign_graph
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.lewis import Skeleton, lewis_structures
from nucleate.crystal.rigid import species_from_crystal
from nucleate.errors import InputError

NEUTRAL = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "O=[N+]([O-])c1ccc(N)cc1",
    "CN=[N+]=[N-]",
    "[C-]#[N+]c1ccccc1",
    "C[N+]([O-])(C)C",
    "[O-][n+]1ccccc1",
    "CS(=O)(=O)Nc1nccs1",
    "c1ccc2c(c1)sc1ccccc12",
    "c1nsnc1",
    "C1=CC(=O)C=CC1=O",
    "c1ccc2cccc-2cc1",
    "[NH3+]CC(=O)[O-]",
    "CP(=O)(O)O",
    "CS(C)=O",
    "C=[N+]=[N-]",
    "N#CC(C#N)=C1C=CC(=C(C#N)C#N)C=C1",
    "c1nn[nH]n1",
    "OB(O)c1ccccc1",
    "C[Si](C)(C)C#CC",
    "FC(F)(F)CBr",
    "Ic1ccccc1",
    "O=C=Nc1ccccc1",
    "S=C(N)N",
    "C1C2CC3CC1CC(C2)C3",
    "c1cc[se]c1",
    "C[C@H](N)C(=O)O",
    "C/C=C/C",
    "O=c1[nH]c2ccccc2[nH]1",
    "Clc1ccc(cc1)C(=O)c1ccncc1",
]
SALTS = [
    "[NH4+].[O-][Cl+3]([O-])([O-])[O-]",
    "c1cc[nH+]cc1.[O-]C(=O)c1ccccc1",
    "C[N+](C)(C)C.[Cl-]",
    "NC(N)=[NH2+].[O-][N+](=O)[O-]",
    "[Na+].CS(=O)(=O)[O-]",
    "CCn1cc[n+](C)c1.F[B-](F)(F)F",
    "C[NH3+].C[NH3+].[O-]S(=O)(=O)[O-]",
]


def placed(smiles: str) -> Crystal:
    """The molecules of a SMILES side by side in one cell, from force-field geometries (only distances matter)."""
    numbers, positions, edge = [], [], 0.0
    for part in smiles.split("."):
        mol = Chem.AddHs(Chem.MolFromSmiles(part))
        assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
        if AllChem.UFFHasAllMoleculeParams(mol):
            AllChem.UFFOptimizeMolecule(mol)
        x = mol.GetConformer().GetPositions()
        positions.append(x - x.min(0) + [edge, 0, 0])
        edge += float(np.ptp(x[:, 0])) + 4.0
        numbers += [a.GetAtomicNum() for a in mol.GetAtoms()]
    lattice = torch.diag(torch.tensor([edge, 20.0, 20.0], dtype=torch.float64))
    frac = torch.tensor(np.concatenate(positions)) @ torch.linalg.inv(lattice)
    return assemble_crystal(lattice, frac, torch.tensor(numbers), check_hydrogens=False)


def perceived(crystal: Crystal) -> list[str]:
    return sorted(_canonical(m.smiles) for m in species_from_crystal(crystal))


def _canonical(smiles: str) -> str:
    mol = Chem.MolFromSmiles(smiles)
    assert mol is not None, smiles
    return Chem.MolToSmiles(mol)


@pytest.mark.parametrize("smiles", NEUTRAL)
def test_neutral_molecules_come_back(smiles: str) -> None:
    assert perceived(placed(smiles)) == [_canonical(smiles)]


@pytest.mark.parametrize("smiles", SALTS)
def test_charges_of_salts_balance_over_the_cell(smiles: str) -> None:
    crystal = placed(smiles)
    assert perceived(crystal) == sorted({_canonical(part) for part in smiles.split(".")})
    assert crystal.charges is not None
    assert crystal.charges.sum() == 0


def test_a_radical_is_reported_not_hidden() -> None:
    assert "unpaired" in str(placed("CN(C)[O]").info)


def test_running_out_of_time_leaves_single_bonds_and_a_warning() -> None:
    ethene = Skeleton(
        np.array([6, 6, 1, 1, 1, 1]), np.array([[0, 1], [0, 2], [0, 3], [1, 4], [1, 5]]), np.ones(5)
    )
    (answer,) = lewis_structures([ethene], time_limit=0)
    assert set(answer.types) == {Chem.BondType.SINGLE}
    assert "no Lewis structure" in answer.warnings[0]


def test_a_known_molecule_is_never_perceived() -> None:
    crystal = placed("O=[N+]([O-])c1ccc(N)cc1")
    (molecule,) = species_from_crystal(crystal)
    bare = crystal.replace(bond_types=(), charges=None, bonds=crystal.bonds.flip(1).flip(0))
    assigned = assign_graph(bare, [molecule])
    assert assigned.charges is not None
    assert assigned.charges.abs().sum() == 2
    assert perceived(assigned) == perceived(crystal)
    with pytest.raises(InputError) as caught:
        assign_graph(placed("C"), [molecule])
    assert caught.value.reason == "other molecule"
