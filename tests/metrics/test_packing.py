"""The same packing must match in any disguise, and another packing must not."""

import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from disguises import disguised, moved, noisy, repeated, seeded, turned_in_place, without_hydrogens

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.geometry.lattice import image_shifts
from nucleate.geometry.so3 import random_rotation
from nucleate.metrics.control import random_poses
from nucleate.metrics.heavy_molecules import HeavyMolecules
from nucleate.metrics.packing import PackingReference, compare_packing
from nucleate.metrics.packing_starts import _without_translations

DATA = Path(__file__).parent / "data"
FILES = ["2100840", "2205937", "2008185", "7121743", "2014129"]
every_crystal = pytest.mark.parametrize("name", FILES)


@lru_cache(maxsize=16)
def crystal(name):
    return read_crystal(DATA / f"{name}.cif")


def chiral_crystal():
    """CHFClBr in P1 with two molecules of one hand, no symmetry but translation."""
    local = torch.tensor(
        [[0, 0, 0], [1.35, 0, 0], [-0.6, 1.66, 0], [-0.65, -0.9, 1.6], [-0.4, -0.5, -0.9]],
        dtype=torch.float64,
    )
    turn = random_rotation(2, generator=seeded(4))
    centres = torch.tensor([[0, 0, 0], [2.1, 3.3, 2.6]], dtype=torch.float64)
    lattice = torch.tensor([[5.2, 0, 0], [1.0, 6.1, 0], [0.4, 1.3, 5.6]], dtype=torch.float64)
    positions = (local @ turn.mT + centres[:, None]).flatten(0, 1)
    bonds = torch.tensor([[0, i] for i in range(1, 5)] + [[5, 5 + i] for i in range(1, 5)])
    return Crystal(
        lattice=lattice,
        frac=positions @ torch.linalg.inv(lattice),
        numbers=torch.tensor([6, 9, 17, 35, 1] * 2),
        molecule=torch.arange(2).repeat_interleave(5),
        bonds=bonds,
    )


@every_crystal
@pytest.mark.parametrize("mirror", [False, True], ids=["turned", "mirrored"])
def test_a_crystal_matches_itself_in_disguise(name, mirror):
    match = compare_packing(crystal(name), disguised(crystal(name), seed=1, mirror=mirror))
    assert match.is_match
    assert match.n_matched == 15
    assert match.rmsd < 1e-6
    assert match.rmsd_1 < 1e-6


@every_crystal
def test_a_supercell_with_noise_matches_at_the_noise(name):
    """0.1 Å on each coordinate is 0.17 Å an atom, less what the superposition takes up."""
    other = disguised(noisy(repeated(crystal(name), (2, 1, 2)), 0.1), seed=2)
    match = compare_packing(crystal(name), other)
    assert match.is_match
    assert 0.1 < match.rmsd < 0.2


@every_crystal
def test_hydrogens_do_not_count(name):
    bare = without_hydrogens(crystal(name))
    for reference, other in ((crystal(name), bare), (bare, crystal(name))):
        match = compare_packing(reference, disguised(other, seed=3))
        assert match.is_match
        assert match.rmsd < 1e-6


@pytest.mark.parametrize("name", FILES[:-1])  # whether a metal has bonds is a matter of definition
def test_bonds_are_perceived_where_there_are_none(name):
    unbonded = crystal(name).replace(bonds=torch.zeros(0, 2, dtype=torch.long), bond_types=())
    assert compare_packing(crystal(name), disguised(unbonded)).is_match


@every_crystal
def test_the_motion_carries_the_reference_onto_the_other(name):
    """Applied to the central molecule, it lands on the molecule it names."""
    reference, other = crystal(name), disguised(crystal(name), seed=5, mirror=True)
    match = compare_packing(reference, other)
    ours, theirs = match.centres
    heavy = reference.numbers > 1
    carried = reference.positions[heavy & (reference.molecule == ours)].double() @ match.rotation.T
    landed = other.positions[(other.numbers > 1) & (other.molecule == theirs)]
    # the named molecule is one image of the one that was hit: same shape, whole lattice steps away
    step = (carried.mean(0) + match.translation - landed.mean(0)) @ torch.linalg.inv(other.lattice)
    torch.testing.assert_close(step, step.round(), atol=1e-6, rtol=0)
    gaps = torch.cdist(carried + match.translation - step.round() @ other.lattice, landed)
    assert gaps.amin(1).max() < 1e-5


def test_the_mirror_image_of_a_chiral_crystal_matches_only_when_allowed():
    reference = chiral_crystal()
    image, same = disguised(reference, mirror=True), disguised(reference)
    allowed = compare_packing(reference, image)
    assert allowed.is_match
    assert allowed.mirrored
    assert allowed.rmsd < 1e-6
    refused = compare_packing(reference, image, mirror=False)
    assert not refused.is_match
    turned = compare_packing(reference, same, mirror=False)
    assert turned.is_match
    assert not turned.mirrored


@every_crystal
def test_molecules_turned_in_place_do_not_match(name):
    match = compare_packing(crystal(name), turned_in_place(crystal(name), 1.2))
    assert match.n_matched < 10


def test_related_crystals_of_one_compound_match_in_part():
    """Two forms of C7H6N2 share most of the shell, and not all of it."""
    a, b = crystal("7121743"), read_crystal(DATA / "7121745.cif")
    match = compare_packing(a, b)
    assert not match.is_match
    assert match.n_matched == compare_packing(b, a).n_matched == 14
    assert 0.4 < match.rmsd < 0.8
    assert match.rmsd_1 < 0.05


def test_other_molecules_do_not_match_at_all():
    match = compare_packing(crystal("2205937"), crystal("2008185"))
    assert match.n_matched == 0
    assert math.isnan(match.rmsd)
    assert match.centres is None


@pytest.mark.parametrize(("factor", "least", "most"), [(1.05, 15, 15), (1.3, 1, 3)])
def test_distance_tolerance_is_relative(factor, least, most):
    """Centroids spread by a factor with molecules kept: within 20 %, or little more than the centre."""
    c = crystal("7121743")
    centre = (c.centroids.double() @ c.lattice.double())[c.molecule]
    positions = c.positions.double() + (factor - 1) * centre
    lattice = c.lattice.double() * factor
    spread = c.replace(lattice=lattice, frac=positions @ torch.linalg.inv(lattice))
    assert least <= compare_packing(c, spread).n_matched <= most
    assert compare_packing(c, spread, distance_tolerance=0.02).n_matched < 15


def test_angle_tolerance_is_in_degrees():
    turned = turned_in_place(crystal("7121743"), math.radians(12), seed=6)
    assert compare_packing(crystal("7121743"), turned).is_match
    assert not compare_packing(crystal("7121743"), turned, angle_tolerance=2.0).is_match


def test_one_reference_serves_many_crystals():
    reference = PackingReference(crystal("7121743"), n=20)
    first, second = (reference.compare(disguised(crystal("7121743"), seed=s)) for s in (7, 8))
    assert first.n_matched == second.n_matched == first.n == 20


def test_the_cluster_is_that_of_the_shortest_contacts():
    """Against brute force over a large block of the crystal."""
    c = crystal("7121743")
    cluster = PackingReference(c).clusters[0]
    molecules = HeavyMolecules.of(c)
    shifts, _ = image_shifts(molecules.lattice[None], 16.0)
    images = molecules.positions + (shifts.double() @ molecules.lattice)[:, None, None]
    own = molecules.positions[cluster.centre]
    contact = torch.cdist(own, images.flatten(0, 2)).unflatten(1, images.shape[:3]).amin((0, 3)).flatten()
    expected = contact.sort().values[:15]
    found = torch.cdist(own, cluster.positions.flatten(0, 1)).unflatten(1, (15, -1)).amin((0, 2))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_every_distinct_molecule_is_a_centre():
    assert len(PackingReference(crystal("7121743")).clusters) == 1
    species = {cluster.keys[0] for cluster in PackingReference(crystal("2014129")).clusters}
    assert len(species) == 3
    one_species_noisy = noisy(crystal("7121743"), 0.2)  # now four different molecules
    assert len(PackingReference(one_species_noisy).clusters) == 4


def test_equivalent_atoms_beyond_counting():
    """Four tert-butyl groups on a ring of carbons have 6^4 automorphisms and more: matched by distance."""
    ring = [(math.cos(k * math.pi / 2) * 1.1, math.sin(k * math.pi / 2) * 1.1, 0.0) for k in range(4)]
    atoms, bonds = list(ring), [(0, 1), (1, 2), (2, 3), (3, 0)]
    for k, (x, y, _) in enumerate(ring):
        centre = (2.4 * x, 2.4 * y, 0.0)
        atoms.append(centre)
        hub = len(atoms) - 1
        bonds.append((k, hub))
        for j in range(3):
            angle = 2 * math.pi * j / 3 + 0.3 * k
            out = (0.5 * x / 1.1, 0.5 * y / 1.1)
            side = (-y / 1.1 * 1.44 * math.cos(angle), x / 1.1 * 1.44 * math.cos(angle))
            atoms.append((centre[0] + out[0] + side[0], centre[1] + out[1] + side[1], 1.44 * math.sin(angle)))
            bonds.append((hub, len(atoms) - 1))
    positions = torch.tensor(atoms, dtype=torch.float64)
    lattice = torch.tensor([[9.0, 0, 0], [2.0, 9.5, 0], [0.5, 1.0, 5.5]], dtype=torch.float64)
    c = Crystal(
        lattice=lattice,
        frac=positions @ torch.linalg.inv(lattice),
        numbers=torch.full((len(atoms),), 6),
        molecule=torch.zeros(len(atoms), dtype=torch.long),
        bonds=torch.tensor(bonds),
    )
    match = compare_packing(c, disguised(noisy(c, 0.05), seed=9))
    assert match.is_match
    assert match.rmsd < 0.1


@pytest.mark.parametrize("name", ["2100840", "7121743"])
@pytest.mark.parametrize("n", [1, 2, 3, 30])
def test_clusters_of_any_size(name, n):
    match = compare_packing(crystal(name), disguised(crystal(name), seed=10), n=n)
    assert match.n_matched == match.n == n
    assert match.rmsd < 1e-6


@pytest.mark.parametrize("bad", [{"n": 0}, {"distance_tolerance": 20.0}, {"angle_tolerance": 0.0}])
def test_tolerances_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="expected n >= 1"):
        compare_packing(crystal("2205937"), crystal("2205937"), **bad)


@every_crystal
def test_a_supercell_adds_nothing_to_a_comparison(name):
    """Not even where the packings differ and only some motion fits in part."""
    reference = PackingReference(crystal(name), 20, 0.25, 25.0)
    for other in random_poses(crystal(name), 3, seeded(1)):
        alone, much = (reference.compare(c) for c in (other, repeated(other, (3, 2, 2))))
        assert much.n_matched == alone.n_matched
        assert much.rmsd == pytest.approx(alone.rmsd, abs=1e-4)


def test_a_linear_molecule_is_laid_the_best_way_within_wide_tolerances():
    """Acetylene: 75 degrees let nearly every way pass to turn it."""
    reference = PackingReference(crystal("2100840"), 15, 0.5, 75.0)
    found = [reference.compare(disguised(crystal("2100840"), seed)).rmsd for seed in range(4)]
    slightly = noisy(crystal("2100840"), 0.05)
    found += [reference.compare(c).rmsd - 0.09 for c in (slightly, repeated(slightly, (3, 3, 2)))]
    assert max(found) < 0.01


def test_translations_that_only_molecules_have_are_none():
    """Two molecules of one orientation, one of which is bent elsewhere, are two places to start from."""
    c = repeated(crystal("7121743"), (2, 1, 1))
    whole = HeavyMolecules.of(c)
    where = torch.arange(c.n_molecules)
    assert len(_without_translations(whole, where)) == c.n_molecules // 2
    shifted = moved(c, c.positions.double() + 0.3 * (c.molecule == 1)[:, None])
    assert len(_without_translations(HeavyMolecules.of(shifted), where)) == c.n_molecules
