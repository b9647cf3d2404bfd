"""`nucleate crystallize`: from loose copies of a molecule to ordered clusters, and to crystals where a lattice shows.

source --read or arranged--> loose cluster --learned sampler--> ordered clusters --energy, truth, lattice--> files
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt
from torch import nn

from nucleate.crystal.cluster_xyz import cluster_text
from nucleate.data.clusters import SIZE
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.generative.seeds import seed_of
from nucleate.models.crystallization_training import CrystallizationSettings, crystallizer_of
from nucleate.networks.elements import refuse_unknown
from nucleate.physics.open_cluster import OpenField
from nucleate.pipeline.claims import claim
from nucleate.pipeline.cluster_samples import (
    Row,
    ranked,
    sampled,
    with_cell,
    with_energy,
    write_table,
    written,
)
from nucleate.pipeline.cluster_sources import Start, read_start
from nucleate.pipeline.folders import hold_folder, make_folder
from nucleate.pipeline.landscape import write_run
from nucleate.pipeline.predict import Stopwatch
from nucleate.pipeline.provenance import provenance
from nucleate.report.cluster_page import write_cluster_report
from nucleate.weights import Weights, find_weights, read_weights

SYSTEM = "crystallization"
MARK, TABLE = "crystallize.json", "samples.parquet"
RELAX_STEPS = 100

Progress = Callable[[str, int, int, str], None]


class CrystallizeSettings(BaseModel, frozen=True, extra="forbid"):
    """What to make of a source."""

    n: PositiveInt = Field(10, le=10_000)  # samples
    molecules: int = Field(SIZE, ge=2, le=200)  # in the cluster
    weights: Path | None = None  # None: those of the package
    steps: PositiveInt = Field(8, le=10_000)  # of the sampler
    relax: bool = False  # the ordered clusters, in open space
    cell: bool = True  # look for a lattice
    seed: NonNegativeInt = Field(0, lt=2**31)


@dataclass(frozen=True, eq=False)
class Crystallized:
    """What is in the folder: rows of samples.parquet, best first, and run.json."""

    folder: Path
    rows: list[Row]
    run: dict[str, Any]


def crystallize(
    source: str,
    settings: CrystallizeSettings,
    folder: Path,
    progress: Progress | None = None,
    resume: bool = False,
) -> Crystallized:
    """Write folder/cluster/0001.xyz ..., trajectory/, cell/, samples.parquet, run.json and report.html.

    A sample depends on the seed and its own number: more samples begin with the same ones, and `resume` adds what is
    missing. KeyboardInterrupt ends the run with usable files and sets run.json's "interrupted". Raises InputError,
    before anything is written, for a source that cannot be used, and for a folder that holds other samples.
    """
    if resume and not (folder / MARK).is_file():
        raise InputError(f"--resume: expected earlier samples in {folder}, found none; leave --resume out")
    method, weights, learnt = load_crystallizer(settings.weights)
    start = read_start(source, settings.molecules, learnt.loosening, settings.seed)
    refuse_unknown(start.loose.numbers)
    with ExitStack() as held:
        held.enter_context(hold_folder(make_folder(folder)))
        wanted = {f"{k + 1:04d}" for k in range(settings.n)}
        identity = _identity(settings, weights, start)
        rows = claim(folder / MARK, folder / TABLE, identity, wanted, resume)
        run = Run(source, settings, folder, method, weights, start, rows)
        run.notes += [*start.notes, *_notes(start, learnt)]
        run.work(progress or (lambda *_: None))
        return run.finish()


def load_crystallizer(given: Path | None) -> tuple[Any, Weights, CrystallizationSettings]:
    """The method of the weights asked for, ready to sample. Raises InputError where there are none."""
    weights = read_weights(find_weights(SYSTEM, given, SYSTEM), SYSTEM)
    settings = weights.settings(CrystallizationSettings)
    method: nn.Module = weights.fill(crystallizer_of(settings))
    return method, weights, settings


def _notes(start: Start, learnt: CrystallizationSettings) -> list[str]:
    """What is asked for beyond the training."""
    notes = []
    if (atoms := len(start.loose.numbers)) > learnt.most_atoms:
        notes.append(
            f"the molecule has {atoms} atoms; the weights have learnt molecules of up to {learnt.most_atoms}"
        )
    if (molecules := start.loose.n_molecules) != SIZE:
        notes.append(
            f"the cluster has {molecules} molecules; weights learn clusters of {SIZE} unless trained otherwise"
        )
    return notes


def _identity(settings: CrystallizeSettings, weights: Weights, start: Start) -> dict[str, Any]:
    """What must agree for samples to belong together."""
    about = settings.model_dump(mode="json", exclude={"n", "weights"})
    loose = hashlib.sha256(start.loose.positions.float().numpy().tobytes()).hexdigest()[:16]
    return about | {"weights": weights.digest, "loose": loose}


@dataclass(eq=False)
class Run:
    """One folder being filled."""

    source: str
    settings: CrystallizeSettings
    folder: Path
    method: Any
    weights: Weights
    start: Start
    rows: dict[str, Row]  # by id
    notes: list[str] = field(default_factory=list)
    clock: Stopwatch = field(default_factory=Stopwatch)
    interrupted: bool = False

    def work(self, tell: Progress) -> None:
        """Make what is missing, one by one; after Ctrl-C what is done stays."""
        self._write_ends()
        field = self._field()
        try:
            for number in range(self.settings.n):
                tell("samples", number, self.settings.n, "")
                if f"{number + 1:04d}" not in self.rows:
                    self._make(number, field)
                    write_table(list(self.rows.values()), self.folder / TABLE)  # whatever ends the run
            tell("samples", self.settings.n, self.settings.n, "")
        except KeyboardInterrupt:
            self.interrupted = True

    def _write_ends(self) -> None:
        """The loose cluster, and the true one where it is known."""
        for name, cluster in (("loose", self.start.loose), ("truth", self.start.truth)):
            if cluster is not None:
                text = cluster_text(cluster, [cluster.positions], [{"what": name}])
                write_atomically(self.folder / f"{name}.xyz", text)

    def _field(self) -> OpenField | None:
        try:
            return OpenField.of(self.start.molecule)
        except InputError as error:
            self.notes.append(f"no energies: {error}")
            return None

    def _make(self, number: int, field: OpenField | None) -> None:
        settings = self.settings
        sample = sampled(
            self.method, self.start, number, seed_of(settings.seed, "cluster", number), settings.steps
        )
        self.clock.lap("sample")
        if field is not None and sample.failure is None:
            sample = with_energy(sample, field, RELAX_STEPS if settings.relax else 0)
            self.clock.lap("energy")
        about: dict[str, str | int | float] = {
            "generator": SYSTEM,
            "weights": self.weights.digest,
            "steps": settings.steps,
        }
        row = written(sample, self.start, self.folder, about)
        self.clock.lap("write")
        if settings.cell and sample.failure is None:
            row = with_cell(
                row, sample, self.start, self.folder, {**about, "seed": sample.seed, "sample": sample.id}
            )
            self.clock.lap("cell")
        self.rows[row["id"]] = row

    def finish(self) -> Crystallized:
        """Table, run.json and report."""
        rows = ranked(list(self.rows.values()), self.folder, self.start.loose.n_molecules)
        write_table(rows, self.folder / TABLE)
        self.clock.lap("write")
        if len(rows) > 1 and not any(row["spread_A"] for row in rows):
            self.notes.append("all samples are equal: this method begins without noise, so one is enough")
        molecule = self.start.molecule
        run = {
            **provenance("torch", "numpy", "rdkit"),
            "source": self.source,
            "molecule": {"name": self.start.name, "smiles": molecule.smiles, "formula": molecule.formula},
            "molecules": self.start.loose.n_molecules,
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.settings.seed,
            "weights": {"file": str(self.weights.path), "digest": self.weights.digest},
            "method": self.weights.model.get("method"),
            "counts": self._counts(rows),
            "failures": dict(Counter(row["failure"] for row in rows if row["failure"]).most_common()),
            "without_cell": dict(
                Counter(_why(row["cell_failure"]) for row in rows if not row["cell"] and row["cell_failure"])
            ),
            "ranked_by": self._ranked_by(rows),
            "notes": self.notes,
            "started": self.clock.began,
            "timings": self.clock.laps,
            "wall_seconds": self.clock.total,
            "cpu_seconds": round(self.clock.cpu, 3),
            "interrupted": self.interrupted,
        }
        plain = write_run(self.folder, run)
        write_cluster_report(self.folder)
        return Crystallized(self.folder, rows, plain)

    def _counts(self, rows: list[Row]) -> dict[str, int]:
        made = [row for row in rows if row["file"]]
        counts = {"asked": self.settings.n, "made": len(made)}
        counts["without_collisions"] = sum(row["collision_between"] == 0 for row in made)
        if self.settings.cell:
            counts["cells"] = sum(bool(row["cell"]) for row in made)
        if self.start.truth is not None:
            counts["like_the_truth"] = sum(row["matched"] == row["matched_of"] for row in made)
        return counts

    def _ranked_by(self, rows: list[Row]) -> str:
        if any(row["energy_kj_mol"] is not None for row in rows):
            return "energy of the cluster in the built-in force field"
        return "collisions of molecules (no energies)"


def _why(refusal: str) -> str:
    """What is missing, without what was found instead, so that equal reasons count together."""
    return refusal.partition(", found")[0]
