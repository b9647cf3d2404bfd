"""A result folder -> one HTML file that needs no network.

The page carries its data as JSON, its scripts and the viewer inline, and a content security policy that
forbids every request. Text from files only ever enters as JSON or escaped, never as markup.
"""

from pathlib import Path
from typing import Any

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.files import write_atomically
from nucleate.metrics.pxrd import CU_K_ALPHA, powder_pattern
from nucleate.report.drawing import space_group_symbol
from nucleate.report.folder import Results, mapping, read_results
from nucleate.report.one_file import Layout, one_file
from nucleate.report.scene import scene

LAYOUT = Layout(
    "crystal",
    "predicted crystals",
    "<code>crystals.parquet</code> and <code>cif/</code>",
    (
        *("helpers", "page", "plot", "table", "viewer"),
        *("crystal_table", "landscape", "packing", "powder", "search", "crystal"),
    ),
    rows="Crystals",
    viewer=True,
)
TWO_THETA = (5.0, 50.0)  # degrees
STEP = 0.025  # degrees; four points across the half width keep heights true to 4 %
COLUMNS = {  # name in the page: (column of crystals.parquet, decimals)
    "id": ("id", None),
    "rank": ("rank", 0),
    "energy": ("energy_kj_mol", 3),
    "lattice_energy": ("lattice_energy_kj_mol", 2),
    "density": ("density_g_cm3", 4),
    "volume": ("volume_per_molecule_A3", 2),
    "number": ("space_group", 0),
    "z": ("z", 0),
    "z_prime": ("z_prime", 3),
    "generator": ("generator", None),
    "conformer": ("conformer", None),
    "seed": ("seed", None),
    "duplicates": ("n_duplicates", 0),
    "clash": ("clash", None),
    "match": ("match_reference", None),
    "rmsd": ("rmsd_n", 3),
    "n_matched": ("n_matched", 0),
}


def write_report(folder: Path, max_embedded: int = 200) -> Path:
    """Write `folder/report.html` from `crystals.parquet`, `cif/*.cif` and `run.json`; returns its path.

    The page shows every crystal in the landscape and the table; packing, powder pattern and CIF text are
    inside for the best `max_embedded` ranks and for matches of the reference, and the page says so. A CIF
    file that cannot be read is named on the page with the reason. `run.json` and its keys may be missing.

    Raises InputError if `crystals.parquet` is missing or unreadable. The file is replaced in one step.
    """
    results = read_results(Path(folder))
    payload = _payload(results, max_embedded)
    target = results.folder / "report.html"
    write_atomically(target, one_file(LAYOUT, payload, results.run))
    return target


def _payload(results: Results, max_embedded: int) -> dict[str, Any]:
    """Everything the scripts show, as JSON-ready values."""
    known = mapping(results.run.get("space_groups"))
    crystals = [_row(row, results, known) for row in results.rows]
    inside = {
        index: _embedded(results.cif(row))
        for index, row in enumerate(results.rows)
        if index < max_embedded or row.get("match_reference") is True
    }
    run = {key: value for key, value in results.run.items() if key != "reference"}
    run["space_groups"] = {
        number: {**mapping(entry), "symbol": _symbol(number, mapping(entry).get("symbol"))}
        for number, entry in known.items()
    }
    return {
        "run": run,
        "crystals": crystals,
        "embedded": inside,
        "max_embedded": max_embedded,
        "reference": _reference(results.run.get("reference")),
        "powder": {"start": TWO_THETA[0], "step": STEP, "wavelength": CU_K_ALPHA},
    }


def _row(row: dict[str, Any], results: Results, known: dict[str, Any]) -> dict[str, Any]:
    shown = {}
    for name, (column, decimals) in COLUMNS.items():
        value = row.get(column)
        shown[name] = round(value, decimals) if decimals is not None and isinstance(value, float) else value
    entry = mapping(known.get(str(shown["number"])))
    return {**shown, "symbol": _symbol(shown["number"], entry.get("symbol")), "file": results.cif_name(row)}


def _symbol(number: Any, symbol: Any) -> str:
    digits = str(number) if number is not None else ""
    return space_group_symbol(
        int(digits) if digits.isdigit() else 0, symbol if isinstance(symbol, str) else None
    )


def _embedded(text: str | None) -> dict[str, Any]:
    """CIF text with its drawing and pattern, or the reason why there is none."""
    if text is None:
        return {"cif": None, "problem": "its CIF file is missing"}
    try:
        crystal = read_crystal(f"{text}\n")  # a line end tells text from a path
        return {"cif": text, "scene": scene(crystal), "pattern": _pattern(crystal)}
    except ValueError as error:
        return {"cif": text, "problem": str(error)}


def _pattern(crystal: Crystal) -> list[int]:
    """Profile on the page's grid in thousandths of the highest point."""
    profile = powder_pattern(crystal, TWO_THETA, step=STEP)
    return (profile.intensity * 10).round().long().tolist()


def _reference(reference: Any) -> dict[str, Any] | None:
    if not isinstance(reference, dict):
        return None
    text = reference.get("cif")
    shown = {key: value for key, value in reference.items() if key != "cif"}
    if not isinstance(text, str) or not text.strip():
        return shown
    try:
        crystal = read_crystal(f"{text}\n")  # a line end tells text from a path
    except ValueError as error:
        return {**shown, "problem": str(error)}
    return {**shown, "density": round(crystal.density, 4), "pattern": _pattern(crystal)}
