"""Volumes of molecules in crystals as sums of atomic volumes: the fit behind `ATOM_VOLUMES`, and its error.

    python benchmarks/volumes.py CIF_FOLDER INDEX.csv

Every organic crystal of one species with elements common enough (8 crystals each); V/Z against counts of atoms.
Leave-one-out errors follow from the projector H of the least-squares fit, residual / (1 - h_ii), without refitting.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from nucleate.crystal.io import read_crystal
from nucleate.crystal.rigid import species_from_crystal
from nucleate.errors import InputError
from nucleate.physics.parameters import predicted_volume

COMMON = 8  # crystals that must hold an element before its volume is fitted


def crystal_row(path: Path) -> tuple[dict[str, int], float, float] | None:
    """Atoms of one molecule, Å^3 of crystal for it, and what nucleate predicts; None where that has no meaning."""
    try:
        crystal = read_crystal(path)
        [molecule] = species_from_crystal(crystal)
        predicted = predicted_volume(molecule)
    except (InputError, ValueError):
        return None
    symbols = [a.GetSymbol() for a in molecule.graph.GetAtoms()]
    counts = {s: symbols.count(s) for s in set(symbols)}
    return counts, crystal.volume / crystal.n_molecules, predicted


def main(folder: str, index: str) -> None:
    with open(index) as lines:
        wanted = [r["cod_id"] for r in csv.DictReader(lines) if r["organic_only"] == r["n_species"] == "1"]
    found = [crystal_row(Path(folder) / f"{name}.cif") for name in wanted]
    rows = [row for row in found if row is not None]
    carriers = {
        s: sum(s in counts for counts, _, _ in rows) for s in {s for counts, _, _ in rows for s in counts}
    }
    elements = sorted(s for s, n in carriers.items() if n >= COMMON)
    used = [row for row in rows if set(row[0]) <= set(elements)]
    X = np.array([[counts.get(s, 0) for s in elements] for counts, _, _ in used], float)
    volume = np.array([v for _, v, _ in used])
    weighted = X / volume[:, None]  # relative errors are what counts
    fit, *_ = np.linalg.lstsq(weighted, np.ones(len(used)), rcond=None)
    leverage = np.einsum("ij,ji->i", weighted, np.linalg.pinv(weighted))
    left_out = np.abs((1 - weighted @ fit) / (1 - leverage))
    shipped = np.abs(np.array([p for _, _, p in used]) / volume - 1)
    print(f"{len(wanted)} crystals asked for, {len(rows)} read, {len(used)} used")
    print("fitted here (Å^3):", ", ".join(f"{s} {v:.1f}" for s, v in zip(elements, fit)))
    for name, error in (("leave one out", left_out), ("shipped table", shipped)):
        print(
            f"{name}: mean error {100 * error.mean():.1f} %, median {100 * np.median(error):.1f} %, "
            f"90th percentile {100 * np.quantile(error, 0.9):.1f} %"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
