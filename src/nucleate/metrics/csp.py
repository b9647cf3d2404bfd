"""Was the crystal of a composition found? Match rate and RMSE at k samples, METRe and cRMSE beside them.

    samples --StructureMatcher--> rows --> best RMS of each reference --> rate, RMSE, cRMSE

Each reference crystal was asked for by its contents, and so many samples came back. Of its first k:

* **match rate**: references that one of their *own* samples matches, out of all; RMSE the mean over those that were
  matched of the least normalised RMS (DiffCSP, Jiao et al., NeurIPS 2023).
* **METRe** ("match everyone to reference") and **cRMSE**: Martirossyan et al., "All that structure matches does not
  glitter", arXiv 2509.12178 (2025). A reference may be matched by *any* sample of its composition, because a
  polymorph that was asked for under another name is a find and no failure; and references without a match enter
  the mean with `stol`, the worst that counts, so that finding fewer crystals cannot lower the error:

      cRMSE = 1/R sum_r min(stol, least rms of r)

Both are given for `any` sample, and for those where sample and reference are `valid` (`inorganic_validity`): published
numbers differ in that by five to seven points, without always saying so. Samples that failed were asked for and
find nothing. A row is one sample:

| column | |
|---|---|
| `target`, `source`, `sample` | reference that was asked for; `prediction` or `control`; 0, 1, ... of its target |
| `formula`, `failure` | reduced; why there is no crystal |
| `shortest_A`, `volume_A3`, `structure_valid`, `composition_valid`, `valid` | null: no crystal, or not tested |
| `rms` | normalised, to its target; null where they do not match |
| `also`, `also_rms` | other references of the composition that it matches |
| `unanswered` | pairs on which StructureMatcher timed out or crashed: no match |
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator

from nucleate.crystal.sites import Sites
from nucleate.metrics.inorganic_validity import Validity, validities
from nucleate.metrics.rate import Rate
from nucleate.metrics.structure_matcher import StructureMatch, StructureMatching

Row = dict[str, Any]
Recipe = tuple[tuple[int, int], ...]

BINS = ((1, 4), (5, 8), (9, 12), (13, 20), (21, None))  # atoms in the reference's cell


@dataclass(frozen=True, eq=False)
class Attempt:
    """One sample that was asked for; without a crystal it has failed."""

    target: str
    sample: int  # 0, 1, ... of its target
    crystal: Sites | None
    failure: str | None = None


def recipe(crystal: Sites) -> Recipe:
    """Elements and their counts without common divisor: only crystals of equal recipes can match."""
    counts = crystal.composition
    divisor = math.gcd(*counts.values())
    return tuple((z, n // divisor) for z, n in counts.items())


def random_coordinates(reference: Sites, count: int, generator: Generator) -> list[Sites]:
    """The control: the true cell and contents, every atom anywhere in it."""
    frac = torch.rand(count, len(reference), 3, dtype=torch.float64, generator=generator)
    return [Sites(reference.lattice, x, reference.numbers) for x in frac]


# ---------------------------------------------------------------- samples -> rows


def pairs_to_ask(attempts: Sequence[Attempt], references: Mapping[str, Sites]) -> int:
    """How many pairs METRe needs: every sample with every reference of its recipe."""
    of = Counter(recipe(crystal) for crystal in references.values())
    return sum(of[recipe(a.crystal)] for a in attempts if a.crystal is not None)


def judge_csp(
    source: str,
    attempts: Sequence[Attempt],
    references: Mapping[str, Sites],
    matching: StructureMatching,
    *,
    everyone: bool = True,
    compositions: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """A row for each attempt. Without `everyone` samples are compared with their own target only.

    Pairs of other recipes are no match and are not asked about. Raises InputError ("missing package") where
    `compositions` are to be tested and SMACT is missing.
    """
    by_recipe: dict[Recipe, list[str]] = {}
    for name, crystal in references.items():
        by_recipe.setdefault(recipe(crystal), []).append(name)
    asked: list[tuple[int, str]] = []
    for i, attempt in enumerate(attempts):
        if attempt.crystal is not None:
            others = by_recipe.get(recipe(attempt.crystal), []) if everyone else []
            asked += [(i, name) for name in dict.fromkeys([attempt.target, *others])]
    pairs = [(references[name], _crystal(attempts[i])) for i, name in asked]
    found: list[dict[str, StructureMatch]] = [{} for _ in attempts]
    for (i, name), answer in zip(asked, matching.compare(pairs, progress)):
        found[i][name] = answer
    whole = [a.crystal for a in attempts if a.crystal is not None]
    tested = iter(validities(whole, compositions))
    return [
        _row(source, attempt, next(tested) if attempt.crystal is not None else None, answers)
        for attempt, answers in zip(attempts, found)
    ]


def _crystal(attempt: Attempt) -> Sites:
    assert attempt.crystal is not None
    return attempt.crystal


def _row(source: str, attempt: Attempt, tested: Validity | None, answers: dict[str, StructureMatch]) -> Row:
    own = answers.get(attempt.target)
    also = {name: a.rms for name, a in answers.items() if a.is_match and name != attempt.target}
    return {
        "target": attempt.target,
        "source": source,
        "sample": attempt.sample,
        "formula": attempt.crystal.reduced_formula if attempt.crystal is not None else None,
        "failure": attempt.failure,
        **validity_columns(tested),
        "rms": own.rms if own is not None and own.is_match else None,
        "also": list(also),
        "also_rms": list(also.values()),
        "unanswered": sum(a.outcome in ("timeout", "failed") for a in answers.values()),
    }


def validity_columns(tested: Validity | None) -> Row:
    """What the tests say, null where there is no crystal."""
    if tested is None:
        names = ("shortest_A", "volume_A3", "structure_valid", "composition_valid", "valid")
        return dict.fromkeys(names)
    return {
        "shortest_A": tested.shortest,
        "volume_A3": tested.volume,
        "structure_valid": tested.structure,
        "composition_valid": tested.composition,
        "valid": tested.valid,
    }


# ---------------------------------------------------------------- rows -> scores


@dataclass(frozen=True)
class Matches:
    """References found, by one way of counting."""

    found: Rate
    rmse: float  # mean over those found of the least normalised RMS; NaN where none was
    crmse: float  # mean over all references, `stol` for those not found


@dataclass(frozen=True)
class AnyValid:
    """By any sample, and by valid samples of valid references (None where that is not known)."""

    any: Matches
    valid: Matches | None


@dataclass(frozen=True)
class CspScores:
    """Everything measured about one source: the predictions, or their control."""

    source: str
    targets: int
    asked: int
    failures: dict[str, int]  # kind of failure (what stands before the colon) -> samples without a crystal
    structure: Rate  # samples of valid structure out of asked
    composition: Rate | None
    unanswered: int  # pairs
    own: dict[str, AnyValid]  # k ("1", "20") -> match rate, RMSE
    everyone: dict[str, AnyValid] | None  # k -> METRe, cRMSE; None where they were not asked for
    by_size: dict[str, dict[str, AnyValid]]  # atoms ("5-8") -> k -> as `own`

    def as_json(self) -> dict[str, Any]:
        """Plain numbers; a rate is {"hits", "asked"}, an unknown number null."""
        return plain(asdict(self))


def summarise_csp(
    rows: Sequence[Row],
    source: str,
    references: Mapping[str, Sites],
    valid_references: Mapping[str, bool | None],
    stol: float,
    top: Sequence[int] = (1, 20),
    everyone: bool = True,
) -> CspScores:
    """Scores of one source over all references; one without any sample was missed, and counts.

    `valid_references` says whether the references are valid themselves (None: not known).
    """
    own = [row for row in rows if row["source"] == source]
    untested = any(v is None for v in valid_references.values())
    known = not untested and not any(row["structure_valid"] and row["valid"] is None for row in own)

    def score(k: int, names: Sequence[str], all_of_them: bool) -> AnyValid:
        kept = [row for row in own if row["sample"] < k]
        sound = [row for row in kept if row["valid"]]
        allowed = {name for name in names if valid_references[name]}
        return AnyValid(
            _matches(_best(kept, set(names), all_of_them), len(names), stol),
            _matches(_best(sound, allowed, all_of_them), len(names), stol) if known else None,
        )

    names = list(references)
    sizes = {label: [n for n in names if len(references[n]) in span] for label, span in _bins().items()}
    return CspScores(
        source=source,
        targets=len(names),
        asked=len(own),
        failures=failures_of(own),
        structure=Rate(sum(row["structure_valid"] is True for row in own), len(own)),
        composition=Rate(sum(row["composition_valid"] is True for row in own), len(own)) if known else None,
        unanswered=sum(row["unanswered"] for row in own),
        own={str(k): score(k, names, False) for k in top},
        everyone={str(k): score(k, names, True) for k in top} if everyone else None,
        by_size={
            label: {str(k): score(k, some, False) for k in top} for label, some in sizes.items() if some
        },
    )


def failures_of(rows: Sequence[Row]) -> dict[str, int]:
    """Why there is no crystal, by the words before the colon, most frequent first."""
    kinds = (
        str(row["failure"] or "no crystal").partition(":")[0] for row in rows if row["volume_A3"] is None
    )
    return dict(Counter(kinds).most_common())


def _bins() -> dict[str, range]:
    return {
        f"{low}-{high}" if high else f"{low}+": range(low, high + 1 if high else 10**9) for low, high in BINS
    }


def _best(rows: Sequence[Row], targets: set[str], everyone: bool) -> dict[str, float]:
    """The least RMS of each reference that was matched."""
    best: dict[str, float] = {}
    for row in rows:
        matched = [(row["target"], row["rms"])] if row["rms"] is not None else []
        if everyone:
            matched += zip(row["also"], row["also_rms"])
        for name, rms in matched:
            if name in targets:
                best[name] = min(rms, best.get(name, math.inf))
    return best


def _matches(best: Mapping[str, float], targets: int, stol: float) -> Matches:
    total, missed = sum(best.values()), targets - len(best)
    return Matches(
        Rate(len(best), targets),
        total / len(best) if best else math.nan,
        (total + stol * missed) / targets if targets else math.nan,
    )


def plain(value: Any) -> Any:
    """Without what JSON cannot say: NaN becomes null."""
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
