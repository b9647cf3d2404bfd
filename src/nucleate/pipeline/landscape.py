"""The result folder: crystals.parquet, cif/, run.json. Other tools rely on these names (docs/files.md)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from nucleate.crystal.cif_write import cif_text
from nucleate.crystal.crystal import Crystal
from nucleate.files import write_atomically
from nucleate.metrics.packing import PackingMatch
from nucleate.pipeline.reference import is_same
from nucleate.report.folder import finite

SYMMETRY_TOLERANCE = 0.05  # Å; minimised crystals are symmetric to within their force tolerance

COLUMNS = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("rank", pyarrow.int32()),
        ("energy_kj_mol", pyarrow.float64()),
        ("lattice_energy_kj_mol", pyarrow.float64()),
        ("density_g_cm3", pyarrow.float64()),
        ("volume_per_molecule_A3", pyarrow.float64()),
        ("space_group", pyarrow.int32()),
        ("z", pyarrow.int32()),
        ("z_prime", pyarrow.float64()),
        ("generator", pyarrow.string()),
        ("conformer", pyarrow.string()),
        ("seed", pyarrow.int64()),
        ("n_duplicates", pyarrow.int32()),
        ("clash", pyarrow.bool_()),
        ("match_reference", pyarrow.bool_()),
        ("rmsd_n", pyarrow.float64()),
        ("n_matched", pyarrow.int32()),
        ("cif", pyarrow.string()),
        ("space_group_symbol", pyarrow.string()),
        ("energy_model", pyarrow.string()),
        ("forcefield_energy_kj_mol", pyarrow.float64()),
        ("start", pyarrow.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One distinct crystal as it is handed over. Energies in kJ/mol per molecule."""

    crystal: Crystal
    energy: float  # by `energy_model`, or the force field's shifted to its scale
    lattice_energy: float  # force field, conformer energy included, against molecules far apart
    energy_model: str
    space_group: int
    symbol: str
    z: int
    z_prime: float
    generator: str
    conformer: str  # number of the conformer of each body of the asymmetric unit
    start: str  # arm and number of the start that led here
    seed: int
    hits: int  # starts that led here
    clash: bool
    match: PackingMatch | None = None


def write_landscape(
    folder: Path, candidates: Sequence[Candidate], name: str, provenance: dict[str, Any]
) -> list[dict[str, Any]]:
    """Write cif/0001.cif ... in rank order and crystals.parquet; older CIFs of the folder go. Returns the rows."""
    (folder / "cif").mkdir(exist_ok=True)
    lowest = min((c.energy for c in candidates), default=0.0)
    lowest_field = min((c.lattice_energy for c in candidates), default=0.0)
    rows = []
    for rank, c in enumerate(candidates, start=1):
        text = cif_text(
            c.crystal,
            energy=c.lattice_energy,
            provenance={**provenance, "start": c.start, "rank": rank, "energy_model": c.energy_model},
            name=f"{name}_{rank:04d}",
            symprec=SYMMETRY_TOLERANCE,
        )
        write_atomically(folder / "cif" / f"{rank:04d}.cif", text)
        rows.append(_row(c, rank, name, lowest, lowest_field, text))
    for stale in (folder / "cif").glob("*.cif"):
        if stale.stem.isdigit() and int(stale.stem) > len(candidates):
            stale.unlink()
    table = pyarrow.Table.from_pylist(rows, schema=COLUMNS)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    write_atomically(folder / "crystals.parquet", sink.getvalue().to_pybytes())
    return rows


def _row(c: Candidate, rank: int, name: str, lowest: float, lowest_field: float, text: str) -> dict[str, Any]:
    match = c.match
    return {
        "id": f"{name}_{rank:04d}",
        "rank": rank,
        "energy_kj_mol": c.energy - lowest,
        "lattice_energy_kj_mol": c.lattice_energy,
        "density_g_cm3": c.crystal.density,
        "volume_per_molecule_A3": c.crystal.volume / c.crystal.n_molecules,
        "space_group": c.space_group,
        "z": c.z,
        "z_prime": c.z_prime,
        "generator": c.generator,
        "conformer": c.conformer,
        "seed": c.seed,
        "n_duplicates": c.hits - 1,
        "clash": c.clash,
        "match_reference": None if match is None else is_same(match),
        "rmsd_n": None if match is None or not match.n_matched else match.rmsd,
        "n_matched": None if match is None else match.n_matched,
        "cif": text,
        "space_group_symbol": c.symbol,
        "energy_model": c.energy_model,
        "forcefield_energy_kj_mol": c.lattice_energy - lowest_field,
        "start": c.start,
    }


def write_run(folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    """run.json: settings, versions, timings, counts and failures. Returns it as written: JSON has no NaN."""
    text = json.dumps(finite(run), indent=1, allow_nan=False, default=str)
    write_atomically(folder / "run.json", text + "\n")
    plain: dict[str, Any] = json.loads(text)
    return plain
