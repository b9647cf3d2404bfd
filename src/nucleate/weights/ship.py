"""Weights of a training as they are shipped: half precision, and a card that says where they come from.

    python -m nucleate.weights.ship TRAINED NAME --licence TEXT --card docs/model_card_NAME.md [-o FOLDER]

Half precision halves the file; a network computes in its own precision all the same (`Weights.fill`). What it rounds
away is less than what the average over the last steps of a training leaves open, but it is measured again after.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from nucleate.files import write_atomically
from nucleate.generative.checkpoint import read_tensors, write_tensors
from nucleate.weights import TRAINED_CARD

PRIVATE = ("data_folder",)  # where files lay on the machine that trained


def ship(trained: Path, name: str, folder: Path, more: dict[str, Any]) -> Path:
    """Write NAME.safetensors and NAME.json from what `nucleate train` wrote to the folder `trained`."""
    tensors, about = read_tensors(trained / "weights.safetensors")
    # double precision is for what was not learnt, such as the crystal that a flow is for
    half = {key: x.half() if x.dtype == torch.float32 else x for key, x in tensors.items()}
    if lost := [key for key, x in half.items() if not torch.isfinite(x).all()]:
        raise ValueError(f"expected weights within the range of half precision, got larger ones in {lost}")
    path = folder / f"{name}.safetensors"
    write_tensors(path, half, about)
    card = json.loads((trained / TRAINED_CARD).read_text(encoding="utf-8"))
    kept = {key: value for key, value in card.items() if key not in PRIVATE}
    write_atomically(
        path.with_suffix(".json"), json.dumps(kept | {"precision": "half"} | more, indent=1) + "\n"
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("trained", type=Path)
    parser.add_argument("name")
    parser.add_argument("--licence", required=True)
    parser.add_argument("--card", required=True, help="page of the documentation")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    print(ship(given.trained, given.name, given.output, {"licence": given.licence, "card": given.card}))


if __name__ == "__main__":
    main()
