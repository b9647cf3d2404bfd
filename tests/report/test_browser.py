"""The page in a headless browser without a network: clicks, keys, downloads, pictures, no errors."""

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
from devtools import CHROMIUM, FLAGS
from invented_results import invented_rows, invented_run

from nucleate.report import write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH"),
]
WINDOW = ("--window-size=1000,700", "--virtual-time-budget=6000")
WATCH = """<script>
window.seen = { errors: [], violations: [], files: [] };
window.addEventListener("error", (e) => seen.errors.push(String(e.message)));
window.addEventListener("unhandledrejection", (e) => seen.errors.push(String(e.reason)));
document.addEventListener("securitypolicyviolation", (e) => seen.violations.push(e.blockedURI));
const blobs = {};
URL.createObjectURL = (blob) => {
  const name = "blob:" + Object.keys(blobs).length;
  blobs[name] = blob;
  return name;
};
URL.revokeObjectURL = () => {};
HTMLAnchorElement.prototype.click = function () {
  seen.files.push([this.download, blobs[this.href] ?? null]);
};
</script>"""
PROBE = """<script>
const at = (id) => document.getElementById(id);
const all = (query) => [...document.querySelectorAll(query)];
const click = (node) => node.dispatchEvent(new MouseEvent("click", { bubbles: true }));
const press = (node, key) => node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const drawn = () => new Promise((done) => setTimeout(done, 30)); // a chosen one is drawn after the page has answered
const picture = () => document.querySelector("#viewer canvas")?.toDataURL() ?? null;
const chosen = () => all('#table [aria-selected="true"]').map((row) => Number(row.dataset.index));
const column = (i) => all("#table tbody tr").map((row) => row.cells[i].textContent);
async function run() {
  %s
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const texts = seen.files.map(async ([name, blob]) => [name, blob ? await blob.text() : null]);
  seen.files = await Promise.all(texts);
}
window.addEventListener("load", () => run().catch((e) => seen.errors.push(String(e))).finally(() => {
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = encodeURIComponent(JSON.stringify(seen));
  document.body.append(out);
}));
</script>"""


def drive(report: Path, steps: str, address: str = "") -> dict:
    """Run the page with scripts that watch and act, and return what they saw."""
    text = report.read_text(encoding="utf-8")
    text = text.replace("<title>", WATCH + "<title>", 1).replace("</body>", PROBE % steps + "</body>", 1)
    page = report.with_name("driven.html")
    page.write_text(text, encoding="utf-8")
    profile = f"--user-data-dir={report.parent / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, *WINDOW, profile, "--dump-dom", f"{page.as_uri()}{address}"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    found = re.search(r'<pre id="probe">([^<]*)</pre>', done.stdout.decode())
    assert found, "the page did not finish"
    seen = json.loads(unquote(found[1]))
    assert seen["errors"] == []
    assert seen["violations"] == []
    assert seen["requests"] == []
    return seen


def test_the_page_answers_clicks_and_keys(make_folder):
    rows = invented_rows(12)
    rows[10]["energy_kj_mol"] = None
    folder = make_folder(12, rows=rows)
    steps = """
      seen.points = all(".point").length;
      seen.rows = all("#table tbody tr").length;
      seen.first = [chosen(), at("chosen").textContent];
      click(document.querySelector('.point[data-index="4"]'));
      seen.point = [chosen(), at("chosen").textContent, location.hash];
      press(at("landscape"), "ArrowRight");
      seen.arrow = chosen();
      click(at("row-7"));
      seen.row = chosen();
      press(at("row-7"), "ArrowDown");
      seen.down = chosen();
      click(at("next"));
      seen.next = chosen();
      click(document.querySelector('[data-sort="density"]'));
      seen.up = column(3);
      click(document.querySelector('[data-sort="density"]'));
      seen.falling = column(3);
      seen.direction = all('#table th[aria-sort="descending"]').length;
      click(document.querySelector('[data-sort="energy"]'));
      click(document.querySelector('[data-sort="energy"]'));
      seen.energies = column(1);
      click(at("row-0"));
      seen.profiles = all("#powder .profile").length;
      seen.rings = all(".ring.reference").length;
      click(at("download"));
      click(document.querySelector('[data-download="2"]'));
      click(at("download-all"));
      click(at("download-table"));
      await drawn();
      seen.message = at("viewer-message").hidden ? "" : at("viewer-message").textContent;
      seen.pictures = [picture()];
      for (const action of ["#bonds", "#hydrogens", '[data-cells="2"]', '[data-axis="0"]']) {
        click(document.querySelector(action));
        seen.pictures.push(picture());
      }
      window.dispatchEvent(new Event("beforeprint"));
      seen.printed = at("viewer-print").src;
    """
    seen = drive(write_report(folder), steps, "#rank=2")
    assert seen["points"] == 11
    assert seen["rows"] == 12
    assert seen["first"][0] == [1]
    assert seen["point"][0] == [4]
    assert seen["point"][1].startswith("#5 ")
    assert seen["point"][2] == "#rank=5"
    assert [seen["arrow"], seen["row"], seen["down"], seen["next"]] == [[5], [7], [8], [9]]
    densities = [f"{row['density_g_cm3']:.3f}" for row in rows]
    assert seen["up"] == sorted(densities)
    assert seen["falling"] == sorted(densities, reverse=True)
    assert seen["direction"] == 1
    assert seen["energies"][-1] == "–"  # without a value comes last, up or down
    assert seen["profiles"] == 2
    assert seen["rings"] == 1
    texts = [(folder / "cif" / f"000{i}.cif").read_text() for i in (1, 3)]
    assert seen["files"][:2] == [["0001.cif", texts[0]], ["0003.cif", texts[1]]]
    together = re.findall(r"^data_(\S+)", seen["files"][2][1], re.MULTILINE)
    assert together == [f"{i:04d}" for i in range(1, 13)]
    assert len(seen["files"][3][1].splitlines()) == 13
    if "WebGL" in seen["message"]:
        pytest.skip("this Chromium draws no WebGL; everything else on the page was checked")
    assert seen["message"] == ""
    assert len(set(seen["pictures"])) == 5  # every control changes the picture
    assert seen["printed"].startswith("data:image/png;base64,")


def test_hostile_text_does_not_run(make_folder):
    hostile = "</script><img src=x onerror='window.struck = true'><script>window.struck = true</script>"
    run = invented_run(2)
    run["molecule"]["name"] = run["molecule"]["formula"] = run["command"] = hostile
    run["settings"] = {hostile: hostile}
    rows = invented_rows(2)
    rows[0]["generator"] = rows[0]["conformer"] = rows[1]["conformer"] = hostile
    rows[1]["cif"] = f"cif/{hostile.replace('/', '')}.cif"
    steps = "seen.struck = window.struck === true; seen.title = document.querySelector('h1').textContent;"
    seen = drive(write_report(make_folder(2, rows=rows, run=run)), steps)
    assert seen["struck"] is False
    assert seen["title"] == hostile


def test_pages_with_nothing_or_gaps_say_so(make_folder):
    steps = "seen.empty = at('empty').hidden ? '' : at('empty').textContent;"
    seen = drive(write_report(make_folder(0)), steps)
    assert "No crystal was found out of 2,000 starts" in seen["empty"]
    folder = make_folder(3, rows=[{"rank": 1}, {"rank": 2}, {"rank": 3}], run={})
    (folder / "cif" / "0002.cif").unlink()
    steps = """
      click(at("next"));
      await drawn();
      seen.missing = at("viewer-message").textContent;
      click(at("next"));
      await drawn();
      seen.outside = at("viewer-message").textContent;
      seen.points = all(".point").length;
      seen.named = at("row-1").lastChild.textContent;
      seen.link = document.querySelector("#table a").getAttribute("href");
    """
    seen = drive(write_report(folder, max_embedded=2), steps)
    assert "missing" in seen["missing"]
    assert "cif/0003.cif" in seen["outside"]
    assert seen["points"] == 0
    assert seen["named"] == "missing"
    assert seen["link"] == "cif/0003.cif"
