from pathlib import Path

import pytest
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.perceive import find_neighbours

DATA = Path(__file__).parents[1] / "data"
# COD number: space group, Z, Z', formula of the molecules, molecules in the cell
EXPECTED = {
    "1100989": (14, 4, 1.0, "C3H8N2O", 4),
    "2100840": (205, 4, 1 / 6, "C2H2", 4),  # acetylene on the threefold axis, a molecule on a centre
    "2002929": (2, 1, 0.5, "C12H8O4", 1),
    "2003630": (4, 2, 1.0, "C5H4N2O4", 2),
    "7210454": (14, 4, 1.0, "C7H6O2", 4),
    "4110681": (14, 2, 0.5, "C2H6N4O2", 2),
    "1100994": (56, 4, 0.5, "C7H16N4O2", 4),
    "7100858": (33, 4, 1.0, "C6H6N2O2", 4),
    "2003526": (19, 4, 1.0, "C10H20NO3+ Cl-", 8),
    "2000380": (146, 9, 1.0, "C26H26O", 9),
}


@pytest.fixture(scope="session")
def crystals() -> dict[str, Crystal]:
    return {name: read_crystal(DATA / f"cod_{name}.cif") for name in EXPECTED}


def farthest(a: Crystal, b: Crystal) -> float:
    """Å: the farthest any atom of one crystal is from an equal atom of the other, in the same cell."""
    step = a.frac[:, None] - b.frac[None]
    far = ((step - step.round()) @ a.lattice).norm(dim=-1) + 1e3 * (a.numbers[:, None] != b.numbers)
    assert len(a) == len(b)
    return float(torch.maximum(far.min(0).values.max(), far.min(1).values.max()))


def distances(crystal: Crystal, reach: float = 5.0) -> torch.Tensor:
    """Sorted distances (Å) below `reach` per cell, all pairs: blind to the setting of the cell.

    Each distance is raised by its elements, so that equal distances between other atoms do not count as equal.
    """
    near = find_neighbours(crystal.lattice.numpy(), crystal.frac.numpy(), reach + 0.01)
    kind = (crystal.numbers[near.i] * 1000 + crystal.numbers[near.j]).double()
    kind = torch.minimum(kind, (crystal.numbers[near.j] * 1000 + crystal.numbers[near.i]).double())
    distance = torch.from_numpy(near.distance)
    rows = (100 * kind + distance)[distance < reach]
    return rows.sort().values
