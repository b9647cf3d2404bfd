"""The report of a free energy: self-contained, safe with hostile text, tolerant of gaps, alive in a browser."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_browser import drive
from test_browser import pytestmark as in_browser
from test_page import HOSTILE, Elements, asks_for_nothing, payload

from nucleate.errors import InputError
from nucleate.report import write_any_report, write_free_energy_report


def bell(x: list[float], middle: float, width: float) -> list[float]:
    return [math.exp(-(((v - middle) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi)) for v in x]


def middles(edges: list[float]) -> list[float]:
    return [(a + b) / 2 for a, b in pairwise(edges)]


def invented(**changes: Any) -> dict[str, Any]:
    """A record of plausible numbers of ice XI; `changes` replace its keys."""
    energy_edges = [-58 + 0.18 * k for k in range(51)]
    energy = middles(energy_edges)
    work_edges = [-42 + 1.0 * k for k in range(51)]
    work = middles(work_edges)
    r = [2 + 0.025 * k for k in range(200)]
    shells = [(2.75, 1.0), (4.5, 1.6), (5.3, 0.8), (6.4, 1.4)]

    def radial(width: float) -> list[float]:
        return [sum(h * b for h, b in zip([h for _, h in shells], column)) for column in zip(*(
            bell(r, middle, width) for middle, _ in shells))]  # fmt: skip

    counts = [80 * (k + 1) for k in range(20)]
    wave = [math.cos(1.7 * k) / (k + 1) for k in range(20)]
    estimates = [
        ("fep", -612.3, 2.41, 0.0006, 57.1, 1600, False),
        ("harmonic", -669.12, 0.62, 0.021, 4.9, 1600, True),
        ("flow", -669.73, 0.09, 0.352, 1.02, 1600, True),
        ("mbar", -669.706, 0.054, 0.41, None, 9120, True),
    ]
    names = ("method", "difference_kT", "error_kT", "effective_share", "gap_kT", "frames", "overlaps")
    record = {
        "nucleate": "0.1.0", "versions": {"torch": "2.13.0", "python": "3.11.2"}, "wall_seconds": 512.3,
        "command": "nucleate free-energy ice-xi --n 16 --t-base 250 --t-target 100 --method mbar",
        "molecule": {"name": "ice XI, 16 x TIP4P-Ew", "smiles": "O"},
        "crystal": {"molecules": 16, "cell_A": [[8.98, 0, 0], [0, 7.78, 0], [0, 0, 7.34]], "source": "ice-xi"},
        "settings": {"base": 250.0, "target": 100.0, "frames": 4000, "steps": 2000, "minutes": None},
        "base_K": 250.0, "target_K": 100.0, "method": "flow",
        "estimates": [dict(zip(names, row)) | {"per_molecule_kT": row[1] / 16} for row in estimates],
        "ladder": {
            "temperatures_K": [250.0, 198.8, 158.1, 125.7, 100.0], "frames": [4000] * 5,
            "differences_kT": [0, -121.1, -268.4, -449.3, -669.706], "errors_kT": [0, 0.021, 0.033, 0.044, 0.054],
            "independent": [1810, 1835, 1822, 1830, 1823],
            "overlap": [[round(max(0.0, 0.62 - 0.29 * abs(i - j)), 3) for j in range(5)] for i in range(5)],
        },
        "energies": {
            "edges_kj_mol": energy_edges, "base": bell(energy, -52.4, 0.92),
            "mapped": {"harmonic": bell(energy, -55.6, 0.47), "flow": bell(energy, -56.0, 0.40)},
            "reweighted": {"harmonic": bell(energy, -55.9, 0.38), "flow": bell(energy, -56.06, 0.37)},
            "sampled": bell(energy, -56.07, 0.37),
        },
        "work": {
            "edges_kT": work_edges, "fep": bell(work, -22, 6), "harmonic": bell(work, -4, 2.8),
            "flow": bell(work, -0.9, 1.3),
        },
        "radial": {
            "r_A": r, "base": radial(0.16), "mapped": radial(0.105), "reweighted": radial(0.1), "sampled": radial(0.1),
        },
        "convergence": {
            "frames": counts, "fep": [-612.3 + 9 * w for w in wave], "harmonic": [-669.12 + 2.2 * w for w in wave],
            "flow": [-669.73 + 0.5 * w for w in wave], "mbar": [None, *(-669.706 - 0.3 * w for w in wave[1:])],
        },
        "notes": ["Frames 0 to 6399 taught the flow, 6400 to 7999 are those of the estimates."],
    }  # fmt: skip
    return record | changes


def folder_of(record: Any, folder: Path) -> Path:
    (folder / "free_energy.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_the_page_holds_what_it_shows_and_asks_for_nothing(tmp_path: Path) -> None:
    path = write_any_report(folder_of(invented(), tmp_path))
    assert path == tmp_path / "report.html"
    assert asks_for_nothing(path)
    data = payload(path)
    assert [e["method"] for e in data["estimates"]] == ["fep", "harmonic", "flow", "mbar"]
    assert [e["overlaps"] for e in data["estimates"]] == [False, True, True, True]
    assert data["estimates"][-1]["gap_kT"] is None
    energies = data["plots"]["energies"]
    assert energies["x"][:2] == pytest.approx([-57.91, -57.73])  # the middles of the bins
    assert [(c["state"], c["method"]) for c in energies["curves"]] == [
        ("base", "flow"), ("mapped", "harmonic"), ("mapped", "flow"), ("reweighted", "harmonic"),
        ("reweighted", "flow"), ("sampled", "flow"),
    ]  # fmt: skip
    assert [c["state"] for c in data["plots"]["radial"]["curves"]] == [
        "base",
        "mapped",
        "reweighted",
        "sampled",
    ]
    assert data["plots"]["convergence"]["curves"][-1]["y"][:1] == [None]
    assert data["ladder"]["overlap"][0][1] == 0.33
    assert "energies" not in data["run"]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    record = invented(
        command=HOSTILE, notes=[HOSTILE], settings={HOSTILE: HOSTILE}, molecule={"name": HOSTILE}
    )
    record["estimates"][0]["method"] = HOSTILE
    record["energies"]["mapped"] = {HOSTILE: record["energies"]["base"]}
    path = write_free_energy_report(folder_of(record, tmp_path))
    tags = [tag for tag, _ in Elements(path.read_text()).found]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert payload(path)["estimates"][0]["method"] == HOSTILE


def test_keys_may_be_missing_or_of_another_kind(tmp_path: Path) -> None:
    for key in invented():
        record = invented()
        del record[key]
        write_free_energy_report(folder_of(record, tmp_path))
    for value in (None, 3, "text", [[None]], {"edges_kT": [1], "overlap": 3}):
        data = payload(write_free_energy_report(folder_of(dict.fromkeys(invented(), value), tmp_path)))
        assert data["estimates"] == []
        assert set(data["plots"].values()) == {None}


def test_what_cannot_be_drawn_is_left_out(tmp_path: Path) -> None:
    record = invented(estimates=[3, {"method": "flow", "difference_kT": math.nan}, {"difference_kT": -1}])
    record["energies"]["base"] = record["energies"]["base"][:-1]  # not as many as bins
    record["work"]["edges_kT"][7] = math.nan
    record["radial"] = {"r_A": [], "base": []}
    record["ladder"]["overlap"][2] = [1, 0]
    record["ladder"]["frames"] = None
    data = payload(write_free_energy_report(folder_of(record, tmp_path)))
    assert [(e["method"], e["difference_kT"]) for e in data["estimates"]] == [("unnamed", -1)]
    assert "base" not in [c["state"] for c in data["plots"]["energies"]["curves"]]
    assert data["plots"]["work"] is data["plots"]["radial"] is None
    assert (data["ladder"]["overlap"], data["ladder"]["frames"]) == (None, None)
    assert data["ladder"]["temperatures_K"][1] == 198.8
    empty = payload(write_free_energy_report(folder_of({}, tmp_path)))
    assert (empty["estimates"], empty["ladder"], set(empty["plots"].values())) == ([], None, {None})


def test_other_folders_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"free_energy\.json"):
        write_free_energy_report(tmp_path)
    for text in ('{"base_K": 25', "[]"):
        (tmp_path / "free_energy.json").write_text(text)
        with pytest.raises(InputError, match=r"expected .*JSON"):
            write_free_energy_report(tmp_path)


# ------------------------------------------------------------------ in a browser


@pytest.mark.browser
@in_browser[1]
def test_the_page_answers_clicks_and_keys(tmp_path: Path) -> None:
    steps = """
      seen.answer = at("answer").textContent;
      seen.rows = all("#estimates tbody tr").map((row) => row.textContent);
      seen.warning = at("warning").hidden;
      seen.plots = ["energies", "work", "radial", "convergence"].map((id) => all(`#${id} .curve`).length);
      seen.dashes = all("#energies .curve").map((c) => c.getAttribute("stroke-dasharray"));
      seen.cells = all("#overlap td").filter((cell) => cell.style.background).length;
      const key = at("energies-legend").querySelector("button");
      click(key);
      seen.hidden = [key.getAttribute("aria-pressed"), all("#energies .curve").length];
      click(key);
      seen.back = [key.getAttribute("aria-pressed"), all("#energies .curve").length];
      press(at("convergence"), "End");
      seen.last = document.querySelector("#convergence .tooltip").textContent;
      press(at("convergence"), "ArrowLeft");
      seen.before = document.querySelector("#convergence .tooltip").textContent;
      press(at("convergence"), "Escape");
      seen.away = document.querySelector("#convergence .tooltip").hidden;
      const line = () => document.querySelector("#convergence .curve").getAttribute("d");
      const close = line();
      click(at("convergence-all"));
      seen.changed = line() !== close;
      click(at("convergence-csv"));
      seen.sideways = document.documentElement.scrollWidth - innerWidth;
      seen.note = at("convergence-note").textContent;
    """
    seen = drive(write_free_energy_report(folder_of(invented(), tmp_path)), steps)
    assert seen["answer"] == "F(100 K) − F(250 K) = −669.706 ± 0.054 kT"
    assert "Too little overlap" in seen["rows"][1]
    assert [("Too little" in row) for row in seen["rows"]] == [False, True, False, False, False]
    assert "−41.8566 ± 0.0034" in seen["rows"][-1]
    assert seen["warning"] is True
    assert seen["plots"] == [6, 3, 4, 4]
    assert len(set(seen["dashes"])) == 5  # two of the six are filled, and one of these has a dash
    assert seen["cells"] == 25
    assert seen["hidden"] == ["false", 5]
    assert seen["back"] == ["true", 6]
    assert "1,600 frames" in seen["last"]
    assert "Ladder: −669.7" in seen["last"]
    assert "1,520 frames" in seen["before"]
    assert seen["away"] is True
    assert seen["changed"] is True
    assert seen["sideways"] <= 0
    assert "Outside the picture: no map (−612.0 kT)." in seen["note"]
    table = seen["files"][0][1].splitlines()
    assert table[0] == '"Frames, from the first on","No map","Harmonic map","Flow","Ladder"'
    assert len(table) == 21
    assert float(table[-1].split(",")[3]) == pytest.approx(-669.73, abs=0.1)


@pytest.mark.browser
@in_browser[1]
def test_gaps_and_hostile_text_in_a_browser(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror='window.struck = true'><script>window.struck = true</script>"
    record = invented(
        molecule={"name": hostile}, notes=[hostile, 3], settings={hostile: [hostile]}, ladder=None
    )
    record["estimates"] = [{"method": hostile, "difference_kT": -3.0, "overlaps": False}]
    record["convergence"] = {"frames": [10, 20], "flow": [None, None], hostile: [1.0, 2.0]}
    del record["radial"], record["base_K"], record["crystal"]
    steps = """
      seen.struck = window.struck === true;
      seen.title = document.querySelector("h1").textContent;
      seen.warning = [at("warning").hidden, at("warning").textContent];
      seen.hidden = ["radial", "ladder", "convergence", "energies"].map((id) => at(`${id}-section`)?.hidden ?? true);
    """
    seen = drive(write_free_energy_report(folder_of(record, tmp_path)), steps)
    assert seen["struck"] is False
    assert seen["title"] == hostile
    assert seen["warning"][0] is False
    assert "the error means nothing" in seen["warning"][1]
    assert seen["hidden"] == [True, True, False, False]


@pytest.mark.browser
@in_browser[1]
def test_an_empty_record_says_so(tmp_path: Path) -> None:
    steps = "seen.empty = [at('empty').hidden, at('empty').textContent, all('section:not([hidden])').length];"
    seen = drive(write_free_energy_report(folder_of({}, tmp_path)), steps)
    assert seen["empty"][0] is False
    assert "--resume" in seen["empty"][1]
    assert seen["empty"][2] == 1  # settings
