"""A ladder of temperatures: files that are gone on with, what belongs to another run, and free energies."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from nucleate.data.ice import ice_xi
from nucleate.data.rigid_frames import RigidFrames, how_made, read_frames
from nucleate.errors import InputError
from nucleate.physics.molecular_dynamics import DynamicsSettings, Sampled
from nucleate.physics.parameters import BOLTZMANN
from nucleate.physics.rigid_sites import TIP4P_EW
from nucleate.pipeline import temperature_ladder as room
from nucleate.pipeline.temperature_ladder import (
    RigidCrystal,
    geometric,
    sample_frames,
    temperature_ladder,
)

PLACES, TURNS, CELL = ice_xi(16)
ICE = RigidCrystal(TIP4P_EW, CELL, PLACES, TURNS)
QUICK = DynamicsSettings(every=1, settling=0, chunk=3)
D = 30


@pytest.fixture
def oscillators(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int, int]]:
    """Dynamics of oscillators with known free energies; what was asked: temperature, done, frames."""
    asked = []

    def simulate(molecule, cell, places, turns, temperature, frames, seed, settings, done):  # type: ignore[no-untyped-def]
        asked.append((temperature, done, frames))
        generator = torch.Generator().manual_seed(seed + done)
        while done < frames:
            n = min(settings.chunk, frames - done)
            squares = torch.randn(n, D, generator=generator, dtype=torch.float64).square().sum(1)
            stay = places.expand(n, -1, -1) + 1.0
            done, places = done + n, stay[-1]
            heat = torch.full((n,), temperature, dtype=torch.float64)
            energies = BOLTZMANN * temperature * squares / 2
            yield Sampled(stay, turns.expand(n, -1, -1), energies, heat)

    monkeypatch.setattr(room, "simulate", simulate)
    return asked


def test_a_ladder_is_geometric_and_ends_where_it_was_told() -> None:
    ladder = geometric(250.0, 100.0, 5)
    assert (ladder[0], ladder[-1]) == (250.0, 100.0)
    assert [b / a for a, b in pairwise(ladder)] == pytest.approx([0.4**0.25] * 4)


def test_frames_are_gone_on_with(oscillators: list[tuple[float, int, int]], tmp_path: Path) -> None:
    path, told = tmp_path / "frames.safetensors", []
    first = sample_frames(ICE, 250.0, 4, path, 1, QUICK, lambda *words: told.append(words[1:3]))
    assert told == [(0, 4), (3, 4), (4, 4)]
    more = sample_frames(ICE, 250.0, 9, path, 1, QUICK)
    assert oscillators == [(250.0, 0, 4), (250.0, 4, 9)]
    assert len(read_frames(path)) == len(more) == 9
    assert torch.equal(more.part(slice(0, 4)).energies, first.energies)
    torch.testing.assert_close(more.places[4], first.places[-1] + 1)  # from where the first ended
    assert len(sample_frames(ICE, 250.0, 5, path, 1, QUICK)) == 9  # all that there are
    assert how_made(path)["settings"]["chunk"] == 3


def test_files_of_another_run_are_refused(oscillators: list[tuple[float, int, int]], tmp_path: Path) -> None:
    path = tmp_path / "frames.safetensors"
    sample_frames(ICE, 250.0, 4, path, 1, QUICK)
    for crystal, temperature, seed, settings in (
        (ICE, 100.0, 1, QUICK),
        (ICE, 250.0, 2, QUICK),
        (ICE, 250.0, 1, replace(QUICK, step=2.0)),
        (replace(ICE, cell=2 * CELL), 250.0, 1, QUICK),
    ):
        with pytest.raises(InputError, match="another folder"):
            sample_frames(crystal, temperature, 8, path, seed, settings)
    assert len(read_frames(path)) == 4


@pytest.mark.extra
def test_free_energies_of_a_ladder(oscillators: list[tuple[float, int, int]], tmp_path: Path) -> None:
    pytest.importorskip("pymbar")
    quick = replace(QUICK, chunk=100)
    found, sampled = temperature_ladder(
        geometric(250.0, 150.0, 3),
        lambda T, seed: sample_frames(ICE, T, 200, tmp_path / f"{T:.3f}K.safetensors", seed, quick),
    )
    assert [len(frames) for frames in sampled] == [200] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "150.000K.safetensors",
        "193.649K.safetensors",
        "250.000K.safetensors",
    ]
    exact = D / 2 * torch.log(250 / found.temperatures)
    assert ((found.differences - exact).abs()[1:] < 4 * found.errors[1:]).all()


def test_without_pymbar_nothing_is_sampled(
    oscillators: list[tuple[float, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymbar", None)
    with pytest.raises(InputError, match=r"nucleate\[free-energy\]"):
        temperature_ladder([250.0, 200.0], lambda T, seed: sample_frames(ICE, T, 20, tmp_path / "a", seed))
    assert oscillators == []


@pytest.mark.extra
def test_dynamics_of_ice_stays_ice(tmp_path: Path) -> None:
    pytest.importorskip("openmm")
    settings = DynamicsSettings(every=20, settling=20, chunk=3)
    frames = sample_frames(ICE, 100.0, 4, tmp_path / "frames.safetensors", settings=settings)
    assert isinstance(frames, RigidFrames)
    away = frames.places - PLACES
    away = (away - away.mean(1, keepdim=True)).norm(dim=-1)  # nothing holds the crystal as a whole
    assert 0.0 < float(away.max()) < 0.6
