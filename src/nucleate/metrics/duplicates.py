"""Which crystals of a list are one and the same: blocks, packing similarity inside them, clusters.

    crystals -> fingerprints -> blocks of one chemistry, by volume per formula unit
        -> pairs with near fingerprints, nearest first -> packing similarity -> clusters -> representatives

Comparing everything with everything is n²/2 packing comparisons of milliseconds each. The chemistry, the
volume and the fingerprint rule out nearly all pairs in nanoseconds, and a pair that is already joined through
others is not compared at all: clusters are transitive, the connected components of "is the same as".

Clusters of many copies would still be compared member by member with each cluster nearby. So where two
crystals have fewer than half of the molecules in common, their near copies (RMSD below half the limit) are
not compared with each other; `exhaustive` does without this shortcut.

Transitivity has a price which no such clustering escapes: A like B and B like C puts A and C together though
they may differ by more than the limit. So each member's RMSD to its representative is measured, and
`Duplicates.chained` marks those beyond the limit.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError
from nucleate.metrics.duplicate_kernels import near_pairs
from nucleate.metrics.fingerprint import Chemistry, Fingerprint, fingerprint
from nucleate.metrics.packing_pairs import CANNOT, Outcome, Pair, PairPool, Sameness

LEVELS = (0.04, 0.12, 0.35, 1.0)  # of the fingerprint limit: nearest pairs first
PARTNERS = 32  # pairs a crystal may bring in before those found so far are compared
FINGERPRINT_PER_RMSD = 2.5  # holds for all of 1,023 pairs with RMSD_20 < 0.5 Å; benchmarks/deduplicate.py
CLEARLY = 0.5  # of the molecules not found: not a matter of tolerances
NEAR_COPY = 0.5  # of the RMSD limit

Progress = Callable[[int, int], None]


class DuplicateSettings(BaseModel, frozen=True, extra="forbid"):
    """When two crystals count as one, and what is looked at to find out."""

    n: PositiveInt = 20  # molecules that must all be found
    rmsd: PositiveFloat = 0.5  # Å over their heavy atoms, exclusive
    distance_tolerance: float = Field(0.25, gt=0, lt=1)  # relative
    angle_tolerance: float = Field(25.0, gt=0, lt=180)  # degrees
    mirror: bool = True  # mirror images are one
    volume_window: PositiveFloat = 0.2  # largest |ln(V_1 / V_2)| per formula unit
    fingerprint: PositiveFloat | None = None  # Å, see `fingerprint_limit`
    energy_window: PositiveFloat | None = None  # in the unit of the energies; None: energies do not rule out
    exhaustive: bool = False  # compare near copies of crystals that were found to differ clearly
    workers: PositiveInt = 1  # processes

    @property
    def fingerprint_limit(self) -> float:
        """Å; 2.5 times `rmsd` unless given."""
        return self.fingerprint or FINGERPRINT_PER_RMSD * self.rmsd

    @property
    def criterion(self) -> str:
        """One line to print beside every number that rests on it."""
        images = "equal" if self.mirror else "different"
        energies = f", energies within {self.energy_window:g}" if self.energy_window else ""
        return (
            f"{self.n} of {self.n} molecules, {100 * self.distance_tolerance:g} %, {self.angle_tolerance:g}°, "
            f"RMSD_{self.n} < {self.rmsd:g} Å, mirror images {images}{energies}, transitive"
        )

    @property
    def sameness(self) -> Sameness:
        return Sameness(self.n, self.rmsd, self.distance_tolerance, self.angle_tolerance, self.mirror)


@dataclass
class PairCounts:
    """Where the pairs went: each number counts what the stage before it left over."""

    all: int = 0
    same_chemistry: int = 0
    near_volume: int = 0
    near_fingerprint: int = 0  # and not yet joined when looked at
    copies: int = 0  # of these, near copies of crystals that differ clearly
    compared: int = 0  # not copies, and not joined by others meanwhile
    same: int = 0
    to_representatives: int = 0  # comparisons made only to measure a member's RMSD to its representative
    seconds: dict[str, float] = field(default_factory=dict)  # wall time of each stage


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Clusters are numbered as their representatives come: by energy, or as in the list where there is none."""

    settings: DuplicateSettings
    cluster: Int[np.ndarray, " crystals"]
    representative: Int[np.ndarray, " clusters"]  # lowest in energy, or first
    rmsd: Float[np.ndarray, " crystals"]  # Å to the representative; NaN where its cluster is not found whole
    n_matched: Int[np.ndarray, " crystals"]  # molecules found in the comparison with the representative
    failure: tuple[str, ...]  # why a crystal could not be compared; it is then a cluster of its own
    pairs: PairCounts

    @property
    def size(self) -> Int[np.ndarray, " clusters"]:
        """Crystals in each cluster."""
        return np.bincount(self.cluster, minlength=len(self.representative))

    @property
    def spread(self) -> Float[np.ndarray, " clusters"]:
        """Largest RMSD (Å) of a member to its representative; infinity where one is not found whole."""
        largest = np.zeros(len(self.representative))
        np.maximum.at(largest, self.cluster, np.where(np.isnan(self.rmsd), math.inf, self.rmsd))
        return largest

    @property
    def chained(self) -> Bool[np.ndarray, " crystals"]:
        """Members that belong to their cluster only through others."""
        return ~(self.rmsd < self.settings.rmsd)


def find_duplicates(
    crystals: Sequence[Crystal],
    energies: Sequence[float] | Float[np.ndarray, " crystals"] | None = None,
    settings: DuplicateSettings | None = None,
    progress: Progress | None = None,
) -> Duplicates:
    """Group equal crystals; the answer depends on neither the order of the list nor the number of workers.

    `energies` (one a crystal, any unit, per molecule or formula unit; NaN where unknown) choose the
    representatives, and rule out pairs if `energy_window` is set. `progress(done, asked)` is told of pairs
    compared and those that may still have to be. A crystal that cannot be compared stays by itself with
    its reason. Raises InputError where the numbers of crystals and energies differ.
    """
    settings = settings or DuplicateSettings()
    energy = _checked(len(crystals), energies)
    clock = Clock()
    prints, failure = _fingerprints(crystals)
    clock.lap("fingerprints")
    blocks = _blocks(prints, energy)
    counts = _count_blocked(len(crystals), blocks, settings.volume_window)
    place = np.argsort(np.lexsort((np.arange(len(energy)), energy)))  # numpy sorts NaN last
    with PairPool(crystals, settings.sameness, settings.workers) as pool:
        known = Comparisons(pool, place, settings, counts, progress)
        limits = [settings.fingerprint_limit * level for level in LEVELS]
        for low, high in zip([-1.0, *limits], limits):
            cursors = [np.zeros(len(block.members), np.int64) for block in blocks]
            while len(pairs := _collect(blocks, cursors, known.group, settings, low, high)):
                counts.near_fingerprint += len(pairs)
                known.join(pairs)
        clock.lap("comparison")
        cluster, representative = _number_clusters(known.group, place)
        known.measure(cluster, representative)
        clock.lap("representatives")
    rmsd, n_matched = known.to_representative(cluster, representative)
    counts.seconds = clock.seconds
    reasons = tuple(known.failure.get(i, failure.get(i, "")) for i in range(len(crystals)))
    return Duplicates(settings, cluster, representative, rmsd, n_matched, reasons, counts)


class Clock:
    """Wall seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def _checked(count: int, energies: Sequence[float] | np.ndarray | None) -> Float[np.ndarray, " crystals"]:
    if energies is None:
        return np.full(count, math.nan)
    energy = np.asarray(energies, dtype=np.float64)
    if energy.shape != (count,):
        raise InputError(
            f"expected one energy for each of the {count} crystals, got {energy.size}; use NaN where unknown"
        )
    return energy


def _fingerprints(crystals: Sequence[Crystal]) -> tuple[list[Fingerprint | None], dict[int, str]]:
    prints: list[Fingerprint | None] = []
    failure: dict[int, str] = {}
    for i, crystal in enumerate(crystals):
        try:
            prints.append(fingerprint(crystal))
        except CANNOT as error:
            prints.append(None)
            failure[i] = f"no fingerprint: {error}"
    return prints, failure


# ---------------------------------------------------------------- blocks


@dataclass(frozen=True, eq=False)
class Block:
    """Crystals of one chemistry, by volume per formula unit; columns that differ most come first."""

    members: Int[np.ndarray, " rows"]
    log_volume: Float[np.ndarray, " rows"]
    energy: Float[np.ndarray, " rows"]
    values: Float[np.ndarray, "rows numbers"]  # Å, single precision is plenty for limits of 0.01 Å


def _blocks(prints: Sequence[Fingerprint | None], energy: Float[np.ndarray, " crystals"]) -> list[Block]:
    of: dict[Chemistry, list[int]] = defaultdict(list)
    for i, found in enumerate(prints):
        if found is not None:
            of[found.chemistry].append(i)
    return [_block(prints, energy, members) for members in of.values() if len(members) > 1]


def _block(
    prints: Sequence[Fingerprint | None], energy: Float[np.ndarray, " crystals"], members: list[int]
) -> Block:
    chosen = [found for i in members if (found := prints[i]) is not None]
    log_volume = np.log([found.volume for found in chosen])
    order = np.argsort(log_volume, kind="stable")
    values = np.stack([chosen[k].values.astype(np.float32) for k in order.tolist()])
    columns = np.argsort(-values.var(0), kind="stable")
    index = np.array(members)[order]
    return Block(index, log_volume[order], energy[index], np.ascontiguousarray(values[:, columns]))


def _count_blocked(count: int, blocks: list[Block], window: float) -> PairCounts:
    sizes = np.array([len(block.members) for block in blocks], dtype=np.int64)
    near = 0
    for block in blocks:
        last = np.searchsorted(block.log_volume, block.log_volume + window, side="right")
        near += int((last - np.arange(len(last)) - 1).sum())
    return PairCounts(count * (count - 1) // 2, int((sizes * (sizes - 1) // 2).sum()), near)


def _collect(
    blocks: list[Block],
    cursors: list[np.ndarray],
    group: Int[np.ndarray, " crystals"],
    settings: DuplicateSettings,
    low: float,
    high: float,
) -> Int[np.ndarray, "pairs 2"]:
    """The next pairs of different groups whose fingerprints are more than low, at most high apart (Å)."""
    energy_window = settings.energy_window or math.inf
    found = [np.zeros((0, 2), np.int64)]
    for block, cursor in zip(blocks, cursors):
        first, second = np.empty((2, PARTNERS * len(cursor)), np.int64)
        rows = (block.values, block.log_volume, block.energy, group[block.members], cursor)
        window = (settings.volume_window, energy_window, low, high, PARTNERS)
        count = near_pairs(*rows, *window, first, second)
        found.append(block.members[np.stack([first[:count], second[:count]], 1)])
    return np.concatenate(found)


# ---------------------------------------------------------------- clusters


class Comparisons:
    """What has been compared so far, and the groups that follow from it."""

    def __init__(
        self,
        pool: PairPool,
        place: Int[np.ndarray, " crystals"],
        settings: DuplicateSettings,
        counts: PairCounts,
        progress: Progress | None,
    ) -> None:
        self.pool, self.place, self.settings = pool, place, settings
        self.counts, self.progress = counts, progress
        self.group: Int[np.ndarray, " crystals"] = np.arange(len(place))
        self.failure: dict[int, str] = {}
        self._known: dict[Pair, Outcome] = {}
        self._same: list[Pair] = []
        self._original = np.arange(len(place))  # what a crystal is a near copy of, itself if of none
        self._copied: set[int] = set()
        self._different: list[int] = []  # keys of pairs that differ clearly

    def join(self, pairs: Int[np.ndarray, "pairs 2"]) -> None:
        """Compare until every pair has been compared, is joined through others or ruled out by originals.

        Each round compares a forest over the groups, so that no comparison can join what another of the same
        round has joined. Pairs of the lowest crystals come first: members then meet their representative.
        """
        pairs = _oriented(pairs, self.place)
        pairs = pairs[np.lexsort((self.place[pairs[:, 1]], self.place[pairs[:, 0]]))]
        while len(pairs := self._open(pairs)):
            chosen = spanning_forest(self.group[pairs])
            outcomes = self._compare(pairs[chosen], len(pairs) - len(chosen))
            self.counts.compared += len(chosen)
            self.counts.same += sum(outcome.same for outcome in outcomes)
            self._learn(pairs[chosen].tolist(), outcomes)
            pairs = np.delete(pairs, chosen, axis=0)

    def measure(
        self, cluster: Int[np.ndarray, " crystals"], representative: Int[np.ndarray, " clusters"]
    ) -> None:
        """Compare every member with its representative, where that has not happened yet."""
        wanted = [
            (first, second)
            for second, first in enumerate(representative[cluster].tolist())
            if first != second and (first, second) not in self._known
        ]
        self.counts.to_representatives = len(wanted)
        self._compare(np.array(wanted, dtype=np.int64).reshape(-1, 2), 0)

    def to_representative(
        self, cluster: Int[np.ndarray, " crystals"], representative: Int[np.ndarray, " clusters"]
    ) -> tuple[Float[np.ndarray, " crystals"], Int[np.ndarray, " crystals"]]:
        """RMSD (Å, NaN where not all n molecules were found) and molecules found, of every crystal."""
        n = self.settings.n
        itself = Outcome(n, 0.0, True)
        outcomes = [
            itself if first == second else self._known[first, second]
            for second, first in enumerate(representative[cluster].tolist())
        ]
        n_matched = np.array([outcome.n_matched for outcome in outcomes], dtype=np.int64)
        rmsd = np.array([outcome.rmsd for outcome in outcomes], dtype=np.float64)
        return np.where(n_matched == n, rmsd, math.nan), n_matched

    def _open(self, pairs: Int[np.ndarray, "pairs 2"]) -> Int[np.ndarray, "left 2"]:
        """The pairs that still have to be compared."""
        pairs = pairs[self.group[pairs[:, 0]] != self.group[pairs[:, 1]]]
        if self.settings.exhaustive:
            return pairs
        copies = np.isin(self._keys(self._original[pairs]), self._different)
        self.counts.copies += int(copies.sum())
        return pairs[~copies]

    def _keys(self, pairs: Int[np.ndarray, "pairs 2"]) -> Int[np.ndarray, " pairs"]:
        """One number for each unordered pair."""
        return pairs.min(1) * len(self.place) + pairs.max(1)

    def _compare(self, pairs: Int[np.ndarray, "pairs 2"], waiting: int) -> list[Outcome]:
        asked = [(int(first), int(second)) for first, second in pairs]
        outcomes = self.pool.compare(asked)
        self._known |= dict(zip(asked, outcomes))
        for pair, outcome in zip(asked, outcomes):
            if outcome.failure:
                self.failure |= dict.fromkeys(pair, outcome.failure)
        if self.progress is not None:
            self.progress(len(self._known), len(self._known) + waiting)
        return outcomes

    def _learn(self, pairs: list[list[int]], outcomes: list[Outcome]) -> None:
        """Join what is the same; remember near copies, and what differs clearly."""
        near, far = NEAR_COPY * self.settings.rmsd, CLEARLY * self.settings.n
        for (first, second), outcome in zip(pairs, outcomes):
            if outcome.same:
                self._same.append((first, second))
                free = self._original[first] == first and second not in self._copied
                if outcome.rmsd < near and free and self._original[second] == second:
                    self._original[second] = first
                    self._copied.add(first)
            elif outcome.n_matched < far and not outcome.failure:
                self._different.append(int(self._keys(np.array([[first, second]]))[0]))
        rows, columns = np.array(self._same, dtype=np.int64).reshape(-1, 2).T
        n = len(self.place)
        graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
        self.group = connected_components(graph, directed=False)[1].astype(np.int64)


def _oriented(
    pairs: Int[np.ndarray, "pairs 2"], place: Int[np.ndarray, " crystals"]
) -> Int[np.ndarray, "pairs 2"]:
    """Each pair with the crystal that comes earlier in `place` first: it is the reference."""
    swapped = place[pairs[:, 0]] > place[pairs[:, 1]]
    return np.where(swapped[:, None], pairs[:, ::-1], pairs)


def spanning_forest(groups: Int[np.ndarray, "pairs 2"]) -> Int[np.ndarray, " chosen"]:
    """Indices of pairs that connect as many groups as all pairs do, without a ring; early pairs preferred."""
    low, high = groups.min(1), groups.max(1)
    nodes = int(high.max()) + 1
    once = np.unique(low * nodes + high, return_index=True)[1]
    graph = coo_array((once + 1.0, (low[once], high[once])), shape=(nodes, nodes))
    return np.sort(minimum_spanning_tree(graph.tocsr()).data.astype(np.int64) - 1)


def _number_clusters(
    group: Int[np.ndarray, " crystals"], place: Int[np.ndarray, " crystals"]
) -> tuple[Int[np.ndarray, " crystals"], Int[np.ndarray, " clusters"]]:
    """Cluster of each crystal and the best member of each, clusters in the order of their best members."""
    best_first = np.argsort(place)
    groups, at = np.unique(group[best_first], return_index=True)
    rank = np.argsort(np.argsort(at))
    return rank[np.searchsorted(groups, group)], best_first[np.sort(at)]
