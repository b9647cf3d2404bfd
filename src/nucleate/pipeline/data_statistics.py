"""What is in a data set: molecules, space groups, volumes, energies; two data sets side by side."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rdkit import Chem
from scipy.stats import ks_2samp

from nucleate.data.packed import data_sets, read_rows
from nucleate.errors import InputError
from nucleate.geometry.symmetry import SpaceGroup

GRAMS = 1.66053906660  # g/cm^3 in a dalton per Å^3
COLUMNS = ("key", "smiles", "kind", "lattice", "number", "rotations", "above", "hits")
PERCENTILES = (5, 50, 95)
SPREADS = {
    "atoms": "atoms in the asymmetric unit",
    "density": "density, g/cm³",
    "volume": "volume, Å³ per non-hydrogen atom",
    "above": "above the lowest, kJ/mol",
    "hits": "starts that ended there",
}


@dataclass(frozen=True, eq=False)
class DataStatistics:
    """A data set in numbers.

    Space groups and molecules of the asymmetric unit are as stored: a molecule on a special position counts whole, in
    the subgroup in which it sits on a general one.
    """

    crystals: int
    molecules: int  # of different keys: combinations of molecular graphs
    space_groups: Counter[int]  # crystals by number; 0 where the operations have no name
    bodies: Counter[int]  # crystals by molecules in the asymmetric unit
    species: Counter[int]  # crystals by kinds of molecules
    atoms: Float[np.ndarray, " crystals"]  # of the asymmetric unit
    density: Float[np.ndarray, " crystals"]  # g/cm^3
    volume: Float[np.ndarray, " crystals"]  # Å^3 per non-hydrogen atom
    above: Float[np.ndarray, " known"]  # kJ/mol above the lowest of the molecule, where known
    hits: Float[np.ndarray, " searched"]  # starts that ended there, of crystals that were searched for

    def as_json(self) -> dict[str, Any]:
        """Counts, and mean, standard deviation and percentiles of the rest."""
        counts = {n: _by_count(getattr(self, n)) for n in ("space_groups", "bodies", "species")}
        spreads = {n: spread(getattr(self, n)) for n in SPREADS}
        return {"crystals": self.crystals, "molecules": self.molecules, **counts, **spreads}


def data_statistics(folder: Path, lowest: bool = False) -> DataStatistics:
    """Statistics of a data set, or of the data sets in its sub-folders together.

    With `lowest` only the lowest crystal of each molecule counts (those of unknown energy all do): what compares with
    experiments. Raises InputError where the folder holds no data set or one that is damaged.
    """
    folders = data_sets(folder)
    if not folders:
        raise InputError(f"expected a data set of crystals (*.parquet), found none in {folder}")
    rows = chain.from_iterable(read_rows(place, COLUMNS) for place in folders)
    return _count(row for row in rows if not lowest or not row["above"])


def _count(rows: Iterable[Mapping[str, Any]]) -> DataStatistics:
    """One pass over the rows, without building a crystal."""
    keys, groups, bodies, species = set(), Counter[int](), Counter[int](), Counter[int]()
    columns: dict[str, list[float]] = {name: [] for name in SPREADS}
    for row in rows:
        atoms, heavy, mass = np.array([_contents(row["smiles"][kind]) for kind in row["kind"]]).sum(0)
        copies = len(row["rotations"]) // 9
        volume = np.linalg.det(np.reshape(row["lattice"], (3, 3))) / copies
        keys.add(row["key"])
        groups[row["number"]] += 1
        bodies[len(row["kind"])] += 1
        species[len(row["smiles"])] += 1
        columns["atoms"].append(atoms)
        columns["density"].append(mass / volume * GRAMS)
        columns["volume"].append(volume / max(heavy, 1))
        if row["above"] is not None:
            columns["above"].append(row["above"])
        if row["hits"]:
            columns["hits"].append(row["hits"])
    if not groups:
        raise InputError("expected a data set of crystals, got one that holds no crystal", "empty file")
    arrays = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    return DataStatistics(sum(groups.values()), len(keys), groups, bodies, species, **arrays)


@lru_cache(maxsize=1 << 16)
def _contents(smiles: str) -> tuple[float, float, float]:
    """Atoms, non-hydrogen atoms and mass (g/mol) of a molecule with every hydrogen written."""
    options: Any = Chem.SmilesParserParams()
    options.removeHs, options.sanitize = False, False
    numbers = [atom.GetAtomicNum() for atom in Chem.MolFromSmiles(smiles, options).GetAtoms()]
    table = Chem.GetPeriodicTable()
    heavy = sum(z > 1 for z in numbers)
    return float(len(numbers)), float(heavy), sum(table.GetAtomicWeight(z) for z in numbers)


def _by_count(counts: Counter[int]) -> dict[str, int]:
    return {str(value): n for value, n in counts.most_common()}


def spread(values: Float[np.ndarray, " values"]) -> dict[str, float] | None:
    """Mean, standard deviation and percentiles; None of nothing."""
    if not len(values):
        return None
    marks = {f"p{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES))}
    return {"mean": float(values.mean()), "sd": float(values.std()), **marks}


# ---------------------------------------------------------------- side by side


def comparison(mine: DataStatistics, reference: DataStatistics) -> dict[str, float]:
    """How far two data sets are apart, 0 (alike) to 1 (nothing in common).

    Half the sum of |share - share| for counts (total variation), the largest difference of the cumulative
    distributions for densities and volumes (Kolmogorov and Smirnov).
    """
    apart = {n: _variation(getattr(mine, n), getattr(reference, n)) for n in ("space_groups", "bodies")}
    for name in ("atoms", "density", "volume"):
        apart[name] = float(ks_2samp(getattr(mine, name), getattr(reference, name)).statistic)
    return apart


def _variation(one: Counter[int], other: Counter[int]) -> float:
    totals = one.total(), other.total()
    return 0.5 * sum(abs(one[k] / totals[0] - other[k] / totals[1]) for k in one.keys() | other.keys())


def table(sets: Mapping[str, DataStatistics], top: int = 12) -> list[dict[str, str]]:
    """Rows of text, one column for each data set: the commonest space groups, then everything else."""
    columns = [_column(found, _commonest(sets.values(), top)) for found in sets.values()]
    return [
        {"": title} | {name: column[title] for name, column in zip(sets, columns)} for title in columns[0]
    ]


def _commonest(sets: Iterable[DataStatistics], top: int) -> list[int]:
    """Space groups by their shares in all sets together."""
    shares: dict[int, float] = defaultdict(float)
    for found in sets:
        for number, n in found.space_groups.items():
            shares[number] += n / found.crystals
    return sorted(shares, key=lambda number: -shares[number])[:top]


def _column(found: DataStatistics, groups: Sequence[int]) -> dict[str, str]:
    """What stands in one column, by the title of the row."""
    crystals = found.crystals
    column = {"crystals": str(crystals), "molecules": str(found.molecules)}
    for number in groups:
        symbol = SpaceGroup.from_name(number).symbol if number else "unnamed"
        column[f"{symbol} ({number})"] = _share(found.space_groups[number], crystals)
    for n in (1, 2, 3):
        title = f"{n} molecule{'s' if n > 1 else ''} in the asymmetric unit"
        column[title] = _share(found.bodies[n], crystals)
    column["several kinds of molecules"] = _share(crystals - found.species[1], crystals)
    return column | {title: _spread_text(spread(getattr(found, name))) for name, title in SPREADS.items()}


def _share(n: int, of: int) -> str:
    return f"{n} ({100 * n / of:.1f} %)"


def _spread_text(values: dict[str, float] | None) -> str:
    if values is None:
        return "unknown"
    low, middle, high = (values[f"p{p}"] for p in PERCENTILES)
    return f"{values['mean']:.4g} ± {values['sd']:.3g} ({low:.4g} / {middle:.4g} / {high:.4g})"
