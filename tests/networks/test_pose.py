"""The pose network turns with the crystal and does not see how the crystal is written down."""

import math
from dataclasses import replace

import pytest
import torch

from nucleate.geometry.so3 import random_rotation, rotation_exp
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.networks import pose
from nucleate.networks.pose import (
    AnchorEncoder,
    MoleculeBatch,
    PoseCondition,
    PoseNetwork,
    cartesian_operations,
    find_cell_vectors,
    find_contacts,
    find_images,
)

GROUPS = ["P1", "P-1", "P21/c", "P212121", "C2/c", "Pna21"]
every_group = pytest.mark.parametrize("name", GROUPS)
DOUBLE = {"dtype": torch.float64}
BODIES = 2


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return (
        PoseNetwork(16, layers=2, contact_width=16, contact_layers=2, neighbours=20, contacts=10)
        .double()
        .eval()
    )


def crystal(name, network, seed=1):
    """Two molecules of five atoms in the asymmetric unit of a cell of the group, two crystals a batch."""
    g = seeded(seed)
    group = SpaceGroup.from_name(name)
    lattice = torch.diag_embed(
        6.0 * len(group) ** (1 / 3) * (1 + 0.2 * torch.rand(2, 3, generator=g, **DOUBLE))
    )
    if group.family == "monoclinic":
        lattice[:, 2, 0] = -1.3
    if group.family == "triclinic":
        lattice += 0.5 * torch.randn(2, 3, 3, generator=g, **DOUBLE)
    numbers = torch.tensor([[6, 8, 7, 1, 6], [6, 6, 16, 1, 0]])
    positions = 1.2 * torch.randn(2, 5, 3, generator=g, **DOUBLE)
    molecules = MoleculeBatch(
        numbers=numbers,
        positions=positions,
        anchor=torch.tensor([[0, 1, 2, 2, 3], [0, 1, 2, 2, 0]]),
        anchors=torch.stack([positions[:, 0], positions[:, 1], positions[:, 2], positions[:, 4]], 1),
        present=torch.tensor([[True] * 4, [True] * 3 + [False]]),
    )
    which = torch.tensor([[0, 1], [1, 1]])
    hand = torch.tensor([[1.0, -1.0], [1.0, 1.0]], **DOUBLE)
    condition = PoseCondition(
        anchors=molecules.anchors[which],
        axes=random_rotation(2, generator=g)[which],
        hand=hand,
        present=molecules.present[which],
        features=network.encoder(molecules)[which],
        rotations=group.rotations.double().expand(2, -1, -1, -1),
        translations=group.translations.double().expand(2, -1, -1),
        operations=torch.ones(2, len(group), dtype=torch.bool),
        log_volume=torch.tensor([5.0, 5.5], **DOUBLE),
        above=torch.tensor([0.0, 3.0], **DOUBLE),
    )
    centroid = torch.rand(2, BODIES, 3, generator=g, **DOUBLE)
    rotation = random_rotation(2, BODIES, generator=g)
    return lattice, centroid, rotation, torch.tensor([0.2, 0.7], **DOUBLE), condition


def close(a, b):
    for x, y in zip(a, b):
        assert x.abs().max() > 1e-4  # a network that says nothing would pass everything
        torch.testing.assert_close(x, y, atol=1e-8, rtol=1e-6)


@every_group
def test_turning_the_crystal_turns_the_answer(name, network):
    lattice, centroid, rotation, t, condition = crystal(name, network)
    strain, shift, turn = network(lattice, centroid, rotation, t, condition)
    U = random_rotation(generator=seeded(7))
    answer = network(lattice @ U.T, centroid, U @ rotation, t, condition)
    close(answer, (U @ strain @ U.T, shift @ U.T, turn @ U.T))


@every_group
def test_the_mirror_image_has_the_mirrored_answer(name, network):
    lattice, centroid, rotation, t, condition = crystal(name, network)
    strain, shift, turn = network(lattice, centroid, rotation, t, condition)
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], **DOUBLE))
    # minus the reflected axes are right-handed; x -> -x leaves W as it is
    reflected = replace(condition, hand=-condition.hand, translations=-condition.translations)
    answer = network(-lattice @ mirror, -centroid, -mirror @ rotation, t, reflected)
    close(answer, (mirror @ strain @ mirror, shift @ mirror, -turn @ mirror))


@every_group
def test_another_cell_gives_the_same_answer(name, network):
    lattice, centroid, rotation, t, condition = crystal(name, network)
    P = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]], **DOUBLE)
    inverse = torch.linalg.inv(P)
    other = replace(
        condition,
        rotations=inverse.T @ condition.rotations @ P.T,
        translations=condition.translations @ inverse,
    )
    answer = network(P @ lattice, centroid @ inverse, rotation, t, other)
    close(answer, network(lattice, centroid, rotation, t, condition))


@every_group
def test_another_origin_and_other_lattice_points_give_the_same_answer(name, network):
    lattice, centroid, rotation, t, condition = crystal(name, network)
    p = torch.tensor([0.31, -0.12, 0.77], **DOUBLE)
    eye = torch.eye(3, **DOUBLE)
    moved = replace(condition, translations=condition.translations + (eye - condition.rotations) @ p)
    hop = torch.tensor([[[1.0, 0, -2], [0, 3, 0]]], **DOUBLE)
    answer = network(lattice, centroid + p + hop, rotation, t, moved)
    close(answer, network(lattice, centroid, rotation, t, condition))


@every_group
def test_another_asymmetric_unit_gives_the_image_of_the_answer(name, network):
    lattice, centroid, rotation, t, condition = crystal(name, network)
    strain, shift, turn = network(lattice, centroid, rotation, t, condition)
    op = condition.rotations.shape[1] - 1
    W, w = condition.rotations[:, op], condition.translations[:, op]
    Q = cartesian_operations(lattice, condition.rotations)[:, op]
    sign = torch.linalg.det(Q).round()
    centroid, rotation = centroid.clone(), rotation.clone()
    centroid[:, 0] = torch.einsum("bij,bj->bi", W, centroid[:, 0]) + w
    rotation[:, 0] = sign[:, None, None] * Q @ rotation[:, 0]
    hand = condition.hand.clone()
    hand[:, 0] *= sign
    answer = network(lattice, centroid, rotation, t, replace(condition, hand=hand))
    shift, turn = shift.clone(), turn.clone()
    shift[:, 0] = torch.einsum("bij,bj->bi", Q, shift[:, 0])
    turn[:, 0] = sign[:, None] * torch.einsum("bij,bj->bi", Q, turn[:, 0])
    close(answer, (strain, shift, turn))


@every_group
def test_the_frame_of_a_conformer_does_not_matter(name, network):
    """Atoms, axes and poses told in another frame are the same molecules."""
    lattice, centroid, rotation, t, condition = crystal(name, network)
    A = random_rotation(2, BODIES, generator=seeded(8))
    other = replace(condition, anchors=condition.anchors @ A.mT, axes=condition.axes @ A.mT)
    answer = network(lattice, centroid, rotation @ A.mT, t, other)
    close(answer, network(lattice, centroid, rotation, t, condition))


@every_group
def test_a_vector_of_the_cell_counts_as_its_negative(name, network):
    lattice, _, rotation, _, condition = crystal(name, network)
    here = find_cell_vectors(lattice, condition)
    there = replace(here, direction=-here.direction)
    torch.testing.assert_close(here.seen_from(rotation), there.seen_from(rotation))
    assert (here.kept[..., 2] <= 1 + 1e-9).all()
    assert (here.weight.sum(1) > 3).all()


@every_group
def test_but_for_what_the_group_is_told_symmetry_written_out_gives_the_same_answer(
    name, network, monkeypatch: pytest.MonkeyPatch
):
    """All molecules of the cell in P1: the strain is equal, and the shifts are images of each other.

    Which lattice vectors the group keeps is told on purpose, so that P1 is another question: here nobody is told.
    """

    def untold(lattice, condition):
        found = find_cell_vectors(lattice, condition)
        return replace(found, kept=torch.zeros_like(found.kept))

    monkeypatch.setattr(pose, "find_cell_vectors", untold)
    lattice, centroid, rotation, t, condition = crystal(name, network)
    strain, shift, turn = network(lattice, centroid, rotation, t, condition)
    W, w = condition.rotations, condition.translations
    ops = W.shape[1]
    Q = cartesian_operations(lattice, W)
    sign = torch.linalg.det(Q).round()
    everywhere = {
        "anchors": condition.anchors.repeat(1, ops, 1, 1),
        "axes": condition.axes.repeat(1, ops, 1, 1),
        "hand": (condition.hand[:, None] * sign[..., None]).flatten(1),
        "present": condition.present.repeat(1, ops, 1),
        "features": condition.features.repeat(1, ops, 1, 1),
        "rotations": torch.eye(3, **DOUBLE).expand(2, 1, 3, 3),
        "translations": torch.zeros(2, 1, 3, **DOUBLE),
        "operations": torch.ones(2, 1, dtype=torch.bool),
    }
    images = torch.einsum("bgij,bmj->bgmi", W, centroid) + w[:, :, None]
    turned = sign[..., None, None, None] * Q[:, :, None] @ rotation[:, None]
    answer = network(lattice, images.flatten(1, 2), turned.flatten(1, 2), t, replace(condition, **everywhere))
    shifts = torch.einsum("bgij,bmj->bgmi", Q, shift).flatten(1, 2)
    turns = (sign[..., None, None] * torch.einsum("bgij,bmj->bgmi", Q, turn)).flatten(1, 2)
    close(answer, (strain, shifts, turns))


def test_the_order_of_molecules_does_not_matter(network):
    lattice, centroid, rotation, t, condition = crystal("P21/c", network)
    strain, shift, turn = network(lattice, centroid, rotation, t, condition)
    swapped = replace(
        condition,
        anchors=condition.anchors.flip(1),
        axes=condition.axes.flip(1),
        hand=condition.hand.flip(1),
        present=condition.present.flip(1),
        features=condition.features.flip(1),
    )
    answer = network(lattice, centroid.flip(1), rotation.flip(1), t, swapped)
    close(answer, (strain, shift.flip(1), turn.flip(1)))


def test_padding_changes_nothing(network):
    lattice, centroid, rotation, t, condition = crystal("P21/c", network)
    padded = replace(
        condition,
        anchors=torch.nn.functional.pad(condition.anchors, (0, 0, 0, 2), value=1.0),
        present=torch.nn.functional.pad(condition.present, (0, 2)),
        features=torch.nn.functional.pad(condition.features, (0, 0, 0, 2), value=3.0),
        rotations=torch.cat([condition.rotations, torch.eye(3, **DOUBLE).expand(2, 2, 3, 3)], 1),
        translations=torch.nn.functional.pad(condition.translations, (0, 0, 0, 2), value=0.3),
        operations=torch.nn.functional.pad(condition.operations, (0, 2)),
    )
    answer = network(lattice, centroid, rotation, t, padded)
    close(answer, network(lattice, centroid, rotation, t, condition))


@every_group
def test_it_sees_how_molecules_lie_in_the_cell(name, network):
    """Turning every molecule alike while the cell stays is another crystal: the published network cannot see it."""
    lattice, centroid, rotation, t, condition = crystal(name, network)
    strain, shift, turn = network(lattice, centroid, rotation, t, condition)
    U = rotation_exp(torch.tensor([0.4, -0.8, 0.3], **DOUBLE))
    other_strain, other_shift, _ = network(lattice, centroid, U @ rotation, t, condition)
    assert (other_strain - strain).abs().max() > 1e-4
    assert (other_shift - shift).abs().max() > 1e-4


@every_group
def test_the_strain_keeps_the_group(name, network):
    lattice, centroid, rotation, t, condition = crystal(name, network)
    strain, _, _ = network(lattice, centroid, rotation, t, condition)
    Q = cartesian_operations(lattice, condition.rotations)
    torch.testing.assert_close(Q @ strain[:, None] @ Q.mT, strain[:, None].expand_as(Q))
    torch.testing.assert_close(strain, strain.mT)


@every_group
def test_contacts_are_the_nearest_anchors_of_other_molecules(name, network):
    """Against all images within three cells."""
    lattice, centroid, rotation, _, condition = crystal(name, network)
    frame = condition.hand[..., None, None] * rotation
    arms = condition.anchors @ frame.mT
    images = find_images(lattice, centroid, frame, condition, neighbours=40)
    near = find_contacts(condition.anchors, frame, images, condition, contacts=6)
    span = torch.arange(-3.0, 4.0, **DOUBLE)
    shifts = torch.cartesian_prod(span, span, span)
    W, w = condition.rotations[0], condition.translations[0]
    Q = cartesian_operations(lattice, condition.rotations)[0]
    images = (torch.einsum("gij,mj->gmi", W, centroid[0]) + w[:, None])[..., None, :] + shifts
    points = (images @ lattice[0])[..., None, :] + torch.einsum("gij,mkj->gmki", Q, arms[0])[:, :, None]
    own = torch.zeros(points.shape[:-1], dtype=torch.bool)
    zero = int((shifts.abs().sum(1) == 0).nonzero())
    for m in range(BODIES):
        outside = own.clone()
        outside[0, m, zero] = True
        outside |= ~condition.present[0][None, :, None, :]
        start = centroid[0, m] @ lattice[0] + arms[0, m]
        gaps = torch.cdist(start, points.flatten(0, 3))
        gaps[:, outside.flatten()] = math.inf
        expected = gaps.sort(-1).values[:, :6]
        found = near.distance[0, m].sort(-1).values
        real = condition.present[0, m]
        torch.testing.assert_close(found[real], expected[real], atol=1e-6, rtol=0)


def test_gradients_reach_every_parameter(network):
    lattice, centroid, rotation, t, condition = crystal("P21/c", network)
    for parameter in network.parameters():
        parameter.grad = None
    sum(x.square().sum() for x in network(lattice, centroid, rotation, t, condition)).backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_single_precision_agrees(network):
    lattice, centroid, rotation, t, condition = crystal("P212121", network)
    single = PoseNetwork(16, layers=2, contact_width=16, contact_layers=2, neighbours=20, contacts=10)
    single.load_state_dict(network.state_dict())
    floats = {
        n: (x.float() if x.is_floating_point() else x)
        for n, x in ((n, getattr(condition, n)) for n in condition.__dataclass_fields__)
    }
    answer = single(lattice.float(), centroid.float(), rotation.float(), t.float(), PoseCondition(**floats))
    for a, b in zip(answer, network(lattice, centroid, rotation, t, condition)):
        torch.testing.assert_close(a.double(), b, atol=1e-4, rtol=1e-3)


def test_the_encoder_hears_other_atoms_alone():
    """Forty atoms in single precision, where distances by matrix products leave something of an atom to itself."""
    torch.manual_seed(1)
    encoder = AnchorEncoder(16)
    positions = 3 * torch.randn(1, 40, 3, generator=seeded(5))
    molecules = MoleculeBatch(
        numbers=torch.full((1, 40), 6),
        positions=positions + 8.0,
        anchor=torch.arange(40)[None] % 4,
        anchors=positions[:, :4],
        present=torch.ones(1, 4, dtype=torch.bool),
    )
    turned = replace(molecules, positions=positions @ random_rotation(generator=seeded(6)).float().T)
    torch.testing.assert_close(encoder(molecules), encoder(turned), atol=2e-4, rtol=0)


def test_half_precision_does_not_touch_geometry(network):
    """Under autocast the numbers may round, the places may not: the strain keeps the group exactly."""
    lattice, centroid, rotation, t, condition = crystal("P21/c", network)
    single = PoseNetwork(16, layers=2, contact_width=16, contact_layers=2, neighbours=20, contacts=10)
    floats = {
        n: (x.float() if x.is_floating_point() else x)
        for n, x in ((n, getattr(condition, n)) for n in condition.__dataclass_fields__)
    }
    with torch.autocast("cpu", torch.bfloat16):
        strain, shift, turn = single(
            lattice.float(), centroid.float(), rotation.float(), t.float(), PoseCondition(**floats)
        )
    assert {x.dtype for x in (strain, shift, turn)} == {torch.float32}
    Q = cartesian_operations(lattice.float(), condition.rotations.float())
    torch.testing.assert_close(Q @ strain[:, None] @ Q.mT, strain[:, None].expand_as(Q), atol=1e-5, rtol=0)
