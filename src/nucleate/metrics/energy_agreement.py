"""Do two energies rank the same crystals alike, and where do they put the experimental forms?

Energies of crystals have no common zero: each model has its own. Two ways to remove it are given.

* `mean_error`, the headline: min over c of mean |a_i - b_i - c|, whose c is the median difference. One constant is
  free and its best value is taken, so that no single structure decides.
* `mean_error_from_lowest`: each energy relative to its own lowest, which is what a plot of a landscape shows. If
  one model makes one structure too stable, every structure is shifted. Never smaller than the headline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import kendalltau, spearmanr

from nucleate.errors import InputError
from nucleate.physics.parameters import KJ_PER_MOL


@dataclass(frozen=True)
class Standing:
    """Where one structure stands in a landscape by one energy; None and NaN where its energy failed."""

    name: str
    rank: int | None  # 1 is lowest; ties share the better rank
    above_lowest: float  # kJ/mol per molecule
    ranked: int  # structures with an energy
    asked: int

    @property
    def below(self) -> int | None:
        """Structures that are lower in energy."""
        return None if self.rank is None else self.rank - 1

    def __str__(self) -> str:
        if self.rank is None:
            return f"{self.name}: no energy ({self.ranked} of {self.asked} have one)"
        return (
            f"{self.name}: rank {self.rank} of {self.ranked}, {self.above_lowest:.2f} kJ/mol above the lowest"
        )


@dataclass(frozen=True, eq=False)
class LandscapeAgreement:
    """Two energies of the same structures. Correlations and errors are over the `compared`, both energies finite."""

    spearman: float  # NaN where fewer than 3 are compared or all are equal
    kendall: float  # tau-b
    mean_error: float  # kJ/mol per molecule, one constant fitted
    mean_error_from_lowest: float  # kJ/mol per molecule, each relative to its own lowest
    compared: int
    asked: int
    failed: tuple[int, int]  # by the first and by the second energy
    standings: tuple[tuple[Standing, Standing], ...]  # of the experimental forms, by the first and the second

    def __str__(self) -> str:
        return (
            f"{self.compared} of {self.asked} compared: Spearman {self.spearman:.3f}, Kendall {self.kendall:.3f}, "
            f"mean error {self.mean_error:.2f} kJ/mol per molecule ({self.mean_error_from_lowest:.2f} from the lowest)"
        )


def compare_energies(
    energy_a: Sequence[float] | np.ndarray,
    energy_b: Sequence[float] | np.ndarray,
    molecules: Sequence[int],
    names: Sequence[str] = (),
    experimental: Sequence[str] = (),
) -> LandscapeAgreement:
    """Agreement of two energies (eV per cell) of the same structures with so many molecules in their cells.

    NaN or infinite energies failed: they are left out of correlations and errors, stay in `asked`, and a form whose
    energy failed has no rank. `experimental` picks `names` whose standing is wanted. Raises InputError where
    lengths differ, a cell has no molecule or a name is unknown.
    """
    count = np.asarray(molecules, dtype=float)
    if not len(energy_a) == len(energy_b) == len(count) or (names and len(names) != len(count)):
        raise InputError(
            "expected two energies, a number of molecules and a name for each structure, got "
            f"{len(energy_a)}, {len(energy_b)}, {len(count)} and {len(names)}"
        )
    if (count < 1).any():
        raise InputError(f"expected at least one molecule in every cell, got {int(count.min())}")
    if unknown := set(experimental) - set(names):
        raise InputError(f"expected experimental forms among the names, got {', '.join(sorted(unknown))}")
    a, b = (np.asarray(e, dtype=float) / count / KJ_PER_MOL for e in (energy_a, energy_b))
    good = np.isfinite(a) & np.isfinite(b)
    places = [list(names).index(name) for name in experimental]
    return LandscapeAgreement(
        *_correlations(a[good], b[good]),
        *_mean_errors(a[good], b[good]),
        compared=int(good.sum()),
        asked=len(a),
        failed=(int((~np.isfinite(a)).sum()), int((~np.isfinite(b)).sum())),
        standings=tuple((_standing(a, i, names[i]), _standing(b, i, names[i])) for i in places),
    )


def _correlations(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> tuple[float, float]:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, math.nan
    return float(spearmanr(a, b).statistic), float(kendalltau(a, b).statistic)


def _mean_errors(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> tuple[float, float]:
    if not len(a):
        return math.nan, math.nan
    difference = a - b
    lowest = a.min() - b.min()
    return float(np.abs(difference - np.median(difference)).mean()), float(np.abs(difference - lowest).mean())


def _standing(energy: Float[np.ndarray, " n"], i: int, name: str) -> Standing:
    finite: Bool[np.ndarray, " n"] = np.isfinite(energy)
    ranked, asked = int(finite.sum()), len(energy)
    if not finite[i]:
        return Standing(name, None, math.nan, ranked, asked)
    rank = int((energy[finite] < energy[i]).sum()) + 1
    return Standing(name, rank, float(energy[i] - energy[finite].min()), ranked, asked)
