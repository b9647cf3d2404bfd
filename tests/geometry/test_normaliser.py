"""A normaliser lists other descriptions of one crystal: all of them right, and as many as the tables say."""

import pytest
import torch

from nucleate.geometry.normaliser import normaliser, short_cells, shortest_cell
from nucleate.geometry.symmetry import SpaceGroup

# International Tables A, section 3.5: translations of the Euclidean normaliser per lattice point, and its free axes
TABULATED = {
    "P1": (1, "xyz"), "P-1": (8, ""), "P21/c": (8, ""), "P212121": (8, ""), "Pbca": (8, ""), "C2/c": (4, ""),
    "Pna21": (4, "z"), "Pca21": (4, "z"), "P21": (4, "y"), "P31": (3, "z"), "R-3": (2, ""), "Fdd2": (2, "z"),
}  # fmt: skip
every_group = pytest.mark.parametrize("name", [*TABULATED, "Cc", "C2", "I41/a", "P-421m"])


def operations(group):
    """A group as a set of operations modulo lattice translations."""
    return {
        (tuple(W.flatten().tolist()), tuple(((w % 1.0) * 24).round().long().remainder(24).tolist()))
        for W, w in zip(group.rotations, group.translations.double())
    }


def written_otherwise(group, P, p):
    """The operations in the axes P and with the origin moved by p, in the new axes."""
    P = P.double()
    inverse = torch.linalg.inv(P)
    W = inverse.T @ group.rotations.double() @ P.T
    w = group.translations.double() @ inverse + (torch.eye(3, dtype=torch.float64) - W) @ p
    return SpaceGroup(group.number, group.symbol, W.round().long(), w)


@every_group
def test_shifts_of_the_origin_leave_the_group(name):
    group = SpaceGroup.from_name(name)
    for shift in normaliser(group).shifts:
        assert operations(written_otherwise(group, torch.eye(3), shift)) == operations(group)


@every_group
def test_free_axes_leave_the_group_at_any_length(name):
    group = SpaceGroup.from_name(name)
    along = normaliser(group).free * torch.tensor([1 / 8, 5 / 24, 7 / 24], dtype=torch.float64)
    assert operations(written_otherwise(group, torch.eye(3), along)) == operations(group)


@every_group
def test_other_axes_leave_the_group(name):
    found = normaliser(group := SpaceGroup.from_name(name))
    assert torch.equal(found.bases[0], torch.eye(3, dtype=torch.long))
    for i in range(0, len(found.bases), max(1, len(found.bases) // 40)):
        assert round(float(torch.linalg.det(found.bases[i].double()))) == 1
        assert operations(written_otherwise(group, found.bases[i], found.origins[i])) == operations(group)


@pytest.mark.parametrize("name", TABULATED)
def test_there_are_as_many_as_the_tables_say(name):
    found = normaliser(SpaceGroup.from_name(name))
    count, axes = TABULATED[name]
    assert len(found.shifts) == count
    assert "".join(axis for axis, free in zip("xyz", found.free.tolist()) if free) == axes


@pytest.mark.parametrize("name", ["P-1", "P21/c", "C2/c", "P212121"])
def test_the_shortest_cell_does_not_depend_on_the_first_one(name):
    """Any other basis of the setting comes back to a cell of the same lengths."""
    group = SpaceGroup.from_name(name)
    lattice = torch.diag(torch.tensor([5.1, 6.3, 8.2], dtype=torch.float64))
    if name != "P212121":
        lattice[2, 0] = -1.9
    if name == "P-1":
        lattice[1, 0], lattice[2, 1] = 1.1, 0.7
    basis, origin = shortest_cell(lattice, group)
    short = (basis.double() @ lattice).norm(dim=1).sort().values
    found = normaliser(group)
    for i in range(0, len(found.bases), max(1, len(found.bases) // 15)):
        other = found.bases[i].double() @ lattice
        again, origin = shortest_cell(other, group)
        torch.testing.assert_close((again.double() @ other).norm(dim=1).sort().values, short)
        assert operations(written_otherwise(group, again, origin)) == operations(group)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("P21/c", 2),
        ("P212121", 6),
        ("Pbca", 3),
        ("P-1", 24),
        ("Pna21", 2),
        ("Pca21", 2),
        ("Pc", 4),
        ("P21", 4),
    ],
)
def test_equally_short_cells_are_all_listed(name, cells):
    """Acute and obtuse angles, exchanged axes, polar axes up and down; each leaves the group."""
    group = SpaceGroup.from_name(name)
    lattice = torch.diag(torch.tensor([5.1, 6.3, 8.2], dtype=torch.float64))
    if group.family != "orthorhombic":
        lattice[2, 0] = -1.1
    if name == "P-1":
        lattice[1, 0], lattice[2, 1] = 0.8, 0.5
    bases, origins = short_cells(lattice, group)
    assert len(bases) == cells
    for P, p in zip(bases, origins):
        assert operations(written_otherwise(group, P, p)) == operations(group)
