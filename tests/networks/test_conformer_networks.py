"""Networks of conformers: what turns with the molecule, what does not, and what is told hands."""

from dataclasses import replace

import pytest
import torch
from rdkit import Chem

from nucleate.crystal.bond_graph import BondGraphs, bond_graph
from nucleate.geometry.so3 import rotation_exp
from nucleate.networks.conformer import KINDS, ConformerNetwork, faces, kinds
from nucleate.networks.gin import PairScores

SMILES = ["C[C@H](N)C(=O)O", "C/C=C/CO", "O", "c1ccncc1"]


def graphs_of(*smiles: str) -> BondGraphs:
    return BondGraphs.from_list([bond_graph(Chem.AddHs(Chem.MolFromSmiles(s))) for s in smiles])


def seen(graphs: BondGraphs, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*graphs.numbers.shape, 3, generator=generator) * 2 * graphs.mask[..., None]
    return x, torch.rand(len(graphs), generator=generator)


@pytest.fixture
def network() -> ConformerNetwork:
    torch.manual_seed(3)
    return ConformerNetwork(32, 2, 16, heads=4, vectors=4, basis=8)


def mirrored(graphs: BondGraphs) -> BondGraphs:
    """The same molecules with every stereocentre of the other hand."""
    return replace(graphs, centres=graphs.centres[..., [0, 2, 1, 3, 4]])


def test_the_published_network_has_its_published_size() -> None:
    assert sum(p.numel() for p in PairScores(256, 4).parameters()) == 808_193


def test_pair_scores_do_not_depend_on_which_end_comes_first() -> None:
    torch.manual_seed(0)
    network, graphs = PairScores(16, 2), graphs_of(*SMILES)
    pairs, numbers = graphs.pairs(3), graphs.numbers[graphs.mask]
    length = torch.rand(len(pairs.i))
    one = network(numbers, pairs.i, pairs.j, pairs.hops, length)
    other = network(numbers, pairs.j, pairs.i, pairs.hops, length)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)
    # another molecule of the batch is not heard
    first = pairs.molecule == 0
    alone = network(
        numbers[: int(graphs.mask[0].sum())],
        *(p[first] for p in (pairs.i, pairs.j, pairs.hops)),
        length[first],
    )
    torch.testing.assert_close(one[first], alone, atol=1e-4, rtol=1e-5)


def test_steps_turn_with_the_molecule(network: ConformerNetwork) -> None:
    graphs = graphs_of(*SMILES)
    x, t = seen(graphs)
    turn = rotation_exp(torch.tensor([0.3, -1.2, 0.8]))
    torch.testing.assert_close(
        network(graphs, x @ turn.mT, t), network(graphs, x, t) @ turn.mT, atol=1e-5, rtol=1e-4
    )
    there = graphs.mask[..., None]
    torch.testing.assert_close(
        network(graphs, (x + 5) * there, t), network(graphs, x, t), atol=1e-4, rtol=1e-3
    )


def test_steps_are_mirrored_with_the_molecule_and_its_centres(network: ConformerNetwork) -> None:
    """And only with its centres: a chiral molecule reflected alone is seen as wrong."""
    graphs = graphs_of(*SMILES)
    x, t = seen(graphs)
    ahead = network(graphs, x, t)
    torch.testing.assert_close(network(mirrored(graphs), -x, t), -ahead, atol=1e-5, rtol=1e-4)
    alone = network(graphs, -x, t) + ahead
    assert alone[0].abs().max() > 1e-3  # alanine
    torch.testing.assert_close(alone[2:], torch.zeros_like(alone[2:]), atol=1e-5, rtol=0)


def test_steps_follow_the_order_of_atoms(network: ConformerNetwork) -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES[0]))
    order = torch.randperm(molecule.GetNumAtoms(), generator=torch.Generator().manual_seed(2))
    graphs = BondGraphs.from_list([bond_graph(molecule)])
    other = BondGraphs.from_list([bond_graph(Chem.RenumberAtoms(molecule, order.tolist()))])
    x, t = seen(graphs)
    torch.testing.assert_close(
        network(other, x[:, order], t), network(graphs, x, t)[:, order], atol=1e-5, rtol=1e-4
    )


def test_padding_and_company_change_nothing(network: ConformerNetwork) -> None:
    together, alone = graphs_of(*SMILES), graphs_of(SMILES[2])
    x, t = seen(together)
    step = network(together, x, t)
    assert not step[~together.mask].any()
    small = int(alone.mask.sum())
    torch.testing.assert_close(
        network(alone, x[2:3, :small], t[2:3]), step[2:3, :small], atol=1e-5, rtol=1e-4
    )


def test_gradients_are_finite_where_atoms_meet(network: ConformerNetwork) -> None:
    graphs = graphs_of("C[C@H](N)C(=O)O", "[He]")
    x = torch.zeros(*graphs.numbers.shape, 3, requires_grad=True)
    network(graphs, x, torch.tensor([0.0, 0.5])).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_kinds_and_faces() -> None:
    graphs = graphs_of("C/C=C/C", "C[C@](F)(Cl)Br")
    kind = kinds(graphs)
    assert int(kind.max()) == KINDS - 1
    assert int(kind.min()) == 0
    assert not kind.diagonal(dim1=1, dim2=2).any()
    x, _ = seen(graphs)
    normal, volume = faces(graphs.centres, x)
    assert not normal[0].any()
    assert not volume[0].any()
    centre, *around = graphs.centres[1, 0].tolist()
    assert volume[1].nonzero().flatten().tolist() == [centre]
    assert normal[1].norm(dim=-1).nonzero().flatten().tolist() == sorted(around)
    # any even order of the four neighbours is the same centre, an odd one the other hand
    even = replace(graphs, centres=graphs.centres[..., [0, 2, 3, 1, 4]])
    torch.testing.assert_close(faces(even.centres, x)[0], normal)
    torch.testing.assert_close(faces(mirrored(graphs).centres, x)[0], -normal)
