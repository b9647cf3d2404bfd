"""Build the documentation as a site: links to files of the repository become pages that show them.

    docs/*.md --on_files--> the same, and a page source/PATH for every file or folder a page links to with ../PATH

On a forge the links lead to the files themselves, so the pages read the same there and on the site.
"""

import ast
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LOG = logging.getLogger("mkdocs.hooks.nucleate")
ROOT = Path(__file__).parents[2]
OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
FETCHES = re.compile(
    r"""<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
)
LANGUAGES = {".py": "python", ".toml": "toml", ".js": "javascript", ".css": "css", ".cff": "yaml"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that show what lies outside docs/, found by following links from page to page."""
    pages = sorted(Path(config.docs_dir).glob("*.md"))
    waiting = [target for page in pages for target in targets(page.read_text(encoding="utf-8"))]
    shown: set[str] = set()
    while waiting:
        target = waiting.pop()
        if (
            target in shown or not (ROOT / target).exists()
        ):  # the build complains of a link that leads nowhere
            continue
        shown.add(target)
        text = text_of(target)
        waiting += targets(text)
        files.append(File.generated(config, page_of(target), content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links out of docs/ to the pages made for them."""
    return OUTSIDE.sub(lambda m: f"]({page_of(m[1])}{m[2] or ''})", markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Warn, and so fail, where a page would fetch something from elsewhere."""
    for fetched in FETCHES.findall(output):
        LOG.warning(
            "Page '%s' would fetch %s; the site has to work without a network.", page.file.src_uri, fetched
        )
    return output


def targets(markdown: str) -> list[str]:
    return [m[1].rstrip("/") for m in OUTSIDE.finditer(markdown)]


def page_of(target: str) -> str:
    """The page that shows a file, all in one folder so that relative links stay simple."""
    return "source-" + target.rstrip("/").replace("/", "-").removesuffix(".md") + ".md"


def text_of(target: str) -> str:
    """A folder as a table of its scripts, a page as itself, anything else as code."""
    path = ROOT / target
    if path.is_dir():
        rows = "".join(row(script) for script in sorted(path.glob("*.py")))
        return f"# {target}\n\n| script | |\n|---|---|\n{rows}"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.sub(r"\]\((?!https?:|#|docs/)([^)\s]+)\)", r"](../\1)", text).replace("](docs/", "](")
    return f"# {target}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n````\n"


def row(script: Path) -> str:
    """The script, and the first line of what it says about itself."""
    about = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return f"| [{script.name}](../{script.relative_to(ROOT)}) | {about.replace('|', chr(92) + '|')} |\n"
