"""Similarity of powder patterns: laws, hand-made peaks, and crystals in every disguise."""

import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.geometry.lattice import niggli_reduce
from nucleate.geometry.so3 import random_rotation
from nucleate.metrics.powder_similarity import (
    matching_bases,
    pattern_similarity,
    powder_similarity,
    read_pattern,
    superlattices,
    variable_cell_similarity,
    without_background,
)
from nucleate.metrics.pxrd import PowderPattern, powder_pattern

DATA = Path(__file__).parent / "data"
FILES = ["2205937", "2008185", "2100840", "2014129", "7121743"]
every_crystal = pytest.mark.parametrize("name", FILES)
STRAIN = torch.tensor([[0.03, 0.01, 0], [0.01, -0.02, 0.005], [0, 0.005, 0.01]], dtype=torch.float64)


@lru_cache(maxsize=16)
def crystal(name: str) -> Crystal:
    return read_crystal(DATA / f"{name}.cif")


def rebuilt(c: Crystal, lattice, frac, order=None) -> Crystal:
    order = torch.arange(len(c)) if order is None else order
    no_bonds = torch.zeros(0, 2, dtype=torch.long)
    places = torch.argsort(order)
    bonds = places[c.bonds] if len(c.bonds) else no_bonds
    return Crystal(lattice, frac[order], c.numbers[order], c.molecule[order], bonds)


def in_another_cell(c: Crystal) -> Crystal:
    skew = torch.tensor([[1, 1, 0], [0, 1, -1], [1, 1, 1]], dtype=torch.float64)
    return rebuilt(c, skew @ c.lattice.double(), c.frac.double() @ torch.linalg.inv(skew))


def in_a_supercell(c: Crystal) -> Crystal:
    size = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
    shift = torch.tensor([0.5, 0, 0], dtype=torch.float64)
    return Crystal(
        lattice=c.lattice * size[:, None],
        frac=torch.cat([c.frac / size, c.frac / size + shift]),
        numbers=c.numbers.repeat(2),
        molecule=torch.cat([c.molecule, c.molecule + c.n_molecules]),
        bonds=torch.cat([c.bonds, c.bonds + len(c)]),
    )


def shifted(c: Crystal) -> Crystal:
    return rebuilt(c, c.lattice, c.frac + torch.tensor([0.31, -0.17, 0.55], dtype=torch.float64))


def shuffled(c: Crystal) -> Crystal:
    return rebuilt(c, c.lattice, c.frac, torch.randperm(len(c), generator=torch.Generator().manual_seed(0)))


def turned(c: Crystal) -> Crystal:
    rotation = random_rotation(generator=torch.Generator().manual_seed(1)).double()
    return rebuilt(c, c.lattice.double() @ rotation, c.frac)


def mirrored(c: Crystal) -> Crystal:
    return rebuilt(c, c.lattice, -c.frac)


DISGUISES = [in_another_cell, in_a_supercell, shifted, shuffled, turned, mirrored]


def peaks(*centres: float, step: float = 0.02, low: float = 5.0, high: float = 50.0) -> PowderPattern:
    """Gaussians 0.1 degrees wide."""
    grid = low + step * torch.arange(round((high - low) / step) + 1, dtype=torch.float64)
    drawn = sum(torch.exp(-0.5 * ((grid - c) / 0.1) ** 2) for c in centres)
    return PowderPattern(grid, 100 * drawn)


# ---------------------------------------------------------------- patterns


def test_two_peaks_fall_off_as_the_triangle_says():
    """For narrow peaks similarity is w(r): 1 - r / width, here softened by the widths of the peaks."""
    alone = [pattern_similarity(peaks(20.0), peaks(20.0 + r), width=2.0) for r in (0.0, 0.5, 1.0, 2.5)]
    assert alone[0] == pytest.approx(1.0)
    softened = (
        1 - math.sqrt(2 / math.pi) * 0.1 * math.sqrt(2) / 2.0
    )  # c_ff = E w(r), r of standard deviation 0.14
    for value, r in zip(alone[1:3], (0.5, 1.0)):
        assert value == pytest.approx((1 - r / 2) / softened, abs=1e-3)
    assert alone[3] < 1e-4


def test_laws_of_the_cross_correlation():
    a, b = peaks(10, 14, 22, 31), peaks(10.3, 14.1, 23, 40)
    assert pattern_similarity(a, a) == pytest.approx(1.0)
    assert pattern_similarity(a, b) == pytest.approx(pattern_similarity(b, a))
    assert pattern_similarity(a, PowderPattern(b.two_theta, 7 * b.intensity)) == pytest.approx(
        pattern_similarity(a, b)
    )
    assert 0 < pattern_similarity(a, b) < 1
    wider = [pattern_similarity(a, b, width) for width in (0.2, 0.5, 1.0, 2.0)]
    assert wider == sorted(wider)


def test_grids_may_differ():
    fine, coarse = peaks(10, 14.5, 22), peaks(10, 14.5, 22, step=0.05, low=8.0, high=30.0)
    assert pattern_similarity(fine, coarse) == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(InputError, match="share 5 degrees"):
        pattern_similarity(fine, peaks(60, low=55.0, high=70.0))


def test_a_background_misleads_until_it_is_taken_off():
    a, b = peaks(10, 14, 22, 31), peaks(11.9, 17, 25, 36)
    hump = 60 * torch.exp(-0.5 * ((a.two_theta - 25) / 12) ** 2) + 30
    with_hump = [PowderPattern(p.two_theta, p.intensity + hump) for p in (a, b)]
    assert pattern_similarity(a, b) < 0.05
    assert pattern_similarity(*with_hump) > 0.8
    without = [without_background(p) for p in with_hump]
    assert pattern_similarity(*without) < 0.1
    assert pattern_similarity(without[0], a) > 0.99


def test_nothing_to_compare_is_refused():
    flat = PowderPattern(peaks(10).two_theta, torch.zeros(len(peaks(10).two_theta), dtype=torch.float64))
    with pytest.raises(InputError, match="flat line"):
        pattern_similarity(peaks(10), flat)
    with pytest.raises(InputError, match="positive width"):
        pattern_similarity(peaks(10), peaks(11), width=0.0)


# ---------------------------------------------------------------- crystals


@every_crystal
@pytest.mark.parametrize("change", DISGUISES)
def test_the_description_of_the_crystal_does_not_matter(name, change):
    c = crystal(name)
    assert powder_similarity(c, change(c)) == pytest.approx(1.0, abs=1e-6)
    match = variable_cell_similarity(c, change(c))
    assert match.similarity == pytest.approx(1.0, abs=1e-4)
    assert match.largest_strain < 1e-4


@every_crystal
def test_expansion_hides_from_the_variable_cell_only(name):
    c = crystal(name)
    warm = c.replace(lattice=1.02 * c.lattice)
    match = variable_cell_similarity(c, warm)
    assert match.plain == pytest.approx(powder_similarity(c, warm), abs=1e-6)
    assert match.plain < 0.85
    assert match.similarity == pytest.approx(1.0, abs=1e-4)
    assert match.strain == pytest.approx([-math.log(1.02)] * 3, abs=1e-6)
    assert match.volume_ratio == pytest.approx(1.02**-3)


@every_crystal
@pytest.mark.parametrize("change", [in_another_cell, in_a_supercell, mirrored])
def test_a_known_strain_is_found_again_in_any_disguise(name, change):
    c = crystal(name)
    deformed = change(c.replace(lattice=c.lattice.double() @ torch.matrix_exp(STRAIN)))
    match = variable_cell_similarity(c, deformed)
    assert match.similarity == pytest.approx(1.0, abs=1e-3)
    assert match.strain == pytest.approx(sorted((-torch.linalg.eigvalsh(STRAIN)).tolist()), abs=1e-5)


@every_crystal
def test_deformed_cells_and_moved_molecules_together(name):
    """As between an experiment and its relaxed counterpart: strain, and every molecule displaced by 0.1 Å."""
    c = crystal(name)
    g = torch.Generator().manual_seed(4)
    step = 0.06 * torch.randn(c.n_molecules, 3, generator=g, dtype=torch.float64)
    frac = c.frac + (step @ torch.linalg.inv(c.lattice.double()))[c.molecule]
    other = c.replace(lattice=c.lattice.double() @ torch.matrix_exp(STRAIN), frac=frac)
    match = variable_cell_similarity(c, other)
    assert match.similarity > 0.9
    assert match.similarity > match.plain + 0.05
    swapped = variable_cell_similarity(other, c)
    assert swapped.plain == pytest.approx(match.plain, abs=1e-6)
    assert swapped.similarity == pytest.approx(match.similarity, abs=0.02)


def test_other_packings_are_clearly_lower():
    c = crystal("7121743")
    g = torch.Generator().manual_seed(5)
    arms = (c.frac - c.centroids[c.molecule]) @ c.lattice.double()
    rotations = torch.stack([random_rotation(generator=g) for _ in range(c.n_molecules)]).double()
    frac = c.centroids[c.molecule] + torch.einsum(
        "ai,aij->aj", arms, rotations[c.molecule]
    ) @ torch.linalg.inv(c.lattice.double())
    wrong = variable_cell_similarity(c, c.replace(frac=frac))
    assert wrong.similarity < 0.8
    assert wrong.bases > 0


def test_a_pressed_polymorph_matches_only_at_a_price():
    """7121743 and 7121745 are one compound in nearly one packing: alike after a strain of 14 %, which is said."""
    match = variable_cell_similarity(crystal("7121743"), crystal("7121745"))
    assert match.plain < 0.3
    assert match.similarity > 0.9
    assert match.largest_strain > 0.1
    assert (
        variable_cell_similarity(
            crystal("7121743"), crystal("7121745"), length_tolerance=0.03, angle_tolerance=3.0
        ).bases
        == 0
    )


def test_crystals_with_other_contents_keep_the_plain_similarity():
    match = variable_cell_similarity(crystal("7121743"), crystal("2205937"))
    assert match.similarity == match.plain < 0.7
    assert match.bases == 0
    assert match.strain == (0.0, 0.0, 0.0)


def test_every_basis_is_the_lattice_and_within_the_tolerances():
    target, _ = niggli_reduce(crystal("7121743").lattice.double())
    source, _ = niggli_reduce(target @ torch.matrix_exp(STRAIN))
    changes, deformations, strains = matching_bases(target, source)
    torch.testing.assert_close(changes.double() @ source @ deformations, target.expand_as(deformations))
    assert (torch.linalg.det(changes.double()).round() == 1).all()
    assert len(torch.unique(changes, dim=0)) == len(changes)
    assert (strains.norm(dim=1).diff() >= 0).all()
    ratio = (changes.double() @ source).norm(dim=2) / target.norm(dim=1)
    assert (ratio.log().abs() <= math.log(1.2) + 1e-9).all()
    cubic = 6 * torch.eye(3, dtype=torch.float64)
    assert len(matching_bases(cubic, cubic, 0.01, 1.0)[0]) == 24  # the proper rotations of a cube


def test_sublattices_are_all_there_and_differ():
    """As many as divisors tell: the sum over a c f = n of a^2 c (1, 7, 13, 35 for n = 1, 2, 3, 4)."""
    for index, count in ((1, 1), (2, 7), (3, 13), (4, 35)):
        forms = superlattices(index).double()
        assert len(forms) == count
        assert (torch.linalg.det(forms).round() == index).all()
        change = forms[:, None] @ torch.linalg.inv(forms)  # integral only where two are one lattice
        integral = ((change - change.round()).abs() < 1e-9).flatten(2).all(2)
        assert int(integral.sum()) == count


# ---------------------------------------------------------------- measured patterns


@pytest.mark.parametrize("separator", [" ", "\t", ", ", ";"])
def test_a_written_pattern_reads_back(tmp_path, separator):
    drawn = powder_pattern(crystal("2205937"))
    rows = [
        f"{x:.3f}{separator}{12 * y:.4f}" for x, y in zip(drawn.two_theta.tolist(), drawn.intensity.tolist())
    ]
    path = tmp_path / "measured.xy"
    path.write_text("2theta" + separator + "counts\n# Cu K-alpha\n\n" + "\n".join(rows) + "\n")
    read = read_pattern(path)
    assert read.intensity.max() == pytest.approx(100)
    assert pattern_similarity(read, drawn) == pytest.approx(1.0, abs=1e-6)


def test_further_columns_are_left_alone(tmp_path):
    path = tmp_path / "measured.xye"
    path.write_text("\n".join(f"{5 + 0.5 * k} {k % 7} {0.1}" for k in range(40)))
    assert len(read_pattern(path).two_theta) == 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least 10 rows"),
        ("one two\nthree four\n", "at least 10 rows"),
        ("\n".join(f"{5 + k} 1" for k in range(12)) + "\nbroken here\n", "line 13"),
        ("\n".join(f"{5 + k}" for k in range(12)), "at least 10 rows"),
        ("\n".join(f"{30 - k} 1" for k in range(12)), "angles that increase"),
        ("\n".join(f"{5 + k} 0" for k in range(12)), "positive intensity"),
        ("\n".join(f"{5 + k} nan" for k in range(12)), "finite intensities"),
        ("\n".join(f"{175 + k} 1" for k in range(12)), "between 0 and 180"),
    ],
)
def test_files_that_are_no_patterns_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.xy"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_pattern(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="check the path"):
        read_pattern(tmp_path / "nowhere.xy")
