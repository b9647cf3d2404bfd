"""What every network of inorganic crystals obeys, and CSPNet against its definition written out edge by edge."""

import math
from dataclasses import replace

import pytest
import torch

from nucleate.generative.seeds import generator_of
from nucleate.networks.atom_pairs import AtomPairs, axis_waves, miller_half, plane_waves
from nucleate.networks.cspnet import CODE, AtomsTold, CSPNet
from nucleate.networks.elements import CELLS, HEAVIEST, element_of, two_hot
from nucleate.networks.pairnet import PairNet

SIZES = (1, 4, 7, 2)
NETWORKS = {
    "cspnet": lambda **options: CSPNet(24, 2, harmonics=5, miller=3, **options),
    "pairnet": lambda **options: PairNet(24, 2, pair_width=16, **options),
}


def contents(generator: torch.Generator, atoms: int = max(SIZES)) -> torch.Tensor:
    numbers = torch.randint(1, HEAVIEST + 1, (len(SIZES), atoms), generator=generator)
    return torch.where(torch.arange(atoms) < torch.tensor(SIZES)[:, None], numbers, 0)


def told(numbers: torch.Tensor, generator: torch.Generator, conditions: int = 0) -> AtomsTold:
    values = torch.randn(len(numbers), conditions, generator=generator)
    known = (torch.arange(len(numbers) * conditions) % 2).reshape(len(numbers), conditions).float()
    cell = torch.tensor([0.0, 0, 0, -0.2, -0.4, 2.3]).expand(len(numbers), 6)
    return AtomsTold(numbers, AtomPairs.of(numbers > 0), values, known, cell, torch.full((6,), 0.2))


def state(numbers: torch.Tensor, generator: torch.Generator, kinds: bool = False) -> dict[str, torch.Tensor]:
    k = 0.2 * torch.randn(len(numbers), 6, generator=generator)
    k[:, 5] += math.log(60.0) / math.sqrt(3)
    made = {"lattice": k, "frac": torch.rand(*numbers.shape, 3, generator=generator)}
    if kinds:
        made["kind"] = torch.randn(*numbers.shape, CODE, generator=generator)
    return made


def trained(name: str, **options) -> torch.nn.Module:
    """A network whose heads are not small any more."""
    torch.manual_seed(1)
    network = NETWORKS[name](**options)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return network


def differ(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float(((a[n] - b[n]).abs().max() / a[n].abs().max().clamp_min(1e-3)).detach()) for n in a)


@pytest.fixture(
    params=[(n, kinds) for n in NETWORKS for kinds in (False, True)], ids=lambda p: f"{p[0]}-{p[1]}"
)
def case(request):
    name, kinds = request.param
    generator = generator_of(3, name)
    numbers = contents(generator)
    network = trained(name, generates_kinds=kinds, conditions=2)
    x, t, about = (
        state(numbers, generator, kinds),
        torch.rand(len(SIZES), generator=generator),
        told(numbers, generator, 2),
    )
    return network, x, t, about, network(x, t, about)


def test_translations_change_nothing(case):
    network, x, t, about, answer = case
    shift = torch.rand(len(t), 1, 3, generator=generator_of(5))
    assert differ(answer, network({**x, "frac": x["frac"] + shift}, t, about)) < 1e-5
    whole = torch.randint(-2, 3, x["frac"].shape, generator=generator_of(6))
    assert differ(answer, network({**x, "frac": x["frac"] + whole}, t, about)) < 1e-5
    assert answer["frac"].abs().max() > 1e-2


def test_permuted_atoms_are_answered_in_their_new_order(case):
    network, x, t, about, answer = case
    numbers = about.numbers
    keys = torch.rand(numbers.shape, generator=generator_of(7)) + (numbers == 0) * 10
    order = keys.argsort(1)
    moved = {n: v if n == "lattice" else v.gather(1, order[..., None].expand_as(v)) for n, v in x.items()}
    there = replace(about, numbers=numbers.gather(1, order))
    expected = {
        n: v if n == "lattice" else v.gather(1, order[..., None].expand_as(v)) for n, v in answer.items()
    }
    assert differ(expected, network(moved, t, there)) < 1e-5


def test_a_crystal_is_answered_alike_whoever_is_beside_it(case):
    network, x, t, about, answer = case
    row, n = 1, SIZES[1]
    alone = {name: v[row : row + 1] if name == "lattice" else v[row : row + 1, :n] for name, v in x.items()}
    numbers = about.numbers[row : row + 1, :n]
    own = replace(
        about,
        numbers=numbers,
        pairs=AtomPairs.of(numbers > 0),
        conditions=about.conditions[row : row + 1],
        known=about.known[row : row + 1],
        cell=about.cell[row : row + 1],
    )
    got = network(alone, t[row : row + 1], own)
    expected = {
        name: v[row : row + 1] if name == "lattice" else v[row : row + 1, :n] for name, v in answer.items()
    }
    assert differ(expected, got) < 1e-5
    assert not answer["frac"][row, n:].any()  # padding stays where it is


def test_kinds_times_and_known_conditions_matter_and_unknown_ones_do_not(case):
    network, x, t, about, answer = case
    other = replace(about, conditions=about.conditions + 0.7)
    got = network(x, t, other)
    changed = (got["lattice"] - answer["lattice"]).abs().amax(1) > 1e-5
    assert changed.all()  # one of the two conditions of each crystal is known
    hidden = replace(about, known=torch.zeros_like(about.known))
    also = replace(about, conditions=about.conditions + 0.7, known=torch.zeros_like(about.known))
    assert differ(network(x, t, hidden), network(x, t, also)) == 0
    assert differ(answer, network(x, (t + 0.3) % 1, about)) > 1e-3
    if "kind" in x:
        assert differ(answer, network({**x, "kind": x["kind"] + 0.5}, t, about)) > 1e-3
        assert answer["kind"].shape == x["kind"].shape
    else:
        numbers = torch.where(about.numbers > 0, about.numbers % HEAVIEST + 1, 0)
        assert differ(answer, network(x, t, replace(about, numbers=numbers))) > 1e-3


def test_gradients_reach_every_weight(case):
    network, x, t, about, answer = case
    sum(v.square().sum() for v in answer.values()).backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


# ------------------------------------------------------------------ CSPNet as it is defined


def naive(net: CSPNet, x: dict, t: torch.Tensor, numbers: torch.Tensor) -> dict[str, torch.Tensor]:
    """Crystal by crystal, edge by edge, the input of every edge written out and put through the whole first map."""
    from nucleate.networks.embed import time_waves

    frac, lattice = torch.zeros(*numbers.shape, 3), torch.zeros(len(numbers), 6)
    for c, n in enumerate(SIZES):
        h = net.enter(
            torch.cat([net.kind(numbers[c, :n] - 1), time_waves(t[c : c + 1], 256).expand(n, -1)], -1)
        )
        difference = (x["frac"][c, None, :n] - x["frac"][c, :n, None]) % 1.0  # [i, j]: x_j - x_i
        angle = 2 * math.pi * torch.einsum("ijc,wc->ijw", difference, net.waves.float())
        for layer in net.layers:
            normed = layer.norm(h)
            edge = torch.cat(
                [
                    normed[:, None].expand(n, n, -1), normed[None].expand(n, n, -1),
                    angle.cos(), angle.sin(), x["lattice"][c].expand(n, n, 6),
                ],
                -1,
            )  # fmt: skip
            silu = torch.nn.functional.silu
            message = silu(layer.second(silu(layer.first(edge)))).mean(1)
            h = h + layer.update(torch.cat([normed, message], -1))
        h = net.last(h)
        frac[c, :n], lattice[c] = net.frac(h), net.lattice(h.mean(0))
    return {"frac": frac, "lattice": lattice}


def test_cspnet_is_what_its_definition_says():
    generator = generator_of(11)
    numbers = contents(generator)
    network = trained("cspnet")
    x, t = state(numbers, generator), torch.rand(len(SIZES), generator=generator)
    with torch.no_grad():
        assert differ(naive(network, x, t, numbers), network(x, t, told(numbers, generator))) < 1e-5


def test_cspnet_has_the_waves_of_the_reference():
    net = CSPNet()
    assert len(net.waves) == 3 * 256 + 8**3
    assert net.layers[0].first.in_features == 2 * 512 + 2 * (3 * 256 + 8**3) + 6 == 3590
    assert net.waves[:256].tolist() == [[n, 0, 0] for n in range(256)]


def test_the_lattice_cancels_in_the_reciprocal_block():
    generator = generator_of(12)
    lattice, difference = (
        torch.randn(3, 3, generator=generator).double(),
        torch.rand(5, 3, generator=generator).double(),
    )
    m = miller_half(2).double()
    reciprocal = 2 * math.pi * torch.linalg.inv(lattice).T
    phase = (m @ reciprocal) @ (difference @ lattice).T
    cosine, sine = plane_waves(difference, m)
    torch.testing.assert_close(cosine, phase.T.cos())
    torch.testing.assert_close(sine, phase.T.sin())


# ------------------------------------------------------------------ pairs, waves, elements


def test_pairs_are_all_pairs_once():
    numbers = contents(generator_of(1))
    pairs = AtomPairs.of(numbers > 0)
    assert len(pairs.first) == sum(n * (n - 1) // 2 for n in SIZES)
    assert (pairs.first < pairs.second).all()
    assert (pairs.crystal[pairs.first] == pairs.crystal[pairs.second]).all()
    assert len(set(zip(pairs.first.tolist(), pairs.second.tolist()))) == len(pairs.first)
    values = torch.randn(*numbers.shape, 2) * (numbers > 0)[..., None]
    assert torch.equal(pairs.padded(pairs.flat(values)), values)
    expected = torch.stack([values[c, :n].mean(0) for c, n in enumerate(SIZES)])
    torch.testing.assert_close(pairs.mean(pairs.flat(values)), expected)


def test_half_of_the_waves_is_half_of_them():
    m = miller_half(3)
    both = torch.cat([m, -m, torch.zeros(1, 3, dtype=torch.long)])
    assert len(both.unique(dim=0)) == len(both) == 7**3
    assert axis_waves(3, 4).tolist() == [[3, 0, 0], [4, 0, 0], [0, 3, 0], [0, 4, 0], [0, 0, 3], [0, 0, 4]]


def test_codes_of_elements():
    assert len(CELLS.unique(dim=0)) == HEAVIEST
    assert torch.equal(element_of(two_hot()), torch.arange(1, HEAVIEST + 1))
    noisy = two_hot() + 0.3 * (torch.rand(HEAVIEST, CODE, generator=generator_of(2)) - 0.5)
    assert torch.equal(element_of(noisy), torch.arange(1, HEAVIEST + 1))
    anything = element_of(torch.randn(1000, CODE, generator=generator_of(3)))
    assert anything.min() >= 1
    assert anything.max() <= HEAVIEST
    column = {z: CELLS[z - 1, 1].item() for z in (3, 11, 19, 37)}
    assert len(set(column.values())) == 1  # alkali metals stand below each other
