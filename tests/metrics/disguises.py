"""The same crystal written in other ways, and nearly the same crystal."""

import torch

from nucleate import testing
from nucleate.crystal.crystal import Crystal
from nucleate.geometry.so3 import rotation_exp


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def moved(c, positions):
    lattice = c.lattice.double()
    return c.replace(lattice=lattice, frac=positions @ torch.linalg.inv(lattice))


def noisy(c, sigma, seed=0):
    """Every coordinate of every atom displaced: the translational symmetry stays, all other symmetry goes."""
    noise = torch.randn(len(c), 3, dtype=torch.float64, generator=seeded(seed))
    return moved(c, c.positions.double() + sigma * noise)


def repeated(c, times):
    """The same crystal in a supercell."""
    cells = torch.cartesian_prod(*[torch.arange(k) for k in times])
    copy = torch.arange(len(cells))[:, None]
    return Crystal(
        lattice=torch.tensor(times)[:, None] * c.lattice.double(),
        frac=((c.frac.double() + cells[:, None]) / torch.tensor(times)).flatten(0, 1),
        numbers=c.numbers.repeat(len(cells)),
        molecule=(c.molecule + copy * c.n_molecules).flatten(),
        bonds=(c.bonds + copy[..., None] * len(c)).flatten(0, 1),
    )


def disguised(c, seed=0, mirror=False):
    return testing.disguised(c, seeded(seed), mirror)


def without_hydrogens(c):
    kept = torch.nonzero(c.numbers > 1)[:, 0]
    place = torch.full((len(c),), -1)
    place[kept] = torch.arange(len(kept))
    bonds = place[c.bonds]
    return Crystal(
        lattice=c.lattice,
        frac=c.frac[kept],
        numbers=c.numbers[kept],
        molecule=c.molecule[kept],
        bonds=bonds[(bonds >= 0).all(1)],
    )


def turned_in_place(c, angle, seed=0):
    """Each molecule turned by `angle` (rad) about an axis of its own through its centroid."""
    axes = torch.randn(c.n_molecules, 3, dtype=torch.float64, generator=seeded(seed))
    turn = rotation_exp(angle * axes / axes.norm(dim=1, keepdim=True))[c.molecule]
    centre = (c.centroids.double() @ c.lattice.double())[c.molecule]
    return moved(c, torch.einsum("aij,aj->ai", turn, c.positions.double() - centre) + centre)
