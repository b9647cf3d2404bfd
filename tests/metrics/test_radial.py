"""Radial distributions: shells of a lattice, a gas, weights."""

import math

import pytest
import torch

from nucleate.metrics.radial import radial_distribution


def test_shells_of_a_cubic_lattice_have_their_numbers_of_neighbours() -> None:
    """6 at a, 12 at sqrt 2 a; g integrates to them whatever the cell is repeated to."""
    edge = 3.1
    cell = 2 * edge * torch.eye(3, dtype=torch.float64)
    steps = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3) * edge
    found = radial_distribution(steps[None], cell)
    width = float(found.r[1] - found.r[0])
    pairs = found.g * 4 * math.pi * found.r.square() * width / edge**3
    assert float(pairs[(found.r > 3.0) & (found.r < 3.2)].sum()) == pytest.approx(6, rel=1e-3)
    assert float(pairs[(found.r > 4.3) & (found.r < 4.5)].sum()) == pytest.approx(12, rel=1e-3)
    assert float(pairs[(found.r > 3.3) & (found.r < 4.2)].sum()) == 0


def test_a_gas_has_one_everywhere() -> None:
    generator = torch.Generator().manual_seed(0)
    cell = torch.tensor([[9.0, 0, 0], [2, 8, 0], [0, 1, 10]], dtype=torch.float64)
    places = torch.rand(300, 20, 3, generator=generator, dtype=torch.float64) @ cell
    found = radial_distribution(places, cell, shells=10)
    torch.testing.assert_close(found.g, torch.full((10,), 0.95, dtype=torch.float64), atol=0.05, rtol=0)


def test_weights_choose_frames_and_places_outside_the_cell_count_as_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    cell = 8 * torch.eye(3, dtype=torch.float64)
    places = torch.rand(4, 6, 3, generator=generator, dtype=torch.float64) @ cell
    only = radial_distribution(places[2:3], cell)
    chosen = radial_distribution(places, cell, torch.tensor([0.0, 0, 5, 0]))
    torch.testing.assert_close(chosen.g, only.g)
    hop = torch.tensor([8.0, -16, 0], dtype=torch.float64)
    moved = radial_distribution(places[2:3] + hop, cell)
    torch.testing.assert_close(moved.g, only.g)
