"""Extended XYZ: one entry a frame, each read on its own, so that a broken one costs only itself.

Understood beside atoms and `Lattice`: an array that labels the molecules (`mol_id`; `bb_idx` and `bb_indices` of
MolCrystalFlow), energies (`energy` in eV per cell as ASE writes it; `E_per_mol_eV` of MolCrystalFlow and
`energy_per_molecule` per molecule), `target` and names (`name`, `ident`, `id`) in the comment line. A frame without a
lattice is a finite cluster.

MolCrystalFlow (github.com/Liu-Group-UF/MolCrystalFlow) writes `pred_*.xyz` and `gt_*.xyz` with the comment
`Pred 0 Lattice="..." Properties=species:S:1:pos:R:3:bb_idx:I:1 pbc="T T T"` (molcrystalflow/data/utils.py,
save_combined_xyz), sample k of crystal i at frame k * n_crystals + i and no name anywhere; its pipeline writes
`<formula>/generated/pred_combined.xyz` through ASE with the array `bb_indices`, and `top10_for_dft.xyz` with
`E_per_mol_eV` (csp-pipeline).
"""

import gzip
import zlib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np

from nucleate.data.predictions.sample import Entry, Frame, finite_number

LABELS = ("mol_id", "bb_idx", "bb_indices", "molecule")
NAMES = ("name", "ident", "id", "structure_id")
PER_MOLECULE = ("energy_per_molecule", "E_per_mol_eV")
BROKEN = (ValueError, KeyError, IndexError, OSError, AttributeError, TypeError, ArithmeticError)


def entries_of_xyz(path: Path) -> Iterator[Entry]:
    text = read_text(path)
    for k, frame in enumerate(_frames(text)):
        yield _entry(f"{path.name.split('.')[0]}_{k + 1}", frame)
    if not text.strip():
        yield Entry(path.stem, failure="unreadable: expected extended XYZ, got an empty file")


def read_text(path: Path) -> str:
    """Text of a plain or gzipped file, as much of it as can be unpacked; bytes that are no UTF-8 are replaced."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data)
    return data.decode("utf-8", errors="replace")


def _unpacked(data: bytes) -> bytes:
    """All of a gzip file, or the beginning of one that was cut short."""
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error):
        pass  # the frames in front of the damage can still be read
    try:
        return zlib.decompressobj(wbits=31).decompress(data)
    except zlib.error:
        return b""


def _frames(text: str) -> Iterator[str]:
    """The text of each frame. Behind a line that should be a count and is none everything is one broken frame."""
    lines = text.splitlines()
    start = 0
    while start < len(lines):
        count = lines[start].strip()
        if not count:
            start += 1
            continue
        end = start + 2 + int(count) if count.isdecimal() else len(lines)
        yield "\n".join(lines[start:end]) + "\n"
        start = end


def _entry(name: str, text: str) -> Entry:
    count, _, rest = text.partition("\n")
    lines = rest.splitlines()
    if not count.strip().isdecimal() or len(lines) != int(count) + 1:
        return Entry(
            name,
            failure=f"unreadable: expected {count.strip()[:20]!r} atoms, got {max(len(lines) - 1, 0)} lines",
        )
    try:
        atoms = ase.io.read(StringIO(text), index=0, format="extxyz")
    except BROKEN as error:
        return Entry(
            name, failure=f"unreadable: expected extended XYZ, got {' '.join(str(error).split())[:100]}"
        )
    assert isinstance(atoms, ase.Atoms)  # one index, one frame
    energy, per_cell = _energy(atoms)
    info: dict[str, Any] = atoms.info
    given = next((str(info[k]) for k in NAMES if k in info), name)
    target = str(info["target"]) if "target" in info else None
    return Entry(given, _structure(atoms), target, energy, per_cell)


def _structure(atoms: ase.Atoms) -> Frame:
    periodic = bool(atoms.pbc.any())  # ASE: true where there is a Lattice, unless the frame says otherwise
    labels = next((atoms.arrays[k] for k in LABELS if k in atoms.arrays and atoms.arrays[k].ndim == 1), None)
    return Frame(
        numbers=atoms.numbers.astype(np.int64),
        positions=atoms.positions.astype(float),
        lattice=np.array(atoms.cell, dtype=float) if periodic else None,
        labels=None if labels is None else np.unique(labels, return_inverse=True)[1],
    )


def _energy(atoms: ase.Atoms) -> tuple[float | None, bool]:
    """Energy, and whether it is that of the whole cell."""
    for key in PER_MOLECULE:
        if (energy := finite_number(atoms.info.get(key))) is not None:
            return energy, False
    kept = atoms.calc.results if atoms.calc is not None else {}
    return finite_number(kept.get("energy", atoms.info.get("energy"))), True
