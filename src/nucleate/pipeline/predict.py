"""The main job: a molecule in, ranked distinct crystals out.

conform -> generate, press, minimise (search) -> deduplicate -> rank -> report
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt

from nucleate import __version__
from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.cif_write import cif_text
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.standardise import formula_units
from nucleate.errors import EnergyModelError, InputError
from nucleate.files import write_atomically
from nucleate.physics.energy import energy_model
from nucleate.physics.forcefield import ForceField
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.candidates import candidates_of
from nucleate.pipeline.composition import Subject, read_subject
from nucleate.pipeline.conform import ConformSettings
from nucleate.pipeline.folders import hold_folder, make_folder
from nucleate.pipeline.generate import Arm, arms
from nucleate.pipeline.landscape import Candidate, write_landscape, write_run
from nucleate.pipeline.learned import LearnedGenerator, Name, SamplingSettings, generator_named
from nucleate.pipeline.minima import Minima
from nucleate.pipeline.rank import RankSettings, combined_energies, default_energy, rerank
from nucleate.pipeline.reference import SAME_PACKING, find_reference
from nucleate.pipeline.run_record import describe, generator_record, refusal_notes
from nucleate.pipeline.search import SearchResult, search, warm_up
from nucleate.pipeline.units import SearchSettings
from nucleate.reading import read_json
from nucleate.report.page import write_report

SEARCH_SHARE, LONE_SEARCH_SHARE = (
    0.7,
    0.9,
)  # of the time budget: with and without an energy model to rank after it


def half_one_or_two(z_prime: float) -> float:
    """The values of Z' that can be searched; ValueError for others."""
    if z_prime not in (0.5, 1.0, 2.0):
        raise ValueError("expected 0.5, 1 or 2")
    return z_prime


class PredictSettings(BaseModel, frozen=True, extra="forbid"):
    """What one prediction does. The same settings, seed and version give the same files."""

    n: PositiveInt = Field(5000, le=1_000_000)  # starts
    z: tuple[PositiveInt, ...] | None = None  # formula units in the conventional cell
    z_prime: tuple[Annotated[float, AfterValidator(half_one_or_two)], ...] | None = (
        None  # formula units in the asymmetric unit
    )
    space_groups: str = "common"
    generator: Name = "auto"
    weights: Path | None = None  # of the learned generator; None: those of the package
    sampling: SamplingSettings = SamplingSettings()
    sequence: Literal["sobol", "random"] = "sobol"
    charges: Literal["mmff", "esp"] = "mmff"
    energy: str | None = None  # None: CHGNet + D3 if installed, else the force field
    reference: Path | None = None
    budget: PositiveFloat | None = None  # s
    seed: NonNegativeInt = Field(0, lt=2**31)
    keep: PositiveInt = 100  # crystals handed over
    window: PositiveFloat = 25.0  # kJ/mol above the lowest: what is handed over at most
    workers: PositiveInt = Field(2, le=256)
    perturb: float = Field(SearchSettings().perturb, ge=0, le=0.95)
    conform: ConformSettings = ConformSettings()
    rank: RankSettings = RankSettings()


Progress = Callable[[str, int, int, str], None]  # stage, done, asked, a word on what was found


@dataclass(frozen=True, eq=False)
class Prediction:
    """What `predict` wrote."""

    folder: Path
    rows: list[dict[str, Any]]
    run: dict[str, Any]

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that is settled before the search begins."""

    source: str
    subject: Subject
    arms: list[Arm]
    forces: ForceField
    generator: LearnedGenerator | None
    search: SearchSettings
    folder: Path
    reference: Crystal | None


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates best first; what the energy model could not do; what became of the reference."""

    candidates: list[Candidate]
    failures: dict[str, int] = field(default_factory=dict)
    reference: dict[str, Any] | None = None

    @property
    def energy_model(self) -> str:
        """The model that judged the shortlist, or the force field where none did."""
        names = {c.energy_model for c in self.candidates} - {"forcefield"}
        return names.pop() if names else "forcefield"


class Stopwatch:
    """Wall seconds between laps."""

    def __init__(self) -> None:
        self.start = self._last = time.monotonic()
        self.laps: dict[str, float] = {}
        self.began = datetime.now(UTC).isoformat(timespec="seconds")
        self._cpu = time.process_time()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._last, 3)
        self._last = now

    @property
    def total(self) -> float:
        return round(time.monotonic() - self.start, 3)

    @property
    def cpu(self) -> float:
        """CPU-seconds of this process alone."""
        return time.process_time() - self._cpu


def predict(
    source: str,
    settings: PredictSettings | None = None,
    folder: Path | None = None,
    *,
    name: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Prediction:
    """Predict the crystals of a molecule (SMILES, molecule file or CIF) into a folder.

    The folder defaults to results/<name>. With the same settings work that is already there is taken up again;
    with others an InputError says so, and nothing is touched. KeyboardInterrupt during search or ranking writes
    what was found and sets run.json's "interrupted". Raises InputError where another run is under way in the folder,
    and InputError or EnergyModelError, before any search, where the energy model that the settings name cannot run.
    """
    settings, tell = settings or PredictSettings(), progress or (lambda *_: None)
    clock = Stopwatch()
    with ExitStack() as held:
        job = _prepare(source, settings, folder, name, resume, held)
        clock.lap("conform")
        return _predict(job, settings, clock, tell)


def _predict(job: Job, settings: PredictSettings, clock: Stopwatch, tell: Progress) -> Prediction:
    """Search, rank and write, in a folder that is ours."""
    tell("search", 0, settings.n, "compiling, on the first run only")
    warm_up(job.subject.composition, job.arms[0], job.forces)
    clock.lap("compile")
    # what is compiled once a machine is outside the budget
    end_of_search, end = _deadlines(settings, time.monotonic() - clock.laps["conform"])

    def searching(done: int, asked: int, minima: Minima | None) -> None:
        tell("search", done, asked, "" if minima is None else f"{len(minima)} distinct minima")

    result = search(
        job.subject.composition,
        job.arms,
        job.search,
        field=job.forces,
        generator=job.generator,
        folder=job.folder / "units",
        deadline=end_of_search,
        progress=searching,
    )
    clock.lap("search")
    handing_over = (settings.keep, settings.window, settings.seed)
    try:
        judged = Judged(candidates_of(result, *handing_over))
    except KeyboardInterrupt:  # a few seconds of work without which nothing would be handed over
        result = replace(result, stopped="user")
        judged = Judged(candidates_of(result, *handing_over))
    clock.lap("deduplicate")
    try:
        if result.stopped != "user":
            judged = _rerank(judged, settings, end, tell)
            clock.lap("rank")
        if job.reference is not None:
            judged = _compare(judged, job.reference, str(settings.reference))
            clock.lap("reference")
    except KeyboardInterrupt:  # the search is done and must not be lost
        result = replace(result, stopped="user")
    return _write(job, settings, result, judged, clock, tell)


def _search_settings(settings: PredictSettings, share: float) -> SearchSettings:
    return SearchSettings(
        n=settings.n,
        seed=settings.seed,
        sequence=settings.sequence,
        perturb=settings.perturb,
        share=share,
        workers=settings.workers,
    )


def _force_field(subject: Subject, charges: str) -> ForceField:
    species = subject.composition.species
    if charges == "mmff":
        return ForceField.for_molecules(species)
    from nucleate.physics.esp import esp_charges

    fitted = [np.stack([esp_charges(m, k).numpy() for k in range(len(m.conformers))]) for m in species]
    return ForceField.for_molecules(species, fitted)


def _prepare(
    source: str,
    settings: PredictSettings,
    folder: Path | None,
    name: str | None,
    resume: bool,
    held: ExitStack,
) -> Job:
    """Read what was given and settle what is to be done; everything that can be refused is refused here.

    From here on the folder is kept from other runs, until `held` is closed.
    """
    reference = read_crystal(settings.reference) if settings.reference else None
    subject = read_subject(source, settings.conform, settings.seed, name)
    wanted = arms(subject.composition, settings.space_groups, settings.z, settings.z_prime)
    generator, share = generator_named(
        settings.generator, settings.weights, settings.sampling, subject.composition, wanted
    )
    forces = _force_field(subject, settings.charges)
    if settings.energy is not None:
        with energy_model(settings.energy) as model:
            model.start()
    search = _search_settings(settings, share)
    about = _identity(subject, wanted, settings.charges, search, generator)
    claimed = _claim(folder or Path("results") / subject.name, about, resume, held)
    return Job(source, subject, wanted, forces, generator, search, claimed, reference)


def _deadlines(settings: PredictSettings, begin: float) -> tuple[float | None, float | None]:
    """When the search and when ranking must end (time.monotonic()); None without a budget."""
    if settings.budget is None:
        return None, None
    alone = (settings.energy or default_energy()) == "forcefield"
    return begin + (LONE_SEARCH_SHARE if alone else SEARCH_SHARE) * settings.budget, begin + settings.budget


def _claim(folder: Path, about: dict[str, Any], resume: bool, held: ExitStack) -> Path:
    """Make the folder and hold it, and make sure that what it holds belongs to the same search."""
    mark = folder / "search.json"
    if resume and not mark.is_file():
        raise InputError(f"--resume: expected an earlier search in {folder}, found none. Leave --resume out.")
    held.enter_context(hold_folder(make_folder(folder)))
    if mark.is_file():
        before = _earlier_search(mark)
        different = [key for key in about if before.get(key) != about[key]]
        if different:
            raise InputError(
                f"{folder} holds another search (other {', '.join(different)}). Choose another folder with -o, "
                "repeat the settings of that search, or delete the folder."
            )
    make_folder(folder / "units")
    write_atomically(mark, json.dumps(about, indent=1) + "\n")
    return folder


def _earlier_search(mark: Path) -> dict[str, Any]:
    try:
        before = read_json(mark)
    except InputError:
        before = None
    if not isinstance(before, dict):
        raise InputError(
            f"expected the settings of an earlier search in {mark}, which is damaged. Delete the folder or choose "
            "another with -o."
        )
    return before


def _identity(
    subject: Subject,
    wanted: list[Arm],
    charges: str,
    search: SearchSettings,
    generator: LearnedGenerator | None,
) -> dict[str, Any]:
    """What must agree for finished units to be used again."""
    return {
        "version": __version__,
        "molecules": [m.smiles for m in subject.composition.species],
        "conformers": subject.digest,
        "charges": charges,
        "space groups": {a.key: round(a.weight, 6) for a in wanted},
        "weights": None if generator is None else generator.digest,
        "sampling": None if generator is None else generator.settings.model_dump(exclude={"share"}),
        **search.model_dump(exclude={"workers"}),
    }


def _rerank(judged: Judged, settings: PredictSettings, end: float | None, tell: Progress) -> Judged:
    """Best first by the better model; without a single answer from it the force field's order stays."""
    name, candidates = settings.energy or default_energy(), judged.candidates
    if name == "forcefield" or not candidates:
        return judged
    answers = rerank(
        [c.crystal for c in candidates], name, settings.rank, end, lambda i, n: tell("rank", i, n, name)
    )
    per = np.array([c.crystal.n_molecules // formula_units(c.crystal) for c in candidates])
    own = np.array([c.lattice_energy for c in candidates])
    try:
        energies = combined_energies(own, answers.energy / per / KJ_PER_MOL)
    except EnergyModelError:
        return replace(judged, failures=answers.failures)
    new = [
        replace(c, energy=float(e), crystal=x, energy_model=name if known else c.energy_model)
        for c, e, x, known in zip(candidates, energies, answers.crystals, answers.judged)
    ]
    return replace(judged, candidates=sorted(new, key=lambda c: c.energy), failures=answers.failures)


def _compare(judged: Judged, reference: Crystal, file: str) -> Judged:
    """Every candidate against the reference, and what run.json says about it."""
    search = find_reference(reference, (c.crystal for c in judged.candidates))
    rank = search.rank()
    best = search.matches[rank - 1] if rank else max(search.matches, key=lambda m: m.n_matched, default=None)
    about = {
        "file": file,
        "found": rank is not None,
        "rank": rank,
        "rmsd": best.rmsd if best and best.n_matched else None,
        "n_matched": best.n_matched if best else None,
        "criterion": f"15 of 15 molecules (20 %, 20 degrees), RMSD_15 < {SAME_PACKING} Å",
        "cif": cif_text(reference, name="reference"),
    }
    compared = [replace(c, match=m) for c, m in zip(judged.candidates, search.matches)]
    return replace(judged, candidates=compared, reference=about)


def _write(
    job: Job,
    settings: PredictSettings,
    result: SearchResult,
    judged: Judged,
    clock: Stopwatch,
    tell: Progress,
) -> Prediction:
    """CIF files, table, run.json and report."""
    run = describe(
        job.source, job.subject, settings, settings.seed, result, judged.candidates, judged.failures
    )
    if judged.failures and judged.energy_model == "forcefield":
        run["notes"] = [
            *run["notes"],
            f"The energy model judged no crystal ({_listed(judged.failures)}): force field order.",
        ]
    if job.generator is not None:
        run["generator"] = generator_record(result, job.generator)
        run["notes"] = [*run["notes"], *refusal_notes(result, job.generator)]
    run |= {"energy_model": judged.energy_model, "reference": judged.reference, "started": clock.began}
    provenance = {"command": run["command"], "version": __version__, "seed": settings.seed}
    rows = write_landscape(job.folder, judged.candidates, job.subject.name, provenance)
    clock.lap("write")
    cpu = clock.cpu + (sum(result.seconds.values()) if settings.workers > 1 else 0.0)
    run |= {"timings": clock.laps, "search_cpu_seconds": result.seconds}
    run |= {"wall_seconds": clock.total, "cpu_seconds": cpu}
    run = write_run(job.folder, run)
    tell("report", 0, 1, "")
    write_report(job.folder)
    tell("report", 1, 1, "")
    return Prediction(job.folder, rows, run)


def _listed(failures: dict[str, int]) -> str:
    return "; ".join(f"{count} x {reason}" for reason, count in failures.items())
