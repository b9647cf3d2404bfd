"""Tables of inorganic crystals: cells survive the way to tensors and back, volumes are learnt, bad rows are counted."""

import math

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from ase.build import bulk
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from nucleate.crystal.sites import Sites, primitive_niggli_sites, sites_of_atoms
from nucleate.data.inorganic import (
    Contents,
    element_volumes,
    expected_volume,
    read_table,
    sites_of,
    structures_of,
)
from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation

CIF = """data_{name}
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M '{group}'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
A1 {first} 0 0 0
B1 {second} 0.5 0.5 0.5
"""
SALT = CIF.format(name="NaCl", a=5.64, group="F m -3 m", first="Na", second="Cl")
CSCL = CIF.format(name="CsCl", a=4.12, group="P m -3 m", first="Cs", second="Cl")


def crystals() -> list[Sites]:
    atoms = [
        bulk("NaCl", "rocksalt", 5.64, cubic=True),
        bulk("Ti", "hcp", 2.95, c=4.68),
        bulk("Fe", "bcc", 2.87),
    ]
    return [primitive_niggli_sites(sites_of_atoms(a)) for a in atoms]


def same(a: Sites, b: Sites) -> bool:
    first, second = (
        Structure(Lattice(s.lattice.numpy()), s.numbers.tolist(), s.frac.numpy()) for s in (a, b)
    )
    return StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.1, scale=False, primitive_cell=False).fit(
        first, second
    )


def test_crystals_come_back_as_they_were():
    given = crystals()
    data = structures_of(given)
    for row, crystal in enumerate(given):
        back = sites_of(data, row)
        assert back.composition == crystal.composition
        torch.testing.assert_close(
            back.lattice @ back.lattice.T, crystal.lattice @ crystal.lattice.T, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(back.frac, crystal.frac, atol=1e-6, rtol=0)
        assert same(back, crystal)


def test_turning_a_crystal_in_space_changes_no_number():
    given = crystals()
    Q = random_rotation(generator=torch.Generator().manual_seed(1))
    turned = [Sites(s.lattice @ Q.T, s.frac, s.numbers) for s in given]
    a, b = structures_of(given), structures_of(turned)
    torch.testing.assert_close(a.lattice, b.lattice, atol=1e-6, rtol=0)
    assert torch.equal(a.frac, b.frac)


def test_contents_are_padded_and_chosen():
    contents = Contents.of([[11, 17], [22, 8, 8], [26]])
    assert contents.numbers.tolist() == [[11, 17, 0], [22, 8, 8], [26, 0, 0]]
    assert contents.sizes.tolist() == [2, 3, 1]
    assert contents[torch.tensor([2, 0])].numbers.tolist() == [[26, 0], [11, 17]]
    for bad in ([[]], [[11, 95]], [[0]]):
        with pytest.raises(InputError, match="expected crystals of elements"):
            Contents.of(bad)


def test_volumes_of_elements_are_found():
    generator = torch.Generator().manual_seed(0)
    true = 10 + 30 * torch.rand(94, generator=generator)
    sites = []
    for _ in range(600):
        numbers = torch.randint(
            1, 21, (int(torch.randint(1, 9, (), generator=generator)),), generator=generator
        )
        volume = float(true[numbers - 1].sum())
        frac = torch.rand(len(numbers), 3, generator=generator).double()
        sites.append(Sites(torch.eye(3).double() * volume ** (1 / 3), frac, numbers))
    data = structures_of(sites)
    found = element_volumes(data, pull=1e-3)
    torch.testing.assert_close(found[:20], true[:20], rtol=0.02, atol=0)
    error = expected_volume(data.contents, found) / (data.volume_per_atom * data.contents.sizes) - 1
    assert error.abs().max() < 0.02
    # elements without data take the mean volume (geometric) of all atoms
    assert math.isclose(float(found[50]), float(data.volume_per_atom.log().mean().exp()), rel_tol=1e-3)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_tables_are_read_and_bad_rows_counted(tmp_path, kind):
    bad = SALT.replace("Cl 0.5", "Xx 0.5")
    table = pyarrow.table(
        {
            "material_id": ["a", "b", "c", "d", "e"],
            "cif": [
                SALT,
                bad,
                CSCL,
                "nonsense",
                SALT.replace("0.5 0.5 0.5", "? ? ?").replace("0 0 0", "? ? ?"),
            ],
            "gap": [8.5, 0.0, None, 1.0, 2.0],
        }
    )
    path = tmp_path / f"table.{kind}"
    pyarrow.parquet.write_table(table, path) if kind == "parquet" else pyarrow.csv.write_csv(table, path)
    read = read_table(path)
    assert read.names == ["a", "c"]
    assert [len(s) for s in read.sites] == [2, 2]  # primitive
    assert np.isclose(read.sites[0].volume, 5.64**3 / 4, rtol=1e-3)
    assert read.columns["gap"] == [8.5, None]
    assert read.left_out == {"unknown element": 1, "unreadable": 1, "no atoms": 1}
    known = structures_of(read.sites, {"gap": read.columns["gap"]}).properties["gap"]
    assert known[0] == 8.5
    assert known[1].isnan()
    assert read_table(tmp_path).names == read.names  # the only table of a folder
    with pytest.raises(InputError, match=r"got none \(2 too many atoms, .*1 unknown element"):
        read_table(path, most_atoms=1)


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="found none"):
        read_table(tmp_path / "missing.parquet")
    with pytest.raises(InputError, match="expected one table"):
        read_table(tmp_path)
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(InputError, match="expected a readable table"):
        read_table(tmp_path / "x.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="expected a column `cif`"):
        read_table(tmp_path / "y.parquet")
