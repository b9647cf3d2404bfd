"""ConfGF: scores of lengths as scores of positions, its loss, and both of its samplers."""

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from nucleate.crystal.bond_graph import BondGraphs, Pairs, bond_graph
from nucleate.generative.score_matching import AnnealedLangevin, NoiseLevels
from nucleate.geometry.so3 import rotation_exp
from nucleate.models import confgf
from nucleate.models.confgf import ConfGF, ConfGFDist, by_chain_rule, lengths, with_lengths
from nucleate.models.conformers import ConformerPairs, centred

QUICK = AnnealedLangevin(NoiseLevels(1.0, 0.1, 3), step=1e-4, steps=3)


def embedded(*smiles: str) -> tuple[BondGraphs, ConformerPairs]:
    molecules = [Chem.AddHs(Chem.MolFromSmiles(s)) for s in smiles]
    for molecule in molecules:
        rdDistGeom.EmbedMolecule(molecule, randomSeed=3)
    graphs = [bond_graph(m) for m in molecules]
    x = [torch.from_numpy(m.GetConformer().GetPositions()).float() for m in molecules]
    pairs = ConformerPairs.from_list(graphs, x)
    return pairs.graphs, pairs


def test_the_chain_rule_is_the_gradient() -> None:
    """d/dr sum_ij f_ij(|r_i - r_j|) for scores f', by autograd."""
    graphs, batch = embedded("CCO", "C=O")
    pairs = graphs.pairs(3)
    x = batch.positions[graphs.mask].double().requires_grad_()
    torch.sin(3 * lengths(x, pairs)).sum().backward()
    score = 3 * torch.cos(3 * lengths(x.detach(), pairs))
    assert x.grad is not None
    torch.testing.assert_close(by_chain_rule(x.detach(), pairs, score), x.grad)


def test_scores_of_positions_turn_with_the_molecule() -> None:
    """Proposition 1 of the paper; places and mirror images do not count."""
    torch.manual_seed(0)
    model = ConfGF(16, 2)
    graphs, batch = embedded("C[C@H](N)C(=O)O", "CCO")
    pairs, numbers = graphs.pairs(3), graphs.numbers[graphs.mask]

    def score(x: torch.Tensor) -> torch.Tensor:
        return by_chain_rule(x, pairs, model.scores(numbers, pairs, lengths(x, pairs)))

    x = batch.positions[graphs.mask]
    turn = rotation_exp(torch.tensor([0.4, 1.0, -2.0]))
    here = score(x).detach()
    scale = float(here.detach().abs().max())
    for moved, expected in ((x @ turn.mT, here @ turn.mT), (x + 3.0, here), (-x, -here)):
        torch.testing.assert_close(score(moved).detach() / scale, expected / scale, atol=1e-5, rtol=0)


def test_the_loss_is_that_of_the_paper() -> None:
    """Pair by pair, in both directions, with the same noise from either end."""
    torch.manual_seed(0)
    model = ConfGF(8, 1, QUICK)
    graphs, batch = embedded("CO", "N")
    loss, _ = model(batch, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    level = QUICK.levels.draw(2, generator)
    pairs = graphs.pairs(3)
    noise = torch.randn(len(pairs.i), generator=generator)
    numbers, x = graphs.numbers[graphs.mask], batch.positions[graphs.mask]
    total = torch.zeros(())
    away = level[pairs.molecule] * noise
    out = model.scores(numbers, pairs, lengths(x, pairs) + away)
    for k in range(len(pairs.i)):
        sigma = level[pairs.molecule[k]]
        total = total + 2 * 0.5 * sigma**2 * (out[k] / sigma + away[k] / sigma**2) ** 2
    torch.testing.assert_close(loss, total / 2)


def test_positions_are_found_for_lengths() -> None:
    """Water; what is larger may end beside the way, with hydrogens exchanged."""
    graphs, batch = embedded("O")
    pairs, x = graphs.pairs(3), batch.positions[graphs.mask]
    torch.manual_seed(1)
    found = with_lengths(torch.randn_like(x), pairs, lengths(x, pairs))
    assert (lengths(found, pairs) - lengths(x, pairs)).abs().max() < 0.05


@pytest.mark.parametrize("kind", [ConfGF, ConfGFDist])
def test_samples_repeat_and_are_centred(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confgf, "EMBED_STEPS", 20)
    torch.manual_seed(0)
    scores = ConfGF(8, 1, QUICK)
    model = scores if kind is ConfGF else ConfGFDist(scores)
    graphs, _ = embedded("CCO", "O")
    told: list[float] = []
    one, two = (model.sample(graphs, torch.Generator().manual_seed(2), told.append) for _ in range(2))
    assert one.equal(two)
    assert one.isfinite().all()
    assert told == pytest.approx([1 / 3, 2 / 3, 1] * 2)
    assert not one[~graphs.mask].any()
    torch.testing.assert_close(one.sum(1), torch.zeros(2, 3), atol=1e-4, rtol=0)


def test_a_learned_bond_is_sampled() -> None:
    """H2 at 0.74 Å, learnt and sampled: the whole way from data to positions."""
    torch.manual_seed(0)
    walk = AnnealedLangevin(NoiseLevels(2.0, 0.05, 8), step=6e-4, steps=20)
    model = ConfGF(32, 1, walk)
    graph = bond_graph(Chem.AddHs(Chem.MolFromSmiles("[H][H]")))
    x = torch.tensor([[0.0, 0.0, 0.0], [0.74, 0.0, 0.0]])
    batch = ConformerPairs.from_list([graph] * 32, [x] * 32)
    adam = torch.optim.Adam(model.parameters(), lr=8e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(160):
        loss, _ = model(batch, generator)
        adam.zero_grad()
        loss.backward()
        adam.step()
    graphs = BondGraphs.from_list([graph] * 60)
    found = model.sample(graphs, generator)
    r = (found[:, 1] - found[:, 0]).norm(dim=-1)
    assert float(r.mean()) == pytest.approx(0.74, abs=0.1)
    assert float(r.std()) < 0.2


def test_centring_leaves_padding_alone() -> None:
    graphs, _ = embedded("CCO", "O")
    x = centred(torch.ones(int(graphs.mask.sum()), 3), graphs)
    assert not x.any()
    assert isinstance(graphs.pairs(1), Pairs)
