"""What `nucleate train molcrystalflow` does with a folder of packed crystals."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from nucleate.data.packed import from_row, read_rows
from nucleate.data.poses import Poses, poses_of
from nucleate.errors import InputError
from nucleate.generative.epochs import EpochBatches
from nucleate.generative.system import Lesson, System
from nucleate.generative.training import mapped
from nucleate.geometry.manifold import State
from nucleate.models.molcrystalflow import PoseFlow, Task, nearest_target
from nucleate.networks.pose import PoseNetwork
from nucleate.physics.parameters import has_volume

HELD_OUT = 0.1  # of the molecules, by a hash of their graphs
FOUND = 2.0  # Å: a sample nearer than this to a known crystal has found it


class MolCrystalFlowSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of the model and its data."""

    bodies: int = Field(1, ge=1, le=2, description="molecules in the asymmetric unit")
    window: PositiveFloat = Field(
        6.0, description="kJ/mol above the lowest crystal of a molecule to learn from"
    )
    width: PositiveInt = Field(96, description="features of an anchor")
    layers: PositiveInt = Field(3, description="rounds of messages between anchors")
    neighbours: PositiveInt = Field(16, description="molecules that each one looks at")
    contacts: PositiveInt = Field(16, description="anchors that each anchor looks at")
    batch: PositiveInt = Field(64, description="crystals in a batch")
    validate_on: PositiveInt = Field(128, description="crystals sampled to validate")
    steps: PositiveInt = Field(10, description="steps of the sampler in the validation")


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
    """Read the shards of a folder; one molecule in ten is held out.

    Raises InputError where nothing is left, or for elements of which no volume is known.
    """
    rows = [r for r in read_rows(data) if r["above"] is None or r["above"] <= settings.window]
    crystals = [from_row(r) for r in rows if len(r["kind"]) == settings.bodies]
    known = [c for c in crystals if all(has_volume(m) for m in c.packing.species)]
    left_out, crystals = len(crystals) - len(known), known
    if not crystals:
        raise InputError(
            f"expected crystals with {settings.bodies} molecules in the asymmetric unit in {data}, got none"
        )
    poses = poses_of(crystals, settings.bodies)
    held = torch.tensor([is_held_out(key) for key in poses.keys])
    if held.all() or not held.any():
        raise InputError(
            f"expected enough molecules to hold some out, got {len(set(poses.keys))} in {data}; make more"
        )
    learnt, kept = poses[torch.nonzero(~held).flatten()], poses[torch.nonzero(held).flatten()]
    training = PoseTraining(PoseFlow(network_of(settings)), kept, settings)
    about = {
        "crystals": len(learnt),
        "molecules": len(set(learnt.keys)),
        "held_out_crystals": len(kept),
        "held_out_molecules": len(set(kept.keys)),
        "left_out_unknown_elements": left_out,
        "sources": sorted({r["source"] for r in rows}),
        "digest": hashlib.sha256(poses.lattice.numpy().tobytes()).hexdigest()[:16],
    }
    return Lesson(training, EpochBatches(len(learnt), settings.batch, lambda items, _: learnt[items]), about)


def network_of(settings: MolCrystalFlowSettings) -> PoseNetwork:
    """The network of these settings, before it has learnt anything."""
    return PoseNetwork(
        settings.width, settings.layers, neighbours=settings.neighbours, contacts=settings.contacts
    )


def is_held_out(key: str) -> bool:
    """The same on every machine, and for all crystals of a molecule."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32 < HELD_OUT


SYSTEM = System(MolCrystalFlowSettings, prepare)
