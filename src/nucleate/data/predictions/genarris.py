"""Genarris 3 (github.com/Yi5817/Genarris): `structures/<stage>/structures.json`.

A JSON object of name -> ASE atoms as `ase.io.jsonio` encodes them (gnrs/parallel/io.py, write_parallel): `numbers`,
`positions`, `cell`, `pbc` and `info`, arrays as `{"__ndarray__": [shape, type, values]}`; one structure a line.
Energies are in `info` under the name of the calculator (`uma`, `maceoff`, `aimnet`, `dftbp`, `aims`, `vasp`) or
`<optimiser>_<calculator>`, in eV per cell, the last one computed last; a calculation that failed leaves 0
(gnrs/energy, gnrs/optimize). The file names no molecule.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.data.predictions.sample import Entry, Frame, finite_number
from nucleate.data.predictions.xyz import read_text

CALCULATORS = ("dftbp", "dftb", "aims", "maceoff", "uma", "vasp", "aimnet")
STRUCTURE = re.compile(r'^\s*"(?P<name>[^"]*)"\s*:\s*(?P<atoms>\{.*?)\s*,?\s*$')


def entries_of_json(path: Path) -> Iterator[Entry]:
    text = read_text(path)
    try:
        everything = json.loads(text)
    except (ValueError, RecursionError):
        yield from _line_by_line(path.stem, text)
        return
    if not isinstance(everything, dict) or not everything:
        yield Entry(path.stem, failure="unreadable: expected a JSON object of structures, got something else")
        return
    yield from (_entry(str(name), atoms) for name, atoms in everything.items())


def _line_by_line(stem: str, text: str) -> Iterator[Entry]:
    """A file cut short: Genarris writes one structure a line."""
    for k, line in enumerate(text.splitlines()):
        if line.strip() in ("", "{", "}"):
            continue
        found = STRUCTURE.match(line)
        try:
            yield _entry(found["name"], json.loads(found["atoms"])) if found else _broken(f"{stem}_{k}")
        except (ValueError, RecursionError):
            yield _broken(found["name"] if found else f"{stem}_{k}")
    if not text.strip():
        yield _broken(stem)


def _broken(name: str) -> Entry:
    return Entry(name, failure="unreadable: expected a structure in JSON, got a broken or cut line")


def _entry(name: str, atoms: Any) -> Entry:
    try:
        numbers = _array(atoms["numbers"]).astype(float).reshape(-1)
        positions = _array(atoms["positions"]).astype(float).reshape(-1, 3)
        lattice = _array(atoms["cell"]).astype(float).reshape(3, 3)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        return Entry(name, failure=f"unreadable: expected numbers, positions and cell, got {error!s:.80}")
    if len(numbers) != len(positions):
        return Entry(
            name,
            failure=f"unreadable: expected as many positions as atoms, got {len(positions)} and {len(numbers)}",
        )
    if not ((numbers >= 0) & (numbers <= 118)).all():
        return Entry(name, failure="unknown element: expected atomic numbers, got some beyond 118 or none")
    info = atoms.get("info")
    energy = _energy(info) if isinstance(info, dict) else None
    return Entry(name, Frame(numbers.astype(np.int64), positions, lattice), energy=energy, per_cell=True)


def _array(value: Any) -> np.ndarray:
    """An array or a cell as ASE encodes it in JSON; also plain nested lists."""
    if isinstance(value, dict) and "array" in value:
        value = value["array"]
    if isinstance(value, dict):
        shape, kind, numbers = value["__ndarray__"]
        return np.array(numbers, dtype=float if "float" in kind else int).reshape(shape)
    return np.array(value)


def _energy(info: dict[str, Any]) -> float | None:
    """The last energy computed (eV per cell); 0 is Genarris' word for a failure."""
    found = [finite_number(v) for k, v in info.items() if k == "energy" or k.split("_")[-1] in CALCULATORS]
    known = [e for e in found if e]
    return known[-1] if known else None
