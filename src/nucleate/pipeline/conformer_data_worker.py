"""The program of `make_conformers`, run by `nucleate.far_end`: one SMILES after another to a row of a data set."""

from collections.abc import Callable
from typing import Any

import torch

from nucleate.data.conformers import to_row
from nucleate.errors import NucleateError
from nucleate.pipeline.conformer_data import DONE, ConformerDataSettings, conformers_of, reason_of


def start(opening: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The first request has the settings and the excluded keys, every later one a molecule."""
    torch.set_num_threads(1)
    settings = ConformerDataSettings.model_validate(opening["settings"])
    excluded = frozenset(opening["excluded"])

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        try:
            found = conformers_of(request["smiles"], request["number"], settings, excluded)
            row = to_row(found.conformers)
        except NucleateError as error:
            return {"outcome": reason_of(error), "why": str(error)}
        return {"outcome": DONE, "why": "", "row": row, "counts": found.counts}

    return {}, answer
