"""Weights that come with the package, and those of `nucleate train`: found by name, read, checked against their card.

| file | what |
|---|---|
| `NAME.safetensors` | averaged weights of the system of that name, where some are good enough to ship |
| `NAME.json` | their card: data, command, settings, versions, metrics |
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from nucleate.errors import InputError
from nucleate.generative.checkpoint import read_tensors, refuse_other_network
from nucleate.reading import read_json

S = TypeVar("S", bound=BaseModel)
N = TypeVar("N", bound=nn.Module)

TRAINED_CARD = "model.json"  # what `nucleate train` calls the card beside its weights


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors of a network, and what must be known to build it."""

    path: Path
    tensors: dict[str, Tensor]
    model: dict[str, Any]  # settings of the model
    digest: str  # of the file
    card: dict[str, Any]  # empty where there is none

    def settings(self, kind: type[S]) -> S:
        """Settings of the model. Raises InputError where this version knows others."""
        try:
            return kind.model_validate(self.model)
        except ValidationError as error:
            raise InputError(
                f"expected weights that this version can use, got {self.path} made by another "
                f"({'.'.join(map(str, error.errors()[0]['loc']))}); train again",
                reason="other version",
            ) from None

    def fill(self, network: N) -> N:
        """The network with these weights (in its own precision), ready to sample; fixed from here on.

        Raises InputError where it is another network.
        """
        refuse_other_network(network.state_dict(), self.tensors, self.path)
        network.load_state_dict(self.tensors)
        return network.eval().requires_grad_(False)


def find_weights(system: str, given: Path | None = None, shipped_as: str | None = None) -> Path:
    """The file that was given, or else the one that comes with the package (named after the system if not otherwise).

    Raises InputError where there is none, and says how to get some.
    """
    if given is not None:
        if not given.is_file():
            raise InputError(
                f"--weights: expected a file of weights, found none at {given}; `nucleate train {system}` writes "
                "weights.safetensors",
                reason="missing",
            )
        return given
    shipped = Path(str(files(__name__) / f"{shipped_as or system}.safetensors"))
    if not shipped.is_file():
        instead = ", or choose --generator random" if shipped_as is None else ""
        raise InputError(
            f"--weights: expected a file, as no weights of {shipped.stem} come with this version; make some with "
            f"`nucleate train {system}`{instead}",
            reason="missing",
        )
    return shipped


def read_weights(path: Path, system: str) -> Weights:
    """The weights of a file that `nucleate train` wrote.

    Raises InputError where the file is missing, damaged, a checkpoint, of another system, or beside a card that
    describes other weights.
    """
    tensors, about = read_tensors(path)
    if "system" not in about or "model" not in about:
        raise InputError(
            f"expected weights.safetensors of `nucleate train {system}`, got {path}, which is something else of a "
            "training",
            reason="other file",
        )
    if about["system"] != system:
        raise InputError(
            f"expected weights of {system}, got those of {about['system']} in {path}", reason="other system"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Weights(path, tensors, about["model"], digest, _card(path, about))


def _card(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The card beside the weights, if any; it must be theirs."""
    own, trained = path.with_suffix(".json"), path.with_name(TRAINED_CARD)
    found = own if own.is_file() else trained
    if not found.is_file():
        return {}
    try:
        card = read_json(found)
    except InputError:
        card = None
    if not isinstance(card, dict):
        raise InputError(f"expected the card of {path.name} in {found}, got a damaged file; delete it")
    if any(card.get(key) != about[key] for key in ("system", "model")):
        raise InputError(
            f"expected the card of {path.name} in {found}, got one of other weights; put the right one beside them, "
            "or delete it",
            reason="other card",
        )
    return card
