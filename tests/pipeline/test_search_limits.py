"""What a search says about its own limits, and options that must agree."""

import numpy as np
import pytest
import torch

from nucleate.errors import InputError
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.convergence import convergence
from nucleate.pipeline.generate import Composition, arms
from tests.physics.conftest import embedded


def test_what_perturbed_starts_found_is_not_missing() -> None:
    """Six minima seen once by random starts speak of fifteen others; four of those, perturbation has found."""
    energy = np.linspace(0, 1, 10) * KJ_PER_MOL
    random_hits = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    found = convergence(energy, np.ones(10, np.int64), random_hits)
    assert found.chao_missed == pytest.approx(6 * 5 / 2 - 4)


def test_z_and_z_prime_must_agree() -> None:
    water = Composition((embedded("O"),), (1,), (torch.zeros(1),), False)
    (arm,) = arms(water, "P21/c,P-1", z=(4,), z_prime=(2.0,))
    assert (arm.group.symbol, arm.formula_units) == ("P-1", 2)
    with pytest.raises(InputError, match="Z = 4"):
        arms(water, "P21/c", z=(4,), z_prime=(0.5,))
