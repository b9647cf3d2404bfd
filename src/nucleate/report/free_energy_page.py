"""A folder of `nucleate free-energy` -> one HTML file that needs no network: how far an estimate can be trusted.

    free_energy.json --what can be drawn, and only that--> estimates, four plots, ladder, settings --> report.html

Rules are those of `page`: data as JSON, scripts inside, a content security policy that forbids every request. The
record may have gaps, from runs that were interrupted or other versions: what is missing or of another kind is left out.
"""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.report.folder import FREE_ENERGY, mapping, read_run
from nucleate.report.one_file import Layout, one_file

LAYOUT = Layout(
    "free_energy",
    "free energy",
    f"<code>{FREE_ENERGY}</code>",
    ("helpers", "page", "plot", "free_energy_plot", "free_energy_table", "free_energy"),
    target="estimates",
)
NUMBERS = ("difference_kT", "error_kT", "per_molecule_kT", "effective_share", "gap_kT", "frames")
STATES = (
    "base",
    "mapped",
    "reweighted",
    "sampled",
)  # of what a curve tells; the last by dynamics at the target
METHODS = ("fep", "harmonic", "flow", "bar", "mbar")  # in the order of the table and the legends
DRAWN = {"estimates", "ladder", "energies", "work", "radial", "convergence"}  # sent as tables and plots
Column = list[float | int | None]


def write_free_energy_report(folder: Path) -> Path:
    """Write `folder/report.html` from free_energy.json; returns its path.

    Raises InputError where the folder holds no such file, or it is no JSON object.
    """
    folder = Path(folder)
    if not (folder / FREE_ENERGY).is_file():
        raise InputError(
            f"expected a result folder with {FREE_ENERGY}, found none in {folder}. Give the folder that `nucleate "
            "free-energy -o` wrote."
        )
    record = read_run(folder / FREE_ENERGY)
    target = folder / "report.html"
    write_atomically(target, one_file(LAYOUT, _payload(record), record))
    return target


def _payload(record: dict[str, Any]) -> dict[str, Any]:
    """Everything the scripts show, as JSON-ready values."""
    method = record.get("method")
    tables = {name: mapping(record.get(name)) for name in DRAWN}
    return {
        "file": FREE_ENERGY,
        "run": {key: value for key, value in record.items() if key not in DRAWN},
        "estimates": _estimates(record.get("estimates")),
        "ladder": _ladder(tables["ladder"]),
        "plots": {
            "energies": _by_state(
                tables["energies"], _middles(tables["energies"].get("edges_kj_mol")), method
            ),
            "work": _by_method(tables["work"], _middles(tables["work"].get("edges_kT"))),
            "radial": _by_state(tables["radial"], _column(tables["radial"].get("r_A")), method),
            "convergence": _by_method(tables["convergence"], _column(tables["convergence"].get("frames"))),
        },
    }


def _estimates(given: Any) -> list[dict[str, Any]]:
    """Best last, as they come; without the ones that name no difference."""
    kept = [entry for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []
    return [
        {
            "method": str(entry.get("method") or "unnamed"),
            "overlaps": entry.get("overlaps") is not False,
            **{name: _number(entry.get(name)) for name in NUMBERS},
        }
        for entry in kept
        if _number(entry.get("difference_kT")) is not None
    ]


def _ladder(given: dict[str, Any]) -> dict[str, Any] | None:
    """Columns as long as there are temperatures, and the square of overlaps; None where there is no ladder."""
    temperatures = _column(given.get("temperatures_K"))
    if temperatures is None:
        return None
    names = ("differences_kT", "errors_kT", "frames", "independent")
    rows = given.get("overlap")
    square = [_column(row, len(temperatures)) for row in rows] if isinstance(rows, list) else []
    return {
        "temperatures_K": temperatures,
        **{name: _column(given.get(name), len(temperatures)) for name in names},
        "overlap": square if len(square) == len(temperatures) and None not in square else None,
    }


def _by_state(table: dict[str, Any], x: Column | None, method: Any) -> dict[str, Any] | None:
    """Curves named by what they tell of; those of several methods come as a table of them, one as it is."""
    found: list[dict[str, Any]] = []
    for state in STATES:
        given = table.get(state)
        of_methods = given if isinstance(given, dict) else {method if isinstance(method, str) else "": given}
        found += _curves(x, [(state, name, of_methods[name]) for name in _in_order(of_methods)])
    return {"x": x, "curves": found} if found else None


def _by_method(table: dict[str, Any], x: Column | None) -> dict[str, Any] | None:
    """Curves named by the method alone."""
    found = _curves(x, [("", name, table[name]) for name in _in_order(table)])
    return {"x": x, "curves": found} if found else None


def _curves(x: Column | None, given: Iterable[tuple[str, str, Any]]) -> list[dict[str, Any]]:
    """Those with a value for every x, two of them numbers at least."""
    if x is None or None in x:
        return []
    found = [(state, method, _column(y, len(x))) for state, method, y in given]
    return [
        {"state": state, "method": method, "y": y}
        for state, method, y in found
        if y is not None and sum(value is not None for value in y) >= 2
    ]


def _in_order(table: dict[str, Any]) -> list[str]:
    """Known methods first, then what else there is but the x of the plot."""
    return [name for name in METHODS if name in table] + [
        name for name in table if name not in (*METHODS, "edges_kT", "frames")
    ]


def _middles(edges: Any) -> Column | None:
    column = _column(edges)
    numbers = [edge for edge in column or [] if edge is not None]
    if column is None or len(numbers) < max(2, len(column)):
        return None
    return [(low + high) / 2 for low, high in pairwise(numbers)]


def _column(given: Any, length: int | None = None) -> Column | None:
    """A list with None for what is no number; None for what is no list, is empty or has another length."""
    if not isinstance(given, list) or not given or (length is not None and len(given) != length):
        return None
    return [_number(value) for value in given]


def _number(value: Any) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
