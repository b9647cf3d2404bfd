"""Ice XI: the ice rules, distances, its energy, and the order of genice2."""

import pytest
import torch
from torch import Tensor

from nucleate.data.ice import SIZES, ice_xi
from nucleate.errors import InputError
from nucleate.geometry.so3 import quaternion_to_matrix, rotation_exp
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.physics.rigid_sites import TIP4P_EW, SiteEnergy


def between(x: Tensor, y: Tensor, cell: Tensor) -> Tensor:
    """Distances of nearest images (Å); nothing from itself."""
    away = y[None] - x[:, None]
    away = away - torch.round(away / cell.diagonal()) * cell.diagonal()
    r = away.norm(dim=-1)
    return torch.where(r < 1e-9, torch.inf, r)


def donated(places: Tensor, hydrogens: Tensor, cell: Tensor) -> set[tuple[int, int]]:
    """Who gives a hydrogen bond to whom: hydrogens (molecules 2 3) within 2 Å of another's oxygen."""
    found = set()
    for h in (0, 1):
        r = between(hydrogens[:, h], places, cell)
        r[r < 1.2] = torch.inf  # its own
        assert (r.min(1).values < 2.0).all()
        found |= set(enumerate(r.argmin(1).tolist()))
    return found


def sites_of(places: Tensor, turns: Tensor) -> Tensor:
    return places[:, None] + TIP4P_EW.sites @ quaternion_to_matrix(turns).mT


@pytest.mark.parametrize("n", SIZES)
def test_every_molecule_gives_two_bonds_and_takes_two(n: int) -> None:
    places, turns, cell = ice_xi(n)
    bonds = donated(places, sites_of(places, turns)[:, 1:3], cell)
    assert len(bonds) == 2 * n
    for side in (0, 1):
        assert torch.tensor([bond[side] for bond in bonds]).bincount(minlength=n).tolist() == [2] * n
    assert len({frozenset(bond) for bond in bonds}) == 2 * n  # none is given both ways


@pytest.mark.parametrize("n", SIZES)
def test_four_neighbours_of_each_oxygen_at_the_same_distance(n: int) -> None:
    places, turns, cell = ice_xi(n)
    nearest = between(places, places, cell).sort(1).values
    assert ((nearest[:, :4] > 2.74) & (nearest[:, :4] < 2.76)).all()
    assert (nearest[:, 4] > 4.4).all()
    torch.testing.assert_close(turns.norm(dim=1), torch.ones(n).double())


def test_the_cell_has_no_dipole_and_grows_from_sixteen_to_more() -> None:
    places, turns, cell = ice_xi(16)
    assert cell.diagonal().tolist() == pytest.approx([8.9846, 7.7808, 7.3358])
    bisectors = quaternion_to_matrix(turns)[:, :, 2]
    torch.testing.assert_close(bisectors.sum(0), torch.zeros(3).double(), atol=1e-9, rtol=0)
    _, _, large = ice_xi(128)
    torch.testing.assert_close(large, 2 * cell)
    with pytest.raises(InputError, match="16, 128, 432"):
        ice_xi(20)


def test_it_is_close_to_a_minimum_of_the_energy() -> None:
    """The energy of the ideal crystal is near -62 kJ/mol a molecule, and a minimum is not far below or away.

    TIP4P-Ew ice has 56 kJ/mol at 250 K, 3 kT of six coordinates above its minimum.
    """
    places, turns, cell = ice_xi(16)
    energy = SiteEnergy(TIP4P_EW, 16, cell)
    rotations = quaternion_to_matrix(turns)
    moves = torch.zeros(2, 16, 3, dtype=torch.float64, requires_grad=True)  # Å, rad
    optimiser = torch.optim.LBFGS([moves], max_iter=40, line_search_fn="strong_wolfe")

    def here() -> Tensor:
        optimiser.zero_grad()
        value = energy(places + moves[0], rotations @ rotation_exp(moves[1])) / KJ_PER_MOL / 16
        value.backward()
        return value

    start = float(here().detach())
    optimiser.step(here)  # type: ignore[arg-type]
    end = float(here().detach())
    assert -65 < end < start < -60
    away = moves.detach() - moves.detach().mean(1, keepdim=True) * torch.tensor([1.0, 0.0])[:, None, None]
    assert away[0].norm(dim=1).max() < 0.2
    assert away[1].norm(dim=1).max() < 0.3
    bonds = donated(places, sites_of(places, turns)[:, 1:3], cell)
    moved = (places + moves[0])[:, None] + TIP4P_EW.sites @ (rotations @ rotation_exp(moves[1])).mT
    assert donated(moved[:, 0].detach(), moved[:, 1:3].detach(), cell) == bonds


@pytest.mark.extra
def test_hydrogens_are_in_the_order_of_genice2() -> None:
    pytest.importorskip("genice2")
    from genice2.genice import GenIce
    from genice2.plugin import Format, Lattice, Molecule

    made = GenIce(Lattice("XI"), rep=[1, 1, 1]).generate_ice(
        Format("raw", stage=(1, 4)), water=Molecule("tip4p")
    )
    places, turns, cell = ice_xi(16)
    theirs = torch.tensor(made["reppositions"]) @ cell
    which = between(theirs + 1e-6, places, cell).min(1)
    assert (which.values < 0.01).all()  # Å; thirds are written to three digits there
    order = which.indices.tolist()
    expected = {(order[i], order[j]) for i, j in made["digraph"].edges()}
    assert donated(places, sites_of(places, turns)[:, 1:3], cell) == expected
