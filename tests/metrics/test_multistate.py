"""MBAR of temperatures: oscillators whose free energies are known, and what is refused."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.metrics.multistate import Ladder, multistate
from nucleate.physics.parameters import BOLTZMANN

TEMPERATURES = [250.0, 185.0, 135.0, 100.0]
D = 40  # coordinates


def oscillator(temperature: float, frames: int, seed: int, lowest: float = -9.0) -> torch.Tensor:
    """Energies of D coordinates in harmonic wells: kT Gamma(D / 2), by sums of squares."""
    generator = torch.Generator().manual_seed(seed)
    squares = torch.randn(frames, D, generator=generator, dtype=torch.float64).square().sum(1)
    return lowest + BOLTZMANN * temperature * squares / 2


def ladder(frames: int = 200, seed: int = 0, repeat: int = 1, lowest: float = -9.0) -> Ladder:
    pytest.importorskip("pymbar")
    energies = [oscillator(T, frames, 10 * seed + k, lowest) for k, T in enumerate(TEMPERATURES)]
    return multistate([part.repeat_interleave(repeat) for part in energies], TEMPERATURES, seed)


@pytest.mark.extra
def test_oscillators_have_their_free_energies() -> None:
    """F = E_0 / kT - D / 2 log kT: the differences are within four errors, and the errors are small."""
    found = ladder()
    T = torch.tensor(TEMPERATURES, dtype=torch.float64)
    exact = -9.0 / BOLTZMANN * (1 / T - 1 / T[0]) + D / 2 * torch.log(T[0] / T)
    off = (found.differences - exact)[1:]
    assert (off.abs() < 4 * found.errors[1:]).all()
    assert (found.errors[1:] < 0.3).all()
    assert found.differences[0] == 0
    torch.testing.assert_close(found.overlap.sum(1), torch.ones(4).double())
    assert 0.03 < found.weakest < 0.5
    last = found.at(-1)
    assert last.difference == float(found.differences[-1])
    assert 0 < last.effective < 1


@pytest.mark.extra
def test_frames_that_repeat_each_other_count_once() -> None:
    once, ten = ladder(200), ladder(200, repeat=10)
    assert ten.frames == (2000,) * 4
    assert max(ten.independent) < 400
    assert float(ten.errors[-1]) == pytest.approx(float(once.errors[-1]), rel=0.5)


@pytest.mark.extra
def test_large_energies_keep_their_digits() -> None:
    """A constant in the energy changes differences by E_0 (1 / kT_k - 1 / kT_1) and nothing else."""
    low, high = ladder(lowest=-900.0), ladder(lowest=0.0)
    T = torch.tensor(TEMPERATURES, dtype=torch.float64)
    shift = -900.0 / BOLTZMANN * (1 / T - 1 / T[0])
    torch.testing.assert_close(low.differences - shift, high.differences, atol=1e-4, rtol=0)


def test_what_cannot_be_judged_is_refused() -> None:
    good = oscillator(250, 100, 0)
    with pytest.raises(InputError, match="two temperatures"):
        multistate([good], [250.0])
    with pytest.raises(InputError, match="above 0 K"):
        multistate([good, good], [250.0, 0.0])
    with pytest.raises(InputError, match="99 of them finite"):
        multistate([good, torch.cat([good[:99], torch.tensor([math.inf])])], [250.0, 200.0])


@pytest.mark.extra
def test_frames_that_hardly_move_are_too_few() -> None:
    pytest.importorskip("pymbar")
    slow = torch.linspace(-9, -8, 100, dtype=torch.float64)
    with pytest.raises(InputError, match="sample more"):
        multistate([slow, oscillator(200, 100, 1)], [250.0, 200.0])
