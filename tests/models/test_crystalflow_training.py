"""`nucleate train crystalflow`: tables are read and split by composition, trained, and the weights load again."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from tests.crystal.inorganic import CRYSTALS, textbook

from nucleate.crystal.sites import Sites, primitive_niggli_sites
from nucleate.crystal.sites_cif import sites_cif_text
from nucleate.data.inorganic import read_table
from nucleate.errors import InputError
from nucleate.generative.seeds import generator_of
from nucleate.models.crystalflow import Sampling
from nucleate.models.crystalflow_training import CrystalFlowSettings, flow_of, prepare
from nucleate.pipeline.train import train
from nucleate.weights import read_weights

SMALL = {"width": 16, "layers": 1, "pair_width": 8, "validate_on": 8, "steps": 2, "batch": 8}
SETTINGS = """
[training]
steps = 4
warm_up = 1
validate_every = 2
tensorboard = false

[model]
width = 16
layers = 1
pair_width = 8
validate_on = 8
steps = 2
batch = 8
"""


def write_table(path: Path, crystals: list[Sites], gap: bool = True) -> None:
    columns = {"cif": [sites_cif_text(s, f"x{k}") for k, s in enumerate(crystals)]}
    if gap:
        columns["gap"] = [float(k) for k in range(len(crystals))]
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


@pytest.fixture
def folder(tmp_path):
    crystals = [primitive_niggli_sites(textbook(name)) for name in CRYSTALS]
    data = tmp_path / "data"
    data.mkdir()
    write_table(data / "some_train.parquet", crystals[:-3])
    write_table(data / "some_val.parquet", [*crystals[-3:], crystals[0]])
    return data


def test_a_folder_has_a_table_to_learn_from_and_one_to_validate_on(folder):
    lesson = prepare(CrystalFlowSettings(**SMALL), folder)
    learnt = read_table(folder / "some_train.parquet")
    held = lesson.trainable.held
    assert lesson.about["crystals"] == len(learnt.sites)
    assert len(held) == 3  # the crystal whose composition is learnt does not validate
    seen = torch.bincount(torch.cat([s.numbers for s in learnt.sites]), minlength=95)
    assert torch.equal(lesson.trainable.flow.seen, seen.float())


def test_of_a_single_table_compositions_are_kept_back(tmp_path):
    crystals = [primitive_niggli_sites(textbook(name)) for name in CRYSTALS]
    numbers = torch.arange(1, 90)
    many = [Sites(s.lattice, s.frac, (s.numbers + shift) % 80 + 1) for s in crystals for shift in numbers[:4]]
    path = tmp_path / "all.parquet"
    write_table(path, many)
    lesson = prepare(CrystalFlowSettings(**SMALL, conditions=("gap", "volume_per_atom")), path)
    held = len(lesson.trainable.held)
    assert 0 < held < len(many) / 4
    assert lesson.about["crystals"] + held == len(many)
    volume = lesson.trainable.held.properties["volume_per_atom"]
    torch.testing.assert_close(volume, lesson.trainable.held.volume_per_atom, rtol=1e-4, atol=1e-3)


def test_conditions_must_be_columns(folder):
    with pytest.raises(
        InputError, match=r"conditions: expected columns of the table \(volume_per_atom, gap\), got heat"
    ):
        prepare(CrystalFlowSettings(**SMALL, conditions=("heat",)), folder)


@pytest.mark.parametrize(
    "extra", ["", 'task = "dng"\nconditions = ["gap"]\n', 'network = "cspnet"\nrecipe = "published"\n']
)
def test_trained_weights_load_and_sample(folder, tmp_path, extra):
    (tmp_path / "s.toml").write_text(SETTINGS + extra)
    trained = train("crystalflow", folder, tmp_path / "out", settings=tmp_path / "s.toml")
    assert trained.card["step"] == 4
    assert ("found" in trained.card["metrics"]) == ("dng" not in extra)
    found = read_weights(tmp_path / "out" / "weights.safetensors", "crystalflow")
    flow = found.fill(flow_of(found.settings(CrystalFlowSettings)))
    contents = read_table(folder / "some_val.parquet")
    asked = prepare(CrystalFlowSettings(**SMALL), folder).trainable.held.contents
    built = flow.build(flow.sample(asked, [generator_of(1)], Sampling(2)), asked)
    assert all(isinstance(b, Sites) for b in built)
    assert len(contents.sites) == 4
    assert float(flow.sizes.sum()) == trained.card["data"]["crystals"]
