"""Primitive Niggli cell and symmetry: invariances under any description of the same crystal."""

import logging

import pytest
import torch

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.perceive import find_neighbours
from nucleate.crystal.standardise import (
    _LikeAtoms,
    find_symmetry,
    formula_units,
    primitive_niggli,
    select_molecules,
    to_symmetric,
)
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.pipeline.generate import Arm, Composition, random_packings
from tests.crystal.conftest import EXPECTED, distances, farthest
from tests.physics.conftest import embedded


def sheared(crystal: Crystal) -> Crystal:
    """The same crystal in another cell of the same volume."""
    change = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, -1, 1]], dtype=torch.float64)
    return crystal.replace(lattice=change @ crystal.lattice, frac=crystal.frac @ torch.linalg.inv(change))


def stacked(crystal: Crystal, rows: list[list[float]], copies: int) -> Crystal:
    """The supercell `rows @ lattice`, filled by shifts along b (or a, where b is left as it is)."""
    change = torch.tensor(rows, dtype=torch.float64)
    step = torch.tensor([0.0, 1.0, 0.0] if rows[1][1] > 1 else [1.0, 0.0, 0.0], dtype=torch.float64)
    inverse = torch.linalg.inv(change)
    whole = torch.arange(copies).repeat_interleave(len(crystal))
    return crystal.replace(
        lattice=change @ crystal.lattice,
        frac=(crystal.frac.repeat(copies, 1) + whole[:, None] * step) @ inverse,
        numbers=crystal.numbers.repeat(copies),
        molecule=crystal.molecule.repeat(copies) + whole * crystal.n_molecules,
        bonds=torch.cat([crystal.bonds + k * len(crystal) for k in range(copies)]),
        bond_types=crystal.bond_types * copies,
        charges=None if crystal.charges is None else crystal.charges.repeat(copies),
    )


def doubled(crystal: Crystal) -> Crystal:
    """A supercell of two cells along a."""
    return stacked(crystal, [[2, 0, 0], [0, 1, 0], [0, 0, 1]], 2)


def skew_supercell(crystal: Crystal) -> Crystal:
    """Three cells in one that a twofold axis or mirror of the crystal does not map onto itself."""
    return stacked(crystal, [[1, 1, 0], [0, 3, 0], [0, 0, 1]], 3)


@pytest.mark.parametrize("name", EXPECTED)
def test_niggli_cell_is_the_same_for_every_description(name: str, crystals: dict[str, Crystal]) -> None:
    crystal = crystals[name]
    reduced, transform = primitive_niggli(crystal)
    torch.testing.assert_close(reduced.lattice, transform @ crystal.lattice)
    assert torch.linalg.det(reduced.lattice) > 0
    assert reduced.density == pytest.approx(crystal.density)
    lengths = reduced.lattice.norm(dim=1)
    assert (lengths.diff() > -1e-6).all()
    for other in (sheared(crystal), doubled(crystal)):
        again, _ = primitive_niggli(other)
        assert len(again) == len(reduced)
        metric, theirs = (c.lattice @ c.lattice.T for c in (reduced, again))
        torch.testing.assert_close(theirs.abs(), metric.abs(), atol=1e-5, rtol=1e-6)
        torch.testing.assert_close(distances(again), distances(reduced), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", EXPECTED)
def test_symmetry_does_not_depend_on_the_cell(name: str, crystals: dict[str, Crystal]) -> None:
    number, z, z_prime, *_ = EXPECTED[name]
    for crystal in (sheared(crystals[name]), doubled(crystals[name]), primitive_niggli(crystals[name])[0]):
        found = find_symmetry(crystal)
        assert (found.number, found.z) == (number, z)
        assert found.z_prime == pytest.approx(z_prime)


@pytest.mark.parametrize("name", EXPECTED)
def test_asymmetric_unit_of_a_skew_supercell(
    name: str,
    crystals: dict[str, Crystal],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a program that has set up no logging
    crystal, supercell = crystals[name], skew_supercell(crystals[name])
    unit, same = to_symmetric(crystal), to_symmetric(supercell)
    assert (same.group.number, same.z, same.z_prime) == (unit.group.number, unit.z, unit.z_prime)
    assert len(same.atoms) == len(unit.atoms)
    torch.testing.assert_close(torch.linalg.det(same.lattice), torch.linalg.det(unit.lattice))
    written, original = supercell.numbers[same.atoms], crystal.numbers[unit.atoms]
    assert torch.equal(written.sort().values, original.sort().values)
    assert capsys.readouterr().err == ""  # moyo's warnings are not the user's


@pytest.mark.parametrize(
    "number", [1, 5, 9, 15, 43, 68, 88, 110, 122, 148, 155, 161, 167, 180, 205, 214, 220]
)
def test_a_general_position_is_found_in_any_setting(number: int) -> None:
    """Centred, rhombohedral and cubic groups, two origins, enantiomorphs: one molecule, Z = order of the group."""
    molecule = embedded("NC(=O)F")
    composition = Composition((molecule,), (1,), (torch.zeros(1),), False)
    group = SpaceGroup.from_name(number)
    crystal = random_packings(composition, Arm("any", group, 1), 0, 1, 3).crystal(0)
    unit = to_symmetric(crystal)
    assert (unit.group.number, unit.z, unit.z_prime) == (number, len(group), 1.0)
    assert len(unit.atoms) == len(molecule)
    assert unit.whole
    assert unit.shift < 1e-6


def test_operations_hold_in_the_given_cell(crystals: dict[str, Crystal]) -> None:
    for crystal in crystals.values():
        group = find_symmetry(crystal).group
        for image in group.expand(crystal.frac):
            assert farthest(crystal.replace(frac=image), crystal) < 1e-3


def test_formula_units_of_a_salt_count_pairs(crystals: dict[str, Crystal]) -> None:
    assert formula_units(crystals["2003526"]) == 4


def test_selected_molecules_keep_their_bonds(crystals: dict[str, Crystal]) -> None:
    crystal = crystals["1100994"].replace()
    some = select_molecules(crystal, torch.tensor([0, 3]))
    assert some.n_molecules == 2
    ends = some.positions[some.bonds]
    assert (ends[:, 0] - ends[:, 1]).norm(dim=-1).max() < 1.7
    assert len(some.bond_types) == len(some.bonds)


def test_neighbours_agree_with_a_plain_sum_over_images(crystals: dict[str, Crystal]) -> None:
    crystal = crystals["2100840"]
    found = find_neighbours(crystal.lattice.numpy(), crystal.frac.numpy(), 7.0)
    cells = torch.cartesian_prod(*[torch.arange(-3.0, 4)] * 3).double()
    apart = crystal.frac[None, :, None] + cells - crystal.frac[:, None, None]
    length = (apart @ crystal.lattice).norm(dim=-1)
    assert 2 * len(found) == int(((length < 7.0) & (length > 1e-9)).sum())
    ends = crystal.frac[found.j] + torch.from_numpy(found.shift) - crystal.frac[found.i]
    torch.testing.assert_close((ends @ crystal.lattice).norm(dim=-1), torch.from_numpy(found.distance))


@pytest.mark.parametrize("name", EXPECTED)
def test_atoms_are_found_by_the_tree_as_by_looking_at_all(name: str, crystals: dict[str, Crystal]) -> None:
    for crystal in (crystals[name], sheared(crystals[name])):
        chance = torch.Generator().manual_seed(0)
        jump = torch.randint(-2, 3, (len(crystal), 3), generator=chance)
        moved = 0.1 * torch.randn(len(crystal), 3, generator=chance, dtype=torch.float64)
        image = crystal.frac + jump + moved @ torch.linalg.inv(crystal.lattice)
        like = _LikeAtoms(crystal)
        assert like.tree is not None
        by_tree = like.nearest(image)
        like.tree = None
        by_all = like.nearest(image)
        assert torch.equal(by_tree[0], by_all[0])
        torch.testing.assert_close(by_tree[1], by_all[1])
