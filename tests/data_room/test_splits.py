"""One rule of what is learnt from: splits that data sets name are kept, a hash decides for the others."""

from pathlib import Path

import pytest

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.crystal.standardise import represent_symmetric
from nucleate.data.packed import PackedCrystal, to_row, write_shard
from nucleate.data.splits import learnt_and_held, read_split_rows, split_of
from nucleate.errors import InputError

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def rows():
    found = []
    for name in ("1100989", "2003630", "4110681"):
        packing, _ = represent_symmetric(normalise_hydrogens(read_crystal(DATA / f"cod_{name}.cif")))
        found.append(to_row(PackedCrystal(packing, name, "cod")))
    assert len({row["key"] for row in found}) == 3
    return found


def write(folder, rows, **about):
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(rows, folder / "00000.parquet", {"settings": {}, **about})


def ids(rows):
    return sorted(row["id"] for row in rows)


def test_named_splits_are_kept_and_test_is_never_seen(rows, tmp_path):
    for row, split in zip(rows, ("train", "val", "test")):
        write(tmp_path / split, [row], split=split)
    learnt, held = learnt_and_held(tmp_path)
    assert (ids(learnt), ids(held)) == ([rows[0]["id"]], [rows[1]["id"]])


def test_a_hash_decides_where_nothing_is_named(rows, tmp_path):
    write(tmp_path, rows)
    for split, own in read_split_rows(tmp_path).items():
        assert all(split_of(row["key"]) == split for row in own)
    assert sum(map(len, read_split_rows(tmp_path).values())) == 3


def test_a_molecule_that_one_data_set_holds_out_is_held_out_of_all(rows, tmp_path):
    copies = [replace_id(row, f"synthetic {i}") for i, row in enumerate(rows)]
    write(tmp_path / "cod_train", rows[:1], split="train")
    write(tmp_path / "cod_test", rows[1:], split="test")
    write(tmp_path / "synthetic", copies, split="train")
    found = read_split_rows(tmp_path)
    assert ids(found["train"]) == sorted([rows[0]["id"], "synthetic 0"])
    assert len(found["test"]) == 4


def replace_id(row, name):
    return row | {"id": name}


def test_what_lacks_is_said(rows, tmp_path):
    write(tmp_path / "train", rows, split="train")
    with pytest.raises(InputError, match=r"split val .* got 3 train; give the folder"):
        learnt_and_held(tmp_path)
    write_shard(rows[:1], tmp_path / "train" / "00001.parquet", {"settings": {}, "split": "val"})
    with pytest.raises(InputError, match="shards of one split"):
        learnt_and_held(tmp_path)
    with pytest.raises(InputError, match="expected a data set"):
        learnt_and_held(tmp_path / "nothing")
