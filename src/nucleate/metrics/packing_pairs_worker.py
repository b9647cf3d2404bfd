"""The program of `packing_pairs`, run by `nucleate.far_end`: compares pairs out of a file of crystals."""

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

from nucleate.metrics.packing_pairs import PairComparison, Sameness, load_crystals


def start(opening: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Read the crystals that the first request names; every later one asks for pairs of them."""
    torch.set_num_threads(1)
    comparison = PairComparison(load_crystals(Path(opening["crystals"])), Sameness(**opening["sameness"]))

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"outcomes": [astuple(comparison.compare((i, j))) for i, j in request["pairs"]]}

    return {}, answer
