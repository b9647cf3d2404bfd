"""A stand-in for `conformer_data_worker`: a made-up conformer for each SMILES; or it fails, crashes, hangs."""

import os
import time
from collections.abc import Callable
from typing import Any


def start(_: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        what = request["smiles"]
        if what == "FAIL":
            raise RuntimeError("no idea")
        if what == "CRASH":
            os._exit(7)
        if what == "HANG":
            time.sleep(600)
        n = len(what)
        row = {
            "name": what, "source": "made up", "key": "[C]" * n, "smiles": "[C]" * n, "energies": [0.0],
            "weights": [1.0], "positions": [1.5 * (k // 3) if k % 3 == 0 else 0.0 for k in range(3 * n)],
        }  # fmt: skip
        return {"outcome": "done", "why": "", "row": row, "counts": {"asked": 1, "kept": 1}}

    return {}, answer
