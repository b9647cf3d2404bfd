"""Named criteria: what is meant by "the same packing".

| name | molecules | tolerances | and | used by |
|---|---|---|---|---|
| `strict15` | 15 of 15 | 20 %, 20° | | COMPACK's default; Mercury |
| `strict20` | 20 of 20 | 25 %, 25° | | |
| `strict30` | 30 of 30 | 35 %, 35° | | |
| `ladder` | strict15, then strict20, then strict30, all of them | | | FastCSP |
| `loose` | at least 8 of 15 | 50 %, 75° | RMSD below 2 Å, no clash | OXtal, Clari |

A number without the name of its criterion means nothing, so a `Verdict` carries it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.metrics.clashes import overlaps
from nucleate.metrics.heavy_molecules import HeavyMolecules
from nucleate.metrics.packing import PackingMatch, PackingReference


@dataclass(frozen=True)
class Rung:
    """A cluster of n molecules, looked for within relative distances and degrees."""

    n: int
    distance: float
    angle: float

    def __str__(self) -> str:
        return f"{self.n} molecules, {100 * self.distance:g} %, {self.angle:g}°"


@dataclass(frozen=True)
class Criterion:
    """Every rung must be climbed: `at_least` molecules (all unless given) of its cluster found."""

    name: str
    rungs: tuple[Rung, ...]
    at_least: int | None = None
    max_rmsd: float = math.inf  # Å, exclusive
    no_clash: bool = False
    mirror: bool = True

    def __str__(self) -> str:
        parts = ["; then ".join(map(str, self.rungs))]
        parts += [f"at least {self.at_least}"] if self.at_least else []
        parts += [f"RMSD < {self.max_rmsd:g} Å"] if self.max_rmsd < math.inf else []
        parts += ["no clash"] if self.no_clash else []
        parts += ["mirror images allowed" if self.mirror else "mirror images differ"]
        return f"{self.name} ({', '.join(parts)})"


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether two crystals are the same by a criterion, and the comparison it rests on.

    `match` is that of the last rung tried; `climbed` counts the rungs that were passed.
    """

    criterion: str
    same: bool
    match: PackingMatch
    climbed: int
    reason: str = ""  # why not the same

    def better_than(self, other: "Verdict") -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[bool, int, int, float]:
        rmsd = self.match.rmsd if math.isfinite(self.match.rmsd) else math.inf
        return (not self.same, -self.climbed, -self.match.n_matched, rmsd)


STRICT = (Rung(15, 0.20, 20.0), Rung(20, 0.25, 25.0), Rung(30, 0.35, 35.0))
CRITERIA = {
    criterion.name: criterion
    for criterion in (
        *(Criterion(f"strict{rung.n}", (rung,)) for rung in STRICT),
        Criterion("ladder", STRICT),
        Criterion("loose", (Rung(15, 0.50, 75.0),), at_least=8, max_rmsd=2.0, no_clash=True),
    )
}


def criterion(name: str) -> Criterion:
    """The criterion of that name. Raises InputError with the names there are."""
    if name not in CRITERIA:
        raise InputError(f"expected a criterion among {', '.join(CRITERIA)}; got {name!r}")
    return CRITERIA[name]


class Judge:
    """A criterion with one or several reference crystals (polymorphs) prepared; the best verdict counts."""

    def __init__(self, criterion: Criterion, references: Sequence[Crystal]) -> None:
        self.criterion = criterion
        self._ladders = [
            [
                PackingReference(r, rung.n, rung.distance, rung.angle, criterion.mirror)
                for rung in criterion.rungs
            ]
            for r in references
        ]

    def judge(self, other: Crystal, molecules: HeavyMolecules | None = None) -> Verdict:
        """Compare one crystal; `molecules` are its `HeavyMolecules` where they are at hand."""
        molecules = molecules or HeavyMolecules.of(other)
        verdicts = [self._climb(ladder, other, molecules) for ladder in self._ladders]
        best = verdicts[0]
        for verdict in verdicts[1:]:
            best = verdict if verdict.better_than(best) else best
        return best

    def _climb(self, ladder: list[PackingReference], other: Crystal, molecules: HeavyMolecules) -> Verdict:
        climbed, reason = 0, ""
        for reference in ladder:
            match = reference.compare(molecules)
            if reason := self._objection(match):
                centres = {cluster.keys[0] for cluster in reference.clusters}
                if match.n_matched == 0 and not centres.isdisjoint(molecules.keys):
                    reason = "no neighbours as in the reference"
                break
            climbed += 1
        if not reason and self.criterion.no_clash and overlaps(other):
            reason = "molecules overlap"
        return Verdict(self.criterion.name, not reason, match, climbed, reason)

    def _objection(self, match: PackingMatch) -> str:
        wanted = self.criterion.at_least or match.n
        if match.n_matched == 0:
            return "other molecules"
        if match.n_matched < wanted:
            return f"{match.n_matched} of {match.n} agree, not {wanted}"
        if not match.rmsd < self.criterion.max_rmsd:
            return f"RMSD {match.rmsd:.2f} Å is not below {self.criterion.max_rmsd:g} Å"
        return ""
