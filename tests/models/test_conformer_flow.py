"""The flow of positions: its noise, its loss, its samples, and that it tells hands."""

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from nucleate.crystal.bond_graph import BondGraphs, bond_graph, signed_volumes
from nucleate.geometry.so3 import rotation_exp
from nucleate.models.conformer_flow import BOND, ConformerFlow, laid_on, springs
from nucleate.models.conformers import ConformerPairs


def graphs_of(*smiles: str) -> BondGraphs:
    return BondGraphs.from_list([bond_graph(Chem.AddHs(Chem.MolFromSmiles(s))) for s in smiles])


def test_springs_have_the_covariance_of_their_bonds() -> None:
    """Ethanol is a tree: each bond has the mean square BOND^2, and k bonds in a row k times that."""
    graphs = graphs_of("CCO").repeated(4000)
    x = springs(graphs, torch.Generator().manual_seed(0))
    squared = (x[:, :, None] - x[:, None]).square().sum(-1).mean(0)
    expected = BOND**2 * graphs.hops[0].double()
    torch.testing.assert_close(squared.double(), expected, atol=0.35, rtol=0.06)
    torch.testing.assert_close(x.mean(1), torch.zeros(len(x), 3), atol=1e-5, rtol=0)


def test_springs_know_rings_parts_and_padding() -> None:
    graphs = graphs_of("C1CC1", "[Na+].[Cl-]", "O")
    x = springs(graphs.repeated(3000), torch.Generator().manual_seed(1))
    ring = (x[:3000, 0] - x[:3000, 1]).square().sum(-1).mean()
    assert float(ring) == pytest.approx(
        BOND**2 * 2 / 3, rel=0.06
    )  # two ways round: 1 and 2 bonds side by side
    assert not x[3000:6000].any()  # nothing holds the ions apart
    assert not x[6000:, 3:].any()


def test_the_goal_is_laid_on_the_start() -> None:
    """By a rotation that no other is better than, whatever way the goal lay before."""
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(5, 7, 3, generator=generator) for _ in range(2))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    laid = laid_on(x, y)
    turned = laid_on(x @ rotation_exp(torch.randn(5, 3, generator=generator)).mT, y)
    torch.testing.assert_close(laid, turned, atol=1e-5, rtol=1e-5)
    nearest = (laid - y).square().sum((1, 2))
    for _ in range(20):
        step = rotation_exp(0.1 * torch.randn(5, 3, generator=generator))
        assert ((laid @ step.mT - y).square().sum((1, 2)) >= nearest - 1e-4).all()


def test_samples_repeat_and_do_not_depend_on_padding() -> None:
    torch.manual_seed(0)
    model = ConformerFlow(16, 1, 16, steps=3)
    graphs = graphs_of("C[C@H](N)C(=O)O", "O")
    told: list[float] = []
    one, two = (model.sample(graphs, torch.Generator().manual_seed(3), told.append) for _ in range(2))
    assert one.equal(two)
    assert one.isfinite().all()
    assert told[-1] == 1.0
    assert not one[~graphs.mask].any()
    torch.testing.assert_close(one.sum(1), torch.zeros(2, 3), atol=1e-4, rtol=0)


def test_it_learns_one_molecule_by_heart_and_its_hand() -> None:
    """Bromochlorofluoromethane: the right shape, and the hand that the graph asks for, out of one hand's data."""
    molecules = {}
    for smiles in ("F[C@H](Cl)Br", "F[C@@H](Cl)Br"):
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        rdDistGeom.EmbedMolecule(molecule, randomSeed=1)
        molecules[smiles] = molecule
    shapes = {s: torch.from_numpy(m.GetConformer().GetPositions()).float() for s, m in molecules.items()}
    graphs = {s: bond_graph(m) for s, m in molecules.items()}
    torch.manual_seed(0)
    model = ConformerFlow(32, 1, 16, steps=10)
    one, other = molecules
    batch = ConformerPairs.from_list([graphs[one]] * 24, [shapes[one]] * 24)
    adam = torch.optim.Adam(model.parameters(), lr=8e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(160):
        loss, _ = model(batch, generator)
        adam.zero_grad()
        loss.backward()
        adam.step()
    for smiles in (one, other):  # the other hand was never shown: the law of mirrors brings it
        some = BondGraphs.from_list([graphs[smiles]] * 20)
        x = model.sample(some, generator)
        right = signed_volumes(some.centres, x)[:, 0] > 0
        assert right.float().mean() > 0.85
        apart = torch.cdist(x, x)[right]
        wanted = torch.cdist(shapes[smiles], shapes[smiles])
        assert (apart - wanted).abs().mean() < 0.15
