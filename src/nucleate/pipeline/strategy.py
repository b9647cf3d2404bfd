"""Where the next starts go: over space groups by prior and yield, and near the lowest minima found so far.

Local perturbation of low minima gives more hits a start and fewer different crystals than random starts, so a round
mixes both. All of it is arithmetic on what finished rounds found: no clock, no chance.
"""

from dataclasses import dataclass

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
    perturbed: list[int]
    parents: list[int]


@dataclass(frozen=True)
class Progress:
    """What earlier rounds spent and which arms low minima came from."""

    prior: np.ndarray
    random_starts: list[int]
    low_minima: np.ndarray

    @staticmethod
    def start(arms: list[Arm]) -> "Progress":
        prior = np.array([a.weight for a in arms])
        return Progress(prior, [0] * len(arms), np.zeros(len(arms)))

    def after(self, plan: Plan, energy: np.ndarray, arm: np.ndarray) -> "Progress":
        low = arm[energy <= energy[0] + LOW] if len(energy) else arm
        counts = np.bincount(low, minlength=len(self.prior)).astype(float)
        return Progress(self.prior, [a + b for a, b in zip(self.random_starts, plan.random)], counts)


def plan_round(
    number: int, n: int, rounds: int, perturb: float, state: Progress, energy: np.ndarray, arm: np.ndarray
) -> Plan:
    """Starts for round `number` of `rounds`, which together make n.

    The first round follows the tempered prior alone. Later ones give `perturb` of their starts to the lowest minima and
    spread the rest by prior^TEMPER x (CURIOSITY + low minima per start, relative to the mean).
    """
    total = n * (number + 1) // rounds - n * number // rounds
    parents: list[int] = []
    if number and len(energy):
        low = int((energy <= energy[0] + LOW).sum())
        parents = list(range(min(MAX_PARENTS, max(int(PARENT_SHARE * len(energy)), min(low, 10), 1))))
    nearby = int(total * perturb) if parents else 0
    yields = state.low_minima / np.maximum(state.random_starts, 1)
    mean = state.low_minima.sum() / max(sum(state.random_starts), 1)
    weight = state.prior**TEMPER * (CURIOSITY + (yields / mean if mean > 0 else 1.0))
    share = np.bincount(arm[parents], minlength=len(state.prior)) if parents else np.zeros(len(state.prior))
    return Plan(random=apportion(total - nearby, weight), perturbed=apportion(nearby, share), parents=parents)


def apportion(total: int, weights: np.ndarray) -> list[int]:
    """Whole numbers that sum to `total`, as near to the weights as they can be (largest remainders)."""
    if total == 0 or weights.sum() == 0:
        return [0] * len(weights)
    exact = total * weights / weights.sum()
    floor = np.floor(exact).astype(int)
    rest = np.argsort(floor - exact, kind="stable")[: total - floor.sum()]
    floor[rest] += 1
    return floor.tolist()
