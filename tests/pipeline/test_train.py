"""`nucleate train`: settings from a file, a system by name, weights with a card, and a way back."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, Field

from nucleate import cli
from nucleate.errors import InputError
from nucleate.generative.checkpoint import read_tensors, write_tensors
from nucleate.generative.system import System
from nucleate.generative.train_settings import TrainSettings
from nucleate.generative.training import CHECKPOINT
from nucleate.pipeline.provenance import provenance
from nucleate.pipeline.systems import SYSTEMS, system_named
from nucleate.pipeline.train import (
    load_weights,
    read_settings,
    settings_text,
    train,
)
from tests.generative.toy import SYSTEM, Line, prepare

ROOT = Path(__file__).parents[2]
SETTINGS = """
[training]
steps = 30
warm_up = 3
log_every = 10
validate_every = 10
tensorboard = false

[model]
dropout = 0.2
"""


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SYSTEMS, "toy", "tests.generative.toy:SYSTEM")
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("own.toml").write_text(SETTINGS)


def quick(output: str = "out", **options: Any) -> dict[str, Any]:
    """The card of a training of 30 steps."""
    return train("toy", Path("data"), Path(output), **{"settings": Path("own.toml"), **options}).card


def refused(text: str) -> str:
    """What is said of a settings file."""
    Path("wrong.toml").write_text(text)
    with pytest.raises(InputError) as error:
        read_settings(Path("wrong.toml"), SYSTEM)
    return str(error.value)


# ------------------------------------------------------------------ what it writes


def test_weights_and_their_card():
    card = quick()
    assert card == json.loads(Path("out/model.json").read_text())
    assert (card["system"], card["stopped"], card["step"], card["weights_step"]) == ("toy", "steps", 30, 30)
    assert card["model"] == {"batch": 16, "dropout": 0.2}
    assert card["data"] == {"points": 64, "licence": "CC0"}
    assert card["training"] == TrainSettings.model_validate(tomllib.loads(SETTINGS)["training"]).model_dump(
        mode="json"
    )
    assert (card["parameters"], card["skipped"], card["started_from"]) == (41, 0, None)
    assert card["metrics"].keys() == {"rmse"}
    with Path("out/validation.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "10", "20", "30"]
    weights, about = read_tensors(Path("out/weights.safetensors"))
    assert about == {"system": "toy", "model": card["model"]}
    line = Line()
    line.network.load_state_dict(weights)
    line.network.eval()
    assert line.validate(torch.Generator().manual_seed(0)).keys() == {"rmse"}


def test_interrupted_and_resumed_gives_the_same_weights():
    quick("whole")
    assert quick("cut", minutes=0.0)["stopped"] == "minutes"
    assert Path("cut/weights.safetensors").is_file()
    assert quick("cut", resume=True)["step"] == 30
    one, other = (read_tensors(Path(name) / "weights.safetensors")[0] for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("source", ["weights.safetensors", CHECKPOINT])
def test_training_can_begin_with_weights(source: str):
    first = quick()
    card = quick("tuned", start=Path("out") / source)
    assert card["started_from"] == f"out/{source}"
    with Path("tuned/validation.csv").open() as file:
        start = next(csv.DictReader(file))
    assert float(start["rmse"]) == pytest.approx(first["metrics"]["rmse"])


def test_weights_of_another_network_are_refused():
    write_tensors(Path("other.safetensors"), {"0.weight": torch.zeros(2, 2)}, {})
    with pytest.raises(
        InputError, match=r"expected the weights of this network in other.*0\.weight is shape \(2, 2\)"
    ):
        load_weights(Line().network, Path("other.safetensors"))
    Path("noise.safetensors").write_bytes(b"noise")
    with pytest.raises(InputError, match="damaged"):
        load_weights(Line().network, Path("noise.safetensors"))


# ------------------------------------------------------------------ settings


class Inner(BaseModel, frozen=True, extra="forbid"):
    depth: int = 2


class Rich(BaseModel, frozen=True, extra="forbid"):
    """Every kind of value that settings may have."""

    name: str = Field('a "quoted" name \\ with é', description="of something")
    shares: tuple[float, float] = (0.25, 1e-7)
    on: bool = True
    limit: int | None = Field(None, description="no limit unless given")
    inner: Inner = Inner()


def test_printed_settings_are_a_file_with_the_defaults():
    system = System(Rich, prepare)
    text = settings_text(system)
    Path("all.toml").write_text(text)
    assert read_settings(Path("all.toml"), system) == (TrainSettings(), Rich())
    assert set(tomllib.loads(text)["training"]) == set(TrainSettings.model_fields)
    assert "# limit =  # no limit unless given" in text
    lines = text.splitlines()
    assert all("  # " in line for line in lines[1 : lines.index("")]), "a setting without a word about it"


def test_a_system_of_a_file_in_this_folder():
    Path("my_system.py").write_text("from tests.generative.toy import SYSTEM as MINE\n")
    from tests.generative.toy import SYSTEM

    assert system_named("my_system:MINE") is SYSTEM


def test_settings_that_are_refused():
    assert "wrong.toml: [training] has no setting 'learning_rat'; did you mean learning_rate?" in refused(
        "[training]\nlearning_rat = 1"
    )
    assert "[model] has no setting 'colour'; known are batch, dropout" in refused("[model]\ncolour = 1")
    assert "[training] steps: input should be greater than 0, got 0" in refused("[training]\nsteps = 0")
    assert "[training] settings: expected betas in [0, 1), got (0.9, 1.5)" in refused(
        "[training]\nbetas = [0.9, 1.5]"
    )
    assert "expected the tables [training] and [model], got 'steps'" in refused("steps = 3")
    assert "expected settings as TOML in wrong.toml" in refused("[training")
    assert read_settings(None, SYSTEM)[0] == TrainSettings()


def test_what_cannot_be_trained():
    with pytest.raises(InputError, match=r"expected a system to train \(.*toy.*\), got 'tyo'"):
        train("tyo", Path("data"), Path("out"))
    with pytest.raises(InputError, match="expected a System at nowhere:SYSTEM, got none"):
        system_named("nowhere:SYSTEM")
    with pytest.raises(InputError, match="expected a System at json:dumps, got function"):
        system_named("json:dumps")
    with pytest.raises(InputError, match="--data: expected a folder or a table, found none at nowhere"):
        train("toy", Path("nowhere"), Path("out"))
    with pytest.raises(InputError, match="expected settings in an existing file, got none at nowhere"):
        quick(settings=Path("nowhere.toml"))
    with pytest.raises(InputError, match="--device: expected auto, cpu or cuda, got 'gpu'"):
        quick(device="gpu")
    assert not Path("out").exists()


# ------------------------------------------------------------------ the program


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, output and complaints; the threads and warnings of the tests stay as they are."""
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    monkeypatch.setattr("warnings.showwarning", lambda *_: None)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["nucleate", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return call


def test_the_command(program: Callable[..., tuple[int, str, str]]):
    code, out, err = program("train", "toy", "--data", "data", "--settings", "own.toml")
    assert (code, err) == (0, "")
    assert "30 of 30 steps" in out
    assert out.endswith("wrote trained/toy/weights.safetensors\n")
    code, out, err = program("train", "toy", "--data", "data", "--settings", "own.toml", "--resume", "--json")
    assert (code, err, json.loads(out)["step"]) == (0, "", 30)
    code, out, err = program("train", "toy", "--data", "data", "--settings", "own.toml")
    assert (code, out) == (2, "")
    assert "trained/toy holds a training already" in err
    assert len(err.splitlines()) == 1
    assert program("train", "toy", "--settings", "own.toml")[2].startswith(
        "nucleate: --data: expected the folder"
    )
    code, out, _ = program("train", "toy", "--print-settings")
    assert code == 0
    assert tomllib.loads(out)["model"] == {"batch": 16, "dropout": 0.1}
    code, out, err = program(
        "train", "toy", "--data", "data", "--settings", "own.toml", "-o", "cut", "--budget", "0.001s"
    )
    assert (code, err) == (0, "stopped (budget); --resume goes on\n")


TEAM = """
import sys
from nucleate import cli
from nucleate.pipeline.systems import SYSTEMS
SYSTEMS["toy"] = "tests.generative.toy:SYSTEM"
if __name__ == "__main__":
    cli.main()
"""


@pytest.mark.extra
@pytest.mark.skipif(importlib.util.find_spec("lightning_fabric") is None, reason="needs lightning-fabric")
@pytest.mark.slow
def test_two_processes_from_the_command_line():
    Path("team.py").write_text(TEAM)
    Path("own.toml").write_text(SETTINGS.replace("steps = 30", "steps = 30\nmicro_batches = 2"))
    one = quick("one")
    done = subprocess.run(
        [sys.executable, "team.py", "train", "toy", "--data", "data", "--settings", "own.toml", "-o", "two",
         "--processes", "2", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)  # printed once, by the first process
    assert (two["processes"], two["step"]) == (2, 30)
    assert two["metrics"]["rmse"] == pytest.approx(one["metrics"]["rmse"], abs=1e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("lightning_fabric") is not None, reason="lightning-fabric is there"
)
def test_several_processes_without_the_package():
    with pytest.raises(
        InputError, match=r"expected lightning-fabric for 2 processes, found none; pip install"
    ):
        quick(processes=2)


def test_an_option_of_the_command_line_replaces_a_setting(tmp_path: Path) -> None:
    """`--network` is `network` of [model]; a system without one refuses it."""
    system = system_named("molcrystalflow")
    Path("flow.toml").write_text('[model]\nnetwork = "pose"\nbatch = 7\n')
    _, model = read_settings(Path("flow.toml"), system, {"network": "molcrystalnet"})
    assert (model.network, model.batch) == ("molcrystalnet", 7)  # type: ignore[attr-defined]
    assert read_settings(Path("flow.toml"), system)[1].network == "pose"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"command line: \[model\] network"):
        read_settings(None, system, {"network": "other"})
    with pytest.raises(InputError, match="no setting 'network'"):
        train("toy", Path("data"), Path("out"), network="pose")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "training").glob("*.toml")), ids=lambda p: p.stem
)
def test_settings_of_the_examples_are_read(path: Path):
    """And those of the shipped weights are the ones of their files."""
    name = path.stem if path.stem == "rigid_body_flow" else path.stem.partition("_")[0]
    if name in ("crystalflow", "crystallization", "confgf", "rigid_body_flow"):
        read_settings(path, system_named(name))
        return
    _, model = read_settings(path, system_named("molcrystalflow"))
    shipped = json.loads((ROOT / "src" / "nucleate" / "weights" / "molcrystalflow.json").read_text())
    card = {"molcrystalflow": shipped["before"], "fine_tuning": shipped}.get(path.stem)
    assert model.network == ("molcrystalnet" if path.stem == "molcrystalnet" else "pose")
    if card is not None:
        card["model"].pop("whole_cell")  # of the other network
        assert model.model_dump(mode="json", exclude={"whole_cell"}) == card["model"]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("/usr/bin/nucleate", "nucleate train own --seed 1"),
        ("/site-packages/nucleate/__main__.py", "nucleate train own --seed 1"),
        ("/usr/bin/pytest", ""),
    ],
)
def test_the_command_is_recorded_however_the_program_was_started(
    program: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [program, "train", "own", "--seed", "1"])
    assert provenance()["command"] == told
