"""Molecules in open space, as crystals that are all gap: what asks for a cell can be asked about them too."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.cluster import Cluster
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.perceive import perceive_bonds

GAP = 10.0  # Å between images: no bond is that long


def open_box(
    positions: Float[Tensor, "atoms 3"],
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "atoms 3"]]:
    """A right-angled cell (Å) around the atoms, `GAP` wider than they are, and their fractions of it."""
    low, high = positions.amin(0), positions.amax(0)
    lattice = torch.diag(high - low + GAP)
    return lattice, (positions - low + GAP / 2) @ torch.linalg.inv(lattice)


def open_bonds(numbers: Int[Tensor, " atoms"], positions: Float[Tensor, "atoms 3"]) -> Int[Tensor, "bonds 2"]:
    """Bonds by distance (Å), as `perceive_bonds` sees them; it raises InputError "clash"."""
    lattice, frac = open_box(positions.double())
    found = perceive_bonds(lattice.numpy(), frac.numpy(), numbers.numpy())
    return torch.from_numpy(np.stack([found.i, found.j], 1).astype(np.int64))


def open_crystal(
    numbers: Int[Tensor, " atoms"],
    positions: Float[Tensor, "atoms 3"],
    molecule: Int[Tensor, " atoms"],
    bonds: Int[Tensor, "bonds 2"],
) -> Crystal:
    """These molecules, alone in their cell."""
    lattice, frac = open_box(positions.double())
    return Crystal(lattice=lattice, frac=frac, numbers=numbers, molecule=molecule, bonds=bonds)


def crystal_of_cluster(cluster: Cluster) -> Crystal:
    """The copies of a cluster, alone in their cell."""
    m, n = cluster.n_molecules, len(cluster.numbers)
    copy = torch.arange(m)
    bonds = (cluster.bonds + n * copy[:, None, None]).flatten(0, 1)
    return open_crystal(
        cluster.numbers.repeat(m), cluster.positions.flatten(0, 1), copy.repeat_interleave(n), bonds
    )
