"""Reading pickles of others without running what is in them.

A pickle is a program: it may name any function and call it. Here it may name RDKit molecules, plain arrays and numbers
of numpy, and nothing else; numpy's own unpickling is replaced by a few lines that look at sizes and kinds. What
RDKit's reader of molecules is given is data to it, not code.
"""

import pickle
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from nucleate.errors import InputError
from nucleate.reading import read_file

KINDS = "biuf"  # of numbers in arrays: booleans, integers, floats
FRAMES = ("torch", "torch_geometric", "e3nn")


def read_pickle(path: Path) -> Any:
    """What is in the file: containers, numbers, texts, RDKit molecules, arrays.

    Raises InputError with reason "unreadable", or "unsafe pickle" where it asks for anything else.
    """
    content = read_file(path, "a pickle")
    try:
        return _Restricted(BytesIO(content)).load()
    except InputError as error:
        raise InputError(f"{path.name}: {error}", error.reason) from None
    except (
        pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError,
        OverflowError, MemoryError, RuntimeError,
    ) as error:  # fmt: skip
        why = " ".join(f"{type(error).__name__} {error}".split())[:100]
        raise InputError(
            f"expected a pickle, got {path} that cannot be read ({why}); is it whole?", "unreadable"
        ) from error


class _Restricted(pickle.Unpickler):
    """Finds only what is on the list."""

    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get((module.replace("numpy._core", "numpy.core"), name))
        if found is not None:
            return found
        hint = "convert it to SDF, which any program reads"
        if module.split(".")[0] in FRAMES:
            hint = "it holds the tensors of a program; give the molecules it was made from, as RDKit pickles or SDF"
        raise InputError(
            f"expected RDKit molecules, numbers and texts in a pickle, got {module}.{name}; {hint}",
            reason="unsafe pickle",
        )

    def persistent_load(self, pid: Any) -> Any:
        raise InputError(
            "expected a plain pickle, got references to other files; it is a checkpoint of a program",
            reason="unsafe pickle",
        )


class _Dtype:
    """Stands for numpy.dtype: a kind of plain numbers and its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        kind = np.dtype(code) if isinstance(code, str) and code[:1] in KINDS else None
        if kind is None:
            raise InputError(f"expected arrays of numbers, got {code!r}", reason="unsafe pickle")
        self.kind: np.dtype[Any] = kind

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order in ("<", ">"):
            self.kind = self.kind.newbyteorder(order)


class _Array:
    """Stands for numpy.ndarray until its numbers come."""

    def __init__(self, *_: Any) -> None:
        self.values = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        self.values = _numbers(data, dtype, shape, "F" if by_columns else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """How protocol 5 writes arrays."""
    found = _Array()
    found.values = _numbers(data, dtype, shape, order)
    return found


def _numbers(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise InputError("expected arrays of numbers, got others", reason="unsafe pickle")
    return np.frombuffer(data, dtype.kind).reshape(tuple(shape), order=order).copy()


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise InputError("expected a number, got another object", reason="unsafe pickle")
    return np.frombuffer(data, dtype.kind)[0].item()


def _latin(text: Any, encoding: Any = "latin1") -> bytes:
    """How old protocols write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise InputError(f"expected bytes in latin1, got {encoding!r}", reason="unsafe pickle")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Any] = {
    ("rdkit.Chem.rdchem", "Mol"): Chem.Mol,
    ("rdkit.Chem.rdchem", "RWMol"): Chem.RWMol,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array,
    ("_codecs", "encode"): _latin,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
}
