"""What `nucleate train crystalflow` does with a table of inorganic crystals."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor, nn

from nucleate.data.inorganic import Structures, Table, read_table, structures_of
from nucleate.errors import InputError
from nucleate.generative.coupling import points
from nucleate.generative.epochs import EpochBatches
from nucleate.generative.system import Lesson, System
from nucleate.generative.training import mapped
from nucleate.geometry.lattice import lattice_from_log
from nucleate.geometry.manifold import State
from nucleate.geometry.torus import wrap_difference
from nucleate.models.crystalflow import CELL_WIDTH, CrystalFlow, Sampling
from nucleate.networks.cspnet import CSPNet
from nucleate.networks.pairnet import PairNet

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation")}
HELD_SHARE = 20  # one crystal in so many validates, where the folder has no table for that
VOLUME = "volume_per_atom"  # Å^3, a property that every table has
FOUND_RMS, FOUND_CELL = (
    0.5,
    0.3,
)  # normalised RMS displacement, and length of the difference of log coordinates


class CrystalFlowSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of the model and its data."""

    network: Literal["pairnet", "cspnet"] = Field(
        "pairnet", description="pairnet is ours, cspnet the published one"
    )
    recipe: Literal["default", "published"] = Field(
        "default", description="noise, coupling and loss: ours or the published ones"
    )
    task: Literal["csp", "dng"] = Field("csp", description="kinds of atoms given, or generated (de novo)")
    conditions: tuple[str, ...] = Field(
        (), description="properties to be conditioned on: columns, or volume_per_atom (Å^3)"
    )
    width: PositiveInt = Field(256, description="features of an atom (published: 512)")
    layers: PositiveInt = Field(5, description="rounds of messages (published: 6)")
    pair_width: PositiveInt = Field(96, description="features of a pair (pairnet)")
    harmonics: PositiveInt = Field(256, description="waves along each axis (cspnet)")
    miller: PositiveInt = Field(8, description="waves m in {0 .. miller-1}^3 (cspnet)")
    most_atoms: PositiveInt = Field(24, description="larger primitive cells are left out")
    batch: PositiveInt = Field(128, description="crystals in a batch")
    validate_on: PositiveInt = Field(256, description="crystals sampled to validate")
    steps: PositiveInt = Field(10, description="steps of the sampler in the validation")


@dataclass(eq=False)
class CrystalTraining:
    """The flow, and crystals of compositions that it does not learn from."""

    flow: CrystalFlow
    held: Structures
    settings: CrystalFlowSettings

    @property
    def network(self) -> nn.Module:
        """Network and what was fitted to the data."""
        return self.flow

    def loss(self, batch: Structures, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        return self.flow(batch, generator)

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """On crystals not learnt from: the loss, and how near samples of the same contents come.

        `found` is the share whose cell and atoms both are near (a stricter and much quicker sign than
        StructureMatcher, since equivalent cells do not count), `volume_error` the mean of |V - V_ref| / V_ref.
        Where kinds are generated only the loss means anything.
        """
        device = generator.device
        held = mapped(self.held, lambda tensor: tensor.to(device))
        chosen = torch.randperm(len(held), generator=generator, device=device)[: self.settings.validate_on]
        asked = held[chosen]
        loss, parts = self.flow(asked, generator)
        numbers = {"loss": float(loss)} | {name: float(value) for name, value in parts.items()}
        if self.settings.task == "dng":
            return numbers
        end = self.flow.sample(
            asked.contents,
            [generator],
            Sampling(self.settings.steps, returns=0),
            asked.properties_of(self.flow.conditions),
        )
        away = displacement(end, asked)
        cell = (end["lattice"] - asked.lattice).norm(dim=1)
        numbers["found"] = float(((away < FOUND_RMS) & (cell < FOUND_CELL)).float().mean())
        numbers["cell_found"] = float((cell < FOUND_CELL).float().mean())
        numbers["volume_error"] = float(
            (3**0.5 * (end["lattice"] - asked.lattice)[:, 5]).expm1().abs().mean()
        )
        return numbers


def displacement(state: State, data: Structures) -> Float[Tensor, " n"]:
    """RMS displacement of atoms, in units of (V / N)^(1/3), in the data's cell after the best assignment found."""
    contents = data.contents
    cells = lattice_from_log(data.lattice)
    label = torch.where(contents.mask, contents.numbers, -1)
    dealt = points(state["frac"], data.frac, label, cells, starts=8, rounds=3)
    left = wrap_difference(data.frac - dealt) * contents.mask[..., None]
    squared = (left @ cells).square().sum((1, 2)) / contents.sizes
    return squared.sqrt() / data.volume_per_atom ** (1 / 3)


def prepare(settings: CrystalFlowSettings, data: Path) -> Lesson:
    """Read a table (or a folder with a table named after train and one after val) and build the network.

    Where there is no table to validate on, one composition in twenty is kept back. Raises InputError for data
    that cannot be used.
    """
    learnt, held, about = _read(settings, data)
    flow = flow_of(settings)
    flow.fit(learnt)
    about |= {
        "crystals": len(learnt),
        "held_out_crystals": len(held),
        "digest": hashlib.sha256(learnt.lattice.numpy().tobytes()).hexdigest()[:16],
    }
    batches = EpochBatches(len(learnt), settings.batch, lambda items, _: learnt[items])
    return Lesson(CrystalTraining(flow, held, settings), batches, about)


def _read(settings: CrystalFlowSettings, data: Path) -> tuple[Structures, Structures, dict[str, Any]]:
    """Crystals to learn from and to validate on, split by composition, and where they come from."""
    files = {split: _file_of(data, names) for split, names in SPLITS.items()}
    whole = data if files["train"] is None else files["train"]
    learnt = read_table(whole, settings.most_atoms)
    if files["val"] is None:
        kept = [_held(s.reduced_formula) for s in learnt.sites]
        parts = _chosen(learnt, settings, kept, False), _chosen(learnt, settings, kept, True)
        left_out = learnt.left_out
    else:
        held = read_table(files["val"], settings.most_atoms)
        known = {s.reduced_formula for s in learnt.sites}
        fresh = [s.reduced_formula not in known for s in held.sites]
        parts = (
            _chosen(learnt, settings, [True] * len(learnt.sites), True),
            _chosen(held, settings, fresh, True),
        )
        left_out = learnt.left_out + held.left_out
    return *parts, {"source": whole.name, "left_out": dict(left_out)}


def _file_of(data: Path, names: tuple[str, ...]) -> Path | None:
    """The table of a folder whose name says its split, or none. Raises InputError for several."""
    if not data.is_dir():
        return None
    tables = sorted([*data.glob("*.parquet"), *data.glob("*.csv")])
    found = [p for p in tables if p.stem.split("_")[-1] in names or p.stem in names]
    if len(found) > 1:
        raise InputError(
            f"expected one table to {names[0]} in {data}, got {', '.join(p.name for p in found)}"
        )
    return found[0] if found else None


def _held(formula: str) -> bool:
    """Whether a composition validates: by a hash, the same everywhere."""
    return int.from_bytes(hashlib.sha256(formula.encode()).digest()[:4], "big") % HELD_SHARE == 0


def _chosen(table: Table, settings: CrystalFlowSettings, marks: list[bool], wanted: bool) -> Structures:
    rows = [row for row, mark in enumerate(marks) if mark == wanted]
    if not rows:
        raise InputError("expected crystals to learn from and others to validate on, got none of one kind")
    columns = {VOLUME: [s.volume / len(s) for s in table.sites], **table.columns}
    if lacking := [name for name in settings.conditions if name not in columns]:
        raise InputError(
            f"conditions: expected columns of the table ({', '.join(columns)}), got {', '.join(lacking)}"
        )
    properties = {name: [columns[name][row] for row in rows] for name in settings.conditions}
    return structures_of([table.sites[row] for row in rows], properties)


def flow_of(settings: CrystalFlowSettings) -> CrystalFlow:
    """The flow of these settings, before it has learnt anything."""
    kinds, conditions = settings.task == "dng", len(settings.conditions)
    says = CELL_WIDTH[settings.recipe]
    network: nn.Module
    if settings.network == "pairnet":
        network = PairNet(settings.width, settings.layers, settings.pair_width, kinds, conditions, says)
    else:
        network = CSPNet(
            settings.width, settings.layers, settings.harmonics, settings.miller, kinds, conditions, says
        )
    return CrystalFlow(network, settings.recipe, settings.conditions, kinds)


SYSTEM = System(CrystalFlowSettings, prepare)
