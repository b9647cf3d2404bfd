"""Laws of PaiNN: what turns with the cluster, what does not, and the sums of the paper edge by edge."""

import math

import pytest
import torch

from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation
from nucleate.networks.painn import Message, PaiNN, PaiNNVectors, PairBasis, VectorHead

CUTOFF = 5.0  # Å: some pairs of the clusters below are farther apart
precisions = pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float64, 1e-8), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
kinds = pytest.mark.parametrize("conditional", [False, True], ids=["one geometry", "two geometries"])


def network(conditional=False, dtype=torch.float64, cutoff=CUTOFF, told_time=True):
    torch.manual_seed(1)
    net = PaiNNVectors(
        16, basis=8, cutoff=cutoff, told_time=told_time, conditional=conditional, neighbours=4.0
    )
    with torch.no_grad():  # a first answer is small on purpose; here it shall be of order one
        net.head.mix.weight.mul_(30)
    return net.to(dtype)


def clusters(conditional=False, dtype=torch.float64):
    """Two clusters of 12 and 9 atoms, the second padded: what PaiNN takes."""
    g = torch.Generator().manual_seed(0)
    numbers = torch.tensor([1, 6, 7, 8])[torch.randint(4, (2, 12), generator=g)]
    numbers[1, 9:] = 0
    positions = 3 * torch.randn(2, 12, 3, generator=g, dtype=torch.float64)
    other = positions + torch.randn(2, 12, 3, generator=g, dtype=torch.float64)
    t = torch.tensor([0.2, 0.7], dtype=dtype)
    return [numbers, positions.to(dtype), t, other.to(dtype) if conditional else None]


def moved(inputs, Q, shift):
    numbers, x, t, other = inputs
    return [numbers, x @ Q.mT + shift, t, None if other is None else other @ Q.mT + shift]


def close(a, b, atol):
    torch.testing.assert_close(a, b, atol=atol, rtol=atol)


@kinds
@precisions
@pytest.mark.parametrize("handedness", [1.0, -1.0], ids=["rotation", "reflection"])
def test_vectors_turn_with_the_cluster(handedness, dtype, atol, conditional):
    inputs = clusters(conditional, dtype)
    Q = handedness * random_rotation(generator=torch.Generator().manual_seed(5), dtype=dtype)
    net = network(conditional, dtype)
    before, after = net(*inputs), net(*moved(inputs, Q, torch.zeros(3, dtype=dtype)))
    assert before.abs().max() > 0.1
    close(after, before @ Q.mT, atol)
    scalars, _ = net.atoms(*inputs)
    close(net.atoms(*moved(inputs, Q, torch.zeros(3, dtype=dtype)))[0], scalars, atol)


@kinds
@precisions
def test_the_place_in_space_is_not_seen(dtype, atol, conditional):
    inputs, eye = clusters(conditional, dtype), torch.eye(3, dtype=dtype)
    shift = torch.tensor([3.0, -2.0, 1.0], dtype=dtype)
    net = network(conditional, dtype)
    close(net(*moved(inputs, eye, shift)), net(*inputs), atol)


@kinds
@precisions
def test_the_order_of_atoms_does_not_matter(dtype, atol, conditional):
    numbers, x, t, other = clusters(conditional, dtype)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    net = network(conditional, dtype)
    shuffled = net(numbers[:, order], x[:, order], t, None if other is None else other[:, order])
    close(shuffled, net(numbers, x, t, other)[:, order], atol)


@kinds
@precisions
def test_a_cluster_in_a_batch_is_as_alone(dtype, atol, conditional):
    numbers, x, t, other = clusters(conditional, dtype)
    net = network(conditional, dtype)
    together = net(numbers, x, t, other)
    alone = net(numbers[1:, :9], x[1:, :9], t[1:], None if other is None else other[1:, :9])
    close(together[1:, :9], alone, atol)
    assert (together[1, 9:] == 0).all()


def test_messages_are_the_sums_of_the_paper():
    """Edge by edge, straight from the equations."""
    torch.manual_seed(0)
    width, centres = 4, torch.linspace(0, CUTOFF, 6, dtype=torch.float64)
    layer = Message(width, 6, geometries=2, neighbours=3.0).double()
    x = 2.0 * torch.randn(2, 5, 3, dtype=torch.float64)  # two geometries of one cluster
    s, v = torch.randn(5, width).double(), torch.randn(5, 3, width).double()
    ds, dv = torch.zeros_like(s), torch.zeros_like(v)
    phi = layer.phi(s).unflatten(1, (3, width)) / 3.0
    for which in range(2):
        for i in range(5):
            for j in set(range(5)) - {i}:
                away = x[which, j] - x[which, i]
                r = away.norm()
                if r >= CUTOFF:
                    continue
                spacing = centres[1]
                gaussians = torch.exp(-0.5 * ((r - centres) / spacing) ** 2)
                fade = 0.5 * (1 + math.cos(math.pi * float(r) / CUTOFF))
                a, b, c = phi[j] * fade * torch.einsum("k,qkc->qc", gaussians, layer.filters[which])
                ds[i] += a
                dv[i] += b * (away / r)[:, None] + c * v[j]
    real = torch.ones(1, 5, dtype=torch.bool)
    pairs = [PairBasis.of(x[k : k + 1], real, centres, CUTOFF) for k in range(2)]
    got_s, got_v = layer(s[None], v[None], pairs)
    close(got_s[0], ds, 1e-12)
    close(got_v[0], dv, 1e-12)
    first_s, first_v = layer(s[None], None, pairs)
    zero_s, zero_v = layer(s[None], torch.zeros(1, 5, 3, width).double(), pairs)
    close(first_s, zero_s, 1e-12)
    close(first_v, zero_v, 1e-12)


def test_atoms_beyond_the_cutoff_are_not_heard():
    x = torch.tensor([[[0.0, 0, 0], [1.2, 0, 0], [0, 9.0, 0]]], dtype=torch.float64)
    numbers, t = torch.tensor([[6, 8, 7]]), torch.tensor([0.5], dtype=torch.float64)
    farther = x.clone()
    farther[0, 2, 1] = 11.0
    for cutoff, heard in [(5.0, False), (20.0, True)]:
        net = network(cutoff=cutoff)
        change = (net(numbers, farther, t) - net(numbers, x, t)).abs().max()
        assert (change > 1e-6) == heard
    lone = network()(numbers, x, t)[0, 2]
    assert (lone == 0).all()  # no neighbour: no direction to go


@kinds
def test_gradients_reach_every_parameter_and_the_positions(conditional):
    numbers, x, t, other = clusters(conditional)
    seen = [x.requires_grad_()] + ([other.requires_grad_()] if conditional else [])
    net = network(conditional)
    s, v = net.atoms(numbers, x, t, other)
    (net.head(s, v).square().sum() + s.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert x.grad.abs().max() > 1e-3
    forces = torch.stack([geometry.grad for geometry in seen]).sum((0, 2))
    close(forces, torch.zeros(2, 3).double(), 1e-8)  # no place in space is preferred


def test_atoms_on_one_point_give_finite_answers_and_gradients():
    numbers, x, t, _ = clusters()
    x = torch.zeros_like(x).requires_grad_()
    answer = network()(numbers, x, t)
    answer.square().sum().backward()
    assert answer.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_time_and_the_second_geometry_are_seen():
    numbers, x, t, other = clusters(True)
    net = network(True)
    first = net(numbers, x, t, other)
    assert (net(numbers, x, t / 2, other) - first).abs().max() > 1e-3
    assert (net(numbers, x, t, other + torch.randn_like(other)) - first).abs().max() > 1e-3


def test_what_the_network_was_not_made_for_is_refused():
    numbers, x, t, other = clusters(True)
    with pytest.raises(ValueError, match="one geometry"):
        network()(numbers, x, t, other)
    with pytest.raises(ValueError, match="two geometries"):
        network(True)(numbers, x, t)
    with pytest.raises(ValueError, match="no time"):
        network(told_time=False)(numbers, x, t)
    with pytest.raises(ValueError, match="one time for each"):
        network()(numbers, x)
    with pytest.raises(InputError, match="plutonium"):
        network()(torch.where(numbers == 6, 95, numbers), x, t)
    with pytest.raises(InputError, match="positive cut-off"):
        PaiNN(cutoff=0.0)


def test_a_step_towards_the_truth_can_be_learned():
    """Overfit one cluster: the vector from where atoms are to where they were, told both geometries."""
    numbers, x, t, other = clusters(True, torch.float32)
    torch.manual_seed(0)
    net = PaiNNVectors(32, layers=2, basis=8, cutoff=10.0, conditional=True, neighbours=4.0)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    target = (other - x) * (numbers > 0)[..., None]
    errors = []
    for _ in range(60):
        error = (net(numbers, x, t, other) - target).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.1 * errors[0]


def test_the_head_is_a_gated_sum_of_vectors():
    torch.manual_seed(0)
    head = VectorHead(4).double()
    s, v = torch.randn(1, 3, 4).double(), torch.randn(1, 3, 3, 4).double()
    close(head(s, -v), -head(s, v), 1e-12)
    assert (head(s, torch.zeros_like(v)) == 0).all()
