"""Import a folder of CIF files: how many are read, why the others are refused, and whether round trips hold.

    python benchmarks/cod_import.py FOLDER [--index INDEX.csv]

The index, if given, has columns cod_id, formula_unit ("C9H8O4x4;H2O1x4": molecules in the cell), space_group (number)
and z_prime; disagreements are listed. Round trips, for every file that is read:

    cif     crystal -> write -> read: same density, same distances below 5 Å (farthest disagreement in Å)
    rigid   crystal -> rigid bodies in P1 -> crystal: farthest atom (Å); copies merged into one
            conformer (0.15 Å RMSD) show up here
    unit    crystal -> rigid bodies of the asymmetric unit -> crystal
    ase     atoms of the written file as ASE reads them
"""

import argparse
import csv
import io
import statistics
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import ase.io
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.cif_write import cif_text
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.graph import molecule_atoms
from nucleate.crystal.perceive import TABLE, find_neighbours
from nucleate.crystal.rigid import represent_rigid
from nucleate.crystal.standardise import find_symmetry, represent_symmetric
from nucleate.errors import InputError

LIMITS = {"cif": 1e-3, "rigid": 0.5, "unit": 0.5, "ase": 1e-3}  # Å


def farthest(a: Crystal, b: Crystal) -> float:
    """Å between atoms of two crystals in one cell; infinite where counts differ."""
    if len(a) != len(b):
        return float("inf")
    step = a.frac[:, None] - b.frac[None]
    far = ((step - step.round()) @ a.lattice).norm(dim=-1) + 1e3 * (a.numbers[:, None] != b.numbers)
    return float(torch.maximum(far.min(0).values.max(), far.min(1).values.max()))


def distances(crystal: Crystal, reach: float) -> torch.Tensor:
    near = find_neighbours(crystal.lattice.numpy(), crystal.frac.numpy(), reach)
    low = torch.minimum(crystal.numbers[near.i], crystal.numbers[near.j])
    high = torch.maximum(crystal.numbers[near.i], crystal.numbers[near.j])
    return (1e5 * low + 1e3 * high + torch.from_numpy(near.distance)).sort().values


def cif_error(crystal: Crystal, back: Crystal) -> float:
    """Largest disagreement of sorted distances (Å), cells of equal content taken; infinite if counts differ."""
    times = len(back) / len(crystal)
    if abs(back.density / crystal.density - 1) > 1e-5 or times != int(times):
        return float("inf")
    ours, theirs = distances(crystal, 5.0).repeat_interleave(int(times)), distances(back, 5.0)
    if abs(len(ours) - len(theirs)) > 4 * times:
        return float("inf")
    if len(ours) != len(theirs):  # a pair at 5.000 Å fell on the other side
        ours, theirs = ours[ours % 1e3 < 4.99], theirs[theirs % 1e3 < 4.99]
    return float((ours - theirs).abs().max()) if len(ours) == len(theirs) else float("inf")


def as_ase_reads(text: str, like: Crystal) -> Crystal:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms = ase.io.read(io.StringIO(text), format="cif")
    return like.replace(
        frac=torch.tensor(atoms.get_scaled_positions()),
        numbers=torch.tensor(atoms.numbers.astype("int64")),
        molecule=torch.zeros(len(atoms), dtype=torch.long),
    )


def round_trips(crystal: Crystal) -> dict[str, float]:
    text = cif_text(crystal)
    back = read_crystal(text)
    return {
        "cif": cif_error(crystal, back),
        "ase": farthest(as_ase_reads(text, back), back),
        "rigid": farthest(represent_rigid(crystal)[0].crystal(0), crystal),
        "unit": farthest(represent_symmetric(crystal)[0].crystal(0), crystal),
    }


def contents(crystal: Crystal) -> str:
    """Molecules of the cell in the notation of the index."""
    found: Counter[str] = Counter()
    for atoms in molecule_atoms(crystal):
        counts = Counter(TABLE.GetElementSymbol(z) for z in crystal.numbers[atoms].tolist())
        first = [e for e in "CH" if e in counts] if "C" in counts else []
        found["".join(f"{e}{counts[e]}" for e in first + sorted(set(counts) - set(first)))] += 1
    return ";".join(sorted(f"{formula}x{n}" for formula, n in found.items()))


def disagreements(crystal: Crystal, row: dict[str, str]) -> list[str]:
    expected = ";".join(sorted(row["formula_unit"].split(";")))
    symmetry = find_symmetry(crystal)
    single = ";" not in expected  # for several species the index counts Z' by the commonest molecule
    notes = []
    if contents(crystal) != expected:
        notes.append(f"molecules {contents(crystal)}, index {expected}")
    if str(symmetry.number) != row["space_group"]:
        notes.append(f"space group {symmetry.number}, index {row['space_group']}")
    if single and abs(symmetry.z_prime - float(row["z_prime"])) > 0.01:
        notes.append(f"Z' {symmetry.z_prime:g}, index {row['z_prime']}")
    return notes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path)
    options = parser.parse_args()
    index = {}
    if options.index:
        with options.index.open() as lines:
            index = {row["cod_id"]: row for row in csv.DictReader(lines)}
    files = sorted(p for p in options.folder.iterdir() if p.name.endswith(".cif"))
    reasons: Counter[str] = Counter()
    seconds, errors = [], defaultdict(list)
    read_crystal(files[0])  # leave first-call costs out
    for path in files:
        name = path.name.removesuffix(".cif")
        start = time.perf_counter()
        try:
            crystal = read_crystal(path)
        except InputError as error:
            reasons[error.reason] += 1
            print(f"{name}: {error.reason}: {error}")
            continue
        seconds.append(time.perf_counter() - start)
        reasons["imported"] += 1
        for note in (crystal.info or {}).get("warnings", []):
            print(f"{name}: warning: {note}")
        for note in disagreements(crystal, index[name]) if name in index else []:
            print(f"{name}: {note}")
        for kind, error in round_trips(crystal).items():
            errors[kind].append((error, name))
    print(f"\n{len(files)} files")
    for reason, count in reasons.most_common():
        print(f"  {reason:24s}{count:5d}")
    print(f"seconds a file: median {statistics.median(seconds):.4f}, largest {max(seconds):.4f}")
    for kind, found in errors.items():
        good = sum(error <= LIMITS[kind] for error, _ in found)
        tight = sum(error <= 1e-3 for error, _ in found)
        print(
            f"round trip {kind:6s}{good}/{len(found)} within {LIMITS[kind]:g} Å, {tight} within 1e-3 Å; ",
            end="",
        )
        print("worst", ", ".join(f"{name} {error:.2g}" for error, name in sorted(found, reverse=True)[:4]))


if __name__ == "__main__":
    main()
