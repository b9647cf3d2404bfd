"""One ordered cluster of `nucleate crystallize`, from the sampler to its files and its row in samples.parquet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.cif_write import write_cif
from nucleate.crystal.cluster import ClusterBatch
from nucleate.crystal.cluster_xyz import cluster_text, read_trajectory
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.metrics.cluster_assignment import MAX_MAPS
from nucleate.metrics.cluster_evaluation import COLUMNS as JUDGED
from nucleate.metrics.cluster_evaluation import judge_cluster
from nucleate.metrics.clusters import collision_between, distances
from nucleate.metrics.packing import compare_packing
from nucleate.models.crystallization import Crystallizer, Walk
from nucleate.physics.open_cluster import OpenField, relax_open
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.cluster_cell import FoundCell, find_cell
from nucleate.pipeline.cluster_sources import Start
from nucleate.pipeline.landscape import SYMMETRY_TOLERANCE
from nucleate.pipeline.relax import RelaxedCrystal, relax

Row = dict[str, Any]

FRAMES = 40  # of a trajectory at most, the first and the last one besides
WHOLE = ("matched", "matched_of")  # counts among the numbers of `judge_cluster`
COLUMNS = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("rank", pyarrow.int64()),
        ("sample", pyarrow.int64()),
        ("seed", pyarrow.int64()),  # of the sampler's noise
        (
            "energy_kj_mol",
            pyarrow.float64(),
        ),  # per molecule, of the cluster in open space; null without parameters
        ("relaxed", pyarrow.bool_()),  # to the end; null where nobody asked
        ("collision_between", pyarrow.float64()),  # share of pairs of atoms of different molecules
        ("neighbour_A", pyarrow.float64()),  # mean distance of centroids to the nearest one
        ("moved_A", pyarrow.float64()),  # root mean square over atoms, from the loose cluster
        ("spread_A", pyarrow.float64()),  # the same from each other sample, their mean; null for one alone
        ("cell_explained", pyarrow.int64()),  # molecules with a partner one translation away
        ("cell_volume_A3", pyarrow.float64()),  # per molecule, relaxed
        ("cell_space_group", pyarrow.string()),
        ("cell_energy_kj_mol", pyarrow.float64()),  # lattice energy per molecule
        ("cell_matched", pyarrow.int64()),  # of 15 molecules of the known crystal
        ("cell_rmsd_A", pyarrow.float64()),
        ("cell_failure", pyarrow.string()),
        # against the known cluster (`metrics.cluster_evaluation`), null where there is none
        *(
            (
                name,
                pyarrow.int64()
                if name in WHOLE
                else pyarrow.bool_()
                if name == "compact"
                else pyarrow.float64(),
            )
            for name in JUDGED
            if name != "collision_between"
        ),
        ("file", pyarrow.string()),
        ("trajectory", pyarrow.string()),
        ("cell", pyarrow.string()),
        ("failure", pyarrow.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class Sample:
    """Ordered positions (Å) and the way to them; `failure` where they are not finite."""

    id: str
    number: int
    seed: int
    times: list[float]
    frames: list[Float[Tensor, "molecules atoms 3"]]  # the loose cluster first, the ordered one last
    energy: float | None = None  # eV
    relaxed: bool | None = None
    failure: str | None = None

    @property
    def positions(self) -> Float[Tensor, "molecules atoms 3"]:
        return self.frames[-1]


def sampled(method: Crystallizer, start: Start, number: int, seed: int, steps: int) -> Sample:
    """One sample; its noise is that of the seed alone."""
    loose = ClusterBatch.from_list([start.loose.with_positions(start.loose.positions.float())])
    times, frames, every = [0.0], [loose.positions[0].double()], math.ceil(steps / FRAMES)
    told = 0

    def watch(t: float, positions: Float[Tensor, "batch molecules atoms 3"]) -> None:
        nonlocal told
        told += 1
        if told % every == 0 and told < steps:
            times.append(t)
            frames.append(positions[0].double())

    end = method.sample(loose, torch.Generator().manual_seed(seed), Walk(steps, watch))[0].double()
    failure = None if end.isfinite().all() else "not finite: the sampler ran away"
    kept = [k for k, frame in enumerate(frames) if frame.isfinite().all()]
    return Sample(
        f"{number + 1:04d}", number, seed, [times[k] for k in kept] + [1.0], [frames[k] for k in kept] + [end],
        failure=failure,
    )  # fmt: skip


def with_energy(sample: Sample, field: OpenField, steps: int) -> Sample:
    """With its energy; relaxed before in at most so many steps, where they are not 0."""
    if not steps:
        return replace(sample, energy=float(field.energy(sample.positions)))
    end = relax_open(field, sample.positions, steps)
    return replace(
        sample,
        times=[*sample.times, 1.0],
        frames=[*sample.frames, end.positions],
        energy=end.energy,
        relaxed=end.converged,
    )


# ---------------------------------------------------------------- files and rows


def written(sample: Sample, start: Start, folder: Path, about: Mapping[str, str | int | float]) -> Row:
    """The row, once cluster/ID.xyz and trajectory/ID.xyz are there."""
    row: Row = dict.fromkeys(COLUMNS.names)
    row |= {"id": sample.id, "sample": sample.number, "seed": sample.seed, "failure": sample.failure}
    if sample.failure is not None:
        return row
    x, loose = sample.positions, start.loose.positions.double()
    near = distances(x.mean(1)) + torch.diag(torch.full((len(x),), torch.inf, dtype=x.dtype))
    row |= {"relaxed": sample.relaxed, "neighbour_A": float(near.amin(1).mean()), "moved_A": rms(x, loose)}
    row["collision_between"] = float(collision_between(x, start.loose.numbers))
    if sample.energy is not None:
        row["energy_kj_mol"] = sample.energy / KJ_PER_MOL / len(x)
    row |= _against_truth(x, start)
    about = {**about, "sample": sample.id, "seed": sample.seed}
    for kind, times, frames in (("cluster", [1.0], [x]), ("trajectory", sample.times, sample.frames)):
        name = f"{kind}/{sample.id}.xyz"
        text = cluster_text(start.loose, frames, [{**about, "time": round(t, 6)} for t in times])
        write_atomically(folder / name, text)
        row["file" if kind == "cluster" else kind] = name
    return row


def rms(x: Float[Tensor, "molecules atoms 3"], y: Float[Tensor, "_ _ 3"]) -> float:
    """Root mean square distance of atoms (Å), molecules as they are numbered and nothing superposed."""
    return float((x - y).square().sum(-1).mean().sqrt())


def _against_truth(x: Float[Tensor, "molecules atoms 3"], start: Start) -> Row:
    if start.truth is None:
        return {}
    maps = start.molecule.automorphisms
    judged = judge_cluster(
        "prediction", start.name, 0, start.truth, x, automorphisms=maps if len(maps) <= MAX_MAPS else None
    )
    return {name: judged[name] for name in JUDGED}


def with_cell(row: Row, sample: Sample, start: Start, folder: Path, about: Mapping[str, object]) -> Row:
    """With what became of the search for a lattice; cell/ID.cif where there is one, relaxed in the force field."""
    try:
        found = find_cell(start.loose.with_positions(sample.positions), start.molecule)
    except InputError as error:
        return row | {"cell_failure": str(error)}
    [end] = relax([found.crystal])
    path = folder / "cell" / f"{sample.id}.cif"
    energy = None if math.isnan(end.energy) else end.energy
    write_cif(end.crystal, path, energy=energy, provenance=about, symprec=SYMMETRY_TOLERANCE)
    return row | _cell_row(found, end, start) | {"cell": str(path.relative_to(folder))}


def _cell_row(found: FoundCell, end: RelaxedCrystal, start: Start) -> Row:
    crystal = end.crystal
    row = {
        "cell_explained": found.explained,
        "cell_volume_A3": crystal.volume / crystal.n_molecules,
        "cell_space_group": find_symmetry(crystal, SYMMETRY_TOLERANCE).symbol,
        "cell_energy_kj_mol": None if math.isnan(end.energy) else end.energy,
        "cell_failure": end.reason or None,
    }
    if start.crystal is not None:
        match = compare_packing(start.crystal, crystal)
        row |= {"cell_matched": match.n_matched, "cell_rmsd_A": match.rmsd if match.n_matched else None}
    return row


# ---------------------------------------------------------------- all of them


def ranked(rows: Sequence[Row], folder: Path, molecules: int) -> list[Row]:
    """Best first, with rank and spread: by energy, or by collisions where there are no energies; failures last."""
    rows = sorted(rows, key=lambda row: row["sample"])  # sums in one order, whenever samples were made
    made = [row for row in rows if row["file"]]
    spread: dict[str, float] = {}
    if len(made) > 1:
        x = torch.stack([read_trajectory(folder / row["file"], molecules)[1][0] for row in made])
        atoms = x.shape[1] * x.shape[2]
        apart = torch.cdist(x.flatten(1), x.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        means = apart.sum(1) / (len(made) - 1) / math.sqrt(atoms)
        spread = dict(zip([row["id"] for row in made], means.tolist()))

    def place(row: Row) -> tuple[bool, float, float, int]:
        energy = row["energy_kj_mol"]
        return (
            not row["file"],
            math.inf if energy is None else energy,
            row["collision_between"] or 0.0,
            row["sample"],
        )

    return [
        row | {"rank": rank if row["file"] else None, "spread_A": spread.get(row["id"])}
        for rank, row in enumerate(sorted(rows, key=place), start=1)
    ]


def write_table(rows: Sequence[Row], path: Path) -> None:
    """All rows, whole or not at all."""
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), COLUMNS), sink)
    write_atomically(path, sink.getvalue().to_pybytes())
