"""The network of clusters turns with the cluster, and follows its molecules in any order."""

from dataclasses import replace

import pytest
import torch

from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation, rotation_exp
from nucleate.networks.cluster_poses import TOUCH, ClusterNetwork, Contacts, agreed, turn_agreed
from nucleate.networks.elements import HEAVIEST
from nucleate.networks.pose import MoleculeBatch

DOUBLE = {"dtype": torch.float64}
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], **DOUBLE))
BATCH, MOLECULES = 2, 6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ClusterNetwork(
        16, layers=2, pair_width=16, anchor_width=8, touches=3, shells=4, vectors=4
    ).double()


def molecules():
    """Two molecules, the second with padding."""
    positions = 1.5 * torch.randn(BATCH, 5, 3, generator=seeded(2), **DOUBLE)
    positions[1, 4] = 0
    numbers = torch.tensor([[6, 8, 7, 1, 6], [6, 6, 16, 1, 0]])
    anchor = torch.tensor([[0, 1, 2, 2, 3], [0, 1, 2, 2, 0]])
    anchors = positions[:, [0, 1, 2, 4]]
    present = torch.tensor([[True] * 4, [True] * 3 + [False]])
    return MoleculeBatch(numbers, positions, anchor, anchors, present)


def cluster(seed=3):
    g = seeded(seed)
    hand = torch.where(torch.rand(BATCH, MOLECULES, 1, 1, generator=g) < 0.5, -1.0, 1.0).double()
    centroid = 5 * torch.randn(BATCH, MOLECULES, 3, generator=g, **DOUBLE)
    return centroid, hand * random_rotation(BATCH, MOLECULES, generator=g), torch.tensor([0.2, 0.7], **DOUBLE)


def end(network, centroid, frame, t):
    """Centroids and frames at time 1."""
    with torch.no_grad():
        shift, turn = network(centroid, frame, t, network.read(molecules()))
    return centroid + shift, frame @ rotation_exp(turn)


@pytest.mark.parametrize("mirrored", [False, True])
def test_follows_motions_of_the_cluster(network, mirrored):
    centroid, frame, t = cluster()
    R = random_rotation(generator=seeded(7)) @ (MIRROR if mirrored else MIRROR @ MIRROR)
    shift = torch.tensor([3.0, -40.0, 7.0], **DOUBLE)
    c, F = end(network, centroid, frame, t)
    moved_c, moved_F = end(network, centroid @ R.mT + shift, R @ frame, t)
    torch.testing.assert_close(moved_c, c @ R.mT + shift, atol=1e-9, rtol=0)
    torch.testing.assert_close(moved_F, R @ F, atol=1e-9, rtol=0)
    assert (c - centroid).abs().max() > 1e-3


def test_follows_the_order_of_molecules(network):
    centroid, frame, t = cluster()
    order = torch.randperm(MOLECULES, generator=seeded(1))
    for after, before in zip(
        end(network, centroid[:, order], frame[:, order], t), end(network, centroid, frame, t)
    ):
        torch.testing.assert_close(after, before[:, order], atol=1e-9, rtol=0)


def test_clusters_of_a_batch_do_not_see_each_other(network):
    centroid, frame, t = cluster()
    other = centroid.clone()
    other[1] *= 1.3
    first, second = end(network, centroid, frame, t)[0], end(network, other, frame, t)[0]
    torch.testing.assert_close(first[0], second[0], atol=1e-12, rtol=0)
    assert (first[1] - second[1]).abs().max() > 1e-3


@pytest.mark.parametrize("what", ["turn", "shift", "time", "hand"])
def test_sees_what_matters(network, what):
    """How one molecule lies, where it is, and of which hand, for all the others; and the time."""
    centroid, frame, t = cluster()
    c, F, s = centroid.clone(), frame.clone(), t.clone()
    if what == "turn":
        F[:, 0] = F[:, 0] @ rotation_exp(torch.tensor([0.3, 0.2, -0.1], **DOUBLE))
    elif what == "shift":
        c[:, 0] += 0.3
    elif what == "hand":
        F[:, 0] = F[:, 0] @ MIRROR
    else:
        s = s + 0.1
    before, after = end(network, centroid, frame, t)[0][:, 1:], end(network, c, F, s)[0][:, 1:]
    assert ((after - before).abs().amax((1, 2)) > 1e-5).all()


def test_a_lattice_agrees_with_itself_and_noise_is_averaged():
    """Steps of an ideal lattice are what they agree on; of a noisy one they agree on something nearer to it."""
    axis = torch.arange(3.0, **DOUBLE)
    ideal = 7 * torch.cartesian_prod(axis, axis, axis)[None]
    noisy = ideal + 0.5 * torch.randn(ideal.shape, generator=seeded(1), **DOUBLE)
    wanted, found = (x[:, None] - x[:, :, None] for x in (ideal, noisy))
    assert agreed(wanted, (1.0,)).abs().max() < 1e-6
    nearer = found + agreed(found, (2.0,))[..., 0]
    assert (nearer - wanted).square().mean() < 0.6 * (found - wanted).square().mean()


@pytest.mark.parametrize("other", ["turned", "mirrored"])
def test_operations_agree_with_themselves(other):
    """Two orientations, every second molecule: noise of the turns between them is pulled back."""
    second = torch.diag(torch.tensor([-1.0, 1.0, -1.0] if other == "turned" else [-1.0] * 3, **DOUBLE))
    ideal = random_rotation(generator=seeded(2)) @ torch.stack([torch.eye(3, **DOUBLE), second] * 6)[None]
    assert turn_agreed(ideal).abs().max() < 1e-9
    first = torch.tensor([0.2, 0.0, 0.0], **DOUBLE)
    noisy = ideal.clone()
    noisy[:, 0] = noisy[:, 0] @ rotation_exp(first)
    mean = turn_agreed(noisy)[0, 0, 1:, :, 1].mean(0)
    cosine = torch.nn.functional.cosine_similarity(mean, first, dim=0)
    torch.testing.assert_close(cosine.abs(), torch.tensor(1.0, **DOUBLE), atol=0.01, rtol=0)
    assert mean.norm() > 0.1


def test_elements_without_embedding_are_refused(network):
    strange = replace(molecules(), numbers=torch.full((BATCH, 5), HEAVIEST + 1))
    with pytest.raises(InputError, match="plutonium"):
        network.read(strange)


def test_contacts_are_sums_over_anchors():
    """Against the definition, one term at a time."""
    torch.manual_seed(0)
    network = ClusterNetwork(16, layers=1, anchor_width=8, touches=3, shells=4).double()
    contacts: Contacts = network.contacts
    molecule = network.read(molecules())
    centroid, frame, _ = cluster()
    i, j, b = 2, 4, 1
    where = (centroid[:, None] - centroid[:, :, None]) @ frame * (0.5 * TOUCH / 10)
    lies = frame.mT[:, :, None] @ frame[:, None]
    found = contacts(where, lies, molecule)
    x, look, seen = (
        molecule.anchors[b],
        contacts.look(molecule.features[b]),
        contacts.seen(molecule.features[b]),
    )
    wanted = [0, 0, 0]
    for k in range(4):
        for q in range(4):
            r = where[b, i, j] + lies[b, i, j] @ x[q] - x[k]
            g = (contacts.radial(r.norm())[:, None] * (look[k] * seen[q])).flatten()
            u = r / r.norm().clamp(min=0.5)
            terms = (g, u[:, None] * g, torch.linalg.cross(x[k], u)[:, None] * g)
            wanted = [total + term for total, term in zip(wanted, terms)]
    assert wanted[0].abs().max() > 1e-4
    for got, total in zip(found, wanted):
        torch.testing.assert_close(got[b, i, j], total, atol=1e-12, rtol=0)
