"""What `nucleate train rigid-body-flow` does with frames of a crystal: learn to take them to another temperature.

Reverse KL needs frames of the base alone: the mean of u_B(F(x)) - log |dF/dx| - u_A(x) lies above the free-energy
difference by exactly KL(F#p_A | p_B). Maximum likelihood takes frames of the target back: the same with both ends
exchanged. `likelihood` mixes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from nucleate.data.rigid_frames import RigidFrames, read_frames
from nucleate.errors import InputError
from nucleate.generative.epochs import EpochBatches
from nucleate.generative.normalizing_flow import Bodies
from nucleate.generative.system import Lesson, System
from nucleate.generative.training import mapped
from nucleate.geometry.so3 import quaternion_to_matrix
from nucleate.metrics.free_energy import effective_share, one_sided
from nucleate.models.rigid_body_flow import (
    HeldCrystal,
    IdealCrystal,
    Recipe,
    RigidBodyFlow,
    ideal_crystal,
)
from nucleate.models.rigid_body_flow_published import PublishedFlow

CHUNK = 200  # frames whose energies are found at once


class FlowSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of the flow and its data."""

    target: PositiveFloat = Field(
        100.0, description="K, the temperature to go to; the base is that of the frames"
    )
    recipe: Literal["default", "published"] = Field("default", description="ours, or the published one")
    blocks: PositiveInt = Field(2, description="of couplings")
    width: PositiveInt = Field(8, description="features of pairs of sites and of sites")
    hidden: PositiveInt = Field(16, description="features inside a conditioner")
    bins: PositiveInt = Field(4, description="of a spline")
    ridges: PositiveInt = Field(2, description="of a gradient map")
    radius: PositiveFloat = Field(5.0, description="Å, of neighbours")
    batch: PositiveInt = Field(64, description="frames in a batch")
    held: float = Field(
        0.2, gt=0, lt=1, description="share of the frames, the last ones, that nothing is learnt from"
    )
    likelihood: float = Field(0.0, ge=0, le=1, description="share of the loss that frames of the target give")
    validate_on: PositiveInt = Field(500, description="frames to validate on, spread over those held")


class FrameBatch(NamedTuple):
    """Bodies and their energies, of the base and (where likelihood counts) of the target."""

    bodies: Bodies
    energies: Float[Tensor, " batch"]  # eV
    target: Bodies
    target_energies: Float[Tensor, " others"]


@dataclass(eq=False)
class FlowTraining:
    """A flow between two temperatures of one crystal, and frames that it does not learn from."""

    flow: RigidBodyFlow | PublishedFlow
    crystal: HeldCrystal
    base: float  # K
    target: float
    likelihood: float
    held: FrameBatch

    @property
    def network(self) -> nn.Module:
        return self.flow

    def loss(self, batch: FrameBatch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        """Mean of -log w, from one end or both."""
        log_w, _ = self.crystal.work(
            self.flow, batch.bodies, batch.energies, self.base, self.target, generator, softened=True
        )
        loss, parts = -log_w.mean(), {"ess": effective_share(log_w.detach())}
        if self.likelihood > 0:
            back, _ = self.crystal.work(
                self.flow.inverse, batch.target, batch.target_energies, self.target, self.base, generator
            )
            loss = (1 - self.likelihood) * loss - self.likelihood * back.mean()
        return loss, parts

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """The loss, the effective share and the free-energy difference on held frames.

        `gap` is the loss above that difference: KL(F#p_A | p_B), as far as the difference is right.
        """
        held = mapped(self.held, lambda tensor: tensor.to(generator.device))
        log_w, _ = self.crystal.work(self.flow, held.bodies, held.energies, self.base, self.target, generator)
        log_w = log_w + self.crystal.spring_share(self.base, self.target)
        found = one_sided(log_w)
        loss = -float(log_w.mean())
        return {
            "loss": loss,
            "ess": found.effective,
            "difference": found.difference,
            "error": found.error,
            "gap": loss - found.difference,
        }


def prepare(settings: FlowSettings, data: Path) -> Lesson:
    """Frames of a file, or of all files of a folder: the hottest are the base, those at the target are its frames."""
    found = frames_of(data)
    hottest = max(found, key=lambda frames: frames.temperature)
    return lesson_of(settings, hottest, next((f for f in found if f.temperature == settings.target), None))


def lesson_of(settings: FlowSettings, base: RigidFrames, target: RigidFrames | None) -> Lesson:
    """The training on these frames; the last ones of the base are held back."""
    if settings.likelihood > 0 and target is None:
        raise InputError(
            f"expected frames at the target, {settings.target:g} K, as likelihood is above 0, got none; "
            "sample there as well, or set likelihood = 0"
        )
    base = with_energies(base)
    target = None if target is None else with_energies(target)
    first = len(base) - int(settings.held * len(base))
    learnt, held = base.part(slice(0, first)), base.part(slice(first, None))
    ideal = ideal_crystal(learnt)
    crystal = held_crystal(learnt, ideal)
    if settings.recipe == "published":
        crystal = replace(crystal, spring=0.0)
    c = (settings.target / base.temperature) ** 0.5
    training = FlowTraining(
        flow_for(settings, ideal, c, c * float(ideal.represent(learnt).places.square().mean().sqrt())),
        crystal,
        base.temperature,
        settings.target,
        settings.likelihood,
        _batch(ideal, held.part(slice(None, None, max(1, len(held) // settings.validate_on))), None),
    )
    whole = _batch(ideal, learnt, target)
    batches = EpochBatches(len(learnt), settings.batch, partial(_collate, whole))
    about = {
        "molecule": base.molecule.name,
        "molecules": base.places.shape[1],
        "cell": base.cell.tolist(),
        "base": base.temperature,
        "frames": len(learnt),
        "held_frames": len(held),
        "energy": float(base.energies.mean()),
    }
    return Lesson(training, batches, about)


def held_crystal(frames: RigidFrames, ideal: IdealCrystal) -> HeldCrystal:
    """The energy of the frames' crystal; the spring is as stiff as one axis of one molecule is on average."""
    variance = float(ideal.represent(frames).places.square().mean())
    return HeldCrystal(frames.potential, ideal, frames.kT / variance)


def with_energies(frames: RigidFrames) -> RigidFrames:
    """With energies of `SiteEnergy`: sums of the dynamics are coarser, and work is the difference of two energies."""
    energy = frames.potential
    parts = zip(frames.places.split(CHUNK), frames.turns.split(CHUNK))
    with torch.no_grad():
        found = torch.cat([energy(places, quaternion_to_matrix(turns)) for places, turns in parts])
    return replace(frames, energies=found)


def flow_for(
    settings: FlowSettings, ideal: IdealCrystal, c: float, length: float
) -> RigidBodyFlow | PublishedFlow:
    """The flow of these settings before it has learnt anything.

    c is sqrt(T_B / T_A), length (Å) the root mean square of a displacement along one axis at T_B.
    """
    if settings.recipe == "published":
        return PublishedFlow(ideal)
    sizes = settings.model_dump(include={"blocks", "width", "hidden", "bins", "ridges", "radius"})
    return RigidBodyFlow(ideal, Recipe(c, length, **sizes))


def frames_of(data: Path) -> list[RigidFrames]:
    """Of a file, or of all `*.safetensors` of a folder."""
    files = [data] if data.is_file() else sorted(data.glob("*.safetensors"))
    if not files:
        raise InputError(f"expected files of frames (.safetensors) in {data}, found none")
    return [read_frames(file) for file in files]


def _batch(ideal: IdealCrystal, frames: RigidFrames, target: RigidFrames | None) -> FrameBatch:
    """In single precision, but for energies."""
    other = frames.part(slice(0, 0)) if target is None else target
    here, there = (Bodies(*(x.float() for x in ideal.represent(f))) for f in (frames, other))
    return FrameBatch(here, frames.energies, there, other.energies)


def _collate(whole: FrameBatch, items: Int[Tensor, " batch"], generator: torch.Generator) -> FrameBatch:
    target = items[:0]
    if len(whole.target_energies):
        target = torch.randint(len(whole.target_energies), (len(items),), generator=generator)
    return FrameBatch(
        Bodies(*(x[items] for x in whole.bodies)),
        whole.energies[items],
        Bodies(*(x[target] for x in whole.target)),
        whole.target_energies[target],
    )


SYSTEM = System(FlowSettings, prepare)
