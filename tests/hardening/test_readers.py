"""Whatever is in a file, its reader gives a result or a refusal of one line."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from nucleate import reading
from nucleate.crystal.cif_read import MOST_OPERATIONS, read_crystal
from nucleate.crystal.cluster_xyz import read_trajectory
from nucleate.crystal.formula import parse_formula
from nucleate.crystal.graph import canonical
from nucleate.crystal.io import read_frames, read_molecule, read_molecule_list
from nucleate.crystal.perceive import find_neighbours
from nucleate.crystal.standardise import represent_symmetric
from nucleate.data.containers import read_csv, read_parquet
from nucleate.data.predictions import read_predictions
from nucleate.errors import InputError, NucleateError
from nucleate.pipeline.composition import read_subject
from nucleate.pipeline.units import Unit, load_unit
from nucleate.reading import parse_csv, parse_json, read_file, read_json, unpack
from tests.hardening.readers import FEW_SHAPES, READERS, good_file
from tests.hardening.strategies import CRYSTALS, build, few, hostile_files, hostile_texts

CIF = CRYSTALS[0].read_text()


@contextmanager
def clear() -> Iterator[None]:
    """A result, or a refusal of one line that says something."""
    try:
        yield
    except NucleateError as refusal:
        text = str(refusal)
        assert text.strip()
        assert text.isprintable()


@pytest.mark.parametrize("name", READERS)
@few
@given(data=st.data())
def test_a_hostile_file_is_read_or_refused_in_one_line(
    name: str, data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cif, mutation, seed = data.draw(hostile_files(name))
    reader = READERS[name]
    path = reader.write(build(name, cif, mutation, seed), cif, tmp_path_factory.mktemp("hostile"))
    with clear():
        reader.read(path)


@few
@given(text=hostile_texts("CNOcnos[]()=#@/\\+-.123%*: H"))
def test_a_hostile_text_is_a_molecule_or_refused(text: str) -> None:
    with clear():
        read_molecule(text)


@few
@given(text=hostile_texts("CaTiOH()[]0123456789.·₂ *"))
def test_a_hostile_text_is_a_formula_or_refused(text: str) -> None:
    with clear():
        parse_formula(text)


# ---------------------------------------------------------------- what is no file


def a_folder(path: Path) -> None:
    path.mkdir()


def a_loop_of_links(path: Path) -> None:
    path.symlink_to(path.name)


def a_pipe_that_never_ends(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [a_folder, a_loop_of_links, a_pipe_that_never_ends])
@pytest.mark.parametrize("name", ["CIF", "XYZ", "SDF", "list .smi", "settings", "weights", "COD-Cluster17"])
def test_what_is_no_file_is_refused(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    reader = READERS[name]
    path = reader.write(good_file(reader.good, CRYSTALS[0]), CRYSTALS[0], tmp_path)
    path.unlink()
    make(path)
    with pytest.raises(InputError):
        reader.read(path)


def test_a_name_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing file"):
        read_file(tmp_path / ("x" * 5000), "a CIF")


def test_files_beyond_the_limit_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGEST", 1000)
    (tmp_path / "x.cif").write_bytes(b" " * 1001)
    with pytest.raises(InputError, match="at most 1000 bytes"):
        read_crystal(tmp_path / "x.cif")


def test_what_unpacks_to_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST", 1000)
    members = gzip.compress(b"a" * 600)
    assert unpack(members, Path("x.gz")) == b"a" * 600
    with pytest.raises(InputError, match="unpacked"):
        unpack(members * 2, Path("x.gz"))


def test_the_beginning_of_a_damaged_archive_is_unpacked() -> None:
    text = b"".join(b"line %d\n" % k for k in range(5000))
    begin = unpack(gzip.compress(text)[:-2000], Path("x.gz"))
    assert begin
    assert text.startswith(begin)
    assert unpack(b"plain", Path("x.gz")) == b"plain"
    for data in (gzip.compress(text)[:-2000], b"\x1f\x8b garbage"):
        with pytest.raises(InputError, match="damaged or cut"):
            unpack(data, Path("x.gz"), whole=True)
    assert unpack(gzip.compress(text), Path("x.gz"), whole=True) == text
    assert unpack(b"\x1f\x8b garbage", Path("x.gz")) == b""


# ---------------------------------------------------------------- containers


def test_json_nested_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="deep"):
        parse_json("[" * 100_000)
    (tmp_path / "x.json").write_text('{"a":' * 100_000)
    with pytest.raises(InputError):
        read_json(tmp_path / "x.json")


def test_a_field_that_never_ends_is_refused() -> None:
    names, rows = parse_csv('a,b\n1,"2"\n3\n', Path("x.csv"))
    assert (names, rows) == (["a", "b"], [{"a": "1", "b": "2"}, {"a": "3", "b": ""}])
    with pytest.raises(InputError, match="quotes"):
        parse_csv('a,b\n1,"' + "x" * 200_000, Path("x.csv"))


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "a=1").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"b": [2]}), tmp_path / "a=1" / "x.parquet")
    assert read_parquet(tmp_path / "a=1" / "x.parquet").column_names == ["b"]


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("cif,cif\na,b\n")
    with pytest.raises(InputError, match="twice"):
        read_csv(tmp_path / "x.csv")


# ---------------------------------------------------------------- crystals that would not end


def replaced(old: str, new: str) -> str:
    assert old in CIF
    return CIF.replace(old, new)


LENGTH = next(line for line in CIF.splitlines() if line.startswith("_cell_length_a"))
OPERATION = next(line for line in CIF.splitlines() if "-x" in line)
SITE = next(line for line in CIF.splitlines() if line.startswith("O1"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lambda: replaced(LENGTH, "_cell_length_a 0.01"), "absurd cell"),
        (lambda: replaced(LENGTH, "_cell_length_a 1e7"), "absurd cell"),
        (lambda: replaced(OPERATION, "'x,x,x'"), "unreadable"),
        (lambda: replaced(OPERATION, "\n".join([OPERATION] * MOST_OPERATIONS)), "unreadable"),
        (lambda: replaced(SITE, "O1 O 1e18 0.1 0.1 0.1 Uani 1 1 d . . ."), "unreadable"),
    ],
    ids=["thin", "endless", "flat operation", "many operations", "far away"],
)  # fmt: skip
def test_crystals_that_cannot_be_are_refused(text: Callable[[], str], reason: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_crystal(text())
    assert refusal.value.reason == reason


def test_atoms_of_no_occupancy_are_no_atoms() -> None:
    head = "data_x\n" + "".join(f"_cell_length_{x} 5\n" for x in "abc")
    head += "_symmetry_space_group_name_H-M 'P 1'\nloop_\n_atom_site_label\n_atom_site_occupancy\n"
    head += "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nC1 0 0 0 0\n"
    with pytest.raises(InputError) as refusal:
        read_crystal(head)
    assert refusal.value.reason == "no atoms"


@pytest.mark.parametrize("formula", ["'C0 H0'", "'C1.5.5 H.'", "'C999999999999999999 H1'"])
def test_a_formula_without_sense_is_left_alone(formula: str) -> None:
    line = next(line for line in CIF.splitlines() if line.startswith("_chemical_formula_sum"))
    with clear():
        read_crystal(replaced(line, f"_chemical_formula_sum {formula}"), check_contents=False)


def test_neighbours_without_end_are_refused() -> None:
    cell = 10 * np.eye(3)
    with pytest.raises(InputError) as refusal:
        find_neighbours(cell, np.full((4000, 3), 0.5), 3.0)
    assert refusal.value.reason == "clash"
    for thin, frac in ((np.diag([1e-6, 10, 10]), np.zeros((2, 3))), (cell, np.array([[np.nan, 0, 0]]))):
        with pytest.raises(InputError) as refusal:
            find_neighbours(thin, frac, 3.0)
        assert refusal.value.reason == "absurd cell"


@pytest.mark.parametrize("count", ["99999999999", "3", "-1", "٣", "9" * 5000])
def test_an_xyz_file_is_believed_only_where_the_lines_are_there(count: str, tmp_path: Path) -> None:
    path = tmp_path / "x.xyz"
    path.write_text(f"{count}\n\nO 0 0 0\nH 0 0 1\n")
    with pytest.raises(InputError, match="lines"):
        read_frames(path)


def test_frames_of_other_atoms_are_no_trajectory(tmp_path: Path) -> None:
    path = tmp_path / "x.xyz"
    path.write_text("2\n\nO 0 0 0\nO 0 0 3\n" * 3)
    assert read_trajectory(path, 2)[1].shape == (3, 2, 1, 3)
    for text in ("2\n\nO 0 0 0\nO 0 0 3\n1\n\nO 0 0 0\n", "3\n\nO 0 0 0\nO 0 0 3\nO 0 0 6\n"):
        path.write_text(text)
        with pytest.raises(InputError, match="other atoms"):
            read_trajectory(path, 2)


def test_a_column_of_an_xyz_file_is_not_believed_without_end(tmp_path: Path) -> None:
    path = tmp_path / "x.xyz"
    path.write_text("1\nProperties=species:S:1:pos:R:3000000000\nO 0 0 0\n")
    with pytest.raises(InputError, match="columns"):
        read_frames(path)


def test_a_smiles_without_end_is_refused_before_its_rings_are_looked_for() -> None:
    for text in ("C" * 6000, "C1CCCCC1" * 400):
        with pytest.raises(InputError) as refusal:
            read_molecule(text)
        assert refusal.value.reason == "too large"


ZIRCONOCENE = (
    "CC(C)(C)[c]12->[Zr+4]3456789%10%11(<-[cH]1[cH-]->3[c]->4([Si](C)(C)[c]->51[cH]->6[cH]->7[c-]->8(C(C)(C)C)[cH]->91)"
    "[cH]->%102)<-[N-](CCC[N-]->%11c1ccccc1)c1ccccc1"
)
PALLADIUM = "[Cl-]->[Pd@SP1+2]12<-[c-]3cccc4cccc(-c5cccc(C6=[N]->1[C@@H](c1ccccc1)CO6)[n]->25)c43"


def test_metals_that_have_no_shape_are_refused() -> None:
    """RDKit raises where it finds no bounds, and its marks of square planes have no mirror image in a text."""
    with pytest.raises(NucleateError, match="RDKit to embed"):
        read_subject(ZIRCONOCENE, FEW_SHAPES)
    with clear():
        read_subject(PALLADIUM, FEW_SHAPES)


def test_a_molecule_of_endless_atoms_is_refused_before_the_stack_is_full() -> None:
    with pytest.raises(InputError) as refusal:
        canonical([6] * 40_000, [(i, i + 1) for i in range(39_999)])
    assert refusal.value.reason == "too large"


def test_operations_in_reciprocal_space_are_refused() -> None:
    with pytest.raises(InputError, match="operations"):
        read_crystal(replaced(OPERATION, "'h,k,l'"))


# ---------------------------------------------------------------- one bad among good ones


def test_a_bad_line_of_a_list_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "x.smi").write_bytes(b"CCO ethanol\nC1CC ring\n\xff\xfe\x00 noise\nc1ccccc1 benzene\n")
    found = dict(read_molecule_list(tmp_path / "x.smi"))
    assert found["ethanol"] == "CCO"
    assert found["benzene"] == "c1ccccc1"
    assert isinstance(found["ring"], InputError)
    assert isinstance(found["noise"], InputError)


def test_a_bad_file_of_predictions_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(CIF)
    (tmp_path / "b.cif").write_bytes(os.urandom(100))
    (tmp_path / "c.cif").write_text(replaced(LENGTH, "_cell_length_a nan"))
    (tmp_path / "up").symlink_to(tmp_path)  # a way back up, which would never end
    samples = {sample.name: sample for sample in read_predictions(tmp_path)}
    assert sorted(samples) == ["a", "b", "c"]
    assert samples["a"].crystal is not None
    assert samples["b"].failure
    assert samples["c"].failure


def test_a_damaged_unit_of_a_search_is_done_again(tmp_path: Path) -> None:
    """Also where the tensors are whole but are those of something else."""
    path = tmp_path / "000-000.safetensors"
    unit = Unit(0, 0, 0, "random", 0, 50, None)
    about = json.dumps({"unit": unit.__dict__, "counts": {}, "seconds": {}})
    path.write_bytes(save({"energy": np.zeros(3)}, {"nucleate": about}))
    like, _ = represent_symmetric(read_crystal(CIF))
    assert load_unit(path, unit, like) is None
