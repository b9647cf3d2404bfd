"""The report of conformers: self-contained, safe with hostile text, tolerant of gaps, alive in a browser."""

import json
from pathlib import Path

import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from test_browser import drive
from test_browser import pytestmark as in_browser
from test_page import HOSTILE, Elements, asks_for_nothing, payload

from nucleate.errors import InputError
from nucleate.report import write_any_report, write_conformer_report


def invented_folder(folder: Path, sizes: dict[str, int], **changes: str) -> Path:
    """A folder of so many conformers of each SMILES; `changes` replace properties of the first record."""
    folder.mkdir(exist_ok=True)
    texts = []
    for smiles, n in sizes.items():
        graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
        ids = list(rdDistGeom.EmbedMultipleConfs(graph, n, randomSeed=1))
        for k in ids:
            row = {
                "id": f"mol_{k + 1:04d}", "smiles": smiles, "rank": k + 1, "energy_kj_mol": 1.5 * k,
                "boltzmann_weight": 0.5 / (k + 1), "mirror_images": 1 + k % 2, "rmsd_A": 0.25 * k,
                "energy_model": "MMFF94, dielectric 4", "method": "etkdg",
            }  # fmt: skip
            row |= changes if not texts else {}
            block = Chem.MolToMolBlock(graph, confId=k)
            texts.append(block + "".join(f">  <{a}>\n{b}\n\n" for a, b in row.items() if b != "") + "$$$$\n")
    (folder / "conformers.sdf").write_text("".join(texts))
    run = {
        "nucleate": "0.1.0", "command": "nucleate conform", "notes": ["a note"], "settings": {"n": 20},
        "molecule": {"name": "mol", "smiles": ".".join(sizes), "formula": "X", "n_atoms": 9},
        "counts": {"asked": 40, "made": 30, "alike": 4, "wrong_stereo": 3, "handed_over": len(texts)},
        "wall_seconds": 12.5, "cpu_seconds": 9.0,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_the_page_holds_what_it_shows_and_asks_for_nothing(tmp_path: Path) -> None:
    folder = invented_folder(tmp_path, {"OCCO": 3, "O": 1})
    path = write_any_report(folder)
    assert asks_for_nothing(path)
    data = payload(path)
    assert [s["smiles"] for s in data["species"]] == ["OCCO", "O"]
    assert data["species"][1]["elements"] == ["O", "H", "H"]
    assert data["species"][1]["bonds"] == [[0, 1, 1], [0, 2, 1]]
    assert [c["species"] for c in data["conformers"]] == [0, 0, 0, 1]
    assert [c["energy_kj_mol"] for c in data["conformers"]] == [0, 1.5, 3.0, 0]
    first = Chem.SDMolSupplier(str(folder / "conformers.sdf"), removeHs=False)[0]
    given = first.GetConformer().GetPositions().flatten()
    assert [x / data["scale"] for x in data["conformers"][0]["positions"]] == pytest.approx(given, abs=6e-4)


def test_only_the_lowest_coordinates_are_inside(tmp_path: Path) -> None:
    data = payload(write_conformer_report(invented_folder(tmp_path, {"OCCO": 4}), max_embedded=2))
    assert [c["positions"] is None for c in data["conformers"]] == [False, False, True, True]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    one_line = HOSTILE.replace("\u2028", " ")
    folder = invented_folder(tmp_path, {"OCCO": 2}, id=one_line, energy_model=one_line)
    run = json.loads((folder / "run.json").read_text())
    run["molecule"]["name"] = run["command"] = HOSTILE
    run["notes"] = [HOSTILE]
    (folder / "run.json").write_text(json.dumps(run))
    path = write_conformer_report(folder)
    tags = [tag for tag, _ in Elements(path.read_text()).found]
    assert tags.count("script") == 3
    assert payload(path)["conformers"][0]["id"] == one_line


def test_gaps_are_tolerated(tmp_path: Path) -> None:
    folder = invented_folder(tmp_path, {"OCCO": 3}, energy_kj_mol="nan", boltzmann_weight="much", rank="")
    (folder / "run.json").unlink()
    sdf = folder / "conformers.sdf"
    good = sdf.read_text().split("$$$$\n")
    sdf.write_text("$$$$\n".join([good[0], "broken\n\n\n  x\nM  END\n", *good[1:]]))
    data = payload(write_conformer_report(folder))
    assert data["unreadable"] == 1
    assert len(data["conformers"]) == 3
    assert [data["conformers"][0][k] for k in ("energy_kj_mol", "boltzmann_weight", "rank")] == [None] * 3
    sdf.write_text("")
    assert payload(write_conformer_report(folder))["conformers"] == []


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"conformers\.sdf"):
        write_conformer_report(tmp_path)


# ------------------------------------------------------------------ in a browser


@pytest.mark.browser
@in_browser[1]
def test_the_page_answers_clicks_and_keys(tmp_path: Path) -> None:
    steps = """
      seen.first = [chosen(), at("chosen").textContent, at("previous").disabled];
      seen.points = [all(".point").length, all(".weight").length];
      await drawn();
      seen.pictures = [picture()];
      click(document.querySelector('.point[data-index="2"]'));
      seen.point = [chosen(), at("chosen").textContent];
      await drawn();
      seen.pictures.push(picture());
      click(at("hydrogens"));
      await drawn();
      seen.pictures.push(picture());
      at("others").value = "0";
      at("others").dispatchEvent(new Event("change"));
      await drawn();
      seen.pictures.push(picture());
      press(at("energies"), "ArrowLeft");
      seen.arrow = chosen();
      click(at("row-3"));
      seen.row = chosen();
      press(at("row-3"), "ArrowUp");
      seen.up = chosen();
      click(at("next"));
      seen.next = chosen();
      click(document.querySelector('.weight[data-index="0"]'));
      seen.bar = chosen();
      at("species").value = "1";
      at("species").dispatchEvent(new Event("change"));
      seen.other = [chosen(), all(".point").length, at("next").disabled];
      await drawn();
      seen.pictures.push(picture());
      seen.fate = at("fate").textContent;
      click(at("download"));
      click(at("download-table"));
    """
    seen = drive(write_conformer_report(invented_folder(tmp_path, {"OCCCO": 5, "O": 1})), steps)
    assert seen["first"] == [[0], "#1 · ΔE 0.00 kJ/mol · weight 50.0 %", True]
    assert seen["points"] == [5, 5]
    assert seen["point"] == [[2], "#3 · ΔE 3.00 kJ/mol · weight 16.7 % · 0.50 Å from the lowest"]
    assert len(set(seen["pictures"])) == len(seen["pictures"]) == 5
    assert (seen["arrow"], seen["row"], seen["up"], seen["next"], seen["bar"]) == ([1], [3], [2], [3], [0])
    assert seen["other"] == [[5], 1, True]
    assert "refused: wrong stereo3" in seen["fate"]
    xyz, table = (text for _, text in seen["files"])
    assert xyz.splitlines()[0] == "3"
    assert [line.split()[0] for line in xyz.splitlines()[2:]] == ["O", "H", "H"]
    assert len(table.splitlines()) == 7


@pytest.mark.browser
@in_browser[1]
def test_hostile_text_does_not_run_and_missing_things_are_told(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror='window.struck = true'><script>window.struck = true</script>"
    folder = invented_folder(tmp_path, {"OCCO": 3}, id=hostile, smiles=hostile, energy_kj_mol="")
    (folder / "run.json").write_text("{}")
    steps = """
      seen.struck = window.struck === true;
      seen.note = at("energies-note").textContent;
      click(at("row-2"));
      await drawn();
      seen.message = [at("viewer-message").hidden, at("viewer-message").textContent];
      seen.fate = at("fate").textContent;
    """
    seen = drive(write_conformer_report(folder, max_embedded=2), steps)
    assert seen["struck"] is False
    assert "No energies" in seen["note"]
    assert seen["message"][0] is False
    assert "conformers.sdf" in seen["message"][1]
    assert "run.json is missing" in seen["fate"]
