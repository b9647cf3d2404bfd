"""Frames of a crystal of rigid molecules at a temperature: what dynamics writes and flows learn from.

A frame is where each molecule is and how it is turned. Molecules keep their order, and places are continuous: a
molecule that leaves through a face goes on outside, so that displacements from ideal sites can be averaged.

    RigidFrames --write_frames--> one safetensors file (tensors, JSON) --read_frames--> the same, bit for bit
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from nucleate.data.containers import read_tensors_and_json
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.physics.parameters import BOLTZMANN
from nucleate.physics.rigid_sites import RigidSites, SiteEnergy
from nucleate.reading import why

KEY, KIND = "nucleate", "rigid frames"
OF_FRAMES = ("cell", "places", "turns", "energies")
OF_MOLECULE = ("sites", "charges", "epsilon", "sigma", "masses")
HANDS, EXP6 = "hands", "molecule/exp6"  # in a file only where the crystal has them
WALK = "walk/"


@dataclass(frozen=True, eq=False)
class RigidFrames:
    """All of one molecule, in one cell, at one temperature, in the order in which they were sampled (float64)."""

    molecule: RigidSites
    cell: Float[Tensor, "3 3"]  # Å, rows are the vectors
    temperature: float  # K
    places: Float[Tensor, "frames molecules 3"]  # Å
    turns: Float[
        Tensor, "frames molecules 4"
    ]  # unit quaternions (w, x, y, z) from the body frame; either sign
    energies: Float[Tensor, " frames"]  # eV
    hands: Float[Tensor, " molecules"] | None = (
        None  # -1 for mirror images of the molecule; None: there are none
    )

    def __len__(self) -> int:
        return len(self.places)

    @property
    def kT(self) -> float:
        """eV."""
        return BOLTZMANN * self.temperature

    @property
    def potential(self) -> SiteEnergy:
        """The energy of its molecules in its cell, with the widest cut-off that fits."""
        return SiteEnergy(self.molecule, self.places.shape[1], self.cell, hands=self.hands)

    def part(self, frames: slice) -> "RigidFrames":
        """Some of the frames: `frames.part(slice(1000, None))`."""
        return replace(
            self, places=self.places[frames], turns=self.turns[frames], energies=self.energies[frames]
        )


def joined(parts: Sequence[RigidFrames]) -> RigidFrames:
    """Frames one after the other; molecule, cell and temperature are those of the first part.

    Raises InputError for no parts, or parts of other crystals or temperatures.
    """
    if not parts:
        raise InputError("expected frames to join, got none")
    first = parts[0]
    for other in parts[1:]:
        if not _alike(first, other):
            raise InputError("expected frames of one crystal at one temperature, got others beside them")
    places, turns, energies = (torch.cat([getattr(part, name) for part in parts]) for name in OF_FRAMES[1:])
    return replace(first, places=places, turns=turns, energies=energies)


def write_frames(
    frames: RigidFrames,
    path: Path,
    made: Mapping[str, Any] | None = None,
    walk: Mapping[str, Tensor] | None = None,
) -> None:
    """One file, whole or not there. `made` says how, in JSON; `how_made` gives it back.

    `walk` is what a sampler needs to go on from there, see `walk_of`.
    """
    tensors = {name: getattr(frames, name) for name in OF_FRAMES}
    tensors |= {f"molecule/{name}": getattr(frames.molecule, name) for name in OF_MOLECULE}
    optional = {HANDS: frames.hands, EXP6: frames.molecule.exp6}
    tensors |= {name: value for name, value in optional.items() if value is not None}
    tensors |= {f"{WALK}{name}": value for name, value in (walk or {}).items()}
    about = {
        "kind": KIND,
        "molecule": frames.molecule.name,
        "temperature": frames.temperature,
        "made": dict(made or {}),
    }
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_atomically(path, save(plain, {KEY: json.dumps(about)}))


def read_frames(path: Path) -> RigidFrames:
    """What `write_frames` wrote. Raises InputError for files that are missing, damaged or something else."""
    tensors, about = _opened(path)
    try:
        of_molecule = {name: tensors[f"molecule/{name}"] for name in OF_MOLECULE}
        molecule = RigidSites(about["molecule"], **of_molecule, exp6=tensors.get(EXP6))
        cell, places, turns, energies = (tensors[name] for name in OF_FRAMES)
        temperature = float(about["temperature"])
    except KeyError as error:
        raise InputError(f"expected frames with {error}, got {path} without; write them again") from None
    except (TypeError, ValueError):
        raise InputError(f"expected a temperature in {path}, got {about['temperature']!r:.40}") from None
    _refuse_other_shapes(tensors, path)
    hands = tensors.get(HANDS)
    return RigidFrames(molecule, cell, temperature, places, turns, energies, hands)


def _refuse_other_shapes(tensors: dict[str, Tensor], path: Path) -> None:
    """Raise InputError where tensors of `read_frames` do not fit together, or are no finite numbers."""
    frames, molecules, *_ = [*tensors["places"].shape, 0, 0]
    sites = len(tensors["molecule/masses"]) if tensors["molecule/masses"].ndim else 0
    expected = dict.fromkeys((f"molecule/{n}" for n in OF_MOLECULE), (sites,)) | {
        "cell": (3, 3), "places": (frames, molecules, 3), "turns": (frames, molecules, 4), "energies": (frames,),
        "molecule/sites": (sites, 3), EXP6: (sites, 3), HANDS: (molecules,),
    }  # fmt: skip
    for name, shape in expected.items():
        found = tensors.get(name)
        if found is None:
            continue
        if found.shape != shape or found.dtype != torch.float64:
            raise InputError(
                f"expected {name} of shape {shape} in double precision in {path}, got {tuple(found.shape)}, "
                f"{found.dtype}"
            )
        if not found.isfinite().all() and name != "energies":
            raise InputError(f"expected finite numbers as {name} in {path}, got others", "not a number")


def how_made(path: Path) -> dict[str, Any]:
    """What `write_frames` was told. Raises InputError as `read_frames` does."""
    return _opened(path)[1].get("made", {})


def walk_of(path: Path) -> dict[str, Tensor]:
    """Where the sampler stopped, as `write_frames` was told; empty where it was not. Raises as `read_frames` does."""
    tensors = _opened(path)[0]
    return {name.removeprefix(WALK): value for name, value in tensors.items() if name.startswith(WALK)}


def _alike(a: RigidFrames, b: RigidFrames) -> bool:
    of_molecule = all(torch.equal(getattr(a.molecule, n), getattr(b.molecule, n)) for n in OF_MOLECULE)
    optional = _same(a.molecule.exp6, b.molecule.exp6) and _same(a.hands, b.hands)
    return of_molecule and optional and torch.equal(a.cell, b.cell) and a.temperature == b.temperature


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"expected a file of frames, found none at {path}", "missing")
    try:
        tensors, about = read_tensors_and_json(path, KEY)
    except (OSError, ValueError) as error:
        raise InputError(f"expected a whole file of frames, got {path} ({why(error)})", "damaged") from None
    if not isinstance(about, dict) or about.get("kind") != KIND:
        raise InputError(
            f"expected frames that nucleate wrote, got {path}, which is something else", "foreign"
        )
    return tensors, about
