"""CrystalFlow: noise, loss and samples do what they say; a handful of crystals is learnt by heart."""

import math

import pytest
import torch
from ase.build import bulk
from ase.spacegroup import crystal as ase_crystal

from nucleate.crystal.sites import Sites, primitive_niggli_sites, sites_of_atoms
from nucleate.data.inorganic import Contents, Structures, structures_of
from nucleate.errors import InputError, NucleateError
from nucleate.generative.coupling import points
from nucleate.generative.optimizers import Optimizers
from nucleate.generative.seeds import generator_of
from nucleate.generative.train_settings import TrainSettings, learning_rate
from nucleate.geometry.lattice import lattice_from_log, log_coordinates, volume
from nucleate.geometry.torus import wrap, wrap_difference
from nucleate.models.crystalflow import PUBLISHED_SCALE, CrystalFlow, Sampling
from nucleate.models.crystalflow_training import CrystalFlowSettings, displacement, flow_of

SMALL = {"width": 32, "layers": 2, "pair_width": 16, "harmonics": 4, "miller": 2}


def known() -> Structures:
    perovskite = ase_crystal(
        ("Sr", "Ti", "O"),
        [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
        spacegroup=221,
        cellpar=[3.9] * 3 + [90] * 3,
    )
    atoms = [
        bulk("NaCl", "rocksalt", 5.64), bulk("Fe", "bcc", 2.87), bulk("Ti", "hcp", 2.95, c=4.68),
        bulk("ZnS", "zincblende", 5.41), perovskite, bulk("Si", "diamond", 5.43),
    ]  # fmt: skip
    return structures_of(
        [primitive_niggli_sites(sites_of_atoms(a)) for a in atoms], {"gap": [5.0, 0.0, 0, 3.6, 1.8, 1.1]}
    )


def fitted(**settings) -> CrystalFlow:
    torch.manual_seed(0)
    flow = flow_of(CrystalFlowSettings(**{**SMALL, **settings}))
    flow.fit(known())
    return flow


VARIANTS = [
    {"network": network, "recipe": recipe, "task": task, "conditions": conditions}
    for network in ("pairnet", "cspnet")
    for recipe in ("default", "published")
    for task, conditions in (("csp", ()), ("dng", ("gap",)))
]
IDS = ["-".join(str(v) for v in one.values()) for one in VARIANTS]


@pytest.mark.parametrize("settings", VARIANTS, ids=IDS)
def test_build_undoes_represent(settings):
    flow, data = fitted(**settings), known()
    for row, built in enumerate(flow.build(flow.represent(data), data.contents)):
        assert isinstance(built, Sites)
        there = data.contents.mask[row]
        assert torch.equal(built.numbers, data.contents.numbers[row][there])
        torch.testing.assert_close(built.frac.float(), data.frac[row][there], atol=1e-6, rtol=0)
        torch.testing.assert_close(
            log_coordinates(built.lattice).float(), data.lattice[row], atol=1e-5, rtol=0
        )


def test_states_that_are_no_crystals_are_named():
    flow, data = fitted(), known()
    state = flow.represent(data)
    state["lattice"] = state["lattice"].clone()
    state["lattice"][0, 2] = math.nan
    state["lattice"][1, 5] = 20.0
    built = flow.build(state, data.contents)
    assert [type(b) for b in built[:3]] == [NucleateError, NucleateError, Sites]
    assert "NaN" in str(built[0])
    assert "an atom" in str(built[1])


@pytest.mark.parametrize("settings", VARIANTS, ids=IDS)
def test_a_sample_is_its_own_whatever_is_beside_it(settings):
    flow, data = fitted(**settings), known()
    with torch.no_grad():
        for p in flow.network.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator_of(9)))
    generators = [generator_of(4, row) for row in range(len(data))]
    many = flow.sample(data.contents, generators, Sampling(4, returns=1))
    one = flow.sample(data.contents[torch.tensor([4])], [generator_of(4, 4)], Sampling(4, returns=1))
    n = int(data.contents.sizes[4])
    torch.testing.assert_close(many["lattice"][4:5], one["lattice"], atol=1e-4, rtol=1e-4)
    assert wrap_difference(many["frac"][4:5, :n] - one["frac"]).abs().max() < 1e-3


def test_noise_of_the_default_recipe_has_the_volumes_and_shapes_of_the_data():
    flow, data = fitted(), known()
    contents = Contents.of([[11, 17]] * 4000)
    noise = flow.prior(contents, [generator_of(1)])
    log_volume = volume(lattice_from_log(noise["lattice"])).log()
    expected = float(flow.expected_volume(contents)[0])
    assert abs(float(log_volume.mean()) - math.log(expected)) < 0.05
    assert abs(float(log_volume.std()) - float(flow.volume_scale)) < 0.02
    torch.testing.assert_close(
        noise["lattice"][:, :5].mean(0), data.lattice[:, :5].mean(0), atol=0.03, rtol=0
    )
    assert abs(float(noise["frac"].mean()) - 0.5) < 0.02


def test_noise_of_the_published_recipe_is_the_published_one():
    flow = fitted(recipe="published")
    k = flow.prior(Contents.of([[11] * 8] * 4000), [generator_of(1)])["lattice"] / torch.tensor(
        PUBLISHED_SCALE
    )
    torch.testing.assert_close(k.mean(0), torch.tensor([0, 0, 0, 0, 0, 1.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(k.std(0), torch.full((6,), 0.1), atol=0.01, rtol=0)


def test_published_coordinates_are_those_of_the_paper():
    """S = log(L L^T) / 2; k = S01, S02, S12, (S00 - S11)/2, (S00 + S11 - 2 S22)/6, tr S / 3."""
    lattice = torch.eye(3).double() * 4 + torch.rand(3, 3, generator=generator_of(2)).double()
    values, vectors = torch.linalg.eigh(lattice @ lattice.T)
    S = vectors @ torch.diag(values.log() / 2) @ vectors.T
    k = torch.stack(
        [
            S[0, 1],
            S[0, 2],
            S[1, 2],
            (S[0, 0] - S[1, 1]) / 2,
            (S[0, 0] + S[1, 1] - 2 * S[2, 2]) / 6,
            S.trace() / 3,
        ]
    )
    torch.testing.assert_close(log_coordinates(lattice) / torch.tensor(PUBLISHED_SCALE).double(), k)


def test_dealing_keeps_elements_and_shortens_paths():
    flow, data = fitted(), known()
    label = torch.where(data.contents.mask, data.contents.numbers, -1)
    cells = lattice_from_log(data.lattice)
    noise = torch.rand(data.frac.shape, generator=generator_of(3)) * data.contents.mask[..., None]
    dealt = points(noise, data.frac, label, cells)

    def length(x):
        left = wrap_difference(data.frac - x) * data.contents.mask[..., None]
        left = left - left.sum(1, keepdim=True) / data.contents.sizes[:, None, None]
        return ((left * data.contents.mask[..., None]) @ cells).square().sum((1, 2))

    assert (length(dealt) <= length(noise) + 1e-5).all()
    for row in range(len(data)):  # the same atoms of each element, all moved by one translation
        for z in set(data.contents.numbers[row].tolist()) - {0}:
            mine = data.contents.numbers[row] == z
            before, after = noise[row][mine], dealt[row][mine]
            if mine.sum() > 1:
                gaps = lambda x: wrap_difference(x[:, None] - x).norm(dim=-1).flatten().sort().values  # noqa: E731
                torch.testing.assert_close(gaps(before), gaps(after), atol=1e-5, rtol=0)
    # a crystal that was only moved and written in another order is found again
    order = torch.tensor([0, 1, 4, 2, 3])
    moved = data.frac.clone()
    moved[4] = wrap(moved[4] + torch.tensor([0.3, 0.1, 0.7]))[order]
    assert displacement({"lattice": data.lattice, "frac": moved}, data).max() < 1e-5
    del flow


@pytest.mark.parametrize("settings", VARIANTS, ids=IDS)
def test_losses_are_finite_and_reach_all_weights(settings):
    flow = fitted(**settings)
    loss, parts = flow(known(), generator_of(5))
    loss.backward()
    assert math.isfinite(loss.detach())
    assert set(parts) == set(flow.flow.product.factors)
    idle = [n for n, p in flow.named_parameters() if p.grad is None]
    assert idle == []


def test_conditions_are_dropped_in_training_and_unknown_ones_refused():
    flow = fitted(conditions=("gap",))
    values = {"gap": torch.arange(4000.0)}
    dropped = flow._dropped(values, generator_of(1))["gap"].isnan().float().mean()
    assert abs(float(dropped) - 0.2) < 0.03
    told = flow.told(known().contents, {"gap": 1.9})
    mean, scale = float(flow.property_mean), float(flow.property_scale)
    torch.testing.assert_close(told.conditions, torch.full((6, 1), (1.9 - mean) / scale))
    assert told.known.all()
    assert not flow.told(known().contents).known.any()
    with pytest.raises(InputError, match="expected conditions out of gap, got pressure"):
        flow.told(known().contents, {"pressure": 50.0})
    with pytest.raises(InputError, match="know no property"):
        fitted().told(known().contents, {"gap": 1.0})


def test_guidance_interpolates_between_both_branches():
    flow, data = fitted(conditions=("gap",), network="pairnet"), known()
    with torch.no_grad():
        for p in flow.network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator_of(9)))

    def end(w: float, conditions=None):
        return flow.sample(
            data.contents, [generator_of(1)], Sampling(1, "euler", guidance=w, returns=0), conditions
        )["lattice"]

    with_it, without = end(1.0, {"gap": 2.0}), end(1.0)
    assert (with_it - without).abs().max() > 1e-3
    torch.testing.assert_close(end(0.0, {"gap": 2.0}), without)
    torch.testing.assert_close(end(3.0, {"gap": 2.0}), 3 * with_it - 2 * without, atol=1e-4, rtol=1e-4)


def test_sizes_are_drawn_as_in_the_data():
    sizes = torch.tensor(fitted().draw_sizes(6000, generator_of(1)))
    counts = torch.bincount(known().contents.sizes)
    drawn = torch.bincount(sizes, minlength=len(counts)) / 6000
    torch.testing.assert_close(drawn, counts / counts.sum(), atol=0.03, rtol=0)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors wait for each other otherwise
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("task", ["csp", "dng"])
@pytest.mark.slow
def test_six_crystals_are_learnt_by_heart(task):
    flow, data = fitted(width=48, task=task), known()
    settings = TrainSettings(steps=300, warm_up=10, learning_rate=1e-2)
    optimizers = Optimizers(flow, settings)
    many = data[torch.arange(len(data)).repeat(4)]
    for step in range(settings.steps):
        loss, _ = flow(many, generator_of(1, step))
        flow.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizers.step(learning_rate(step, settings) / settings.learning_rate)
    several = data[torch.arange(len(data)).repeat(8)]
    noise = flow.prior(several.contents, [generator_of(2)])
    end = flow.sample(several.contents, [generator_of(2)], Sampling(10, returns=0))
    if task == "csp":
        away = lambda x: (x["lattice"] - several.lattice).norm(dim=1)  # noqa: E731
        assert away(noise).median() > 0.3
        assert (away(end) < 0.05).float().mean() > 0.95
        found = lambda x: float((displacement(x, several) < 0.1).float().mean())  # noqa: E731
        assert found(noise) < 0.25  # iron, with its one atom
        assert found(end) > 0.4
        again = flow.sample(several.contents, [generator_of(2)], Sampling(10, returns=2))
        assert found(again) >= found(end) - 0.05  # going back forgets errors, not the crystal
        assert not torch.equal(again["frac"], end["frac"])
    else:
        seen = {tuple(sorted(row[row > 0].tolist())) for row in data.contents.numbers}
        made = [
            tuple(sorted(s.numbers.tolist()))
            for s in flow.build(end, several.contents)
            if isinstance(s, Sites)
        ]
        assert sum(m in seen for m in made) / len(several) > 0.4
