"""Models of conformers by the name of their sampler, with the weights that they learnt."""

from pathlib import Path
from typing import Literal

from nucleate.errors import InputError
from nucleate.models.confgf import ConfGF, ConfGFDist
from nucleate.models.conformer_training import ConformerSettings, model_of
from nucleate.models.conformers import ConformerModel
from nucleate.weights import find_weights, read_weights

SYSTEM = "confgf"
Sampler = Literal["fast", "ald", "distances"]
SHIPPED: dict[Sampler, str] = {"fast": "conformer_flow", "ald": "confgf", "distances": "confgf"}
METHOD: dict[Sampler, str] = {"fast": "flow", "ald": "scores", "distances": "scores"}


def read_conformer_model(sampler: Sampler = "fast", weights: Path | None = None) -> ConformerModel:
    """`fast`: flow matching of positions; `ald`: ConfGF as published; `distances`: its ablation, ConfGFDist.

    Weights are those that come with the package, or those of a file. Raises InputError where there are none, or those
    of another method.
    """
    read = read_weights(find_weights(SYSTEM, weights, SHIPPED[sampler]), SYSTEM)
    settings = read.settings(ConformerSettings)
    if settings.method != METHOD[sampler]:
        raise InputError(
            f"expected weights of method {METHOD[sampler]!r} for --sampler {sampler}, got those of {settings.method!r} "
            f"in {read.path}; choose another sampler or other weights",
            reason="other method",
        )
    model = read.fill(model_of(settings))
    return ConfGFDist(model) if sampler == "distances" and isinstance(model, ConfGF) else model
