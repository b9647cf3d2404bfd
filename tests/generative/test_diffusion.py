"""Laws of Gaussian paths; samplers of diffusions on a Gaussian, whose answer is known at every time."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.generative.diffusion import (
    Diffusion,
    EulerMaruyama,
    Lerp,
    VarianceExploding,
    VariancePreserving,
    probability_flow,
)
from nucleate.generative.flow_matching import Annealing, Euler, FlowMatching, Heun, even_times
from nucleate.geometry.manifold import Euclidean, Product
from nucleate.geometry.torus import Torus

NOISELESS, EXPLODING, PRESERVING = Lerp(), VarianceExploding(0.05, 8.0), VariancePreserving(0.1, 12.0)
NOISY = [Lerp(1.0, 1e-3), Lerp(0.2, 0.2), EXPLODING, PRESERVING]
paths = pytest.mark.parametrize("path", [NOISELESS, *NOISY], ids=str)
noisy = pytest.mark.parametrize("path", NOISY, ids=str)
diffusions = pytest.mark.parametrize("path", [EXPLODING, PRESERVING], ids=str)


def ends(seed=0, batch=16):
    """t, x_0, x_1 and eps of clusters of 5 atoms; times away from both ends."""
    g = torch.Generator().manual_seed(seed)
    t = 0.05 + 0.9 * torch.rand(batch, generator=g, dtype=torch.float64)
    return t, *torch.randn(3, batch, 5, 3, generator=g, dtype=torch.float64)


def point(path, t, x0, x1, eps):
    return path.mean(t, x0, x1) + path.deviation(t)[:, None, None] * eps


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, atol=atol, rtol=atol)


@paths
def test_the_velocity_is_the_slope_of_the_path_at_fixed_noise(path):
    t, x0, x1, eps = ends()
    slope = x1 - x0
    if path != NOISELESS:  # the slope of its deviation, the root of 0, is lost on autograd
        _, slope = torch.autograd.functional.jvp(lambda t: point(path, t, x0, x1, eps), t, torch.ones_like(t))
    close(path.velocity(point(path, t, x0, x1, eps), t, x0, x1), slope)
    h = 1e-6
    difference = (point(path, t + h, x0, x1, eps) - point(path, t - h, x0, x1, eps)) / (2 * h)
    close(difference, slope, 1e-6)


@noisy
def test_the_score_is_the_slope_of_the_log_density(path):
    t, x0, x1, eps = ends()
    x = point(path, t, x0, x1, eps).requires_grad_()
    sigma = path.deviation(t)[:, None, None].expand_as(x)
    density = torch.distributions.Normal(path.mean(t, x0, x1), sigma).log_prob(x).sum()
    (slope,) = torch.autograd.grad(density, x)
    close(path.score(x.detach(), t, x0, x1), slope)
    close(path.score_of_noise(eps, t), slope)


def test_published_velocities_with_x_in_its_place():
    t, x0, x1, eps = ends()
    x, r = point(EXPLODING, t, x0, x1, eps), (1 - t)[:, None, None]
    close(EXPLODING.velocity(x, t, x0, x1), -math.log(8.0 / 0.05) * (x - x1))
    x, T = point(PRESERVING, t, x0, x1, eps), 0.1 * r + 11.9 * r**2 / 2
    printed = -(0.1 + 11.9 * r) / 2 * (torch.exp(-T) * x - torch.exp(-T / 2) * x1) / (1 - torch.exp(-T))
    close(PRESERVING.velocity(x, t, x0, x1), printed)


def test_paths_begin_as_noise_and_end_at_the_data():
    _, x0, x1, _ = ends(batch=2)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    close(NOISELESS.mean(t, x0, x1), torch.stack([x0[0], x1[1]]))
    close(EXPLODING.mean(t, x0, x1), x1)
    alpha = math.exp(-6.05 / 2)
    close(PRESERVING.mean(t, x0, x1), torch.stack([alpha * x1[0], x1[1]]))
    for path, sigma in [
        (NOISELESS, [0, 0]), (Lerp(1.0, 1e-3), [1, 1e-3]), (EXPLODING, [8.0, 0.05]),
        (PRESERVING, [math.sqrt(1 - alpha**2), 0]),
    ]:  # fmt: skip
        close(path.deviation(t), torch.tensor(sigma, dtype=torch.float64))


def test_preserving_keeps_the_variance_of_unit_data():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    at = PRESERVING.schedule(t)
    close(at.end.square() + at.variance, torch.ones_like(t))


@noisy
def test_draws_have_the_mean_and_deviation_of_the_path(path):
    t = torch.full((20000,), 0.4, dtype=torch.float64)
    x0, x1 = torch.tensor([[2.0, -1.0], [1.0, 3.0]], dtype=torch.float64)
    x0, x1 = x0.expand(20000, 2), x1.expand(20000, 2)
    x = path.draw(t, x0, x1, torch.Generator().manual_seed(0))
    again = path.draw(t, x0, x1, torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
    sigma = path.deviation(t)[0]
    eps = (x - path.mean(t, x0, x1)) / sigma
    assert eps.mean(0).abs().max() < 0.03  # four standard errors
    assert (eps.std(0) - 1).abs().max() < 0.02


@pytest.mark.parametrize("path", NOISY[2:], ids=str)
def test_single_precision_agrees(path: Diffusion):
    t, x0, x1, eps = ends()
    x = point(path, t, x0, x1, eps)
    single = [v.float() for v in (x, t, x0, x1)]
    for law in (path.velocity, path.score):
        torch.testing.assert_close(law(*single).double(), law(x, t, x0, x1), atol=1e-4, rtol=1e-3)


# ---------------------------------------------------------------- a Gaussian: data N(CENTRE, WIDTH^2)

CENTRE, WIDTH = 0.7, 0.4
FLOW = FlowMatching(Product({"positions": Euclidean(1)}))


def marginal(path, t):
    """Mean and variance of x_t when the data are Gaussian."""
    at = path.schedule(torch.as_tensor(t, dtype=torch.float64))
    return at.end * CENTRE, (at.end * WIDTH).square() + at.variance


def scores(path):
    def predict(x, t):
        mean, variance = marginal(path, t[0])
        return {"positions": -(x["positions"] - mean) / variance}

    return predict


@diffusions
def test_flow_and_velocity_are_the_same_for_one_datum(path):
    """Where the data is one point, the marginal score is the conditional one."""
    t, x0, x1, eps = ends()
    x = point(path, t, x0, x1, eps)
    score = path.score(x, t, x0, x1)
    close(path.flow(x, t, score), path.velocity(x, t, x0, x1))
    D = path.diffusivity(t)
    assert (D > 0).all()
    close(path.reverse_drift(x, t, score), path.flow(x, t, score) + D[:, None, None] * score)


def test_diffusivities_are_half_of_those_of_song():
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    sigma = EXPLODING.deviation(t)
    close(EXPLODING.diffusivity(t), sigma.square() * math.log(8.0 / 0.05))
    close(PRESERVING.diffusivity(t), (0.1 + 11.9 * (1 - t)) / 2)


@diffusions
def test_the_probability_flow_carries_one_gaussian_into_the_other(path):
    """It keeps each point at the same number of standard deviations; Heun's error falls as the step squared."""
    (m0, v0), (m1, v1) = marginal(path, 0.0), marginal(path, 1.0)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None]
    exact = m1 + v1.sqrt() * z
    velocities = probability_flow(path, scores(path))
    start = {"positions": m0 + v0.sqrt() * z}

    def error(sampler, steps):
        return float(
            (sampler(FLOW).sample(velocities, start, even_times(steps))["positions"] - exact).abs().max()
        )

    coarse, fine = error(Euler, 400), error(Euler, 800)
    assert fine < 0.03
    assert fine < 0.6 * coarse
    times = (*even_times(400)[:-1], 0.9999999)  # Heun's step that ends at 1 is Euler's
    heun = Heun(FLOW).sample(velocities, start, times)["positions"]
    assert (heun - exact).abs().max() < 2e-3


@diffusions
def test_the_reverse_diffusion_ends_in_the_data(path):
    n, g = 20000, torch.Generator().manual_seed(0)
    mean, variance = marginal(path, 0.0)
    x0 = {"positions": mean + variance.sqrt() * torch.randn(n, 1, 1, generator=g, dtype=torch.float64)}
    sampler = EulerMaruyama(FLOW, path=path, generator=g)
    times = [1 - (1 - t) ** 2 for t in even_times(300)]  # shorter steps near the data
    x = sampler.sample(scores(path), x0, times)["positions"]
    mean, variance = marginal(path, 1.0)
    assert float((x.mean() - mean).abs()) < 4 * WIDTH / math.sqrt(n) + 0.003
    assert float((x.std() / variance.sqrt() - 1).abs()) < 0.02
    assert float(((x - x.mean()) / x.std()).pow(4).mean()) == pytest.approx(
        3.0, abs=0.15
    )  # as of a normal law


@diffusions
@pytest.mark.slow
def test_the_reverse_diffusion_forgets_where_it_began_but_the_flow_does_not(path):
    g = torch.Generator().manual_seed(1)
    mean, variance = marginal(path, 0.0)
    x0 = {"positions": (mean + 2 * variance.sqrt()).expand(4000, 1, 1)}
    end_mean, end_variance = marginal(path, 1.0)
    drawn = EulerMaruyama(FLOW, path=path, generator=g).sample(scores(path), x0, even_times(200))
    flown = Euler(FLOW).sample(probability_flow(path, scores(path)), x0, even_times(200))
    assert drawn["positions"].std() > 0.9 * end_variance.sqrt()
    assert flown["positions"].std() < 1e-9
    assert (flown["positions"].mean() - end_mean) / end_variance.sqrt() > 1.8


def test_padding_stays_and_centred_fields_keep_their_mean():
    flow = FlowMatching(Product({"positions": Euclidean(3)}), centred=["positions"])
    g = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    x = torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
    sampler = EulerMaruyama(flow, path=EXPLODING, generator=g)
    end = sampler.sample(scores(EXPLODING), {"positions": x}, even_times(20), mask)["positions"]
    close(end[1, 3], x[1, 3])
    close(end[0].mean(0), x[0].mean(0))
    close(end[1, :3].mean(0), x[1, :3].mean(0))
    assert (end[0] - x[0]).abs().max() > 0.1


def test_the_same_seed_gives_the_same_samples():
    x = {"positions": torch.ones(3, 1, 1, dtype=torch.float64)}
    twice = [
        EulerMaruyama(FLOW, path=PRESERVING, generator=torch.Generator().manual_seed(3)).sample(
            scores(PRESERVING), x, even_times(10)
        )["positions"]
        for _ in range(2)
    ]
    assert torch.equal(*twice)


def test_what_has_no_answer_is_refused():
    t, x0, x1, _ = ends(batch=2)
    with pytest.raises(InputError, match="still has noise"):
        PRESERVING.velocity(x1, torch.tensor([0.5, 1.0], dtype=torch.float64), x0, x1)
    with pytest.raises(InputError, match="deviation is 0"):
        NOISELESS.score(x1, t, x0, x1)
    with pytest.raises(InputError, match="low < high"):
        VarianceExploding(1.0, 0.5)
    with pytest.raises(InputError, match="low < high"):
        VariancePreserving(-1.0, 0.5)
    with pytest.raises(InputError, match="at least 0"):
        Lerp(-1.0)
    g = torch.Generator()
    for flow, pace in [
        (FlowMatching(Product({"x": Torus(3)})), {}),
        (FlowMatching(FLOW.product, endpoint=["positions"]), {}),
        (FLOW, {"positions": Annealing(1.0)}),
    ]:
        with pytest.raises(InputError, match="Euclidean fields"):
            EulerMaruyama(flow, pace, path=EXPLODING, generator=g)
