"""What it costs to score inorganic crystals, and that the shortcuts change no answer.

    python benchmarks/inorganic_matching.py TEST.parquet [--train TRAIN.parquet] [--limit N] [--sample 300]

Every crystal of TEST is paired with a perturbed copy (volume +6 %, atoms moved by 0.1 Å) and with its atoms at random
in its cell. Printed for both: CPU-seconds of all processes for all pairs, the same by pymatgen's StructureMatcher
without anything around it (`--sample` pairs, extrapolated), and pairs of that sample on which the two disagree in
whether they match or by more than 1e-6 in the RMS. Then how many pairs METRe and novelty take: all there are, those of
one recipe, and those that are asked about.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from nucleate.crystal.sites import Sites
from nucleate.metrics.csp import Attempt, Row, judge_csp, pairs_to_ask, random_coordinates
from nucleate.metrics.dng import SAME, known_among
from nucleate.metrics.inorganic_validity import validities
from nucleate.metrics.structure_matcher import StructureMatching
from nucleate.pipeline.evaluate_inorganic import read_references


def perturbed(crystal: Sites, generator: torch.Generator) -> Sites:
    move = 0.1 * torch.randn(len(crystal), 3, dtype=torch.float64, generator=generator)
    return Sites(
        1.02 * crystal.lattice, crystal.frac + move @ torch.linalg.inv(crystal.lattice), crystal.numbers
    )


def cpu() -> float:
    """Seconds of this process and of those that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def judged(attempts: list[Attempt], references: dict[str, Sites], everyone: bool) -> tuple[list[Row], float]:
    before = cpu()
    with StructureMatching("crystalflow") as matching:
        rows = judge_csp("prediction", attempts, references, matching, everyone=everyone, compositions=False)
    return rows, cpu() - before


def plain(attempts: list[Attempt], references: dict[str, Sites]) -> tuple[list[float | None], float]:
    """RMS by pymatgen alone, and CPU-seconds."""
    matcher = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    pairs = [
        (structure(a.crystal), structure(references[a.target])) for a in attempts if a.crystal is not None
    ]
    before = time.process_time()
    found = [matcher.get_rms_dist(*pair) for pair in pairs]
    return [f and f[0] for f in found], time.process_time() - before


def structure(crystal: Sites) -> Structure:
    return Structure(crystal.lattice.numpy(), crystal.numbers.tolist(), crystal.frac.numpy())


def disagreements(rows: list[Row], expected: list[float | None]) -> int:
    return sum(
        (row["rms"] is None) != (e is None) or (e is not None and abs(row["rms"] - e) > 1e-6)
        for row, e in zip(rows, expected)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("test", type=Path)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--sample", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    references = dict(list(read_references(options.test)[0].items())[: options.limit])
    generator = torch.Generator().manual_seed(0)
    kinds = {
        "perturbed": {n: perturbed(c, generator) for n, c in references.items()},
        "random": {n: random_coordinates(c, 1, generator)[0] for n, c in references.items()},
    }
    step = max(1, len(references) // options.sample)
    for kind, crystals in kinds.items():
        attempts = [Attempt(name, 0, crystal) for name, crystal in crystals.items()]
        rows, ours = judged(attempts, references, everyone=False)
        expected, theirs = plain(attempts[::step], references)
        matched = sum(row["rms"] is not None for row in rows)
        print(
            f"{kind}: {len(rows)} pairs, {matched} matched: {ours:.1f} CPU-s; pymatgen alone "
            f"{theirs * len(rows) / len(expected):.1f} CPU-s (from {len(expected)}); "
            f"{disagreements(rows[::step], expected)} of these answered otherwise"
        )
    before = time.process_time()
    validities(list(references.values()), compositions=False)
    print(f"structural validity: {time.process_time() - before:.2f} CPU-s for {len(references)} crystals")
    attempts = [Attempt(name, 0, crystal) for name, crystal in kinds["perturbed"].items()]
    print(
        f"METRe at one sample: {len(references) ** 2:,} pairs, of one recipe {pairs_to_ask(attempts, references):,}"
    )
    if options.train:
        novelty(list(kinds["perturbed"].values()), list(read_references(options.train)[0].values()))


def novelty(crystals: list[Sites], training: list[Sites]) -> None:
    asked: list[int] = []
    before = cpu()
    with StructureMatching(SAME) as matching:
        compare = matching.compare
        matching.compare = lambda pairs, *more: asked.append(len(pairs)) or compare(pairs, *more)  # type: ignore
        known = known_among(crystals, training, matching).of
    everywhere = pairs_to_ask(
        [Attempt("", 0, c) for c in crystals], {str(i): t for i, t in enumerate(training)}
    )
    print(
        f"novelty: {len(crystals) * len(training):,} pairs, of one recipe {everywhere:,}, asked about "
        f"{sum(asked):,}: {cpu() - before:.1f} CPU-s, {len(known) - known.count(None)} known"
    )


if __name__ == "__main__":
    main()
