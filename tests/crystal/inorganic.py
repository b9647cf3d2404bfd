"""Inorganic crystals of textbooks, in the cells in which they are usually given."""

import ase.build
import ase.spacegroup
import torch
from ase import Atoms

from nucleate.crystal.sites import Sites, sites_of_atoms

RUTILE = ase.spacegroup.crystal(
    ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90]
)
CORUNDUM = ase.spacegroup.crystal(
    ["Al", "O"],
    [(0, 0, 0.352), (0.306, 0, 0.25)],
    spacegroup=167,
    cellpar=[4.759, 4.759, 12.991, 90, 90, 120],
)
SPINEL = ase.spacegroup.crystal(
    ["Mg", "Al", "O"],
    [(0, 0, 0), (5 / 8, 5 / 8, 5 / 8), (0.387, 0.387, 0.387)],
    spacegroup=227,
    cellpar=[8.083] * 3 + [90] * 3,
)
CRYSTALS: dict[str, tuple[Atoms, int, int]] = {  # atoms, space group, atoms in the primitive cell
    "copper": (ase.build.bulk("Cu", "fcc", a=3.61, cubic=True), 225, 1),
    "iron": (ase.build.bulk("Fe", "bcc", a=2.87, cubic=True), 229, 1),
    "magnesium": (ase.build.bulk("Mg", "hcp", a=3.21, c=5.21), 194, 2),
    "diamond": (ase.build.bulk("C", "diamond", a=3.567, cubic=True), 227, 2),
    "rock salt": (ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True), 225, 2),
    "zinc blende": (ase.build.bulk("ZnS", "zincblende", a=5.41, cubic=True), 216, 2),
    "rutile": (RUTILE, 136, 6),
    "corundum": (CORUNDUM, 167, 10),
    "spinel": (SPINEL, 227, 14),
}


def textbook(name: str) -> Sites:
    return sites_of_atoms(CRYSTALS[name][0])


def rattled(sites: Sites, by: float, seed: int = 0) -> Sites:
    """Every atom moved at random by about `by` Å."""
    generator = torch.Generator().manual_seed(seed)
    step = by * torch.randn(len(sites), 3, dtype=torch.float64, generator=generator)
    return Sites(sites.lattice, sites.frac + step @ torch.linalg.inv(sites.lattice), sites.numbers)


def distances(sites: Sites, reach: float = 5.0) -> torch.Tensor:
    """Distances (Å) below `reach` per atom, sorted, each raised by its elements: blind to the setting of the cell."""
    from nucleate.crystal.perceive import find_neighbours

    near = find_neighbours(sites.lattice.numpy(), sites.frac.numpy(), reach)
    pair = torch.stack([sites.numbers[near.i], sites.numbers[near.j]]).sort(0).values
    rows = (1e5 * pair[0] + 1e2 * pair[1]).double() + torch.from_numpy(near.distance)
    return rows.sort().values
