"""Many molecules: one sub-folder each, and one summary table."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from nucleate.crystal.io import read_molecule_list
from nucleate.errors import InputError, NucleateError
from nucleate.files import write_atomically
from nucleate.pipeline.composition import folder_name
from nucleate.pipeline.folders import distinct_names, hold_folder, make_folder
from nucleate.pipeline.predict import PredictSettings, Progress, predict

INTERRUPTED = "interrupted"


def predict_list(
    path: Path,
    settings: PredictSettings,
    folder: Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Predict every molecule of a .smi or .csv file; one that fails is a row with its reason.

    `budget` and `n` are those of each molecule. The table goes to summary.csv and summary.parquet after every
    molecule, so an interruption, which ends the list, keeps what is done. Two molecules of one name get two folders.
    Raises InputError where another run is under way in the folder.
    """
    rows: list[dict[str, Any]] = []
    molecules = read_molecule_list(path)
    with hold_folder(make_folder(folder)):
        for name, (_, smiles) in zip(distinct_names(folder_name(name) for name, _ in molecules), molecules):
            rows.append(_one(name, smiles, settings, folder / name, resume, progress))
            _write_summary(rows, folder)
            if rows[-1]["failure"] == INTERRUPTED:
                break
    return rows


def _one(
    name: str,
    smiles: str | InputError,
    settings: PredictSettings,
    folder: Path,
    resume: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name, "smiles": "", "crystals": 0, "lattice_energy_kj_mol": None, "density_g_cm3": None,
        "space_group_symbol": None, "seconds": None, "failure": None,
    }  # fmt: skip
    if isinstance(smiles, InputError):
        return row | {"failure": str(smiles)}
    row["smiles"] = smiles
    try:
        again = resume and (folder / "search.json").exists()
        result = predict(smiles, settings, folder, name=name, resume=again, progress=progress)
    except NucleateError as error:
        return row | {"failure": str(error)}
    best = result.rows[0] if result.rows else {}
    row["failure"] = INTERRUPTED if result.run["interrupted"] else None
    keys = ("lattice_energy_kj_mol", "density_g_cm3", "space_group_symbol")
    return (
        row
        | {"crystals": len(result.rows), "seconds": result.run["wall_seconds"]}
        | {k: best.get(k) for k in keys}
    )


def _write_summary(rows: list[dict[str, Any]], folder: Path) -> None:
    table = pyarrow.Table.from_pylist(rows)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    write_atomically(folder / "summary.parquet", sink.getvalue().to_pybytes())
    lines = [",".join(table.column_names)]
    lines += [",".join(_cell(row[k]) for k in table.column_names) for row in rows]
    write_atomically(folder / "summary.csv", "\n".join(lines) + "\n")


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text
