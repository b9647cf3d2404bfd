"""Where the next starts go: over space groups by prior and yield, and near the lowest minima found so far.

Local perturbation of low minima gives more hits a start and fewer different crystals than random starts, so a round
mixes both. All of it is arithmetic on what finished rounds found: no clock, no chance.
"""

from dataclasses import dataclass, replace

import numpy as np

from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.generate import Arm

LOW = 8.0 * KJ_PER_MOL  # eV above the lowest minimum: what a search is after
MAX_PARENTS = 40
PARENT_SHARE = 0.15  # of the distinct minima
TEMPER = 0.6  # exponent of the prior: a group chosen ten times as often needs not ten times as many starts
CURIOSITY = 0.3  # how much of an arm's prior share it keeps when it yields nothing


@dataclass(frozen=True)
class Plan:
    """Starts of one round for each arm, and the rows of the minima to perturb."""

    random: list[int]
    learned: list[int]
    perturbed: list[int]
    parents: list[int]


@dataclass(frozen=True)
class Progress:
    """What earlier rounds spent and which arms low minima came from."""

    prior: np.ndarray
    share: np.ndarray  # of an arm's new starts that a learned generator makes
    random_starts: list[int]
    learned_starts: list[int]
    low_minima: np.ndarray

    @staticmethod
    def start(arms: list[Arm], share: np.ndarray | None = None) -> "Progress":
        """Nothing spent. Without `share` all new starts are random."""
        prior, none = np.array([a.weight for a in arms]), [0] * len(arms)
        return Progress(
            prior, np.zeros(len(arms)) if share is None else share, none, none, np.zeros(len(arms))
        )

    def after(self, plan: Plan, energy: np.ndarray, arm: np.ndarray) -> "Progress":
        low = arm[energy <= energy[0] + LOW] if len(energy) else arm
        counts = np.bincount(low, minlength=len(self.prior)).astype(float)
        return replace(
            self,
            random_starts=[a + b for a, b in zip(self.random_starts, plan.random)],
            learned_starts=[a + b for a, b in zip(self.learned_starts, plan.learned)],
            low_minima=counts,
        )


def plan_round(
    number: int, n: int, rounds: int, perturb: float, state: Progress, energy: np.ndarray, arm: np.ndarray
) -> Plan:
    """Starts for round `number` of `rounds`, which together make n.

    The first round follows the tempered prior alone. Later ones give `perturb` of their starts to the lowest minima and
    spread the rest by prior^TEMPER x (CURIOSITY + low minima per start, relative to the mean). Of these new starts the
    shares of the learned generator are its own, to the nearest whole number in each round.
    """
    total = n * (number + 1) // rounds - n * number // rounds
    parents: list[int] = []
    if number and len(energy):
        low = int((energy <= energy[0] + LOW).sum())
        parents = list(range(min(MAX_PARENTS, max(int(PARENT_SHARE * len(energy)), min(low, 10), 1))))
    nearby = int(total * perturb) if parents else 0
    spent = np.array(state.random_starts) + np.array(state.learned_starts)
    yields = state.low_minima / np.maximum(spent, 1)
    mean = state.low_minima.sum() / max(int(spent.sum()), 1)
    weight = state.prior**TEMPER * (CURIOSITY + (yields / mean if mean > 0 else 1.0))
    share = np.bincount(arm[parents], minlength=len(state.prior)) if parents else np.zeros(len(state.prior))
    random, learned = divided(apportion(total - nearby, weight), state.share)
    return Plan(random, learned, apportion(nearby, share), parents)


def divided(new: list[int], share: np.ndarray) -> tuple[list[int], list[int]]:
    """New starts of each arm as those of the random generator and, to the nearest whole number, of the learned one."""
    wanted = np.array(new) * share
    learned = apportion(round(float(wanted.sum())), wanted)
    return [n - k for n, k in zip(new, learned)], learned


def apportion(total: int, weights: np.ndarray) -> list[int]:
    """Whole numbers that sum to `total`, as near to the weights as they can be (largest remainders)."""
    if total == 0 or weights.sum() == 0:
        return [0] * len(weights)
    exact = total * weights / weights.sum()
    floor = np.floor(exact).astype(int)
    rest = np.argsort(floor - exact, kind="stable")[: total - floor.sum()]
    floor[rest] += 1
    return floor.tolist()
