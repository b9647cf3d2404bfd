"""`nucleate train crystallization`: clusters are read and counted, every method trains, and the weights load again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nucleate.crystal.cluster import Cluster, ClusterBatch
from nucleate.crystal.io import read_crystal
from nucleate.data.cluster_files import ClusterRecord, write_clusters
from nucleate.data.clusters import Loosening, cluster_of, evaluation_copies
from nucleate.errors import InputError
from nucleate.generative.seeds import seed_of
from nucleate.generative.train_settings import TrainSettings
from nucleate.generative.training import fit
from nucleate.models.crystallization import Walk
from nucleate.models.crystallization_published import METHODS
from nucleate.models.crystallization_training import (
    CrystallizationSettings,
    crystallizer_of,
    mean_errors,
    pairs_of,
    prepare,
)
from nucleate.pipeline.train import train
from nucleate.weights import read_weights

DATA = Path(__file__).parents[1] / "data"
NAMES = ("1100989", "2100840", "2003630", "7100858")
SMALL = {"width": 16, "layers": 1, "basis": 6, "batch": 2, "validate_on": 2, "steps": 2}
SETTINGS = """
[training]
steps = 2
warm_up = 1
validate_every = 2
tensorboard = false

[model]
method = "{method}"
width = 16
layers = 1
basis = 6
batch = 2
validate_on = 1
steps = 2
"""


@pytest.fixture(scope="module")
def clusters() -> list[Cluster]:
    """Small ones, of five molecules each."""
    return [cluster_of(read_crystal(DATA / f"cod_{name}.cif"), 5) for name in NAMES]


def write(folder: Path, train: list[ClusterRecord], val: list[ClusterRecord]) -> Path:
    for split, records in (("train", train), ("val", val)):
        (folder / split).mkdir(parents=True)
        write_clusters(records, folder / split / "00000.parquet", {"split": split})
    return folder


@pytest.fixture
def folder(tmp_path: Path, clusters: list[Cluster]) -> Path:
    records = [ClusterRecord(c) for c in clusters]
    return write(tmp_path / "data", records[:3], records[2:])


@pytest.mark.parametrize("method", ["rigid", *METHODS])
def test_every_method_trains_and_its_weights_load_again(method: str, folder: Path, tmp_path: Path):
    (tmp_path / "own.toml").write_text(SETTINGS.format(method=method))
    card = train("crystallization", folder, tmp_path / "out", settings=tmp_path / "own.toml").card
    assert (card["step"], card["stopped"]) == (2, "steps")
    assert card["metrics"]["pm_center_permuted"] > 0
    weights = read_weights(tmp_path / "out" / "weights.safetensors", "crystallization")
    settings = weights.settings(CrystallizationSettings)
    assert settings.method == method
    loaded = weights.fill(crystallizer_of(settings))

    training = TrainSettings.model_validate(card["training"])
    torch.manual_seed(seed_of(training.seed, "first weights"))
    lesson = prepare(settings, folder)
    network = lesson.trainable.network
    network.load_state_dict(fit(lesson.trainable, lesson.batches, training, tmp_path / "again").weights)
    held = lesson.trainable.held
    loose = ClusterBatch(held.final.numbers, held.loose)
    samples = [m.sample(loose, torch.Generator().manual_seed(1), Walk(2)) for m in (network.eval(), loaded)]
    assert torch.equal(*samples)
    assert samples[0].isfinite().all()


def test_what_cannot_be_learnt_from_is_counted(tmp_path: Path, clusters: list[Cluster]):
    sizes = [len(c.numbers) for c in clusters]
    assert sorted(sizes)[-2] < max(sizes)
    exotic = replace(clusters[0], numbers=torch.full_like(clusters[0].numbers, 96))
    records = [ClusterRecord(c) for c in (*clusters, exotic)]
    data = write(tmp_path / "data", records, [records[sizes.index(min(sizes))]])
    lesson = prepare(CrystallizationSettings(**SMALL, most_atoms=max(sizes) - 1), data)
    assert lesson.about["clusters"] == 3
    assert lesson.about["left_out"] == {"larger molecule": 1, "unknown element": 1}
    with pytest.raises(InputError, match="at most 1 atoms of the split train"):
        prepare(CrystallizationSettings(**SMALL, most_atoms=1), data)


def test_a_folder_needs_clusters_to_validate_on(tmp_path: Path, clusters: list[Cluster]):
    (tmp_path / "train").mkdir()
    write_clusters([ClusterRecord(clusters[0])], tmp_path / "train" / "0.parquet", {"split": "train"})
    with pytest.raises(InputError, match="of the split val"):
        prepare(CrystallizationSettings(**SMALL), tmp_path)


def test_loose_clusters_of_the_data_are_believed(tmp_path: Path, clusters: list[Cluster]):
    """Both to learn from and to validate on; clusters without them beside others are refused, and so are sizes."""
    copies = evaluation_copies(clusters, Loosening(translation=0.5), 3)
    fixed = [ClusterRecord(*pair) for pair in zip(clusters, copies)]
    lesson = prepare(CrystallizationSettings(**SMALL), write(tmp_path / "a", fixed[:3], fixed[3:]))
    assert torch.equal(lesson.trainable.held.loose[0], copies[3].positions.float())
    batch = next(lesson.batches.batches(0))
    offset = (batch.loose - batch.final.positions).flatten(1, 2).mean(1).norm(dim=1)
    assert offset.shape == (2,)
    assert offset.max() < 1.0

    mixed = [fixed[0], ClusterRecord(clusters[1])]
    with pytest.raises(InputError, match="or of none, got some"):
        prepare(CrystallizationSettings(**SMALL), write(tmp_path / "b", mixed, fixed[3:]))
    small = clusters[1].with_positions(clusters[1].positions[:4])
    sizes = [ClusterRecord(clusters[0]), ClusterRecord(small)]
    with pytest.raises(InputError, match=r"got \[4, 5\]"):
        prepare(CrystallizationSettings(**SMALL), write(tmp_path / "c", sizes, [sizes[0]]))


def test_validation_is_on_fixed_loose_copies(folder: Path):
    lessons = [prepare(CrystallizationSettings(**SMALL), folder) for _ in range(2)]
    one, other = (lesson.trainable.held for lesson in lessons)
    assert torch.equal(one.loose, other.loose)
    with torch.no_grad():
        found = lessons[0].trainable.validate(torch.Generator().manual_seed(0))
    again = mean_errors(one.final, one.loose)
    assert {name: found[f"{name}_loose"] for name in again} == again
    assert found["rmsd_loose"] > 0.5


def test_errors_of_the_truth_are_none_and_of_nothing_unknown(clusters: list[Cluster]):
    truth = pairs_of([ClusterRecord(c) for c in clusters]).final
    assert max(mean_errors(truth, truth.positions).values()) < 1e-4
    order = [0, 2, 1, 4, 3]
    exchanged = mean_errors(truth, truth.positions[:, order])
    assert exchanged["pm_center"] > 0.05
    assert max(exchanged["pm_center_permuted"], exchanged["rmsd"]) < 1e-4
    broken = truth.positions.clone()
    broken[0, 0, 0, 0] = torch.nan
    assert all(value != value for value in mean_errors(truth, broken).values())
