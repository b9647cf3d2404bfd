"""Contacts by hand on small cells, no clash in real crystals, and what must not matter."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation
from nucleate.metrics.clashes import (
    BONDI,
    clash_free_rate,
    clash_rate,
    closest_contact,
    contacts,
    has_clash,
    overlaps,
)

HERE = Path(__file__).parent
REAL = sorted([*(HERE / "data").glob("*.cif"), *(HERE.parent / "data").glob("*.cif")])
METAL_BONDED = {"2014129"}  # ions that touch more closely than van der Waals atoms


@lru_cache(maxsize=32)
def real(path: Path) -> Crystal:
    return read_crystal(path)


def cell_of(positions, numbers, molecule, side=30.0) -> Crystal:
    """Atoms (Å) in a cubic cell, no bonds known."""
    return Crystal(
        lattice=side * torch.eye(3, dtype=torch.float64),
        frac=torch.tensor(positions, dtype=torch.float64) / side,
        numbers=torch.tensor(numbers),
        molecule=torch.tensor(molecule),
        bonds=torch.zeros(0, 2, dtype=torch.long),
    )


def two_atoms(z_1: int, z_2: int, distance: float) -> Crystal:
    return cell_of([[0, 0, 0], [distance, 0, 0]], [z_1, z_2], [0, 1])


def squeezed(c: Crystal, factor: float) -> Crystal:
    """Molecules as they are, their centroids moved with the cell."""
    lattice = factor * c.lattice.double()
    arms = (c.frac - c.centroids[c.molecule]) @ c.lattice.double() @ torch.linalg.inv(lattice)
    return c.replace(lattice=lattice, frac=c.centroids[c.molecule] + arms)


def disguised(c: Crystal, seed: int = 0) -> Crystal:
    """Turned, mirrored, shifted, in another cell, whole molecules elsewhere, atoms in another order."""
    g = torch.Generator().manual_seed(seed)
    skew = torch.tensor([[1, 1, 0], [0, 1, -1], [1, 1, 1]], dtype=torch.float64)
    lattice = skew @ c.lattice.double() @ random_rotation(generator=g).double()
    hops = torch.randint(-2, 3, (c.n_molecules, 3), generator=g)
    frac = -(c.frac.double() @ torch.linalg.inv(skew)) + hops[c.molecule] + 0.37
    order = torch.randperm(len(c), generator=g)
    return Crystal(
        lattice, frac[order], c.numbers[order], c.molecule[order], torch.zeros(0, 2, dtype=torch.long)
    )


# ---------------------------------------------------------------- by hand


def test_two_carbons_touch_at_the_sum_of_their_radii():
    found = closest_contact(two_atoms(6, 6, 3.4))
    assert (found.atoms, found.shift, found.kind) == ((0, 1), (0, 0, 0), "van der Waals")
    assert found.distance == pytest.approx(3.4)
    assert found.ratio == pytest.approx(1.0)
    assert not found.is_clash
    assert has_clash(two_atoms(6, 6, 0.79 * 3.4))
    assert not has_clash(two_atoms(6, 6, 0.81 * 3.4))
    assert has_clash(two_atoms(6, 6, 0.89 * 3.4), fraction=0.9)


def test_a_molecule_meets_its_own_image():
    alone = cell_of([[0.2, 0, 0], [1.4, 0, 0]], [6, 6], [0, 0], side=3.5)
    found = closest_contact(alone)
    assert found.distance == pytest.approx(3.5 - 1.2)
    assert sorted(found.atoms) == [0, 1]
    assert abs(found.shift[0]) == 1
    assert found.shift[1:] == (0, 0)
    assert has_clash(alone)
    assert overlaps(alone)
    assert not has_clash(cell_of([[0.2, 0, 0], [1.4, 0, 0]], [6, 6], [0, 0], side=6.0))


def test_atoms_of_one_molecule_are_no_contact_and_far_images_are_found():
    alone = cell_of([[0, 0, 0], [1.0, 0, 0]], [6, 6], [0, 0], side=40.0)
    assert closest_contact(alone).distance == pytest.approx(39.0)
    assert len(contacts(alone)) == 0
    assert not has_clash(alone)


def test_hydrogen_bonds_are_treated_apart():
    """O-H...O with H...O 1.6 Å and O...O 2.6 Å is chemistry; the same distances without an O-H are clashes."""
    bridge = [[0, 0, 0], [1.0, 0, 0], [2.6, 0, 0], [3.8, 0, 0]]
    bonded = cell_of(bridge, [8, 1, 8, 6], [0, 0, 1, 1])
    kinds = {tuple(sorted(c.atoms)): c.kind for c in (contacts(bonded)[k] for k in range(3))}
    assert kinds[(1, 2)] == "hydrogen bond"
    assert kinds[(0, 2)] == "bridged"
    assert not has_clash(bonded)
    assert has_clash(cell_of(bridge, [6, 1, 8, 6], [0, 0, 1, 1]))  # C-H...O at 1.6 Å
    assert has_clash(cell_of([[0, 0, 0], [1, 0, 0], [2.0, 0, 0], [3.2, 0, 0]], [8, 1, 8, 6], [0, 0, 1, 1]))


def test_two_hydrogens_on_oxygens_must_keep_apart():
    facing = [[0, 0, 0], [1.0, 0, 0], [2.6, 0, 0], [3.6, 0, 0]]
    assert has_clash(cell_of(facing, [8, 1, 1, 8], [0, 0, 1, 1]))
    assert closest_contact(cell_of(facing, [8, 1, 1, 8], [0, 0, 1, 1])).kind == "van der Waals"


def test_donors_without_hydrogens_in_the_file():
    """Where a molecule lists no hydrogen its N, O, F and S may be donors; its carbons may not."""
    waters = two_atoms(8, 8, 2.5)
    assert contacts(waters)[0].kind == "bridged"
    assert not has_clash(waters)
    assert has_clash(two_atoms(8, 8, 2.2))
    assert has_clash(two_atoms(8, 6, 2.5))
    carrying = cell_of([[0, 0, 0], [2.4, 0, 0], [3.8, 0, 0], [4.8, 0, 0]], [8, 8, 6, 1], [0, 1, 1, 1])
    both = cell_of(
        [[-2.4, 0, 0], [-1.4, 0, 0], [0, 0, 0], *carrying.positions.tolist()[1:]],
        [1, 6, 8, 8, 6, 1],
        [0] * 3 + [1] * 3,
    )
    assert contacts(carrying)[0].kind == "bridged"
    assert not has_clash(carrying)
    assert has_clash(both)  # both molecules have hydrogens, none on an oxygen


def test_halogens_and_metals_have_their_own_rules():
    assert closest_contact(two_atoms(53, 7, 2.8)).kind == "halogen bond"
    assert not has_clash(two_atoms(53, 7, 2.8))
    salt = closest_contact(two_atoms(11, 8, 2.35))
    assert salt.kind == "metal"
    assert salt.ratio == pytest.approx(2.35 / (1.66 + 0.66), abs=0.02)
    assert not salt.is_clash
    assert has_clash(two_atoms(11, 8, 1.9))


def test_every_pair_is_listed_once_and_in_order():
    c = real(HERE / "data" / "7121743.cif")
    found = contacts(c, 3.5)
    image = torch.cdist(
        c.positions, (c.frac + torch.cartesian_prod(*[torch.arange(-2, 3)] * 3)[:, None]) @ c.lattice
    )
    close = image < 3.5  # cells, atoms, atoms of the other cell
    close[62] &= c.molecule[:, None] != c.molecule
    assert 2 * len(found) == int(close.sum())
    severity = found.ratio / np.array([found[k].limit for k in range(len(found))])
    assert (np.diff(severity) >= 0).all()
    assert found.distance.max() < 3.5


# ---------------------------------------------------------------- real crystals


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
def test_real_crystals_have_none_until_they_are_squeezed(path):
    c = real(path)
    assert not has_clash(c)
    assert has_clash(squeezed(c, 0.7))


@pytest.mark.parametrize(
    "path", [HERE / "data" / "7121743.cif", HERE / "data" / "2014129.cif"], ids=lambda p: p.stem
)
def test_the_description_of_the_crystal_does_not_matter(path):
    plain = contacts(real(path), 4.0)
    for seed in range(3):
        found = contacts(disguised(real(path), seed), 4.0)
        assert len(found) == len(plain)
        np.testing.assert_allclose(found.ratio, plain.ratio, atol=1e-6)
        np.testing.assert_array_equal(np.bincount(found.kind), np.bincount(plain.kind))


def test_without_hydrogens_real_crystals_stay_free_of_clashes():
    for path in REAL:
        c = real(path)
        kept = c.numbers > 1
        bare = Crystal(
            c.lattice, c.frac[kept], c.numbers[kept], c.molecule[kept], torch.zeros(0, 2, dtype=torch.long)
        )
        assert not has_clash(bare)


# ---------------------------------------------------------------- the condition of OXtal and Clari


def test_overlaps_leave_out_hydrogens_and_know_no_hydrogen_bonds():
    for definition, limit in (("oxtal", 2 * BONDI[6] - 0.7), ("clari", 2 * 1.77 - 0.7)):
        assert overlaps(two_atoms(6, 6, limit - 0.01), definition)
        assert not overlaps(two_atoms(6, 6, limit + 0.01), definition)
    assert not overlaps(two_atoms(1, 1, 0.5))
    assert has_clash(two_atoms(1, 1, 0.5))
    bridge = cell_of([[0, 0, 0], [1.0, 0, 0], [2.25, 0, 0]], [8, 1, 8], [0, 0, 1])
    assert overlaps(bridge)


def test_a_fifth_of_an_angstrom_would_flag_real_crystals():
    """0.2 Å, the default of the function in OXtal's code, is not what its program uses: crystals would not pass."""
    organic = [real(p) for p in REAL if p.stem not in METAL_BONDED]
    assert not any(overlaps(c) for c in organic)
    assert sum(overlaps(c, overlap=0.2) for c in organic) > len(organic) / 3


# ---------------------------------------------------------------- rates and refusals


def test_failures_count_and_never_help():
    free, bad = two_atoms(6, 6, 3.6), two_atoms(6, 6, 2.0)
    samples = [free, bad, None, InputError("atoms on each other", reason="clash"), InputError("unreadable")]
    assert (clash_rate(samples).hits, clash_rate(samples).asked) == (2, 5)
    assert (clash_free_rate(samples).hits, clash_free_rate(samples).asked) == (1, 5)
    assert clash_rate([]).asked == 0


def test_bad_input_is_refused():
    with pytest.raises(InputError, match=r"\(0, 1\]"):
        has_clash(two_atoms(6, 6, 3.0), fraction=1.5)
    with pytest.raises(InputError, match="oxtal, clari"):
        overlaps(two_atoms(6, 6, 3.0), "mercury")
    with pytest.raises(InputError, match="atomic numbers"):
        has_clash(two_atoms(0, 6, 3.0))
    empty = Crystal(
        torch.eye(3, dtype=torch.float64),
        torch.zeros(0, 3, dtype=torch.float64),
        *(torch.zeros(0, dtype=torch.long),) * 2,
        torch.zeros(0, 2, dtype=torch.long),
    )
    with pytest.raises(InputError, match="no atoms"):
        closest_contact(empty)


def test_collapsed_and_very_skew_cells_are_judged_at_once():
    c = real(HERE / "data" / "7121743.cif")
    for factor in (0.2, 0.05, 0.001):
        crushed = c.replace(lattice=factor * c.lattice)
        assert has_clash(crushed)
        assert overlaps(crushed)
        with pytest.raises(InputError, match="collapsed") as error:
            closest_contact(crushed)
        assert error.value.reason == "clash"
    thin = c.replace(lattice=c.lattice * torch.tensor([[100.0], [100.0], [0.001]], dtype=torch.float64))
    assert has_clash(thin)
    skew = torch.tensor([[1, 40, 7], [0, 1, 30], [0, 0, 1]], dtype=torch.float64)
    far = rebuilt_in(c, skew)
    assert not has_clash(far)
    np.testing.assert_allclose(contacts(far).ratio, contacts(c).ratio, atol=1e-6)
    found = closest_contact(far)
    apart = far.frac[found.atoms[1]] + torch.tensor(found.shift) - far.frac[found.atoms[0]]
    assert float((apart @ far.lattice).norm()) == pytest.approx(found.distance, abs=1e-6)


def rebuilt_in(c: Crystal, change) -> Crystal:
    return c.replace(lattice=change @ c.lattice.double(), frac=c.frac.double() @ torch.linalg.inv(change))
