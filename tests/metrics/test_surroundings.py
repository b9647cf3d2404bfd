"""Distances to neighbours: overlaps seen, equal crystals recognised in any setting, others told apart."""

import ase.build
import numpy as np
import pytest
import torch
from tests.crystal.inorganic import CRYSTALS, rattled, textbook

from nucleate.crystal.sites import Sites, primitive_niggli_sites, sites_of_atoms
from nucleate.errors import InputError
from nucleate.metrics.surroundings import NEIGHBOURS, first_of_equals, surroundings


def test_distances_of_rock_salt_are_those_of_the_book() -> None:
    found = surroundings(textbook("rock salt"))
    a = 5.64
    book = [a / 2] * 6 + [a / 2**0.5] * 12 + [a * 3**0.5 / 2] * 6
    np.testing.assert_allclose(found.means, [book, book])
    assert found.means.shape == (2, NEIGHBOURS)
    assert (found.formula, found.overlap) == ("ClNa", False)
    assert found.shortest == pytest.approx(a / 2)
    assert found.size == pytest.approx(a / 2)


def test_an_atom_and_its_own_image_may_overlap() -> None:
    thin = ase.build.bulk("Cu", "sc", a=1.2)
    found = surroundings(sites_of_atoms(thin))
    assert found.shortest == pytest.approx(1.2)
    assert found.overlap
    with pytest.raises(InputError, match="flatter"):
        surroundings(sites_of_atoms(ase.build.bulk("Cu", "sc", a=0.4)))


@pytest.mark.parametrize("name", CRYSTALS)
def test_the_same_crystal_in_any_cell_origin_order_or_hand(name: str) -> None:
    plain = textbook(name)
    skew = sites_of_atoms(ase.build.make_supercell(plain.atoms, [[1, 1, 0], [0, 1, 0], [0, 1, 2]]))
    order = torch.randperm(len(skew), generator=torch.Generator().manual_seed(0))
    other = Sites(skew.lattice, 0.3 - skew.frac[order], skew.numbers[order])  # inverted: the mirror image
    three = [surroundings(s) for s in (plain, primitive_niggli_sites(plain), other)]
    for found in three[1:]:
        np.testing.assert_allclose(found.means, three[0].means, atol=1e-6)
    assert first_of_equals(three).tolist() == [True, False, False]


def test_small_noise_is_forgiven_and_other_structures_are_not() -> None:
    blende = textbook("zinc blende")
    wurtzite = sites_of_atoms(ase.build.bulk("ZnS", "wurtzite", a=3.82, c=6.26))
    salt = sites_of_atoms(ase.build.bulk("ZnS", "rocksalt", a=5.06))
    wider = Sites(1.05 * blende.lattice, blende.frac, blende.numbers)
    swapped = Sites(blende.lattice, blende.frac, torch.where(blende.numbers == 30, 16, 14))
    several = [blende, rattled(blende, 0.005), wurtzite, salt, wider, swapped, salt]
    kept = first_of_equals([surroundings(s) for s in several]).tolist()
    assert kept == [True, False, True, True, True, True, False]
    assert first_of_equals([]).tolist() == []
