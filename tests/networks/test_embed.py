"""Features of distances, times and periodic coordinates."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.networks.embed import Standardise, gaussian_basis, periodic_waves, smooth_cutoff, time_waves


def test_gaussians_peak_at_their_centres_and_tell_distances_apart():
    centres = torch.linspace(0, 6, 13, dtype=torch.float64)
    basis = gaussian_basis(centres, centres)
    assert (basis.argmax(1) == torch.arange(13)).all()
    torch.testing.assert_close(basis.diagonal(), torch.ones(13, dtype=torch.float64))
    one_standard_deviation = math.exp(-0.5)
    assert basis[3, 4].item() == pytest.approx(one_standard_deviation)


def test_nothing_jumps_at_the_cutoff():
    r = torch.tensor([6 - 1e-6, 6.0, 7.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    weight = smooth_cutoff(r, 6.0)
    (slope,) = torch.autograd.grad(weight.sum(), r)
    torch.testing.assert_close(weight, torch.tensor([0, 0, 0, 1, 0.5]).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(slope[:3], torch.zeros(3).double(), atol=1e-6, rtol=0)


def test_waves_of_a_difference_have_period_one_and_the_sines_are_odd():
    d = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    waves = periodic_waves(d, 4)
    assert waves.shape == (50, 24)
    torch.testing.assert_close(periodic_waves(d + torch.tensor([1.0, -2.0, 5.0]), 4), waves)
    sign = torch.cat([-torch.ones(12), torch.ones(12)]).double()
    torch.testing.assert_close(periodic_waves(-d, 4), sign * waves)
    torch.testing.assert_close(waves[:, 1], torch.sin(4 * math.pi * d[:, 0]))  # axis by axis, then k


def test_times_are_told_apart():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    waves = time_waves(t, 128)
    assert torch.cdist(waves, waves).fill_diagonal_(math.inf).min() > 1
    with pytest.raises(ValueError, match="even width"):
        time_waves(t, 7)


def test_standard_scores_have_mean_0_and_spread_1_and_are_stored_with_the_weights():
    data = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 0.1, 0]) + 7
    standard = Standardise(3)
    standard.fit(data)
    scores = standard(data)
    torch.testing.assert_close(scores.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4, rtol=0)
    copy = Standardise(3)
    copy.load_state_dict(standard.state_dict())
    assert torch.equal(copy(data), scores)


@pytest.mark.parametrize("rows", [torch.tensor([[1.0, math.nan], [1.0, 2.0]]), torch.ones(1, 2)])
def test_missing_values_are_refused(rows):
    with pytest.raises(InputError, match="leave those rows out"):
        Standardise(2).fit(rows)
