"""What two sites feel besides their charges, before any cut-off, many pairs at once.

    Lennard-Jones   4 e ((s/r)^12 - (s/r)^6)
    exp-6           A exp(-B r) - C / r^6              from w outwards
                    u(w) - u'(w) w/12 ((w/r)^12 - 1)   nearer than w: a wall

exp-6 turns over at short distance, and atoms that lie on each other would win energy without end. w is where it repels
most steeply, 0.9 to 1.3 Å, a barrier that crystals never climb. There the wall takes over with the same energy and the
same force, so that nothing changes outside. It grows as 1/r^12, which the charges of two atoms do not undo.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.errors import InputError

NEAREST = 0.3  # Å: the wall is never nearer than this, not even where there is no dispersion that needs one
HALVINGS = 60  # of the interval in which w lies


@dataclass(frozen=True, eq=False)
class LennardJonesPairs:
    """Pairs of sites, by arithmetic mean of sigma and geometric mean of epsilon."""

    epsilon: Float[Tensor, "*pairs"]  # eV
    sigma: Float[Tensor, "*pairs"]  # Å

    @staticmethod
    def of(
        epsilon: Float[Tensor, " sites"],
        sigma: Float[Tensor, " sites"],
        a: Int[Tensor, "*pairs"],
        b: Int[Tensor, "*pairs"],
    ) -> "LennardJonesPairs":
        return LennardJonesPairs((epsilon[a] * epsilon[b]).sqrt(), (sigma[a] + sigma[b]) / 2)

    def __call__(self, r: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """eV, at distances r (Å) that end with the pairs, or of one pair."""
        s6 = (self.sigma.to(r) / r).pow(6)
        return 4 * self.epsilon.to(r) * (s6.square() - s6)

    def outside(self, r: float) -> float:
        """int u r^2 dr from r (Å) to infinity, of one pair (eV Å^3)."""
        epsilon, sigma = float(self.epsilon), float(self.sigma)
        return 4 * epsilon * (sigma**12 / (9 * r**9) - sigma**6 / (3 * r**3))


@dataclass(frozen=True, eq=False)
class Exp6Pairs:
    """Pairs of sites, by geometric means of A and C and arithmetic mean of B, with a wall."""

    A: Float[Tensor, "*pairs"]  # eV
    B: Float[Tensor, "*pairs"]  # 1/Å
    C: Float[Tensor, "*pairs"]  # eV Å^6
    wall: Float[Tensor, "*pairs"]  # Å, w

    @staticmethod
    def of(exp6: Float[Tensor, "sites 3"], a: Int[Tensor, "*pairs"], b: Int[Tensor, "*pairs"]) -> "Exp6Pairs":
        """Of sites' own A, B, C. Raises InputError for sites that attract and do not repel."""
        (A1, B1, C1), (A2, B2, C2) = exp6[a].unbind(-1), exp6[b].unbind(-1)
        A, B, C = (A1 * A2).sqrt(), (B1 + B2) / 2, (C1 * C2).sqrt()
        return Exp6Pairs(A, B, C, steepest(A, B, C))

    def __call__(self, r: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """eV, at distances r (Å) that end with the pairs, or of one pair."""
        w = self.wall.to(r)
        far = torch.where(r < w, w, r)
        energy = self.A.to(r) * torch.exp(-self.B.to(r) * far) - self.C.to(r) * _sixth(1 / far)
        if bool((r < w).any()):
            near = torch.where(r < w, r, w)
            energy = energy + self.push.to(r) * (_sixth(w / near).square() - 1)
        return energy

    @cached_property
    def push(self) -> Float[Tensor, "*pairs"]:
        """-u'(w) w / 12 (eV): the wall begins with the slope that exp-6 has there."""
        w = self.wall
        return w / 12 * (self.A * self.B * torch.exp(-self.B * w) - 6 * self.C / w.pow(7))

    def outside(self, r: float) -> float:
        """int u r^2 dr from r (Å) to infinity, of one pair (eV Å^3)."""
        A, B, C = float(self.A), float(self.B), float(self.C)
        if A == 0:
            return 0.0
        repulsion = A * float(torch.exp(-torch.tensor(B * r))) * (r * r / B + 2 * r / B**2 + 2 / B**3)
        return repulsion - C / (3 * r**3)


def _sixth(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """x^6; powers take ten times as long as products."""
    square = x.square()
    return square * square * square


def steepest(
    A: Float[Tensor, "*pairs"], B: Float[Tensor, "*pairs"], C: Float[Tensor, "*pairs"]
) -> Float[Tensor, "*pairs"]:
    """Where exp-6 repels most steeply (Å): u'' = 0 inside of 8/B, at the root of log(A B^2 r^8 / 42 C) - B r.

    That grows with r up to 8/B, and has to be positive there. Pairs that feel nothing get `NEAREST`.
    """
    inner, outer = torch.full_like(B, NEAREST), 8 / B.clamp(min=1e-3)
    felt = (A > 0) | (C > 0)

    def rises(r: Tensor) -> Tensor:
        return (A * B.square() * r.pow(8) / (42 * C)).log() - B * r > 0

    if bool((felt & ~(rises(outer) & (A > 0) & (B > 0))).any()):
        raise InputError(
            "expected sites that repel each other at short distance, got A exp(-B r) - C / r^6 that only attracts; "
            "check A (eV), B (1/Å) and C (eV Å^6)"
        )
    for _ in range(HALVINGS):
        middle = (inner + outer) / 2
        up = rises(middle)
        inner, outer = torch.where(up, inner, middle), torch.where(up, middle, outer)
    return torch.where(felt, outer, NEAREST)
