"""Baselines of conformers: as many as asked for, chance where chance is said, and the middles of clusters."""

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.metrics.conformer_rmsd import best_rmsds
from nucleate.pipeline.conformer_baselines import (
    BASELINES,
    cluster_medoids,
    etkdg,
    medoids,
    random_torsions,
    rotatable_bonds,
)


def molecule(smiles: str) -> Molecule:
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    return Molecule(graph, torch.zeros(0, graph.GetNumAtoms(), 3))


ALCOHOL = molecule("C[C@H](O)CC/C=C/C")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", BASELINES)
def test_as_many_as_asked_and_the_same_for_the_same_seed(name: str) -> None:
    first, again, other = (BASELINES[name](ALCOHOL, 5, seed) for seed in (1, 1, 2))
    assert first.shape == (5, len(ALCOHOL), 3)
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    if name != "random-atoms":
        assert right_stereo(ALCOHOL.graph, first).all()


@pytest.mark.parametrize("smiles", ["[Cl-]", "[H][H]", "C"])
def test_the_smallest_molecules(smiles: str) -> None:
    for baseline in BASELINES.values():
        assert baseline(molecule(smiles), 3, 0).shape[0] == 3


@pytest.mark.parametrize("name", BASELINES)
def test_what_cannot_be_embedded_gives_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        rdDistGeom, "EmbedMultipleConfs", lambda graph, n, options: asked.append(options.useRandomCoords)
    )
    assert BASELINES[name](ALCOHOL, 2, 0).shape == (0, len(ALCOHOL), 3)
    assert asked == [False, True]


def test_torsions_turn_and_nothing_else() -> None:
    before, after = etkdg(ALCOHOL, 40, 3), random_torsions(ALCOHOL, 40, 3)
    hops = torch.from_numpy(Chem.GetDistanceMatrix(ALCOHOL.graph))
    apart = [torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") for x in (before, after)]
    near = hops <= 2  # bonds and angles
    torch.testing.assert_close(apart[0][:, near], apart[1][:, near], atol=1e-9, rtol=0)
    torch.testing.assert_close(apart[0][:, 4, 7], apart[1][:, 4, 7], atol=1e-9, rtol=0)
    chain = torsion(after, (1, 3, 4, 5))
    assert (chain - torsion(before, (1, 3, 4, 5))).abs().mean() > 0.5
    assert chain.cos().mean().abs() < 0.35  # as often cis as trans; RDKit hardly ever makes cis
    assert torsion(before, (1, 3, 4, 5)).cos().max() < 0.8


def torsion(x: torch.Tensor, atoms: tuple[int, int, int, int]) -> torch.Tensor:
    a, b, c, d = (x[:, i] for i in atoms)
    axis = torch.nn.functional.normalize(c - b, dim=-1)
    one, other = (v - (v * axis).sum(-1, keepdim=True) * axis for v in (a - b, d - c))
    return torch.atan2((torch.linalg.cross(axis, one) * other).sum(-1), (one * other).sum(-1))


def test_rotatable_bonds() -> None:
    assert [pair for pair, _ in rotatable_bonds(ALCOHOL.graph)] == [(1, 3), (3, 4), (4, 5)]
    (_, beyond), *_ = rotatable_bonds(ALCOHOL.graph)
    heavy = [i for i in beyond.nonzero().flatten().tolist() if i < 8]
    assert heavy == [3, 4, 5, 6, 7]
    assert rotatable_bonds(molecule("C1CCCCC1C").graph) == []


def test_medoids_are_the_middles_of_clusters() -> None:
    middle = torch.tensor([-5.0, 0.0, 7.0])
    points = (middle[:, None] + torch.tensor([-0.3, -0.1, 0.0, 0.1, 0.4])).flatten().double()
    chosen = medoids((points[:, None] - points).square(), 3, rng())
    assert points[chosen].tolist() == [-5.0, 0.0, 7.0]
    assert (
        len(set(medoids(torch.zeros(4, 4), 3, rng()).tolist())) == 3
    )  # equal points, and three of them all the same


def test_clusters_cover_better_than_chance() -> None:
    many = etkdg(ALCOHOL, 60, 0)
    chosen = cluster_medoids(ALCOHOL, many, 6, rng())
    assert len(set(chosen.tolist())) == 6
    cost = best_rmsds(ALCOHOL.graph, many, many).square()
    by_chance = [cost[:, torch.randperm(60, generator=rng(k))[:6]].amin(1).mean() for k in range(20)]
    assert cost[:, chosen].amin(1).mean() < 0.8 * sum(by_chance) / 20
    assert cluster_medoids(ALCOHOL, many[:4], 6, rng()).tolist() == [0, 1, 2, 3]
