"""From judged samples to scores, every one with its denominator.

A row is one sample that was asked for, or one sample of the random control:

| column | |
|---|---|
| `target` | what it should be a crystal of |
| `source` | `prediction` or `control` |
| `index`, `order` | place in the file, and by energy where the file has energies (0 is first) |
| `name`, `energy`, `failure` | as given; `failure` says why there is no crystal |
| `volume_error`, `density_error` | relative to the reference, per formula unit; null for failures and clusters |
| `clash` | molecules run into each other, or the reader found so (failure `clash`); null for other failures |
| `unanswered` | forms of the target on which StructureMatcher timed out or crashed: no match |
| `periodic` | false for a cluster without a cell |
| `distinct` | false where an earlier sample of the target is the same crystal; null for failures and clusters |
| `NAME`, `NAME_matched`, `NAME_of`, `NAME_rmsd_A` | the same as the reference by criterion NAME? molecules, RMSD |
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nucleate.metrics.rate import Rate

Row = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """How often the reference was found by one criterion."""

    criterion: str
    at: dict[str, Rate]  # "1", "10", "all": targets found among their first k samples, out of all targets
    samples: Rate  # samples that are the reference, out of all asked for
    rmsd: float  # Å: mean over the found targets of the best sample's RMSD; NaN where none was found
    first: dict[str, int | None]  # each target's order of the first hit, from 1


@dataclass(frozen=True)
class Scores:
    """Everything measured about one source: the predictions, or their control."""

    source: str
    targets: int
    asked: int
    failures: dict[str, int]  # kind of failure (what stands before the colon) -> samples
    measured: int  # samples that have a volume
    rmad: float  # mean |V - V_ref| / V_ref over the measured samples
    bias: float  # mean (V - V_ref) / V_ref
    density_error: float  # mean |rho - rho_ref| / rho_ref
    clash: Rate  # samples with a clash out of asked
    clash_free: Rate  # crystals without one out of asked: failures do not count in favour
    unique: Rate  # distinct crystals out of asked, clusters left out
    scores: dict[str, Score]

    def as_json(self) -> dict[str, Any]:
        """Plain numbers; a rate is {"hits", "asked"}, an unknown number null."""
        return _plain(asdict(self))


def in_order(rows: Sequence[Row]) -> list[Row]:
    """The samples of one target by energy, those without one last; as in the file where none has one."""
    return sorted(rows, key=lambda r: (math.inf if not _finite(r["energy"]) else r["energy"], r["index"]))


def summarise(
    rows: Iterable[Row],
    source: str,
    targets: Sequence[str],
    criteria: Sequence[str],
    top: Sequence[int] = (1, 10),
) -> Scores:
    """Scores of one source over all targets; a target without any sample was missed, and counts."""
    own = [r for r in rows if r["source"] == source]
    by_target = {t: sorted((r for r in own if r["target"] == t), key=lambda r: r["order"]) for t in targets}
    volumes = [r["volume_error"] for r in own if _finite(r["volume_error"])]
    densities = [abs(r["density_error"]) for r in own if _finite(r["density_error"])]
    return Scores(
        source=source,
        targets=len(targets),
        asked=len(own),
        failures=dict(Counter(r["failure"].partition(":")[0] for r in own if r["failure"]).most_common()),
        measured=len(volumes),
        rmad=_mean([abs(v) for v in volumes]),
        bias=_mean(volumes),
        density_error=_mean(densities),
        clash=Rate(sum(r["clash"] is True for r in own), len(own)),
        clash_free=Rate(sum(r["clash"] is False for r in own), len(own)),
        unique=Rate(sum(r["distinct"] is True for r in own), sum(r["periodic"] for r in own)),
        scores={name: _score(name, by_target, top) for name in criteria},
    )


def _score(name: str, by_target: dict[str, list[Row]], top: Sequence[int]) -> Score:
    first = {t: next((r["order"] + 1 for r in rows if r[name]), None) for t, rows in by_target.items()}
    found = [place for place in first.values() if place is not None]
    at = {str(k): Rate(sum(place <= k for place in found), len(first)) for k in top}
    at["all"] = Rate(len(found), len(first))
    hits = [[r[f"{name}_rmsd_A"] for r in rows if r[name]] for rows in by_target.values()]
    return Score(
        criterion=name,
        at=at,
        samples=Rate(sum(map(len, hits)), sum(map(len, by_target.values()))),
        rmsd=_mean([min(own) for own in hits if own]),
        first=first,
    )


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan


def _finite(x: float | None) -> bool:
    return x is not None and math.isfinite(x)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
