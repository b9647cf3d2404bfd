"""`nucleate generate crystalflow`: from a formula, or from nothing, to CIF files of inorganic crystals.

tasks --noise, flow--> states --build--> crystals --relax, if asked--> CIF files, samples.parquet, run.json
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ase.data import chemical_symbols
from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from nucleate.crystal.sites import NEARLY, sites_from_cif
from nucleate.errors import InputError
from nucleate.metrics.surroundings import Surroundings, first_of_equals, surroundings
from nucleate.models.crystalflow import CrystalFlow, Sampling
from nucleate.models.crystalflow_training import CrystalFlowSettings, flow_of
from nucleate.physics.energy import EnergyModel
from nucleate.pipeline.claims import claim
from nucleate.pipeline.folders import hold_folder, make_folder
from nucleate.pipeline.inorganic_samples import Row, Sample, relaxed, sampled, write_table, written
from nucleate.pipeline.inorganic_tasks import Target, Task, batches, targets_of, tasks_of
from nucleate.pipeline.landscape import write_run
from nucleate.pipeline.predict import Stopwatch
from nucleate.pipeline.provenance import provenance
from nucleate.pipeline.relax import RelaxSettings, refuse_without_molecules
from nucleate.weights import Weights, find_weights, read_weights

SYSTEM = "crystalflow"
MARK, TABLE = "generate.json", "samples.parquet"
SAVE_EVERY = 5.0  # s between tables at least, and 20 times what writing one takes
FAR = 4.0  # deviations from the mean of the training, beyond which a condition is called far
WALK = tuple(setting.name for setting in fields(Sampling))  # settings of the sampler

Progress = Callable[[str, int, int, str], None]


class InorganicSettings(BaseModel, frozen=True, extra="forbid"):
    """What to generate, and how."""

    n: PositiveInt = Field(20, le=1_000_000)  # samples of each target
    formula: str | None = None  # without it, and without a list, the weights choose the atoms
    formula_units: PositiveInt = 1  # in the cell
    formula_list: Path | None = None  # table with a column formula or cif
    weights: Path | None = None  # None: those of the package
    condition: dict[str, float] = {}  # property -> what it shall be, in the units of the training
    guidance: float = Field(1.0, ge=0, le=100)  # 1: as conditioned; more: beyond
    steps: PositiveInt = Field(Sampling.steps, le=10_000)
    method: Literal["euler", "heun"] = Sampling.method
    anneal: NonNegativeFloat = Sampling.anneal  # slope by which coordinates are hurried
    # how often a walk goes back half the way; None: never where atoms are chosen, as that was measured to hurt
    returns: NonNegativeInt | None = Field(None, le=100)
    relax: str | None = None  # energy model
    relax_steps: PositiveInt = 200
    workers: PositiveInt = Field(1, le=256)  # processes that relax
    symprec: PositiveFloat = NEARLY  # Å, at which symmetry is sought for the files
    seed: NonNegativeInt = Field(0, lt=2**31)


@dataclass(frozen=True, eq=False)
class Generated:
    """What is in the folder: rows of samples.parquet, and run.json."""

    folder: Path
    rows: list[Row]
    run: dict[str, Any]


def generate_inorganic(
    settings: InorganicSettings,
    folder: Path,
    progress: Progress | None = None,
    resume: bool = False,
) -> Generated:
    """Write folder/cif/0001.cif ..., samples.parquet (a row a sample asked for) and run.json.

    A sample depends on seed, target and its own number (and in the last digits on what is sampled beside it): more
    samples begin with the same ones, and `resume` adds what is missing. KeyboardInterrupt ends the run with usable
    files and sets run.json's "interrupted". Raises InputError, before anything is written, for what cannot be asked of
    the weights, and for a folder that holds other samples.
    """
    if settings.formula is not None and settings.formula_list is not None:
        raise InputError("--formula-list: expected a formula or a list of them, got both")
    targets = targets_of(settings.formula, settings.formula_units, settings.formula_list)
    if settings.relax is not None:
        refuse_without_molecules(settings.relax)
    if resume and not (folder / MARK).is_file():
        raise InputError(f"--resume: expected earlier samples in {folder}, found none; leave --resume out")
    flow, weights = _flow(settings, de_novo=targets[0].numbers is None)
    _refuse_conditions(flow, settings)
    if settings.returns is None:
        settings = settings.model_copy(update={"returns": 0 if flow.generates_kinds else Sampling.returns})
    targets = _possible(targets, flow)
    tasks = tasks_of(targets, settings.n, settings.seed, flow)
    with ExitStack() as held:
        model = None
        if settings.relax is not None:
            model = held.enter_context(_relaxing(settings).model())
            model.start()
        held.enter_context(hold_folder(make_folder(folder)))
        identity = _identity(settings, weights, targets)
        rows = claim(folder / MARK, folder / TABLE, identity, {task.id for task in tasks}, resume)
        run = Run(settings, folder, flow, weights, tasks, model, rows)
        run.work(progress or (lambda *_: None))
        return run.finish()


# ------------------------------------------------------------------ what can be asked for


def _flow(settings: InorganicSettings, de_novo: bool) -> tuple[CrystalFlow, Weights]:
    """The flow of the weights asked for. Raises InputError where they are not made for the task."""
    path = find_weights(SYSTEM, settings.weights, f"{SYSTEM}_dng" if de_novo else SYSTEM)
    weights = read_weights(path, SYSTEM)
    flow = weights.fill(flow_of(weights.settings(CrystalFlowSettings)))
    if flow.generates_kinds and not de_novo:
        raise InputError(
            f"--formula: expected none with {path.name}, whose weights choose the atoms themselves; leave it out, or "
            'name weights trained with task = "csp"'
        )
    if de_novo and not flow.generates_kinds:
        raise InputError(
            f"--formula: expected a formula such as TiO2 with {path.name}, whose weights do not choose the atoms; give "
            'one (or --formula-list), or name weights trained with task = "dng"'
        )
    return flow, weights


def _refuse_conditions(flow: CrystalFlow, settings: InorganicSettings) -> None:
    known = ", ".join(flow.conditions) or "none, as these weights know no property"
    if unknown := sorted(set(settings.condition) - set(flow.conditions)):
        raise InputError(f"--condition: expected properties out of {known}; got {', '.join(unknown)}")
    if settings.guidance != 1.0 and not settings.condition:
        raise InputError(f"--guidance: expected a --condition to be guided by, out of {known}; got none")


def _possible(targets: list[Target], flow: CrystalFlow) -> list[Target]:
    """Targets with elements that the weights have not seen get their refusal as contents.

    Raises InputError where no target is left.
    """
    seen = flow.seen.tolist()
    judged = [replace(t, numbers=_unless_unseen(t.numbers, seen)) for t in targets]
    refusals = [t.numbers for t in judged if isinstance(t.numbers, InputError)]
    if len(refusals) == len(judged):
        raise refusals[0]
    return judged


def _unless_unseen(
    numbers: tuple[int, ...] | InputError | None, seen: Sequence[float]
) -> tuple[int, ...] | InputError | None:
    if not isinstance(numbers, tuple):
        return numbers
    unseen = [chemical_symbols[z] for z in sorted(set(numbers)) if z >= len(seen) or not seen[z]]
    if not unseen:
        return numbers
    return InputError(
        f"expected elements that the weights have learnt, got {', '.join(unseen)}, of which their training held none; "
        "name other weights with --weights",
        reason="unknown element",
    )


def _notes(flow: CrystalFlow, settings: InorganicSettings, tasks: Sequence[Task]) -> list[str]:
    """What is asked for beyond the training."""
    notes = []
    learnt, largest = int(flow.sizes.nonzero().max()), max(task.size for task in tasks)
    if largest > learnt:
        notes.append(f"cells of up to {largest} atoms were asked for; the weights have learnt up to {learnt}")
    for name, mean, scale in zip(flow.conditions, flow.property_mean.tolist(), flow.property_scale.tolist()):
        asked = settings.condition.get(name, mean)
        if abs(asked - mean) > FAR * scale:
            notes.append(
                f"{name}={asked:g} is far from what the weights have learnt ({mean:.3g} ± {scale:.3g})"
            )
    return notes


def _relaxing(settings: InorganicSettings) -> RelaxSettings:
    return RelaxSettings(
        energy=settings.relax or "", max_steps=settings.relax_steps, workers=settings.workers
    )


# ------------------------------------------------------------------ the folder


def _identity(settings: InorganicSettings, weights: Weights, targets: Sequence[Target]) -> dict[str, Any]:
    """What must agree for samples to belong together."""
    about = settings.model_dump(mode="json", exclude={"n", "weights", "formula_list", "workers"})
    listed = hashlib.sha256(repr([(t.name, t.numbers) for t in targets]).encode()).hexdigest()[:16]
    return about | {"weights": weights.digest, "contents": listed}


@dataclass(eq=False)
class Run:
    """One folder being filled."""

    settings: InorganicSettings
    folder: Path
    flow: CrystalFlow
    weights: Weights
    tasks: list[Task]
    model: EnergyModel | None
    rows: dict[str, Row]  # by id
    around: dict[str, Surroundings] = field(default_factory=dict)
    clock: Stopwatch = field(default_factory=Stopwatch)
    interrupted: bool = False

    def work(self, tell: Progress) -> None:
        """Sample what is missing, batch by batch; after Ctrl-C what is done stays."""
        todo = [task for task in self.tasks if task.id not in self.rows]
        try:
            tell("sample", len(self.rows), len(self.tasks), "")
            saved, pause = time.monotonic(), SAVE_EVERY
            for batch in batches(todo):
                self._fill(batch)
                tell("sample", len(self.rows), len(self.tasks), "")
                if (before := time.monotonic()) - saved > pause:
                    self._save()
                    saved = time.monotonic()
                    pause = max(SAVE_EVERY, 20 * (saved - before))
        except KeyboardInterrupt:
            self.interrupted = True

    def _fill(self, batch: Sequence[Task]) -> None:
        asked = Sampling(**{name: getattr(self.settings, name) for name in WALK})
        samples = sampled(self.flow, batch, asked, self.settings.condition)
        self.clock.lap("sample")
        if self.model is not None:
            samples = relaxed(samples, self.model, _relaxing(self.settings))
            self.clock.lap("relax")
        for sample in samples:
            self._keep(sample)
        self.clock.lap("write")

    def _keep(self, sample: Sample) -> None:
        settings = self.settings
        about = {"generator": SYSTEM, "weights": self.weights.digest, "seed": settings.seed}
        about |= {name: getattr(settings, name) for name in WALK}
        about |= {f"condition {name}": value for name, value in settings.condition.items()}
        row = written(sample, self.folder, about, settings.symprec, settings.relax)
        self.rows[row["id"]] = row
        if sample.around is not None:
            self.around[row["id"]] = sample.around

    def _save(self) -> list[Row]:
        """The table of what is there, in the order asked."""
        rows = [self.rows[task.id] for task in self.tasks if task.id in self.rows]
        write_table(rows, self.folder / TABLE)
        return rows

    def finish(self) -> Generated:
        """Table and run.json."""
        rows = self._save()
        self.clock.lap("write")
        run = {
            **provenance("torch", "numpy", "gemmi", "moyopy", "ase"),
            "settings": self.settings.model_dump(mode="json"),
            "weights": {"file": str(self.weights.path), "digest": self.weights.digest},
            "counts": self._counts(rows),
            "failures": dict(Counter(row["failure"] for row in rows if row["failure"]).most_common()),
            "space_groups": dict(Counter(row["space_group"] for row in rows if row["file"]).most_common()),
            "notes": _notes(self.flow, self.settings, self.tasks),
            "started": self.clock.began,
            "timings": self.clock.laps,
            "wall_seconds": self.clock.total,
            "cpu_seconds": round(self.clock.cpu, 3),
            "interrupted": self.interrupted,
        }
        return Generated(self.folder, rows, write_run(self.folder, run))

    def _counts(self, rows: Sequence[Row]) -> dict[str, int]:
        built = [row for row in rows if row["file"]]
        counts = {"targets": len({task.target.name for task in self.tasks}), "asked": len(self.tasks)}
        counts |= {"built": len(built), "overlapping": sum(row["overlap"] for row in built)}
        counts["distinct"] = self._distinct(built)
        if self.model is not None:
            counts["relaxed"] = sum(row["energy_eV"] is not None for row in rows)
            counts["converged"] = sum(bool(row["converged"]) for row in rows)
        return counts

    def _distinct(self, built: Sequence[Row]) -> int:
        """Crystals that are like none before them of the same target."""
        groups: dict[str | None, list[Surroundings]] = {}
        for row in built:
            around = self.around.get(row["id"]) or surroundings(sites_from_cif(row["cif"]))
            groups.setdefault(row["target"], []).append(around)
        return sum(int(first_of_equals(group).sum()) for group in groups.values())
