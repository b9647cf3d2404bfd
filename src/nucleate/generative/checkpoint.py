"""Tensors with a JSON text in one safetensors file: weights and checkpoints. Whole or not there; no pickle."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from nucleate.data.containers import read_tensors_and_json
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.reading import why

KEY, CHECKSUM = "nucleate", "crc32"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write both atomically. `about` must be JSON; floats come back bit for bit."""
    # cloned, since tied weights share their memory and the format has no word for that
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    text = json.dumps({**about, CHECKSUM: _checksum(plain)})
    write_atomically(path, save(plain, {KEY: text}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote, on the CPU.

    Raises InputError where the file is missing, damaged (a checksum covers every tensor), or another program's.
    """
    if not path.is_file():
        raise InputError(f"expected a file of weights, found none at {path}", reason="missing")
    try:
        tensors, about = read_tensors_and_json(path, KEY)
    except (OSError, ValueError) as error:
        raise InputError(_damaged(path, why(error)), reason="damaged") from None
    if not isinstance(about, dict) or CHECKSUM not in about:
        raise InputError(
            f"expected weights that nucleate wrote, got {path} without its description", reason="foreign"
        )
    if about.pop(CHECKSUM) != _checksum(tensors):
        raise InputError(_damaged(path, "the checksum differs"), reason="damaged")
    return tensors, about


def in_group(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under names that begin with the prefix."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def group(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `in_group` put together."""
    start = f"{prefix}/"
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}


def refuse_other_network(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], source: Path) -> None:
    """Raise InputError where names or shapes differ: weights of another network or of other settings."""
    for name in sorted(expected.keys() | got.keys()):
        shapes = [tuple(side[name].shape) if name in side else None for side in (expected, got)]
        if shapes[0] != shapes[1]:
            want, have = ("no such tensor" if shape is None else f"shape {shape}" for shape in shapes)
            raise InputError(
                f"expected the weights of this network in {source}, got others: {name} is {have} there, and "
                f"{want} here. Use the settings that the file was made with.",
                reason="other network",
            )


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        data: Any = tensors[name].reshape(-1).view(torch.uint8).numpy()
        total = zlib.crc32(data, zlib.crc32(name.encode(), total))
    return total


def _damaged(path: Path, why: str) -> str:
    return f"expected a whole file at {path}, got a damaged one ({why}). Delete it and train again."
