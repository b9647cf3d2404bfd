"""From a source to files: what is asked for is made, made again, gone on with, ranked, compared and counted."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.cluster import Cluster
from nucleate.crystal.cluster_xyz import cluster_text, read_cluster_xyz, read_trajectory
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.data.cluster_files import FINAL, FINAL_END, INITIAL, INITIAL_END, SYMBOLS
from nucleate.data.clusters import Loosening, cluster_of
from nucleate.errors import InputError
from nucleate.geometry.so3 import kabsch
from nucleate.metrics.clusters import volume_per_molecule
from nucleate.models.crystallization import Walk
from nucleate.models.crystallization_training import CrystallizationSettings
from nucleate.pipeline import crystallize as verb
from nucleate.pipeline.cluster_samples import COLUMNS, FRAMES, ranked, sampled
from nucleate.pipeline.cluster_sources import random_cluster, read_start
from nucleate.pipeline.crystallize import Crystallized, CrystallizeSettings, crystallize, load_crystallizer
from tests.pipeline.conftest import DATA
from tests.pipeline.tiny_crystallization import Knowing, write_tiny_crystallization

KNOWN = DATA / "cod_1100989.cif"  # ethylurea, P21/c
SMALL = "NC=O"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_crystallization(tmp_path_factory.mktemp("weights") / "rigid.safetensors")


@pytest.fixture
def knowing(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that returns the cluster of `KNOWN`."""
    _, found, settings = load_crystallizer(weights)
    truth = cluster_of(normalise_hydrogens(read_crystal(KNOWN))).positions[None]
    monkeypatch.setattr(verb, "load_crystallizer", lambda _: (Knowing(truth, 0.02), found, settings))


def made(
    source: str | Path, folder: Path, weights: Path, resume: bool = False, **settings: Any
) -> Crystallized:
    asked = {"n": 2, "steps": 2, "molecules": 7, "cell": False, "weights": weights, **settings}
    return crystallize(str(source), CrystallizeSettings.model_validate(asked), folder, resume=resume)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.xyz"))}


# ------------------------------------------------------------------ sources


def published(folder: Path, cluster: Cluster, loose: Cluster) -> Path:
    """The two CSV files of COD-Cluster17."""
    symbols = {z: s for s, z in SYMBOLS.items() if s != "D"}
    for place, end, x in ((FINAL, FINAL_END, cluster), (INITIAL, INITIAL_END, loose)):
        rows = [
            f"{m},{symbols[z]},{a},{b},{c}"
            for m, copy in enumerate(x.positions.tolist())
            for z, (a, b, c) in zip(x.numbers.tolist(), copy)
        ]
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / f"1{end}").write_text("\n".join(["mol,el,x,y,z", *rows, ""]))
    return folder / INITIAL / f"1{INITIAL_END}"


def test_every_kind_of_source_becomes_a_loose_cluster(tmp_path: Path) -> None:
    how = Loosening()
    crystal = read_start(str(KNOWN), 9, how, 0)
    assert crystal.truth is not None
    assert crystal.crystal is not None
    assert crystal.loose.positions.shape == crystal.truth.positions.shape == (9, 14, 3)
    first = crystal.truth.positions
    assert float(kabsch(first, crystal.loose.positions).rmsd.max()) < 1e-6
    assert 1.0 < float((crystal.loose.centroids - crystal.truth.centroids).std()) < 3.0
    path = tmp_path / "given.xyz"
    path.write_text(cluster_text(crystal.loose, [crystal.loose.positions], [{}]))
    xyz = read_start(str(path), 17, how, 0)
    torch.testing.assert_close(xyz.loose.positions, crystal.loose.positions, atol=1e-6, rtol=0)
    assert (xyz.truth, xyz.name, xyz.molecule.smiles) == (None, "given", crystal.molecule.smiles)
    table = published(tmp_path, crystal.truth, crystal.loose)
    csv = read_start(str(table), 17, how, 0)
    assert csv.truth is not None
    moved = csv.loose.positions - csv.truth.positions
    torch.testing.assert_close(
        moved.norm(dim=-1).sort(0).values,
        (crystal.loose.positions - crystal.truth.positions).norm(dim=-1).sort(0).values,
        atol=1e-6, rtol=0,
    )  # fmt: skip
    smiles = read_start("CCNC(N)=O", 9, how, 0)
    assert smiles.loose.positions.shape == crystal.loose.positions.shape
    assert smiles.molecule.smiles == crystal.molecule.smiles


def test_seeds_make_the_loose_cluster() -> None:
    for source in (str(KNOWN), SMALL):
        one, again, other = (read_start(source, 5, Loosening(), seed).loose.positions for seed in (0, 0, 1))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)


@pytest.mark.parametrize("both", [True, False], ids=["both hands", "one hand"])
def test_a_random_cluster_is_as_dense_as_asked(both: bool) -> None:
    conformer = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    conformer = conformer - conformer.mean(0)
    x = random_cluster(conformer, 150.0, 17, both, torch.Generator().manual_seed(1))
    assert volume_per_molecule(x) == pytest.approx(150.0, rel=1e-6)
    proper = kabsch(conformer.expand_as(x), x).rmsd < 1e-6
    assert int(proper.sum()) == (9 if both else 17)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("CCO.O", "one kind of molecule"),
        ("[Ar]", "single atom"),
        ("c1ccccc", "expected a SMILES"),
        ("none.xyz", "existing file"),
        ("none.cif", "none.cif"),
        ("list.csv", "COD-Cluster17"),
        ("InitialPositions/none_cluster16_noised.csv", "FinalPositions"),
    ],
)
def test_what_is_no_source_is_refused_before_anything_is_written(
    source: str, says: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        made(source, tmp_path / "out", weights)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ samples


@pytest.mark.parametrize("method", ["rigid", "flow_vp"])
def test_files_table_and_record_agree(method: str, tmp_path: Path) -> None:
    path = write_tiny_crystallization(tmp_path / "w.safetensors", method)
    result = made(SMALL, tmp_path / "out", path, n=3)
    table = pyarrow.parquet.read_table(tmp_path / "out" / "samples.parquet")
    assert table.schema.equals(COLUMNS)
    assert table.to_pylist() == result.rows
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == result.run
    assert [row["rank"] for row in result.rows] == [1, 2, 3]
    energies = [row["energy_kj_mol"] for row in result.rows]
    assert energies == sorted(energies)
    loose = read_cluster_xyz(tmp_path / "out" / "loose.xyz", 7)
    for row in result.rows:
        numbers, end = read_trajectory(tmp_path / "out" / row["file"], 7)
        _, frames = read_trajectory(tmp_path / "out" / row["trajectory"], 7)
        torch.testing.assert_close(frames[0], loose.positions, atol=1e-5, rtol=0)
        moved = (frames[-1] - frames[0]).square().sum(-1).mean().sqrt()
        assert row["moved_A"] == pytest.approx(float(moved), abs=1e-4)
        torch.testing.assert_close(end[0], frames[-1], atol=1e-6, rtol=0)
        assert torch.equal(numbers, loose.numbers)
        assert row["matched"] is None
    counts = result.run["counts"]
    assert (counts["asked"], counts["made"]) == (3, 3)
    assert counts["without_collisions"] == sum(row["collision_between"] == 0 for row in result.rows)


def test_more_samples_begin_with_the_same_and_resuming_adds_the_rest(weights: Path, tmp_path: Path) -> None:
    made(SMALL, tmp_path / "a", weights, n=2)
    many = made(SMALL, tmp_path / "b", weights, n=4)
    before = files(tmp_path / "a")
    assert before.items() <= files(tmp_path / "b").items()
    resumed = made(SMALL, tmp_path / "a", weights, n=4, resume=True)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert resumed.rows == many.rows
    assert resumed.run["counts"] == many.run["counts"]
    shuffled = [many.rows[k] for k in (2, 0, 3, 1)]  # as a run that was killed while it ranked finds them
    assert ranked(shuffled, tmp_path / "b", many.run["molecules"]) == many.rows
    other = made(SMALL, tmp_path / "c", weights, n=2, seed=1)
    assert not set(files(tmp_path / "c").values()) & set(before.values())
    assert other.rows[0]["seed"] not in [row["seed"] for row in many.rows]


def test_a_folder_is_not_shared_by_accident(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--resume: expected earlier samples"):
        made(SMALL, tmp_path / "a", weights, resume=True)
    made(SMALL, tmp_path / "a", weights)
    with pytest.raises(InputError, match="without samples"):
        made(SMALL, tmp_path / "a", weights)
    with pytest.raises(InputError, match=r"other samples \(other .*loose\)"):
        made("CO", tmp_path / "a", weights, resume=True)


def test_weights_that_are_not_there_or_others(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nucleate train crystallization"):
        load_crystallizer(tmp_path / "none")
    method, found, settings = load_crystallizer(weights)
    assert isinstance(settings, CrystallizationSettings)
    assert not method.training
    assert found.digest


def test_ctrl_c_leaves_what_is_done(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(9))

    def twice(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return sampled(*arguments)

    monkeypatch.setattr(verb, "sampled", twice)
    result = made(SMALL, tmp_path, weights, n=5)
    assert result.run["interrupted"]
    assert sorted(row["id"] for row in result.rows) == ["0001", "0002"]
    assert (tmp_path / "report.html").is_file()
    whole = made(SMALL, tmp_path, weights, n=5, resume=True)
    assert not whole.run["interrupted"]
    assert len(whole.rows) == whole.run["counts"]["made"] == 5


def test_whatever_ends_a_run_leaves_its_samples_to_go_on_with(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(9))

    def twice(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise MemoryError  # as good as a kill: nothing is tidied up after it
        return sampled(*arguments)

    monkeypatch.setattr(verb, "sampled", twice)
    with pytest.raises(MemoryError):
        made(SMALL, tmp_path, weights, n=3)
    whole = made(SMALL, tmp_path, weights, n=3, resume=True)
    assert len(whole.rows) == 3
    assert next(calls) == 4  # the third alone was made again


def test_a_sampler_that_runs_away_is_a_counted_failure(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found, settings = load_crystallizer(weights)
    nowhere = torch.full((1, 7, 6, 3), torch.nan)
    monkeypatch.setattr(verb, "load_crystallizer", lambda _: (Knowing(nowhere), found, settings))
    result = made(SMALL, tmp_path, weights)
    assert result.run["counts"]["made"] == 0
    assert result.run["failures"] == {"not finite: the sampler ran away": 2}
    assert [row["file"] for row in result.rows] == [None, None]


@pytest.mark.parametrize("steps", [1, 3, FRAMES, 205])
def test_a_trajectory_has_few_frames_from_loose_to_ordered(steps: int) -> None:
    start = read_start(SMALL, 3, Loosening(), 0)
    truth = start.loose.positions[None] + 1.0
    sample = sampled(Knowing(truth), start, 0, 0, steps)
    assert len(sample.frames) == len(sample.times) <= FRAMES + 2
    assert sample.times == sorted(sample.times)
    assert (sample.times[0], sample.times[-1]) == (0.0, 1.0)
    for t, frame in zip(sample.times, sample.frames):
        torch.testing.assert_close(frame, start.loose.positions + t, atol=1e-4, rtol=0)
    assert Walk().steps > 0


# ------------------------------------------------------------------ truth, relaxation, lattice


@pytest.mark.usefixtures("knowing")
def test_the_known_cluster_and_its_crystal_are_found(weights: Path, tmp_path: Path) -> None:
    result = made(KNOWN, tmp_path, weights, n=1, molecules=17, cell=True)
    [row] = result.rows
    assert (row["matched"], row["matched_of"]) == (15, 15)
    assert row["rmsd_A"] < 0.1
    assert row["collision_between"] == 0
    assert row["cell_space_group"] == "P21/c"
    assert row["cell_matched"] == 15
    assert row["cell_energy_kj_mol"] < -50
    crystal = read_crystal(tmp_path / row["cell"])
    assert crystal.volume / crystal.n_molecules == pytest.approx(row["cell_volume_A3"], rel=1e-4)
    counts = result.run["counts"]
    assert (counts["cells"], counts["like_the_truth"]) == (1, 1)
    assert (tmp_path / "truth.xyz").is_file()


@pytest.mark.usefixtures("knowing")
def test_relaxed_clusters_are_lower(weights: Path, tmp_path: Path) -> None:
    plain = made(KNOWN, tmp_path / "a", weights, n=1, molecules=17)
    lower = made(KNOWN, tmp_path / "b", weights, n=1, molecules=17, relax=True)
    assert lower.rows[0]["energy_kj_mol"] < plain.rows[0]["energy_kj_mol"] - 0.5
    assert lower.rows[0]["relaxed"] is not None
    assert plain.rows[0]["relaxed"] is None


def test_without_parameters_collisions_rank(weights: Path, tmp_path: Path) -> None:
    result = made("C[Se]C", tmp_path, weights)
    assert [row["energy_kj_mol"] for row in result.rows] == [None, None]
    assert "collisions" in result.run["ranked_by"]
    assert any("no energies" in note for note in result.run["notes"])
    shares = [row["collision_between"] for row in result.rows]
    assert shares == sorted(shares)


def test_notes_tell_of_equal_samples_and_of_sizes(tmp_path: Path) -> None:
    path = write_tiny_crystallization(tmp_path / "w.safetensors", "regression")
    notes = " ".join(made(SMALL, tmp_path / "out", path).run["notes"])
    assert "all samples are equal" in notes
    assert "7 molecules" in notes
