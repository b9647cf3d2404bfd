"""The random control keeps the cell and the molecules, and nothing else."""

import math
from pathlib import Path

import pytest
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.standardise import primitive_niggli
from nucleate.geometry.lattice import parameters_from_lattice
from nucleate.metrics.control import noisy_lattices, random_poses

DATA = Path(__file__).parent / "data"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def reference():
    return read_crystal(DATA / "7121743.cif")


def test_molecules_keep_conformer_and_hand(reference):
    cell, _ = primitive_niggli(reference)
    for control in random_poses(reference, 3, seeded()):
        for m in range(cell.n_molecules):
            own, theirs = (c.positions.double()[c.molecule == m] for c in (cell, control))
            torch.testing.assert_close(torch.cdist(own, own), torch.cdist(theirs, theirs), atol=1e-6, rtol=0)
            a, b = (torch.linalg.det(x[1:4] - x[0]) for x in (own, theirs))
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_noise_has_the_stated_size(reference):
    lengths, angles = parameters_from_lattice(reference.lattice.double())
    found, turned = parameters_from_lattice(noisy_lattices(reference.lattice, 4000, seeded()))
    relative = found / lengths - 1
    assert relative.mean(0).abs().max() < 0.003
    torch.testing.assert_close(
        relative.std(0), torch.full((3,), 0.03, dtype=torch.float64), atol=0.002, rtol=0
    )
    away = (turned - angles).rad2deg()
    assert away.mean(0).abs().max() < 0.15
    torch.testing.assert_close(away.std(0), torch.full((3,), 2.0, dtype=torch.float64), atol=0.12, rtol=0)


def test_poses_are_uniform(reference):
    """Mean centroid 1/2 and variance 1/12 on each axis; a molecular axis points everywhere alike."""
    samples = random_poses(reference, 300, seeded(1))
    centroids = torch.cat([c.centroids.double() for c in samples])
    torch.testing.assert_close(
        centroids.mean(0), torch.full((3,), 0.5, dtype=torch.float64), atol=0.03, rtol=0
    )
    torch.testing.assert_close(
        centroids.var(0), torch.full((3,), 1 / 12, dtype=torch.float64), atol=0.01, rtol=0
    )
    first = samples[0]
    pair = torch.nonzero(first.molecule == 0)[:2, 0]
    axes = torch.stack([(c.positions[pair[1]] - c.positions[pair[0]]).double() for c in samples])
    axes = axes / axes.norm(dim=1, keepdim=True)
    second = axes.T @ axes / len(axes)
    assert axes.mean(0).norm() < 3 * math.sqrt(1 / len(axes))
    assert (second - torch.eye(3) / 3).abs().max() < 0.08


def test_the_seed_decides(reference):
    a, b, c = (random_poses(reference, 2, seeded(s))[1] for s in (0, 0, 1))
    assert torch.equal(a.frac, b.frac)
    assert not torch.equal(a.frac, c.frac)


def test_noise_never_makes_an_impossible_cell():
    """Angles of a flat cell would often break the triangle inequality."""
    flat = torch.tensor([[9.0, 0, 0], [-4.4, 7.7, 0], [-4.4, -7.6, 0.6]], dtype=torch.float64)
    lattices = noisy_lattices(flat, 500, seeded())
    assert (torch.linalg.det(lattices) > 0).all()
