"""The program of `import_crystals`, run by `nucleate.far_end`: one CIF file after another to a row of a data set."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nucleate.errors import NucleateError
from nucleate.pipeline.import_crystals import IMPORTED, ImportSettings, import_crystal


def start(opening: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The first request has the settings, every later one a file."""
    torch.set_num_threads(1)
    settings = ImportSettings.model_validate(opening["settings"])

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        try:
            imported = import_crystal(Path(request["file"]), settings)
        except NucleateError as error:
            return {"outcome": getattr(error, "reason", "") or type(error).__name__, "why": str(error)}
        return {"outcome": IMPORTED, "why": "", **asdict(imported)}

    return {}, answer
