"""Evaluate predictions against known crystals: every sample judged, the random control beside it, nothing dropped.

    read -> assign to targets -> judge every sample, and as many random controls -> rows -> scores

Rows (`metrics.evaluation`) go to a parquet file after every target, so an interruption keeps what is done.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from pydantic import BaseModel, PositiveFloat, PositiveInt, field_validator

from nucleate import __version__
from nucleate.crystal.crystal import Crystal
from nucleate.data import containers
from nucleate.data.predictions import (
    Asked,
    Sample,
    asked_for,
    assign_targets,
    count_asked,
    in_turn,
    molecules_of,
    read_predictions,
    read_references,
)
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.metrics.clashes import has_clash
from nucleate.metrics.control import random_poses
from nucleate.metrics.criteria import CRITERIA, Judge, criterion
from nucleate.metrics.duplicates import find_duplicates
from nucleate.metrics.evaluation import Row, Scores, in_order, summarise
from nucleate.metrics.heavy_molecules import HeavyMolecules
from nucleate.metrics.structure_matcher import PRESETS, StructureMatching, settings_named
from nucleate.metrics.volume import VolumeError, volume_error
from nucleate.pipeline.folders import hold_file, make_folder
from nucleate.reading import parse_json, real_path

MATCHER = "structurematcher"
PREDICTION, CONTROL = "prediction", "control"

Progress = Callable[[str, int, int, str], None]


class EvaluateSettings(BaseModel, frozen=True, extra="forbid"):
    """`criteria` are names of `metrics.criteria.CRITERIA` or `structurematcher` (needs pymatgen)."""

    criteria: tuple[str, ...] = ("strict15", "strict20", "ladder", "loose")
    top: tuple[PositiveInt, ...] = (1, 10)
    controls: int | None = None  # random samples of each target; as many as were asked for unless given
    heavy: bool = False  # StructureMatcher without hydrogens
    time_limit: PositiveFloat = 30.0  # s for one pair in StructureMatcher
    workers: PositiveInt = 1  # processes for StructureMatcher
    format: str | None = None
    in_turn: bool = False  # sample i belongs to reference i modulo their number
    seed: int = 0

    @field_validator("criteria")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError(f"expected at least one of {', '.join((*CRITERIA, MATCHER))}")
        for name in names:
            if name not in (*CRITERIA, MATCHER):
                raise ValueError(f"expected names among {', '.join((*CRITERIA, MATCHER))}")
        return names

    @field_validator("controls")
    @classmethod
    def _not_negative(cls, controls: int | None) -> int | None:
        if controls is not None and controls < 0:
            raise ValueError("expected 0 or more")
        return controls

    @property
    def matcher_names(self) -> dict[float, str]:
        """Criterion names of StructureMatcher by stol."""
        suffix = " heavy" if self.heavy else ""
        stols = sorted(PRESETS["molcrystalflow"].stols) if MATCHER in self.criteria else []
        return {stol: f"{MATCHER}-{stol:g}{suffix}" for stol in stols}

    @property
    def names(self) -> list[str]:
        """All criteria of the tables."""
        return [c for c in self.criteria if c != MATCHER] + list(self.matcher_names.values())


@dataclass(frozen=True)
class Evaluation:
    """Rows of every sample and control, and the scores of both."""

    rows: list[Row]
    predictions: Scores
    control: Scores
    settings: EvaluateSettings
    pending: list[str]  # targets that an interruption left out
    unassigned: int
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "nucleate": __version__,
            "settings": self.settings.model_dump(mode="json"),
            "criteria": {name: describe(name) for name in self.settings.names},
            "predictions": self.predictions.as_json(),
            "control": self.control.as_json(),
            "pending": self.pending,
            "unassigned": self.unassigned,
            "warnings": self.warnings,
        }


def describe(name: str) -> str:
    """One criterion of the tables in words."""
    if name in CRITERIA:
        return str(criterion(name))
    known = PRESETS["molcrystalflow"]
    return (
        f"{name} (pymatgen, ltol {known.ltol:g}, angle {known.angle:g}°, no scaling; mirror images allowed)"
    )


def evaluate(
    predictions: Path,
    references: Path,
    settings: EvaluateSettings,
    output: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge every prediction against the reference crystals of its target.

    With `output` the rows go to that parquet file after each target; `resume` takes over its finished targets.
    Ctrl-C ends after the targets that are done. Raises InputError for paths that cannot be read, for a file to
    resume that was made with other settings, and where another run is writing it.
    """
    tell = progress or (lambda *_: None)
    if output is None:
        return _evaluate(predictions, references, settings, None, resume, tell)
    check_output(output, predictions, references)
    with hold_file(output):
        return _evaluate(predictions, references, settings, output, resume, tell)


def _evaluate(
    predictions: Path,
    references: Path,
    settings: EvaluateSettings,
    output: Path | None,
    resume: bool,
    tell: Progress,
) -> Evaluation:
    known = read_references(references)
    samples = read_predictions(predictions, format=settings.format, molecules=molecules_of(known))
    asked = count_asked(predictions, samples)
    assignment = assign_targets(in_turn(samples, known) if settings.in_turn else samples, known)
    complete = {t: own + _undelivered(t, own, asked) for t, own in assignment.samples.items()}
    origin = {
        "predictions": str(predictions.resolve()),
        "references": str(references.resolve()),
        "contents": [digest(predictions), digest(references)],
        "settings": settings.model_dump(mode="json", exclude={"workers"}),
    }
    rows = rows_of(output, origin) if resume and output is not None else []
    pending = [t for t in known if t not in {r["target"] for r in rows}]
    usual = max((len(own) for own in complete.values()), default=0)
    try:
        with ExitStack() as stack:
            matching = _matching(settings, stack)
            for target in list(pending):
                tell("targets", len(known) - len(pending), len(known), target)
                rows += _judge_target(target, known[target], complete[target], settings, matching, usual)
                pending.remove(target)
                if output is not None:
                    _write(rows, origin, output)
    except KeyboardInterrupt:
        if not rows:
            raise
    tell("targets", len(known) - len(pending), len(known), "")
    done = [t for t in known if t not in pending]
    return Evaluation(
        rows=rows,
        predictions=summarise(rows, PREDICTION, done, settings.names, settings.top),
        control=summarise(rows, CONTROL, done, settings.names, settings.top),
        settings=settings,
        pending=pending,
        unassigned=len(assignment.unassigned),
        warnings=assignment.warnings + _unanswered(rows, settings),
    )


def _unanswered(rows: Sequence[Row], settings: EvaluateSettings) -> list[str]:
    """What StructureMatcher did not finish, in words."""
    pairs = dict.fromkeys((PREDICTION, CONTROL), 0)
    for row in rows:
        pairs[row["source"]] += row["unanswered"]
    if not any(pairs.values()):
        return []
    return [
        f"{pairs[PREDICTION]} pairs of predictions and {pairs[CONTROL]} of controls got no answer of StructureMatcher "
        f"(more than {settings.time_limit:g} s, or a crash): they count as no match"
    ]


def digest(path: Path) -> str:
    """Of names and sizes below a path: rows of other files are not gone on with. Hidden files come and go."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    chosen = [p for p in files if p.name != "evaluation.parquet" and not p.name.startswith(".")]
    listed = "".join(f"{p.relative_to(path.parent)} {p.stat().st_size}\n" for p in chosen)
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def _undelivered(target: str, samples: Sequence[Sample], asked: dict[str | None, Asked]) -> list[Sample]:
    """Samples that were requested and that no file holds: failures, one each."""
    if not all(s.target in asked for s in samples):  # told apart by turn
        return []
    if samples:
        missing = asked_for(samples, asked).undelivered
    else:  # nothing came; the request may still name the target
        missing = sum(a.undelivered for t, a in asked.items() if t and t.lower() == target.lower())
    reason = "not delivered: requested, and in no file"
    return [Sample(target, len(samples) + k, "", None, failure=reason) for k in range(missing)]


def _matching(settings: EvaluateSettings, stack: ExitStack) -> StructureMatching | None:
    if MATCHER not in settings.criteria:
        return None
    changes = {"heavy": True} if settings.heavy else {}
    named = settings_named("molcrystalflow", **changes)
    return stack.enter_context(StructureMatching(named, settings.workers, settings.time_limit))


# ---------------------------------------------------------------- one target


def _judge_target(
    target: str,
    references: Sequence[Crystal],
    samples: Sequence[Sample],
    settings: EvaluateSettings,
    matching: StructureMatching | None,
    usual: int,
) -> list[Row]:
    """Rows of its samples and of its controls (as many, or as for the other targets where it has none)."""
    count = settings.controls if settings.controls is not None else len(samples) or usual
    controls = _controls(target, references, count, settings.seed)
    return [
        *judge_samples(target, PREDICTION, samples, references, settings, matching),
        *judge_samples(target, CONTROL, controls, references, settings, matching),
    ]


def judge_samples(
    target: str,
    source: str,
    samples: Sequence[Sample],
    references: Sequence[Crystal],
    settings: EvaluateSettings,
    matching: StructureMatching | None,
) -> list[Row]:
    """A row (see `metrics.evaluation`) for each sample of one target, by whatever source it came from.

    `matching` must be there where StructureMatcher is among the criteria of the settings.
    """
    judges = [Judge(criterion(name), references) for name in settings.criteria if name != MATCHER]
    rows = [_row(target, source, i, s, references, judges, settings) for i, s in enumerate(samples)]
    if matching is not None:
        _add_matcher(rows, samples, references, matching, settings)
    _add_duplicates(rows, samples)
    for order, row in enumerate(in_order(rows)):
        row["order"] = order
    return rows


def _controls(target: str, references: Sequence[Crystal], count: int, seed: int) -> list[Sample]:
    """Random poses in the noisy cell of each form in turn. A target's draw does not depend on the others."""
    generator = torch.Generator().manual_seed(zlib.crc32(target.encode()) ^ seed)
    share = [len(range(i, count, len(references))) for i in range(len(references))]
    pools = [iter(random_poses(form, n, generator) if n else []) for form, n in zip(references, share)]
    drawn = [next(pools[i % len(pools)]) for i in range(count)]
    return [Sample(target, i, f"control {i + 1}", crystal) for i, crystal in enumerate(drawn)]


def _row(
    target: str,
    source: str,
    index: int,
    sample: Sample,
    references: Sequence[Crystal],
    judges: Sequence[Judge],
    settings: EvaluateSettings,
) -> Row:
    row: Row = {
        "target": target, "source": source, "index": index, "order": index, "name": sample.name,
        "energy": sample.energy, "failure": sample.failure, "periodic": sample.periodic, "volume_error": None,
        "density_error": None, "clash": None, "distinct": None, "unanswered": 0,
    }  # fmt: skip
    for name in settings.names:
        row |= {name: False, f"{name}_matched": None, f"{name}_of": None, f"{name}_rmsd_A": None}
    if sample.crystal is None:  # a reader that found atoms on each other has judged them
        return row | {"clash": True if sample.failure_kind == "clash" else None}
    try:
        molecules = HeavyMolecules.of(sample.crystal)
        row["clash"] = has_clash(sample.crystal)
        verdicts = [judge.judge(sample.crystal, molecules) for judge in judges]
    except InputError as error:
        return row | {"failure": f"{error.reason}: {error}"}
    for verdict in verdicts:
        name, match = verdict.criterion, verdict.match
        row |= {
            name: verdict.same,
            f"{name}_matched": match.n_matched,
            f"{name}_of": match.n,
            f"{name}_rmsd_A": match.rmsd if match.n_matched else None,
        }
    if sample.periodic and (nearest := _nearest_volume(sample.crystal, references)):
        row |= {"volume_error": nearest.relative, "density_error": nearest.relative_density}
    return row


def _nearest_volume(crystal: Crystal, references: Sequence[Crystal]) -> VolumeError | None:
    """Against the form whose volume is nearest; None where the composition is another."""
    errors = []
    for reference in references:
        try:
            errors.append(volume_error(crystal, reference))
        except InputError:  # a sample of other contents has no volume to compare, and fails to match anyway
            continue
    return min(errors, key=lambda e: abs(e.relative), default=None)


def _add_matcher(
    rows: list[Row],
    samples: Sequence[Sample],
    references: Sequence[Crystal],
    matching: StructureMatching,
    settings: EvaluateSettings,
) -> None:
    """StructureMatcher's answers at every stol; the best of the forms. Clusters have no cell to match."""
    chosen = [(i, s.crystal) for i, s in enumerate(samples) if s.crystal is not None and s.periodic]
    answers = matching.compare([(form, crystal) for _, crystal in chosen for form in references])
    for k, (i, _) in enumerate(chosen):
        own = answers[k * len(references) : (k + 1) * len(references)]
        rows[i]["unanswered"] = sum(a.outcome in ("timeout", "failed") for a in own)
        for stol, name in settings.matcher_names.items():
            at = own[0].settings.stols.index(stol)
            hits = [a.angstrom_at[at] for a in own if a.matched[stol]]
            rows[i] |= {name: bool(hits), f"{name}_rmsd_A": min(hits, default=None)}


def _add_duplicates(rows: list[Row], samples: Sequence[Sample]) -> None:
    """Which samples are the first of their kind, by order of the file."""
    chosen = [
        (i, s.crystal)
        for i, s in enumerate(samples)
        if s.crystal is not None and s.periodic and not rows[i]["failure"]
    ]
    if not chosen:
        return
    groups = find_duplicates([crystal for _, crystal in chosen])
    representatives = set(groups.representative.tolist())
    for k, (i, _) in enumerate(chosen):
        rows[i]["distinct"] = k in representatives


# ---------------------------------------------------------------- the file of rows


def check_output(output: Path, predictions: Path, references: Path) -> None:
    """Refuse before anything is judged what could not be written after it, or would be written over an input."""
    make_folder(output.parent)
    if output.is_dir() or real_path(output) in (real_path(predictions), real_path(references)):
        what = "a folder" if output.is_dir() else "one of the files to read"
        raise InputError(f"expected a file to write to, got {output}, which is {what}; choose another -o")


def _write(rows: list[Row], origin: dict[str, Any], path: Path) -> None:
    table = pyarrow.Table.from_pylist(rows, schema=_schema(rows[0]))
    table = table.replace_schema_metadata({"nucleate": json.dumps(origin)})
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def _schema(row: Row) -> pyarrow.Schema:
    """Types by name: a column of nulls alone would have none."""
    kinds = {"target": pyarrow.string(), "source": pyarrow.string(), "name": pyarrow.string()}
    kinds |= {
        "failure": pyarrow.string(),
        **{name: pyarrow.int64() for name in ("index", "order", "unanswered")},
    }
    kinds |= {name: pyarrow.bool_() for name in ("periodic", "clash", "distinct")}
    for name in row:
        if name.endswith(("_matched", "_of")):
            kinds[name] = pyarrow.int64()
        elif name.endswith("_rmsd_A") or name in ("energy", "volume_error", "density_error"):
            kinds[name] = pyarrow.float64()
    return pyarrow.schema([(name, kinds.get(name, pyarrow.bool_())) for name in row])


def rows_of(path: Path, origin: dict[str, Any]) -> list[Row]:
    """Rows of an interrupted evaluation; none where there is no file yet."""
    if not path.exists():
        return []
    try:
        table = containers.read_parquet(path)
        made_of = parse_json((table.schema.metadata or {}).get(b"nucleate", b"null"))
        rows = containers.rows_of(table, path)
    except ValueError as error:  # InputError is one
        raise InputError(
            f"expected an evaluation to resume, got {path} ({error}); remove it or choose another -o"
        ) from error
    if made_of != origin:
        raise InputError(
            f"expected the evaluation in {path} to be of the same files with the same settings; it is not. "
            "Leave --resume out to start again, or choose another -o."
        )
    return rows
