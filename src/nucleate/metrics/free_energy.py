"""Free-energy differences from work, and how far they can be trusted.

A map x -> F(x) takes samples of a state A towards a state B. With reduced energies u (energy / kT) a sample has

    log w = u_A(x) + log |dF/dx| - u_B(F(x)),       exp(-(F_B - F_A)) = mean of w over samples of A

(targeted free-energy perturbation, Jarzynski 2002; "LFEP" where F is learnt, Wirnsberger et al. 2020). Without a map F
is the identity: Zwanzig's perturbation. With work from both ends Bennett's acceptance ratio is the best estimate. All
free energies are in kT; log w of samples of B on the way back is u_B(y) + log |dF^-1/dy| - u_A(F^-1(y)).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.errors import InputError

LogWeights = Float[Tensor, " samples"]

BLOCKS = 20  # of samples that follow one another, for errors
ENOUGH = 0.01  # effective share of samples, below which an estimate is said not to overlap


@dataclass(frozen=True)
class FreeEnergy:
    """F_B - F_A in kT with the standard error, and the share of samples that count (0 to 1)."""

    difference: float
    error: float
    effective: float

    @property
    def overlaps(self) -> bool:
        """Whether there are enough samples that count for the error to mean anything."""
        return self.effective >= ENOUGH


def one_sided(log_w: LogWeights, seed: int = 0, resamples: int = 200) -> FreeEnergy:
    """-log mean w, with an error from resampled blocks (samples of molecular dynamics remember each other).

    Raises InputError for work that is not finite, or fewer samples than blocks.
    """
    log_w = _checked(log_w)
    draws = _resampled(log_w, seed, resamples)
    spread = torch.stack([_mean(some) for some in draws]).std()
    return FreeEnergy(float(_mean(log_w)), float(spread), effective_share(log_w))


def two_sided(
    forward: LogWeights, backward: Float[Tensor, " others"], seed: int = 0, resamples: int = 100
) -> FreeEnergy:
    """Bennett's acceptance ratio (1976) from log w of samples of A and, on the way back, of samples of B.

    `effective` is the lesser of both ends.
    """
    forward, backward = _checked(forward), _checked(backward)
    pairs = zip(_resampled(forward, seed, resamples), _resampled(backward, seed + 1, resamples))
    spread = torch.tensor([_bennett(a, b) for a, b in pairs], dtype=torch.float64).std()
    effective = min(effective_share(forward), effective_share(backward))
    return FreeEnergy(_bennett(forward, backward), float(spread), effective)


def effective_share(log_w: LogWeights) -> float:
    """Kish's effective sample size over the number of samples: (sum w)^2 / (n sum w^2), 1 / n to 1."""
    log_w = log_w.double()
    return float((2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp() / len(log_w))


def gap(log_w: LogWeights, difference: float) -> float:
    """KL(F#p_A | p_B) in kT, mean of -log w less the true difference: what a perfect map brings to 0."""
    return float(-log_w.double().mean()) - difference


def _mean(log_w: Tensor) -> Tensor:
    return math.log(len(log_w)) - log_w.logsumexp(0)


def _bennett(forward: Tensor, backward: Tensor) -> float:
    """The root D of sum_A 1 / (1 + exp(M - log w - D)) = sum_B 1 / (1 + exp(-M - log w' + D)), by bisection.

    M = log(n_A / n_B); work is -log w.
    """
    M = math.log(len(forward) / len(backward))

    def excess(D: float) -> float:
        ours = torch.sigmoid(forward + D - M).sum()
        theirs = torch.sigmoid(backward - D + M).sum()
        return float(ours - theirs)

    ends = torch.cat([-forward, backward])
    low, high = float(ends.min()) - 50, float(ends.max()) + 50
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return (low + high) / 2


def _resampled(values: Tensor, seed: int, times: int) -> list[Tensor]:
    """Blocks of samples drawn with replacement."""
    blocks = values[: len(values) // BLOCKS * BLOCKS].reshape(BLOCKS, -1)
    generator = torch.Generator().manual_seed(seed)
    return [blocks[torch.randint(BLOCKS, (BLOCKS,), generator=generator)].flatten() for _ in range(times)]


def _checked(log_w: LogWeights) -> Float[Tensor, " samples"]:
    if not log_w.isfinite().all():
        bad = int((~log_w.isfinite()).sum())
        raise InputError(
            f"expected finite work, got {bad} of {len(log_w)} samples that are not; molecules overlap there"
        )
    if len(log_w) < BLOCKS:
        raise InputError(f"expected at least {BLOCKS} samples, got {len(log_w)}")
    return log_w.double()
