"""A folder of `nucleate conform` -> one HTML file that needs no network: the conformers laid over each other.

Rules are those of `page`: data as JSON, scripts inside, a content security policy that forbids every request.
"""

from pathlib import Path
from typing import Any

from rdkit import Chem, rdBase

from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.report.folder import CONFORMERS, finite, read_run
from nucleate.report.one_file import Layout, one_file

LAYOUT = Layout(
    "conformer",
    "conformers",
    f"<code>{CONFORMERS}</code>",
    (
        *("helpers", "page", "plot", "table", "viewer"),
        *("conformer_viewer", "conformer_plot", "conformer_table", "conformer"),
    ),
    rows="Conformers",
    viewer=True,
)
NUMBERS = ("rank", "energy_kj_mol", "boltzmann_weight", "mirror_images", "rmsd_A")
TEXTS = ("id", "smiles", "energy_model", "method")
SCALE = 1000  # positions are sent in thousandths of an Å


def write_conformer_report(folder: Path, max_embedded: int = 200) -> Path:
    """Write `folder/report.html` from conformers.sdf and run.json (which may be missing); returns its path.

    The coordinates of the first `max_embedded` conformers are inside the page, which says so. Raises InputError where
    the folder holds no conformers.
    """
    folder = Path(folder)
    run = read_run(folder / "run.json")
    target = folder / "report.html"
    payload = _payload(_read(folder / CONFORMERS), run, max_embedded)
    write_atomically(target, one_file(LAYOUT, payload, run))
    return target


def _read(path: Path) -> list[Chem.Mol | None]:
    """The records as they are; None for those that cannot be read."""
    if not path.is_file():
        raise InputError(
            f"expected a result folder with {path.name}, found none in {path.parent}. Give the folder that `nucleate "
            "conform -o` wrote."
        )
    records = Chem.SDMolSupplier()
    with rdBase.BlockLogs():
        records.SetData(
            path.read_text(encoding="utf-8", errors="replace"), sanitize=False, removeHs=False
        )  # a file may be empty
        return list(records)


def _payload(records: list[Chem.Mol | None], run: dict[str, Any], max_embedded: int) -> dict[str, Any]:
    """Everything the scripts show, as JSON-ready values."""
    species: list[dict[str, Any]] = []
    conformers: list[dict[str, Any]] = []
    for record in records:
        if record is None:
            continue
        graph = _graph(record)
        if graph not in species:
            species.append(graph)
        row = _row(record) | {"species": species.index(graph)}
        inside = len(conformers) < max_embedded and record.GetNumConformers()
        conformers.append(row | {"positions": _positions(record) if inside else None})
    return {
        "run": run,
        "species": species,
        "conformers": conformers,
        "unreadable": sum(record is None for record in records),
        "file": CONFORMERS,
        "scale": SCALE,
    }


def _graph(record: Chem.Mol) -> dict[str, Any]:
    """What conformers of one molecule share."""
    return {
        "smiles": record.GetProp("smiles") if record.HasProp("smiles") else "",
        "elements": [atom.GetSymbol() for atom in record.GetAtoms()],
        "bonds": [
            [bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondTypeAsDouble())]
            for bond in record.GetBonds()
        ],
    }


def _row(record: Chem.Mol) -> dict[str, Any]:
    given = record.GetPropsAsDict(includePrivate=False, autoConvertStrings=False)
    row: dict[str, Any] = {name: str(given[name]) for name in TEXTS if name in given}
    return row | {name: _number(given.get(name)) for name in NUMBERS}


def _number(text: Any) -> float | None:
    try:
        value: float | None = finite(float(text))
    except (TypeError, ValueError):
        return None
    return value


def _positions(record: Chem.Mol) -> list[int]:
    return [round(SCALE * float(x)) for x in record.GetConformer().GetPositions().flatten()]
