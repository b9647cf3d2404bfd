"""The classical search: rounds of units, each round planned from what the finished ones found.

A *unit* is a batch of starts of one arm (space group and Z'), small enough to lose and large enough to be worth a
process. Units of a round do not depend on each other, so neither the number of processes nor an interruption changes
what is found. A finished unit is a file; resuming replays the rounds and skips the units that have one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from nucleate.crystal.packing import Packings
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import (
    PRESS,
    ROUGH,
    TIGHT,
    closest_contacts,
    minimise,
    pair_energy_fingerprints,
)
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.generate import Arm, Composition, random_packings
from nucleate.pipeline.learned import LearnedGenerator, shares_of
from nucleate.pipeline.minima import Minima
from nucleate.pipeline.strategy import Plan, Progress, plan_round
from nucleate.pipeline.units import Kind, SearchSettings, Unit, UnitResult, load_unit, save_unit
from nucleate.pipeline.workers import Job, Workers, jobs_of


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Everything a search found and what it cost."""

    composition: Composition
    arms: list[Arm]
    field: ForceField
    minima: Minima
    units: list[UnitResult]
    stopped: Literal["", "time", "user"]  # why not all starts were spent

    @cached_property
    def counts(self) -> dict[str, int]:
        keys = self.units[0].counts if self.units else {}
        return {key: sum(u.counts[key] for u in self.units) for key in keys}

    @cached_property
    def seconds(self) -> dict[str, float]:
        keys = self.units[0].seconds if self.units else {}
        return {key: sum(u.seconds[key] for u in self.units) for key in keys}


def search(
    composition: Composition,
    arms: list[Arm],
    settings: SearchSettings | None = None,
    *,
    field: ForceField | None = None,
    generator: LearnedGenerator | None = None,
    folder: Path | None = None,
    deadline: float | None = None,
    progress: Callable[[int, int, Minima | None], None] | None = None,
) -> SearchResult:
    """Run rounds of units until `settings.n` starts are spent or `deadline` (time.monotonic()) has passed.

    Of the new starts `settings.share` are the `generator`'s, in the arms that it can do; all others are random. With a
    folder, finished units are kept there and found again. KeyboardInterrupt ends the search early with all
    finished units; the caller sees it in `stopped`.
    """
    settings = settings or SearchSettings()
    field = field or ForceField.for_molecules(composition.species)
    empty = [random_packings(composition, arm, 0, 1, settings.seed)[:0] for arm in arms]
    known: list[UnitResult] = []
    minima = Minima.merge(arms, empty, known)
    state = Progress.start(arms, shares_of(generator, settings.share, composition, arms))
    stopped: Literal["", "time", "user"] = ""
    warm_up(composition, arms[0], field)
    with Workers(settings.workers, (composition, arms, field, settings, generator)) as workers:
        try:
            for number in range(settings.rounds):
                plan = plan_round(
                    number, settings.n, settings.rounds, settings.perturb, state, minima.energy, minima.arm
                )
                jobs = jobs_of(units_of(plan, number, settings, state, minima), settings.unit)
                stopped = _run_round(
                    workers,
                    jobs,
                    minima,
                    plan,
                    empty,
                    folder,
                    deadline,
                    known,
                    progress,
                    settings.n,
                )
                minima = Minima.merge(arms, empty, known)
                state = state.after(plan, minima.energy, minima.arm)
                if progress is not None:
                    progress(sum(r.unit.count for r in known), settings.n, minima)
                if stopped:
                    break
        except KeyboardInterrupt:  # between rounds; within one it is caught there
            stopped = "user"
            workers.stop()
            minima = Minima.merge(arms, empty, known)
    return SearchResult(composition, arms, field, minima, known, stopped)


def units_of(
    plan: Plan, number: int, settings: SearchSettings, state: Progress, minima: Minima
) -> list[Unit]:
    """Cut a round's plan into units, all arms in turn: where time ends a round early, each has had its share."""
    ceiling = minima.energy[0] + settings.window * KJ_PER_MOL if len(minima) else None
    parts: list[tuple[float, Kind, int, int, int]] = []  # how far into its job each part is, then what it is
    jobs: list[tuple[Kind, int, int, int]] = []
    jobs += [("random", a, state.random_starts[a], n) for a, n in enumerate(plan.random)]
    jobs += [("learned", a, state.learned_starts[a], n) for a, n in enumerate(plan.learned)]
    jobs += [("perturbed", a, 0, n) for a, n in enumerate(plan.perturbed)]
    for kind, arm, first, total in jobs:
        for offset in range(0, total, settings.unit):
            count = min(settings.unit, total - offset)
            parts.append(((offset + count / 2) / total, kind, arm, first + offset, count))
    parts.sort(key=lambda part: part[0])
    return [
        Unit(number, index, arm, kind, first, count, ceiling)
        for index, (_, kind, arm, first, count) in enumerate(parts)
    ]


def _run_round(
    workers: Workers,
    jobs: list[Job],
    minima: Minima,
    plan: Plan,
    empty: list[Packings],
    folder: Path | None,
    deadline: float | None,
    known: list[UnitResult],
    progress: Callable[[int, int, Minima | None], None] | None,
    asked: int,
) -> Literal["", "time", "user"]:
    """Run the jobs that lack a file of theirs; appends results to `known` in the order of units. Why it was cut short.

    A job is done again as a whole, so that its samples are what they were to the last bit.
    """
    results: dict[int, UnitResult] = {}
    todo: list[Job] = []
    for job in jobs:
        found = [_finished(unit, folder, empty) for unit in job]
        if all(found):
            results |= {r.unit.index: r for r in found if r is not None}
        else:
            todo.append(job)
    before = sum(r.unit.count for r in known)
    interrupted = False
    try:
        for result in workers.run(todo, lambda u: _parents(u, plan, minima), deadline):
            results[result.unit.index] = result
            if folder:
                save_unit(result, folder)
            if progress is not None:
                progress(before + sum(r.unit.count for r in results.values()), asked, None)
    except KeyboardInterrupt:
        interrupted = True
        workers.stop()
    known.extend(results[i] for i in sorted(results))
    if interrupted:
        return "user"
    return "" if len(results) == sum(map(len, jobs)) else "time"


def _finished(unit: Unit, folder: Path | None, empty: list[Packings]) -> UnitResult | None:
    """What an earlier run left of a unit."""
    return load_unit(folder / f"{unit.name}.safetensors", unit, empty[unit.arm]) if folder else None


def warm_up(composition: Composition, arm: Arm, field: ForceField) -> None:
    """Compile the kernels once, before several processes would each do it (cached on disk after the first time)."""
    packings = random_packings(composition, arm, 0, 1, 0)
    for level in (PRESS, ROUGH, TIGHT):
        minimise(packings, field, level._replace(max_steps=1))
    closest_contacts(packings, field)
    pair_energy_fingerprints(packings, field)


def _parents(unit: Unit, plan: Plan, minima: Minima) -> Packings | None:
    """The minima whose neighbourhood a perturbed unit looks at; units of one arm share its parents in turn."""
    if unit.kind != "perturbed":
        return None
    chosen = [i for i in plan.parents if minima.arm[i] == unit.arm]
    offset = unit.index % len(chosen)
    rows = [int(minima.row[i]) for i in chosen[offset:] + chosen[:offset]]
    return minima.packings[unit.arm][rows]
