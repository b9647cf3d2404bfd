"""The program of `synthesize`, run by `nucleate.far_end`: the crystals of one molecule after another."""

from collections.abc import Callable
from typing import Any

import torch

from nucleate.data.packed import to_row
from nucleate.errors import NucleateError
from nucleate.pipeline.synthesize import DONE, NOTHING, SynthesizeSettings, crystals_of


def start(opening: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The first request has the settings and the excluded keys, every later one a molecule."""
    torch.set_num_threads(1)
    settings = SynthesizeSettings.model_validate(opening["settings"])
    excluded = frozenset(opening["excluded"])

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        try:
            crystals = crystals_of(request["smiles"], request["number"], settings, excluded)
            rows = [to_row(crystal) for crystal in crystals]
        except NucleateError as error:
            outcome = getattr(error, "reason", "") or type(error).__name__
            return {"outcome": outcome, "rows": [], "why": str(error)}
        return {"outcome": DONE if rows else NOTHING, "rows": rows, "why": ""}

    return {}, answer
