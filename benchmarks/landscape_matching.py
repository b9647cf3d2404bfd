"""Which structures of three published landscapes are the experimental form, by every criterion; duplicates; time.

    python benchmarks/landscape_matching.py --folder FOLDER [--structure-matcher] [--time-limit 20]

FOLDER is that of `landscapes.py`. The reference is the experimental form as PBE+MBD relaxed it; compared with it are
all structures of the PBE+MBD and of the MACE-OFF23(L) landscape. Printed for each criterion: the structures that
match (E: the experimental form itself, relaxed by the other model) with molecules matched and RMSD. With
--structure-matcher (pymatgen) also its answers, and every pair on which it and strict20 disagree.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from landscapes import EXPERIMENTAL, good, read_frames

from nucleate.crystal.crystal import Crystal
from nucleate.metrics.criteria import CRITERIA, Judge
from nucleate.metrics.duplicates import find_duplicates
from nucleate.metrics.packing import compare_packing
from nucleate.metrics.structure_matcher import StructureMatching


def ours(reference: Crystal, others: dict[str, Crystal], own: str) -> dict[str, set[str]]:
    """Names that match by each criterion; prints them."""
    found = {}
    for name, criterion in CRITERIA.items():
        judge = Judge(criterion, [reference])
        judge.judge(reference)  # compile
        start = time.process_time()
        verdicts = {key: judge.judge(c) for key, c in others.items()}
        took = 1e3 * (time.process_time() - start) / len(others)
        found[name] = {key for key, v in verdicts.items() if v.same}
        text = ", ".join(
            f"{'E ' if key.startswith(own) else ''}{key} {v.match.n_matched}/{v.match.n} {v.match.rmsd:.2f} Å"
            for key, v in sorted(verdicts.items(), key=lambda item: item[1].match.rmsd)
            if v.same
        )
        print(f"    {name:9s}{len(found[name]):4d} of {len(others)}, {took:5.1f} CPU-ms a pair: {text}")
    return found


def structure_matcher(
    reference: Crystal, others: dict[str, Crystal], strict: set[str], time_limit: float
) -> None:
    with StructureMatching("molcrystalflow", workers=1, time_limit=time_limit) as matching:
        answers = dict(zip(others, matching.compare([(reference, c) for c in others.values()])))
    mean = sum(a.seconds for a in answers.values()) / len(answers)
    lost = [key for key, a in answers.items() if a.outcome in ("timeout", "failed")]
    for stol in sorted(next(iter(answers.values())).settings.stols):
        hits = sorted(key for key, a in answers.items() if a.matched[stol])
        print(f"    StructureMatcher stol {stol:g}: {len(hits):4d} of {len(others)}: {', '.join(hits[:12])}")
    print(f"      {1e3 * mean:.0f} ms a pair (wall, all four stols), {len(lost)} out of time or failed")
    for key, answer in answers.items():
        if answer.matched[0.5] != (key in strict):
            match = compare_packing(reference, others[key], 20, 0.25, 25.0)
            said = "matches" if answer.matched[0.5] else "does not match"
            print(
                f"      {key}: {said} at stol 0.5 (rms {answer.rms:.2f}, {answer.rms_angstrom:.2f} Å), packing "
                f"{match.n_matched}/20 RMSD {match.rmsd:.2f} Å"
            )


def duplicates(crystals: dict[str, Crystal]) -> None:
    start = time.process_time()
    found = find_duplicates(list(crystals.values()))
    names = list(crystals)
    print(f"  duplicates ({found.settings.criterion}): {time.process_time() - start:.1f} CPU-s")
    for k, first in enumerate(found.representative):
        members = [i for i in range(len(names)) if found.cluster[i] == k and i != first]
        for i in members:
            rmsd = f"{found.rmsd[i]:.2f} Å" if math.isfinite(found.rmsd[i]) else "through others"
            print(f"    {names[i]} = {names[first]} ({rmsd})")
    print(f"    {len(found.representative)} distinct of {len(names)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--structure-matcher", action="store_true")
    parser.add_argument("--time-limit", type=float, default=20.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, forms in EXPERIMENTAL.items():
        pbe = good(read_frames(options.folder / f"{name}_pbe_mbd.extxyz.gz"))
        mace = good(read_frames(options.folder / f"{name}_mace.extxyz.gz"))
        print(f"\n{name}: {len(pbe)} PBE+MBD and {len(mace)} MACE-OFF23(L) structures")
        everything = {f"{key} pbe": c for key, c in pbe.items()} | {
            f"{key} mace": c for key, c in mace.items()
        }
        if len(forms) == 2:
            a, b = (pbe[key] for key in forms)
            match = compare_packing(a, b, 20, 0.25, 25.0)
            print(f"  the two forms by strict20: {match.n_matched}/20 molecules, RMSD {match.rmsd:.2f} Å")
        for own, form in forms.items():
            if own not in pbe:
                print(f"  {form} ({own}) cannot be read")
                continue
            print(f"  {form} ({own})")
            others = {key: c for key, c in everything.items() if key != f"{own} pbe"}
            found = ours(pbe[own], others, own)
            if options.structure_matcher:
                structure_matcher(pbe[own], others, found["strict20"], options.time_limit)
        duplicates(pbe)


if __name__ == "__main__":
    main()
