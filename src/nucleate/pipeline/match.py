"""Compare crystals with one reference by named criteria. Returns rows of a table."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nucleate.crystal.io import read_crystal
from nucleate.crystal.rigid import species_from_crystal
from nucleate.errors import InputError
from nucleate.metrics.criteria import Criterion, Judge, Rung, Verdict
from nucleate.metrics.heavy_molecules import HeavyMolecules
from nucleate.metrics.structure_matcher import MatcherSettings, StructureMatch, StructureMatching
from nucleate.pipeline.samples import read_samples

Row = dict[str, Any]


def own_criterion(n: int, distance: float, angle: float, mirror: bool = True) -> Criterion:
    """All of n molecules within tolerances of one's own; its name says them. Raises InputError for bad ones."""
    if n < 1 or not 0 < distance < 1 or not 0 < angle < 180:
        raise InputError(
            "expected n >= 1, a relative distance tolerance in (0, 1) and an angle in (0, 180) degrees, got "
            f"{n}, {distance:g}, {angle:g}"
        )
    return Criterion(f"own{n}", (Rung(n, distance, angle),), mirror=mirror)


def match_files(
    reference: Path,
    others: Sequence[Path],
    criteria: Sequence[Criterion],
    matcher: MatcherSettings | None = None,
    time_limit: float | int = 30.0,
    workers: int = 1,
) -> list[Row]:
    """One row for every crystal and criterion; what cannot be read is a row with its reason.

    `others` are files or folders of any format that `read_predictions` knows, clusters without a cell included.
    """
    known = read_crystal(reference)
    molecules = species_from_crystal(known)
    samples = [(s.label, s.sample) for s in read_samples(others, molecules)]
    if all(sample.crystal is None for _, sample in samples):
        raise InputError(f"expected at least one readable crystal; {samples[0][1].failure}")
    judges = [Judge(criterion, [known]) for criterion in criteria]
    rows: list[Row] = []
    for label, sample in samples:
        if sample.crystal is None:
            rows.append(_nothing(label, "", sample.failure))
            continue
        compared = HeavyMolecules.of(sample.crystal)
        rows += [_row(label, judge.judge(sample.crystal, compared)) for judge in judges]
    if matcher is not None:
        with StructureMatching(matcher, workers, time_limit) as matching:
            read = [(label, s.crystal) for label, s in samples if s.crystal is not None and s.periodic]
            answers = matching.compare([(known, crystal) for _, crystal in read])
        for (label, _), answer in zip(read, answers):
            rows += _matcher_rows(label, answer)
        for label, sample in samples:
            if sample.crystal is not None and not sample.periodic:
                rows.append(_nothing(label, "structurematcher", "a cluster without a cell"))
    return rows


def _nothing(label: str, criterion: str, reason: str) -> Row:
    return {
        "file": label, "criterion": criterion, "same": False, "matched": None, "of": None, "rmsd_A": math.nan,
        "rmsd_1_A": math.nan, "mirrored": None, "reason": reason, "rotation": None, "translation": None,
    }  # fmt: skip


def _row(label: str, verdict: Verdict) -> Row:
    match = verdict.match
    row = _nothing(label, verdict.criterion, verdict.reason) | {"matched": match.n_matched, "of": match.n}
    if not match.n_matched:
        return row
    return row | {
        "same": verdict.same,
        "rmsd_A": match.rmsd,
        "rmsd_1_A": match.rmsd_1,
        "mirrored": match.mirrored,
        "rotation": match.rotation.tolist(),
        "translation": match.translation.tolist(),
    }


def _matcher_rows(label: str, answer: StructureMatch) -> list[Row]:
    """One row for each stol, smallest first; molecules are not known to StructureMatcher."""
    rows, suffix = [], " heavy" if answer.settings.heavy else ""
    for stol, rms, angstrom in sorted(zip(answer.settings.stols, answer.rms_at, answer.angstrom_at)):
        same = not math.isnan(rms)
        reason = "" if same else answer.reason or "no match at this stol"
        rows.append(
            _nothing(label, f"structurematcher-{stol:g}{suffix}", reason) | {"same": same, "rmsd_A": angstrom}
        )
    return rows
