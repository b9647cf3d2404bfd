"""From predicted clusters to scores, every one with its denominator.

A row is one sample that was asked for, or a control:

| column | |
|---|---|
| `target`, `source`, `sample` | what it should be; `prediction` or a control; 0, 1, ... of its target |
| `failure` | why there are no positions; then all below are null |
| `pm_center_A`, `pm_atom_A`, `collision`, `separation`, `compact` | as published |
| `pm_center_permuted_A`, `pm_atom_permuted_A`, `rmsd_A` | after assignment; RMSD of the better hand |
| `matched`, `matched_of`, `matched_rmsd_A` | molecules that lie as in the truth; RMSD of those, without hydrogens |
| `collision_between`, `neighbour_error_A`, `volume_error` | contacts and density |
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from nucleate.crystal.cluster import Cluster
from nucleate.errors import InputError
from nucleate.metrics.clusters import (
    collapsed,
    collision,
    collision_between,
    is_compact,
    match_cluster,
    neighbour_distance_error,
    pm_atom,
    pm_atom_permuted,
    pm_center,
    pm_center_permuted,
    published_mean,
    rmsd_cluster,
    separation,
    shuffled,
    volume_error,
)
from nucleate.metrics.csp import plain
from nucleate.metrics.rate import Rate

Row = dict[str, Any]

NEAR = 1.0  # Å: an RMSD that counts as near

COLUMNS = (
    *("pm_center_A", "pm_atom_A", "collision", "separation", "compact"),
    *("pm_center_permuted_A", "pm_atom_permuted_A", "rmsd_A", "matched", "matched_of", "matched_rmsd_A"),
    *("collision_between", "neighbour_error_A", "volume_error"),
)


# ---------------------------------------------------------------- samples -> rows


def judge_cluster(
    source: str,
    target: str,
    sample: int,
    truth: Cluster,
    predicted: Float[Tensor, "_ _ 3"] | None,
    failure: str | None = None,
    automorphisms: Int[Tensor, "maps atoms"] | None = None,
    n: int = 15,
) -> Row:
    """The row of one sample; `predicted` is None where it failed, and positions (Å) not finite are a failure.

    `automorphisms` and `n` are those of `rmsd_cluster` and `match_cluster`. Raises InputError for positions of
    another shape than the truth's.
    """
    row: Row = {"target": target, "source": source, "sample": sample, "failure": failure}
    if predicted is not None and predicted.shape != truth.positions.shape:
        raise InputError(
            f"expected positions of shape {tuple(truth.positions.shape)} for {target!r}, got "
            f"{tuple(predicted.shape)}; predict as many copies of the same molecule"
        )
    if predicted is None:
        return row | dict.fromkeys(COLUMNS) | {"failure": failure or "no positions"}
    if not predicted.isfinite().all():
        return row | dict.fromkeys(COLUMNS) | {"failure": failure or "not finite"}
    x, y = truth.positions.double(), predicted.double()
    match = match_cluster(truth, y, n)
    numbers: tuple[Any, ...] = (
        pm_center(x, y),
        pm_atom(x, y),
        collision(y, truth.numbers),
        separation(y),
        bool(is_compact(y)),
        pm_center_permuted(x, y),
        pm_atom_permuted(x, y, automorphisms),
        rmsd_cluster(x, y, automorphisms, mirror=True),
        match.n_matched,
        match.n,
        match.rmsd,
        collision_between(y, truth.numbers),
        neighbour_distance_error(x, y),
        volume_error(x, y),
    )
    return row | {name: _number(value) for name, value in zip(COLUMNS, numbers, strict=True)}


def controls(
    target: str, truth: Cluster, generator: Generator, automorphisms: Int[Tensor, "maps atoms"] | None = None
) -> list[Row]:
    """Rows of what every table needs beside it: the truth `shuffled` (no error at all) and `collapsed`."""
    made = {
        "shuffled": shuffled(truth.positions.double(), generator),
        "collapsed": collapsed(truth.positions.double()),
    }
    return [judge_cluster(name, target, 0, truth, x, None, automorphisms) for name, x in made.items()]


# ---------------------------------------------------------------- rows -> scores


@dataclass(frozen=True)
class Published:
    """The columns of the published tables: means of what is left after their rule."""

    pm_center: float  # Å
    pm_atom: float  # Å
    kept: Rate  # samples that enter both means, out of all asked for
    collision: float  # mean share
    separation: float  # mean share
    compact: Rate  # out of all asked for


@dataclass(frozen=True)
class BestOf:
    """Of the first k samples of each target the best by each number; a target without any has none."""

    found: Rate  # targets with a sample that has every molecule in its place, out of all targets
    matched: (
        float  # mean over all targets of the most molecules matched as a share; 0 for those without a sample
    )
    near: Rate  # targets with a sample of RMSD <= 1 Å, out of all targets
    measured: Rate  # targets that enter the means below, out of all targets
    pm_center_permuted: float  # Å
    pm_atom_permuted: float  # Å
    rmsd: float  # Å


@dataclass(frozen=True)
class ClusterScores:
    """Everything measured about one source: the predictions, or a control."""

    source: str
    targets: int
    asked: int
    failures: dict[str, int]  # kind of failure (what stands before the colon) -> samples
    published: Published
    best_of: dict[str, BestOf]  # k ("1", "10")
    clash_free: Rate  # samples without two molecules inside each other, out of all asked for
    neighbour_error: float  # Å, mean over the samples that have positions
    surrounded: Rate  # samples whose middle molecule has a closed Voronoi cell, out of all asked for
    rmad: float  # mean |V - V_true| / V_true over those
    bias: float  # mean (V - V_true) / V_true

    def as_json(self) -> dict[str, Any]:
        """Plain numbers; a rate is {"hits", "asked"}, an unknown number null."""
        return plain(asdict(self))


def summarise_clusters(
    rows: Sequence[Row], source: str, targets: Sequence[str], top: Sequence[int] = (1, 10)
) -> ClusterScores:
    """Scores of one source over all targets; a target without any sample was missed, and counts."""
    own = [row for row in rows if row["source"] == source]
    volume = _values(own, "volume_error")
    return ClusterScores(
        source=source,
        targets=len(targets),
        asked=len(own),
        failures=dict(Counter(r["failure"].partition(":")[0] for r in own if r["failure"]).most_common()),
        published=_published(own),
        best_of={str(k): _best_of([r for r in own if r["sample"] < k], targets) for k in top},
        clash_free=Rate(sum(row["collision_between"] == 0 for row in own), len(own)),
        neighbour_error=_mean(_values(own, "neighbour_error_A")),
        surrounded=Rate(len(volume), len(own)),
        rmad=_mean([abs(v) for v in volume]),
        bias=_mean(volume),
    )


def _published(rows: Sequence[Row]) -> Published:
    pairs = [[row[f"pm_{of}_A"] for of in ("center", "atom")] for row in rows]
    table = torch.tensor([[math.nan if v is None else v for v in pair] for pair in pairs]).reshape(-1, 2)
    (center, kept), (atom, kept_atom) = (published_mean(column) for column in table.double().T)
    return Published(
        pm_center=center,
        pm_atom=atom,
        kept=min(kept, kept_atom, key=lambda rate: rate.hits),
        collision=_mean(_values(rows, "collision")),
        separation=_mean(_values(rows, "separation")),
        compact=Rate(sum(row["compact"] is True for row in rows), len(rows)),
    )


def _best_of(rows: Sequence[Row], targets: Sequence[str]) -> BestOf:
    by_target = {
        t: [row for row in rows if row["target"] == t and row["rmsd_A"] is not None] for t in targets
    }
    measured = [own for own in by_target.values() if own]

    def least(column: str) -> list[float]:
        return [min(row[column] for row in own) for own in measured]

    most = [max(row["matched"] / row["matched_of"] for row in own) for own in measured]
    return BestOf(
        found=Rate(sum(share == 1 for share in most), len(targets)),
        matched=sum(most) / len(targets) if targets else math.nan,
        near=Rate(sum(rmsd <= NEAR for rmsd in least("rmsd_A")), len(targets)),
        measured=Rate(len(measured), len(targets)),
        pm_center_permuted=_mean(least("pm_center_permuted_A")),
        pm_atom_permuted=_mean(least("pm_atom_permuted_A")),
        rmsd=_mean(least("rmsd_A")),
    )


def _number(value: Any) -> Any:
    """A plain number; what is not finite is null."""
    plain = value.item() if isinstance(value, Tensor) else value
    return plain if isinstance(plain, bool | int) or math.isfinite(plain) else None


def _values(rows: Sequence[Row], column: str) -> list[float]:
    return [row[column] for row in rows if row[column] is not None]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan
