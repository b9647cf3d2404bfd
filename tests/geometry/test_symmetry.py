"""Space groups: group laws for all 230, subgroups, strains and cells that symmetry allows."""

import math

import gemmi
import pytest
import torch

from nucleate.errors import InputError
from nucleate.geometry.lattice import lattice_from_parameters, parameters_from_lattice, strained, volume
from nucleate.geometry.so3 import random_rotation
from nucleate.geometry.symmetry import (
    FAMILIES,
    P1,
    SpaceGroup,
    _keys,
    _multiplication_table,
    allowed_cell,
    obeys,
    strain_basis,
)

MODES = dict(zip(FAMILIES, (6, 4, 3, 2, 2, 2, 1)))
SETTINGS = ["P 1 1 2", "P 21/n", "I 1 2/a 1", "R 3:R", "R -3 c:R", "P 4 3 2", "P b c a", "A b a 2", "C 1"]


def free_cells(n, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    lengths = 4 + 8 * torch.rand(n, 3, dtype=dtype, generator=generator)
    angles = math.pi / 2 + 0.3 * (torch.rand(n, 3, dtype=dtype, generator=generator) - 0.5)
    return lengths, angles


def cell_of(group):
    lengths, angles = free_cells(1)
    return allowed_cell(group, lengths[0], angles[0])


@pytest.mark.parametrize("number", range(1, 231))
def test_operations_form_a_group(number):
    group = SpaceGroup.from_name(number)
    assert group.number == number
    table = _multiplication_table(group)  # KeyError where a product is missing
    order = len(group)
    assert all(sorted(row) == list(range(order)) for row in table)
    assert table[0] == list(range(order))
    assert all(table[a][b] == 0 for a, b in enumerate(group.inverses))
    assert len(set(_keys(group.rotations, group.translations))) == order
    assert ((group.translations >= 0) & (group.translations < 1)).all()


def test_flags_agree_with_the_tables():
    groups = [SpaceGroup.from_name(n) for n in range(1, 231)]
    assert sum(g.is_sohncke for g in groups) == 65
    assert sum(g.is_centrosymmetric for g in groups) == 92
    assert all(g.is_centrosymmetric == gemmi.SpaceGroup(g.number).is_centrosymmetric() for g in groups)
    assert {g.family for g in groups} == set(FAMILIES)


def test_expand_is_the_action_of_the_group():
    """Applying a then b equals applying their product, modulo lattice translations."""
    group = SpaceGroup.from_name("P21/c")
    x = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    images = group.expand(x)
    assert torch.equal(images[0], x)
    table = torch.tensor(_multiplication_table(group))
    twice = group.expand(images)  # [a, b] is a after b
    difference = twice - images[table]
    torch.testing.assert_close(difference, difference.round(), atol=1e-12, rtol=0)


def test_expand_by_hand():
    x = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    images = {tuple(round(v % 1, 6) for v in row) for row in SpaceGroup.from_name("P21/c").expand(x).tolist()}
    assert images == {(0.1, 0.2, 0.3), (0.9, 0.7, 0.2), (0.9, 0.8, 0.7), (0.1, 0.3, 0.8)}


@pytest.mark.parametrize("number", [2, 4, 14, 15, 19, 33, 61, 62, 88, 148, 167, 176, 205, 225])
def test_subgroups_of_index_two_are_closed_halves(number):
    group = SpaceGroup.from_name(number)
    whole = set(_keys(group.rotations, group.translations))
    subgroups = group.subgroups_of_index_two()
    kept = [frozenset(_keys(s.rotations, s.translations)) for s in subgroups]
    assert len(set(kept)) == len(kept)
    for sub, keys in zip(subgroups, kept):
        assert 2 * len(sub) == len(group)
        assert keys < whole
        _multiplication_table(sub)  # closed
        assert 1 <= sub.number < 231


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("P-1", [1]), ("P21/c", [2, 4, 7]), ("P212121", [4, 4, 4]), ("P1", []), ("P63/m", [147, 173, 174])],
)
def test_subgroups_by_hand(name, numbers):
    found = sorted(s.number for s in SpaceGroup.from_name(name).subgroups_of_index_two())
    assert found == sorted(numbers)


@pytest.mark.parametrize("name", [*range(1, 231), *SETTINGS])
def test_allowed_cells_obey_and_strains_keep_them(name):
    group = SpaceGroup.from_name(name)
    cell = cell_of(group)
    assert obeys(group, cell, 1e-12)
    assert volume(cell) > 0
    basis = strain_basis(group, cell)
    assert len(basis) == MODES[group.family]
    flat = basis.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(len(basis), dtype=torch.float64))
    torch.testing.assert_close(basis, basis.mT)
    weights = torch.linspace(-0.1, 0.13, len(basis), dtype=torch.float64)
    after = strained(cell, torch.einsum("m,mij->ij", weights, basis))
    assert obeys(group, after, 1e-10)


def test_a_strain_that_breaks_the_symmetry_is_not_in_the_basis():
    group = SpaceGroup.from_name("P21/c")
    cell = cell_of(group)
    shear = torch.zeros(3, 3, dtype=torch.float64)
    shear[0, 1] = shear[1, 0] = 0.1  # in standard orientation b is along y: this tilts b against a
    assert not obeys(group, strained(cell, shear))
    assert torch.einsum("mij,ij->m", strain_basis(group, cell), shear).abs().max() < 1e-12


def test_strain_basis_refuses_a_foreign_cell():
    with pytest.raises(InputError, match="obeys"):
        strain_basis(SpaceGroup.from_name("P21/c"), cell_of("triclinic"))


def test_strain_basis_turns_with_the_crystal():
    group, turn = SpaceGroup.from_name(14), random_rotation(generator=torch.Generator().manual_seed(2))
    cell = cell_of(group)
    projector = [strain_basis(group, c).flatten(1) for c in (cell, cell @ turn.mT)]
    turned = (turn @ projector[0].unflatten(1, (3, 3)) @ turn.mT).flatten(1)
    torch.testing.assert_close(turned.T @ turned, projector[1].T @ projector[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_free_parameters_pass_through_allowed_cell(dtype):
    lengths, angles = free_cells(20, dtype)
    close = {"atol": 2e3 * torch.finfo(dtype).eps, "rtol": 0}
    got_lengths, got_angles = parameters_from_lattice(allowed_cell(SpaceGroup.from_name(14), lengths, angles))
    torch.testing.assert_close(got_lengths, lengths, **close)
    torch.testing.assert_close(got_angles[:, 1], angles[:, 1], **close)
    torch.testing.assert_close(got_angles[:, [0, 2]], torch.full((20, 2), math.pi / 2, dtype=dtype), **close)
    torch.testing.assert_close(
        allowed_cell(P1, lengths, angles), lattice_from_parameters(lengths, angles), **close
    )


def test_settings_have_their_own_cells():
    lengths, angles = free_cells(20)
    _, unique_c = parameters_from_lattice(allowed_cell(SpaceGroup.from_name("P 1 1 2"), lengths, angles))
    torch.testing.assert_close(unique_c[:, 2], angles[:, 2])
    rhombohedral, equal = parameters_from_lattice(
        allowed_cell(SpaceGroup.from_name("R -3 c:R"), lengths, angles)
    )
    torch.testing.assert_close(rhombohedral, rhombohedral[:, :1].expand(-1, 3))
    torch.testing.assert_close(equal, equal[:, :1].expand(-1, 3))
    hexagonal, gamma = parameters_from_lattice(allowed_cell(SpaceGroup.from_name(148), lengths, angles))
    torch.testing.assert_close(hexagonal[:, 0], hexagonal[:, 1])
    torch.testing.assert_close(gamma[:, 2], torch.full((20,), 2 * math.pi / 3, dtype=torch.float64))


def test_allowed_cell_is_differentiable():
    lengths, angles = free_cells(2)
    group = SpaceGroup.from_name(148)
    assert torch.autograd.gradcheck(
        lambda a, b: allowed_cell(group, a, b), (lengths.requires_grad_(True), angles.requires_grad_(True))
    )


@pytest.mark.parametrize("name", ["P21/q", "231", 0, ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(InputError, match="expected a space"):
        SpaceGroup.from_name(name)


def test_names_in_many_spellings():
    assert {SpaceGroup.from_name(n).number for n in ("P21/c", "P 21/c", "P 1 21/c 1", 14, "14", " 14 ")} == {
        14
    }
    assert SpaceGroup.from_name("P21/n").number == 14
    with pytest.raises(InputError, match="family"):
        allowed_cell("rhombic", *[v[0] for v in free_cells(1)])


def test_from_operations_names_the_type():
    group = SpaceGroup.from_name(19)
    again = SpaceGroup.from_operations(group.rotations, group.translations)
    assert (again.number, again.symbol) == (19, "P212121")
    with pytest.raises(ValueError, match="identity"):
        SpaceGroup(4, "P21", group.rotations[1:2], group.translations[1:2])
