"""The compiled parts of the packing comparison against their definitions."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from nucleate.geometry.so3 import kabsch, random_rotation
from nucleate.metrics import packing_kernels

SHAPES = {"general": (1.0, 1.0, 1.0), "planar": (1.0, 1.0, 0.0), "nearly linear": (1.0, 0.05, 0.02)}


def atoms(shape, count=7, seed=0):
    x = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return 2 * x * torch.tensor(SHAPES[shape], dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_fits_are_those_of_kabsch(shape):
    """Every fit returned has the least-squares motion, and the best ones come first."""
    generator = torch.Generator().manual_seed(1)
    own = atoms(shape)
    turn = random_rotation(generator=generator)
    places = torch.stack([own @ turn.T + 3.0, -own @ turn.T, atoms(shape, seed=5)])
    places = places + 0.1 * torch.randn(places.shape, generator=generator, dtype=torch.float64)
    maps = torch.stack([torch.arange(7), torch.tensor([1, 0, 2, 3, 4, 5, 6]), torch.arange(7).flip(0)])
    hands = torch.tensor([1.0, -1.0], dtype=torch.float64)
    arrays = (x.contiguous().numpy() for x in (own, places, maps, hands))
    hand, place, rotation, translation = map(torch.from_numpy, packing_kernels.fit_maps(*arrays, 100, 100.0))
    assert len(hand) == 2 * 3 * 3
    expected = {
        (h, p): sorted(float(kabsch(h * own, places[p][m]).rmsd) for m in maps)
        for h in (1.0, -1.0)
        for p in range(3)
    }
    moved = torch.einsum("sij,aj->sai", rotation, own) + translation[:, None]
    found: dict[tuple[float, int], list[float]] = {}
    overall = []
    for s in range(len(hand)):
        residuals = [float((moved[s] - places[place[s]][m]).square().sum(1).mean().sqrt()) for m in maps]
        found.setdefault((float(hand[s]), int(place[s])), []).append(min(residuals))
        overall.append(min(residuals))
        assert torch.linalg.det(rotation[s]) == pytest.approx(float(hand[s]), abs=1e-9)
    best = min(min(e) for e in expected.values())
    assert overall[0] == pytest.approx(best, abs=1e-6)
    for key, values in found.items():
        assert min(values) == pytest.approx(expected[key][0], abs=1e-6)


def test_spare_and_limit_cut_the_worst():
    own = atoms("general")
    places = torch.stack([own, own + 0.3 * atoms("general", seed=2), atoms("general", seed=3)])
    arrays = [own.numpy(), places.numpy(), np.arange(7)[None], np.array([1.0])]
    everything = packing_kernels.fit_maps(*arrays, 100, 100.0)[1]
    assert everything.tolist() == [0, 1, 2]
    assert packing_kernels.fit_maps(*arrays, 2, 100.0)[1].tolist() == [0, 1]
    assert packing_kernels.fit_maps(*arrays, 100, 0.01)[1].tolist() == [0]


@pytest.mark.parametrize("seed", range(5))
def test_atoms_pair_to_the_largest_overlap_of_their_classes(seed):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, 12)
    overlap = rng.normal(size=(12, 12))
    chosen = np.empty(12, np.int64)
    packing_kernels._pair(overlap, classes, 12, chosen)
    assert sorted(chosen.tolist()) == list(range(12))
    assert (classes[chosen] == classes).all()
    cost = np.where(classes[:, None] == classes, -overlap, 1e3)
    rows, columns = linear_sum_assignment(cost)
    assert overlap[np.arange(12), chosen].sum() == pytest.approx(-cost[rows, columns].sum())
