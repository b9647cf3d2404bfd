"""Weights by name: what ships, what is given, and cards that must be theirs."""

import json
from pathlib import Path

import pytest
import torch

import nucleate.weights
from nucleate.errors import InputError
from nucleate.generative.checkpoint import write_tensors
from nucleate.weights import find_weights, read_weights

ABOUT = {"system": "molcrystalflow", "model": {"width": 16}}
SHIPPED = Path(nucleate.weights.__file__).parent


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
        assert read_weights(path, path.stem).card["data"]
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
