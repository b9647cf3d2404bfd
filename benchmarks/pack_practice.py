"""What is a generator worth to a search? Starts and CPU-seconds until the experimental packing is found.

    python benchmarks/pack_practice.py FOLDER_OF_CIFS --splits INDEX.csv --split val+test --out practice.jsonl \\
        --methods random,random+screened,random+perturbed,flow=WEIGHTS,flow+perturbed=WEIGHTS [--starts 400]

The same molecules (experimental conformers), space groups (the experiment's) and number of starts for every method, and
the same for every start: press, rough and tight minimisation of the rigid molecules and the cell inside the group, MMFF
charges. A method is a source of starts, `random`, `NAME=WEIGHTS` or `random&NAME=WEIGHTS` (in turn), and what is done
with it:

| method | starts |
|---|---|
| `random` | as they come from the source |
| `random+screened` | five times as many are pressed; the fifth lowest in energy then (coarse sums) is minimised |
| `random+screened@press` | the same, by the energy of the press |
| `random+perturbed@0.35` | six rounds as in `pipeline.strategy`: after the first this share starts near the lowest |

Printed for each method, summed over crystals: hits of the experimental packing (15 of 15 molecules, RMSD below 0.8 Å)
per 1000 starts, crystals found (and with RMSD below 0.4 Å), the median over crystals of the starts and CPU-seconds to
the first hit, CPU-seconds a hit, low3 (starts that end within 3 kJ/mol of the lowest minimum known from any method) per
1000, different minima within that window out of all known, different minima a start, and where the CPU time of a start
goes. Then the ratios to the first method with 90 % intervals (bootstrap over crystals), and crystals found by number of
starts. A start that collapses, clashes or is not made counts as a start; crystals that some method refuses as a whole
are named and left out of the table. CPU-seconds are `process_time` of this
process on one thread: `sample` makes the starts, `press` is the press (of all five times as many, and their energies,
where they are screened), `relax` the rest, and telling minima apart. `--out` keeps one line for each crystal; the same
command goes on where it stopped. `--json` prints everything as JSON instead of the table.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
    in_turn,
    learned,
    press,
    read_lines,
    relax,
    warm_up,
)

from nucleate.errors import InputError, NucleateError
from nucleate.metrics.enrichment import Estimate, censored_median, harvest, ratio_of_totals
from nucleate.metrics.packing import PackingReference
from nucleate.physics.minimise import (
    CLASH,
    ROUGH,
    TIGHT,
    closest_contacts,
    minimise,
    pair_energy_fingerprints,
)
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.deduplicate import distinct_crystals
from nucleate.pipeline.generate import perturbed_packings
from nucleate.pipeline.minima import Minima
from nucleate.pipeline.reference import CLOSE, SAME_PACKING, is_same
from nucleate.pipeline.strategy import Progress, apportion, plan_round
from nucleate.pipeline.units import Clock, SearchSettings, Unit, UnitResult, per_formula_unit, total_energy

LOW = 3.0  # kJ/mol per formula unit above the lowest minimum known from any method
OVERSAMPLED = 5  # times as many starts are screened as are minimised
SCREENS = ("energy", "press")
STRATEGIES = {
    "": "",
    "screened": SCREENS[0],
    "perturbed": f"{SearchSettings().perturb:g}",
}  # and what goes unsaid
AT_ONCE = 100  # starts: enough to share what a batch costs


@dataclass(frozen=True)
class Method:
    """A source of starts and what is done with it."""

    label: str
    strategy: str
    detail: str  # what is screened by, or the share of perturbed starts
    weights: str
    digest: str

    @property
    def mixed(self) -> bool:
        return self.label.startswith("random&")

    def source(self, loaded: Mapping[str, Source]) -> Source:
        own = loaded.get(self.weights, RANDOM)
        return in_turn(RANDOM, own) if self.mixed else own


def methods_named(text: str) -> list[Method]:
    """`random,flow+perturbed@0.5=WEIGHTS` -> methods. Raises InputError for strategies and shares that are none."""
    return [_method(part) for part in text.split(",") if part]


def _method(part: str) -> Method:
    label, _, weights = part.partition("=")
    name, _, described = label.partition("+")
    strategy, _, detail = described.partition("@")
    if bool(weights) == (name == "random"):
        raise InputError(f"expected 'random' alone, or a name with its weights (flow=FILE), got {part!r}")
    if strategy not in STRATEGIES or (detail and not strategy):
        raise InputError(f"expected SOURCE, SOURCE+screened or SOURCE+perturbed, got {part!r}")
    detail = detail or STRATEGIES[strategy]
    if strategy == "screened" and detail not in SCREENS:
        raise InputError(f"expected a screen by {' or '.join(SCREENS)}, got {part!r}")
    if strategy == "perturbed" and not 0 <= _number(detail) < 1:
        raise InputError(f"expected a share of starts from 0 to below 1, got {part!r}")
    return Method(label, strategy, detail, weights, digest_of(weights))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


# ---------------------------------------------------------------- the starts of one method on one crystal


class Trial:
    """Starts of one source on one crystal, what they came down to, and what that cost."""

    def __init__(self, task: PackingTask, source: Source, seed: int) -> None:
        self.task, self.source, self.seed = task, source, task.seed(seed)
        self.results: list[UnitResult] = []
        self.started = 0
        self.clock = Clock()

    def plain(self, counts: Sequence[int], first: Sequence[int]) -> None:
        """So many starts of each arm, from number `first` on, arms in turn."""
        for arm, (count, begin, order) in enumerate(zip(counts, first, self._turns(counts))):
            for some in np.array_split(np.arange(count), -(-count // AT_ONCE)) if count else ():
                self.finish(arm, self._drawn(arm, begin + int(some[0]), len(some)), order[some])

    def screened(self, n: int, screen: str) -> None:
        """The `n` lowest in energy of OVERSAMPLED times as many, after the press; lowest first."""
        many = apportion(OVERSAMPLED * n, np.array([a.weight for a in self.task.arms]))
        pools = {arm: self._drawn(arm, 0, count) for arm, count in enumerate(many) if count}
        scores = [self._score(arm, pool, screen) for arm, pool in pools.items()]
        rank = np.argsort(np.argsort(np.concatenate(scores), kind="stable"), kind="stable")
        self.clock.lap("press")
        ends = np.cumsum([len(own) for own in scores])[:-1]
        for (arm, pool), own in zip(pools.items(), np.split(rank, ends)):
            kept = torch.from_numpy(np.flatnonzero(own < n))
            if len(kept):
                chosen = Ends(pool.packings[kept], torch.arange(len(kept)), pool.energy[kept])
                self.finish(arm, chosen, own[kept.numpy()])
        self.started = n

    def perturbed(self, n: int, share: float, rounds: int = SearchSettings().rounds) -> None:
        """Rounds as the search plans them, new starts from the source."""
        arms = list(self.task.arms)
        empty = [self.task.experiment[:0] for _ in arms]
        state, minima = Progress.start(arms), Minima.merge(arms, empty, [])
        for number in range(rounds):
            plan = plan_round(number, n, rounds, share, state, minima.energy, minima.arm)
            self.plain(plan.random, state.random_starts)
            for arm, (count, order) in enumerate(zip(plan.perturbed, self._turns(plan.perturbed))):
                if count:
                    rows = [int(minima.row[i]) for i in plan.parents if minima.arm[i] == arm]
                    parents, key = minima.packings[arm][rows], f"{arms[arm].key}/{number}"
                    children = perturbed_packings(parents, count, self.seed, key)
                    self.clock.lap("sample")
                    self.finish(arm, self._pressed(Ends.of(children)), order)
            minima = Minima.merge(arms, empty, self.results)
            state = state.after(plan, minima.energy, minima.arm)
            self.clock.lap("relax")

    def finish(self, arm: int, pressed: Ends, order: np.ndarray) -> None:
        """Minimise, leave out what clashes, and keep the rest; `order[row]` is the place of each start."""
        ends = relax(pressed, self.task.field)
        contact = closest_contacts(ends.packings, self.task.field)
        sound = torch.nonzero(contact >= CLASH).flatten()
        packings, own = ends.packings[sound], self.task.arms[arm]
        self.results.append(
            UnitResult(
                unit=Unit(0, len(self.results), arm, "random", 0, len(order), None),
                packings=packings,
                energy=total_energy(self.task.composition, own, packings, ends.energy[sound]),
                volume=per_formula_unit(own, packings.volume),
                fingerprint=pair_energy_fingerprints(packings, self.task.field),
                contact=contact[sound],
                hits=torch.ones(len(sound), dtype=torch.long),
                start=torch.from_numpy(order)[ends.row[sound]],
                counts={},
                seconds={},
            )
        )
        self.clock.lap("relax")

    def _drawn(self, arm: int, first: int, count: int) -> Ends:
        """New starts after the press."""
        starts = self.source.starts(self.task.composition, self.task.arms[arm], first, count, self.seed)
        self.clock.lap("sample")
        return self._pressed(Ends.of(starts.packings, starts.number - first))

    def _pressed(self, starts: Ends) -> Ends:
        ends = press(starts, self.task.field)
        self.clock.lap("press")
        return ends

    def _score(self, arm: int, pool: Ends, screen: str) -> np.ndarray:
        """eV per formula unit: of the press, or with the sums of the rough minimisation, no step taken."""
        composition, own = self.task.composition, self.task.arms[arm]
        if screen == "press":
            return total_energy(composition, own, pool.packings, pool.energy).numpy()
        found = minimise(pool.packings, self.task.field, ROUGH._replace(max_steps=0))
        total = total_energy(composition, own, found.packings, found.energy)
        return torch.where(found.collapsed, math.inf, total).numpy()

    def _turns(self, counts: Sequence[int]) -> list[np.ndarray]:
        """Places of the starts of each arm among all that are begun together, arms in turn; counts them as started."""
        through = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
        place = np.argsort(np.argsort(through, kind="stable"), kind="stable") + self.started
        self.started += sum(counts)
        return np.split(place, np.cumsum(counts)[:-1])


def run_trial(method: Method, source: Source, task: PackingTask, n: int, seed: int) -> tuple[Trial, str]:
    """The trial, and why it ended early or was not begun."""
    trial = Trial(task, source, seed)
    if refused := next(filter(None, (source.refusal(task.composition, arm) for arm in task.arms)), ""):
        return trial, f"refused: {refused}"
    try:
        if method.strategy == "perturbed":
            trial.perturbed(n, float(method.detail))
        elif method.strategy == "screened":
            trial.screened(n, method.detail)
        else:
            trial.plain(apportion(n, np.array([a.weight for a in task.arms])), [0] * len(task.arms))
    except NucleateError as error:
        return trial, str(error)
    return trial, ""


# ---------------------------------------------------------------- one crystal


def line_of(task: PackingTask, trials: Mapping[str, tuple[Trial, str]], n: int) -> dict[str, Any]:
    """What every method found of one crystal, minima of all methods told apart together."""
    results = [r for trial, _ in trials.values() for r in trial.results]
    energy, volume, fingerprint = (
        np.concatenate([getattr(r, name).numpy() for r in results]) if results else np.zeros((0, 1)[:width])
        for name, width in (("energy", 1), ("volume", 1), ("fingerprint", 2))
    )
    distinct = distinct_crystals(energy, volume, fingerprint)
    rmsd = _distances(task, results, distinct.kept)
    lowest = float(energy.min()) if len(energy) else math.nan
    ceiling = lowest + LOW * KJ_PER_MOL
    rows, begin = {}, 0
    for label, (trial, failure) in trials.items():
        size = sum(len(r.energy) for r in trial.results)
        own = slice(begin, begin + size)
        begin += size
        order = np.concatenate([np.zeros(0, np.int64), *(r.start.numpy() for r in trial.results)])
        parts = (n, order, energy[own], distinct.group[own])
        found = harvest(*parts, rmsd < SAME_PACKING, ceiling)
        close = harvest(*parts, rmsd < CLOSE, ceiling).first is not None
        rows[label] = asdict(found) | {"close": close, "cpu_s": trial.clock.seconds, "failure": failure}
    return {
        "crystal": task.name,
        **task.about(),
        "minima": len(distinct.kept),
        "low_minima": int((energy[distinct.kept] <= ceiling).sum()),
        "experiment": _experiment(task, lowest),
        "methods": rows,
    }


def _distances(task: PackingTask, results: Sequence[UnitResult], kept: np.ndarray) -> np.ndarray:
    """RMSD_15 (Å) of each distinct minimum from the experiment, infinite where not all molecules match."""
    reference = PackingReference(task.crystal)
    first = np.cumsum([0, *(len(r.energy) for r in results)])
    found = np.full(len(kept), math.inf)
    for k, i in enumerate(kept.tolist()):
        unit = int(np.searchsorted(first, i, side="right")) - 1
        match = reference.compare(results[unit].packings.crystal(i - int(first[unit])))
        found[k] = match.rmsd if match.is_match else math.inf
    return found


def _experiment(task: PackingTask, lowest: float) -> dict[str, Any]:
    """What the force field makes of the experiment itself, not pressed: what it cannot hold nobody can find."""
    packings = minimise(task.experiment, task.field, ROUGH).packings
    found = minimise(packings, task.field, TIGHT)
    match = PackingReference(task.crystal).compare(found.packings.crystal(0))
    energy = float(found.energy[0]) * task.composition.molecules / task.experiment.n_bodies
    return {
        "kept": is_same(match),
        "rmsd": match.rmsd if match.is_match else None,
        "above_kj_mol": (energy - lowest) / KJ_PER_MOL if math.isfinite(lowest) else None,
    }


# ---------------------------------------------------------------- the table


@dataclass(frozen=True, eq=False)
class Totals:
    """Columns of one method, a number for each crystal."""

    rows: list[dict[str, Any]]

    def column(self, name: str) -> np.ndarray:
        return np.array([row[name] for row in self.rows], dtype=np.float64)

    @property
    def cpu(self) -> np.ndarray:
        return np.array([sum(row["cpu_s"].values()) for row in self.rows])

    def milliseconds(self, part: str) -> float:
        """Of a start."""
        spent = sum(row["cpu_s"].get(part, 0.0) for row in self.rows)
        return 1e3 * spent / self.column("starts").sum()

    def found_within(self, starts: float) -> int:
        return sum(row["first"] is not None and row["first"] <= starts for row in self.rows)

    def summary(self, known: float) -> dict[str, float]:
        """`known` counts the low minima of all methods."""
        starts, hits, cpu = self.column("starts").sum(), self.column("hits").sum(), self.cpu
        to_first = [
            None if row["first"] is None else row["first"] * spent / row["starts"]
            for row, spent in zip(self.rows, cpu)
        ]
        return {
            "hits_per_1000": 1e3 * hits / starts,
            "found": self.found_within(math.inf),
            "found_close": int(self.column("close").sum()),
            "median_starts_to_first": censored_median([row["first"] for row in self.rows]),
            "median_cpu_s_to_first": censored_median(to_first),
            "cpu_s_per_hit": cpu.sum() / hits if hits else math.inf,
            "low_per_1000": 1e3 * self.column("low").sum() / starts,
            "low_minima_found": self.column("low_distinct").sum() / known if known else math.nan,
            "distinct_per_start": self.column("distinct").sum() / starts,
            "sound": self.column("sound").sum() / starts,
            **{f"{part}_ms": self.milliseconds(part) for part in ("sample", "press", "relax")},
        }

    def ratios(self, base: "Totals") -> dict[str, Estimate]:
        """To another method: more hits and fewer CPU-seconds a hit are better."""

        def per_start(name: str) -> Estimate:
            return ratio_of_totals(
                [self.column(name), base.column("starts")], [base.column(name), self.column("starts")]
            )

        hits = (self.column("hits"), base.column("hits"))
        return {
            "hits": per_start("hits"),
            "cpu_s_per_hit": ratio_of_totals([self.cpu, hits[1]], [hits[0], base.cpu]),
            "low": per_start("low"),
            "low_minima": per_start("low_distinct"),
        }


def summaries(lines: Sequence[dict[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """Everything that is printed, by method."""
    totals = {label: Totals([line["methods"][label] for line in lines]) for label in labels}
    known = sum(line["low_minima"] for line in lines)
    starts = lines[0]["methods"][labels[0]]["starts"]
    return {
        label: own.summary(known)
        | {"ratios": own.ratios(totals[labels[0]])}
        | {"found_within": {str(k): own.found_within(k) for k in _milestones(starts)}}
        for label, own in totals.items()
    }


def _milestones(starts: int) -> list[int]:
    return sorted({max(1, starts // k) for k in (16, 8, 4, 2, 1)})


def table(lines: Sequence[dict[str, Any]], labels: Sequence[str]) -> str:
    found, width = summaries(lines, labels), max(map(len, labels)) + 2
    crystals = len(lines)
    kept = sum(line["experiment"]["kept"] for line in lines)
    out = [
        f"{crystals} crystals; relaxed by the force field {kept} of the experiments are still themselves. Totals:",
        f"{'':{width}s}hits/1000  found (0.4 Å)  median starts, CPU-s to 1st  CPU-s/hit  low3/1000  of known  distinct"
        "  sound  CPU-ms: sample press relax",
    ]
    for label, s in found.items():
        close = f"{s['found']} ({s['found_close']})"
        first = f"{s['median_starts_to_first']:.0f}, {s['median_cpu_s_to_first']:.2f}"
        out.append(
            f"{label:{width}s}{s['hits_per_1000']:9.1f}  {close:>13s}  {first:>27s}  {s['cpu_s_per_hit']:9.2f}  "
            f"{s['low_per_1000']:9.1f}  {s['low_minima_found']:8.0%}  {s['distinct_per_start']:8.2f}  "
            f"{s['sound']:5.0%}          {s['sample_ms']:6.2f}{s['press_ms']:6.2f}{s['relax_ms']:6.2f}"
        )
    out += ["", f"Ratios to {labels[0]} [90 % of bootstraps over crystals]:"]
    out += [f"{'':{width}s}{'hits a start':>24s}{'CPU-s a hit':>24s}{'low3 a start':>24s}{'low minima':>24s}"]
    for label, s in found.items():
        columns = "".join(f"{ratio!s:>24s}" for ratio in s["ratios"].values())
        out.append(f"{label:{width}s}{columns}")
    milestones = next(iter(found.values()))["found_within"]
    out += ["", f"Crystals of {crystals} found within so many starts:"]
    out += [f"{'':{width}s}" + "".join(f"{k:>7s}" for k in milestones)]
    for label, s in found.items():
        out.append(f"{label:{width}s}" + "".join(f"{k:7d}" for k in s["found_within"].values()))
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_choice(parser)
    add_sampling(parser)
    parser.add_argument("--methods", default="random,random+screened,random+perturbed,random+perturbed@0.8")
    parser.add_argument("--starts", type=int, default=400)
    parser.add_argument("--out", type=Path, help="a JSONL file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    methods = methods_named(options.methods)
    about = {
        "benchmark": "pack_practice", "starts": options.starts, "seed": options.seed,
        "methods": {method.label: method.digest for method in methods}, "steps": options.steps, "draws": options.draws,
        "volume": options.volume,
    }  # fmt: skip
    tasks, left_out = chosen_tasks(options)
    print(f"{len(tasks)} crystals; left out: {left_out}", file=sys.stderr)
    lines = run(tasks, methods, options, about)
    labels = [method.label for method in methods]
    for line in [line for line in lines if _failures(line)]:
        left_out.add(line["crystal"], f"without starts of some method ({_failures(line)[0]})")
    lines = [line for line in lines if not _failures(line)]
    if not lines:
        raise InputError(f"expected crystals that every method can be tried on, got none: {left_out}")
    print(f"{len(lines)} crystals in the table; left out: {left_out}", file=sys.stderr)
    if options.json:
        print(json.dumps(as_json(lines, labels, left_out)))
    else:
        print(table(lines, labels))


def _failures(line: dict[str, Any]) -> list[str]:
    return [f"{label}: {row['failure']}" for label, row in line["methods"].items() if row["failure"]]


def as_json(lines: Sequence[dict[str, Any]], labels: Sequence[str], left_out: LeftOut) -> dict[str, Any]:
    """Numbers that are not finite become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Estimate):
            value = asdict(value)
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {"left_out": left_out.names, "crystals": len(lines), "methods": plain(summaries(lines, labels))}


def run(
    tasks: Sequence[PackingTask],
    methods: Sequence[Method],
    options: argparse.Namespace,
    about: dict[str, Any],
) -> list[dict[str, Any]]:
    """Lines of all crystals, those of an earlier run included."""
    earlier = {line["crystal"]: line for line in read_lines(options.out, about)}
    loaded = {weights: learned(weights, options) for weights in {m.weights for m in methods} - {""}}
    warm_up(tasks[0], [RANDOM, *loaded.values()])
    lines = []
    for k, task in enumerate(tasks, 1):
        line = earlier.get(task.name)
        if line is None:
            began = time.process_time()
            trials = {
                m.label: run_trial(m, m.source(loaded), task, options.starts, options.seed) for m in methods
            }
            line = line_of(task, trials, options.starts)
            append_line(options.out, about, line)
            hits = ", ".join(f"{label} {row['hits']}" for label, row in line["methods"].items())
            spent = time.process_time() - began
            print(f"{k}/{len(tasks)} {task.name} {hits} ({spent:.0f} CPU-s)", file=sys.stderr, flush=True)
        lines.append(line)
    return lines


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{error}")
