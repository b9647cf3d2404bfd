"""How good are generated packings by themselves, after the press, and after relaxation in the force field?

    python benchmarks/pack_quality.py FOLDER_OF_CIFS --splits INDEX.csv --split val+test --out quality.jsonl \\
        --generators experiment,control,random,pose=WEIGHTS,molcrystalnet/cell=WEIGHTS [--samples 10] [--unseen DATA]

Every generator gives 10 samples of each crystal, for which it is told the experiment's conformers, its composition
and Z. Generators:

| name | samples |
|---|---|
| `experiment` | the crystal itself, once, as rigid bodies; what relaxation leaves of it is the ceiling of other rows |
| `control` | the true primitive cell (3 % noise on lengths, 2° on angles), molecules thrown into it; relaxed in P1 |
| `random` | the search's random starts |
| `NAME=WEIGHTS` | a trained flow, `pipeline.learned.LearnedGenerator` |

and, for the last two, `/` and what they know of the symmetry (without it both of the first two):

| mode | |
|---|---|
| `prior` | nothing: each sample draws a group from the prior of common groups that can hold Z formula units |
| `group` | the experiment's space group, and Z' |
| `cell` | no symmetry: all molecules of the primitive cell in P1 |

Printed for each generator and stage (raw, pressed, relaxed): crystals found by one of its samples by each criterion
(StructureMatcher at three tolerances; strict15 and strict20 of docs/criteria.md), the mean absolute volume error of all
samples that are crystals, samples without a clash, samples that failed, and CPU-milliseconds a sample up to that stage.
A failed sample is in every denominator. CPU time is `process_time` of this process on one thread, without judging, and
holds what so small a batch costs (embedding the molecule, tables of a group): `pack_practice.py` measures rates.
StructureMatcher runs in `--workers` processes of its own, and a pair that it does not finish is counted as no match.
`--out` keeps one line for each crystal and generator; the same command goes on where it stopped, also with more
generators. `--json` prints everything as JSON instead of the table.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packing_tasks import (
    RANDOM,
    Ends,
    LeftOut,
    PackingTask,
    Source,
    add_choice,
    add_sampling,
    append_line,
    chosen_tasks,
    digest_of,
    learned,
    press,
    read_lines,
    relax,
    warm_up,
)

from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import represent_rigid
from nucleate.crystal.standardise import formula_units, primitive_niggli
from nucleate.data.predictions import Sample
from nucleate.errors import InputError, NucleateError
from nucleate.geometry.symmetry import P1
from nucleate.metrics.control import random_poses
from nucleate.metrics.evaluation import Scores, summarise
from nucleate.metrics.structure_matcher import StructureMatching
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.evaluate import MATCHER, EvaluateSettings, judge_samples
from nucleate.pipeline.generate import Arm, arms
from nucleate.pipeline.strategy import apportion

STAGES = ("raw", "pressed", "relaxed")
MODES = ("prior", "group", "cell")
UNTOLD = ("experiment", "control")  # generators that know everything anyway
COLUMNS = ("strict15", "strict20", "structurematcher-0.5", "structurematcher-0.8", "structurematcher-1.2")


@dataclass(frozen=True)
class Generator:
    """A row of the table: what makes the samples, and what it is told."""

    name: str
    mode: str = ""
    weights: str = ""
    digest: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}/{self.mode}" if self.mode else self.name


def generators_named(text: str) -> list[Generator]:
    """`control,random,pose/group=WEIGHTS` -> generators. Raises InputError for modes and names that are none."""
    found: list[Generator] = []
    for part in filter(None, text.split(",")):
        described, _, weights = part.partition("=")
        name, _, mode = described.partition("/")
        if mode and (mode not in MODES or name in UNTOLD):
            raise InputError(f"expected NAME/MODE with a mode among {', '.join(MODES)}, got {part!r}")
        if not weights and name not in (*UNTOLD, "random"):
            raise InputError(f"expected weights for {name!r}, as in {name}=FILE; got none")
        modes = [""] if name in UNTOLD else [mode] if mode else MODES[:2]
        found += [Generator(name, m, weights, digest_of(weights)) for m in modes]
    return found


# ---------------------------------------------------------------- samples


def drawn(
    generator: Generator, source: Source | None, task: PackingTask, n: int, seed: int
) -> list[tuple[Ends, int]]:
    """Samples of one crystal in batches that share a space group, and how many each should hold.

    Raises NucleateError where there are none.
    """
    own = task.seed(seed)
    if source is None:
        if generator.name == "experiment":
            return [(Ends.of(task.experiment), 1)]
        crystals = random_poses(task.crystal, n, torch.Generator().manual_seed(own))
        species = task.composition.species
        return [(Ends.of(Packings.concatenate([represent_rigid(c, species)[0] for c in crystals])), n)]
    found = []
    for arm, count in _shares(generator.mode, source, task, n, own):
        if count:
            starts = source.starts(task.composition, arm, 0, count, own)
            found.append((Ends.of(starts.packings, starts.number), count))
    return found


def _shares(mode: str, source: Source, task: PackingTask, n: int, seed: int) -> list[tuple[Arm, int]]:
    """How many samples of which arm; of the prior, among those that the source can make."""
    if mode == "cell":
        units = formula_units(primitive_niggli(task.crystal)[0])
        return [(Arm(f"P1 Z'={units}", P1, units), n)]
    if mode == "group":
        return list(zip(task.arms, apportion(n, np.array([a.weight for a in task.arms]))))
    known = arms(task.composition, z=[task.symmetry.z])
    made = [a for a in known if not source.refusal(task.composition, a)] or known
    weights = np.array([a.weight for a in made])
    counts = np.random.default_rng(seed).multinomial(n, weights / weights.sum())
    return list(zip(made, counts.tolist()))


def sampled(
    generator: Generator, source: Source | None, task: PackingTask, n: int, seed: int
) -> tuple[dict[str, list[Sample]], dict[str, float]]:
    """Samples of every stage, each as many as were asked for, and the CPU-seconds of each stage alone."""
    clock = Laps()
    try:
        batches = drawn(generator, source, task, n, seed)
    except NucleateError as error:
        reason = getattr(error, "reason", "failed")
        failed = [Sample(task.name, i, str(i), None, failure=f"{reason}: {error}") for i in range(n)]
        return dict.fromkeys(STAGES, failed), dict.fromkeys(STAGES, 0.0)
    clock.lap("raw")
    pressed = [press(ends, task.field) for ends, _ in batches]
    clock.lap("pressed")
    relaxed = [relax(ends, task.field) for ends in pressed]
    clock.lap("relaxed")
    ends = {"raw": [ends for ends, _ in batches], "pressed": pressed, "relaxed": relaxed}
    sizes = [count for _, count in batches]
    return {stage: _samples(task, ends[stage], sizes, stage) for stage in STAGES}, clock.seconds


def _samples(task: PackingTask, ends: Sequence[Ends], sizes: Sequence[int], stage: str) -> list[Sample]:
    """What is there as crystals, the others as failures; energies (kJ/mol per molecule) once relaxed."""
    lost = "not made: no sound cell" if stage == "raw" else "collapsed: the cell closed up, or there was none"
    found: list[Sample] = []
    for batch, size in zip(ends, sizes):
        place = {int(row): k for k, row in enumerate(batch.row)}
        for i in range(size):
            sample = Sample(task.name, len(found), f"{len(found)}", None, failure=lost)
            if (k := place.get(i)) is not None:
                sample = _sample(sample, batch, k, stage)
            found.append(sample)
    return found


def _sample(sample: Sample, batch: Ends, k: int, stage: str) -> Sample:
    energy = float(batch.energy[k]) / batch.packings.n_bodies / KJ_PER_MOL if stage == "relaxed" else None
    try:
        return replace(sample, crystal=batch.packings.crystal(k), energy=energy, failure="")
    except ValueError as error:  # a cell without volume, or no number at all
        return replace(sample, failure=f"no cell: {error}")


class Laps:
    """CPU-seconds of this process between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name], self._last = now - self._last, now


# ---------------------------------------------------------------- judging and the table


def judged(
    generator: Generator,
    source: Source | None,
    task: PackingTask,
    options: argparse.Namespace,
    settings: EvaluateSettings,
    matching: StructureMatching | None,
) -> dict[str, Any]:
    """The line of one crystal and one generator."""
    samples, seconds = sampled(generator, source, task, options.samples, options.seed)
    rows = {
        stage: judge_samples(task.name, stage, samples[stage], [task.crystal], settings, matching)
        for stage in STAGES
    }
    return {
        "crystal": task.name,
        **task.about(),
        "generator": generator.label,
        "weights": generator.digest,
        "cpu_s": seconds,
        "rows": [row for stage in STAGES for row in rows[stage]],
    }


def scores_of(lines: Sequence[dict[str, Any]], label: str, names: Sequence[str]) -> dict[str, Scores]:
    """Scores of one generator for each stage, over all crystals that it has a line for."""
    own = [line for line in lines if line["generator"] == label]
    rows = [row for line in own for row in line["rows"]]
    return {stage: summarise(rows, stage, [line["crystal"] for line in own], names) for stage in STAGES}


def seconds_of(lines: Sequence[dict[str, Any]], label: str) -> dict[str, float]:
    """CPU-seconds a sample up to and with each stage."""
    own = [line for line in lines if line["generator"] == label]
    asked = sum(row["source"] == "raw" for line in own for row in line["rows"])
    stages = [sum(line["cpu_s"][stage] for line in own) / max(asked, 1) for stage in STAGES]
    return dict(zip(STAGES, np.cumsum(stages).tolist()))


def table(lines: Sequence[dict[str, Any]], settings: EvaluateSettings, samples: int) -> str:
    short = {name: name.replace("structurematcher-", "stol ") for name in COLUMNS}
    columns = [name for name in COLUMNS if name in settings.names]
    head = "  ".join(f"{short[name]:>9s}" for name in columns)
    out = [f"{'':34s}{head}  volume error        no clash      failed   CPU-ms"]
    for label in dict.fromkeys(line["generator"] for line in lines):
        seconds = seconds_of(lines, label)
        for stage, score in scores_of(lines, label, settings.names).items():
            found = [score.scores[name].at["all"] for name in columns]
            rates = "  ".join(f"{f'{rate.hits}/{rate.asked}':>9s}" for rate in found)
            volume = f"{100 * score.rmad:5.1f} % ({100 * score.bias:+.1f} %)"
            failed = f"{sum(score.failures.values())}/{score.asked}"
            clash_free = f"{score.clash_free.hits}/{score.clash_free.asked}"
            out.append(
                f"{label:24s}{stage:10s}{rates}  {volume:>18s}{clash_free:>11s}{failed:>12s}"
                f"{1e3 * seconds[stage]:9.1f}"
            )
    out.append(f"found: crystals of which one of {samples} samples (one of experiment) is the experiment")
    return "\n".join(out)


def as_json(lines: Sequence[dict[str, Any]], settings: EvaluateSettings, left_out: LeftOut) -> dict[str, Any]:
    return {
        "left_out": left_out.names,
        "generators": {
            label: {
                "cpu_s": seconds_of(lines, label),
                **{k: s.as_json() for k, s in scores_of(lines, label, settings.names).items()},
            }
            for label in dict.fromkeys(line["generator"] for line in lines)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_choice(parser)
    add_sampling(parser)
    parser.add_argument("--generators", default="experiment,control,random")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--criteria", default=f"strict15,strict20,{MATCHER}")
    parser.add_argument("--time-limit", type=float, default=10.0, help="s for a pair in StructureMatcher")
    parser.add_argument("--workers", type=int, default=1, help="processes of StructureMatcher")
    parser.add_argument("--out", type=Path, help="a JSONL file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = EvaluateSettings(
        criteria=tuple(options.criteria.split(",")), time_limit=options.time_limit, workers=options.workers
    )
    about = {
        "benchmark": "pack_quality", "samples": options.samples, "seed": options.seed,
        "criteria": list(settings.criteria), "time_limit": options.time_limit,
        "steps": options.steps, "draws": options.draws,
        "volume": options.volume,
    }  # fmt: skip
    generators = generators_named(options.generators)
    tasks, left_out = chosen_tasks(options)
    print(f"{len(tasks)} crystals; left out: {left_out}", file=sys.stderr)
    lines = run(tasks, generators, settings, options, about)
    print(
        json.dumps(as_json(lines, settings, left_out))
        if options.json
        else table(lines, settings, options.samples)
    )
    pending = sum(row["unanswered"] for line in lines for row in line["rows"])
    print(
        f"{pending} pairs got no answer of StructureMatcher within {options.time_limit:g} s", file=sys.stderr
    )


def run(
    tasks: Sequence[PackingTask],
    generators: Sequence[Generator],
    settings: EvaluateSettings,
    options: argparse.Namespace,
    about: dict[str, Any],
) -> list[dict[str, Any]]:
    """Lines of all crystals and generators, those of an earlier run included."""
    earlier = {(line["crystal"], line["generator"]): line for line in read_lines(options.out, about)}
    for line in earlier.values():
        for generator in generators:
            if line["generator"] == generator.label and line["weights"] != generator.digest:
                raise InputError(f"expected the weights of {generator.label} to be those of {options.out}")
    loaded = {weights: learned(weights, options) for weights in {g.weights for g in generators} - {""}}
    sources = {g.label: loaded.get(g.weights, RANDOM) for g in generators if g.name not in UNTOLD}
    warm_up(tasks[0], [RANDOM, *loaded.values()])
    lines = []
    with ExitStack() as stack:
        matching = None
        if MATCHER in settings.criteria:
            matching = stack.enter_context(
                StructureMatching("molcrystalflow", settings.workers, settings.time_limit)
            )
        for k, task in enumerate(tasks, 1):
            for generator in generators:
                line = earlier.get((task.name, generator.label))
                if line is None:
                    line = judged(generator, sources.get(generator.label), task, options, settings, matching)
                    append_line(options.out, about, line)
                lines.append(line)
            print(f"{k}/{len(tasks)} {task.name}", file=sys.stderr, flush=True)
    return lines


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{error}")
