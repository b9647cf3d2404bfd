"""What `nucleate train confgf` does with a data set of conformers."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from nucleate.crystal.bond_graph import BondGraph, bond_graph, signed_volumes
from nucleate.data.conformers import ConformerSet, read_conformer_splits
from nucleate.data.splits import train_and_val
from nucleate.generative.epochs import EpochBatches
from nucleate.generative.score_matching import AnnealedLangevin, NoiseLevels
from nucleate.generative.seeds import generator_of
from nucleate.generative.system import Lesson, System
from nucleate.generative.training import mapped
from nucleate.metrics.conformer_rmsd import best_rmsds
from nucleate.models.confgf import ConfGF
from nucleate.models.conformer_flow import STEPS, ConformerFlow
from nucleate.models.conformers import ConformerPairs
from nucleate.networks.elements import HEAVIEST


class ConformerSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of the method and its data."""

    method: Literal["flow", "scores"] = Field(
        "flow",
        description="flow is ours (--sampler fast); scores are those of the published ConfGF (--sampler ald)",
    )
    width: PositiveInt = Field(128, description="features of an atom (published scores: 256)")
    layers: PositiveInt = Field(5, description="rounds of messages (published scores: 4)")
    pair_width: PositiveInt = Field(64, description="features of a pair of atoms (flow)")
    steps: PositiveInt = Field(STEPS, description="steps of the sampler (flow)")
    first: PositiveFloat = Field(10.0, description="Å, the largest noise (scores)")
    last: PositiveFloat = Field(0.01, description="Å, the smallest noise (scores)")
    levels: PositiveInt = Field(50, description="of noise (scores)")
    level_steps: PositiveInt = Field(100, description="of Langevin dynamics at each level (scores)")
    level_step: PositiveFloat = Field(
        2.4e-6, description="Å^2, the size of one at the smallest noise (scores)"
    )
    batch: PositiveInt = Field(64, description="molecules in a batch (published: 128)")
    most_atoms: PositiveInt = Field(80, description="larger molecules are left out, hydrogens counted")
    validate_on: PositiveInt = Field(64, description="molecules to validate on, always the same ones")
    validate_samples: bool = Field(True, description="sample each of them as well (flow)")


@dataclass(eq=False)
class ConformerTraining:
    """A method, and molecules that it does not learn from."""

    model: ConfGF | ConformerFlow
    held: ConformerPairs
    references: Sequence[ConformerSet]
    settings: ConformerSettings

    @property
    def network(self) -> nn.Module:
        return self.model

    def loss(self, batch: ConformerPairs, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        loss, parts = self.model(batch, generator)
        return loss, parts

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """On molecules not learnt from: the loss; of the flow also what one sample of each is worth.

        `nearest` is the heavy-atom RMSD (Å) to the nearest reference, the mean over molecules, and `wrong_hand` the
        share of samples with a wrong stereocentre.
        """
        held = mapped(self.held, lambda tensor: tensor.to(generator.device))
        loss, parts = self.loss(held, generator)
        numbers = {"loss": float(loss.detach())} | {name: float(value) for name, value in parts.items()}
        if isinstance(self.model, ConfGF) or not self.settings.validate_samples:
            return numbers
        samples = self.model.sample(held.graphs, generator)
        there = held.graphs.centres[..., 0] >= 0
        wrong = ((signed_volumes(held.graphs.centres, samples) <= 0) & there).any(1)
        nearest = [
            best_rmsds(
                one.molecule.graph, one.molecule.conformers, x[None, : len(one.molecule)].cpu().double()
            ).min()
            for one, x in zip(self.references, samples)
        ]
        return numbers | {
            "nearest": float(torch.stack(nearest).mean()),
            "wrong_hand": float(wrong.float().mean()),
        }


def prepare(settings: ConformerSettings, data: Path) -> Lesson:
    """Read the conformers of a folder (`nucleate data conformers`): learn from train, validate on some of val.

    A molecule is an item; which of its conformers is shown is drawn anew each time, all of them alike. Raises
    InputError for data that cannot be used.
    """
    found = read_conformer_splits(data)
    usable = {split: [s for s in own if not why_not(s, settings)] for split, own in found.items()}
    learnt, held = train_and_val(usable, f"molecules of at most {settings.most_atoms} atoms", data)
    chosen = torch.randperm(len(held), generator=generator_of(0, "held"))[: settings.validate_on].tolist()
    references = [held[k] for k in chosen]
    kept = drawn(
        references, [bond_graph(s.molecule.graph) for s in references], generator_of(0, "conformers")
    )
    graphs = [bond_graph(s.molecule.graph) for s in learnt]
    reasons = (why_not(s, settings) for split in ("train", "val") for s in found[split])
    about = {
        "molecules": len(learnt),
        "conformers": sum(len(s.energies) for s in learnt),
        "held_out_molecules": len(held),
        "left_out": dict(Counter(why for why in reasons if why)),
        "digest": _digest(learnt),
    }
    batches = EpochBatches(
        len(learnt), settings.batch, partial(_collate, learnt, graphs), torch.tensor([len(g) for g in graphs])
    )
    return Lesson(ConformerTraining(model_of(settings), kept, references, settings), batches, about)


def why_not(one: ConformerSet, settings: ConformerSettings) -> str | None:
    """Why a molecule cannot be learnt from."""
    if len(one.molecule) > settings.most_atoms:
        return "larger molecule"
    if len(one.molecule) < 2:
        return "single atom"
    return "unknown element" if int(one.molecule.numbers.max()) > HEAVIEST else None


def drawn(
    sets: Sequence[ConformerSet], graphs: Sequence[BondGraph], generator: torch.Generator
) -> ConformerPairs:
    """One conformer of each molecule, all of its conformers alike (single precision)."""
    which = [int(torch.randint(len(s.energies), (), generator=generator)) for s in sets]
    return ConformerPairs.from_list(graphs, [s.molecule.conformers[k].float() for s, k in zip(sets, which)])


def model_of(settings: ConformerSettings) -> ConfGF | ConformerFlow:
    """The method of these settings, before it has learnt anything."""
    if settings.method == "flow":
        return ConformerFlow(settings.width, settings.layers, settings.pair_width, settings.steps)
    levels = NoiseLevels(settings.first, settings.last, settings.levels)
    walk = AnnealedLangevin(levels, settings.level_step, settings.level_steps)
    return ConfGF(settings.width, settings.layers, walk)


def _collate(
    sets: Sequence[ConformerSet],
    graphs: Sequence[BondGraph],
    items: Int[Tensor, " batch"],
    generator: torch.Generator,
) -> ConformerPairs:
    chosen = items.tolist()
    return drawn([sets[k] for k in chosen], [graphs[k] for k in chosen], generator)


def _digest(sets: Sequence[ConformerSet]) -> str:
    found = hashlib.sha256()
    for one in sets:
        found.update(one.molecule.conformers.numpy().tobytes())
    return found.hexdigest()[:16]


SYSTEM = System(ConformerSettings, prepare)
