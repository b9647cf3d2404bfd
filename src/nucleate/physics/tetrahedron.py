"""A tetrahedron of equal charges in the field it feels first: twelve equal wells of rotations.

    rotations --corners turned--> E = charge field sum x y z --> density exp(-E / kT) / Z, exact samples, Z

A tetrahedron of equal charges has no dipole and no quadrupole, so a uniform field and its slope leave it alone. The
octupole potential field x y z (it obeys Laplace's equation) is what turns it. Four corners on alternate corners of a
cube all sit at the lowest |x y z|, and every rotation of the tetrahedron onto itself does the same: 12 wells of
-depth. In quaternions they are 24 points, the corners of the 24-cell. Near a well the energy is 2 depth angle^2.
All densities are relative to the uniform (Haar) measure of total 1.
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.errors import InputError
from nucleate.geometry.so3 import quaternion_to_matrix, random_rotation, rotation_exp
from nucleate.physics.parameters import BOLTZMANN

NARROW = 60.0  # depth / kT above which rejection keeps fewer than one uniform rotation in two thousand


class Quadrature(NamedTuple):
    """An integral by two grids: that of the finer one, and the difference."""

    value: float
    error: float


@dataclass(frozen=True)
class Tetrahedron:
    """Turns about its centre only. Without other numbers it is as large as methane and 10 kT deep at 100 K."""

    depth: float = 0.0861733  # eV, of the wells below 0; the energy runs from -depth to depth
    arm: float = 1.087  # Å, from the centre to a corner
    charge: float = 0.1  # e, of each corner

    def __post_init__(self) -> None:
        if self.depth * self.arm * self.charge <= 0:
            raise InputError(
                f"expected depth, arm and charge above 0, got {self.depth} eV, {self.arm} Å and {self.charge} e"
            )

    @property
    def field(self) -> float:
        """Of the potential field x y z, eV / (e Å^3)."""
        return self.depth * 3 * math.sqrt(3) / (4 * self.charge * self.arm**3)

    @property
    def corners(self) -> Float[Tensor, "4 3"]:
        """In the body frame, which the identity puts into a well (Å)."""
        signs = [s for s in product((-1.0, 1.0), repeat=3) if math.prod(s) < 0]
        return self.arm / math.sqrt(3) * torch.tensor(signs, dtype=torch.float64)

    @property
    def wells(self) -> Float[Tensor, "12 3 3"]:
        """The rotations of least energy: those that lay a tetrahedron on itself."""
        halves = [(0.5, *(s / 2 for s in signs)) for signs in product((-1, 1), repeat=3)]
        return quaternion_to_matrix(torch.tensor([*np.eye(4).tolist(), *halves], dtype=torch.float64))

    def __call__(self, rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
        """eV."""
        x, y, z = (self.corners.to(rotations) @ rotations.mT).unbind(-1)
        return self.charge * self.field * (x * y * z).sum(-1)

    def log_density(
        self, rotations: Float[Tensor, "*batch 3 3"], temperature: float
    ) -> Float[Tensor, "*batch"]:
        """Of the Boltzmann distribution, relative to uniform rotations."""
        return -self(rotations) / (BOLTZMANN * temperature) - self.log_partition(temperature).value

    def log_partition(self, temperature: float, points: int = 40) -> Quadrature:
        """Logarithm of the mean of exp(-E / kT) over uniform rotations."""
        fine, coarse = (self._averages(temperature, n)[0] for n in (points, points * 3 // 4))
        return Quadrature(fine, abs(fine - coarse))

    def mean_energy(self, temperature: float, points: int = 40) -> Quadrature:
        """eV."""
        fine, coarse = (self._averages(temperature, n)[1] for n in (points, points * 3 // 4))
        return Quadrature(fine, abs(fine - coarse))

    def sample(
        self, count: int, temperature: float, generator: torch.Generator
    ) -> Float[Tensor, "count 3 3"]:
        """Independent and exact: uniform rotations, each kept with probability exp(-(E + depth) / kT)."""
        kT = BOLTZMANN * temperature
        if self.depth > NARROW * kT:
            raise InputError(
                f"expected wells of at most {NARROW:.0f} kT, got {self.depth / kT:.0f} kT at {temperature} K, "
                "where too few uniform rotations would be kept; take a higher temperature"
            )
        kept: list[Tensor] = []
        while sum(map(len, kept)) < count:
            tried = random_rotation(max(4 * count, 1000), generator=generator)
            chance = torch.rand(len(tried), generator=generator, dtype=torch.float64)
            kept.append(tried[chance < (-(self(tried) + self.depth) / kT).exp()])
        return torch.cat(kept)[:count]

    def share_in_wells(
        self, rotations: Float[Tensor, "samples 3 3"], within: float = math.radians(30)
    ) -> Float[Tensor, "12"]:
        """Share of samples at most `within` rad from each well."""
        traces = torch.einsum(
            "nij,wij->nw", rotations, self.wells.to(rotations)
        )  # 1 + 2 cos of the angle between
        return (traces >= 1 + 2 * math.cos(within)).double().mean(0)

    def _averages(self, temperature: float, points: int) -> tuple[float, float]:
        """log Z and the mean energy (eV) over Euler angles: equal steps about z, Gauss's points in cos of the tilt."""
        kT = BOLTZMANN * temperature
        turn = 2 * math.pi / points * torch.arange(points, dtype=torch.float64)
        height, weight = map(torch.from_numpy, np.polynomial.legendre.leggauss(points))
        about_z, about_y = (torch.eye(3, dtype=torch.float64)[k] for k in (2, 1))
        spin = rotation_exp(turn[:, None] * about_z)
        tilt = rotation_exp(height.arccos()[:, None] * about_y)
        rotations = spin[:, None, None] @ tilt[:, None] @ spin
        energy = self(rotations)
        log_weight = (weight / 2 / points**2).log()[:, None] - energy / kT
        log_z = log_weight.flatten().logsumexp(0)
        return float(log_z), float(((log_weight - log_z).exp() * energy).sum())
