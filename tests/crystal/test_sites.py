"""Crystals without molecules: read with their symmetry, brought to the cell that a network sees."""

import ase.build
import pytest
import torch
from ase import Atoms

from nucleate.crystal.sites import (
    Sites,
    crystal_of_sites,
    primitive_niggli_sites,
    sites_from_cif,
    sites_of_atoms,
)
from nucleate.errors import InputError
from nucleate.geometry.lattice import log_coordinates, niggli_reduce
from tests.crystal.inorganic import CRYSTALS, distances, rattled, textbook

FLUORITE = """data_fluorite
_cell_length_a 5.463(1)
_cell_length_b 5.463
_cell_length_c 5.463
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Ca1 Ca2+ 0 0 0 1
F1 F1- 0.25 0.25 0.25 1
"""


def test_symmetry_of_a_file_is_expanded() -> None:
    fluorite = sites_from_cif(FLUORITE)
    assert fluorite.composition == {9: 8, 20: 4}
    assert (fluorite.formula, fluorite.reduced_formula) == ("Ca4F8", "CaF2")
    assert fluorite.volume == pytest.approx(5.463**3)
    assert ((fluorite.frac >= 0) & (fluorite.frac < 1)).all()
    near = distances(fluorite, 2.4) % 100
    torch.testing.assert_close(near, torch.full((32,), 5.463 * 3**0.5 / 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("F1- 0.25 0.25 0.25 1", "F1- 0.25 0.25 0.25 0.5", "disordered"),
        ("Ca1 Ca2+", "Qq1 Qq", "unknown element"),
        ("_cell_length_a 5.463(1)", "_cell_length_a 0", "unreadable"),
        (FLUORITE[FLUORITE.index("loop_") :], "", "no atoms"),
        (FLUORITE, "\n", "empty file"),
    ],
)
def test_files_that_are_no_ordered_crystal_are_refused(old: str, new: str, reason: str) -> None:
    assert old in FLUORITE
    with pytest.raises(InputError) as refusal:
        sites_from_cif(FLUORITE.replace(old, new))
    assert refusal.value.reason == reason


@pytest.mark.parametrize("name", CRYSTALS)
def test_primitive_cells_hold_the_same_crystal(name: str) -> None:
    given, (_, _, atoms) = textbook(name), CRYSTALS[name]
    primitive = primitive_niggli_sites(given)
    assert len(primitive) == atoms
    assert primitive.reduced_formula == given.reduced_formula
    times = len(given) // len(primitive)
    assert primitive.volume * times == pytest.approx(given.volume)
    small, large = distances(primitive), distances(given)
    torch.testing.assert_close(small.repeat_interleave(times), large, rtol=0, atol=1e-6)
    lattice, change = niggli_reduce(primitive.lattice)
    assert torch.equal(change.abs().sum(0), torch.ones(3, dtype=change.dtype)), "already reduced, up to order"
    assert torch.linalg.det(primitive.lattice) > 0


@pytest.mark.parametrize("name", ["rock salt", "corundum", "rutile"])
def test_the_primitive_cell_depends_on_neither_supercell_nor_setting(name: str) -> None:
    plain = textbook(name)
    turned = plain.atoms
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.translate((0.3, 1.1, -0.7))
    skew = ase.build.make_supercell(turned, [[1, 1, 0], [0, 1, 0], [0, 1, 2]])
    a, b = (primitive_niggli_sites(s) for s in (plain, sites_of_atoms(skew)))
    torch.testing.assert_close(log_coordinates(a.lattice), log_coordinates(b.lattice), rtol=0, atol=1e-6)
    torch.testing.assert_close(distances(a), distances(b), rtol=0, atol=1e-6)


def test_noise_below_the_tolerance_is_averaged_away_and_above_it_kept() -> None:
    salt = textbook("rock salt")
    assert len(primitive_niggli_sites(rattled(salt, 1e-3))) == 2
    assert len(primitive_niggli_sites(rattled(salt, 0.05))) == 8
    assert len(primitive_niggli_sites(rattled(salt, 0.05), symprec=0.3)) == 2


def test_left_handed_cells_are_turned_over_without_mirroring_the_crystal() -> None:
    """Minus all three vectors span the same lattice; fractional coordinates change sign with them."""
    cell = [[3, 0, 0], [0.2, 0.4, 5], [0.1, 4, 0.3]]
    atoms = Atoms("PO", cell=cell, scaled_positions=[(0.1, 0.2, 0.3), (0.45, 0.6, 0.05)], pbc=True)
    sites = sites_of_atoms(atoms)
    assert torch.linalg.det(sites.lattice) > 0
    assert ((sites.frac >= 0) & (sites.frac < 1)).all()
    step = sites.frac @ sites.lattice - torch.tensor(atoms.positions)
    hops = step @ torch.linalg.inv(torch.tensor(atoms.cell.array))
    torch.testing.assert_close(hops, hops.round(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("atoms", [Atoms("NaCl", pbc=False), Atoms("Na", cell=[3, 3, 0], pbc=True)])
def test_what_is_not_periodic_is_refused(atoms: Atoms) -> None:
    with pytest.raises(InputError, match="three dimensions"):
        sites_of_atoms(atoms)


def test_atoms_as_molecules_keep_everything() -> None:
    sites = textbook("rutile")
    crystal = crystal_of_sites(sites)
    assert crystal.n_molecules == len(sites) == 6
    assert torch.equal(crystal.numbers, sites.numbers)
    assert crystal.volume == pytest.approx(sites.volume)
    back = sites_of_atoms(Sites(crystal.lattice, crystal.frac, crystal.numbers).atoms)
    torch.testing.assert_close(distances(back), distances(sites))
