"""Rigid molecules of exp-6 atoms: slopes, overlaps, mirror images, and molecules that meet their own images."""

from dataclasses import replace

import pytest
import torch

from nucleate.crystal.molecule import Molecule
from nucleate.errors import InputError
from nucleate.geometry.so3 import random_rotation, rotation_exp
from nucleate.physics.charges import mmff_charges
from nucleate.physics.parameters import EXP6, atom_types
from nucleate.physics.rigid_sites import RigidSites, SiteEnergy

EYE = torch.eye(3, dtype=torch.float64)


def sites_of(molecule: Molecule) -> RigidSites:
    n = len(molecule)
    exp6 = torch.tensor([tuple(EXP6[t]) for t in atom_types(molecule.graph)], dtype=torch.float64)
    charges = torch.from_numpy(mmff_charges(molecule.graph))
    nothing = torch.zeros(n, dtype=torch.float64)
    local = molecule.conformers[0]
    local = (
        local + 0.2 * torch.randn(n, 3, generator=torch.Generator().manual_seed(3)).double()
    )  # no mirror plane
    return RigidSites(molecule.smiles, local, charges - charges.mean(), nothing, nothing, nothing + 1, exp6)


def on_a_grid(
    n: int = 2, spacing: float = 5.5, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cell, places, rotations of n^3 molecules."""
    generator = torch.Generator().manual_seed(seed)
    cell = n * spacing * EYE + torch.tensor([[0, 0, 0], [1.0, 0, 0], [0.4, -0.7, 0]], dtype=torch.float64)
    places = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) / n] * 3) @ cell
    places = places + 0.1 * torch.randn(n**3, 3, generator=generator, dtype=torch.float64)
    return cell, places, random_rotation(n**3, generator=generator)


HANDS = torch.tensor([1.0, -1, -1, 1, 1, -1, 1, 1], dtype=torch.float64)


def test_forces_are_minus_the_slope(formamide: Molecule) -> None:
    """Of places and turns, of both hands, near and at the wall."""
    cell, places, turns = on_a_grid(spacing=3.0)
    energy = SiteEnergy(sites_of(formamide), 8, cell, hands=HANDS)
    generator = torch.Generator().manual_seed(1)
    along = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)

    def at(t: torch.Tensor) -> torch.Tensor:
        return energy(places + t * along[0], turns @ rotation_exp(t * along[1]))

    t, h = torch.zeros((), dtype=torch.float64, requires_grad=True), 1e-5
    (slope,) = torch.autograd.grad(at(t), t)
    with torch.no_grad():
        measured = (at(t + h) - at(t - h)) / (2 * h)
    assert float(measured) == pytest.approx(float(slope), rel=1e-6)


def test_atoms_that_overlap_cost_more_and_more(formamide: Molecule) -> None:
    """Molecules inside of each other, from any side; then one pair of atoms on its way together."""
    energy = SiteEnergy(sites_of(formamide), 2, 24 * EYE)
    turns = random_rotation(10, 2, generator=torch.Generator().manual_seed(2))
    ways = turns[:, 0, 0]

    def at(r: float) -> torch.Tensor:
        return energy(torch.stack([torch.zeros_like(ways), r * ways], 1), turns)

    apart = at(12.0)
    assert ((at(8.0) - apart).abs() < 0.1).all()
    assert all((at(r) - apart > 1.0).all() for r in (1.2, 0.6, 0.2))
    start = energy.sites(torch.zeros(1, 2, 3, dtype=torch.float64), turns[:1])[0]
    touching = torch.stack([torch.zeros(3, dtype=torch.float64), start[0, 0] - start[1, 3]])
    way = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    costs = torch.cat([energy((touching + r * way)[None], turns[:1]) for r in (0.4, 0.2, 0.1, 0.05)])
    assert (costs.diff() > 0).all()
    assert (costs.diff().diff() > 0).all()


def test_mirror_images_of_all_have_the_same_energy(formamide: Molecule) -> None:
    """Inversion of the crystal: places and hands change sign, turns do not; other hands are another crystal."""
    cell, places, turns = on_a_grid()
    molecule = sites_of(formamide)
    here = SiteEnergy(molecule, 8, cell, hands=HANDS)
    there = SiteEnergy(molecule, 8, cell, hands=-HANDS)
    torch.testing.assert_close(here(places, turns), there(-places, turns))
    assert abs(float(here(places, turns) - there(places, turns))) > 1e-3
    torch.testing.assert_close(-here.sites(places, turns), there.sites(-places, turns))
    one = SiteEnergy(molecule, 8, cell, hands=HANDS.abs())(places, turns)
    assert torch.equal(one, SiteEnergy(molecule, 8, cell)(places, turns))


def test_a_molecule_meets_its_own_images(formamide: Molecule) -> None:
    """One molecule in a small cell, and the same crystal as two in a cell twice as long."""
    molecule = sites_of(formamide)
    stretched = replace(molecule, sites=molecule.sites * torch.tensor([2.0, 1, 1]).double())
    cell = torch.diag(torch.tensor([6.0, 6.2, 6.4], dtype=torch.float64))
    turns = random_rotation(1, generator=torch.Generator().manual_seed(4))
    single = SiteEnergy(stretched, 1, cell, cutoff=3.0)
    double = SiteEnergy(stretched, 2, cell * torch.tensor([[2.0], [1], [1]]).double(), cutoff=3.0)
    assert single.meets_itself
    places = torch.zeros(1, 3, dtype=torch.float64)
    once = single(places, turns) - single.beyond
    twice = double(torch.cat([places, cell[:1]]), turns.expand(2, 3, 3)) - double.beyond
    torch.testing.assert_close(2 * once, twice, rtol=1e-9, atol=1e-9)
    other = single(places, random_rotation(1, generator=torch.Generator().manual_seed(5))) - single.beyond
    assert abs(float(other - once)) > 1e-3  # turning it is felt


def test_hands_are_those_of_all_molecules(formamide: Molecule) -> None:
    for hands in (torch.ones(3).double(), torch.tensor([1.0, 0.5]).double()):
        with pytest.raises(InputError, match=r"hand of \+1 or -1"):
            SiteEnergy(sites_of(formamide), 2, 20 * EYE, hands=hands)
