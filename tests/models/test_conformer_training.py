"""`nucleate train confgf`: conformers are read and counted, both methods train, and the weights make conformers."""

from pathlib import Path

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from nucleate.crystal.bond_graph import bond_graph
from nucleate.crystal.molecule import Molecule
from nucleate.data.conformers import ConformerSet, write_conformers
from nucleate.errors import InputError
from nucleate.generative.seeds import generator_of
from nucleate.models.conformer_training import ConformerSettings, drawn, prepare
from nucleate.pipeline.conformer_models import read_conformer_model
from nucleate.pipeline.train import train

SMILES = ["CCO", "C[C@H](N)C(=O)O", "C/C=C/O", "c1ccncc1", "CC(C)=O", "NC=O"]
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
pair_width = 16
steps = 3
levels = 2
level_steps = 2
batch = 2
validate_on = 2
"""


def conformers_of(smiles: str, n: int = 3) -> ConformerSet:
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(graph, n, randomSeed=5)
    x = torch.stack([torch.from_numpy(c.GetPositions()) for c in graph.GetConformers()])
    graph.RemoveAllConformers()
    even = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    return ConformerSet(Molecule(graph, x), torch.zeros(len(x), dtype=torch.float64), even)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("conformers")
    sets = [conformers_of(s) for s in SMILES]
    for split, some in (("train", sets[:4]), ("val", sets[4:])):
        (place / split).mkdir()
        write_conformers(some, place / split / "00000.parquet", {"split": split})
    return place


@pytest.mark.parametrize(("method", "samplers"), [("flow", ["fast"]), ("scores", ["ald", "distances"])])
def test_a_method_trains_and_its_weights_make_conformers(
    method: str, samplers: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.toml").write_text(SETTINGS.format(method=method))
    card = train("confgf", folder, tmp_path / "out", settings=tmp_path / "own.toml").card
    assert (card["step"], card["data"]["molecules"], card["data"]["held_out_molecules"]) == (2, 4, 2)
    assert ("nearest" in card["metrics"]) == (method == "flow")
    monkeypatch.setattr("nucleate.models.confgf.EMBED_STEPS", 2)
    held = prepare(ConformerSettings(method=method, validate_on=1), folder).trainable
    for sampler in samplers:
        model = read_conformer_model(sampler, tmp_path / "out" / "weights.safetensors")
        x = model.sample(held.held.graphs, generator_of(1))
        assert x.shape == held.held.positions.shape
        assert x.isfinite().all()
    other = "ald" if method == "flow" else "fast"
    with pytest.raises(InputError, match="expected weights of method"):
        read_conformer_model(other, tmp_path / "out" / "weights.safetensors")


def test_every_conformer_of_a_molecule_is_drawn() -> None:
    one = conformers_of("CCCO", 3)
    graph, generator = bond_graph(one.molecule.graph), generator_of(0)
    shown = [drawn([one], [graph], generator).positions[0] for _ in range(40)]
    near = torch.stack(
        [torch.stack([(x - y).norm() for y in one.molecule.conformers.float()]) for x in shown]
    )
    assert near.min(1).values.max() < 1e-4
    assert set(near.argmin(1).tolist()) == {0, 1, 2}


def test_what_cannot_be_learnt_from_is_counted(folder: Path) -> None:
    lesson = prepare(ConformerSettings(most_atoms=11), folder)
    assert lesson.about["left_out"] == {"larger molecule": 1}
    with pytest.raises(InputError, match="at most 3 atoms"):
        prepare(ConformerSettings(most_atoms=3), folder)
