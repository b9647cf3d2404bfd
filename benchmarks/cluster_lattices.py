"""How often does a cluster of 17 molecules give its crystal back, exact and with noise?

    python benchmarks/cluster_lattices.py CIFS [--limit 80]

CIFS is a folder of known crystals. Each one with one kind of molecule, at most one in the asymmetric unit, becomes a
cluster; every molecule is moved by normal steps; `find_cell` looks for the lattice. Found: 15 of 15 molecules of the
packing comparison with the known crystal; other: a lattice, but not that one; none: no lattice, with its reason.
"""

import argparse
import math
import time
from collections import Counter
from pathlib import Path

import torch

from nucleate.crystal.assemble import with_lewis_structures
from nucleate.crystal.cluster import Cluster
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.crystal.open_space import crystal_of_cluster
from nucleate.crystal.rigid import normalise_hydrogens, species_from_crystal
from nucleate.data.clusters import Loosening, cluster_of, evaluation_copies
from nucleate.errors import InputError
from nucleate.metrics.packing import compare_packing
from nucleate.pipeline.cluster_cell import find_cell

NOISE = ((0.0, 0.0), (0.1, 3.0), (0.25, 7.0))  # Å along each axis, degrees


def outcome(crystal: Crystal, cluster: Cluster, translation: float, degrees: float) -> tuple[str, float]:
    """What became of it, and the relative error of the volume of a molecule."""
    one = crystal_of_cluster(cluster.with_positions(cluster.positions[:1]))
    [molecule] = species_from_crystal(with_lewis_structures(one))
    how = Loosening(translation=translation, rotation=math.radians(degrees))
    [given] = evaluation_copies([cluster], how, 1)
    try:
        found = find_cell(given, molecule).crystal
    except InputError:
        return "none", math.nan
    error = found.volume / found.n_molecules / (crystal.volume / crystal.n_molecules) - 1
    return ("found" if compare_packing(crystal, found).is_match else "other"), error


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cifs", type=Path)
    parser.add_argument("--limit", type=int, default=80)
    given = parser.parse_args()
    torch.set_num_threads(1)
    known: list[tuple[Crystal, Cluster]] = []
    for path in sorted(given.cifs.glob("*.cif")):
        try:
            crystal = normalise_hydrogens(read_crystal(path))
            known.append((crystal, cluster_of(crystal.replace(info={"id": path.stem}))))
        except InputError:
            continue
        if len(known) == given.limit:
            break
    print(
        "| noise | found | other | none | volume error of those found | CPU-s each |\n|---|---|---|---|---|---|"
    )
    for translation, degrees in NOISE:
        began = time.process_time()
        ends = [outcome(*pair, translation, degrees) for pair in known]
        seconds = (time.process_time() - began) / len(known)
        count = Counter(kind for kind, _ in ends)
        errors = [abs(error) for kind, error in ends if kind == "found"]
        row = f"{count['found']} of {len(known)} | {count['other']} | {count['none']}"
        print(
            f"| {translation:g} Å, {degrees:g}° | {row} | {100 * sum(errors) / len(errors):.1f} % | {seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
