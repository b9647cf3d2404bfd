"""Evaluate inorganic crystals: what was asked for by its contents against the answers, or what came from nothing.

    samples, references --read--> attempts, random controls --judge, some targets at a time--> rows -> scores

Samples that name targets among the references are judged as predictions (`metrics.csp`), others as crystals generated
from nothing (`metrics.dng`). Rows go to a parquet file after every batch of targets, so an interruption keeps what is
done.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from pydantic import BaseModel, NonNegativeInt, PositiveFloat, PositiveInt

from nucleate import __version__
from nucleate.crystal.sites import Sites, sites_from_cif
from nucleate.data.inorganic import read_columns
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.metrics.csp import (
    Attempt,
    CspScores,
    Row,
    judge_csp,
    pairs_to_ask,
    random_coordinates,
    summarise_csp,
)
from nucleate.metrics.dng import SAME, DngScores, judge_dng, summarise_dng
from nucleate.metrics.inorganic_validity import require_smact, validities
from nucleate.metrics.rate import Rate
from nucleate.metrics.structure_matcher import PRESETS, StructureMatching
from nucleate.pipeline.evaluate import CONTROL, PREDICTION, Progress, check_output, digest, rows_of
from nucleate.pipeline.folders import hold_file

TABLE = "samples.parquet"  # in a folder that holds generated crystals
AT_ONCE = 100  # targets between two writes
MOST_PAIRS = 1_000_000  # for METRe, unless it is asked for: some three CPU-hours

CSP_COLUMNS = pyarrow.schema(
    [
        ("target", pyarrow.string()),
        ("source", pyarrow.string()),
        ("sample", pyarrow.int64()),
        ("formula", pyarrow.string()),
        ("failure", pyarrow.string()),
        ("shortest_A", pyarrow.float64()),
        ("volume_A3", pyarrow.float64()),
        ("structure_valid", pyarrow.bool_()),
        ("composition_valid", pyarrow.bool_()),
        ("valid", pyarrow.bool_()),
        ("rms", pyarrow.float64()),
        ("also", pyarrow.list_(pyarrow.string())),
        ("also_rms", pyarrow.list_(pyarrow.float64())),
        ("unanswered", pyarrow.int64()),
    ]
)
PRESET = PRESETS["crystalflow"]  # ltol, stol and angle of the published numbers
_SHARED = ("source", "sample", "formula", "failure", "shortest_A", "volume_A3", "structure_valid")
DNG_COLUMNS = pyarrow.schema(
    [
        *(CSP_COLUMNS.field(name) for name in (*_SHARED, "composition_valid", "valid")),
        ("density_g_cm3", pyarrow.float64()),
        ("elements", pyarrow.int64()),
        ("like", pyarrow.int64()),
        ("known_as", pyarrow.string()),
        ("unanswered", pyarrow.int64()),
    ]
)


class InorganicEvaluation(BaseModel, frozen=True, extra="forbid"):
    """How to judge. `everyone=None`: METRe unless it takes more than a million pairs."""

    top: tuple[PositiveInt, ...] = (1, 20)
    controls: NonNegativeInt | None = (
        None  # random samples of each target; as many as were asked for unless given
    )
    everyone: bool | None = None
    only_asked: bool = (
        False  # leave out references of which there is no sample, instead of counting them as missed
    )
    time_limit: PositiveFloat = 30.0  # s for one pair in StructureMatcher
    workers: PositiveInt = 1  # processes for StructureMatcher
    seed: NonNegativeInt = 0


@dataclass(frozen=True)
class Real:
    """The reference crystals themselves: what the tests of validity say of crystals that exist."""

    crystals: int
    structure: Rate
    composition: Rate | None

    def as_json(self) -> dict[str, Any]:
        rates = {"structure": self.structure, "composition": self.composition}
        return {"crystals": self.crystals} | {
            name: rate and {"hits": rate.hits, "asked": rate.asked} for name, rate in rates.items()
        }


@dataclass(frozen=True)
class InorganicResult:
    """Rows of every sample and control, and the scores of both: all CSP or all DNG."""

    rows: list[Row]
    predictions: CspScores | DngScores
    control: CspScores | DngScores
    real: Real
    criterion: str
    settings: InorganicEvaluation
    pending: int = 0  # targets that an interruption left out
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "nucleate": __version__,
            "task": "csp" if isinstance(self.predictions, CspScores) else "dng",
            "criterion": self.criterion,
            "settings": self.settings.model_dump(mode="json"),
            "predictions": self.predictions.as_json(),
            "control": self.control.as_json(),
            "references": self.real.as_json(),
            "pending": self.pending,
            "warnings": self.warnings,
        }


def evaluate_inorganic(
    samples: Path,
    references: Path,
    settings: InorganicEvaluation,
    train: Path | None = None,
    output: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> InorganicResult:
    """Judge a table of samples (or a folder with samples.parquet) against a table of reference crystals.

    Tables are parquet or CSV with a column `cif`; `material_id` names references, `target` (or `material_id`) says
    which of them a sample answers. With `output` the rows go to that parquet file; `resume` takes over the targets that
    are finished there. Raises InputError for what cannot be read, where pymatgen is missing, and for a file to
    resume that was made with other settings or that another run is writing.
    """
    tell = progress or (lambda *_: None)
    if output is None:
        return _evaluate(samples, references, settings, train, None, resume, tell)
    check_output(output, samples, references)
    with hold_file(output):
        return _evaluate(samples, references, settings, train, output, resume, tell)


def _evaluate(
    samples: Path,
    references: Path,
    settings: InorganicEvaluation,
    train: Path | None,
    output: Path | None,
    resume: bool,
    tell: Progress,
) -> InorganicResult:
    known, notes = read_references(references)
    attempts, strangers = read_attempts(samples, known)
    compositions = _can_test_compositions(notes)
    tested = dict(zip(known, validities(list(known.values()), compositions)))
    real = Real(
        len(tested),
        Rate(sum(v.structure for v in tested.values()), len(tested)),
        Rate(sum(v.composition is True for v in tested.values()), len(tested)) if compositions else None,
    )
    if attempts is None:
        if resume:
            raise InputError(
                "expected samples with targets to resume, got crystals from nothing; leave --resume out"
            )
        training = read_references(train)[0] if train is not None else None
        return _evaluate_dng(strangers, known, training, settings, compositions, real, output, notes, tell)
    if train is not None:
        raise InputError(
            "expected --train with crystals from nothing only, got samples that name their targets"
        )
    if strangers:
        notes.append(f"{len(strangers)} samples of targets that are no reference are left out")
    job = _CspJob(known, attempts, settings, compositions, notes)
    return job.run(
        {name: v.valid for name, v in tested.items()}, real, (samples, references), output, resume, tell
    )


def _can_test_compositions(notes: list[str]) -> bool:
    try:
        require_smact()
    except InputError as error:
        notes.append(f"whether samples are valid is not known: {error}")
        return False
    return True


# ---------------------------------------------------------------- reading


def read_references(path: Path) -> tuple[dict[str, Sites], list[str]]:
    """Crystals by name (`material_id`, else the row's number), and a note of those that could not be read.

    Raises InputError for another file, a name that comes twice, and where nothing can be read.
    """
    table = read_columns(path)
    names = _names(table, "material_id") or list(map(str, range(table.num_rows)))
    if len(set(names)) < len(names):
        raise InputError(f"expected one row for each material_id in {path}, got some twice")
    crystals, unread = {}, 0
    for name, text in zip(names, table.column("cif").to_pylist()):
        crystal, _ = _crystal(text)
        if crystal is None:
            unread += 1
        else:
            crystals[name] = crystal
    if not crystals:
        raise InputError(f"expected crystals in the column cif of {path}, got none that can be read")
    return crystals, [f"{unread} crystals of {path} cannot be read and are left out"] if unread else []


def read_attempts(
    path: Path, known: Mapping[str, Sites]
) -> tuple[dict[str, list[Attempt]] | None, list[Attempt]]:
    """Samples by target, and those of targets that are not known; without any targets: None, and all samples.

    A folder is read from its samples.parquet. Samples are numbered by the column `sample`, else in the file's order.
    """
    table = read_columns(path / TABLE if (path / TABLE).is_file() else path)
    targets = _names(table, "target")
    if targets is None and "target" not in table.column_names:
        targets = _names(table, "material_id")
        if targets is not None and not any(name in known for name in targets):
            targets = None  # names of their own
    texts = table.column("cif").to_pylist()
    failures = table.column("failure").to_pylist() if "failure" in table.column_names else [None] * len(texts)
    numbers = table.column("sample").to_pylist() if "sample" in table.column_names else [None] * len(texts)
    found: dict[str, list[Attempt]] = {}
    for row, (text, failure, number) in enumerate(zip(texts, failures, numbers)):
        target = targets[row] if targets is not None else ""
        crystal, reason = _crystal(text)
        own = found.setdefault(target, [])
        place = len(own) if targets is None or number is None else int(number)
        own.append(Attempt(target, place, crystal, failure or reason))
    if targets is None:
        return None, found.get("", [])
    return (
        {name: own for name, own in found.items() if name in known},
        [a for name, own in found.items() if name not in known for a in own],
    )


def _names(table: pyarrow.Table, column: str) -> list[str] | None:
    """A column as text; None where there is none, or it is empty."""
    if column not in table.column_names:
        return None
    values = table.column(column).to_pylist()
    return ["" if v is None else str(v) for v in values] if any(v is not None for v in values) else None


def _crystal(text: str | None) -> tuple[Sites | None, str | None]:
    """The crystal, or why there is none."""
    if not text:
        return None, "no crystal"
    try:
        return sites_from_cif(f"{text}\n"), None
    except InputError as error:
        return None, f"{error.reason}: {error}"


# ---------------------------------------------------------------- contents that were asked for


@dataclass(frozen=True)
class _CspJob:
    references: dict[str, Sites]
    attempts: dict[str, list[Attempt]]
    settings: InorganicEvaluation
    compositions: bool
    notes: list[str]

    def run(
        self,
        valid: Mapping[str, bool | None],
        real: Real,
        inputs: tuple[Path, Path],
        output: Path | None,
        resume: bool,
        tell: Progress,
    ) -> InorganicResult:
        targets = self._targets()
        origin = {
            "inputs": [str(path.resolve()) for path in inputs],
            "contents": [digest(path) for path in inputs],
            "settings": self.settings.model_dump(mode="json", exclude={"workers", "top"}),
            "compositions": self.compositions,
        }

        def keep(rows: list[Row]) -> None:
            if output is not None:
                _write(rows, CSP_COLUMNS, origin, output)

        rows = rows_of(output, origin) if resume and output is not None else []
        rows, pending = self._judged(rows, targets, tell, keep)
        finished = [name for name in targets if name not in pending]
        return self._summed(rows, finished, len(pending), valid, real)

    def _judged(
        self, rows: list[Row], targets: list[str], tell: Progress, keep: Callable[[list[Row]], None]
    ) -> tuple[list[Row], set[str]]:
        """The rows of all targets, and those that Ctrl-C has left over; kept after every batch."""
        done = {row["target"] for row in rows}
        pending = [name for name in targets if name not in done]
        tell("targets", len(targets) - len(pending), len(targets), "")
        try:
            with StructureMatching(PRESET, self.settings.workers, self.settings.time_limit) as matching:
                for some in _batches(list(pending)):
                    for source in (PREDICTION, CONTROL):
                        attempts = [a for name in some for a in self._asked(name, source)]
                        rows += judge_csp(
                            source, attempts, self.references, matching,
                            everyone=self.everyone, compositions=self.compositions,
                        )  # fmt: skip
                    pending = pending[len(some) :]
                    tell("targets", len(targets) - len(pending), len(targets), "")
                    keep(rows)
        except KeyboardInterrupt:
            rows = [row for row in rows if row["target"] not in set(pending)]
            if not rows:
                raise
        return rows, set(pending)

    def _summed(
        self, rows: list[Row], finished: list[str], pending: int, valid: Mapping[str, bool | None], real: Real
    ) -> InorganicResult:
        most = 1 + max((row["sample"] for row in rows if row["source"] == PREDICTION), default=0)
        top = sorted({min(k, most) for k in self.settings.top})  # no more than there are
        stol, references = PRESET.stols[0], {name: self.references[name] for name in finished}
        scores = [
            summarise_csp(
                rows, source, references, {name: valid[name] for name in finished}, stol, top, self.everyone
            )
            for source in (PREDICTION, CONTROL)
        ]
        criterion = (
            f"StructureMatcher of pymatgen: ltol {PRESET.ltol:g}, stol {stol:g}, angle {PRESET.angle:g}°, "
            "volumes made equal; RMS in units of (V/N)^(1/3)"
        )
        warnings = self.notes + _unanswered(scores, self.settings)
        return InorganicResult(rows, scores[0], scores[1], real, criterion, self.settings, pending, warnings)

    def _targets(self) -> list[str]:
        """References that count."""
        silent = [name for name in self.references if name not in self.attempts]
        if silent and self.settings.only_asked:
            return [name for name in self.references if name in self.attempts]
        if silent:
            self.notes.append(
                f"{len(silent)} references have no sample and count as missed (--only-asked leaves them out)"
            )
        return list(self.references)

    @cached_property
    def everyone(self) -> bool:
        """Whether METRe is worked out."""
        if self.settings.everyone is not None:
            return self.settings.everyone
        pairs = pairs_to_ask([a for own in self.attempts.values() for a in own], self.references)
        if pairs > MOST_PAIRS:
            self.notes.append(
                f"METRe is left out: it takes {pairs:,} pairs (--metre works it out all the same)"
            )
        return pairs <= MOST_PAIRS

    def _asked(self, target: str, source: str) -> list[Attempt]:
        """Samples of a target, or as many controls; their draw does not depend on other targets."""
        own = self.attempts.get(target, [])
        if source == PREDICTION:
            return own
        count = len(own) if self.settings.controls is None else self.settings.controls
        generator = torch.Generator().manual_seed(zlib.crc32(target.encode()) ^ self.settings.seed)
        crystals = random_coordinates(self.references[target], count, generator) if count else []
        return [Attempt(target, i, crystal) for i, crystal in enumerate(crystals)]


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]


# ---------------------------------------------------------------- crystals from nothing


def _evaluate_dng(
    attempts: Sequence[Attempt],
    references: Mapping[str, Sites],
    training: Mapping[str, Sites] | None,
    settings: InorganicEvaluation,
    compositions: bool,
    real: Real,
    output: Path | None,
    notes: list[str],
    tell: Callable[[str, int, int, str], None],
) -> InorganicResult:
    """The control puts the atoms of reference crystals, in turn, anywhere in their cells."""
    crystals = list(references.values())
    count = len(attempts) if settings.controls is None else settings.controls
    generator = torch.Generator().manual_seed(settings.seed)
    random = [random_coordinates(crystals[i % len(crystals)], 1, generator)[0] for i in range(count)]
    sources = {PREDICTION: attempts, CONTROL: [Attempt("", i, crystal) for i, crystal in enumerate(random)]}
    rows: list[Row] = []
    with StructureMatching(SAME, settings.workers, settings.time_limit) as matching:
        for done, (source, asked) in enumerate(sources.items()):
            tell("sources", done, len(sources), source)
            rows += judge_dng(source, asked, training, matching, compositions=compositions)
    if output is not None:
        _write(rows, DNG_COLUMNS, {"settings": settings.model_dump(mode="json")}, output)
    scores = [summarise_dng(rows, source, crystals, training is not None) for source in sources]
    criterion = (
        f"StructureMatcher of pymatgen, its own tolerances: ltol {SAME.ltol:g}, stol {SAME.stols[0]:g}, "
        f"angle {SAME.angle:g}°, by RMS"
    )
    if training is None:
        notes.append("novelty is not known without training crystals (--train)")
    warnings = notes + _unanswered(scores, settings)
    return InorganicResult(rows, scores[0], scores[1], real, criterion, settings, 0, warnings)


def _unanswered(scores: Sequence[CspScores | DngScores], settings: InorganicEvaluation) -> list[str]:
    if not any(s.unanswered for s in scores):
        return []
    counts = " and ".join(f"{s.unanswered} pairs of {s.source}s" for s in scores)
    return [
        f"{counts} got no answer of StructureMatcher (more than {settings.time_limit:g} s, or a crash): no match"
    ]


def _write(rows: list[Row], columns: pyarrow.Schema, origin: dict[str, Any], path: Path) -> None:
    table = pyarrow.Table.from_pylist(rows, columns)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table.replace_schema_metadata({"nucleate": json.dumps(origin)}), sink)
    write_atomically(path, sink.getvalue().to_pybytes())
