"""The report of ordered clusters: self-contained, safe with hostile text, tolerant of gaps, alive in a browser."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from test_browser import drive
from test_browser import pytestmark as in_browser
from test_page import HOSTILE, Elements, asks_for_nothing, payload

from nucleate.crystal.cluster import Cluster
from nucleate.crystal.cluster_xyz import cluster_text
from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation
from nucleate.report import write_any_report, write_cluster_report

WATER = torch.tensor([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]], dtype=torch.float64)
STEPS = 5  # frames of a trajectory less one


def invented_cluster() -> Cluster:
    turn = random_rotation(8, generator=torch.Generator().manual_seed(0))
    place = 3.0 * torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3)
    bonds = torch.tensor([[0, 1], [0, 2]])
    return Cluster(torch.tensor([8, 1, 1]), WATER @ turn.mT + place[:, None], "water", bonds)


def invented_folder(folder: Path, n: int, truth: bool = True, **changes: Any) -> Path:
    """A folder of n samples that swell, the last of which failed; `changes` replace columns of the first row."""
    cluster = invented_cluster()
    rows: list[dict[str, Any]] = []
    for k in range(n):
        name = f"{k + 1:04d}"
        row = {
            "id": name,
            "rank": k + 1,
            "energy_kj_mol": -40.0 + k,
            "collision_between": 0.001 * k,
            "moved_A": 1.5,
        }
        row |= {"neighbour_A": 3.0, "spread_A": 0.5, "matched": 15 - k, "matched_of": 15, "rmsd_A": 0.2 + k}
        row |= {
            "file": f"cluster/{name}.xyz",
            "trajectory": f"trajectory/{name}.xyz",
            "failure": None,
            "cell": None,
        }
        row |= {"cell_space_group": None, "cell_volume_A3": None}
        rows.append(row)
        (folder / "trajectory").mkdir(parents=True, exist_ok=True)
        frames = [cluster.positions * (1.5 - 0.1 * f - 0.01 * k) for f in range(STEPS + 1)]
        text = cluster_text(cluster, frames, [{"time": f / STEPS} for f in range(STEPS + 1)])
        (folder / "trajectory" / f"{name}.xyz").write_text(text)
    if n > 1:
        rows[-1] |= {
            "rank": None,
            "file": None,
            "trajectory": None,
            "failure": "not finite: the sampler ran away",
        }
        rows[-1] |= dict.fromkeys(
            ("energy_kj_mol", "collision_between", "matched", "rmsd_A", "moved_A", "spread_A")
        )
    if rows:
        rows[0] |= {"cell": "cell/0001.cif", "cell_space_group": "P21/c", "cell_volume_A3": 31.4} | changes
    folder.mkdir(exist_ok=True)
    columns = (
        {name: [row[name] for row in rows] for name in rows[0]}
        if rows
        else {"id": pyarrow.array([], "string")}
    )
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "samples.parquet")
    for name in ("loose", "truth")[: 1 + truth]:
        (folder / f"{name}.xyz").write_text(cluster_text(cluster, [cluster.positions], [{}]))
    run = {
        "nucleate": "0.1.0", "command": "nucleate crystallize O", "molecules": 8, "notes": ["a note"],
        "molecule": {"name": "water", "smiles": "O", "formula": "H2O"}, "settings": {"n": n, "cell": True},
        "counts": {"asked": n, "made": max(n - 1, 0), "without_collisions": 1, "cells": 1},
        "failures": {"not finite": 1}, "ranked_by": "energy", "wall_seconds": 12.5, "cpu_seconds": 9.0,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_the_page_holds_what_it_shows_and_asks_for_nothing(tmp_path: Path) -> None:
    path = write_cluster_report(invented_folder(tmp_path, 4))
    assert asks_for_nothing(path)
    data = payload(path)
    assert [s["rank"] for s in data["samples"]] == [1, 2, 3, None]
    assert sorted(data["embedded"]) == ["0", "1", "2"]
    assert data["elements"] == ["O", "H", "H"]
    assert data["bonds"] == [0, 1, 0, 2]
    centre = invented_cluster().centroids.mean(0)
    for k, frames in data["embedded"].items():
        assert len(frames) == STEPS + 1
        last = torch.tensor(frames[-1]).reshape(8, 3, 3) / data["scale"]
        expected = invented_cluster().positions * (1.0 - 0.01 * int(k)) - centre
        torch.testing.assert_close(last.double(), expected, atol=0.006, rtol=0)


def test_only_the_best_trajectories_are_inside(tmp_path: Path) -> None:
    path = write_cluster_report(invented_folder(tmp_path, 6), max_embedded=2)
    assert sorted(payload(path)["embedded"]) == ["0", "1"]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    folder = invented_folder(tmp_path, 3, cell_space_group=HOSTILE)
    run = json.loads((folder / "run.json").read_text())
    run["molecule"]["name"] = run["command"] = HOSTILE
    run["notes"] = [HOSTILE]
    (folder / "run.json").write_text(json.dumps(run))
    path = write_cluster_report(folder)
    tags = [tag for tag, _ in Elements(path.read_text()).found]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert payload(path)["samples"][0]["cell_space_group"] == HOSTILE


def test_gaps_are_tolerated(tmp_path: Path) -> None:
    folder = invented_folder(tmp_path, 3, truth=False, energy_kj_mol=math.nan)
    for name in ("run.json", "trajectory/0002.xyz"):
        (folder / name).unlink()
    (folder / "run.json").write_text('{"molecules": 8, "molecule": 3}')
    data = payload(write_cluster_report(folder))
    assert data["samples"][0]["energy_kj_mol"] is None
    assert sorted(data["embedded"]) == ["0"]
    assert "truth" not in data
    (folder / "loose.xyz").unlink()
    assert payload(write_cluster_report(folder))["embedded"] == {}


def test_nothing_at_all_is_a_page_too_and_another_folder_is_refused(tmp_path: Path) -> None:
    assert payload(write_any_report(invented_folder(tmp_path / "a", 0)))["samples"] == []
    with pytest.raises(InputError, match=r"samples\.parquet"):
        write_cluster_report(tmp_path)
    with pytest.raises(InputError, match=r"crystals\.parquet"):
        write_any_report(tmp_path)


# ------------------------------------------------------------------ in a browser


@pytest.mark.browser
@in_browser[1]
def test_the_player_answers_clicks_and_keys(tmp_path: Path) -> None:
    steps = """
      const shot = () => at("stage").toDataURL();
      window.requestAnimationFrame = (then) => setTimeout(() => then(performance.now()), 16); // headless paints rarely
      const slide = (value) => { at("frame").value = value; at("frame").dispatchEvent(new Event("input")); };
      seen.first = [chosen(), at("chosen").textContent, at("clock").textContent, at("frame").max];
      seen.pictures = [shot()];
      slide(5);
      seen.last = at("clock").textContent;
      seen.pictures.push(shot());
      for (const action of ['[data-colours="molecule"]', "#hydrogens", "#known"]) {
        click(document.querySelector(action));
        seen.pictures.push(shot());
      }
      press(at("stage"), "ArrowLeft");
      seen.pictures.push(shot());
      press(at("stage"), "+");
      seen.pictures.push(shot());
      press(at("stage"), " ");
      seen.playing = at("play").textContent;
      press(at("stage"), " ");
      seen.paused = at("play").textContent;
      slide(0);
      click(at("play"));
      await new Promise((resolve) => setTimeout(resolve, 1500));
      seen.moved = Number(at("frame").value);
      click(at("next"));
      seen.next = [chosen(), at("play").textContent];
      press(at("row-1"), "ArrowDown");
      seen.down = chosen();
      click(at("row-3"));
      seen.failed = [chosen(), at("stage-message").textContent, at("stage-message").hidden, at("play").disabled];
      click(at("download-table"));
    """
    seen = drive(write_cluster_report(invented_folder(tmp_path, 4)), steps)
    assert seen["first"][0] == [0]
    assert seen["first"][1].startswith("#1 · sample 0001 · −40.0 kJ/mol · 15 of 15 molecules as known")
    assert seen["first"][2:] == ["loose", str(STEPS)]
    assert seen["last"] == "ordered"
    assert len(set(seen["pictures"])) == len(seen["pictures"]) == 7
    assert seen["playing"] == "Pause"
    assert seen["paused"] == "Play"
    assert seen["moved"] > 0
    assert seen["next"] == [[1], "Play"]
    assert seen["down"] == [2]
    assert seen["failed"] == [[3], "There is no cluster: this sample failed.", False, True]
    assert len(seen["files"][0][1].splitlines()) == 5


@pytest.mark.browser
@in_browser[1]
def test_hostile_text_does_not_run_in_the_player(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror='window.struck = true'><script>window.struck = true</script>"
    folder = invented_folder(tmp_path, 3, cell_space_group=hostile, id=hostile)
    run = json.loads((folder / "run.json").read_text())
    run["molecule"]["name"] = run["notes"][0] = hostile
    (folder / "run.json").write_text(json.dumps(run))
    steps = "seen.struck = window.struck === true; seen.title = document.querySelector('h1').textContent;"
    seen = drive(write_cluster_report(folder), steps)
    assert seen["struck"] is False
    assert seen["title"] == hostile
