"""The classical search: rounds of starts, each pressed, minimised and merged with what is known.

A *unit* is a batch of starts of one arm (space group and Z'), small enough to lose and large enough to be worth a
process. Units of a round do not depend on each other; what the next round does depends only on finished rounds, so
neither the number of processes nor an interruption changes what is found. A finished unit is a file; resuming
replays the rounds and skips the units that have one.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nucleate.crystal.packing import Packings
from nucleate.files import write_atomically
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
from nucleate.pipeline.deduplicate import DuplicateTolerance, distinct_crystals
from nucleate.pipeline.generate import Arm, Composition, perturbed_packings, random_packings
from nucleate.pipeline.strategy import Plan, Progress, plan_round


class SearchSettings(BaseModel, frozen=True, extra="forbid"):
    """How many starts, and what happens to each."""

    n: PositiveInt = 5000
    seed: NonNegativeInt = 0
    sequence: Literal["sobol", "random"] = "sobol"
    unit: PositiveInt = 50  # starts
    rounds: PositiveInt = 6
    perturb: float = Field(
        0.35, ge=0, le=0.95
    )  # share of later rounds that starts from the lowest minima found
    window: PositiveFloat = 12.0  # kJ/mol above the lowest known minimum: what is worth a tight minimisation
    workers: PositiveInt = 2


ROUGH_TOLERANCE = DuplicateTolerance(energy=0.3 * KJ_PER_MOL, volume=0.008, pair_energy=1.2 * KJ_PER_MOL)
TENSORS = ("lattice", "centroid", "rotation", "handedness", "conformer")


@dataclass(frozen=True)
class Unit:
    """One batch of starts: what to do, not how it went."""

    round: int
    index: int
    arm: int
    kind: Literal["random", "perturbed"]
    first: int
    count: int
    ceiling: float | None  # eV per formula unit; rough minima above it are left

    @property
    def name(self) -> str:
        return f"{self.round:03d}-{self.index:03d}"


@dataclass(frozen=True, eq=False)
class UnitResult:
    """Minima of one unit, and counts of what happened to its starts."""

    unit: Unit
    packings: Packings
    energy: Tensor  # (minima,) eV per formula unit, conformer energies included
    volume: Tensor  # (minima,) Å^3 per formula unit
    fingerprint: Tensor  # (minima, pairs) eV
    contact: Tensor  # (minima,) closest contact, see `closest_contacts`
    hits: Tensor  # (minima,) starts that came down here
    start: Tensor  # (minima,) number of the start
    counts: dict[str, int]
    seconds: dict[str, float]


def run_unit(
    composition: Composition,
    arm: Arm,
    field: ForceField,
    settings: SearchSettings,
    unit: Unit,
    parents: Packings | None,
) -> UnitResult:
    """Generate, press, minimise roughly, keep the promising and distinct ones, minimise tightly."""
    clock = Clock()
    if unit.kind == "random":
        starts = random_packings(composition, arm, unit.first, unit.count, settings.seed, settings.sequence)
    else:
        assert parents is not None, "a perturbed unit needs parents"
        starts = perturbed_packings(parents, unit.count, settings.seed, f"{arm.key}/{unit.name}")
    clock.lap("generate")
    pressed = minimise(starts, field, PRESS)
    clock.lap("press")
    rough = minimise(pressed.packings[torch.nonzero(~pressed.collapsed).flatten()], field, ROUGH)
    alive = torch.nonzero(~rough.collapsed).flatten()
    energy = total_energy(composition, arm, rough.packings, rough.energy)[alive]
    ceiling = energy.min().item() + settings.window * KJ_PER_MOL if len(energy) else 0.0
    if unit.ceiling is not None:
        ceiling = unit.ceiling
    low = alive[energy <= ceiling]
    start = torch.nonzero(~pressed.collapsed).flatten()[low] + unit.first
    candidates, energy = rough.packings[low], energy[energy <= ceiling]
    distinct = distinct_crystals(
        energy.numpy(),
        per_formula_unit(arm, candidates.volume).numpy(),
        pair_energy_fingerprints(candidates, field).numpy(),
        ROUGH_TOLERANCE,
    )
    chosen = torch.from_numpy(distinct.kept)
    clock.lap("rough")
    tight = minimise(candidates[chosen], field, TIGHT)
    good = torch.nonzero(~tight.collapsed).flatten()
    packings = tight.packings[good]
    contact = closest_contacts(packings, field)
    clock.lap("tight")
    return UnitResult(
        unit=unit,
        packings=packings,
        energy=total_energy(composition, arm, packings, tight.energy[good]),
        volume=per_formula_unit(arm, packings.volume),
        fingerprint=pair_energy_fingerprints(packings, field),
        contact=contact,
        hits=torch.from_numpy(distinct.multiplicity)[good],
        start=start[chosen][good],
        counts={
            "asked": unit.count,
            "generated": len(starts),
            "collapsed in the press": int(pressed.collapsed.sum()),
            "collapsed in minimisation": int(rough.collapsed.sum() + tight.collapsed.sum()),
            "above the energy window": int((~rough.collapsed).sum()) - len(low),
            "within the energy window": len(low),
            "not converged": int((~tight.converged[good]).sum()),
            "minima": len(good),
        },
        seconds=clock.seconds,
    )


def total_energy(composition: Composition, arm: Arm, packings: Packings, energy: Tensor) -> Tensor:
    """eV per formula unit: lattice energy and what the conformers cost."""
    cost = sum(
        composition.conformer_energies[k].double()[packings.conformer[:, m]]
        for m, k in enumerate(packings.kind.tolist())
    )
    return (energy + cost) / arm.formula_units


def per_formula_unit(arm: Arm, volume: Tensor) -> Tensor:
    return volume / (len(arm.group) * arm.formula_units)


class Clock:
    """CPU-seconds of this process between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


# ------------------------------------------------------------------ units as files


def save_unit(result: UnitResult, folder: Path) -> None:
    """One safetensors file a unit, written atomically; metadata are JSON."""
    tensors = {name: getattr(result.packings, name).contiguous() for name in TENSORS}
    for name in ("energy", "volume", "fingerprint", "contact", "hits", "start"):
        tensors[name] = getattr(result, name).contiguous()
    about = {"unit": result.unit.__dict__, "counts": result.counts, "seconds": result.seconds}
    write_atomically(
        folder / f"{result.unit.name}.safetensors", save(tensors, {"nucleate": json.dumps(about)})
    )


def load_unit(path: Path, unit: Unit, like: Packings) -> UnitResult | None:
    """A finished unit, or None where the file is missing, damaged or belongs to other settings: then it is redone."""
    if not path.exists():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {}).get("nucleate", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        return None
    if about.get("unit") != unit.__dict__:
        return None
    return UnitResult(
        unit=unit,
        packings=replace(like, **{name: tensors.pop(name) for name in TENSORS}),
        counts=about["counts"],
        seconds=about["seconds"],
        **tensors,
    )


# ------------------------------------------------------------------ what is known so far


@dataclass(frozen=True, eq=False)
class Minima:
    """All minima found, flat over arms; `row` points into that arm's packings."""

    packings: tuple[Packings, ...]
    arm: np.ndarray
    row: np.ndarray
    energy: np.ndarray  # eV per formula unit
    volume: np.ndarray  # Å^3 per formula unit
    fingerprint: np.ndarray
    contact: np.ndarray
    hits: np.ndarray
    random_hits: np.ndarray  # of these, from random starts
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.energy)

    def packing(self, i: int) -> Packings:
        return self.packings[self.arm[i]][int(self.row[i])]

    @staticmethod
    def merge(arms: list[Arm], empty: list[Packings], results: list[UnitResult]) -> "Minima":
        """Distinct minima over all results, lowest first; hits of duplicates add up."""
        by_arm = [[r.packings for r in results if r.unit.arm == a] for a in range(len(arms))]
        packings = tuple(Packings.concatenate(p) if p else empty[a] for a, p in enumerate(by_arm))
        ordered = [r for a in range(len(arms)) for r in results if r.unit.arm == a]

        def joined(name: str, width: tuple[int, ...] = ()) -> np.ndarray:
            parts = [getattr(r, name).numpy() for r in ordered]
            return np.concatenate(parts) if parts else np.zeros((0, *width))

        arm = np.concatenate([np.full(len(p), a) for a, p in enumerate(packings)]).astype(np.int64)
        row = np.concatenate([np.arange(len(p)) for p in packings]).astype(np.int64)
        is_random = np.repeat([r.unit.kind == "random" for r in ordered], [len(r.energy) for r in ordered])
        energy, volume, fingerprint = joined("energy"), joined("volume"), joined("fingerprint", (1,))
        distinct = distinct_crystals(energy, volume, fingerprint)
        kept, hits = distinct.kept, joined("hits")
        return Minima(
            packings=packings,
            arm=arm[kept],
            row=row[kept],
            energy=energy[kept],
            volume=volume[kept],
            fingerprint=fingerprint[kept],
            contact=joined("contact")[kept],
            hits=np.bincount(distinct.group, hits, len(kept)).astype(np.int64),
            random_hits=np.bincount(distinct.group, hits * is_random, len(kept)).astype(np.int64),
            start=joined("start")[kept].astype(np.int64),
        )


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


# ------------------------------------------------------------------ the search itself


def search(
    composition: Composition,
    arms: list[Arm],
    settings: SearchSettings | None = None,
    *,
    field: ForceField | None = None,
    folder: Path | None = None,
    deadline: float | None = None,
    progress: Callable[[int, int, Minima | None], None] | None = None,
) -> SearchResult:
    """Run rounds of units until `settings.n` starts are spent or `deadline` (time.monotonic()) has passed.

    With a folder, finished units are kept there and found again. KeyboardInterrupt ends the search early with all
    finished units; the caller sees it in `stopped`.
    """
    settings = settings or SearchSettings()
    field = field or ForceField.for_molecules(composition.species)
    empty = [random_packings(composition, arm, 0, 1, settings.seed)[:0] for arm in arms]
    known: list[UnitResult] = []
    minima = Minima.merge(arms, empty, known)
    state = Progress.start(arms)
    stopped: Literal["", "time", "user"] = ""
    with Workers(settings.workers, (composition, arms, field, settings)) as workers:
        for number in range(settings.rounds):
            plan = plan_round(
                number, settings.n, settings.rounds, settings.perturb, state, minima.energy, minima.arm
            )
            units = units_of(plan, number, settings, state, minima)
            stopped = _run_round(
                workers, units, minima, plan, empty, folder, deadline, known, progress, settings.n
            )
            minima = Minima.merge(arms, empty, known)
            state = state.after(plan, minima.energy, minima.arm)
            if progress is not None:
                progress(sum(r.unit.count for r in known), settings.n, minima)
            if stopped:
                break
    return SearchResult(composition, arms, field, minima, known, stopped)


def units_of(
    plan: Plan, number: int, settings: SearchSettings, state: Progress, minima: Minima
) -> list[Unit]:
    """Cut a round's plan into units."""
    ceiling = minima.energy[0] + settings.window * KJ_PER_MOL if len(minima) else None
    units: list[Unit] = []
    jobs = [("random", a, state.random_starts[a], n) for a, n in enumerate(plan.random)]
    jobs += [("perturbed", a, 0, n) for a, n in enumerate(plan.perturbed)]
    for kind, arm, first, total in jobs:
        for offset in range(0, total, settings.unit):
            count = min(settings.unit, total - offset)
            units.append(
                Unit(number, len(units), arm, kind, first + offset, count, ceiling)  # type: ignore[arg-type]
            )
    return units


def _run_round(
    workers: "Workers",
    units: list[Unit],
    minima: Minima,
    plan: Plan,
    empty: list[Packings],
    folder: Path | None,
    deadline: float | None,
    known: list[UnitResult],
    progress: Callable[[int, int, Minima | None], None] | None,
    asked: int,
) -> Literal["", "time", "user"]:
    """Run the units that have no file yet; appends results to `known` in the order of units. Why it was cut short."""
    results: dict[int, UnitResult] = {}
    todo: list[Unit] = []
    for unit in units:
        found = load_unit(folder / f"{unit.name}.safetensors", unit, empty[unit.arm]) if folder else None
        if found is None:
            todo.append(unit)
        else:
            results[unit.index] = found
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
    return "" if len(results) == len(units) else "time"


def _parents(unit: Unit, plan: Plan, minima: Minima) -> Packings | None:
    """The minima whose neighbourhood a perturbed unit looks at; units of one arm share its parents in turn."""
    if unit.kind == "random":
        return None
    chosen = [i for i in plan.parents if minima.arm[i] == unit.arm]
    offset = unit.index % len(chosen)
    rows = [int(minima.row[i]) for i in chosen[offset:] + chosen[:offset]]
    return minima.packings[unit.arm][rows]


class Workers:
    """Processes that run units; one worker means this process itself.

    Every process holds the far end of a pipe, the lifeline: when ours is closed, or we are gone, it ends at once.
    """

    def __init__(self, count: int, context: tuple[Any, ...]) -> None:
        self.count, self.context = count, context
        self.pool: ProcessPoolExecutor | None = None
        self.lifeline: Connection | None = None

    def __enter__(self) -> "Workers":
        if self.count > 1:
            spawn = multiprocessing.get_context("spawn")
            far_end, self.lifeline = spawn.Pipe(duplex=False)
            self.pool = ProcessPoolExecutor(self.count, spawn, _start_worker, (far_end, *self.context))
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.stop()

    def stop(self) -> None:
        """End the processes without waiting for their units."""
        if self.lifeline is not None:
            self.lifeline.close()

    def run(
        self, units: list[Unit], parents: Callable[[Unit], Packings | None], deadline: float | None
    ) -> Iterator[UnitResult]:
        """Results as they come; after the deadline running units are awaited and no more are begun."""

        def late() -> bool:
            return deadline is not None and time.monotonic() > deadline

        queue = iter(units)
        if self.pool is None:
            composition, arms, field, settings = self.context
            for unit in queue:
                if late():
                    return
                yield run_unit(composition, arms[unit.arm], field, settings, unit, parents(unit))
            return
        running: set[Future[UnitResult]] = set()
        exhausted = False
        while True:
            while not exhausted and not late() and len(running) < self.count + 1:
                following = next(queue, None)
                if following is None:
                    exhausted = True
                else:
                    with _ctrl_c_held_back():  # a new process inherits this, so it never dies of Ctrl-C
                        running.add(self.pool.submit(_run_in_worker, following, parents(following)))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Ctrl-C waits until the block is done (where signals can be blocked at all)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_WORKER_CONTEXT: dict[str, Any] = {}


def _start_worker(
    lifeline: Connection,
    composition: Composition,
    arms: list[Arm],
    field: ForceField,
    settings: SearchSettings,
) -> None:
    """Each process works on one thread, leaves Ctrl-C to its parent and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    torch.set_num_threads(1)
    _WORKER_CONTEXT["context"] = (composition, arms, field, settings)


def _end_with(lifeline: Connection) -> None:
    """Thread: nothing is ever sent, so reading returns when the other end is closed."""
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(1)


def _run_in_worker(unit: Unit, parents: Packings | None) -> UnitResult:
    composition, arms, field, settings = _WORKER_CONTEXT["context"]
    return run_unit(composition, arms[unit.arm], field, settings, unit, parents)
