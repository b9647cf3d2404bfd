"""Tables of inorganic crystals as tensors: contents, cells and coordinates padded to the largest, properties beside.

A table is parquet or CSV with a column `cif` (text); `material_id` names rows, and columns of numbers are properties.
Every crystal is brought to its primitive Niggli cell (`crystal.sites`). What cannot be used is left out and counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nucleate.crystal.sites import Sites, primitive_niggli_sites, sites_from_cif
from nucleate.data.containers import read_csv, read_parquet, rows_of
from nucleate.errors import InputError
from nucleate.geometry.lattice import lattice_from_log, log_coordinates
from nucleate.networks.elements import HEAVIEST
from nucleate.reading import why

MOST_ATOMS = 60  # in a primitive cell: pairs, and with them time and memory, grow with the square


@dataclass(frozen=True, eq=False)
class Contents:
    """Which atoms are in each crystal."""

    numbers: Int[Tensor, "crystals atoms"]  # atomic numbers, 0 for padding

    @staticmethod
    def of(crystals: Sequence[Sequence[int]]) -> "Contents":
        """Padded to the largest. Raises InputError for a crystal without atoms, or with elements beyond plutonium."""
        most = max((len(c) for c in crystals), default=0)
        for numbers in crystals:
            if not numbers or not all(1 <= z <= HEAVIEST for z in numbers):
                raise InputError(
                    f"expected crystals of elements 1 (H) to {HEAVIEST} (Pu), got {list(numbers)[:8]}",
                    reason="unknown element" if numbers else "no atoms",
                )
        padded = [[*numbers, *[0] * (most - len(numbers))] for numbers in crystals]
        return Contents(torch.tensor(padded, dtype=torch.long).reshape(len(crystals), most))

    @property
    def mask(self) -> Bool[Tensor, "crystals atoms"]:
        """Where there is an atom."""
        return self.numbers > 0

    @property
    def sizes(self) -> Int[Tensor, " crystals"]:
        """Atoms in each."""
        return self.mask.sum(1)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Tensor | slice) -> "Contents":
        """Some of them, in the order given, padded no further than the largest of these needs."""
        numbers = self.numbers[rows]
        return Contents(numbers[:, : int((numbers > 0).sum(1).max())])


@dataclass(frozen=True, eq=False)
class Structures:
    """Crystals as a flow sees them."""

    contents: Contents
    lattice: Float[Tensor, "crystals 6"]  # log coordinates
    frac: Float[Tensor, "crystals atoms 3"]
    properties: dict[str, Float[Tensor, " crystals"]]  # NaN: not known

    def __len__(self) -> int:
        return len(self.lattice)

    def __getitem__(self, rows: Tensor | slice) -> "Structures":
        contents = self.contents[rows]
        atoms = contents.numbers.shape[1]
        properties = {name: values[rows] for name, values in self.properties.items()}
        return Structures(contents, self.lattice[rows], self.frac[rows][:, :atoms], properties)

    def properties_of(self, names: Sequence[str]) -> dict[str, Float[Tensor, " crystals"]]:
        """Some of the properties."""
        return {name: self.properties[name] for name in names}

    @property
    def volume_per_atom(self) -> Float[Tensor, " crystals"]:
        """Å^3"""
        return (3**0.5 * self.lattice[:, 5]).exp() / self.contents.sizes


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a file that can be used, in order, and how many could not, by reason."""

    names: list[str]
    sites: list[Sites]  # primitive Niggli cells
    columns: dict[str, list[Any]]
    left_out: Counter[str]


def read_table(path: Path, most_atoms: int = MOST_ATOMS) -> Table:
    """Crystals of a parquet or CSV file (or of the only one in a folder) with a column `cif`.

    Raises InputError where the file cannot be read, or none of its rows.
    """
    table = read_columns(path)
    texts = [row["cif"] for row in rows_of(table.select(["cif"]), path)]
    named = "material_id" in table.column_names
    names = (
        [str(n) for n in table.column("material_id").to_pylist()]
        if named
        else list(map(str, range(len(texts))))
    )
    kept, sites, left_out = [], [], Counter[str]()
    for row, text in enumerate(texts):
        try:
            crystal = primitive_niggli_sites(sites_from_cif(f"{text or ''}\n"))
        except InputError as error:
            left_out[error.reason or "unreadable"] += 1
            continue
        if len(crystal) > most_atoms or int(crystal.numbers.max()) > HEAVIEST:
            left_out["too many atoms" if len(crystal) > most_atoms else "unknown element"] += 1
            continue
        kept.append(row)
        sites.append(crystal)
    if not sites:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "no rows"
        raise InputError(f"expected crystals that can be used in {path}, got none ({reasons})")
    some = table.drop_columns(["cif"]).take(kept)
    columns = {name: [row[name] for row in rows_of(some.select([name]), path)] for name in some.column_names}
    return Table([names[row] for row in kept], sites, columns, left_out)


def read_columns(path: Path) -> pyarrow.Table:
    """All columns of a parquet or CSV file with a column `cif`. Raises InputError where it is another file."""
    if path.is_dir():
        found = sorted([*path.glob("*.parquet"), *path.glob("*.csv")])
        if len(found) != 1:
            raise InputError(f"expected one table in {path}, got {len(found)}; name the file")
        path = found[0]
    if not path.is_file():
        raise InputError(f"expected a table (.parquet or .csv), found none at {path}", reason="missing")
    table = read_csv(path) if path.suffix == ".csv" else read_parquet(path)
    if "cif" not in table.column_names:
        raise InputError(
            f"expected a column `cif` in {path}, got {', '.join(table.column_names)}", reason="no column"
        )
    return table


def structures_of(
    sites: Sequence[Sites], properties: Mapping[str, Sequence[float | int | None]] | None = None
) -> Structures:
    """Tensors of crystals, in float32. Properties that are None become NaN."""
    contents = Contents.of([s.numbers.tolist() for s in sites])
    frac = torch.zeros(*contents.numbers.shape, 3)
    for row, crystal in enumerate(sites):
        frac[row, : len(crystal)] = crystal.frac.float()
    lattice = log_coordinates(torch.stack([s.lattice.double() for s in sites])).float()
    known = {name: _numbers(name, values) for name, values in (properties or {}).items()}
    return Structures(contents, lattice, frac, known)


def _numbers(name: str, values: Sequence[float | int | None]) -> Float[Tensor, " crystals"]:
    try:
        return torch.tensor([float("nan") if v is None else float(v) for v in values])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected numbers in the column {name}, got others ({why(error)})", "not a number"
        ) from None


def sites_of(structures: Structures, row: int) -> Sites:
    """One crystal again; its cell is the symmetric matrix of its log coordinates."""
    there = structures.contents.mask[row]
    return Sites(
        lattice_from_log(structures.lattice[row].double()),
        structures.frac[row][there].double(),
        structures.contents.numbers[row][there],
    )


# ------------------------------------------------------------------ volumes


def element_volumes(structures: Structures, pull: float = 3.0) -> Float[Tensor, " elements"]:
    """Å^3 that an atom of each element takes up, from the relative errors of volumes: ridge regression.

    Minimises sum_c (sum_Z x_cZ v_Z / v_c - 1)^2 + pull * sum_Z (v_Z / v_mean - 1)^2 with x the mole fractions of a
    crystal and v_c its volume per atom: an element without data takes the mean.
    """
    per_atom = structures.volume_per_atom.double()
    numbers, mask = structures.contents.numbers, structures.contents.mask
    share = torch.zeros(len(structures), HEAVIEST + 1, dtype=torch.float64)
    share.scatter_add_(1, numbers, mask.double() / mask.sum(1, keepdim=True))
    mean = per_atom.log().mean().exp()
    relative = share[:, 1:] * (mean / per_atom)[:, None]
    left = relative.T @ relative + pull * torch.eye(HEAVIEST, dtype=torch.float64)
    right = relative.sum(0) + pull
    return (torch.linalg.solve(left, right).clamp_min(0.1) * mean).float()


def expected_volume(contents: Contents, volumes: Float[Tensor, " elements"]) -> Float[Tensor, " crystals"]:
    """Å^3 of each cell by the volumes of its atoms."""
    padded = torch.cat([volumes.new_zeros(1), volumes])
    return padded[contents.numbers].sum(1)
