"""The file that is written: self-contained, safe with hostile text, tolerant of gaps."""

import hashlib
import html.parser
import json
import math
import os
import re
from importlib.resources import files

import pytest
from invented_results import invented_rows, invented_run

from nucleate.errors import InputError, NucleateError
from nucleate.report import write_report
from nucleate.report.drawing import molecule_svg, space_group_symbol
from nucleate.report.folder import finite, read_results
from nucleate.report.one_file import embed_json, fill

HOSTILE = "</script><script>alert(1)</script><!-- & \u2028 <img src=https://example.org/x onerror=alert(2)>"


def payload(path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    )


class Elements(html.parser.HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def asks_for_nothing(path) -> bool:
    """True where a page leads only to a heading of its own that is there, and its policy forbids every request."""
    elements = Elements(path.read_text()).found
    addresses = [a[name] for _, a in elements for name in ("src", "href", "action", "data") if name in a]
    headings = {f"#{a['id']}" for tag, a in elements if tag == "h2" and "id" in a}
    policy = next(a["content"] for tag, a in elements if tag == "meta" and "http-equiv" in a)
    outside = {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in elements}
    return (
        len(addresses) == 1
        and addresses[0] in headings
        and not outside
        and "default-src 'none'" in (policy or "")
    )


def test_the_page_asks_for_nothing(make_folder):
    assert asks_for_nothing(write_report(make_folder(3)))
    own = "".join(p.read_text() for p in (files("nucleate.report") / "template").iterdir())
    assert set(re.findall(r"https?://[^\"'\s]+", own)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", own)


def test_vendored_viewer_is_the_file_that_its_note_names():
    vendor = files("nucleate.report") / "vendor"
    library = (vendor / "3Dmol-min.js").read_bytes()
    assert hashlib.sha256(library).hexdigest() in (vendor / "README.md").read_text()
    assert b"</script" not in library.lower()
    assert "BSD-3-Clause" in (vendor / "3Dmol-LICENSE.txt").read_text()


def test_every_row_arrives_with_packing_pattern_and_file(make_folder):
    folder = make_folder(6)
    data = payload(write_report(folder))
    assert [c["rank"] for c in data["crystals"]] == [1, 2, 3, 4, 5, 6]
    assert sorted(data["embedded"]) == list("012345")
    for index, entry in data["embedded"].items():
        assert entry["cif"] == (folder / "cif" / f"{int(index) + 1:04d}.cif").read_text()
        assert len(entry["pattern"]) == 1801
        assert max(entry["pattern"]) == 1000
        assert len(entry["scene"]["positions"]) == 3 * len(entry["scene"]["elements"])
    assert data["reference"]["pattern"] == data["embedded"]["0"]["pattern"]  # the same structure
    assert data["reference"]["density"] == pytest.approx(1.554, abs=0.002)


def test_only_the_best_and_the_reference_match_are_embedded(make_folder):
    rows = invented_rows(500)
    rows[2]["match_reference"], rows[400]["match_reference"] = False, True
    path = write_report(make_folder(500, rows=rows), max_embedded=2)
    data = payload(path)
    assert sorted(data["embedded"]) == ["0", "1", "400"]
    assert len(data["crystals"]) == 500
    assert path.stat().st_size < 1_500_000


def test_hostile_text_stays_text(make_folder):
    run = invented_run(2)
    run["molecule"]["name"] = run["command"] = HOSTILE
    run["failures"] = {HOSTILE: 3}
    rows = invented_rows(2)
    rows[0]["generator"] = HOSTILE
    folder = make_folder(2, rows=rows, run=run)
    (folder / "cif" / "0001.cif").write_text(f"data_x\n# {HOSTILE}\n")
    path = write_report(folder)
    tags = [tag for tag, _ in Elements(path.read_text()).found]
    assert tags.count("script") == 3
    assert tags.count("img") == 1  # the picture for printing
    data = payload(path)
    assert data["run"]["molecule"]["name"] == HOSTILE
    assert HOSTILE in data["embedded"]["0"]["cif"]
    assert data["embedded"]["0"]["problem"]


def test_no_crystals_is_a_page_too(make_folder):
    data = payload(write_report(make_folder(0)))
    assert data["crystals"] == []
    assert data["embedded"] == {}


def test_gaps_are_tolerated(make_folder):
    rows = [{"rank": 1, "energy_kj_mol": math.nan}, {"rank": 2, "energy_kj_mol": math.inf}, {"rank": 3}]
    folder = make_folder(3, rows=rows, run={})
    (folder / "run.json").unlink()
    (folder / "cif" / "0002.cif").write_text("data_broken\nloop_\n_atom_site_label\n")
    (folder / "cif" / "0003.cif").unlink()
    data = payload(write_report(folder))
    assert [c["energy"] for c in data["crystals"]] == [None, None, None]
    assert data["embedded"]["0"]["scene"]
    assert "expected" in data["embedded"]["1"]["problem"]
    assert "missing" in data["embedded"]["2"]["problem"]
    assert data["reference"] is None


def test_an_unreadable_reference_is_named(make_folder):
    run = {**invented_run(1), "reference": {"file": "x.cif", "found": False, "cif": "data_nothing"}}
    assert payload(write_report(make_folder(1, run=run)))["reference"]["problem"]


def test_files_outside_the_folder_are_not_read(make_folder, tmp_path):
    (tmp_path / "secret.cif").write_text("data_secret\n")
    rows = invented_rows(1)
    rows[0]["cif"] = "../secret.cif"
    assert payload(write_report(make_folder(1, rows=rows)))["embedded"]["0"]["cif"] is None


def test_the_same_folder_gives_the_same_file(make_folder):
    folder = make_folder(2)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_a_failed_write_leaves_the_old_report(make_folder, monkeypatch):
    folder = make_folder(1)
    write_report(folder)
    before = sorted(p.name for p in folder.iterdir())
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(NucleateError, match="disk full"):
        write_report(folder)
    assert sorted(p.name for p in folder.iterdir()) == before


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"crystals\.parquet"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [("crystals.parquet", "PAR1 not"), ("run.json", "{"), ("run.json", "[]")]
)
def test_broken_tables_are_one_line_errors(make_folder, name, text):
    folder = make_folder(1)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match="expected") as error:
        read_results(folder)
    assert "\n" not in str(error.value)


def test_json_cannot_leave_its_element():
    text = embed_json({"name": HOSTILE})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["name"] == HOSTILE


def test_filling_does_not_look_into_the_parts():
    assert fill("{{a}} {{b}}", {"a": "{{b}}", "b": "x"}) == "{{b}} x"


def test_what_is_not_finite_becomes_none():
    assert finite({"a": [1.0, math.nan, {"b": -math.inf}]}) == {"a": [1.0, None, {"b": None}]}


@pytest.mark.parametrize(
    ("number", "symbol", "printed"),
    [
        (14, None, "P2₁/c"),
        (14, "P21/n", "P2₁/n"),
        (19, "P212121", "P2₁2₁2₁"),
        (2, "P-1", "P1\u0305"),
        (1, None, "P1"),
        (148, None, "R3\u0305"),
        (208, None, "P4₂32"),
        (33, "nonsense", "Pna2₁"),
        (0, None, "?"),
    ],
)
def test_space_groups_are_printed_as_chemists_write_them(number, symbol, printed):
    assert space_group_symbol(number, symbol) == printed


def test_a_drawing_has_shapes_and_no_addresses():
    drawing = molecule_svg("NC(=O)c1ccccc1")
    assert drawing is not None
    assert drawing.count("<path") > 10
    assert "http" not in drawing
    assert "currentColor" in drawing
    assert molecule_svg("C1CC") is None
    assert molecule_svg("") is None
