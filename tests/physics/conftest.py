"""Small molecules and packings for the physics tests."""

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from nucleate.crystal.molecule import Molecule


def embedded(smiles: str) -> Molecule:
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(graph, randomSeed=7)
    return Molecule(graph, torch.tensor(graph.GetConformer().GetPositions())[None], smiles)


@pytest.fixture(scope="session")
def formamide() -> Molecule:
    return embedded("C(=O)N")


@pytest.fixture(scope="session")
def water() -> Molecule:
    return embedded("O")
