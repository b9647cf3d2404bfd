"""What `nucleate train molcrystalflow --network molcrystalnet` does with crystals: the published network, mended."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from nucleate.data.packed import PackedCrystal
from nucleate.data.whole_cells import Contents, WholeCells, whole_cells_of
from nucleate.generative.epochs import EpochBatches
from nucleate.generative.system import Lesson
from nucleate.generative.training import mapped
from nucleate.geometry.lattice import lattice_from_log, volume
from nucleate.geometry.manifold import State
from nucleate.models.molcrystalflow_whole_cell import WholeCellFlow, distance_to_crystal
from nucleate.networks.molcrystalnet import MolCrystalNet

FOUND = 2.0  # Å: a sample nearer than this to its crystal has found it


class WholeCellSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of the published network and how it is taught; the defaults are its size."""

    hidden: PositiveInt = Field(256, description="features of a molecule")
    layers: PositiveInt = Field(6, description="rounds of messages between molecules")
    molecule_width: PositiveInt = Field(64, description="features that a molecule is embedded in")
    sees_cell: bool = Field(True, description="tell bodies the cell in their own frame; false: as published")
    coupling: Literal["joint", "chi_grouped"] = Field(
        "joint", description="noise dealt to whole bodies, or as published to centroids and rotations apart"
    )
    weights: Literal["angstrom", "published"] = Field(
        "angstrom", description="errors of cell, centroids and turns count alike in Å, or as published"
    )
    symmetric: float = Field(
        0.5, ge=0, le=1, description="share of crystals learnt in their group, not in P1"
    )
    mirror: bool = Field(True, description="learn mirror images too")
    strain: NonNegativeFloat = Field(0.01, description="deviation of the log coordinates, added to crystals")


@dataclass(eq=False)
class WholeCellTraining:
    """The flow, and crystals of molecules that it does not learn from."""

    flow: WholeCellFlow
    held: WholeCells
    validate_on: int
    evaluations: int

    @property
    def network(self) -> MolCrystalNet:
        """What is learnt. Geometry and loss stay outside, so that half precision does not touch them."""
        return self.flow.network

    def loss(self, batch: WholeCells, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        return self.flow(batch, generator)

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """On molecules not trained on: the loss, and how near samples come to the crystal they were asked for.

        `found` is the share of samples within 2 Å of it, `distance` their median, `volume_error` the mean of
        |V - V_ref| / V_ref; with `_group` those of samples with its operations given, with `_noise` those of the noise.
        """
        device = generator.device
        held = mapped(self.held, lambda tensor: tensor.to(device))
        asked = held[torch.randint(len(held), (self.validate_on,), generator=generator, device=device)]
        loss, parts = self.flow(asked, generator)
        numbers = {"loss": float(loss)} | {name: float(value) for name, value in parts.items()}
        everywhere = torch.ones(len(asked), dtype=torch.bool, device=device)
        alone = asked.contents.without_symmetry(everywhere)
        noise = self.flow.prior(asked.molecules, alone, generator)
        states = {"": self._sampled(asked, alone, noise, generator), "_noise": noise}
        if self.flow.symmetric > 0:
            states["_group"] = self._sampled(asked, asked.contents, None, generator)
        for name, state in states.items():
            away = distance_to_crystal(state, asked)
            numbers[f"found{name}"] = float((away < FOUND).float().mean())
            numbers[f"distance{name}"] = float(away.median())
            numbers[f"volume_error{name}"] = float(volume_error(state, asked).mean())
        return numbers

    def _sampled(
        self, asked: WholeCells, contents: Contents, noise: State | None, generator: torch.Generator
    ) -> State:
        return self.flow.sample(asked.molecules, contents, generator, self.evaluations, noise)


def volume_error(state: State, cells: WholeCells) -> Float[Tensor, " batch"]:
    """|V - V_ref| / V_ref of the cells."""
    V, reference = (volume(lattice_from_log(k)) for k in (state["lattice"], cells.lattice))
    return (V - reference).abs() / reference


def whole_cell_lesson(
    settings: WholeCellSettings,
    learnt: Sequence[PackedCrystal],
    held: Sequence[PackedCrystal],
    batch: int,
    validate_on: int,
    evaluations: int,
) -> Lesson:
    """The network with the scores of the data to learn from, and its batches.

    Raises InputError where either part has no crystal that fits into a whole cell.
    """
    (cells, left_out), (kept, left_out_held) = whole_cells_of(learnt), whole_cells_of(held)
    network = network_of(settings)
    network.scores.fit(cells.molecules.features)
    network.lattice_scores.fit(cells.lattice)
    flow = WholeCellFlow(
        network,
        coupling=settings.coupling,
        weights=settings.weights,
        symmetric=settings.symmetric,
        strain=settings.strain,
    )
    about = {
        "crystals": len(cells),
        "molecules": len(set(cells.keys)),
        "held_out_crystals": len(kept),
        "held_out_molecules": len(set(kept.keys)),
        "left_out": dict(left_out + left_out_held),
        "digest": hashlib.sha256(cells.lattice.numpy().tobytes()).hexdigest()[:16],
    }
    shown = cells.with_mirror_images() if settings.mirror else cells
    batches = EpochBatches(len(shown), batch, lambda items, _: shown[items])
    return Lesson(WholeCellTraining(flow, kept, validate_on, evaluations), batches, about)


def network_of(settings: WholeCellSettings) -> MolCrystalNet:
    """The network of these settings, before it has learnt anything."""
    return MolCrystalNet(
        settings.hidden,
        settings.layers,
        molecule_width=settings.molecule_width,
        sees_cell=settings.sees_cell,
    )
