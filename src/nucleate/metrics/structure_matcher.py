"""Are two crystals the same cell? pymatgen's StructureMatcher, the criterion of most papers, within time limits.

    crystals --reduce, once--> primitive cells --for each stol--> normalised RMS or nothing

pymatgen reduces both crystals to primitive Niggli cells and refuses unequal contents. For every cell of the
first that has the lengths (within `ltol`, relative) and angles (within `angle`) of the second's, and for
every translation that puts an atom of the rarest element onto one of its kind, it takes the mean of the two
lattices and pairs the atoms to the least sum of squared distances. The mean displacement is then taken out:

    rms = sqrt(mean_i |d_i - mean(d)|^2) / (V / N)^(1/3)         a match where the least rms < stol

V is the volume of the *mean* lattice (lengths and angles averaged), N the number of atoms in the primitive
cell, those that are compared: (V / N)^(1/3) is some 2.1 Å with hydrogens and 2.6 Å without, so stol 0.8 lets
an RMS of 1.7 or 2.1 Å pass. This is `StructureMatcher.get_rms_dist`; `StructureMatcher.fit` is stricter (it asks for
the largest distance, not the mean).

What one must know: cells of either handedness are tried, so mirror images always match. Molecules are not
known to it: atoms are paired by element. It is neither symmetric in its arguments nor transitive, and a
crystal whose symmetry is only broken slightly may have another primitive cell, which is then no match.

The pairs run in worker processes: one that takes too long or crashes is an answer ("timeout", "failed"), not
a match, and costs the others nothing.
"""

import importlib.util
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from nucleate.errors import InputError, NucleateError
from nucleate.processes import Worker, WorkerLost, share

PROGRAM = Path(__file__).with_name("structure_worker.py")
HELD = 500  # crystals that a worker keeps, reduced; those not used for longest are sent again when needed

Outcome = Literal["matched", "different", "timeout", "failed"]


@dataclass(frozen=True)
class MatcherSettings:
    """What counts as the same; `name` is to be printed with every number."""

    name: str
    stols: tuple[float | int, ...]  # in units of (V / N)^(1/3), any order
    ltol: float | int = 0.3  # relative
    angle: float | int = 10.0  # degrees
    scale: bool = False  # bring both to the same volume per atom first, so that density does not matter
    heavy: bool = False  # leave out hydrogens (where a crystal has other atoms)
    reference_first: bool = True  # which of a pair pymatgen gets first: it is not symmetric

    def __post_init__(self) -> None:
        object.__setattr__(self, "stols", tuple(sorted(self.stols, reverse=True)))
        if not self.stols or min(*self.stols, self.ltol, self.angle) <= 0 or self.angle >= 180:
            raise InputError(
                f"expected at least one stol, and stol, ltol and angle (degrees, below 180) above 0, got stols="
                f"{self.stols}, ltol={self.ltol}, angle={self.angle}"
            )


# The published settings. MolCrystalFlow (arXiv 2602.16020): its code calls get_rms_dist(reference, sample) with
# all atoms. CrystalFlow of Luo et al. (2025), as DiffCSP and CDVAE before: get_rms_dist(sample, reference), and
# scale is not named, so it is pymatgen's default, True.
PRESETS: Mapping[str, MatcherSettings] = {
    "molcrystalflow": MatcherSettings("molcrystalflow", stols=(0.3, 0.5, 0.8, 1.2)),
    "crystalflow": MatcherSettings("crystalflow", stols=(0.5,), scale=True, reference_first=False),
}


def settings_named(name: str, **changes: Any) -> MatcherSettings:
    """Named settings, with changes: `settings_named("molcrystalflow", heavy=True)`. Changes are added to the name.

    Raises InputError for a name that is not in `PRESETS` or a change of what is no setting.
    """
    if name not in PRESETS:
        raise InputError(f"expected one of the settings {', '.join(PRESETS)}, got {name!r}")
    unknown = set(changes) - set(MatcherSettings.__dataclass_fields__) | ({"name"} & set(changes))
    if unknown:
        raise InputError(
            f"expected changes of {', '.join(MatcherSettings.__dataclass_fields__)} but not of the name, got "
            f"{', '.join(sorted(unknown))}"
        )
    label = " ".join([name, *(f"{key}={value}" for key, value in changes.items())])
    return replace(PRESETS[name], name=label, **changes)


@runtime_checkable
class HasSites(Protocol):
    """Anything with a cell and atoms: `Crystal`, or `Sites` where there are no molecules."""

    @property
    def lattice(self) -> Float[Tensor, "3 3"]: ...
    @property
    def frac(self) -> Float[Tensor, "atoms 3"]: ...
    @property
    def numbers(self) -> Int[Tensor, " atoms"]: ...


@dataclass(frozen=True)
class StructureMatch:
    """The answer for one pair. Only `matched` is a match; the other outcomes are not, whatever the reason."""

    settings: MatcherSettings
    outcome: Outcome
    rms_at: tuple[float, ...]  # normalised, one for each of settings.stols (largest first); NaN: no match
    angstrom_at: tuple[float, ...]  # the same in Å
    reason: str = ""  # why it is not a match, where that is known
    seconds: float = 0.0  # wall time

    @property
    def is_match(self) -> bool:
        """True where it matches at any of the stols."""
        return self.outcome == "matched"

    @property
    def matched(self) -> dict[float | int, bool]:
        """Whether it matches at each stol of the settings, largest first."""
        return {stol: not math.isnan(rms) for stol, rms in zip(self.settings.stols, self.rms_at)}

    @property
    def rms(self) -> float:
        """The least normalised RMS over the stols, in units of (V / N)^(1/3); NaN where there is no match.

        The RMS may differ between stols (a wider one may pair atoms otherwise); `rms_at` has each.
        """
        return min((rms for rms in self.rms_at if not math.isnan(rms)), default=math.nan)

    @property
    def rms_angstrom(self) -> float:
        """`rms` in Å, by the (V / N)^(1/3) of that very superposition."""
        return self.angstrom_at[self.rms_at.index(self.rms)] if self.is_match else math.nan


Pair = tuple[HasSites, HasSites]


class StructureMatching:
    """Worker processes that compare pairs of crystals; use it in a `with` block.

        with StructureMatching("molcrystalflow", workers=2) as matching:
            answers = matching.compare([(reference, sample) for sample in samples])

    `time_limit` (s) is for one pair, the reduction of crystals that the worker has not seen included. Raises
    InputError where pymatgen is not installed or a limit is not positive.
    """

    def __init__(
        self,
        settings: MatcherSettings | str = "molcrystalflow",
        workers: int = 1,
        time_limit: float | int = 30.0,
    ) -> None:
        if workers < 1 or time_limit <= 0:
            raise InputError(
                f"expected at least one worker and a positive time limit (s), got workers={workers}, "
                f"time_limit={time_limit}"
            )
        if importlib.util.find_spec("pymatgen") is None:
            raise InputError(
                "StructureMatcher needs the package 'pymatgen', which is not installed here. "
                'Type: pip install "nucleate[matching]"',
                reason="missing package",
            )
        self.settings = settings_named(settings) if isinstance(settings, str) else settings
        self.time_limit, self._n_workers = time_limit, workers
        self._workers: list[_Matcher] = []
        self._numbered = 0  # crystals of earlier calls; workers know crystals by number

    def compare(
        self, pairs: Sequence[Pair], progress: Callable[[int, int], None] | None = None
    ) -> list[StructureMatch]:
        """One answer for each (reference, other), in order; `progress(done, total)` as they come.

        A crystal that is in many pairs is converted and reduced once per worker: give the same object. Raises
        NucleateError where no worker can start.
        """
        crystals = {id(crystal): crystal for pair in pairs for crystal in pair}
        number = {key: self._numbered + k for k, key in enumerate(crystals)}
        self._numbered += len(crystals)
        sites = {number[key]: _sites(crystal, self.settings.heavy) for key, crystal in crystals.items()}
        recipes = {key: _recipe(content["numbers"]) for key, content in sites.items()}

        def one(worker: "_Matcher", pair: Pair) -> StructureMatch:
            first, second = (number[id(crystal)] for crystal in pair)
            if recipes[first] != recipes[second]:
                return self._different("compositions differ")
            order = (first, second) if self.settings.reference_first else (second, first)
            return self._ask(worker, order, sites)

        if not any(recipes[number[id(a)]] == recipes[number[id(b)]] for a, b in pairs):
            return [self._different("compositions differ") for _ in pairs]
        self._start()
        return share(self._workers, pairs, one, self.close, progress)

    def close(self) -> None:
        """End the worker processes. Comparing again starts new ones."""
        for matcher in self._workers:
            matcher.worker.close()
        self._workers = []

    def __enter__(self) -> "StructureMatching":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        if not self._workers:
            self._workers = [_Matcher(_worker(self.settings)) for _ in range(self._n_workers)]
        try:
            self._workers[0].worker.start()
        except WorkerLost as lost:
            raise NucleateError(f"StructureMatcher's process could not start: {lost}") from None

    def _ask(self, matcher: "_Matcher", order: tuple[int, int], sites: dict[int, dict]) -> StructureMatch:
        started = time.monotonic()
        try:
            reply = matcher.ask(order, sites, self.time_limit)
        except WorkerLost as lost:
            spent = time.monotonic() - started
            return self._no_answer("timeout" if lost.late else "failed", str(lost), spent)
        if "failure" in reply:
            return self._no_answer("failed", reply["failure"], reply["seconds"])
        rms, angstrom = (tuple(_or_nan(x) for x in reply[key]) for key in ("rms", "angstrom"))
        if all(map(math.isnan, rms)):
            return self._different(reply["reason"], reply["seconds"])
        return StructureMatch(self.settings, "matched", rms, angstrom, "", reply["seconds"])

    def _different(self, reason: str, seconds: float = 0.0) -> StructureMatch:
        return self._no_answer("different", reason, seconds)

    def _no_answer(self, outcome: Outcome, reason: str, seconds: float) -> StructureMatch:
        nothing = (math.nan,) * len(self.settings.stols)
        return StructureMatch(self.settings, outcome, nothing, nothing, reason, seconds)


class _Matcher:
    """A worker, and which crystals its process holds, the one used last at the end."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.held, self._starts = worker, OrderedDict[int, None](), 0

    def ask(self, order: tuple[int, int], sites: dict[int, dict], limit: float | int) -> dict[str, Any]:
        """Compare two crystals by number, sending what the process does not hold. Raises WorkerLost."""
        self.worker.start()
        if self.worker.starts != self._starts:  # a new process
            self.held.clear()
            self._starts = self.worker.starts
        fresh = [number for number in dict.fromkeys(order) if number not in self.held]
        for number in order:
            self.held[number] = None
            self.held.move_to_end(number)
        surplus = [self.held.popitem(last=False)[0] for _ in range(len(self.held) - HELD)]
        request = {
            "forget": [str(number) for number in surplus],
            "crystals": {str(number): sites[number] for number in fresh},
            "pair": [str(number) for number in order],
        }
        reply = self.worker.ask(request, limit)
        if "failure" in reply:  # perhaps it could not read what it was sent
            for number in order:
                self.held.pop(number, None)
        return reply


def _worker(settings: MatcherSettings) -> Worker:
    opening = {
        "ltol": settings.ltol,
        "angle_tol": settings.angle,
        "scale": settings.scale,
        "stols": list(settings.stols),
    }
    return Worker(PROGRAM, opening, _start_failure)


def _start_failure(hello: dict[str, Any]) -> NucleateError:
    return NucleateError(
        f"StructureMatcher's process could not start: {hello['failure']}. "
        'Type: pip install --upgrade "nucleate[matching]"'
    )


def _sites(crystal: HasSites, heavy: bool) -> dict[str, Any]:
    """Plain lists for JSON; without hydrogens if `heavy`, unless there is nothing else."""
    kept = crystal.numbers > 1 if heavy and (crystal.numbers > 1).any() else crystal.numbers > 0
    return {
        "lattice": crystal.lattice.double().tolist(),
        "frac": crystal.frac[kept].double().tolist(),
        "numbers": crystal.numbers[kept].tolist(),
    }


def _recipe(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Elements and their counts without common divisor: equal where primitive cells may have equal contents."""
    counts = Counter(numbers)
    divisor = math.gcd(*counts.values()) or 1
    return tuple(sorted((element, count // divisor) for element, count in counts.items()))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
