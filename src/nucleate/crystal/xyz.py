"""XYZ text, plain or extended, to ASE's atoms: cut into frames by us, so that a number of atoms is believed only where
the lines are there and a broken frame costs only itself.

    text --frame_texts--> "N, comment, N lines" each --read_frame--> ase.Atoms
"""

import re
from collections.abc import Iterator
from io import StringIO

import ase
import ase.io
import numpy as np

from nucleate.errors import InputError
from nucleate.reading import why

MOST_COLUMNS = 100  # of one property: ASE makes room for as many as the comment announces
PROPERTIES = re.compile(r"properties=(\S+)", re.IGNORECASE)
BROKEN = (
    ValueError, KeyError, IndexError, OSError, AttributeError, TypeError, ArithmeticError, RuntimeError, StopIteration,
    AssertionError, MemoryError,
)  # fmt: skip
"""What ASE raises, depending on what is wrong."""


def frame_texts(text: str) -> Iterator[str]:
    """The text of each frame. Behind a line that should be a count and is none everything is one broken frame."""
    lines = text.splitlines()
    start = 0
    while start < len(lines):
        count = lines[start].strip()
        if not count:
            start += 1
            continue
        end = start + 2 + int(count) if _is_count(count) else len(lines)
        yield "\n".join(lines[start:end]) + "\n"
        start = end


def read_frame(text: str) -> ase.Atoms:
    """One frame of `frame_texts`. Raises InputError "unreadable", "unknown element" or "not a number"."""
    count, _, rest = text.partition("\n")
    lines = rest.splitlines()
    if not _is_count(count.strip()) or len(lines) != int(count) + 1:
        raise InputError(
            f"expected {count.strip()[:20]!r} atoms, got {max(len(lines) - 1, 0)} lines", reason="unreadable"
        )
    wide = [int(n) for n in re.findall(r":(\d{1,12})", _properties(lines[0]))]
    if max(wide, default=0) > MOST_COLUMNS:
        raise InputError(
            f"expected at most {MOST_COLUMNS} columns of one property, got {max(wide)}", reason="unreadable"
        )
    try:
        atoms = ase.io.read(StringIO(text), index=0, format="extxyz")
    except BROKEN as error:
        raise InputError(f"expected extended XYZ, got: {why(error)[:100]}", reason="unreadable") from None
    assert isinstance(atoms, ase.Atoms)  # one index, one frame
    if not (np.isfinite(atoms.positions).all() and np.isfinite(np.array(atoms.cell)).all()):
        raise InputError(
            "expected coordinates and a cell of numbers, got NaN or infinity", reason="not a number"
        )
    return atoms


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def _properties(comment: str) -> str:
    found = PROPERTIES.search(comment)
    return found[1] if found else ""
