"""Cells: parameters, strain, log coordinates, families, reduction, images."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.geometry.lattice import (
    LOG_FREE,
    PARAMETER_FREE,
    angles_feasible,
    delaunay_reduce,
    family_log,
    family_parameters,
    heights,
    image_shifts,
    lattice_from_log,
    lattice_from_parameters,
    log_coordinates,
    niggli_reduce,
    parameters_from_lattice,
    standard_orientation,
    strained,
    symmetric_log,
    volume,
)
from nucleate.geometry.so3 import random_rotation
from nucleate.geometry.symmetry import FAMILIES, allowed_cell

precision = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cells(n, dtype=torch.float64, seed=0):
    """Right-handed cells of 3 to 15 Å with angles of 60 to 120 degrees, turned at random."""
    lengths = 3 + 12 * torch.rand(n, 3, dtype=dtype, generator=seeded(seed))
    angles = (1 + torch.rand(n, 3, dtype=dtype, generator=seeded(seed + 1))) * math.pi / 3
    angles = torch.where(angles_feasible(angles * 1.01)[:, None], angles, math.pi / 2)
    turn = random_rotation(n, generator=seeded(seed + 2), dtype=dtype)
    return lattice_from_parameters(lengths, angles) @ turn.mT


@precision
def test_parameters_round_trip_and_ignore_orientation(dtype):
    lattice = cells(200, dtype)
    lengths, angles = parameters_from_lattice(lattice)
    standard = lattice_from_parameters(lengths, angles)
    close = {"rtol": 0, "atol": 2000 * torch.finfo(dtype).eps}
    for again, before in zip(parameters_from_lattice(standard), (lengths, angles)):
        torch.testing.assert_close(again, before, **close)
    torch.testing.assert_close(standard, standard_orientation(lattice), **close)
    torch.testing.assert_close(volume(standard), volume(lattice), rtol=1e3 * torch.finfo(dtype).eps, atol=0)
    assert (volume(lattice) > 0).all()
    assert (standard.triu(1) == 0).all()


def test_a_hand_worked_cell():
    monoclinic = lattice_from_parameters(
        torch.tensor([3.0, 4.0, 5.0]), torch.tensor([90.0, 120.0, 90.0]).deg2rad()
    )
    assert volume(monoclinic).item() == pytest.approx(60 * math.sin(math.radians(120)), rel=1e-6)
    torch.testing.assert_close(monoclinic[2], torch.tensor([-2.5, 0, 5 * math.sin(2 * math.pi / 3)]))


@pytest.mark.parametrize(
    "angles", [(60, 60, 130), (120, 120, 121), (0, 90, 90), (-90, 90, 90), (90, 90, 180)]
)
def test_angles_that_close_to_no_cell_are_refused(angles):
    rad = torch.tensor(angles, dtype=torch.float64).deg2rad()
    assert not angles_feasible(rad)
    with pytest.raises(InputError, match="expected cell angles in radians"):
        lattice_from_parameters(torch.ones(3, dtype=torch.float64), rad)


def test_feasible_angles_are_those_of_a_positive_metric():
    angles = torch.rand(2000, 3, dtype=torch.float64, generator=seeded()) * math.pi
    cos = angles.cos()
    determinant = 1 - cos.square().sum(-1) + 2 * cos.prod(-1)
    assert torch.equal(angles_feasible(angles), determinant > 0)


def test_lengths_must_be_positive():
    with pytest.raises(InputError, match="positive cell lengths"):
        lattice_from_parameters(torch.tensor([1.0, -1.0, 1.0]), torch.full((3,), math.pi / 2))


def test_heights_are_volume_over_face():
    lattice = cells(50)
    faces = torch.linalg.cross(lattice.roll(-1, -2), lattice.roll(-2, -2)).norm(dim=-1)
    torch.testing.assert_close(heights(lattice), volume(lattice)[:, None] / faces)


@precision
def test_log_coordinates_round_trip_without_orientation(dtype):
    lattice = cells(200, dtype)
    k = log_coordinates(lattice)
    close = {"rtol": 0, "atol": 200 * torch.finfo(dtype).eps}
    torch.testing.assert_close(log_coordinates(lattice_from_log(k)), k, **close)
    metric = lattice_from_log(k) @ lattice_from_log(k).mT
    torch.testing.assert_close(metric, lattice @ lattice.mT, rtol=0, atol=2e4 * torch.finfo(dtype).eps)
    torch.testing.assert_close(k[:, 5] * 3**0.5, volume(lattice).log(), **close)


def test_strain_multiplies_the_volume_by_its_trace():
    lattice = cells(20)
    e = torch.randn(20, 3, 3, dtype=torch.float64, generator=seeded(9)) * 0.1
    e = e + e.mT
    after = strained(lattice, e)
    trace = e.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(volume(after), volume(lattice) * trace.exp())
    torch.testing.assert_close(strained(after, -e), lattice)


@pytest.mark.parametrize("values", [(2.0, 2.0, 2.0), (2.0, 2.0, 5.0), (1.0, 2.0, 3.0), (1.0, 1 + 1e-9, 3.0)])
def test_symmetric_log_has_finite_gradients_where_eigenvalues_meet(values):
    turn = random_rotation(generator=seeded(3))
    matrix = (turn * torch.tensor(values, dtype=torch.float64)) @ turn.mT
    matrix = ((matrix + matrix.mT) / 2).requires_grad_(True)
    torch.testing.assert_close(torch.linalg.matrix_exp(symmetric_log(matrix)), matrix)
    symmetrise = lambda m: symmetric_log((m + m.mT) / 2)  # noqa: E731
    assert torch.autograd.gradcheck(symmetrise, matrix)


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_describe_the_cells_of_the_family(family):
    """Cells that obey the family are fixed points of both projections, and the free coordinates do vary."""
    lengths, angles = parameters_from_lattice(cells(60))
    cell = allowed_cell(family, lengths, angles)
    k = log_coordinates(cell)
    torch.testing.assert_close(family_log(k, family), k, atol=1e-12, rtol=0)
    spread = k.std(0) > 1e-9
    assert spread.tolist() == list(LOG_FREE[family])
    obeying = family_parameters(*parameters_from_lattice(cell), family)
    for now, before in zip(obeying, parameters_from_lattice(cell)):
        torch.testing.assert_close(now, before, atol=1e-9, rtol=0)
    assert sum(PARAMETER_FREE[family]) == sum(LOG_FREE[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_family_projections_give_cells_of_the_family(family):
    lengths, angles = parameters_from_lattice(cells(60, seed=5))
    by_log = lattice_from_log(family_log(log_coordinates(cells(60, seed=5)), family))
    by_parameters = lattice_from_parameters(*family_parameters(lengths, angles, family))
    for cell in (by_log, by_parameters):
        again = allowed_cell(family, *parameters_from_lattice(cell))
        torch.testing.assert_close(again @ again.mT, cell @ cell.mT, atol=1e-9, rtol=0)


def test_unknown_family_is_refused():
    with pytest.raises(InputError, match="got 'rhombic'"):
        family_log(torch.zeros(6), "rhombic")


@precision
@pytest.mark.parametrize("reduce", [niggli_reduce, delaunay_reduce])
def test_reduction_finds_the_same_cell_from_any_setting(reduce, dtype):
    lattice = cells(1, dtype, seed=11)[0]
    skew = torch.tensor([[1, 3, 0], [0, 1, -2], [1, 3, 1]], dtype=dtype)
    assert torch.linalg.det(skew).item() == pytest.approx(1)
    reduced, change = reduce(skew @ lattice)
    torch.testing.assert_close(change.to(dtype) @ (skew @ lattice), reduced)
    assert torch.linalg.det(change.double()).round() == 1
    assert volume(reduced) > 0
    first, _ = reduce(lattice)
    lengths = [parameters_from_lattice(cell)[0].sort().values for cell in (first, reduced)]
    torch.testing.assert_close(*lengths, atol=1e-3, rtol=0)


def test_a_flat_cell_cannot_be_reduced():
    with pytest.raises(InputError, match="flat or not finite"):
        niggli_reduce(torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0]]))


def test_image_shifts_miss_no_pair():
    """Against a far larger box: every pair of wrapped points within the cutoff is covered."""
    lattice, cutoff = cells(4, seed=20), 6.0
    shifts, cell = image_shifts(lattice, cutoff)
    box = torch.cartesian_prod(*[torch.arange(-6, 7)] * 3)
    corners = torch.rand(60, 3, dtype=torch.float64, generator=seeded(21))
    between = (corners[:, None] - corners).flatten(0, 1)
    for index in range(4):
        distance = ((between[:, None] + box) @ lattice[index]).norm(dim=-1).amin(0)
        needed = {tuple(n) for n in box[distance <= cutoff].tolist()}
        assert needed <= {tuple(n) for n in shifts[cell == index].tolist()}
    alone, _ = image_shifts(lattice[2:3], cutoff)
    assert torch.equal(alone, shifts[cell == 2])


def test_image_shifts_of_a_cube_by_hand():
    shifts, _ = image_shifts(4 * torch.eye(3)[None], cutoff=5.0, spread=0.0)
    assert len(shifts) == 27
    assert [0, 0, 0] in shifts.tolist()
