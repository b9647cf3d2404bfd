"""MMD of distances: as the double loop finds it, 0 for equal samples, larger for a shift."""

import math

import pytest
import torch
from jaxtyping import Float
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.metrics import distance_mmd as module
from nucleate.metrics.distance_mmd import distance_mmd, heavy_pairs, mmd_squared


def normal(*shape: int, seed: int = 0) -> Float[Tensor, "..."]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(x: list[list[float]], y: list[list[float]]) -> float:
    """By the definition, pair after pair."""
    pooled = x + y
    n = len(pooled)
    b = sum(math.dist(p, q) ** 2 for p in pooled for q in pooled) / (n * n - n)

    def k(p: list[float], q: list[float]) -> float:
        return sum(math.exp(-(math.dist(p, q) ** 2) / (b * 2 ** (i - 2))) for i in range(5))

    def mean(one: list[list[float]], other: list[list[float]]) -> float:
        return sum(k(p, q) for p in one for q in other) / (len(one) * len(other))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@pytest.mark.parametrize("at_once", [4_000_000, 100])
def test_it_is_the_double_loop(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    x, y = normal(4, 9, 3), 0.5 + 1.5 * normal(4, 7, 3, seed=1)
    expected = torch.tensor([naive(a.tolist(), b.tolist()) for a, b in zip(x, y)], dtype=torch.float64)
    assert expected.min() > 0.1
    torch.testing.assert_close(mmd_squared(x, y), expected)


def test_laws() -> None:
    x, y = normal(3, 20, 2), normal(3, 30, 2, seed=1)
    torch.testing.assert_close(mmd_squared(x, x), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(mmd_squared(x, x.flip(1)), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(mmd_squared(x, y), mmd_squared(y, x))
    torch.testing.assert_close(mmd_squared(3 * x, 3 * y), mmd_squared(x, y))  # the bandwidth goes along
    shifted = torch.stack([mmd_squared(x, x + s) for s in (0.0, 0.5, 1.0, 2.0, 4.0)])
    assert (shifted.diff(dim=0) > 0).all()
    assert shifted.max() < 10


def test_samples_that_never_vary_have_none() -> None:
    same = torch.ones(2, 5, 1, dtype=torch.float64)
    torch.testing.assert_close(mmd_squared(same, same), torch.zeros(2).double(), atol=1e-12, rtol=0)
    apart = mmd_squared(same, same + 1)
    assert (apart > 1).all()


def test_distances_within_a_molecule() -> None:
    graph = Chem.AddHs(Chem.MolFromSmiles("CCCCO"))
    molecule = Molecule(graph, normal(1, graph.GetNumAtoms(), 3))
    pairs = heavy_pairs(molecule)
    assert pairs.tolist() == [
        [0, 1],
        [0, 2],
        [0, 3],
        [1, 2],
        [1, 3],
        [1, 4],
        [2, 3],
        [2, 4],
        [3, 4],
    ]  # not [0, 4]
    x, y = 2 * normal(6, graph.GetNumAtoms(), 3), 2 * normal(8, graph.GetNumAtoms(), 3, seed=1)
    found = distance_mmd(x, y, pairs)
    assert (len(found.single), len(found.pair)) == (9, 36)
    lengths = [[[math.dist(c[i], c[j]) for i, j in pairs.tolist()] for c in z.tolist()] for z in (x, y)]
    assert float(found.single[4]) == pytest.approx(naive(*([[c[4]] for c in z] for z in lengths)))
    assert float(found.pair[9]) == pytest.approx(naive(*([[c[1], c[3]] for c in z] for z in lengths)))
    assert found.joint == pytest.approx(naive(*lengths))
    moved = distance_mmd(x, x.flip(0) @ torch.diag(torch.tensor([1.0, 1.0, -1.0])).double() + 3.0, pairs)
    assert max(moved.joint, float(moved.pair.max())) < 1e-12


def test_a_molecule_of_one_heavy_atom_has_no_distances() -> None:
    molecule = Molecule(Chem.AddHs(Chem.MolFromSmiles("C")), normal(2, 5, 3))
    found = distance_mmd(molecule.conformers, molecule.conformers, heavy_pairs(molecule))
    assert (len(found.single), len(found.pair), found.joint) == (0, 0, 0.0)
