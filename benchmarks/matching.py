"""Packing comparison: speed, laws on real crystals, and how lenient each criterion is.

    python benchmarks/matching.py FOLDER_OF_CIFS [--most-atoms 40] [--controls 10] [--limit N] [--structure-matcher]

For every crystal that is read and whose largest molecule has at most `--most-atoms` atoms:

    speed      CPU milliseconds of one comparison with the crystal itself in disguise (turned, mirrored, another cell,
               atoms and molecules in another order), and with a wrong packing (the random control)
    laws       the disguised crystal matches with all molecules and RMSD 0; and so with the arguments swapped
    leniency   of `--controls` random controls (the reference's cell with noise, its molecules in random poses) how many
               match by each criterion: what a generator scores that knows the cell and nothing of the packing

With --structure-matcher (pymatgen) its settings stand beside ours in speed and leniency; that takes long.
"""

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.errors import InputError
from nucleate.metrics.control import random_poses
from nucleate.metrics.criteria import CRITERIA, Criterion, Judge
from nucleate.metrics.heavy_molecules import HeavyMolecules
from nucleate.metrics.packing import PackingReference
from nucleate.metrics.rate import Rate
from nucleate.testing import disguised

LOOSE = CRITERIA["loose"]
ALL = [*CRITERIA.values(), Criterion("loose, clashes allowed", LOOSE.rungs, LOOSE.at_least, LOOSE.max_rmsd)]


def read_all(folder: Path, most_atoms: int, limit: int | None) -> dict[str, Crystal]:
    found = {}
    for path in sorted(folder.glob("*.cif")):
        try:
            crystal = read_crystal(path)
        except InputError:
            continue
        if int(torch.bincount(crystal.molecule).max()) <= most_atoms:
            found[path.stem] = crystal
    return dict(list(found.items())[:limit])


def line(title: str, seconds: list[float]) -> str:
    ms = sorted(1e3 * s for s in seconds)
    high = ms[int(0.95 * (len(ms) - 1))]
    return f"{title:44s}{statistics.median(ms):8.2f}{high:10.2f}{ms[-1]:10.2f}{len(ms):8d}"


def speed_and_laws(crystals: dict[str, Crystal]) -> None:
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = defaultdict(list)
    wrong, swapped, worst = [], [], 0.0
    first = next(iter(crystals.values()))
    PackingReference(first).compare(first)  # compile
    for name, crystal in crystals.items():
        other, control = disguised(crystal, generator, mirror=True), random_poses(crystal, 1, generator)[0]
        HeavyMolecules.of(other)  # automorphisms of a new molecule are found once
        start = time.process_time()
        reference = PackingReference(crystal)
        seconds["preparing a reference"].append(time.process_time() - start)
        start = time.process_time()
        match = reference.compare(other)
        seconds["matching the crystal itself in disguise"].append(time.process_time() - start)
        start = time.process_time()
        rejected = reference.compare(control)
        seconds[
            "rejecting a random packing" if not rejected.is_match else "matching a random packing"
        ].append(time.process_time() - start)
        worst = max(worst, match.rmsd if match.is_match else 0.0)
        if not match.is_match or match.rmsd > 1e-4:
            wrong.append((name, match.n_matched, round(match.rmsd, 4)))
        back = PackingReference(other).compare(crystal)
        if not back.is_match:
            swapped.append((name, back.n_matched))
    print(f"{'CPU ms':44s}{'median':>8s}{'95 %':>10s}{'largest':>10s}{'pairs':>8s}")
    for title, own in seconds.items():
        print(line(title, own))
    good = Rate(len(crystals) - len(wrong), len(crystals))
    print(
        f"itself in disguise: {good} matched 15 of 15 within 1e-4 Å; largest RMSD {worst:.1e} Å {wrong or ''}"
    )
    print(f"arguments swapped:  {Rate(len(crystals) - len(swapped), len(crystals))} {swapped or ''}")


def leniency(crystals: dict[str, Crystal], controls: int) -> None:
    print(f"\nrandom control, {controls} of each of {len(crystals)} crystals")
    print(
        f"{'criterion':24s}{'samples that match':>38s}{f'crystals matched by one of {controls}':>44s}{'CPU s':>8s}"
    )
    for criterion in ALL:
        generator = torch.Generator().manual_seed(1)
        hits, any_hits = 0, 0
        start = time.process_time()
        for crystal in crystals.values():
            judge = Judge(criterion, [crystal])
            same = [judge.judge(c).same for c in random_poses(crystal, controls, generator)]
            hits, any_hits = hits + sum(same), any_hits + any(same)
        took = time.process_time() - start
        samples, targets = Rate(hits, controls * len(crystals)), Rate(any_hits, len(crystals))
        print(f"{criterion.name:24s}{samples!s:>38s}{targets!s:>44s}{took:8.0f}")


def structure_matcher(crystals: dict[str, Crystal], controls: int, time_limit: float) -> None:
    from nucleate.metrics.structure_matcher import StructureMatching, settings_named

    generator = torch.Generator().manual_seed(1)
    draws = {name: random_poses(c, controls, generator) for name, c in crystals.items()}
    pairs = [(crystals[name], control) for name, own in draws.items() for control in own]
    itself = torch.Generator().manual_seed(0)
    equal = [(c, disguised(c, itself, mirror=True)) for c in crystals.values()]
    with StructureMatching(settings_named("molcrystalflow"), workers=2, time_limit=time_limit) as matching:
        same, different = matching.compare(equal), matching.compare(pairs)
    print(f"\nStructureMatcher (ltol 0.3, angle 10, no scaling), time limit {time_limit:g} s a pair")
    print(line("the crystal itself in disguise", [m.seconds for m in same]))
    print(line("the random control", [m.seconds for m in different]))
    for stol in (0.3, 0.5, 0.8, 1.2):
        hits = [m.matched[stol] for m in different]
        by_crystal = [any(hits[i : i + controls]) for i in range(0, len(hits), controls)]
        itself_found = Rate(sum(m.matched[stol] for m in same), len(same))
        print(
            f"stol {stol:3.1f}  itself {itself_found!s:>32s}   control samples {Rate(sum(hits), len(hits))!s:>32s}"
            f"   crystals {Rate(sum(by_crystal), len(by_crystal))!s:>32s}"
        )
    print("out of time or failed:", sum(m.outcome in ("timeout", "failed") for m in same + different))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most-atoms", type=int, default=40)
    parser.add_argument("--controls", type=int, default=10)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--structure-matcher", action="store_true")
    parser.add_argument("--time-limit", type=float, default=20.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    crystals = read_all(options.folder, options.most_atoms, options.limit)
    speed_and_laws(crystals)
    leniency(crystals, options.controls)
    if options.structure_matcher:
        structure_matcher(crystals, options.controls, options.time_limit)


if __name__ == "__main__":
    main()
