"""The data factory: sound low-energy crystals, every molecule accounted for, runs that can be cut and go on."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from nucleate.crystal.io import read_molecule
from nucleate.data.packed import about_shard, read_crystals, read_keys, shards, to_row, write_shard
from nucleate.errors import InputError
from nucleate.metrics.clashes import has_clash
from nucleate.metrics.heavy_molecules import molecule_key
from nucleate.pipeline import synthesize as module
from nucleate.pipeline.folders import hold_folder
from nucleate.pipeline.molecule_lists import Given, excluded_keys, read_sample
from nucleate.pipeline.synthesize import Synthesized, SynthesizeSettings, crystals_of, synthesize

DATA = Path(__file__).parents[1] / "data"
STAND_IN = Path(__file__).with_name("stand_in_jobs.py")
SMALL = SynthesizeSettings(starts=40, keep=3, window=20.0, two_independent=0.0)


def keys(smiles: str) -> frozenset[str]:
    return frozenset(molecule_key(molecule) for molecule in read_molecule(smiles))


# ------------------------------------------------------------------ one molecule


def test_crystals_of_a_molecule_are_its_lowest_sound_minima() -> None:
    found = crystals_of("NC=O", 4, SMALL)
    above = [crystal.above or 0.0 for crystal in found]
    assert 1 <= len(found) <= SMALL.keep
    assert above[0] == 0
    assert above == sorted(above)
    assert above[-1] <= SMALL.window
    assert [crystal.id for crystal in found] == [f"4-{k}" for k in range(len(found))]
    for crystal in found:
        assert not has_clash(crystal.packing.crystal(0))
        assert crystal.energy == pytest.approx((found[0].energy or 0.0) + (crystal.above or 0.0))
        assert crystal.hits >= 1
        assert crystal.key == next(iter(keys("NC=O")))
    again = [to_row(crystal) for crystal in crystals_of("NC=O", 4, SMALL)]
    assert again == [to_row(crystal) for crystal in found]
    assert again != [to_row(crystal) | {"id": again[0]["id"]} for crystal in crystals_of("NC=O", 5, SMALL)]


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C1CC", "bad SMILES"),
        ("C" * 20, "too large"),
        ("O=CN", "excluded"),
        ("NC=O.O", "excluded"),
        ("[NH4+]", "charged"),
    ],
)
def test_molecules_that_have_none(smiles: str, reason: str) -> None:
    with pytest.raises(InputError) as refused:
        crystals_of(smiles, 0, SMALL, keys("NC=O"))
    assert refused.value.reason == reason


# ------------------------------------------------------------------ lists


def test_samples_of_a_list_grow_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "list.csv.gz"
    path.write_bytes(gzip.compress(("smiles\n" + "\n".join("C" * k for k in range(1, 40))).encode()))
    everything = read_sample(path)
    assert everything == ["C" * k for k in range(1, 40)]
    few, more = read_sample(path, 5), read_sample(path, 12)
    assert more[:5] == few
    assert len(set(more)) == 12
    assert read_sample(path, 5, seed=1) != few
    assert sorted(map(str, read_sample(path, 1000))) == sorted(map(str, everything))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"expected a whole file, got .*damaged or cut"):
        read_sample(path)


def test_exclusions_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "list.smi").write_text("CCO\nNC=O.CO\n")
    packed = crystals_of("CC#N", 0, SMALL)[:1]
    write_shard([to_row(crystal) for crystal in packed], tmp_path / "set" / "test" / "0.parquet", {})
    urea = DATA / "cod_1100989.cif"
    found = excluded_keys([tmp_path / "list.smi", tmp_path / "set", urea])
    assert found == keys("CCO") | keys("NC=O") | keys("CO") | keys("CC#N") | keys("CCNC(N)=O")
    (tmp_path / "list.smi").write_text("CCO\nC1CC\n")
    with pytest.raises(InputError, match="C1CC"):
        excluded_keys([tmp_path / "list.smi"])
    with pytest.raises(InputError, match="missing"):
        excluded_keys([tmp_path / "missing"])


# ------------------------------------------------------------------ runs


def test_a_run_with_its_processes(tmp_path: Path) -> None:
    """The real program, once."""
    given: list[Given] = ["NC=O", InputError("no molecule", "bad SMILES"), "CO", "CCCCCCCCCCCCCCCCCCCCC"]
    settings = SMALL.model_copy(update={"workers": 2, "shard": 3})
    result = synthesize(given, tmp_path, settings, keys("CO"))
    assert result.outcomes == {"done": 1, "bad SMILES": 1, "excluded": 1, "too large": 1}
    assert (result.asked, result.interrupted) == (4, False)
    assert [path.name for path in shards(tmp_path)] == ["00000.parquet", "00001.parquet"]
    crystals = list(read_crystals(tmp_path))
    assert len(crystals) == result.crystals > 0
    assert read_keys(tmp_path) == keys("NC=O")
    here = [to_row(crystal) for crystal in crystals_of("NC=O", 0, SMALL)]
    assert [to_row(crystal)["lattice"] for crystal in crystals] == [row["lattice"] for row in here]
    about = [about_shard(path) for path in shards(tmp_path)]
    assert about[0]["settings"] == SMALL.model_dump(mode="json", exclude={"workers", "shard"})
    assert {**about[0]["why"], **about[1]["why"]}["1"] == "no molecule"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose program answers at once with no crystal, crashes or hangs; what is tested is the bookkeeping."""
    monkeypatch.setattr(module, "PROGRAM", STAND_IN)
    monkeypatch.setattr(module, "GRACE", 1.0)


def run(given: Sequence[Given], folder: Path, resume: bool = False, stop: int = -1) -> Synthesized:
    """Interrupted when `stop` molecules are done."""

    def told(done: int, *_: object) -> None:
        if done == stop:
            raise KeyboardInterrupt

    settings = SynthesizeSettings(workers=2, shard=3, time_limit=0.5)
    return synthesize(given, folder, settings, resume=resume, progress=told)


def outcomes(folder: Path) -> dict[int, str]:
    """As the files have them; a molecule in two files is an error."""
    found: dict[int, str] = {}
    for path in shards(folder):
        mine = {int(i): outcome for i, outcome in about_shard(path)["outcomes"].items()}
        assert not found.keys() & mine.keys()
        found |= mine
    return found


@pytest.mark.usefixtures("quick")
def test_a_crash_and_a_hang_cost_one_molecule_each(tmp_path: Path) -> None:
    result = run(["C", "CRASH", "C", "HANG", "FAIL", "C"], tmp_path)
    assert result.outcomes == {"done": 3, "crashed": 1, "timed out": 1, "failed": 1}
    assert outcomes(tmp_path)[3] == "timed out"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interruption_keeps_what_is_done(stop: int, tmp_path: Path) -> None:
    given = ["C"] * 8
    cut = run(given, tmp_path, stop=stop)
    assert cut.interrupted
    assert len(outcomes(tmp_path)) == cut.outcomes.total() == stop
    with pytest.raises(InputError, match="--resume"):
        run(given, tmp_path)
    whole = run(given, tmp_path, resume=True)
    assert whole.outcomes == {"done": 8}
    assert outcomes(tmp_path) == dict.fromkeys(range(8), "done")
    longer = run([*given, "CRASH"], tmp_path, resume=True)
    assert longer.outcomes == {"done": 8, "crashed": 1}
    assert run(given, tmp_path, resume=True).outcomes == {"done": 8}


@pytest.mark.usefixtures("quick")
def test_a_shard_that_was_removed_is_made_again_and_no_other_is_lost(tmp_path: Path) -> None:
    run(["C"] * 9, tmp_path)
    shards(tmp_path)[0].unlink()
    run(["C"] * 9, tmp_path, resume=True)
    assert outcomes(tmp_path) == dict.fromkeys(range(9), "done")


@pytest.mark.usefixtures("quick")
def test_resuming_something_else_is_refused(tmp_path: Path) -> None:
    run(["C", "CC"], tmp_path)
    with pytest.raises(InputError, match="the molecules that"):
        run(["CC", "C"], tmp_path, resume=True)
    with pytest.raises(InputError, match="same settings"):
        synthesize(["C", "CC"], tmp_path, SynthesizeSettings(starts=7), resume=True)
    row = to_row(crystals_of("NC=O", 0, SMALL)[0])
    settings = SynthesizeSettings()
    about = {
        "settings": settings.model_dump(mode="json", exclude={"workers", "shard"}),
        "outcomes": {"0": "done"},
    }
    write_shard([row], tmp_path / "held" / "00000.parquet", about)  # without "smiles", as older shards are
    assert synthesize(["NC=O"], tmp_path / "held", settings, resume=True).crystals == 1
    with pytest.raises(InputError, match="excluded"):
        synthesize(["NC=O"], tmp_path / "held", settings, keys("NC=O"), resume=True)
    (tmp_path / "00000.parquet").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="expected a shard"):
        run(["C", "CC"], tmp_path, resume=True)


@pytest.mark.usefixtures("quick")
def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with hold_folder(tmp_path), pytest.raises(InputError, match="another run"):
        run(["C"], tmp_path)
    assert run(["C"], tmp_path).outcomes == {"done": 1}
