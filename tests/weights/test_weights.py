"""Weights by name: what ships, what is given, and cards that must be theirs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

import nucleate.weights
from nucleate.errors import InputError
from nucleate.generative.checkpoint import write_tensors
from nucleate.weights import find_weights, read_weights
from nucleate.weights.ship import ship

ABOUT = {"system": "molcrystalflow", "model": {"width": 16}}
SHIPPED = Path(nucleate.weights.__file__).parent
OTHER_NAMES = {"conformer_flow": "confgf"}  # weights that are not called as their system


def weights_at(path: Path, **changes: object) -> Path:
    write_tensors(path, {"a": torch.zeros(2)}, {**ABOUT, **changes})
    return path


def test_a_given_file_comes_before_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = weights_at(tmp_path / "own.safetensors")
    assert find_weights("molcrystalflow", own) == own
    with pytest.raises(
        InputError, match=r"--weights: expected a file of weights, found none at nowhere; `nucleate"
    ):
        find_weights("molcrystalflow", Path("nowhere"))
    with pytest.raises(InputError, match=r"no weights of alchemy come with this version.*--generator random"):
        find_weights("alchemy")
    monkeypatch.setattr(nucleate.weights, "files", lambda _: tmp_path)
    assert find_weights("own") == own


def test_weights_that_ship_have_their_card_and_can_be_read() -> None:
    for path in SHIPPED.glob("*.safetensors"):
        assert read_weights(path, OTHER_NAMES.get(path.stem, path.stem)).card["data"]
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.safetensors")) <= 20e6


def test_the_digest_tells_files_apart(tmp_path: Path) -> None:
    one, two = weights_at(tmp_path / "one.safetensors"), tmp_path / "two.safetensors"
    write_tensors(two, {"a": torch.ones(2)}, ABOUT)
    assert read_weights(one, "molcrystalflow").digest != read_weights(two, "molcrystalflow").digest
    assert read_weights(one, "molcrystalflow").card == {}


def test_a_card_must_be_that_of_the_weights(tmp_path: Path) -> None:
    path = weights_at(tmp_path / "own.safetensors")
    for name in ("model.json", "own.json"):  # beside what `train` wrote; beside what ships
        card = tmp_path / name
        card.write_text(json.dumps({**ABOUT, "data": "COD"}))
        assert read_weights(path, "molcrystalflow").card["data"] == "COD"
        card.write_text(json.dumps({**ABOUT, "model": {"width": 32}}))
        with pytest.raises(InputError, match="got one of other weights"):
            read_weights(path, "molcrystalflow")
        card.write_text("{")
        with pytest.raises(InputError, match="got a damaged file"):
            read_weights(path, "molcrystalflow")


def test_files_that_are_not_such_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected weights of molcrystalflow, got those of confgf"):
        read_weights(weights_at(tmp_path / "other.safetensors", system="confgf"), "molcrystalflow")
    write_tensors(tmp_path / "checkpoint.safetensors", {"a": torch.zeros(2)}, {"standing": {}})
    with pytest.raises(InputError, match=r"expected weights\.safetensors of `nucleate train molcrystalflow`"):
        read_weights(tmp_path / "checkpoint.safetensors", "molcrystalflow")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    with pytest.raises(InputError, match="damaged"):
        read_weights(tmp_path / "noise.safetensors", "molcrystalflow")


class Settings(BaseModel, extra="forbid"):
    width: int


def test_shipped_weights_are_halved_and_fill_networks_in_their_own_precision(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    write_tensors(tmp_path / "weights.safetensors", network.state_dict(), ABOUT)
    (tmp_path / "model.json").write_text(json.dumps({**ABOUT, "data_folder": "/home/me"}))
    path = ship(tmp_path, "molcrystalflow", tmp_path / "package", {"licence": "MIT"})
    found = read_weights(path, "molcrystalflow")
    assert "data_folder" not in found.card
    assert (found.card["licence"], found.card["precision"]) == ("MIT", "half")
    assert path.stat().st_size < (tmp_path / "weights.safetensors").stat().st_size
    filled = found.fill(torch.nn.Linear(3, 2))
    assert filled.weight.dtype == torch.float32
    assert not filled.weight.requires_grad
    assert torch.allclose(filled.weight, network.weight, rtol=1e-3)
    with pytest.raises(InputError, match="expected the weights of this network"):
        found.fill(torch.nn.Linear(3, 4))


def test_weights_beyond_half_precision_are_not_shipped(tmp_path: Path) -> None:
    write_tensors(tmp_path / "weights.safetensors", {"a": torch.full((2,), 1e6)}, ABOUT)
    with pytest.raises(ValueError, match=r"within the range of half precision, got larger ones in \['a'\]"):
        ship(tmp_path, "own", tmp_path, {})


def test_settings_that_this_version_does_not_know(tmp_path: Path) -> None:
    found = read_weights(weights_at(tmp_path / "one.safetensors"), "molcrystalflow")
    assert found.settings(Settings).width == ABOUT["model"]["width"]
    with pytest.raises(InputError, match="made by another"):
        replace(found, model={"depth": 2}).settings(Settings)
