"""From conformers that were made to scores, every one with its denominator.

    references, conformers of one molecule --judge_conformers--> row --summarise_conformers--> ConformerScores

A row is one molecule, of one source:

| column | |
|---|---|
| `molecule`, `source`, `references`, `asked` | which; who made the conformers; conformers there are, and asked for |
| `made` | conformers with finite positions |
| `failure` | why there are fewer than asked for; null otherwise |
| `wrong_stereo` | of those made, how many are another stereoisomer than the graph |
| `cov_r`, `mat_r_A`, `cov_p`, `mat_p_A` | `conformers.coverage`: what was not made counts |
| `bounded` | true where not all orders of equivalent atoms were looked at: the RMSDs are upper bounds |
| `seconds`, `calls` | CPU-seconds it took, and calls of a network; null where not known |
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.errors import InputError
from nucleate.metrics.conformer_rmsd import best_rmsds, symmetry
from nucleate.metrics.conformers import QM9, collapsed_rmsds, coverage
from nucleate.metrics.csp import plain
from nucleate.metrics.rate import Rate

Row = dict[str, Any]


# ---------------------------------------------------------------- conformers -> row


def judge_conformers(
    source: str,
    references: Molecule,
    generated: Float[Tensor, "generated atoms 3"] | None,
    asked: int,
    threshold: float = QM9,
    *,
    failure: str | None = None,
    mirror: bool = False,
    right_only: bool = False,
    seconds: float | None = None,
    calls: int | None = None,
) -> Row:
    """The row of one molecule, its conformers being the references; `generated` (Å) is None where nothing was made.

    `mirror` counts mirror images as equal. `right_only` throws conformers of another stereo away, as if they had not
    been made; either way they are counted. Raises InputError for positions of other atoms, and as `coverage`.
    """
    truth = references.conformers
    found = truth[:0] if generated is None else generated.detach().double()
    if found.shape[1:] != truth.shape[1:]:
        raise InputError(
            f"expected positions of the {truth.shape[1]} atoms of {references.smiles}, got {tuple(found.shape)}"
        )
    finite = found.isfinite().flatten(1).all(1)
    if not finite.all():
        failure = failure or f"not finite: {int((~finite).sum())} of {len(found)}"
    found = found[finite]
    right = right_stereo(references.graph, found)
    kept = found[right] if right_only else found
    if len(kept) < asked:
        failure = failure or "too few"
    same = symmetry(references.graph)
    scores = coverage(
        best_rmsds(same, truth, kept, mirror), collapsed_rmsds(truth, same.heavy), asked, threshold
    )
    return {
        "molecule": references.name or references.smiles,
        "source": source,
        "references": len(truth),
        "asked": asked,
        "made": len(found),
        "failure": failure,
        "wrong_stereo": int((~right).sum()),
        "cov_r": scores.cov_r,
        "mat_r_A": scores.mat_r,
        "cov_p": scores.cov_p,
        "mat_p_A": scores.mat_p,
        "bounded": not same.complete,
        "seconds": seconds,
        "calls": calls,
    }


# ---------------------------------------------------------------- rows -> scores


@dataclass(frozen=True)
class Spread:
    """Over all molecules; NaN of none."""

    mean: float
    median: float

    @staticmethod
    def of(numbers: Sequence[float]) -> "Spread":
        return Spread(fmean(numbers), median(numbers)) if numbers else Spread(math.nan, math.nan)


@dataclass(frozen=True)
class ConformerScores:
    """Everything measured about one source."""

    source: str
    molecules: Rate  # with at least one conformer, out of all
    conformers: Rate  # made, out of all asked for
    failures: dict[str, int]  # kind of failure (what stands before the colon) -> molecules
    wrong_stereo: Rate  # of the conformers made
    cov_r: Spread
    mat_r: Spread  # Å
    cov_p: Spread
    mat_p: Spread  # Å
    bounded: Rate  # molecules whose RMSDs are upper bounds
    seconds: float  # CPU-seconds for a conformer that was made
    calls: float  # of the network for a molecule, mean

    def as_json(self) -> dict[str, Any]:
        """Plain numbers; a rate is {"hits", "asked"}, an unknown number null."""
        return plain(asdict(self))


def summarise_conformers(rows: Sequence[Row], source: str, molecules: int | None = None) -> ConformerScores:
    """Scores of one source over the molecules that its rows are of.

    Every molecule needs a row, also one where nothing was made: `molecules`, how many there should be, is checked.
    """
    own = [row for row in rows if row["source"] == source]
    if molecules is not None and len(own) != molecules:
        raise InputError(
            f"expected a row of {source!r} for each of {molecules} molecules, got {len(own)}; judge the failed ones too"
        )
    made = sum(row["made"] for row in own)
    seconds, calls = ([row[name] for row in own if row[name] is not None] for name in ("seconds", "calls"))
    return ConformerScores(
        source=source,
        molecules=Rate(sum(row["made"] > 0 for row in own), len(own)),
        conformers=Rate(made, sum(row["asked"] for row in own)),
        failures=dict(Counter(r["failure"].partition(":")[0] for r in own if r["failure"]).most_common()),
        wrong_stereo=Rate(sum(row["wrong_stereo"] for row in own), made),
        cov_r=Spread.of([row["cov_r"] for row in own]),
        mat_r=Spread.of([row["mat_r_A"] for row in own]),
        cov_p=Spread.of([row["cov_p"] for row in own]),
        mat_p=Spread.of([row["mat_p_A"] for row in own]),
        bounded=Rate(sum(row["bounded"] for row in own), len(own)),
        seconds=sum(seconds) / made if made and len(seconds) == len(own) else math.nan,
        calls=fmean(calls) if calls else math.nan,
    )
