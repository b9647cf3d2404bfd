"""What `nucleate train molcrystalflow` does with a folder of packed crystals."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from nucleate.data.packed import PackedCrystal, from_row
from nucleate.data.poses import Poses, poses_of
from nucleate.data.splits import learnt_and_held
from nucleate.errors import InputError
from nucleate.generative.epochs import EpochBatches
from nucleate.generative.system import Lesson, System
from nucleate.generative.training import mapped
from nucleate.geometry.manifold import State
from nucleate.models.molcrystalflow import PoseFlow, Task, nearest_target
from nucleate.models.molcrystalflow_whole_cell_training import WholeCellSettings, whole_cell_lesson
from nucleate.networks.pose import PoseNetwork
from nucleate.physics.parameters import has_volume

FOUND = 2.0  # Å: a sample nearer than this to a known crystal has found it


class MolCrystalFlowSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of the model and its data."""

    network: Literal["pose", "molcrystalnet"] = Field(
        "pose", description="pose sees poses in a space group; molcrystalnet is the published one"
    )
    bodies: int = Field(1, ge=1, le=2, description="molecules in the asymmetric unit (pose)")
    window: PositiveFloat = Field(
        8.0, description="kJ/mol above the lowest crystal of a molecule to learn from"
    )
    width: PositiveInt = Field(128, description="features of a molecule (pose)")
    layers: PositiveInt = Field(3, description="rounds of messages to molecules (pose)")
    contact_width: PositiveInt = Field(64, description="features of an anchor (pose)")
    contact_layers: PositiveInt = Field(1, description="rounds of messages between anchors (pose)")
    neighbours: PositiveInt = Field(16, description="molecules that each one looks at (pose)")
    contacts: PositiveInt = Field(16, description="anchors that each anchor looks at (pose)")
    batch: PositiveInt = Field(128, description="crystals in a batch")
    validate_on: PositiveInt = Field(128, description="crystals sampled to validate")
    steps: PositiveInt = Field(10, description="steps of the sampler in the validation")
    whole_cell: WholeCellSettings = WholeCellSettings()


@dataclass(eq=False)
class PoseTraining:
    """The flow, and crystals of molecules that it does not learn from."""

    flow: PoseFlow
    held: Poses
    settings: MolCrystalFlowSettings

    @property
    def network(self) -> nn.Module:
        """What is learnt. Geometry and loss stay outside, so that half precision does not touch them."""
        return self.flow.network

    def loss(self, batch: Poses, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        return self.flow(batch, generator)

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """On molecules not trained on: the loss, and how near samples come to a known crystal of their group.

        `found` is the share of samples within 2 Å, `distance` their median; with `_noise` those of the noise.
        """
        device = generator.device
        held = mapped(self.held, lambda tensor: tensor.to(device))
        chosen = torch.randint(len(held), (self.settings.validate_on,), generator=generator, device=device)
        asked = held[chosen]
        loss, parts = self.flow(asked, generator)
        task = Task(asked.molecule, asked.hand, asked.group)
        noise = self.flow.prior(asked.molecules, asked.groups, task, generator)
        end = self.flow.sample(
            asked.molecules, asked.groups, task, generator, self.settings.steps, start=noise
        )
        numbers = {"loss": float(loss)} | {name: float(value) for name, value in parts.items()}
        for name, state in (("", end), ("_noise", noise)):
            away = distance_to_known(state, task, held)
            numbers[f"found{name}"] = float((away < FOUND).float().mean())
            numbers[f"distance{name}"] = float(away.median())
        return numbers


def distance_to_known(state: State, task: Task, known: Poses) -> Float[Tensor, " batch"]:
    """Å (see `nearest_target`) to the nearest known crystal of the same molecules and group; infinity for none."""
    # one row for each pair of a state and a crystal that it may be
    same = (task.group[:, None] == known.group) & (task.molecule[:, None] == known.molecule).all(-1)
    same &= (task.hand[:, None] == known.hand).all(-1)
    row, which = torch.nonzero(same, as_tuple=True)
    _, distance = nearest_target(known[which], {name: value[row] for name, value in state.items()})
    least = torch.full((len(task.group),), torch.inf, device=distance.device)
    return least.scatter_reduce(0, row, distance, "amin")


def prepare(settings: MolCrystalFlowSettings, data: Path) -> Lesson:
    """Read the shards of a folder: learn from the molecules of train, validate on those of val (`data/splits.py`).

    Raises InputError where nothing is left of either.
    """
    learnt, held, about = _read(settings, data)
    if settings.network == "molcrystalnet":
        lesson = whole_cell_lesson(
            settings.whole_cell, learnt, held, settings.batch, settings.validate_on, settings.steps
        )
        return replace(lesson, about={**lesson.about, **about})
    poses, kept = (poses_of(crystals, settings.bodies) for crystals in (learnt, held))
    training = PoseTraining(PoseFlow(network_of(settings)), kept, settings)
    about |= {
        "crystals": len(poses),
        "molecules": len(set(poses.keys)),
        "held_out_crystals": len(kept),
        "held_out_molecules": len(set(kept.keys)),
        "digest": hashlib.sha256(poses.lattice.numpy().tobytes()).hexdigest()[:16],
    }
    return Lesson(training, EpochBatches(len(poses), settings.batch, lambda items, _: poses[items]), about)


def _read(
    settings: MolCrystalFlowSettings, data: Path
) -> tuple[list[PackedCrystal], list[PackedCrystal], dict[str, Any]]:
    """Crystals to learn from and to validate on, and where they come from; those that cannot be used are counted."""
    found, left_out, sources = [], 0, set()
    for name, rows in zip(("learn from", "validate on"), learnt_and_held(data)):
        low = [r for r in rows if r["above"] is None or r["above"] <= settings.window]
        if settings.network == "pose":
            low = [r for r in low if len(r["kind"]) == settings.bodies]
        crystals = [from_row(r) for r in low]
        known = [c for c in crystals if all(has_volume(m) for m in c.packing.species)]
        if not known:
            raise InputError(
                f"expected crystals to {name} in {data}, got none of {len(rows)} with {settings.bodies} molecules in "
                f"the asymmetric unit, within {settings.window:g} kJ/mol and of known elements"
            )
        left_out += len(crystals) - len(known)
        sources |= {c.source for c in known}
        found.append(known)
    return found[0], found[1], {"left_out_unknown_elements": left_out, "sources": sorted(sources)}


def network_of(settings: MolCrystalFlowSettings) -> PoseNetwork:
    """The pose network of these settings, before it has learnt anything. Raises InputError for the other one."""
    if settings.network != "pose":
        raise InputError(
            f"expected weights of the network pose, got {settings.network}; its samples are made by "
            "models.molcrystalflow_whole_cell",
            reason="other network",
        )
    names = ("width", "layers", "contact_width", "contact_layers", "neighbours", "contacts")
    return PoseNetwork(**{name: getattr(settings, name) for name in names})


SYSTEM = System(MolCrystalFlowSettings, prepare)
