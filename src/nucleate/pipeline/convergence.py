"""Has the search found what there is to find? An estimate from how often minima were found again."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from nucleate.physics.parameters import KJ_PER_MOL

NEAR = 8.0  # kJ/mol per molecule above the lowest


@dataclass(frozen=True)
class Convergence:
    """Counts over minima within `NEAR` kJ/mol of the lowest."""

    lowest_found: int  # starts that came down to the lowest minimum
    low_minima: int
    found_once: int
    good_turing_unseen: float  # share of further hits on low minima that would be new: found once / hits
    chao_missed: float  # lower bound on low minima not seen by any start

    @property
    def text(self) -> str:
        return (
            f"The lowest minimum was found {times(self.lowest_found)}. Of {self.low_minima} minima within "
            f"{NEAR:g} kJ/mol, {self.found_once} were found once; at least {self.chao_missed:.0f} more are likely "
            f"to exist, and about {100 * self.good_turing_unseen:.0f} % of further hits would be new."
        )


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def convergence(
    energy: Float[np.ndarray, " minima"],
    hits: Int[np.ndarray, " minima"],
    random_hits: Int[np.ndarray, " minima"],
) -> Convergence:
    """Good & Turing's coverage and Chao's lower bound (Scand. J. Stat. 11, 265 (1984)).

    Only hits of random starts enter the estimates: perturbed ones look where minima are known already. `energy` in
    eV per molecule, ascending. Of the minima that random starts are likely to have missed, those that perturbed
    ones found are no longer missing.
    """
    if not len(energy):
        return Convergence(0, 0, 0, 1.0, 0.0)
    near = energy <= energy[0] + NEAR * KJ_PER_MOL
    counts = random_hits[near]
    once, twice, total = (int(v) for v in ((counts == 1).sum(), (counts == 2).sum(), counts.sum()))
    missed = once * (once - 1) / (2 * (twice + 1))  # the bias-corrected form, which twice = 0 leaves finite
    return Convergence(
        lowest_found=int(hits[0]),
        low_minima=int(near.sum()),
        found_once=once,
        good_turing_unseen=once / total if total else 1.0,
        chao_missed=max(missed - int((counts == 0).sum()), 0.0),
    )
