"""Pickles are read, not run."""

import collections
import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rdkit import Chem

from nucleate.data.safe_pickle import read_pickle
from nucleate.errors import InputError


class Evil:
    """Makes a file when it is unpickled in the ordinary way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class Polite:
    """A class of somebody's program."""


def written(content: Any, path: Path, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def test_an_evil_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    for wrapped in (Evil(trap), [1, {"rd_mol": Evil(trap)}], (Chem.MolFromSmiles("C"), Evil(trap))):
        with pytest.raises(InputError) as refused:
            read_pickle(written(wrapped, tmp_path / "evil.pickle"))
        assert refused.value.reason == "unsafe pickle"
        assert "mkdir" in str(refused.value)
    assert not trap.exists()
    pickle.loads((tmp_path / "evil.pickle").read_bytes())  # noqa: S301  it is a trap indeed
    assert trap.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n(crdkit.Chem.rdchem\nMol\nS'ToBinary'\ntR.",
        b"\x80\x04\x8c\x0erdkit.Chem.rdchem\x8c\x0cMol.__init__\x93.",
        b"\x80\x02U\x01x\x51.",  # a persistent id
        b"cnumpy.core.multiarray\nscalar\n(I1\nS'x'\ntR.",
        b"cnumpy\ndtype\n(S'O8'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
    ],
)
def test_other_ways_in_are_closed(code: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pickle").write_bytes(code)
    with pytest.raises(InputError):
        read_pickle(tmp_path / "x.pickle")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_what_is_allowed_comes_back(protocol: int, tmp_path: Path) -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles("C[C@H](N)O"))
    plain = {"a": [1, 2.5, None, True], ("b", 3): {"s"}, "text": "é", "bytes": b"\x00\xff"}
    arrays = {"f": np.arange(6.0).reshape(2, 3), "t": np.asfortranarray(np.arange(6).reshape(2, 3))}
    content = {
        "mol": molecule, "plain": plain, "arrays": arrays, "x": np.float64(1.5), "k": np.int32(-7),
        "swapped": np.arange(3, dtype=">i2"), "ordered": collections.OrderedDict(a=1),
    }  # fmt: skip
    back = read_pickle(written(content, tmp_path / "fine.pkl", protocol))
    assert Chem.MolToSmiles(back["mol"]) == Chem.MolToSmiles(molecule)
    assert back["plain"] == plain
    assert (back["x"], back["k"], back["ordered"]) == (1.5, -7, {"a": 1})
    for name in arrays:
        np.testing.assert_array_equal(back["arrays"][name].values, arrays[name])
    np.testing.assert_array_equal(back["swapped"].values, [0, 1, 2])


def test_classes_of_programs_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test_safe_pickle\.Polite"):
        read_pickle(written(Polite(), tmp_path / "x.pkl"))
    with pytest.raises(InputError, match="arrays of numbers"):
        read_pickle(written(np.array([Chem.Mol(), None]), tmp_path / "x.pkl"))
    data = io.BytesIO(b"ctorch_geometric.data.data\nData\n.").getvalue()
    (tmp_path / "data.pkl").write_bytes(data)
    assert "torch_geometric" in {op[1] for op in pickletools.genops(data) if op[1]}.pop()
    with pytest.raises(InputError, match="tensors of a program"):
        read_pickle(tmp_path / "data.pkl")


def test_damaged_files(tmp_path: Path) -> None:
    whole = pickle.dumps({"mol": Chem.MolFromSmiles("CCO"), "x": np.arange(50.0)})
    for content in (b"", b"no pickle at all", whole[:-30], whole[:40]):
        (tmp_path / "x.pkl").write_bytes(content)
        with pytest.raises(InputError):
            read_pickle(tmp_path / "x.pkl")
    with pytest.raises(InputError, match="existing file"):
        read_pickle(tmp_path / "missing.pkl")
