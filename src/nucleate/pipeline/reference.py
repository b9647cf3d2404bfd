"""Was a known crystal found, and at which rank?"""

from collections.abc import Iterable
from dataclasses import dataclass

from nucleate.crystal.crystal import Crystal
from nucleate.metrics.packing import PackingMatch, PackingReference

SAME_PACKING = 0.8  # Å, RMSD_15 below which two packings count as one (all 15 molecules matched)
CLOSE = 0.4  # Å, the stricter limit reported beside it


@dataclass(frozen=True)
class ReferenceSearch:
    """Matches in the order of the candidates; `rank` is 1 for the first candidate."""

    matches: list[PackingMatch]

    def rank(self, limit: float = SAME_PACKING) -> int | None:
        """The first candidate with the whole cluster and an RMSD below `limit` (Å); None where there is none."""
        return next((i + 1 for i, m in enumerate(self.matches) if is_same(m, limit)), None)


def is_same(match: PackingMatch, limit: float = SAME_PACKING) -> bool:
    """All molecules of the cluster matched, with an RMSD below `limit` (Å)."""
    return match.is_match and match.rmsd < limit


def find_reference(
    reference: Crystal, candidates: Iterable[Crystal], stop_below: float | None = None
) -> ReferenceSearch:
    """Compare every candidate with the reference (15 molecules, 20 %, 20 degrees, mirror images allowed).

    With `stop_below` the search ends at the first candidate whose RMSD (Å) is below it.
    """
    prepared = PackingReference(reference)
    matches: list[PackingMatch] = []
    for candidate in candidates:
        matches.append(prepared.compare(candidate))
        if stop_below is not None and is_same(matches[-1], stop_below):
            break
    return ReferenceSearch(matches)
