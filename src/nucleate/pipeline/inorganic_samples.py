"""One sample of an inorganic crystal, from its task to its row in samples.parquet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from ase.formula import Formula

from nucleate.crystal.sites import Sites, niggli_sites
from nucleate.crystal.sites_cif import sites_cif_text, write_sites_cif
from nucleate.data.inorganic import Contents
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.metrics.surroundings import Surroundings, surroundings
from nucleate.models.crystalflow import CrystalFlow, Sampling
from nucleate.physics.energy import EnergyModel
from nucleate.pipeline.inorganic_tasks import Task
from nucleate.pipeline.relax import RelaxSettings, relax_sites

Row = dict[str, Any]

COLUMNS = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("target", pyarrow.string()),  # name in the list; null without one
        ("sample", pyarrow.int64()),  # 0, 1, ... of its target
        ("formula", pyarrow.string()),  # reduced, metals first
        ("atoms", pyarrow.int64()),  # in the cell that was generated: what volume and energies are of
        ("space_group", pyarrow.string()),  # of the file
        ("volume_A3", pyarrow.float64()),
        ("density_g_cm3", pyarrow.float64()),
        ("shortest_A", pyarrow.float64()),  # between any two atoms, images included
        ("overlap", pyarrow.bool_()),
        ("energy_before_eV", pyarrow.float64()),
        ("energy_eV", pyarrow.float64()),
        ("converged", pyarrow.bool_()),
        ("seed", pyarrow.int64()),  # of the noise
        ("file", pyarrow.string()),
        ("cif", pyarrow.string()),  # text: the crystal as it was generated or relaxed, to 0.01 Å
        ("failure", pyarrow.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class Sample:
    """What has become of a task; without `sites` there is a `failure`."""

    task: Task
    sites: Sites | None = None  # reduced cell
    around: Surroundings | None = None
    energy_before: float | None = None  # eV per cell
    energy: float | None = None
    converged: bool | None = None
    failure: str | None = None

    def held(self, sites: Sites) -> "Sample":
        """With this crystal, unless it is flat."""
        try:
            return replace(self, sites=niggli_sites(sites), around=surroundings(sites))
        except InputError as error:
            return replace(self, failure=str(error))

    def row(self) -> Row:
        """Everything but what files say."""
        row: Row = dict.fromkeys(COLUMNS.names)
        row |= {"id": self.task.id, "target": self.task.target.name, "sample": self.task.sample}
        row |= {"seed": self.task.seed, "failure": self.failure}
        row |= {"energy_before_eV": self.energy_before, "energy_eV": self.energy, "converged": self.converged}
        if self.sites is not None and self.around is not None:
            formula = Formula(self.sites.reduced_formula).format("metal")
            row |= {"formula": formula, "atoms": len(self.sites)}
            row |= {"volume_A3": self.sites.volume, "density_g_cm3": self.sites.density}
            row |= {"shortest_A": self.around.shortest, "overlap": self.around.overlap}
        return row


def sampled(
    flow: CrystalFlow, tasks: Sequence[Task], sampling: Sampling, conditions: Mapping[str, float]
) -> list[Sample]:
    """A sample for each task, in order; those that cannot be built, or asked for, say why."""
    able = [task for task in tasks if not isinstance(task.numbers, InputError)]
    made: dict[str, Sample] = {}
    if able:
        contents = Contents.of([task.numbers for task in able if not isinstance(task.numbers, InputError)])
        noise = [torch.Generator().manual_seed(task.seed) for task in able]
        state = flow.sample(contents, noise, sampling, conditions)
        for task, found in zip(able, flow.build(state, contents)):
            one = Sample(task)
            made[task.id] = one.held(found) if isinstance(found, Sites) else replace(one, failure=str(found))
    return [made.get(task.id) or Sample(task, failure=str(task.numbers)) for task in tasks]


def relaxed(samples: Sequence[Sample], model: EnergyModel, settings: RelaxSettings) -> list[Sample]:
    """The same, relaxed; one whose relaxation fails stays as it was sampled and says why."""
    places = [i for i, sample in enumerate(samples) if sample.sites is not None]
    ends = relax_sites([s.sites for s in samples if s.sites is not None], model, settings)
    found = list(samples)
    for i, end in zip(places, ends):
        about = replace(samples[i], energy_before=end.energy_before, failure=end.reason or None)
        if end.energy is not None:
            about = replace(about.held(end.sites), energy=end.energy, converged=end.converged)
        found[i] = about
    return found


def written(
    sample: Sample, folder: Path, provenance: Mapping[str, object], symprec: float, energy_model: str | None
) -> Row:
    """The row, once folder/cif/ID.cif is there: symmetric where the crystal nearly is (`symprec`, Å)."""
    row = sample.row()
    if sample.sites is None:
        return row
    about = {**provenance, "sample": sample.task.id, "noise": sample.task.seed}
    each = None
    if sample.energy is not None:
        about["energy_model"], each = energy_model, sample.energy / len(sample.sites)
    path = folder / "cif" / f"{sample.task.id}.cif"
    group = write_sites_cif(sample.sites, path, about, energy=each, symprec=symprec)
    row |= {"space_group": group.symbol, "file": str(path.relative_to(folder))}
    return row | {"cif": sites_cif_text(sample.sites, sample.task.id, energy=each)}


def write_table(rows: Sequence[Row], path: Path) -> None:
    """All rows, whole or not at all."""
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), COLUMNS), sink)
    write_atomically(path, sink.getvalue().to_pybytes())
