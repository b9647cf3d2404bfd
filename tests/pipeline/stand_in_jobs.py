"""A program of `jobs` that does what its request says: answer, fail, crash or hang. Needs the standard library only."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def start(opening: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    if opening.get("refuse"):
        raise ValueError("not today")

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        what = request.get("smiles", "")
        if what == "FAIL":
            raise RuntimeError("no idea")
        if what == "CRASH":
            os._exit(7)
        if what.startswith("KILL"):  # once, or always, as the system does where memory is short
            mark = Path(what.partition(" ")[2])
            if what == "KILL" or not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if what == "HANG":
            time.sleep(600)
        return {"outcome": "done", "rows": [], "why": "", "pid": os.getpid()}

    return {}, answer
