"""Free energies as a user asks for them: what is written, what is refused, what goes on."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from nucleate.data.ice import ice_xi
from nucleate.data.rigid_frames import RigidFrames, read_frames, write_frames
from nucleate.errors import InputError
from nucleate.generative.normalizing_flow import Bodies
from nucleate.geometry.so3 import matrix_to_quaternion, quaternion_to_matrix
from nucleate.models.rigid_body_flow import IdealCrystal
from nucleate.physics.rigid_minimum import nearest_minimum
from nucleate.physics.rigid_sampler import walks
from nucleate.physics.rigid_sites import TIP4P_EW, SiteEnergy
from nucleate.pipeline.free_energy import FreeEnergySettings, crystal_of, free_energy, own_frames

FRAMES = 100
SMALL = {"frames": FRAMES, "sampler": "own", "steps": 2, "t_target": 150.0}  # no flow ships for it


@pytest.fixture(scope="module")
def frames() -> RigidFrames:
    """Ice shaken about its minimum by normal displacements: no sample of anything, but with the energies it has."""
    places, turns, cell = ice_xi(16)
    energy = SiteEnergy(TIP4P_EW, 16, cell)
    ideal = IdealCrystal(*nearest_minimum(energy, places, turns, steps=20), cell)
    generator = torch.Generator().manual_seed(0)
    shaken = 0.08 * torch.randn(FRAMES, 16, 6, generator=generator, dtype=torch.float64)
    turns = torch.cat([torch.ones_like(shaken[..., :1]), 0.4 * shaken[..., 3:]], -1)
    bodies = Bodies(shaken[..., :3], torch.nn.functional.normalize(turns, dim=-1))
    x, rotations = ideal.build(bodies)
    return RigidFrames(TIP4P_EW, cell, 250.0, x, matrix_to_quaternion(rotations), energy(x, rotations))


@pytest.fixture
def folder(tmp_path: Path, frames: RigidFrames) -> Path:
    """Where dynamics have been already."""
    write_frames(frames, tmp_path / "ice" / "frames" / "250.000K.safetensors")
    return tmp_path / "ice"


def run(folder: Path, resume: bool = True, **settings: object) -> dict:
    asked = FreeEnergySettings.model_validate(SMALL | settings)
    return free_energy("ice-xi", settings=asked, output=folder, resume=resume).record


def test_a_flow_is_trained_and_stands_beside_the_simpler_maps(folder: Path) -> None:
    record = run(folder)
    assert [row["method"] for row in record["estimates"]] == ["fep", "harmonic", "flow"]
    assert all(row["frames"] == 20 for row in record["estimates"])  # a fifth, that the flow has not seen
    assert json.loads((folder / "free_energy.json").read_text())["estimates"] == record["estimates"]
    fep, harmonic, flow = (row["difference_kT"] for row in record["estimates"])
    assert abs(harmonic - flow) < 1.0  # two steps of training change next to nothing
    assert {path.name for path in (folder / "flow").iterdir()} >= {
        "weights.safetensors",
        "settings.toml",
        "model.json",
    }
    assert "ice-xi-16" in (folder / "report.html").read_text()


def test_samples_have_the_energies_and_weights_that_are_written(folder: Path) -> None:
    record = run(folder, method="harmonic")
    samples = read_frames(folder / "samples.safetensors")
    assert samples.temperature == 150.0
    energy = SiteEnergy(samples.molecule, 16, samples.cell)
    found = energy(samples.places, quaternion_to_matrix(samples.turns))
    torch.testing.assert_close(found, samples.energies, atol=1e-8, rtol=0)
    lines = (folder / "samples.csv").read_text().splitlines()[1:]
    log_w = torch.tensor([float(line.split(",")[2]) for line in lines], dtype=torch.float64)
    assert len(lines) == FRAMES
    assert float(log_w.max()) == 0
    w = log_w.exp()
    share = float(w.sum().square() / w.square().sum() / FRAMES)
    assert share == pytest.approx(record["estimates"][-1]["effective_share"], rel=1e-3)


def test_weights_can_be_given_and_those_of_another_crystal_are_refused(folder: Path, tmp_path: Path) -> None:
    first = run(folder)
    weights = folder / "flow" / "weights.safetensors"
    other = tmp_path / "again"
    write_frames(
        read_frames(folder / "frames" / "250.000K.safetensors"), other / "frames" / "250.000K.safetensors"
    )
    settings = FreeEnergySettings.model_validate(SMALL)
    again = free_energy("ice-xi", settings=settings, output=other, weights=weights).record
    assert again["estimates"][-1]["difference_kT"] == pytest.approx(
        first["estimates"][-1]["difference_kT"], abs=1e-9
    )
    assert not (other / "flow").exists()
    with pytest.raises(InputError, match="flow of this crystal from 250 to 50 K"):
        free_energy(
            "ice-xi",
            settings=settings.model_copy(update={"t_target": 50.0}),
            output=other,
            weights=weights,
            resume=True,
        )


def test_a_folder_with_results_is_not_written_over(folder: Path) -> None:
    run(folder, method="fep")
    with pytest.raises(InputError, match="--resume"):
        run(folder, resume=False, method="fep")


@pytest.mark.parametrize(
    ("source", "expected"), [("ice-ix", "neither"), ("nothing.cif", "neither"), ("ice-xi", "16, 128, 432")]
)
def test_unknown_crystals_are_refused(source: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        crystal_of(source, 17, "tip4p-ew")
    with pytest.raises(InputError, match="tip4p-ew"):
        crystal_of("ice-xi", 16, "spc")


def test_our_own_sampler_stands_in_for_dynamics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few trajectories of ice; what is there already is kept."""
    monkeypatch.setattr("nucleate.pipeline.free_energy.SETTLING", 2)
    monkeypatch.setattr("nucleate.pipeline.free_energy.walks", partial(walks, steps=2))
    crystal, _ = crystal_of("ice-xi", 16, "tip4p-ice")
    found = own_frames(crystal, 200.0, 16, tmp_path / "a.safetensors", 0, None)
    assert len(found) == 16
    assert found.energies.isfinite().all()
    again = own_frames(crystal, 200.0, 16, tmp_path / "a.safetensors", 0, None)
    assert again.energies.equal(found.energies)
    other, _ = crystal_of("ice-xi", 16, "tip4p-ew")
    for wrong, seed in ((other, 0), (crystal, 1)):
        with pytest.raises(InputError, match="frames of the same crystal"):
            own_frames(wrong, 200.0, 16, tmp_path / "a.safetensors", seed, None)


def test_frames_are_gone_on_with_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle, and asked for more than at first: as if it had been sampled at once."""
    monkeypatch.setattr("nucleate.pipeline.free_energy.SETTLING", 2)
    monkeypatch.setattr("nucleate.pipeline.free_energy.walks", partial(walks, steps=2))
    crystal, _ = crystal_of("ice-xi", 16, "tip4p-ew")

    def stop(stage: str, done: int, asked: int, word: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    cut = tmp_path / "cut.safetensors"
    with pytest.raises(KeyboardInterrupt):
        own_frames(crystal, 200.0, 48, cut, 0, stop)
    assert len(read_frames(cut)) == 16  # of the 48
    assert len(own_frames(crystal, 200.0, 32, cut, 0, None)) == 32
    gone_on = own_frames(crystal, 200.0, 48, cut, 0, None)
    at_once = own_frames(crystal, 200.0, 48, tmp_path / "whole.safetensors", 0, None)
    assert cut.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert gone_on.places.equal(at_once.places)
    assert gone_on.energies.equal(at_once.energies)


def test_frames_of_another_program_are_not_written_over(tmp_path: Path, frames: RigidFrames) -> None:
    crystal, path = crystal_of("ice-xi", 16, "tip4p-ew")[0], tmp_path / "theirs.safetensors"
    write_frames(frames, path)
    assert len(own_frames(crystal, 250.0, FRAMES, path, 0, None)) == FRAMES
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"ask for --frames {FRAMES}"):
        own_frames(crystal, 250.0, FRAMES + 1, path, 0, None)
    assert path.read_bytes() == before


def test_the_flow_that_ships_is_taken_where_it_fits(folder: Path) -> None:
    record = run(folder, t_target=100.0)
    assert record["estimates"][-1]["method"] == "flow"
    assert not (folder / "flow").exists()


def test_a_ladder_has_both_ends_weighed_against_each_other(folder: Path, frames: RigidFrames) -> None:
    pytest.importorskip("pymbar")
    write_frames(replace(frames, temperature=240.0), folder / "frames" / "240.000K.safetensors")
    record = run(folder, t_target=240.0, method="mbar", temperatures=2)
    rows = {row["method"]: row for row in record["estimates"]}
    assert list(rows) == ["fep", "harmonic", "bar", "mbar"]
    assert rows["bar"]["frames"] == rows["mbar"]["frames"] == 2 * FRAMES
    assert abs(rows["bar"]["difference_kT"] - rows["harmonic"]["difference_kT"]) < 3
    assert record["energies"]["sampled"]
