"""Whole cells: what is put into them comes out again, and the operations are those of the crystal."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.crystal.standardise import represent_symmetric
from nucleate.data.packed import PackedCrystal
from nucleate.data.poses import Molecules
from nucleate.data.whole_cells import (
    MOST_BODIES,
    canonical_frame,
    primitive_niggli,
    whole_cells_of,
    with_exact_symmetries,
)
from nucleate.errors import InputError
from nucleate.geometry.lattice import lattice_from_log
from nucleate.geometry.so3 import random_rotation
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.geometry.torus import wrap_difference

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def packed():
    found = []
    for path in sorted(DATA.glob("cod_*.cif")):
        packing, _ = represent_symmetric(normalise_hydrogens(read_crystal(path)))
        found.append(PackedCrystal(packing, path.stem, "cod"))
    return found


@pytest.fixture(scope="module")
def cells(packed):
    return whole_cells_of(packed)[0]


def positions(cells, row):
    """Cartesian atoms (Å) of all bodies of a cell, from the state and the canonical molecules."""
    bodies = int(cells.bodies[row])
    S = lattice_from_log(cells.lattice[row].double())
    parts = []
    for m in range(bodies):
        molecule = cells.contents.molecule[row, m]
        local = cells.molecules.molecules.positions[molecule].double()
        real = cells.molecules.molecules.numbers[molecule] > 0
        x = int(cells.contents.hand[row, m]) * local[real] @ cells.rotation[row, m].double().T
        parts.append(x + cells.centroid[row, m].double() @ S)
    return torch.cat(parts), S


def test_the_atoms_of_a_whole_cell_are_those_of_the_crystal(packed, cells):
    """Every atom of the primitive cell lies on one of the crystal's, in its own axes."""
    place = {name: i for i, name in enumerate(cells.ids)}
    assert len(place) >= 8
    for crystal in packed:
        if crystal.id not in place:
            continue
        row = place[crystal.id]
        whole = crystal.packing.crystal(0)
        x, S = positions(cells, row)
        T = cells.transform[row].double()
        own = (x @ torch.linalg.inv(S)) @ T  # fractions of the packing's cell
        far = (wrap_difference(own[:, None] - whole.frac) @ whole.lattice).norm(dim=-1).amin(1)
        assert far.max() < 1e-4 * 10  # single precision of the shards of a 30 Å cell
        assert len(x) * round(1 / float(torch.linalg.det(T))) == len(whole)
        torch.testing.assert_close(S @ S, T @ whole.lattice @ whole.lattice.T @ T.T, rtol=1e-4, atol=1e-3)


def test_operations_of_the_cell_map_bodies_on_bodies(cells):
    contents = cells.contents
    for i in range(len(cells)):
        n = int(cells.bodies[i])
        unit = contents.unit[i, :n]
        W, w = contents.rotations[i, :n], contents.translations[i, :n]
        image = torch.einsum("mij,mj->mi", W, cells.centroid[i, unit]) + w
        assert wrap_difference(image - cells.centroid[i, :n]).abs().max() < 1e-5
        S = lattice_from_log(cells.lattice[i])
        Q = S @ W @ torch.linalg.inv(S)
        torch.testing.assert_close(Q @ Q.mT, torch.eye(3).expand(n, 3, 3), atol=2e-3, rtol=0)
        det = torch.linalg.det(W).round()
        torch.testing.assert_close(
            det[:, None, None] * Q @ cells.rotation[i, unit], cells.rotation[i, :n], atol=2e-3, rtol=0
        )
        assert (contents.hand[i, :n] == det * contents.hand[i, unit]).all()
        assert (unit < cells.units[i]).all()
    assert cells.has_symmetry.any()


def test_a_centred_cell_is_halved():
    group = SpaceGroup.from_name("C2/c")
    lattice = torch.tensor([[20.0, 0, 0], [0, 5.0, 0], [-6.0, 0, 12.0]], dtype=torch.float64)
    transform, inside = primitive_niggli(lattice, group)
    assert torch.linalg.det(transform) == pytest.approx(0.5)
    assert len(inside) == 4
    for name in ("Fdd2", "R-3", "Pbca"):
        group = SpaceGroup.from_name(name)
        cell = torch.diag(torch.tensor([9.0, 9.0, 14.0], dtype=torch.float64))
        if name == "R-3":
            cell[1] = torch.tensor([-4.5, 4.5 * 3**0.5, 0])
        transform, inside = primitive_niggli(cell, group)
        copies = len(group) // len(inside)
        assert torch.linalg.det(transform) == pytest.approx(1 / copies)
        x = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        images = group.expand(x) @ torch.linalg.inv(transform)
        again = inside.expand(x @ torch.linalg.inv(transform))
        far = wrap_difference(images[:, None] - again).abs().amax(-1).amin(1)
        assert far.max() < 1e-6


def test_canonical_frames_do_not_see_how_a_molecule_is_turned_and_tell_its_mirror_image():
    """Coordinates are the same for all copies of either hand; the sign is kept by turns and flipped by mirrors."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.tensor([6, 7, 8, 9, 1, 1])
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator) * torch.tensor([3.0, 2.0, 1.0])
    F, s = canonical_frame(numbers, x)
    centred = x - x.mean(0)
    own = s * centred @ F
    assert torch.linalg.det(F) == pytest.approx(1.0)
    for R in random_rotation(20, generator=generator):
        for hand in (1.0, -1.0):
            turned, sign = canonical_frame(numbers, hand * x @ R.T)
            assert sign == hand * s
            torch.testing.assert_close(sign * hand * centred @ R.T @ turned, own)


def test_mirror_images_are_the_crystals_inverted(cells):
    both = cells.with_mirror_images()
    n = len(cells)
    assert len(both) == 2 * n
    assert torch.equal(both.contents.hand[n:][cells.contents.mask], -cells.contents.hand[cells.contents.mask])
    assert wrap_difference(both.centroid[n:] + cells.centroid).abs().max() < 1e-6
    W, w = both.groups.rotations[both.group[n:]], both.groups.translations[both.group[n:]]
    units = both.centroid[n:, :1]
    images = torch.einsum("bgij,bmj->bgi", W, units) + w  # of the first body, under every operation
    far = wrap_difference(images[:, :, None] - both.centroid[n:, None]).abs().amax(-1)
    there = both.contents.mask[n:, None]
    least = torch.where(there, far, 1.0).amin(-1)
    assert least[both.groups.operations[both.group[n:]]].max() < 1e-5


def test_cells_are_taken_by_index_and_trimmed(cells):
    small = torch.nonzero(cells.bodies == cells.bodies.min()).flatten()
    part = cells[small]
    assert part.centroid.shape[1] == int(cells.bodies.min())
    assert part.contents.mask.all()
    assert part.ids == tuple(cells.ids[i] for i in small.tolist())
    alone = cells.contents.without_symmetry(torch.ones(len(cells), dtype=torch.bool))
    assert (alone.rotations == torch.eye(3)).all()
    assert (alone.unit == torch.arange(alone.unit.shape[1])).all()
    units = cells.asymmetric_units(torch.nonzero(cells.units == 1).flatten(), 1)
    assert units.centroid.shape[2] == 1


def test_what_does_not_fit_is_counted(packed):
    first = packed[0]
    packing = first.packing
    many = MOST_BODIES // len(packing.group) + 1
    large = replace(
        packing,
        kind=packing.kind[:1].repeat(many),
        **{n: getattr(packing, n)[:, :1].expand(1, many, *getattr(packing, n).shape[2:]) for n in
           ("centroid", "rotation", "handedness", "conformer")},
    )  # fmt: skip
    crystals = [replace(first, packing=large), first]
    cells, left_out = whole_cells_of(crystals)
    assert left_out == {"too many molecules": 1}
    assert len(cells) == 1
    with pytest.raises(InputError, match="got none"):
        whole_cells_of(crystals[:1])


def test_symmetries_of_the_heavy_atoms_alone_are_no_symmetries(cells):
    """A flat frame has a mirror plane; with a hydrogen off it the molecule has none."""
    table = cells.molecules.molecules
    x = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [0, 1.5, 0], [0.3, -0.5, 0], [0.2, 0.2, 0.0]])
    x[3:, 2] = torch.tensor([0.9, 0.0])
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    one = Molecules(
        **{name: getattr(table, name)[:1] for name in ("anchors", "present", "axes", "volume", "gyration")},
        anchor=torch.zeros(1, 5, dtype=torch.long),
        numbers=torch.tensor([[6, 7, 8, 1, 0]]),
        positions=x[None],
        symmetries=torch.stack([torch.eye(3), mirror])[None],
        symmetric=torch.ones(1, 2, dtype=torch.bool),
    )
    assert with_exact_symmetries(one).symmetric.tolist() == [[True, False]]
    x[3, 2] = 0.0
    flat = with_exact_symmetries(replace(one, positions=x[None]))
    assert flat.symmetric.all()
    assert torch.equal(flat.symmetries[0, 1], mirror)
