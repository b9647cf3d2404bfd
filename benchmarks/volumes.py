"""Volumes of molecules in crystals: the fit behind `VOLUMES`, and what it is worth on crystals that it has not seen.

    python benchmarks/volumes.py CIF_FOLDER INDEX.csv [--evaluate CRYSTALS.extxyz]

Cells of organic crystals against counts of their molecules' parts (atoms, polar hydrogens, rings): relative errors in
Huber's norm, and a normal prior: for atoms the volumes of Hofmann, Acta Cryst. B58, 489 (2002) with a deviation of
2 Å^3, for the other parts 0 with 3 Å^3. Fitted to the training part of INDEX.csv; printed are the errors of ten-fold
cross-validation there (all crystals of a molecule in one fold), of the other parts, and of other crystals, for the
published volumes, for sums over atoms as they were before (`ATOM_VOLUMES`, fitted to all parts), for a fit to atoms
alone, for this fit, and for what is shipped. Temperatures (90 to 300 K) are not told.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.crystal.rigid import represent_rigid, species_from_crystal
from nucleate.data.predictions import read_references
from nucleate.errors import InputError
from nucleate.metrics.heavy_molecules import molecule_key
from nucleate.physics.parameters import ATOM_VOLUMES, VOLUMES, volume_parts

HOFMANN = {
    **{"H": 5.08, "B": 13.24, "C": 13.87, "N": 11.8, "O": 11.39, "F": 11.17, "Si": 37.3, "P": 29.5},
    **{"S": 25.2, "Cl": 25.8, "Br": 32.7, "I": 46.2},
}
ATOM_DEVIATION, PART_DEVIATION = 2.0, 3.0  # Å^3: how far the fit may go from its prior
HUBER = 0.06  # relative error from which on a crystal pulls no harder
NOISE = 0.045  # relative deviation of crystals to begin with
FOLDS = 10


@dataclass(frozen=True)
class Cell:
    """One crystal: what its cell holds, its volume (Å^3), and its molecules."""

    parts: Counter[str]
    volume: float
    key: str
    split: str


def cell_of(crystal: Crystal, split: str) -> Cell:
    """Raises InputError for crystals without whole molecules, or with elements of unknown volume."""
    species = species_from_crystal(crystal)
    kinds = represent_rigid(crystal, species)[0].kind.tolist()
    parts: Counter[str] = Counter()
    for kind in kinds:
        parts += volume_parts(species[kind])
    if unknown := parts.keys() - VOLUMES.keys():
        raise InputError(
            f"expected elements of known volume, got {', '.join(sorted(unknown))}", "unknown element"
        )
    return Cell(parts, float(crystal.volume), ".".join(sorted({molecule_key(m) for m in species})), split)


def read_cells(found: Iterator[tuple[Crystal | InputError, str]]) -> tuple[list[Cell], int]:
    """The cells, and how many crystals have none."""
    cells, failed = [], 0
    for crystal, split in found:
        try:
            if isinstance(crystal, InputError):
                raise crystal
            cells.append(cell_of(crystal, split))
        except (InputError, ValueError):
            failed += 1
    return cells, failed


def organic(folder: Path, index: Path) -> Iterator[tuple[Crystal | InputError, str]]:
    with index.open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["organic_only"] == "1" and row["cod_id"]]
    for row in rows:
        try:
            yield read_crystal(folder / f"{row['cod_id']}.cif"), row["split"]
        except InputError as error:
            yield error, row["split"]


def fitted(cells: Sequence[Cell], names: Sequence[str]) -> dict[str, float]:
    """Å^3 of each part: iteratively reweighted ridge regression of 1 on parts / volume."""
    X = design(cells, names)
    prior = np.array([HOFMANN.get(name, 0.0) for name in names])
    allowed = np.array([ATOM_DEVIATION if name in HOFMANN else PART_DEVIATION for name in names])
    b, weight, noise = prior, np.ones(len(X)), NOISE
    for _ in range(10):
        curvature = (X.T * weight) @ X / noise**2 + np.diag(1 / allowed**2)
        b = prior + np.linalg.solve(curvature, (X.T * weight) @ (1 - X @ prior) / noise**2)
        residual = 1 - X @ b
        weight = np.minimum(1, HUBER / np.maximum(np.abs(residual), 1e-12))
        noise = max(np.sqrt((weight * residual**2).sum() / weight.sum()), 0.02)
    return dict(zip(names, b.tolist()))


def design(cells: Sequence[Cell], names: Sequence[str]) -> np.ndarray:
    return np.array([[cell.parts[name] / cell.volume for name in names] for cell in cells])


def errors(cells: Sequence[Cell], volumes: dict[str, float]) -> np.ndarray:
    """Relative, positive where the prediction is larger."""
    return design(cells, list(volumes)) @ np.array(list(volumes.values())) - 1


def cross_validated(cells: Sequence[Cell], names: Sequence[str]) -> np.ndarray:
    keys = sorted({cell.key for cell in cells})
    fold_of = dict(zip(keys, np.random.default_rng(0).permutation(len(keys)) % FOLDS))
    fold = np.array([fold_of[cell.key] for cell in cells])
    found = np.zeros(len(cells))
    for k in range(FOLDS):
        volumes = fitted([cell for cell, f in zip(cells, fold) if f != k], names)
        found[fold == k] = errors([cell for cell, f in zip(cells, fold) if f == k], volumes)
    return found


def described(found: np.ndarray) -> str:
    size = 100 * np.abs(found)
    return (
        f"{size.mean():5.2f} {100 * found.mean():+5.2f} {np.median(size):5.2f} {np.quantile(size, 0.9):5.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--evaluate", type=Path, help="crystals that are never fitted")
    options = parser.parse_args()
    cells, failed = read_cells(organic(options.folder, options.index))
    train = [cell for cell in cells if cell.split == "train"]
    parts = {"train": train, "val+test": [cell for cell in cells if cell.split != "train"]}
    print(f"COD: {len(cells)} crystals, {failed} left out")
    if options.evaluate:
        forms = (form for own in read_references(options.evaluate).values() for form in own)
        parts[options.evaluate.name], failed = read_cells((form, "") for form in forms)
        print(f"{options.evaluate.name}: {len(parts[options.evaluate.name])} crystals, {failed} left out")
    Fit = Callable[[], dict[str, float]]
    models: dict[str, tuple[Fit, list[str]]] = {
        "Hofmann 2002": (lambda: HOFMANN, []),
        "atoms, as before": (lambda: ATOM_VOLUMES, []),
        "atoms, fitted": (lambda: fitted(train, list(HOFMANN)), list(HOFMANN)),
        "parts, fitted": (lambda: fitted(train, list(VOLUMES)), list(VOLUMES)),
        "parts, shipped": (lambda: VOLUMES, []),
    }
    print("errors in %: mean, bias, median, 90th percentile")
    for name, (fit, names) in models.items():
        volumes = fit()
        columns = {part: errors(own, volumes) for part, own in parts.items()}
        if names:
            columns["train"] = cross_validated(train, names)
        print(f"{name:18s}" + " | ".join(f"{part} {described(own)}" for part, own in columns.items()))
    print("Å^3:", ", ".join(f"{name} {v:.2f}" for name, v in fitted(train, list(VOLUMES)).items()))


if __name__ == "__main__":
    main()
