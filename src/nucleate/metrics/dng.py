"""Crystals from nothing (de novo): are they possible, different from each other, new, and distributed as real ones?

    samples -> valid? -> first of its kind? -> unlike every training crystal? -> rates
    valid samples, reference crystals -> density, number of elements -> Wasserstein distances

The distances are those of CDVAE (Xie et al., ICLR 2022) and its successors, over all valid samples that there are
(published numbers take 1,000): the first Wasserstein distance of densities (g/cm^3) and of numbers of distinct
elements. Two equal distributions have a distance of about 1/sqrt(n) of their spread between samples of size n.

Unique and novel rest on pymatgen's StructureMatcher with its own tolerances (ltol 0.2, stol 0.3, angle 5 degrees). It
is not transitive, so a crystal is unique where it matches none of the unique ones before it, in the order of the
samples, as pymatgen groups structures. Only crystals of one recipe are compared, and a crystal that
is known not to be new is asked about no further; neither changes an answer.

A row is one sample; the columns of `metrics.csp` for validity, and

| column | |
|---|---|
| `source`, `sample`, `formula`, `failure` | as in `metrics.csp` |
| `density_g_cm3`, `elements` | of the crystal |
| `like` | number of the earlier sample that is the same crystal; null: the first of its kind, or a failure |
| `known_as` | name of a training crystal that it is; null: novel, or a failure |
| `unanswered` | pairs on which StructureMatcher timed out or crashed: no match |
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import wasserstein_distance

from nucleate.crystal.sites import Sites
from nucleate.metrics.csp import Attempt, Recipe, Row, failures_of, plain, recipe, validity_columns
from nucleate.metrics.inorganic_validity import validities
from nucleate.metrics.rate import Rate
from nucleate.metrics.structure_matcher import MatcherSettings, StructureMatch, StructureMatching

SAME = MatcherSettings("pymatgen", stols=(0.3,), ltol=0.2, angle=5.0, scale=True)  # its own defaults


@dataclass(frozen=True)
class Likeness:
    """For each crystal the index of what it is like (None: nothing), and pairs that got no answer."""

    of: list[int | None]
    unanswered: list[int]


# ---------------------------------------------------------------- the same as another?


def first_of_kind(crystals: Sequence[Sites], matching: StructureMatching) -> Likeness:
    """For each crystal the first unique one before it that it matches.

    In each round the first crystal left of every recipe is compared with all that are left after it.
    """
    found = Likeness([None] * len(crystals), [0] * len(crystals))
    left = list(_by_recipe(crystals).values())
    while left := [group for group in left if len(group) > 1]:
        asked = [(group[0], i) for group in left for i in group[1:]]
        answers = matching.compare([(crystals[first], crystals[i]) for first, i in asked])
        for (first, i), answer in zip(asked, answers):
            _note(found, i, first, answer)
        left = [[i for i in group[1:] if found.of[i] is None] for group in left]
    return found


def known_among(
    crystals: Sequence[Sites], training: Sequence[Sites], matching: StructureMatching
) -> Likeness:
    """For each crystal a training crystal that it matches, None for a novel one.

    Crystals of the recipe are asked about from the nearest volume per atom on, one, two, four ... at a time, until one
    matches. The order only decides how soon, and which of several is named.
    """
    there = _by_recipe(training)
    found = Likeness([None] * len(crystals), [0] * len(crystals))
    waiting = {
        i: sorted(there[key], key=lambda t, c=crystal: _apart(c, training[t]))  # type: ignore[misc]
        for i, crystal in enumerate(crystals)
        if (key := recipe(crystal)) in there
    }
    share = 1
    while waiting:
        asked = [(t, i) for i, others in waiting.items() for t in others[:share]]
        answers = matching.compare([(training[t], crystals[i]) for t, i in asked])
        for (t, i), answer in zip(asked, answers):
            _note(found, i, t, answer)
        waiting = {
            i: others[share:] for i, others in waiting.items() if found.of[i] is None and len(others) > share
        }
        share *= 2
    return found


def _note(found: Likeness, crystal: int, other: int, answer: StructureMatch) -> None:
    if answer.is_match and found.of[crystal] is None:
        found.of[crystal] = other
    found.unanswered[crystal] += answer.outcome in ("timeout", "failed")


def _by_recipe(crystals: Sequence[Sites]) -> dict[Recipe, list[int]]:
    groups: dict[Recipe, list[int]] = {}
    for i, crystal in enumerate(crystals):
        groups.setdefault(recipe(crystal), []).append(i)
    return groups


def _apart(one: Sites, other: Sites) -> float:
    """|ln| of the ratio of volumes per atom; infinite for a cell without volume."""
    a, b = one.volume / len(one), other.volume / len(other)
    return abs(math.log(a / b)) if a > 0 and b > 0 else math.inf


# ---------------------------------------------------------------- samples -> rows


def judge_dng(
    source: str,
    attempts: Sequence[Attempt],
    training: Mapping[str, Sites] | None,
    matching: StructureMatching,
    *,
    compositions: bool = True,
) -> list[Row]:
    """A row for each attempt, in order. `matching` should have the settings `SAME`.

    Raises InputError ("missing package") where `compositions` are to be tested and SMACT is missing.
    """
    whole = [(i, a.crystal) for i, a in enumerate(attempts) if a.crystal is not None]
    crystals = [crystal for _, crystal in whole]
    tested = validities(crystals, compositions)
    like = first_of_kind(crystals, matching)
    names = list(training or {})
    known = known_among(crystals, list((training or {}).values()), matching)
    rows = [_failed(source, attempt) for attempt in attempts]
    for k, (i, crystal) in enumerate(whole):
        earlier, same = like.of[k], known.of[k]
        rows[i] |= {
            "formula": crystal.reduced_formula,
            **validity_columns(tested[k]),
            "density_g_cm3": crystal.density,
            "elements": len(crystal.composition),
            "like": None if earlier is None else attempts[whole[earlier][0]].sample,
            "known_as": None if same is None else names[same],
            "unanswered": like.unanswered[k] + known.unanswered[k],
        }
    return rows


def _failed(source: str, attempt: Attempt) -> Row:
    names = ("density_g_cm3", "elements", "like", "known_as")
    row: Row = {"source": source, "sample": attempt.sample, "formula": None, "failure": attempt.failure}
    return row | validity_columns(None) | dict.fromkeys(names) | {"unanswered": 0}


# ---------------------------------------------------------------- rows -> scores


@dataclass(frozen=True)
class DngScores:
    """Everything measured about one source; every rate is out of all samples that were asked for."""

    source: str
    asked: int
    failures: dict[str, int]
    structure: Rate
    composition: Rate | None  # None: not tested
    valid: Rate | None  # both
    unique: Rate
    novel: Rate | None  # None: no training crystals were given
    new: (
        Rate | None
    )  # valid, unique and novel, as far as each is known; None where nothing is known of novelty
    unanswered: int  # pairs
    measured: int  # valid samples, of which the distances are
    density: float  # Wasserstein distance, g/cm^3; NaN without samples
    elements: float  # of the numbers of distinct elements

    def as_json(self) -> dict[str, Any]:
        """Plain numbers; a rate is {"hits", "asked"}, an unknown number null."""
        return plain(asdict(self))


def summarise_dng(
    rows: Sequence[Row], source: str, references: Sequence[Sites], trained: bool = True
) -> DngScores:
    """Scores of one source; `references` are real crystals, `trained` whether novelty was asked about.

    Where compositions were not tested, the distances are over samples of valid structure.
    """
    own = [row for row in rows if row["source"] == source]
    there = [row for row in own if row["volume_A3"] is not None]
    tested = not any(row["composition_valid"] is None for row in there)
    sound = [row for row in there if (row["valid"] if tested else row["structure_valid"])]

    new = [row for row in sound if row["like"] is None and row["known_as"] is None]

    def rate(hits: Sequence[Row]) -> Rate:
        return Rate(len(hits), len(own))

    return DngScores(
        source=source,
        asked=len(own),
        failures=failures_of(own),
        structure=rate([row for row in there if row["structure_valid"]]),
        composition=rate([row for row in there if row["composition_valid"]]) if tested else None,
        valid=rate(sound) if tested else None,
        unique=rate([row for row in there if row["like"] is None]),
        novel=rate([row for row in there if row["known_as"] is None]) if trained else None,
        new=rate(new) if trained else None,
        unanswered=sum(row["unanswered"] for row in own),
        measured=len(sound),
        density=_distance([row["density_g_cm3"] for row in sound], [c.density for c in references]),
        elements=_distance([row["elements"] for row in sound], [len(c.composition) for c in references]),
    )


def _distance(one: Sequence[float | int], other: Sequence[float | int]) -> float:
    return float(wasserstein_distance(one, other)) if one and other else math.nan
