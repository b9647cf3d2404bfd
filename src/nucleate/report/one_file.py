"""Templates, scripts and data -> one HTML page that needs nothing else."""

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from nucleate.report.drawing import molecule_svg


def one_file(template: str, scripts: Sequence[str], payload: Any, run: dict[str, Any], title: str) -> str:
    """The page `template`.html with its own style (`template`.css, where there is one), scripts in order, and data.

    The name and drawing are those of the molecule of the run; `title` stands in where it has no name.
    """
    folder = files("nucleate.report")

    def part(name: str) -> str:
        return (folder / "template" / name).read_text(encoding="utf-8")

    given = run.get("molecule")
    molecule: dict[str, Any] = given if isinstance(given, dict) else {}
    smiles = molecule.get("smiles")
    own = f"{template}.css"
    return fill(
        part(f"{template}.html"),
        {
            "title": html.escape(str(molecule.get("name") or molecule.get("formula") or title)),
            "style": part("style.css") + (part(own) if (folder / "template" / own).is_file() else ""),
            "drawing": (molecule_svg(smiles) if isinstance(smiles, str) else None)
            or "<p class='muted'>No structural formula: the SMILES is missing or unreadable.</p>",
            "data": embed_json(payload),
            "viewer": (folder / "vendor" / "3Dmol-min.js").read_text(encoding="utf-8"),
            "scripts": "\n".join(part(f"{name}.js") for name in scripts),
        },
    )


def fill(template: str, parts: dict[str, str]) -> str:
    """Put the parts at their `{{name}}` marks in one pass, so that no part is searched for marks."""
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], template)


def embed_json(value: Any) -> str:
    """JSON that is safe inside a `<script>` element: no `<`, `>` or `&`, whatever the strings hold."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=str)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
