"""What the viewer draws of a crystal: whole molecules of one cell, their bonds and their hydrogen bonds."""

import math
from typing import Any

import gemmi
import torch
from jaxtyping import Int
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.geometry.lattice import image_shifts

DONORS = (7, 8)
ACCEPTORS = (7, 8, 9, 16, 17, 35, 53)
CLOSER_THAN_CONTACT = 0.2  # Å below the sum of van der Waals radii
SMALLEST_ANGLE = 120.0  # degrees, donor-H...acceptor


def scene(crystal: Crystal) -> dict[str, Any]:
    """JSON-ready drawing; lists are flat.

    `lattice` (9 numbers, Å), `elements`, `positions` (Å), `bonds` (pairs), `hydrogen_bonds` (rows of
    hydrogen, acceptor and the acceptor's three cell shifts). Molecules are whole, their centroids in the home
    cell.
    """
    home = torch.floor(crystal.centroids + 1e-6)[crystal.molecule]
    inside = crystal.replace(frac=crystal.frac - home)
    return {
        "lattice": _rounded(inside.lattice, 4),
        "elements": [gemmi.Element(z).name for z in inside.numbers.tolist()],
        "positions": _rounded(inside.positions, 3),
        "bonds": inside.bonds.flatten().tolist(),
        "hydrogen_bonds": hydrogen_bonds(inside).flatten().tolist(),
    }


def hydrogen_bonds(crystal: Crystal) -> Int[Tensor, "bonds 5"]:
    """Rows (hydrogen, acceptor, shift along a, b, c): N-H or O-H to an acceptor of another molecule.

    Geometric criterion: H...A at least 0.2 Å below the sum of van der Waals radii and an angle at hydrogen of
    120 degrees or more (compare Steiner, Angew. Chem. Int. Ed. 41, 48 (2002)).
    """
    donor, hydrogen = _donors(crystal)
    acceptor = torch.nonzero(torch.isin(crystal.numbers, torch.tensor(ACCEPTORS))).flatten()
    if not len(hydrogen) or not len(acceptor):
        return torch.zeros(0, 5, dtype=torch.long)
    radii = torch.tensor([gemmi.Element(z).vdw_r for z in crystal.numbers[acceptor].tolist()])
    reach = radii.double() + gemmi.Element("H").vdw_r - CLOSER_THAN_CONTACT
    step = crystal.frac[acceptor][None] - crystal.frac[hydrogen][:, None]
    images, _ = image_shifts(crystal.lattice[None], float(reach.max()), spread=0.5)
    shift = images - torch.round(step)[:, :, None]  # hydrogens, acceptors, images, 3
    contact = (step[:, :, None] + shift) @ crystal.lattice
    back = crystal.positions[donor] - crystal.positions[hydrogen]
    cosine = torch.einsum("hi,hasi->has", back, contact)
    cosine = cosine / (contact.norm(dim=-1) * back.norm(dim=-1)[:, None, None]).clamp(min=1e-9)
    other = crystal.molecule[hydrogen][:, None] != crystal.molecule[acceptor][None]
    elsewhere = other[..., None] | (shift != 0).any(-1)
    near = contact.norm(dim=-1) < reach[None, :, None]
    found = torch.nonzero(near & elsewhere & (cosine <= math.cos(math.radians(SMALLEST_ANGLE))))
    h, a, s = found.T
    return torch.cat([hydrogen[h, None], acceptor[a, None], shift[h, a, s].long()], 1)


def _donors(crystal: Crystal) -> tuple[Int[Tensor, " hydrogens"], Int[Tensor, " hydrogens"]]:
    """Nitrogen or oxygen atoms and the hydrogens bonded to them, pair by pair."""
    both_ways = torch.cat([crystal.bonds, crystal.bonds.flip(1)])
    heavy, light = both_ways.T
    chosen = torch.isin(crystal.numbers[heavy], torch.tensor(DONORS)) & (crystal.numbers[light] == 1)
    return heavy[chosen], light[chosen]


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(x, digits) for x in values.flatten().tolist()]
