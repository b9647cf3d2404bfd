"""The main job: a molecule in, ranked distinct crystals out.

conform -> generate, press, minimise (search) -> deduplicate -> rank -> report
"""

import hashlib
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt

from nucleate import __version__
from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.cif_write import cif_text
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.standardise import find_symmetry, formula_units
from nucleate.errors import EnergyModelError, InputError
from nucleate.files import write_atomically
from nucleate.metrics.packing import compare_packing
from nucleate.physics.energy import energy_model
from nucleate.physics.forcefield import FINAL, ForceField
from nucleate.physics.minimise import CLASH
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.composition import Subject, read_subject
from nucleate.pipeline.conform import ConformSettings
from nucleate.pipeline.convergence import convergence
from nucleate.pipeline.folders import make_folder
from nucleate.pipeline.generate import Arm, arms
from nucleate.pipeline.landscape import SYMMETRY_TOLERANCE, Candidate, write_landscape, write_run
from nucleate.pipeline.minima import Minima
from nucleate.pipeline.rank import RankSettings, combined_energies, default_energy, rerank
from nucleate.pipeline.reference import SAME_PACKING, find_reference, is_same
from nucleate.pipeline.search import SearchResult, search, warm_up
from nucleate.pipeline.units import SearchSettings, total_energy
from nucleate.report.page import write_report

SEARCH_SHARE, LONE_SEARCH_SHARE = (
    0.7,
    0.9,
)  # of the time budget: with and without an energy model to rank after it

TWIN_ENERGY, TWIN_DENSITY, TWIN_RMSD = 0.5, 0.01, 0.15  # kJ/mol per molecule, relative, Å


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
    generator: Literal["random"] = "random"
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
    what was found and sets run.json's "interrupted". Raises InputError or EnergyModelError, before any search, where
    the energy model that the settings name cannot run.
    """
    settings = settings or PredictSettings()
    tell = progress or (lambda *_: None)
    clock = Stopwatch()
    reference = read_crystal(settings.reference) if settings.reference else None
    subject = read_subject(source, settings.conform, settings.seed, name)
    wanted = arms(subject.composition, settings.space_groups, settings.z, settings.z_prime)
    field = _force_field(subject, settings.charges)
    if settings.energy is not None:
        with energy_model(settings.energy) as model:
            model.start()
    folder = _prepare(folder or Path("results") / subject.name, subject, wanted, settings, resume)
    clock.lap("conform")
    tell("search", 0, settings.n, "compiling, on the first run only")
    warm_up(subject.composition, wanted[0], field)
    clock.lap("compile")
    begin = time.monotonic() - clock.laps["conform"]  # what is compiled once a machine is outside the budget
    deadline = None if settings.budget is None else begin + settings.budget

    def searching(done: int, asked: int, minima: Minima | None) -> None:
        tell("search", done, asked, "" if minima is None else f"{len(minima)} distinct minima")

    energy = settings.energy or default_energy()
    share = SEARCH_SHARE if energy != "forcefield" else LONE_SEARCH_SHARE
    limit = None if settings.budget is None else begin + share * settings.budget
    result = search(
        subject.composition,
        wanted,
        _search_settings(settings),
        field=field,
        folder=folder / "units",
        deadline=limit,
        progress=searching,
    )
    clock.lap("search")
    candidates = candidates_of(result, settings)
    clock.lap("deduplicate")
    failures, found = dict[str, int](), None
    try:
        if energy != "forcefield" and result.stopped != "user" and candidates:
            candidates, failures = _rerank(candidates, energy, settings, deadline, tell)
        clock.lap("rank")
        if reference is not None and settings.reference is not None:
            candidates, found = _compare(candidates, reference, settings.reference)
            clock.lap("reference")
    except KeyboardInterrupt:  # the search is done and must not be lost
        result = replace(result, stopped="user")
    run = describe(source, subject, settings, result, candidates, failures)
    judged = any(c.energy_model != "forcefield" for c in candidates)
    run |= {"energy_model": energy if judged else "forcefield", "reference": found, "started": clock.began}
    provenance = {"command": run["command"], "version": __version__, "seed": settings.seed}
    rows = write_landscape(folder, candidates, subject.name, provenance)
    clock.lap("write")
    cpu = clock.cpu + (sum(result.seconds.values()) if settings.workers > 1 else 0.0)
    run |= {"timings": clock.laps, "search_cpu_seconds": result.seconds}
    run |= {"wall_seconds": clock.total, "cpu_seconds": cpu}
    run = write_run(folder, run)
    tell("report", 0, 1, "")
    write_report(folder)
    tell("report", 1, 1, "")
    return Prediction(folder, rows, run)


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


def _search_settings(settings: PredictSettings) -> SearchSettings:
    return SearchSettings(
        n=settings.n,
        seed=settings.seed,
        sequence=settings.sequence,
        perturb=settings.perturb,
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
    folder: Path, subject: Subject, wanted: list[Arm], settings: PredictSettings, resume: bool
) -> Path:
    """Make the folder, or make sure that what it holds belongs to the same search."""
    mark = folder / "search.json"
    about = _identity(subject, wanted, settings)
    if mark.is_file():
        before = _earlier_search(mark)
        different = [key for key in about if before.get(key) != about[key]]
        if different:
            raise InputError(
                f"{folder} holds another search (other {', '.join(different)}). Choose another folder with -o, "
                "repeat the settings of that search, or delete the folder."
            )
    elif resume:
        raise InputError(f"--resume: expected an earlier search in {folder}, found none. Leave --resume out.")
    make_folder(folder / "units")
    write_atomically(make_folder(folder) / mark.name, json.dumps(about, indent=1) + "\n")
    return folder


def _earlier_search(mark: Path) -> dict[str, Any]:
    try:
        before = json.loads(mark.read_text())
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise InputError(
            f"expected the settings of an earlier search in {mark}, which is damaged. Delete the folder or choose "
            "another with -o."
        )
    return before


def _identity(subject: Subject, wanted: list[Arm], settings: PredictSettings) -> dict[str, Any]:
    """What must agree for finished units to be used again."""
    positions = hashlib.sha256()
    for molecule in subject.composition.species:
        positions.update(np.round(molecule.conformers.numpy(), 3).tobytes())
    return {
        "version": __version__,
        "molecules": [m.smiles for m in subject.composition.species],
        "conformers": positions.hexdigest()[:16],
        "charges": settings.charges,
        "space groups": {a.key: round(a.weight, 6) for a in wanted},
        **_search_settings(settings).model_dump(exclude={"workers"}),
    }


def candidates_of(result: SearchResult, settings: PredictSettings) -> list[Candidate]:
    """The lowest sound minima as crystals, energies with tight lattice sums; best first."""
    minima = result.minima
    kept: list[Candidate] = []
    for i in range(len(minima)):
        if minima.contact[i] < CLASH:
            continue
        if len(kept) == settings.keep:
            break
        candidate = _candidate(result, i, settings)
        twin = next((k for k, other in enumerate(kept) if same_packing(other, candidate)), None)
        if twin is None:
            kept.append(candidate)
        else:
            kept[twin] = replace(kept[twin], hits=kept[twin].hits + candidate.hits)
    kept.sort(key=lambda c: c.energy)
    return [c for c in kept if c.energy <= kept[0].energy + settings.window]


def same_packing(a: Candidate, b: Candidate) -> bool:
    """Minima that stopped a little apart: 15 molecules within `TWIN_RMSD`, near in energy and density."""
    near = (
        abs(a.energy - b.energy) < TWIN_ENERGY
        and abs(a.crystal.density / b.crystal.density - 1) < TWIN_DENSITY
    )
    return near and is_same(compare_packing(a.crystal, b.crystal), TWIN_RMSD)


def _candidate(result: SearchResult, i: int, settings: PredictSettings) -> Candidate:
    minima, composition = result.minima, result.composition
    arm, packing = result.arms[minima.arm[i]], minima.packing(i)
    total = total_energy(composition, arm, packing, result.field.energy(packing, FINAL)).item()
    energy = total / composition.molecules / KJ_PER_MOL
    crystal = packing.crystal(0)
    symmetry = find_symmetry(crystal, SYMMETRY_TOLERANCE)
    return Candidate(
        crystal=crystal,
        energy=energy,
        lattice_energy=energy,
        energy_model="forcefield",
        space_group=symmetry.number,
        symbol=symmetry.symbol,
        z=symmetry.z,
        z_prime=symmetry.z_prime,
        generator=settings.generator,
        conformer=",".join(str(c) for c in packing.conformer[0].tolist()),
        start=f"{arm.key} {int(minima.start[i])}",
        seed=settings.seed,
        hits=int(minima.hits[i]),
        clash=False,
    )


def _rerank(
    candidates: list[Candidate], name: str, settings: PredictSettings, deadline: float | None, tell: Progress
) -> tuple[list[Candidate], dict[str, int]]:
    """Best first by the better model; without a single answer from it the force field's order stays."""
    judged = rerank(
        [c.crystal for c in candidates], name, settings.rank, deadline, lambda i, n: tell("rank", i, n, name)
    )
    per = np.array([_molecules_per_formula_unit(c) for c in candidates])
    try:
        energies = combined_energies(
            np.array([c.lattice_energy for c in candidates]), judged.energy / per / KJ_PER_MOL
        )
    except EnergyModelError:
        return candidates, judged.failures
    new = [
        replace(c, energy=float(e), crystal=x, energy_model=name if known else c.energy_model)
        for c, e, x, known in zip(candidates, energies, judged.crystals, judged.judged)
    ]
    return sorted(new, key=lambda c: c.energy), judged.failures


def _molecules_per_formula_unit(candidate: Candidate) -> int:
    return candidate.crystal.n_molecules // formula_units(candidate.crystal)


def _compare(
    candidates: list[Candidate], reference: Crystal, path: Path
) -> tuple[list[Candidate], dict[str, Any]]:
    """Every candidate against the reference, and what run.json says about it."""
    search = find_reference(reference, (c.crystal for c in candidates))
    compared = [replace(c, match=m) for c, m in zip(candidates, search.matches)]
    rank = search.rank()
    best = search.matches[rank - 1] if rank else max(search.matches, key=lambda m: m.n_matched, default=None)
    about = {
        "file": str(path),
        "found": rank is not None,
        "rank": rank,
        "rmsd": best.rmsd if best and best.n_matched else None,
        "n_matched": best.n_matched if best else None,
        "criterion": f"15 of 15 molecules (20 %, 20 degrees), RMSD_15 < {SAME_PACKING} Å",
        "cif": cif_text(reference, name="reference"),
    }
    return compared, about


def describe(
    source: str,
    subject: Subject,
    settings: PredictSettings,
    result: SearchResult,
    candidates: list[Candidate],
    failures: dict[str, int],
) -> dict[str, Any]:
    """run.json: what was asked, what happened to every start, and what must be known to do it again."""
    composition, minima, counts = result.composition, result.minima, result.counts
    asked = counts.get("asked", 0)
    lost = {
        k: counts.get(k, 0) for k in ("collapsed in the press", "collapsed in minimisation", "not converged")
    }
    clashing = int((minima.contact < CLASH).sum())
    estimate = convergence(minima.energy, minima.hits, minima.random_hits)
    return {
        "nucleate": __version__,
        "command": shlex.join(["nucleate", *sys.argv[1:]]) if sys.argv[0].endswith("nucleate") else "",
        "molecule": {
            "name": subject.name,
            "smiles": subject.smiles,
            "formula": ".".join(m.formula for m in composition.species),
            "n_atoms": sum(n * len(m) for m, n in zip(composition.species, composition.counts)),
            "species": [
                {"smiles": m.smiles, "formula": m.formula, "count": n, "conformers": len(m.conformers)}
                for m, n in zip(composition.species, composition.counts)
            ],
            "source": source,
        },
        "seed": settings.seed,
        "settings": settings.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("torch", "numpy", "numba", "rdkit", "gemmi", "moyopy")}
        | {"python": platform.python_version()},
        "counts": {
            "asked": asked,
            "generated": counts.get("generated", 0),
            "clash_free": asked
            - lost["collapsed in the press"]
            - lost["collapsed in minimisation"]
            - clashing,
            "within_window": counts.get("within the energy window", 0),
            "converged": counts.get("minima", 0) - counts.get("not converged", 0),
            "distinct": len(minima),
            "handed_over": len(candidates),
        },
        "failures": {k: v for k, v in {**lost, "clash": clashing, **failures}.items() if v},
        "space_groups": _space_groups(result, candidates),
        "convergence": {
            **estimate.__dict__,
            "lowest_found_again": estimate.lowest_found,
            "text": estimate.text,
        },
        "stopped": result.stopped,
        "interrupted": result.stopped == "user",
        "notes": subject.notes,
    }


def _space_groups(result: SearchResult, candidates: list[Candidate]) -> dict[str, dict[str, Any]]:
    """Starts by the group searched, distinct crystals by the group found (a subgroup's start may end higher)."""
    table: dict[str, dict[str, Any]] = {}
    for unit in result.units:
        group = result.arms[unit.unit.arm].group
        row = table.setdefault(str(group.number), {"symbol": group.symbol, "starts": 0, "distinct": 0})
        row["starts"] += unit.unit.count
    for c in candidates:
        row = table.setdefault(str(c.space_group), {"symbol": c.symbol, "starts": 0, "distinct": 0})
        row["distinct"] += 1
    return table
