"""The random control: what a metric says when nothing but the lattice and the molecules is right.

A generator that learns the cell and nothing of the packing scores as much as this. A metric that the control
passes measures the lattice; every table shows the control beside the method, at equal sample count.
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.standardise import primitive_niggli
from nucleate.geometry.lattice import angles_feasible, lattice_from_parameters, parameters_from_lattice
from nucleate.geometry.so3 import random_rotation

LENGTH_NOISE = 0.03  # relative standard deviation of a, b, c
ANGLE_NOISE = math.radians(2.0)  # rad


def random_poses(
    reference: Crystal,
    count: int,
    generator: Generator,
    length_noise: float = LENGTH_NOISE,
    angle_noise: float = ANGLE_NOISE,
) -> list[Crystal]:
    """`count` crystals with the reference's primitive cell (noisy) and its molecules thrown into it.

    Lengths are multiplied by 1 + N(0, length_noise), angles get N(0, angle_noise) added (rad). Every molecule
    keeps its conformer and hand; its centroid is uniform in the cell and its orientation uniform on SO(3).
    """
    cell, _ = primitive_niggli(reference)
    lattices = noisy_lattices(cell.lattice.double(), count, generator, length_noise, angle_noise)
    centre = cell.centroids.double()[cell.molecule] @ cell.lattice.double()
    local = cell.positions.double() - centre
    centroids = torch.rand(count, cell.n_molecules, 3, dtype=torch.float64, generator=generator)
    turns = random_rotation(count, cell.n_molecules, generator=generator).double()
    arms = torch.einsum("saij,aj->sai", turns[:, cell.molecule], local)
    frac = centroids[:, cell.molecule] + arms @ torch.linalg.inv(lattices)
    return [cell.replace(lattice=lattice, frac=x, info=None) for lattice, x in zip(lattices, frac)]


def noisy_lattices(
    lattice: Float[Tensor, "3 3"],
    count: int,
    generator: Generator,
    length_noise: float = LENGTH_NOISE,
    angle_noise: float = ANGLE_NOISE,
) -> Float[Tensor, "count 3 3"]:
    """Copies of a lattice (rows, Å) with noise on lengths (relative) and angles (rad), in standard orientation.

    Angles that make no cell are drawn again.
    """

    def normal() -> Float[Tensor, "count 3"]:
        return torch.randn(count, 3, dtype=torch.float64, generator=generator)

    lengths, angles = (x.expand(count, 3) for x in parameters_from_lattice(lattice.double()))
    lengths = lengths * (1 + length_noise * normal()).clamp(min=0.5)
    noisy = angles + angle_noise * normal()
    while not (good := angles_feasible(noisy)).all():
        noisy = torch.where(good[:, None], noisy, angles + angle_noise * normal())
    return lattice_from_parameters(lengths, noisy)
