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

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase
import numpy as np

from nucleate.crystal.xyz import frame_texts, read_frame
from nucleate.data.predictions.sample import Entry, Frame, finite_number
from nucleate.errors import InputError
from nucleate.reading import read_file, unpack

LABELS = ("mol_id", "bb_idx", "bb_indices", "molecule")
NAMES = ("name", "ident", "id", "structure_id")
PER_MOLECULE = ("energy_per_molecule", "E_per_mol_eV")


def entries_of_xyz(path: Path) -> Iterator[Entry]:
    text = read_text(path)
    for k, frame in enumerate(frame_texts(text)):
        yield _entry(f"{path.name.split('.')[0]}_{k + 1}", frame)
    if not text.strip():
        yield Entry(path.stem, failure="unreadable: expected extended XYZ, got an empty file")


def read_text(path: Path) -> str:
    """Text of a plain or gzipped file, as much of it as can be unpacked; bytes that are no UTF-8 are replaced."""
    return unpack(read_file(path, "predictions"), path).decode("utf-8", errors="replace")


def _entry(name: str, text: str) -> Entry:
    try:
        atoms = read_frame(text)
    except InputError as error:
        return Entry(name, failure=f"{error.reason}: {error}")
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
