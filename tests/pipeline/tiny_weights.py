"""Weights of `nucleate train molcrystalflow` that have learnt next to nothing: a few steps on unrelaxed packings."""

from pathlib import Path

from nucleate.data.packed import PackedCrystal, to_row, write_shard
from nucleate.pipeline.generate import arms, random_packings
from nucleate.pipeline.train import WEIGHTS, train
from tests.pipeline.conftest import composition_of

LEARNT, HELD_OUT = ("CO", "CC#N", "NC=O"), "CC(C)=O"  # acetone is one of those that are validated on
SETTINGS = """
[training]
steps = 3
warm_up = 1
validate_every = 3
tensorboard = false
seed = {seed}

[model]
width = 16
layers = 1
batch = 4
validate_on = 2
steps = 1
"""


def write_tiny_weights(folder: Path, seed: int = 0) -> Path:
    """Made by the program's own way from packings to weights."""
    rows = []
    for smiles in (*LEARNT, HELD_OUT):
        composition = composition_of(smiles)
        packings = random_packings(composition, arms(composition, "14")[0], 0, 3, 0)
        rows += [to_row(PackedCrystal(packings[i], f"{smiles}-{i}", "synthetic")) for i in range(3)]
    data = folder / "data"
    data.mkdir(parents=True)
    write_shard(rows, data / "00000.parquet", {"settings": {}, "outcomes": {}})
    settings = folder / "settings.toml"
    settings.write_text(SETTINGS.format(seed=seed))
    return train("molcrystalflow", data, folder / "trained", settings=settings).folder / WEIGHTS
