"""A crystal of rigid molecules whose free energy is known exactly: what samplers and estimators are held against.

    ideal places and turns, springs between neighbours --> energy of any configuration, free energy, exact samples

    E = spring / 2 sum_pairs |u_i - u_j|^2 + twist sum_i (1 - w_i^2)

u is how far a molecule is from its ideal place and w the scalar part of the quaternion that turns it from its ideal
turn (w^2 = cos^2 of half the angle; q and -q alike). Springs do not feel a common translation.

Free energy. Springs: with the eigenvalues c of their graph's Laplacian, prod_{c > 0} (2 pi kT / (spring c))^(3/2). A
turn is a uniform point of S^3 with w = cos t, so with k = twist / kT and x = k / 2

    Z = (2 / pi) int_0^pi sin^2 t exp(-k sin^2 t) dt
      = exp(-x) (1 / 2 pi) int_0^2pi (1 - cos s) exp(x cos s) ds          sin^2 t = (1 - cos s) / 2, s = 2 t
      = exp(-x) (I_0(x) - I_1(x))                                         modified Bessel functions
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize
from torch.special import i0e, i1e

from nucleate.errors import InputError
from nucleate.geometry.so3 import matrix_to_quaternion, quaternion_to_matrix
from nucleate.physics.parameters import BOLTZMANN

FREE = 1e-9  # an eigenvalue of the springs below it is that of a motion without a force


@dataclass(frozen=True, eq=False)
class HarmonicCrystal:
    """Places are not wrapped: springs are as long as the path from a molecule's ideal place says."""

    places: Float[Tensor, "molecules 3"]  # Å, ideal
    turns: Float[Tensor, "molecules 4"]  # ideal, unit quaternions (w, x, y, z)
    pairs: Int[Tensor, "springs 2"]  # of molecules; a pair may have several springs
    spring: float  # eV/Å^2
    twist: float  # eV

    def __post_init__(self) -> None:
        if self.spring <= 0 or self.twist < 0:
            raise InputError(
                f"expected a spring above 0 and a twist of at least 0, got {self.spring} eV/Å^2 and {self.twist} eV"
            )
        if self._modes[0].min() < FREE:
            raise InputError(
                f"expected springs that hold all {len(self.places)} molecules together, got {len(self.pairs)} springs "
                "that leave some molecules free; give more pairs"
            )

    def __len__(self) -> int:
        return len(self.places)

    def __call__(
        self, places: Float[Tensor, "*batch molecules 3"], rotations: Float[Tensor, "*batch molecules 3 3"]
    ) -> Float[Tensor, "*batch"]:
        """eV."""
        moved = places - self.places.to(places)
        stretch = moved[..., self.pairs[:, 1], :] - moved[..., self.pairs[:, 0], :]
        springs = self.spring / 2 * stretch.square().sum((-1, -2))
        return springs + self.twist * self._unturned(rotations).sum(-1)

    def free_energy(self, temperature: float) -> float:
        """Configurational, in kT: -log of the integral of exp(-E / kT) over all places but the common translation.

        The measure is Å^3 for each of n - 1 orthonormal combinations of displacements (a translation's is sqrt(n) times
        the mean displacement), and for each molecule uniform rotations of total 1. Holding one molecule in place
        instead would add 3/2 log n at every temperature.
        """
        springs = 1.5 * (2 * math.pi * BOLTZMANN * temperature / (self.spring * self._modes[0])).log().sum()
        turns = len(self) * log_turn_partition(self.twist / (BOLTZMANN * temperature))
        return -float(springs) - turns

    def mean_energy(self, temperature: float) -> float:
        """eV: 3/2 kT for each of n - 1 spring modes, twist - kT I_1 / (I_0 - I_1) for each turn."""
        kT = BOLTZMANN * temperature
        springs = 1.5 * (len(self) - 1) * kT
        if self.twist == 0:
            return springs
        x = torch.tensor(self.twist / (2 * kT), dtype=torch.float64)
        return springs + len(self) * (self.twist - kT * float(i1e(x) / (i0e(x) - i1e(x))))

    def turn_density(self, w: Float[Tensor, "*n"], temperature: float) -> Float[Tensor, "*n"]:
        """Of |w|, 0 to 1: (4 / pi) sqrt(1 - w^2) exp(-twist (1 - w^2) / kT) / Z."""
        k = self.twist / (BOLTZMANN * temperature)
        return 4 / math.pi * (1 - w * w).sqrt() * (-k * (1 - w * w) - log_turn_partition(k)).exp()

    def sample(
        self, count: int, temperature: float, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count molecules 3"], Float[Tensor, "count molecules 4"]]:
        """Independent exact places (Å) and turns; the mean displacement is 0."""
        curvature, modes = self._modes
        width = (BOLTZMANN * temperature / (self.spring * curvature)).sqrt()
        wave = torch.randn(count, len(curvature), 3, generator=generator, dtype=torch.float64)
        turned = near_identity(self.twist / (BOLTZMANN * temperature), count * len(self), generator)
        rotations = quaternion_to_matrix(self.turns) @ quaternion_to_matrix(turned).reshape(count, -1, 3, 3)
        return self.places + modes @ (width[:, None] * wave), matrix_to_quaternion(rotations)

    def _unturned(
        self, rotations: Float[Tensor, "*batch molecules 3 3"]
    ) -> Float[Tensor, "*batch molecules"]:
        """1 - w^2, from the trace 4 w^2 - 1 of the rotation that is left."""
        ideal = quaternion_to_matrix(self.turns).to(rotations)
        return (3 - (ideal * rotations).sum((-1, -2))) / 4

    @cached_property
    def _modes(self) -> tuple[Float[Tensor, " modes"], Float[Tensor, "molecules modes"]]:
        """Eigenvalues and orthonormal eigenvectors of the springs' Laplacian, without the common translation."""
        i, j = self.pairs.unbind(-1)
        rows = torch.zeros(len(self.pairs), len(self.places), dtype=torch.float64)
        springs = torch.arange(len(self.pairs))
        rows[springs, i] += 1
        rows[springs, j] -= 1
        values, vectors = torch.linalg.eigh(rows.mT @ rows)
        return values[1:], vectors[:, 1:]


def cubic_lattice(per_edge: int, spacing: float, spring: float, twist: float) -> HarmonicCrystal:
    """per_edge^3 molecules `spacing` Å apart, each tied to its six neighbours in the periodic cell, none turned."""
    steps = torch.cartesian_prod(*[torch.arange(per_edge)] * 3)
    neighbours = (steps[:, None] + torch.eye(3, dtype=torch.long)) % per_edge
    place_value = torch.tensor([per_edge**2, per_edge, 1])
    ends = (neighbours * place_value).sum(-1)
    pairs = torch.stack([torch.arange(len(steps))[:, None].expand_as(ends), ends], -1).flatten(0, 1)
    unturned = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).expand(len(steps), -1)
    return HarmonicCrystal(
        spacing * steps.double(), unturned, pairs[pairs[:, 0] != pairs[:, 1]], spring, twist
    )


def log_turn_partition(k: float) -> float:
    """log of the mean of exp(-k (1 - w^2)) over uniform rotations, for k up to 10^8 to eight digits."""
    x = torch.tensor(k / 2, dtype=torch.float64)
    return float((i0e(x) - i1e(x)).log())


def near_identity(k: float, count: int, generator: torch.Generator) -> Float[Tensor, "count 4"]:
    """Exact quaternions of density exp(-k (1 - w^2)), by rejection from an angular central Gaussian (Kent et al. 2013).

    That is the direction of a normal point, the vector part divided by the root of 1 + 2 k / b, with the density
    (1 + 2 k s / b)^-2 where s = 1 - w^2. The best b solves 1 / b + 3 / (b + 2 k) = 1, and exp(-k s) (1 + 2 k s / b)^2
    is then largest where 2 k s = 4 - b. About half or more of the directions are kept, at any k.
    """
    root = math.hypot(2 - k, math.sqrt(2 * k))
    b = (
        2 - k + root if k < 2 else 2 * k / (root + k - 2)
    )  # the same; each without a difference of equal numbers
    most = (b - 4) / 2 + 2 * math.log(4 / b)
    kept: list[Tensor] = []
    while sum(map(len, kept)) < count:
        q = torch.randn(2 * count + 10, 4, generator=generator, dtype=torch.float64)
        q[:, 1:] /= math.sqrt(1 + 2 * k / b)
        q = normalize(q, dim=-1)
        s = q[:, 1:].square().sum(-1)
        chance = (-k * s + 2 * torch.log1p(2 * k / b * s) - most).exp()
        kept.append(q[torch.rand(len(q), generator=generator, dtype=torch.float64) < chance])
    return torch.cat(kept)[:count]
