"""A room imports only rooms above it (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nucleate"
ROOMS = [
    "geometry",
    "crystal",
    "networks",
    "physics",
    "metrics",
    "data",
    "generative",
    "models",
    "weights",
    "report",
    "pipeline",
    "cli",
]
FREE = {
    "__init__",
    "__main__",
    "testing",
    "compiled",
    "errors",
    "files",
    "processes",
    "public",
    "far_end",
    "reading",
}  # of no room: usable from, or looking at, every room


def _imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {n.split(".")[1] for n in names if n.startswith("nucleate.") and n.split(".")[1] in ROOMS}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_only_go_up(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room in FREE:
        return
    allowed = ROOMS[: ROOMS.index(room) + 1]
    assert _imported_rooms(path) <= set(allowed)
