"""What the viewer draws: whole molecules, and hydrogen bonds by an independent count."""

from itertools import product
from pathlib import Path

import pytest
import torch

from nucleate.crystal.cif_read import read_crystal
from nucleate.report.scene import hydrogen_bonds, scene

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("*.cif"))
VDW = {1: 1.20, 7: 1.55, 8: 1.52}


def moved(crystal, seed=0):
    """The same crystal with every molecule in another cell."""
    steps = torch.randint(-2, 3, (crystal.n_molecules, 3), generator=torch.Generator().manual_seed(seed))
    return crystal.replace(frac=crystal.frac + steps[crystal.molecule])


def counted_one_by_one(crystal) -> int:
    """Hydrogen bonds by plain loops over atoms and neighbouring cells, molecules moved home first."""
    frac = crystal.frac - torch.floor(crystal.centroids)[crystal.molecule]
    lattice, numbers = crystal.lattice, crystal.numbers.tolist()
    pairs = [p for p in crystal.bonds.tolist() + crystal.bonds.flip(1).tolist() if numbers[p[1]] == 1]
    found = 0
    for donor, hydrogen in pairs:
        if numbers[donor] not in (7, 8):
            continue
        for acceptor, shift in product(range(len(numbers)), product(range(-2, 3), repeat=3)):
            same = crystal.molecule[acceptor] == crystal.molecule[hydrogen] and shift == (0, 0, 0)
            if numbers[acceptor] not in (7, 8) or same:
                continue
            step = (frac[acceptor] + torch.tensor(shift) - frac[hydrogen]) @ lattice
            back = (frac[donor] - frac[hydrogen]) @ lattice
            near = float(step.norm()) < VDW[1] + VDW[numbers[acceptor]] - 0.2
            found += near and float(step @ back / step.norm() / back.norm()) <= -0.5
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_molecules_are_whole_and_at_home(path):
    crystal = moved(read_crystal(path))
    drawn = scene(crystal)
    positions = torch.tensor(drawn["positions"], dtype=torch.float64).reshape(-1, 3)
    pairs = torch.tensor(drawn["bonds"]).reshape(-1, 2)
    lengths = (positions[pairs[:, 0]] - positions[pairs[:, 1]]).norm(dim=1)
    assert lengths.max() < 1.7
    assert lengths.min() > 0.7
    lattice = torch.tensor(drawn["lattice"], dtype=torch.float64).reshape(3, 3)
    sums = torch.zeros(crystal.n_molecules, 3, dtype=torch.float64).index_add(0, crystal.molecule, positions)
    centres = sums / torch.bincount(crystal.molecule)[:, None] @ torch.linalg.inv(lattice)
    assert centres.min() > -1e-3
    assert centres.max() < 1 + 1e-3
    assert len(drawn["elements"]) == len(positions) == len(crystal)


def test_benzoic_acid_is_held_by_one_bond_a_molecule():
    assert len(hydrogen_bonds(read_crystal(DATA / "7210454.cif"))) == 4


def test_pyrrole_has_no_acceptor_for_its_hydrogen():
    assert len(hydrogen_bonds(read_crystal(DATA / "2006784.cif"))) == 0


@pytest.mark.parametrize("name", ["7210454", "7100390"])
def test_hydrogen_bonds_agree_with_plain_loops(name):
    crystal = read_crystal(DATA / f"{name}.cif")
    assert len(hydrogen_bonds(crystal)) == counted_one_by_one(crystal) > 0


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_hydrogen_bonds_do_not_depend_on_the_cell(path):
    crystal = read_crystal(path)
    change = torch.tensor([[1.0, 1, 0], [0, 1, 0], [2, 0, 1]], dtype=torch.float64)
    skew = crystal.replace(lattice=change @ crystal.lattice, frac=crystal.frac @ torch.linalg.inv(change))
    expected = len(hydrogen_bonds(crystal))
    assert len(hydrogen_bonds(moved(crystal))) == expected
    assert len(hydrogen_bonds(skew)) == expected


def test_a_hydrogen_bond_ends_where_it_says():
    crystal = moved(read_crystal(DATA / "4506226.cif"))
    rows = hydrogen_bonds(crystal)
    ends = crystal.positions[rows[:, 1]] + rows[:, 2:].double() @ crystal.lattice
    assert len(rows)
    assert (ends - crystal.positions[rows[:, 0]]).norm(dim=1).max() < 2.6
