"""Packing similarity of many pairs out of one list of crystals, here or shared among processes."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nucleate.crystal.crystal import Crystal
from nucleate.errors import NucleateError
from nucleate.files import scratch_folder
from nucleate.metrics.heavy_molecules import HeavyMolecules
from nucleate.metrics.packing import PackingReference
from nucleate.processes import Worker, WorkerLost, share

PROGRAM = Path(__file__).with_name("packing_pairs_worker.py")
HELD = 512  # prepared references that a process keeps (some 50 kB each)
CHUNK = 64  # pairs that a process is given at a time
FEW = 16  # pairs that are not worth asking other processes for
LIMIT = 60.0  # s for a pair, a thousand times what it takes
NEARLY = 0.75  # of the molecules found: the other crystal's cluster may still be found whole
CANNOT = (NucleateError, ValueError, RuntimeError, ArithmeticError, MemoryError)

Pair = tuple[int, int]


@dataclass(frozen=True)
class Sameness:
    """When two crystals are one: all n molecules within the tolerances, RMSD below `rmsd` (Å)."""

    n: int
    rmsd: float
    distance_tolerance: float
    angle_tolerance: float
    mirror: bool


@dataclass(frozen=True)
class Outcome:
    """What a comparison gave; where it could not be made `failure` says why."""

    n_matched: int
    rmsd: float  # Å; NaN where nothing matched
    same: bool
    failure: str = ""


class PairComparison:
    """Crystals prepared when first needed, the last few hundred kept."""

    def __init__(self, crystals: Sequence[Crystal], sameness: Sameness) -> None:
        self.crystals, self.sameness = crystals, sameness
        self._reference = lru_cache(maxsize=HELD)(self._prepare)
        self._molecules = lru_cache(maxsize=HELD)(lambda i: HeavyMolecules.of(crystals[i]))

    def compare(self, pair: Pair) -> Outcome:
        """Look for the cluster of the first in the second, and the other way round where that nearly succeeds.

        Which molecules belong to a cluster of n can be a matter of 0.01 Å, so one direction may miss one or
        two of them. Either direction is enough; who comes first then does not decide.
        """
        try:
            forward = self._one_way(*pair)
            if forward.same or forward.n_matched < NEARLY * self.sameness.n:
                return forward
            backward = self._one_way(*reversed(pair))
            return backward if backward.same else forward
        except CANNOT as error:
            return Outcome(0, math.nan, False, f"could not be compared: {error}")

    def _one_way(self, reference: int, other: int) -> Outcome:
        match = self._reference(reference).compare(self._molecules(other))
        same = match.is_match and match.rmsd < self.sameness.rmsd
        return Outcome(match.n_matched, match.rmsd, same)

    def _prepare(self, i: int) -> PackingReference:
        s = self.sameness
        return PackingReference(self.crystals[i], s.n, s.distance_tolerance, s.angle_tolerance, s.mirror)


class PairPool:
    """`compare` for lists of pairs, on as many processes as asked for; answers do not depend on how many."""

    def __init__(self, crystals: Sequence[Crystal], sameness: Sameness, workers: int = 1) -> None:
        self.crystals, self.sameness, self.count = crystals, sameness, workers
        self._here = PairComparison(crystals, sameness)
        self._workers: list[Worker] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "PairPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and remove what was written for them."""
        for worker in self._workers:
            worker.close()
        self._workers = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def compare(self, pairs: Sequence[Pair]) -> list[Outcome]:
        """One outcome a pair, in order. A process that dies or hangs costs the pair at hand, no other."""
        if self.count == 1 or len(pairs) < FEW:
            return [self._here.compare(pair) for pair in pairs]
        self._open()
        size = max(1, min(CHUNK, len(pairs) // (4 * self.count)))
        chunks = [list(pairs[k : k + size]) for k in range(0, len(pairs), size)]
        answers = share(self._workers, chunks, _ask, self.close)
        return [outcome for answer in answers for outcome in answer]

    def _open(self) -> None:
        if self._workers:
            return
        self._folder = scratch_folder()
        file = Path(self._folder.name) / "crystals.npz"
        save_crystals(self.crystals, file)
        opening = {"crystals": str(file), "sameness": asdict(self.sameness)}
        self._workers = [Worker(PROGRAM, opening, _refusal) for _ in range(self.count)]


def _ask(worker: Worker, pairs: list[Pair]) -> list[Outcome]:
    """Outcomes from a process; where it is lost its pairs are asked again one by one."""
    try:
        reply = worker.ask({"pairs": pairs}, LIMIT * len(pairs))
    except WorkerLost as lost:
        if len(pairs) > 1:
            return [outcome for pair in pairs for outcome in _ask(worker, [pair])]
        return [Outcome(0, math.nan, False, f"could not be compared: {lost}")]
    if "failure" in reply:
        return [Outcome(0, math.nan, False, f"could not be compared: {reply['failure']}") for _ in pairs]
    return [Outcome(*outcome) for outcome in reply["outcomes"]]


def _refusal(hello: dict[str, Any]) -> NucleateError:
    return NucleateError(
        f"a process for comparing crystals could not start: {hello['failure']}. Go on with one worker."
    )


def save_crystals(crystals: Sequence[Crystal], file: Path) -> None:
    """Geometry and bonds of all crystals as flat arrays in one .npz file."""

    def joined(arrays: list[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
        return np.concatenate([np.zeros(empty, arrays[0].dtype), *arrays])

    np.savez(
        file,
        lattice=np.stack([c.lattice.double().numpy() for c in crystals]),
        frac=joined([c.frac.double().numpy() for c in crystals], (0, 3)),
        numbers=joined([c.numbers.numpy() for c in crystals], (0,)),
        molecule=joined([c.molecule.numpy() for c in crystals], (0,)),
        bonds=joined([c.bonds.numpy() for c in crystals], (0, 2)),
        atoms_of=np.array([len(c) for c in crystals]),
        bonds_of=np.array([len(c.bonds) for c in crystals]),
    )


def load_crystals(file: Path) -> list[Crystal]:
    """What `save_crystals` wrote."""
    with np.load(file, allow_pickle=False) as stored:
        flat = {name: torch.from_numpy(stored[name]) for name in stored.files}
    atoms, bonds = flat["atoms_of"].tolist(), flat["bonds_of"].tolist()
    fields = [flat[name].split(atoms) for name in ("frac", "numbers", "molecule")]
    return [Crystal(*parts) for parts in zip(flat["lattice"], *fields, flat["bonds"].split(bonds))]
