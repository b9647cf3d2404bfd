"""What `nucleate train crystallization` does with a data set of clusters."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from nucleate.crystal.cluster import ClusterBatch
from nucleate.data.cluster_files import ClusterRecord, read_cluster_splits
from nucleate.data.clusters import Loosening, evaluation_copies
from nucleate.data.splits import train_and_val
from nucleate.errors import InputError
from nucleate.generative.epochs import EpochBatches
from nucleate.generative.seeds import generator_of
from nucleate.generative.system import Lesson, System
from nucleate.generative.training import mapped
from nucleate.metrics.clusters import pm_atom, pm_center, pm_center_permuted, rmsd_cluster
from nucleate.models.crystallization import ClusterPairs, Positions, Walk
from nucleate.models.crystallization_published import METHODS, Method, PublishedCrystallization
from nucleate.models.crystallization_rigid import RigidCrystallization
from nucleate.networks.elements import HEAVIEST


class CrystallizationSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of the method and its data."""

    method: Literal["rigid"] | Method = Field(
        "rigid", description="rigid is ours; regression, sde_ve, sde_vp, flow_ve, flow_vp, lerp are published"
    )
    width: int = Field(
        96, ge=4, multiple_of=2, description="features of an atom or a molecule (published: 128)"
    )
    layers: PositiveInt = Field(4, description="rounds of messages (published: 3)")
    cutoff: PositiveFloat = Field(20.0, description="Å, between atoms (published methods: 20 or 50)")
    basis: int = Field(20, ge=2, description="Gaussians of a distance (published methods)")
    batch: PositiveInt = Field(8, description="clusters in a batch")
    most_atoms: PositiveInt = Field(60, description="clusters of larger molecules are left out")
    loosening: Loosening = Loosening()
    validate_on: PositiveInt = Field(16, description="clusters ordered to validate, always the same ones")
    steps: PositiveInt = Field(8, description="steps of the sampler in the validation")


@dataclass(eq=False)
class ClusterTraining:
    """A method, and clusters that it does not learn from with their loose copies."""

    crystallizer: PublishedCrystallization | RigidCrystallization
    held: ClusterPairs
    settings: CrystallizationSettings

    @property
    def network(self) -> nn.Module:
        return self.crystallizer

    def loss(self, batch: ClusterPairs, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Any]]:
        return self.crystallizer(batch.drawn(self.settings.loosening, generator), generator)

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        """On clusters not learnt from: the loss, and how near (Å) their order is to the true one.

        Means of the distance errors `pm_center` and `pm_atom` as published, of `pm_center_permuted` and of `rmsd` after
        assignment (`metrics.clusters`); with `_loose` those of the loose clusters, as if nothing had been done.
        """
        held = mapped(self.held, lambda tensor: tensor.to(generator.device))
        loss, parts = self.loss(held, generator)
        numbers = {"loss": float(loss)} | {name: float(value) for name, value in parts.items()}
        loose = ClusterBatch(held.final.numbers, held.loose)
        samples = self.crystallizer.sample(loose, generator, Walk(self.settings.steps))
        for end, positions in (("", samples), ("_loose", held.loose)):
            errors = mean_errors(self.held.final, positions.cpu())
            numbers |= {f"{name}{end}": value for name, value in errors.items()}
        return numbers


def mean_errors(truth: ClusterBatch, found: Positions) -> dict[str, float]:
    """Means over clusters (Å); NaN where a position is not finite."""
    names = ("pm_center", "pm_atom", "pm_center_permuted", "rmsd")
    if not found.isfinite().all():
        return dict.fromkeys(names, torch.nan)
    rows = []
    for x, y, mask in zip(truth.positions.double(), found.double(), truth.mask):
        x, y = x[:, mask], y[:, mask]
        of_cluster = pm_center(x, y), pm_atom(x, y), pm_center_permuted(x, y), rmsd_cluster(x, y, mirror=True)
        rows.append([float(number) for number in of_cluster])
    return dict(zip(names, torch.tensor(rows, dtype=torch.float64).mean(0).tolist()))


def pairs_of(records: Sequence[ClusterRecord]) -> ClusterPairs:
    """Clusters of equally many molecules in single precision, with their loose ones where all of them have some."""
    final, loose = ([getattr(r, side) for r in records] for side in ("cluster", "loose"))
    batch = ClusterBatch.from_list(final)
    fixed = None if None in loose else ClusterBatch.from_list(loose).positions.float()
    return ClusterPairs(replace(batch, positions=batch.positions.float()), fixed)


def prepare(settings: CrystallizationSettings, data: Path) -> Lesson:
    """Read the clusters of a folder (`nucleate data clusters`): learn from train, validate on some of val.

    Loose clusters to learn from are those of the data, or else drawn anew for every batch. Raises InputError for data
    that cannot be used.
    """
    found = read_cluster_splits(data)
    usable = {split: [r for r in own if not why_not(r, settings)] for split, own in found.items()}
    what = f"clusters of molecules of at most {settings.most_atoms} atoms"
    learnt, held = train_and_val(usable, what, data)
    _refuse_mixed([*learnt, *held], data)
    chosen = torch.randperm(len(held), generator=generator_of(0, "held"))[: settings.validate_on]
    kept = pairs_of([_with_loose(held[k], settings.loosening) for k in chosen])
    reasons = (why_not(r, settings) for split in ("train", "val") for r in found[split])
    about = {
        "clusters": len(learnt),
        "held_out_clusters": len(held),
        "left_out": dict(Counter(why for why in reasons if why)),
        "digest": _digest(learnt),
    }
    batches = EpochBatches(
        len(learnt),
        settings.batch,
        lambda items, _: pairs_of([learnt[k] for k in items]),
        torch.tensor([len(r.cluster.numbers) for r in learnt]),
    )
    return Lesson(ClusterTraining(crystallizer_of(settings), kept, settings), batches, about)


def why_not(record: ClusterRecord, settings: CrystallizationSettings) -> str | None:
    """Why a cluster cannot be learnt from."""
    if len(record.cluster.numbers) > settings.most_atoms:
        return "larger molecule"
    return "unknown element" if int(record.cluster.numbers.max()) > HEAVIEST else None


def _with_loose(record: ClusterRecord, how: Loosening) -> ClusterRecord:
    if record.loose is not None:
        return record
    return replace(record, loose=evaluation_copies([record.cluster], how, 0)[0])


def _refuse_mixed(records: Sequence[ClusterRecord], data: Path) -> None:
    sizes = sorted({r.cluster.n_molecules for r in records})
    if len(sizes) > 1:
        raise InputError(
            f"expected clusters of equally many molecules in {data}, got {sizes}; train on each alone"
        )
    if len({r.loose is None for r in records}) > 1:
        raise InputError(
            f"expected initial positions of all clusters in {data} or of none, got some; train on each data set alone"
        )


def _digest(records: Sequence[ClusterRecord]) -> str:
    found = hashlib.sha256()
    for record in records:
        found.update(record.cluster.positions.numpy().tobytes())
    return found.hexdigest()[:16]


def crystallizer_of(settings: CrystallizationSettings) -> PublishedCrystallization | RigidCrystallization:
    """The method of these settings, before it has learnt anything."""
    if settings.method == "rigid":
        return RigidCrystallization(settings.width, settings.layers)
    return METHODS[settings.method](
        width=settings.width, layers=settings.layers, basis=settings.basis, cutoff=settings.cutoff
    )


SYSTEM = System(CrystallizationSettings, prepare)
