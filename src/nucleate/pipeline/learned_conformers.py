"""Shapes from a learned model, as a source like any other: what has the wrong stereo or no sense is drawn again.

graph x batch --model--> positions --right as they are, or mirrored--> kept
                                   --else--> counted, and drawn again
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nucleate.crystal.bond_graph import BondGraphs, bond_graph
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.errors import NucleateError
from nucleate.generative.seeds import generator_of
from nucleate.models.conformers import ConformerModel
from nucleate.pipeline.conformer_shapes import Drawn, Source, bare, etkdg, is_sound

Method = Literal["etkdg", "confgf"]
Sampler = Literal["fast", "ald"]

ROUNDS = 4  # draws at most, in units of what was asked for
PAIRS = 16_000  # of atoms in a batch: some seconds, so that time limits leave what was drawn before


@dataclass(frozen=True, eq=False)
class Learned:
    """A `conformer_shapes.Source` of a model."""

    model: ConformerModel
    rounds: int = ROUNDS

    def __call__(self, molecule: Molecule, n: int, seed: int = 0, time_limit: float = 60.0) -> Drawn:
        """n sound shapes with the stereo of the graph, fewer where `rounds` times n draws or the time do not give them.

        The same seed gives the same shapes. Raises NucleateError where not one draw can be used.
        """
        graph = bare(molecule)
        if graph.GetNumAtoms() == 1:
            return Drawn(torch.zeros(1, 1, 3, dtype=torch.float64), n, 1)
        deadline = time.monotonic() + time_limit
        one = BondGraphs.from_list([bond_graph(graph)])
        most = max(1, PAIRS // len(molecule) ** 2)
        kept: list[Tensor] = []
        counts = {"made": 0, "wrong_stereo": 0, "unsound": 0, "mirrored": 0}
        while (missing := n - len(kept)) and (left := self.rounds * n - counts["made"]) > 0:
            if counts["made"] and time.monotonic() > deadline:  # whether or not the model asks
                break
            generator = generator_of(seed, "conformers", counts["made"])
            batch = one.repeated(min(missing, most, left))
            try:
                drawn = self.model.sample(batch, generator, partial(_watch, deadline)).double()
            except OutOfTime:
                break
            found, right, sound, mirrored = _judged(molecule, drawn)
            kept += list(found[right & sound])
            counts["made"] += len(drawn)
            counts["unsound"] += int((~sound).sum())
            counts["wrong_stereo"] += int((sound & ~right).sum())
            counts["mirrored"] += int((sound & right & mirrored).sum())
        if not kept:
            raise NucleateError(
                f"expected shapes of {molecule.smiles} that can be used, got none of {counts['made']} draws "
                f"({counts['unsound']} with torn bonds or clashes, {counts['wrong_stereo']} with another stereo) in "
                f"{time_limit:.0f} s. Raise the time limit, or use --method etkdg."
            )
        return Drawn(torch.stack(kept), n, **counts)


class OutOfTime(Exception):  # noqa: N818  (says what happened)
    """The time for sampling is over."""


def _watch(deadline: float, done: float) -> None:
    """For a model to call now and then."""
    if done < 1 and time.monotonic() > deadline:
        raise OutOfTime


def source_named(method: Method, sampler: Sampler = "fast", weights: Path | None = None) -> Source:
    """The source of that name. Raises InputError where a learned one has no weights."""
    if method == "etkdg":
        return etkdg
    from nucleate.pipeline.conformer_models import read_conformer_model

    return Learned(read_conformer_model(sampler, weights))


def _judged(
    molecule: Molecule, drawn: Float[Tensor, "draws atoms 3"]
) -> tuple[
    Float[Tensor, "draws atoms 3"], Bool[Tensor, " draws"], Bool[Tensor, " draws"], Bool[Tensor, " draws"]
]:
    """Each draw or its mirror image, whichever has the right stereo; whether it has; whether it is sound; whether it
    was mirrored.
    """
    straight, turned = (right_stereo(molecule.graph, x) for x in (drawn, -drawn))
    mirrored = turned & ~straight
    found = torch.where(mirrored[:, None, None], -drawn, drawn)
    return found, straight | turned, is_sound(molecule.graph, drawn), mirrored
