"""Flow matching in a space group: every description of a crystal is the same target, and symmetry is exact."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.crystal.standardise import represent_symmetric
from nucleate.data.packed import PackedCrystal, to_row, write_shard
from nucleate.data.poses import canonical_states, poses_of
from nucleate.errors import InputError
from nucleate.geometry.lattice import lattice_from_log
from nucleate.geometry.so3 import rotation_log
from nucleate.geometry.torus import wrap_difference
from nucleate.metrics.packing import PackingReference
from nucleate.models.molcrystalflow import (
    FLOW,
    PoseFlow,
    Task,
    build,
    nearest_target,
    strain_between,
)
from nucleate.models.molcrystalflow_training import (
    MolCrystalFlowSettings,
    distance_to_known,
    network_of,
    prepare,
)
from nucleate.networks.pose import PoseNetwork, cartesian_operations

DATA = Path(__file__).parents[1] / "data"
NAMES = [
    "7210454",
    "1100989",
    "2003630",
    "4110681",
    "7100858",
]  # P21/c, P21/c, P21, P-1 in P21/c (Z' = 1/2), Pna21


@pytest.fixture(scope="module")
def packed():
    found = []
    for name in NAMES:
        packing, _ = represent_symmetric(normalise_hydrogens(read_crystal(DATA / f"cod_{name}.cif")))
        found.append(PackedCrystal(packing, name, "cod"))
    return [c for c in found if c.packing.n_bodies == 1]


@pytest.fixture(scope="module")
def poses(packed):
    assert len(packed) >= 4
    return poses_of(packed, 1)


@pytest.fixture
def flow():
    torch.manual_seed(0)
    return PoseFlow(PoseNetwork(16, layers=1, contact_width=16, neighbours=8, contacts=8))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def task_of(poses):
    return Task(poses.molecule, poses.hand, poses.group)


def row(state, i):
    return {name: value[i : i + 1] for name, value in state.items()}


def state_of(poses):
    return {name: getattr(poses, name)[:, 0] for name in ("lattice", "centroid", "rotation")}


def test_represent_and_build_undo_each_other(packed, poses):
    for i, crystal in enumerate(packed):
        back = build(row(state_of(poses), i), crystal.packing)
        match = PackingReference(crystal.packing.crystal(0)).compare(back.crystal(0))
        assert match.is_match
        assert match.rmsd < 1e-4


def test_another_origin_of_the_group_changes_centroids_alone(packed):
    packing = packed[0].packing
    k, centroid, rotation = canonical_states(packing)
    again = canonical_states(replace(packing, centroid=packing.centroid + 0.5))
    torch.testing.assert_close(again[0], k)
    torch.testing.assert_close(again[2], rotation)
    assert wrap_difference(2 * (again[1] - centroid)).abs().max() < 1e-9
    assert wrap_difference(again[1] - centroid).abs().max() > 0.4


def test_noise_has_cells_that_the_group_allows_and_the_expected_volume(poses, flow):
    many = poses[torch.arange(len(poses)).repeat(200)]
    noise = flow.prior(many.molecules, many.groups, task_of(many), seeded())
    metric = lattice_from_log(noise["lattice"]) @ lattice_from_log(noise["lattice"])
    W = many.groups.rotations[many.group]
    turned = W.mT @ metric[:, None] @ W  # the metric tensor is the same in the axes of every operation
    there = many.groups.operations[many.group]
    torch.testing.assert_close(turned[there], metric[:, None].expand_as(turned)[there], rtol=2e-4, atol=2e-3)
    log_volume = math.sqrt(3) * noise["lattice"][:, 5]
    away = log_volume - flow.log_volume(many.molecules, many.groups, task_of(many))
    assert away.mean().abs() < 0.01
    assert away.std() == pytest.approx(0.06, abs=0.006)


def test_the_nearest_target_is_the_same_crystal_and_no_farther(packed, poses, flow):
    noise = flow.prior(poses.molecules, poses.groups, task_of(poses), seeded(1))
    target, _ = nearest_target(poses, noise)
    assert not torch.allclose(target["rotation"], poses.rotation[:, 0], atol=1e-3)

    def cost(state):
        S = lattice_from_log(state["lattice"])
        shift = (wrap_difference(state["centroid"] - noise["centroid"]) @ S).square().sum(-1)
        turn = (state["rotation"] - noise["rotation"]).square().sum((-1, -2))
        cell = 0.25 * torch.linalg.det(S) ** (2 / 3) * (state["lattice"] - noise["lattice"]).square().sum(1)
        return cell + (shift + 0.5 * poses.molecules.gyration[poses.molecule] ** 2 * turn).mean(1)

    assert (cost(target) <= cost(state_of(poses)) + 1e-4).all()
    for i, crystal in enumerate(packed):
        built = build(row(target, i), crystal.packing)
        match = PackingReference(crystal.packing.crystal(0)).compare(built.crystal(0))
        assert match.is_match
        assert match.rmsd < 0.2  # molecular symmetries are near-symmetries
    assert (torch.linalg.det(target["rotation"]) > 0).all()


def test_a_crystal_is_its_own_nearest_target(poses):
    own = state_of(poses)
    target, distance = nearest_target(poses, own)
    assert distance.max() < 1e-2
    assert wrap_difference(target["centroid"] - own["centroid"]).abs().max() < 1e-5
    torch.testing.assert_close(target["rotation"], own["rotation"], atol=1e-5, rtol=0)
    torch.testing.assert_close(target["lattice"], own["lattice"])
    assert distance_to_known(own, task_of(poses), poses).max() < 1e-2


def test_every_short_cell_holds_the_same_crystal(packed, poses):
    """With an acute and with an obtuse angle, and with axes exchanged where the group lets them."""
    assert poses.short.sum() > len(poses)
    for i, crystal in enumerate(packed):
        reference = PackingReference(crystal.packing.crystal(0))
        for cell in torch.nonzero(poses.short[i]).flatten().tolist():
            state = {n: getattr(poses, n)[i : i + 1, cell] for n in ("lattice", "centroid", "rotation")}
            match = reference.compare(build(state, crystal.packing).crystal(0))
            assert match.is_match
            assert match.rmsd < 1e-4


class Oracle(nn.Module):
    """Knows the target of each crystal."""

    def __init__(self, target, encoder):
        super().__init__()
        self.target, self.encoder = target, encoder

    def forward(self, lattice, centroid, rotation, t, condition):
        S_1 = lattice_from_log(self.target["lattice"])
        strain, U = strain_between(lattice, S_1)
        aim = U.mT[:, None] @ self.target["rotation"]
        turn = torch.einsum("bmij,bmj->bmi", rotation, rotation_log(rotation.mT @ aim))
        return strain, wrap_difference(self.target["centroid"] - centroid) @ lattice, turn


@pytest.mark.parametrize("steps", [1, 7])
def test_a_network_that_knows_the_crystal_samples_it(poses, flow, steps):
    """The frames of strain, turn and symmetric cell fit together: any number of steps ends on the target."""
    noise = flow.prior(poses.molecules, poses.groups, task_of(poses), seeded(2))
    target, _ = nearest_target(poses, noise)
    flow.network = Oracle(target, flow.network.encoder)
    end = flow.sample(poses.molecules, poses.groups, task_of(poses), seeded(), steps, start=noise)
    torch.testing.assert_close(end["lattice"], target["lattice"], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        wrap_difference(end["centroid"] - target["centroid"]),
        torch.zeros_like(end["centroid"]),
        atol=1e-4,
        rtol=0,
    )
    torch.testing.assert_close(end["rotation"], target["rotation"], atol=1e-3, rtol=0)


def test_samples_are_exactly_symmetric(poses, flow):
    """Whatever the network says, the cell stays one that the group allows."""
    end = flow.sample(poses.molecules, poses.groups, task_of(poses), seeded(3), 5)
    S = lattice_from_log(end["lattice"])
    Q = cartesian_operations(S, poses.groups.rotations[poses.group])
    there = poses.groups.operations[poses.group]
    eye = torch.eye(3).expand_as(Q)
    torch.testing.assert_close((Q @ Q.mT)[there], eye[there], atol=2e-3, rtol=0)
    torch.testing.assert_close(
        torch.linalg.det(end["rotation"]), torch.ones(len(poses), 1), atol=1e-4, rtol=0
    )


def test_the_seed_decides(poses, flow):
    a, b = (flow.sample(poses.molecules, poses.groups, task_of(poses), seeded(4), 3) for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in FLOW.product.factors)


def test_it_learns(poses, flow):
    """A hundred steps on the same noise lower the loss by much."""
    many = poses[torch.arange(len(poses)).repeat(4)]
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    losses = []
    for _ in range(120):
        loss, parts = flow(many, seeded())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert set(parts) == {"shift", "turn", "strain"}
    assert losses[-1] < 0.6 * losses[0]


def write_split(folder, crystals, split):
    folder.mkdir(exist_ok=True)
    write_shard([to_row(c) for c in crystals], folder / "00000.parquet", {"settings": {}, "split": split})


def test_training_reads_shards_and_validates_on_other_molecules(packed, tmp_path):
    """What `nucleate train molcrystalflow` calls, on a data set of a few crystals."""
    write_split(tmp_path / "train", packed[2:], "train")
    write_split(tmp_path / "val", packed[:2], "val")
    settings = MolCrystalFlowSettings(width=16, layers=1, batch=3, validate_on=6, steps=2)
    torch.manual_seed(0)
    lesson = prepare(settings, tmp_path)
    assert lesson.about["molecules"] == len({c.key for c in packed[2:]})
    assert lesson.about["held_out_molecules"] == len({c.key for c in packed[:2]})
    batch = next(lesson.batches.batches(seed=0))
    loss, parts = lesson.trainable.loss(batch, seeded())
    loss.backward()
    assert torch.isfinite(loss)
    with torch.no_grad():
        numbers = lesson.trainable.validate(seeded())
        again = lesson.trainable.validate(seeded())
    assert numbers == again
    assert {"loss", "found", "distance", "found_noise", "distance_noise"} <= set(numbers)
    assert math.isfinite(numbers["distance"])
    with pytest.raises(InputError, match="expected a data set"):
        prepare(settings, tmp_path / "nothing")
    with pytest.raises(InputError, match="of the split val"):
        prepare(settings, tmp_path / "train")
    heavy = to_row(packed[0])
    heavy["smiles"] = [text.replace("[O]", "[Hg]") for text in heavy["smiles"]]
    write_shard([heavy], tmp_path / "val" / "00001.parquet", {"settings": {}, "split": "val"})
    assert prepare(settings, tmp_path).about["left_out_unknown_elements"] == 1


def test_the_published_network_is_trained_by_name(packed, tmp_path):
    """Whole cells, learnt in P1 and in their groups; the same settings file, the same data."""
    write_split(tmp_path / "train", packed[2:], "train")
    write_split(tmp_path / "val", packed[:2], "val")
    whole = {"hidden": 16, "layers": 1, "molecule_width": 8}
    settings = MolCrystalFlowSettings(
        network="molcrystalnet", batch=3, validate_on=4, steps=2, whole_cell=whole
    )
    torch.manual_seed(0)
    lesson = prepare(settings, tmp_path)
    assert lesson.about["crystals"] == len(packed) - 2
    assert lesson.trainable.network.lattice_scores.scale.min() < 0.9  # fitted to the data
    batches = lesson.batches.batches(seed=0)
    loss, parts = lesson.trainable.loss(next(batches), seeded())
    loss.backward()
    assert torch.isfinite(loss)
    with torch.no_grad():
        numbers = lesson.trainable.validate(seeded())
        assert numbers == lesson.trainable.validate(seeded())
    assert {"distance", "distance_noise", "distance_group", "found", "volume_error"} <= set(numbers)
    assert all(math.isfinite(value) for value in numbers.values())
    with pytest.raises(InputError, match="network pose"):
        network_of(settings)
