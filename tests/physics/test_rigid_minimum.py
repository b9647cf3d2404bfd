"""The nearest minimum of rigid molecules, where it is known."""

import pytest
import torch

from nucleate.errors import NucleateError
from nucleate.geometry.so3 import matrix_to_quaternion, quaternion_to_matrix, rotation_angle, rotation_exp
from nucleate.physics.harmonic_crystal import cubic_lattice
from nucleate.physics.rigid_minimum import nearest_minimum

CRYSTAL = cubic_lattice(2, 4.0, 1.0, 0.05)


def pushed(by: float) -> tuple[torch.Tensor, torch.Tensor]:
    n = len(CRYSTAL.places)
    shifts, turns = by * torch.randn(2, n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotations = quaternion_to_matrix(CRYSTAL.turns) @ rotation_exp(turns)
    return CRYSTAL.places + shifts - shifts.mean(0), matrix_to_quaternion(rotations)


def test_molecules_come_back_to_where_they_were_pushed_from() -> None:
    x, q = pushed(0.2)
    places, turns = nearest_minimum(CRYSTAL, x, q)
    back = places - (places - CRYSTAL.places).mean(0)
    torch.testing.assert_close(back, CRYSTAL.places, atol=1e-4, rtol=0)
    apart = rotation_angle(quaternion_to_matrix(turns), quaternion_to_matrix(CRYSTAL.turns))
    assert float(apart.max()) < 1e-4
    few, _ = nearest_minimum(CRYSTAL, x, q, steps=1)
    assert (few - CRYSTAL.places).abs().max() > 1e-3  # as far down as it may go


def test_a_start_without_a_finite_energy_is_told() -> None:
    x, q = pushed(0.2)
    with pytest.raises(NucleateError, match="finite energy"):
        nearest_minimum(CRYSTAL, x * torch.nan, q)
