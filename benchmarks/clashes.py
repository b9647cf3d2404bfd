"""How close do molecules come in real crystals? The distribution behind `LIMITS`, and what is flagged.

    python benchmarks/clashes.py CIF_FOLDER

For each kind of contact: crystals that have one, the closest ratio of each (distance over reference), and those
below the limit. Then how many crystals each definition of a clash flags, and the time for one crystal.
"""

import sys
import time
from pathlib import Path

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.errors import InputError
from nucleate.metrics.clashes import KINDS, LIMITS, Contacts, contacts, has_clash, overlaps


def read_folder(folder: Path) -> tuple[list[str], list[Crystal], int]:
    names, crystals, failed = [], [], 0
    for path in sorted(folder.glob("*.cif")):
        try:
            crystals.append(read_crystal(path))
            names.append(path.stem)
        except InputError:
            failed += 1
    return names, crystals, failed


def print_kinds(found: list[Contacts]) -> None:
    print("kind            crystals  closest  1 %    10 %   median  limit  below")
    for k, (kind, limit) in enumerate(zip(KINDS, LIMITS)):
        closest = np.array([c.ratio[c.kind == k].min() for c in found if (c.kind == k).any()])
        q = np.quantile(closest, [0, 0.01, 0.1, 0.5])
        print(
            f"{kind:15} {len(closest):8}  {q[0]:.3f}    {q[1]:.3f}  {q[2]:.3f}  {q[3]:.3f}   {limit:.2f}   "
            f"{(closest < limit).sum()}"
        )


def main(folder: str) -> None:
    names, crystals, failed = read_folder(Path(folder))
    print(f"{len(crystals)} crystals read, {failed} failed")
    print_kinds([contacts(c) for c in crystals])
    flagged = [n for n, c in zip(names, crystals) if has_clash(c)]
    print(f"has_clash: {len(flagged)} of {len(crystals)}: {', '.join(flagged)}")
    for definition in ("oxtal", "clari"):
        for depth in (0.7, 0.2):
            hits = [n for n, c in zip(names, crystals) if overlaps(c, definition, depth)]
            few = ": " + ", ".join(hits) if len(hits) < 10 else ""
            print(f"overlaps, {definition} radii, {depth} Å: {len(hits)} of {len(crystals)}{few}")
    middle = min(crystals, key=lambda c: abs(len(c) - 160))
    for name, check in (("has_clash", has_clash), ("overlaps", overlaps)):
        start = time.process_time()
        for _ in range(50):
            check(middle)
        print(f"{name}: {20 * (time.process_time() - start):.2f} CPU-ms for {len(middle)} atoms")


if __name__ == "__main__":
    main(sys.argv[1])
