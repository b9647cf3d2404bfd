"""What a reader can rely on in every report: nothing cut off or overlapping, legible, all of it by keyboard, on paper.

The four pages stand open in one browser; each law is measured in what it has laid out, at four sizes of the window.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from devtools import CHROMIUM, Browser, Page
from invented_results import invented_rows, invented_run, write_folder
from test_cluster_page import invented_folder as cluster_folder
from test_conformer_page import invented_folder as conformer_folder
from test_free_energy_page import folder_of, invented

from nucleate.report import write_any_report, write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH"),
]
SIZES = [(390, 844), (1280, 720), (1440, 900), (1920, 1080)]
KINDS = ("crystals", "conformers", "clusters", "free energies")
LONG = "5-methyl-2-[(2-nitrophenyl)amino]-3-thiophenecarbonitrile_" * 3

# Texts that are seen, each with the box of its letters; those inside a box that scrolls may be cut by it.
TEXTS = """
const shown = (node) => node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
const texts = [...document.querySelectorAll("body *")].filter((node) => shown(node) && !node.closest("script, style")
  && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
"""
OVERFLOWS = (
    "(() => {"
    + TEXTS
    + """
  const wide = texts.filter((node) => !node.closest(".scroll, .skip, .viewer, svg") && node.tagName !== "OPTION"
    && (node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== "inline"
        || node.getBoundingClientRect().right > innerWidth));
  return [document.documentElement.scrollWidth - innerWidth, wide.map((node) => node.textContent.slice(0, 60))];
})()"""
)
PLOTS = """(() => {
  const found = [];
  for (const drawing of document.querySelectorAll(".plot > svg")) {
    const frame = drawing.getBoundingClientRect();
    const boxes = [...drawing.querySelectorAll("text")].map((node) => [node.textContent, node.getBoundingClientRect()]);
    boxes.forEach(([text, p], i) => {
      if (p.left < frame.left - 1 || p.right > frame.right + 1 || p.top < frame.top - 1 || p.bottom > frame.bottom + 1) found.push(["cut off", text]);
      for (const [other, q] of boxes.slice(i + 1)) {
        const over = Math.min(p.right, q.right) - Math.max(p.left, q.left) > 0.5 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 0.5;
        if (over) found.push([text, other]);
      }
    });
    const small = boxes.filter(([text, box]) => text && Math.min(box.width, box.height) < 11 && text.length > 1);
    found.push(...small.map(([text]) => ["small", text]));
  }
  return [document.querySelectorAll(".plot > svg").length, found];
})()"""  # noqa: E501
# WCAG 2.2, 1.4.3: (L1 + 0.05) / (L2 + 0.05) of relative luminances, over what lies behind the text.
CONTRAST = (
    "(() => {"
    + TEXTS
    + """
  const dot = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const pen = dot.getContext("2d", { willReadFrequently: true });
  const mixed = (layers) => {
    for (const layer of layers) { pen.fillStyle = layer; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => rgb.reduce((sum, c, i) => sum + linear(c / 255) * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => getComputedStyle(node).backgroundColor;
  const behind = (node) => (node ? [...behind(node.parentElement), ground(node)] : ["Canvas"]);
  const found = [];
  for (const node of texts) {
    if (node.disabled || node.tagName === "OPTION") continue;
    const style = getComputedStyle(node);
    const ink = node.closest("svg") ? style.fill : style.color;
    const [p, q] = [mixed([...behind(node), ink]), mixed(behind(node))].map(luminance);
    const ratio = (Math.max(p, q) + 0.05) / (Math.min(p, q) + 0.05);
    if (ratio < 4.5) found.push([ratio.toFixed(2), node.textContent.slice(0, 40), ink]);
  }
  return [texts.length, found];
})()"""
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind, with names longer than any line."""
    folder = tmp_path_factory.mktemp("reports")
    run = invented_run(12)
    run["molecule"]["name"] = run["energy_model"] = LONG
    run["failures"] |= {f"a reason, {LONG}": 12}
    run["settings"] |= {LONG: {"inner": LONG}}
    run["notes"] = [LONG]
    rows = invented_rows(12)
    rows[3]["match_reference"] = True  # near to another match: their names would lie on each other
    (folder / "free").mkdir()
    folders = (
        write_folder(folder / "crystals", rows, run),
        conformer_folder(folder / "conformers", {"OCCCO": 6, "O": 1}, id=LONG),
        cluster_folder(folder / "clusters", 4),
        folder_of(invented(), folder / "free"),
    )
    return {kind: write_any_report(path) for kind, path in zip(KINDS, folders)}


@pytest.fixture(scope="module", params=KINDS)
def page(request: pytest.FixtureRequest, browser: Browser, reports: dict[str, Path]) -> Iterator[Page]:
    page = browser.open(reports[request.param], webgl=False)
    yield page
    page.close()


def click(query: str) -> str:
    return f"document.querySelector('{query}').dispatchEvent(new MouseEvent('click', {{ bubbles: true }}));"


def settle(page: Page) -> None:
    """Until what follows a change of the window has been drawn."""
    page.value("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 40)))")


def test_nothing_is_cut_off_or_overlaps_at_any_size(page: Page) -> None:
    for width, height in SIZES:
        page.window(width, height)
        settle(page)
        assert page.value(OVERFLOWS) == [0, []], width
        plots, found = page.value(PLOTS)
        assert found == [], width
    page.window(1280, 720)
    settle(page)


def test_text_stands_out_from_what_is_behind_it(page: Page) -> None:
    for dark in (False, True):
        page.media(dark=dark)
        settle(page)
        texts, faint = page.value(CONTRAST)
        assert texts > 40
        assert faint == []
    page.media()


def test_every_control_has_a_name_and_is_reached_by_tab(page: Page) -> None:
    nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "slider", "link", "application", "region", "grid"}
    kept = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(kept) > 5
    assert [node["role"]["value"] for node in kept if not node.get("name", {}).get("value")] == []
    wanted = page.value(
        """[...document.querySelectorAll("button, select, input, a[href], [tabindex='0']")]
          .filter((node) => node.checkVisibility() && !node.disabled && !node.closest("tr[tabindex='-1']")).length"""
    )
    page.value("document.activeElement.blur(); window.reached = new Set(); window.plain = []; 0")
    for _ in range(wanted):
        page.press("Tab")
        page.value(
            """(() => { const node = document.activeElement; reached.add(node);
              const ring = getComputedStyle(node);
              if (ring.outlineStyle === "none" || parseFloat(ring.outlineWidth) < 1) plain.push(node.outerHTML.slice(0, 80)); })()"""  # noqa: E501
        )
    reached, plain = page.value("[reached.size, plain]")
    assert reached == wanted
    assert plain == []  # each shows that it has the focus


def test_headings_and_landmarks_tell_the_page(page: Page) -> None:
    told = page.value(
        """({ lang: document.documentElement.lang, mains: document.querySelectorAll("main").length,
          levels: [...document.querySelectorAll("h1, h2, h3")].filter((h) => h.checkVisibility()).map((h) => Number(h.tagName[1])),
          unnamed: [...document.querySelectorAll("section")].filter((s) => !document.getElementById(s.getAttribute("aria-labelledby"))).length,
          twice: [...document.querySelectorAll("[id]")].map((n) => n.id).filter((id, i, all) => all.indexOf(id) !== i) })"""  # noqa: E501
    )
    assert told["lang"] == "en"
    assert told["mains"] == 1
    assert told["levels"][0] == 1
    assert told["levels"].count(1) == 1
    assert max(b - a for a, b in zip(told["levels"], told["levels"][1:])) <= 1  # none is left out
    assert told["unnamed"] == 0
    assert told["twice"] == []


def test_a_dark_page_is_printed_light(page: Page) -> None:
    page.media(dark=True)
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"
    sheets = page.paper()
    assert sheets.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", sheets)) <= 5
    page.media(dark=True)
    page.value("window.dispatchEvent(new Event('beforeprint')); 0")
    page.media(dark=True, paper=True)
    told = page.value(
        """({ page: getComputedStyle(document.body).backgroundColor,
          buttons: [...document.querySelectorAll("button")].filter((b) => b.checkVisibility() && !b.closest(".keys")).length,
          rows: document.querySelectorAll("tbody tr").length,
          picture: document.querySelector("#viewer-print")?.checkVisibility() ?? null,
          plots: [...document.querySelectorAll(".plot > svg")].every((s) => s.checkVisibility()),
          sideways: document.documentElement.scrollWidth - innerWidth })"""  # noqa: E501
    )
    page.value("window.dispatchEvent(new Event('afterprint')); 0")
    page.media()
    assert told["page"] == "rgb(255, 255, 255)"
    assert told["buttons"] == 0
    assert told["rows"] > 3
    assert told["plots"] is True
    assert told["sideways"] <= 0
    if told["picture"] is not None and page.value("document.getElementById('viewer-message').hidden"):
        assert told["picture"] is True


def test_the_printed_packing_is_light_on_a_dark_screen(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open(reports["crystals"], dark=True)
    settle(page)
    if not page.value("document.getElementById('viewer-message').hidden"):
        pytest.skip("this Chromium draws no WebGL")
    corner = """(async () => {
      const pen = document.createElement("canvas").getContext("2d");
      const source = document.getElementById("viewer-print");
      window.dispatchEvent(new Event("beforeprint"));
      await source.decode();
      pen.drawImage(source, 0, 0);
      window.dispatchEvent(new Event("afterprint"));
      return [[...pen.getImageData(2, 2, 1, 1).data], source.hidden];
    })()"""
    assert page.value(corner) == [[255, 255, 255, 255], True]
    page.close()


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Page]:
    """A thousand crystals, the best four with their structures."""
    rows = invented_rows(1000)
    folder = write_folder(tmp_path_factory.mktemp("thousand") / "x", rows[:4], invented_run(1000))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "crystals.parquet")
    page = browser.open(write_report(folder, max_embedded=4))
    yield page
    page.close()


def test_a_thousand_crystals_stay_few_rows(thousand: Page) -> None:
    step: Callable[[str], list[object]] = lambda act: thousand.value(  # noqa: E731
        f"""(() => {{ {act}; return [document.querySelectorAll("#table tbody tr").length,
          document.querySelectorAll('#table [aria-selected="true"]').length, document.getElementById("page-rows").textContent]; }})()"""  # noqa: E501
    )
    assert step("") == [100, 1, "Rows 1 to 100 of 1,000"]
    assert thousand.value('document.querySelectorAll(".point").length') == 1000
    assert step(click('.point[data-index="842"]')) == [100, 1, "Rows 801 to 900 of 1,000"]
    assert step(click("#page-on")) == [100, 0, "Rows 901 to 1,000 of 1,000"]
    assert thousand.value("document.getElementById('page-on').disabled") is True
    assert step(click('[data-sort="density"]'))[0] == 100
    column = thousand.value(
        "[...document.querySelectorAll('#table tbody tr')].map((row) => Number(row.cells[3].textContent))"
    )
    assert column == sorted(column)
    assert column[0] == pytest.approx(min(row["density_g_cm3"] for row in invented_rows(1000)), abs=6e-4)
    assert thousand.value("document.querySelectorAll('*').length") < 4000


def test_keys_walk_through_the_pages_of_the_table(thousand: Page) -> None:
    thousand.value(click('[data-sort="rank"]') + click('.point[data-index="99"]'))
    thousand.value("document.querySelector('#row-99').focus()")
    place = "[document.activeElement.id, document.getElementById('page-rows').textContent]"
    thousand.press("ArrowDown")
    assert thousand.value(place) == ["row-100", "Rows 101 to 200 of 1,000"]
    thousand.press("ArrowUp")
    assert thousand.value(place) == ["row-99", "Rows 1 to 100 of 1,000"]


def test_many_keys_make_one_picture(thousand: Page) -> None:
    """Selection answers at once; the picture follows once for all of them, in one drawing."""
    if not thousand.value("document.getElementById('viewer').querySelector('canvas') !== null"):
        pytest.skip("this Chromium draws no WebGL")
    drawn = thousand.value(
        """(async () => {
          let bitmaps = 0;
          const whole = OffscreenCanvas.prototype.transferToImageBitmap;
          OffscreenCanvas.prototype.transferToImageBitmap = function () { bitmaps += 1; return whole.call(this); };
          const press = (key) => document.getElementById("landscape").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
          CLICK
          for (const key of ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"]) press(key);
          await new Promise((done) => setTimeout(done, 60));
          OffscreenCanvas.prototype.transferToImageBitmap = whole;
          return [bitmaps, document.getElementById("chosen").textContent.slice(0, 3)];
        })()""".replace("CLICK", click('.point[data-index="0"]'))  # noqa: E501
    )
    assert drawn == [1, "#3 "]


def test_a_wheel_scrolls_the_page_until_the_picture_is_chosen(thousand: Page) -> None:
    thousand.value(click('.point[data-index="0"]'))
    settle(thousand)
    if not thousand.value("document.getElementById('viewer-message').hidden"):
        pytest.skip("this Chromium draws no WebGL")
    turn = """(() => {
      const event = new WheelEvent("wheel", { deltaY: 40, bubbles: true, cancelable: true });
      document.querySelector("#viewer canvas").dispatchEvent(event);
      return event.defaultPrevented;
    })()"""
    thousand.value("document.activeElement.blur()")
    assert thousand.value(turn) is False
    thousand.value("document.getElementById('viewer').focus()")
    assert thousand.value(turn) is True
    before = thousand.value("document.querySelector('#viewer canvas').toDataURL()")
    thousand.press("ArrowLeft")
    settle(thousand)
    assert thousand.value("document.querySelector('#viewer canvas').toDataURL()") != before


def test_escape_takes_a_readout_away(thousand: Page) -> None:
    thousand.value("document.getElementById('powder').focus()")
    tip = "(({ hidden, textContent }) => (hidden ? '' : textContent))(document.querySelector('#powder .tooltip'))"
    thousand.press("ArrowRight")
    assert thousand.value(tip).startswith("2θ 5.0")
    thousand.press("Escape")
    assert thousand.value(tip) == ""


def test_marks_differ_without_their_colours(thousand: Page) -> None:
    marks = thousand.value(
        """[...document.querySelectorAll("#legend path")].map((p) => [p.getAttribute("d"), p.getAttribute("fill") === "var(--card)"].join())"""  # noqa: E501
    )
    assert len(marks) == 9
    assert len(set(marks)) == 9
