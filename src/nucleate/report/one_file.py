"""Templates, scripts and data -> one HTML page that needs nothing else."""

import html
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from nucleate.report.drawing import molecule_svg
from nucleate.report.folder import mapping


@dataclass(frozen=True)
class Layout:
    """What one kind of page has of its own; the frame that all share is `template/page.html`.

    name     of its part `template/NAME.html`, and of its style `template/NAME.css` where there is one
    subject  what the page is about, beside the name of the molecule; it stands in where there is no name
    files    HTML: where the same data lie without the page
    scripts  in the order in which they are read, each with the names of those before it
    rows     heading of the table of results, where the page has the common one
    target   which heading the link at the top of the page leads to
    viewer   whether 3Dmol.js is inside
    """

    name: str
    subject: str
    files: str
    scripts: tuple[str, ...]
    rows: str = ""
    target: str = "table"
    viewer: bool = False


def one_file(layout: Layout, payload: Any, run: dict[str, Any]) -> str:
    """The page: frame, body, styles, scripts and data; the name and drawing are those of the molecule of the run."""
    molecule = mapping(run.get("molecule"))
    smiles = molecule.get("smiles")
    name = molecule.get("name") or molecule.get("formula") or layout.subject.capitalize()
    return fill(
        _part("page.html"),
        {
            "title": html.escape(str(name)),
            "subject": layout.subject,
            "target": layout.target,
            "files": layout.files,
            "style": _part("style.css") + _part(f"{layout.name}.css"),
            "drawing": (molecule_svg(smiles) if isinstance(smiles, str) else None)
            or "<p class='muted'>No structural formula: the SMILES is missing or unreadable.</p>",
            "body": fill(
                _part(f"{layout.name}.html"), {"table": fill(_part("table.html"), {"rows": layout.rows})}
            ),
            "data": embed_json(payload),
            "viewer": f"<script>\n{_viewer()}\n</script>\n" if layout.viewer else "",
            "scripts": "\n".join(_part(f"{script}.js") for script in layout.scripts),
        },
    )


def _part(name: str) -> str:
    return (files("nucleate.report") / "template" / name).read_text(encoding="utf-8")


def _viewer() -> str:
    return (files("nucleate.report") / "vendor" / "3Dmol-min.js").read_text(encoding="utf-8")


def fill(template: str, parts: dict[str, str]) -> str:
    """Put the parts at their `{{name}}` marks in one pass, so that no part is searched for marks."""
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], template)


def embed_json(value: Any) -> str:
    """JSON that is safe inside a `<script>` element: no `<`, `>` or `&`, whatever the strings hold."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=str)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
