"""What is read of a molecule's graph is what its coordinates show."""

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolTransforms

from nucleate.crystal.bond_graph import CIS, FAR, SIDES, TRANS, BondGraphs, bond_graph, signed_volumes

SMILES = [
    "C[C@H](N)C(=O)O",
    "CC[S@](=O)C",
    "C[C@H]1CC[C@@H](O)CC1",
    "N[C@@](F)(Cl)C=O",
    "F/C=C\\Cl",
    "C/C=C/C=O",
]


def embedded(smiles: str, n: int = 3) -> tuple[Chem.Mol, torch.Tensor]:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(molecule, n, randomSeed=7)
    return molecule, torch.stack([torch.from_numpy(c.GetPositions()) for c in molecule.GetConformers()])


def by_breadth(neighbours: list[list[int]], start: int) -> list[int]:
    """Bonds from one atom to all others, found layer by layer."""
    hops = [FAR] * len(neighbours)
    hops[start], layer, depth = 0, [start], 0
    while layer:
        depth += 1
        layer = [j for i in layer for j in neighbours[i] if hops[j] == FAR]
        for j in layer:
            hops[j] = depth
    return hops


@pytest.mark.parametrize("smiles", ["CC(C)Cc1ccc(cc1)C(C)C(=O)O", "C1CC2CCC1CC2", "[NH4+].[Cl-]"])
def test_hops_are_those_of_a_breadth_first_search(smiles: str) -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    neighbours = [[n.GetIdx() for n in a.GetNeighbors()] for a in molecule.GetAtoms()]
    expected = [by_breadth(neighbours, i) for i in range(len(neighbours))]
    assert bond_graph(molecule).hops.tolist() == expected


def test_pairs_are_the_extended_graph() -> None:
    """Of a batch with padding: each pair within three bonds once, numbered among the real atoms."""
    graphs = [bond_graph(Chem.AddHs(Chem.MolFromSmiles(s))) for s in ("CCCCO", "O", "c1ccccc1")]
    pairs = BondGraphs.from_list(graphs).pairs(3)
    found = set(zip(pairs.i.tolist(), pairs.j.tolist(), pairs.hops.tolist()))
    expected, first = set(), 0
    for graph in graphs:
        n = len(graph)
        expected |= {
            (first + i, first + j, int(graph.hops[i, j]))
            for i in range(n)
            for j in range(i + 1, n)
            if graph.hops[i, j] <= 3
        }
        first += n
    assert found == expected
    assert len(pairs.i) == len(expected)
    assert (pairs.bond > 0).equal(pairs.hops == 1)


@pytest.mark.parametrize("smiles", SMILES[:4])
def test_volumes_tell_the_hand(smiles: str) -> None:
    molecule, x = embedded(smiles)
    graphs = BondGraphs.from_list([bond_graph(molecule)] * len(x))
    assert graphs.centres.shape[1] > 0
    assert (signed_volumes(graphs.centres, x) > 0.5).all()
    assert (signed_volumes(graphs.centres, -x) < -0.5).all()


@pytest.mark.parametrize("smiles", SMILES[4:])
def test_sides_tell_cis_from_trans(smiles: str) -> None:
    """By the torsion about the double bond: 0 or 180 degrees."""
    molecule, _ = embedded(smiles, 1)
    graph = bond_graph(molecule)
    (double,) = (b for b in molecule.GetBonds() if b.GetStereo() in SIDES)
    begin, end = double.GetBeginAtomIdx(), double.GetEndAtomIdx()
    for k, m in graph.side.nonzero().tolist():
        first, last = (begin, end) if graph.hops[k, begin] == 1 else (end, begin)
        torsion = rdMolTransforms.GetDihedralDeg(molecule.GetConformer(), k, first, last, m)
        assert (abs(torsion) < 90) == (graph.side[k, m] == CIS)
    assert (graph.side == CIS).sum() == (graph.side == TRANS).sum() == 4


def test_stereo_that_is_not_given_stays_open() -> None:
    graph = bond_graph(Chem.AddHs(Chem.MolFromSmiles("CC(N)C(=O)O.CC=CC")))
    assert len(graph.centres) == 0
    assert not graph.side.any()
