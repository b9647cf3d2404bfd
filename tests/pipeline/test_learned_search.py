"""`predict` and `generate` with learned weights: shares, names, repeatability, resuming."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.crystal.io import read_crystal
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import InputError
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import PRESS, ROUGH, TIGHT, minimise
from nucleate.pipeline.composition import read_subject
from nucleate.pipeline.generate import arms
from nucleate.pipeline.generate_files import GenerateSettings, generate_files, statistics
from nucleate.pipeline.learned import LearnedGenerator, SamplingSettings
from nucleate.pipeline.predict import Prediction, PredictSettings, predict
from nucleate.pipeline.strategy import Progress, divided, plan_round
from nucleate.pipeline.units import Kind, Unit, run_unit
from nucleate.pipeline.workers import jobs_of
from tests.pipeline.tiny_weights import write_tiny_weights

SMALL: dict[str, Any] = {"n": 40, "space_groups": "14", "workers": 1, "energy": "forcefield"}
QUICK = {"steps": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_weights(tmp_path_factory.mktemp("tiny"))


def run(folder: Path, weights: Path | None, **changes: Any) -> Prediction:
    options = {**SMALL, "generator": "mixture", "weights": weights, "sampling": QUICK, **changes}
    return predict("NC=O", PredictSettings.model_validate(options), folder)


@pytest.fixture(scope="module")
def mixed(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    return run(tmp_path_factory.mktemp("results") / "formamide", weights)


# ------------------------------------------------------------------ shares


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.sampled_from([0.0, 0.3, 0.5, 1.0])), min_size=1, max_size=20)
)
def test_new_starts_are_divided_by_their_shares(arms_and_shares: list[tuple[int, float]]) -> None:
    new, share = [n for n, _ in arms_and_shares], np.array([s for _, s in arms_and_shares])
    random, learned = divided(new, share)
    assert [a + b for a, b in zip(random, learned)] == new
    assert min(random) >= 0
    assert min(learned) >= 0
    assert abs(sum(learned) - (np.array(new) * share).sum()) <= 0.5
    assert all(k == 0 for k, s in zip(learned, share) if s == 0)
    assert all(n == 0 for n, s in zip(random, share) if s == 1)


def test_both_kinds_count_as_spent_and_are_numbered_apart() -> None:
    space = arms(read_subject("NC=O").composition, "14,2")
    state = Progress.start(space, np.array([0.5, 0.0]))
    for number in range(3):
        plan = plan_round(number, 120, 3, 0.0, state, np.zeros(0), np.zeros(0, np.int64))
        state = state.after(plan, np.zeros(0), np.zeros(0, np.int64))
    assert sum(state.random_starts) + sum(state.learned_starts) == 120
    assert state.learned_starts[1] == 0
    assert abs(state.learned_starts[0] - state.random_starts[0]) <= 3


# ------------------------------------------------------------------ predict


def test_every_crystal_says_which_generator_it_came_from(mixed: Prediction, weights: Path) -> None:
    rows = pyarrow.parquet.read_table(mixed.folder / "crystals.parquet").to_pylist()
    assert {r["generator"] for r in rows} == {"random", "molcrystalflow", "perturbed"}
    about = mixed.run["generator"]
    starts = {kind: row["starts"] for kind, row in about["kinds"].items()}
    assert sum(starts.values()) == 40
    assert abs(starts["learned"] - starts["random"]) <= 6  # a rounding in each of six rounds
    assert about["drawn"] == starts["learned"]
    assert about["digest"] == LearnedGenerator(weights).digest
    assert sum(row["minima"] for row in about["kinds"].values()) == mixed.run["counts"]["distinct"]
    crystal = read_crystal(mixed.folder / "cif" / "0001.cif")
    assert find_symmetry(crystal, 0.05).number == rows[0]["space_group"]


@pytest.mark.slow
def test_workers_and_repetition_change_nothing(mixed: Prediction, weights: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "two", weights, workers=2).rows == mixed.rows
    other = run(tmp_path / "seed", weights, seed=1).rows
    assert [r["energy_kj_mol"] for r in other] != [r["energy_kj_mol"] for r in mixed.rows]


def test_interrupted_and_resumed_finds_the_same(
    mixed: Prediction, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = 0

    def limited(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == 4:
            raise KeyboardInterrupt
        return run_unit(*arguments)

    monkeypatch.setattr("nucleate.pipeline.workers.run_unit", limited)
    cut = run(tmp_path, weights)
    assert cut.run["interrupted"]
    monkeypatch.undo()
    options = {**SMALL, "generator": "mixture", "weights": weights, "sampling": QUICK}
    again = predict("NC=O", PredictSettings.model_validate(options), tmp_path, resume=True)
    assert again.rows == mixed.rows


def test_learned_units_share_jobs_and_no_unit_is_lost() -> None:
    kinds: list[tuple[Kind, int]] = [("learned", 7), ("random", 50), ("learned", 40), ("perturbed", 9)]
    units = [Unit(0, i, 0, kind, 0, count, None) for i, (kind, count) in enumerate(kinds + kinds[:1] * 9)]
    jobs = jobs_of(units, 50)
    assert sorted(unit.index for job in jobs for unit in job) == list(range(len(units)))
    assert [[u.index for u in job] for job in jobs] == [[0, 2], [1], [3], [*range(4, 11)], [11, 12]]
    assert jobs_of(units[2:3] * 2, 10) == [(units[2],), (units[2],)]  # larger than a job is one alone


@pytest.mark.slow
def test_jobs_of_several_groups_do_not_depend_on_interruption(weights: Path, tmp_path: Path) -> None:
    """Where a unit of a job is lost, the samples of all its units are made again, the same to the last bit."""
    options = {"space_groups": "14,2,19,148", "n": 48}
    one = run(tmp_path / "one", weights, **options)
    for file in sorted((tmp_path / "one" / "units").glob("*"))[1::2]:
        file.unlink()
    again = run(tmp_path / "one", weights, **options)
    assert again.rows == one.rows
    assert again.run["generator"]["sampling_seconds"] > 0


def test_a_folder_belongs_to_its_weights(mixed: Prediction, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = mixed.folder
    other = write_tiny_weights(tmp_path_factory.mktemp("other"), seed=1)
    with pytest.raises(InputError, match=r"another search \(other weights\)"):
        run(folder, other)
    with pytest.raises(InputError, match=r"another search \(other weights, sampling, share\)"):
        run(folder, None, generator="random")
    with pytest.raises(InputError, match=r"another search \(other share\)"):
        run(folder, Path(mixed.run["generator"]["weights"]), generator="molcrystalflow")
    with pytest.raises(InputError, match=r"another search \(other sampling\)"):
        run(folder, Path(mixed.run["generator"]["weights"]), sampling={"steps": 3})


def test_all_from_weights_except_where_they_cannot(weights: Path, tmp_path: Path) -> None:
    found = run(tmp_path, weights, generator="molcrystalflow", n=30, z_prime=(1.0, 2.0), perturb=0.0)
    kinds = found.run["generator"]["kinds"]
    assert kinds["learned"]["starts"] + kinds["random"]["starts"] == 30
    assert all(r["z_prime"] != 2 for r in found.rows if r["generator"] == "molcrystalflow")
    [note] = [n for n in found.run["notes"] if "Random starts alone" in n]
    assert note == (
        "Random starts alone for P21/c Z'=2: 2 molecules in the asymmetric unit, the weights know 1."
    )
    assert found.run["convergence"]["low_minima"] > 0
    assert found.run["convergence"]["good_turing_unseen"] < 1  # learned starts are draws as random ones are


def test_a_start_that_is_named_leads_to_its_crystal_again(mixed: Prediction, weights: Path) -> None:
    row = next(r for r in mixed.rows if r["generator"] == "molcrystalflow")
    group, number = row["start"].rsplit(" ", 1)
    composition = read_subject("NC=O").composition
    [arm] = arms(composition, group)
    generator = LearnedGenerator(weights, SamplingSettings(**QUICK))
    packings = generator.packings(composition, arm, int(number), 1, row["seed"])
    for level in (PRESS, ROUGH, TIGHT):
        packings = minimise(packings, ForceField.for_molecules(composition.species), level).packings
    assert packings.crystal(0).density == pytest.approx(row["density_g_cm3"], rel=1e-3)


def test_what_cannot_be_generated_is_refused_before_the_folder_is_made(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = {**SMALL, "generator": "molcrystalflow", "weights": weights}
    with pytest.raises(InputError, match="got several kinds of molecules"):
        predict("O.NC=O", PredictSettings.model_validate(options), out)
    with pytest.raises(InputError, match="--weights: expected a file of weights"):
        predict("NC=O", PredictSettings.model_validate({**options, "weights": "nowhere"}), out)
    assert not out.exists()


def test_by_default_weights_and_chance_share_the_starts(mixed: Prediction, weights: Path) -> None:
    assert PredictSettings().generator == "auto"
    settings = PredictSettings.model_validate({**SMALL, "weights": weights, "sampling": QUICK})
    again = predict("NC=O", settings, mixed.folder, resume=True)  # the same search as a mixture by name
    assert again.rows == mixed.rows


def test_by_default_what_weights_cannot_make_starts_at_random(tmp_path: Path) -> None:
    found = predict("O.NC=O", PredictSettings.model_validate(SMALL), tmp_path / "out")
    assert found.run["notes"][-1] == "Random starts alone: several kinds of molecules."
    assert set(found.run["generator"]["kinds"]) <= {"random", "perturbed"}


# ------------------------------------------------------------------ generate


def generated(folder: Path, weights: Path, **changes: Any) -> list[dict[str, Any]]:
    options = {"n": 14, "space_groups": "14,19", "generator": "mixture", "weights": weights, **changes}
    options.setdefault("sampling", {"steps": 2, "draws": 2})
    return generate_files("NC=O", folder, GenerateSettings.model_validate(options))


def test_generated_mixtures(weights: Path, tmp_path: Path) -> None:
    rows = generated(tmp_path, weights, press=False)
    assert [r["generator"] for r in rows].count("molcrystalflow") == 7
    assert [Path(r["file"]).name for r in rows] == [f"{i:04d}.cif" for i in range(1, 15)]
    for row in rows:
        crystal = read_crystal(row["file"]) if not row["clash"] else None
        if crystal is not None:
            assert find_symmetry(crystal, 1e-3).symbol == row["space_group"]
    assert {r["draws"] for r in rows if r["generator"] == "random"} == {1}
    pure = generated(tmp_path / "pure", weights, generator="molcrystalflow", press=False)
    own = [
        r["density_g_cm3"] for r in rows if r["generator"] == "molcrystalflow" and r["space_group"] == "P21/c"
    ]
    alone = [r["density_g_cm3"] for r in pure if r["space_group"] == "P21/c"]
    assert own == pytest.approx(alone[: len(own)], rel=1e-4)  # the same numbers, in a larger batch
    first, second = statistics(rows)
    assert first.startswith("random: 7 of 7 (drawn 7 times)")
    assert second.startswith("molcrystalflow: 7 of 7 (drawn ")
    assert "times the predicted one, density" in second


def test_samples_without_a_cell_are_rows_with_a_failure(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucleate.pipeline.learned.VOLUMES", (10.0, 20.0))
    rows = generated(tmp_path, weights)
    assert len(rows) == 14
    assert [r.get("failure") for r in rows].count("no sound cell") == 7
    assert len(list(tmp_path.glob("*.cif"))) == 7
    assert (
        statistics(rows)[1]
        == "molcrystalflow: 0 of 7 (drawn 14 times), 0 of them without overlaps when drawn"
    )
    assert json.dumps(rows)
