"""The vector of a molecule: what it must not depend on, what it must see, and what was mended."""

import pytest
import torch

from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation
from nucleate.networks.egnn import MoleculeEmbedder, pad_by_size


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return MoleculeEmbedder(width=16, layers=3, basis=16, hidden=16).double()


@pytest.fixture(scope="module")
def molecules():
    """Three molecules of nine atoms: numbers, positions, charges."""
    numbers = torch.randint(1, 18, (3, 9), generator=generator())
    positions = torch.randn(3, 9, 3, generator=generator(1), dtype=torch.float64) * 2
    charges = torch.randint(-1, 2, (3, 9), generator=generator(2))
    return numbers, positions, charges


def test_motions_and_mirror_images_change_nothing(net, molecules):
    numbers, x, charges = molecules
    expected = net(numbers, x, charges)
    R = random_rotation(3, generator=generator(3))
    moved = x @ R.mT + torch.randn(3, 1, 3, generator=generator(4), dtype=torch.float64)
    torch.testing.assert_close(net(numbers, moved, charges), expected)
    torch.testing.assert_close(net(numbers, -x, charges), expected)  # mirror-blind, as published


def test_the_order_of_atoms_changes_nothing(net, molecules):
    numbers, x, charges = molecules
    order = torch.randperm(9, generator=generator(5))
    again = net(numbers[:, order], x[:, order], charges[:, order])
    torch.testing.assert_close(again, net(numbers, x, charges))


def test_padding_and_company_change_nothing(net, molecules):
    numbers, x, charges = molecules
    padded = (
        torch.nn.functional.pad(numbers, (0, 4)),
        torch.cat([x, torch.randn(3, 4, 3, generator=generator(6), dtype=torch.float64)], 1),
        torch.nn.functional.pad(charges, (0, 4), value=1),
    )
    expected = net(numbers, x, charges)
    together = net(*padded)
    real = torch.nn.functional.pad(charges, (0, 4))
    torch.testing.assert_close(net(padded[0], padded[1], real), expected)
    torch.testing.assert_close(together, expected)
    torch.testing.assert_close(net(numbers[1:2], x[1:2], charges[1:2])[0], expected[1])


def test_flat_atoms_of_any_sizes_in_any_order_give_the_same_vectors(net):
    sizes = torch.tensor([3, 40, 1, 12, 11, 4])
    molecule = torch.repeat_interleave(torch.arange(6), sizes)
    numbers = torch.randint(1, 10, (71,), generator=generator())
    x = torch.randn(71, 3, generator=generator(1), dtype=torch.float64) * 3
    charges = torch.randint(-1, 2, (71,), generator=generator(2))
    expected = [
        net(numbers[None, own], x[None, own], charges[None, own])[0]
        for own in torch.arange(71).split(sizes.tolist())
    ]
    shuffled = torch.randperm(71, generator=generator(3))
    found = net.embed(numbers[shuffled], x[shuffled], molecule[shuffled], charges[shuffled])
    torch.testing.assert_close(found, torch.stack(expected))
    alone = net.embed(numbers[shuffled], x[shuffled], molecule[shuffled])
    assert not torch.allclose(alone, found)


def test_groups_hold_every_atom_once_and_little_padding():
    molecule = torch.randint(0, 60, (3000,), generator=generator()).sort().values
    groups, sizes = pad_by_size(molecule)
    atoms = torch.cat([own[own >= 0] for _, own in groups])
    assert torch.equal(atoms.sort().values, torch.arange(3000))
    assert all((sizes[members] * 1.25 >= own.shape[1]).all() for members, own in groups)
    with pytest.raises(ValueError, match="without gaps"):
        pad_by_size(torch.tensor([0, 2]))


def test_elements_charges_and_shape_are_seen(net, molecules):
    numbers, x, charges = molecules
    expected = net(numbers, x, charges)
    other = numbers.clone()
    other[:, 0] += 1
    for changed in (net(other, x, charges), net(numbers, 1.05 * x, charges), net(numbers, x, 1 - charges)):
        assert ((changed - expected).abs().amax(1) > 1e-4).all()


def test_an_atom_leaves_the_neighbourhood_without_a_jump(net):
    numbers = torch.tensor([[6, 8]])
    x = torch.zeros(2, 2, 3, dtype=torch.float64)
    x[0, 1, 0], x[1, 1, 0] = 6 - 1e-5, 6 + 1e-5
    inside, outside = net(numbers.expand(2, 2), x)
    torch.testing.assert_close(inside, outside, atol=1e-4, rtol=0)


def test_a_layer_that_says_nothing_leaves_its_input_as_it_is(molecules):
    """The published code added the input twice, so it grew 2^6 times."""
    net = MoleculeEmbedder(width=16, layers=6, basis=16, hidden=16).double()
    for layer in net.layers:
        torch.nn.init.zeros_(layer.update[-1].weight)
        torch.nn.init.zeros_(layer.update[-1].bias)
    numbers = molecules[0][:, :1].expand(-1, 9).contiguous()
    torch.testing.assert_close(net(numbers, molecules[1]), net.element(numbers[:, 0]))


def test_the_pooling_can_look_at_one_atom_alone(molecules):
    """A sigmoid before the softmax would limit the ratio of two weights to e."""
    net = MoleculeEmbedder(width=16, layers=0, basis=16, hidden=16).double()
    torch.nn.init.normal_(net.pool.score[-1].weight, std=300, generator=generator())
    numbers, x, _ = molecules
    elements = net.element(numbers)
    nearest = (net(numbers, x)[:, None] - elements).norm(dim=-1).amin(1)
    assert (nearest < 1e-3).sum() >= 2


@pytest.mark.parametrize("number", [55, 92, -1])
def test_unknown_elements_are_refused_by_number(net, number):
    with pytest.raises(InputError, match=f"xenon.*{number}") as caught:
        net(torch.tensor([[6, number]]), torch.zeros(1, 2, 3).double())
    assert caught.value.reason == "unknown element"


def test_gradients_reach_every_parameter_and_stay_finite_where_atoms_coincide(net, molecules):
    numbers, x, charges = molecules
    x = x.clone()
    x[0, 1] = x[0, 0]
    x.requires_grad_()
    net.zero_grad()
    net(numbers, x, charges).square().sum().backward()
    assert x.grad.isfinite().all()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_single_precision_agrees_with_double(net, molecules):
    numbers, x, charges = molecules
    torch.manual_seed(0)
    single = MoleculeEmbedder(width=16, layers=3, basis=16, hidden=16)
    torch.testing.assert_close(
        single(numbers, x.float(), charges).double(), net(numbers, x, charges), atol=1e-4, rtol=1e-4
    )
