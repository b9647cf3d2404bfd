"""What a file of predictions says, before (`Entry`, `Frame`) and after (`Sample`) molecules are found in it."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from nucleate.crystal.crystal import Crystal
from nucleate.metrics.heavy_molecules import heavy_keys

Composition = tuple[
    tuple[int, int], ...
]  # (atomic number, count), heavy atoms, counts without common divisor
Chemistry = tuple[tuple[str, int], ...]  # (key of a heavy-atom graph, count), counts without common divisor

K = TypeVar("K", int, str)


@dataclass(frozen=True, eq=False)
class Sample:
    """One prediction. Where there is no crystal `failure` says why; the sample was still asked for.

    `energy` is per molecule and in the unit of its file (kJ/mol, or eV as most programs of the field write):
    it orders the samples of one target and means nothing else. A finite cluster (`periodic` False) is kept
    as a crystal in a box of vacuum so large that images never meet.
    """

    target: str | None  # what it predicts, where the file says so
    index: int  # 0, 1, ... within its target, in the order of the file or of the file's own ranking
    name: str
    crystal: Crystal | None
    periodic: bool = True
    energy: float | None = None
    failure: str = ""  # "kind: sentence"
    composition: Composition = ()  # empty where not even the atoms could be read

    @property
    def failure_kind(self) -> str:
        """A short stable key for counted tables, such as "clash" or "unreadable"; empty for a crystal."""
        return self.failure.partition(":")[0]


@dataclass(frozen=True, eq=False)
class Frame:
    """Bare atoms as a file lists them. Without a lattice they are a finite cluster."""

    numbers: Int[np.ndarray, " atoms"]
    positions: Float[np.ndarray, "atoms 3"]  # Å
    lattice: Float[np.ndarray, "3 3"] | None = None  # Å, rows
    labels: Int[np.ndarray, " atoms"] | None = None  # molecule of each atom, where the file says so
    bonds: Int[np.ndarray, "bonds 2"] | None = None  # where the file lists them


@dataclass(frozen=True, eq=False)
class Entry:
    """One record of a file: atoms, or a finished crystal, or the reason why there is neither."""

    name: str
    structure: Frame | Crystal | None = None
    target: str | None = None
    energy: float | None = None
    per_cell: bool = False  # the energy is that of the whole cell
    failure: str = ""


def finite_number(value: object) -> float | None:
    """The value as a float, or None for text, NaN, infinity and nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def composition_of(numbers: Int[np.ndarray, " atoms"]) -> Composition:
    """Heavy atoms in lowest terms; of hydrogen alone, hydrogen."""
    counts = Counter(numbers[numbers > 0].tolist())
    heavy = {z: n for z, n in counts.items() if z > 1} or dict(counts)
    return _lowest_terms(heavy)


def chemistry_of(crystal: Crystal) -> Chemistry:
    """The distinct molecules of a crystal and their proportions."""
    return _lowest_terms(Counter(heavy_keys(crystal)))


def _lowest_terms(counts: dict[K, int]) -> tuple[tuple[K, int], ...]:
    divisor = reduce(gcd, counts.values(), 0) or 1
    return tuple(sorted((k, n // divisor) for k, n in counts.items()))
