"""What a way of starting a search is worth: hits, low minima and cost, summed over crystals, with intervals.

Crystals differ by orders of magnitude in how hard they are, so totals over crystals are compared and the crystals are
what is drawn again (Efron's bootstrap, 1979): an interval says how far the answer hangs on which crystals were tried.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Number = float | int
Column = Sequence[Number] | np.ndarray  # one number for each crystal


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its interval; NaN where there is nothing to divide."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def ratio_of_totals(
    over: Sequence[Column],
    under: Sequence[Column],
    coverage: float = 0.9,
    draws: int = 4000,
    seed: int = 0,
) -> Estimate:
    """prod_k sum_c over[k][c] / prod_k sum_c under[k][c], with the bootstrap's interval over crystals c.

    Hits per start of A beside B: over = [hits of A, starts of B], under = [hits of B, starts of A]. All columns
    list the same crystals in the same order; numbers are not negative. A draw that says 0 / 0 says nothing and counts
    against certainty: 0 for the low end, infinity for the high one. Raises ValueError where columns differ in length
    or hold nothing.
    """
    top, bottom = np.array(over, dtype=np.float64), np.array(under, dtype=np.float64)
    if top.ndim != 2 or bottom.ndim != 2 or top.shape[1] != bottom.shape[1] or not top.shape[1]:
        raise ValueError(
            f"expected columns of one number for each crystal, got shapes {top.shape} and {bottom.shape}"
        )
    crystals = top.shape[1]
    drawn = np.random.default_rng(seed).integers(crystals, size=(draws, crystals))
    chosen = np.concatenate([np.arange(crystals)[None], drawn])  # first all crystals once, as they are
    with np.errstate(divide="ignore", invalid="ignore"):
        value, *others = top[:, chosen].sum(-1).prod(0) / bottom[:, chosen].sum(-1).prod(0)
    tail, unknown = (1 - coverage) / 2, np.isnan(others)
    return Estimate(
        value=float(value),
        low=float(np.quantile(np.where(unknown, 0.0, others), tail, method="lower")),
        high=float(np.quantile(np.where(unknown, math.inf, others), 1 - tail, method="higher")),
    )


@dataclass(frozen=True)
class Harvest:
    """What the starts of one method came down to on one crystal. Starts that failed were started."""

    starts: int
    sound: int  # ended in a minimum without clashes
    hits: int  # ended in the packing that was looked for
    first: int | None  # how many starts it took to the first hit; None where there is none
    low: int  # ended within the window above the lowest minimum known
    distinct: int  # different minima
    low_distinct: int  # different minima within the window


def harvest(
    starts: int,
    order: Int[np.ndarray, " sound"],
    energy: Float[np.ndarray, " sound"],
    minimum: Int[np.ndarray, " sound"],
    wanted: Bool[np.ndarray, " minima"],
    ceiling: Number,
) -> Harvest:
    """Count the starts of one method that ended in a sound minimum.

    `order` is the place of each among all starts of the method (from 0), `energy` in any unit, `minimum` the number of
    the minimum that it ended in, `wanted` says of every minimum whether it is the packing looked for, and what is at
    most `ceiling` is low. Raises ValueError where more minima than starts come.
    """
    if not len(order) == len(energy) == len(minimum) <= starts:
        raise ValueError(
            f"expected an order, an energy and a minimum for at most {starts} starts, got {len(order)}, {len(energy)} "
            f"and {len(minimum)}"
        )
    hit = wanted[minimum]
    low = energy <= ceiling
    return Harvest(
        starts=starts,
        sound=len(order),
        hits=int(hit.sum()),
        first=int(order[hit].min()) + 1 if hit.any() else None,
        low=int(low.sum()),
        distinct=len(np.unique(minimum)),
        low_distinct=len(np.unique(minimum[low])),
    )


def censored_median(values: Sequence[Number | None]) -> float:
    """The median where None stands for more than any number: infinite where half of all or more are None.

    NaN of nothing. Of an even number the upper of the two in the middle, so that no finite number is invented.
    """
    if not values:
        return math.nan
    ordered = sorted(math.inf if value is None else value for value in values)
    return float(ordered[len(ordered) // 2])
