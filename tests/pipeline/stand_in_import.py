"""A stand-in for `import_worker`: one small crystal of P1 for every file, or a crash if the file says so."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROW: dict[str, Any] = {
    "source": "made up", "smiles": ["[H][H]"], "kind": [0], "local": [[0.35, 0, 0, -0.35, 0, 0]],
    "lattice": [4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0], "centroid": [0.5, 0.5, 0.5],
    "rotation": [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0], "handedness": [1], "number": 1, "symbol": "P1",
    "rotations": [1, 0, 0, 0, 1, 0, 0, 0, 1], "translations": [0.0, 0, 0], "energy": None, "above": None, "hits": 0,
}  # fmt: skip


def start(_: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        path = Path(request["file"])
        if path.read_text() == "crash":
            os._exit(3)
        row = ROW | {"id": path.stem, "key": "[H][H]"}
        return {"outcome": "imported", "why": "", "row": row, "error": 0.0}

    return {}, answer
