"""Prototypes of inorganic crystals, and the same crystal written in another way."""

import ase.build
import ase.spacegroup
import torch

from nucleate.crystal.sites import Sites, sites_of_atoms

ROCK_SALT = sites_of_atoms(ase.build.bulk("NaCl", "rocksalt", a=5.64))
CAESIUM_CHLORIDE = sites_of_atoms(ase.build.bulk("NaCl", "cesiumchloride", a=3.4))
ZINC_BLENDE = sites_of_atoms(ase.build.bulk("NaCl", "zincblende", a=6.1))
PEROVSKITE = sites_of_atoms(
    ase.spacegroup.crystal(
        ["Sr", "Ti", "O"],
        [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
        spacegroup=221,
        cellpar=[3.905, 3.905, 3.905, 90, 90, 90],
    )
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disguised(crystal: Sites, seed: int = 0) -> Sites:
    """A supercell of two in another setting, another origin, another order of atoms, turned in space."""
    setting = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 2]], dtype=torch.float64)
    shift = torch.tensor([[0.0, 0, 0], [0, 0, 1]], dtype=torch.float64)
    frac = (crystal.frac + shift[:, None]).flatten(0, 1) @ torch.linalg.inv(setting)
    order = torch.randperm(len(frac), generator=seeded(seed))
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=seeded(seed)))
    turn = turn * torch.linalg.det(turn)
    origin = torch.tensor([0.13, 0.71, 0.42], dtype=torch.float64)
    return Sites(
        setting @ crystal.lattice @ turn, ((frac + origin) % 1)[order], crystal.numbers.repeat(2)[order]
    )


def anywhere(crystal: Sites, seed: int) -> Sites:
    """Its atoms at random in its cell."""
    frac = torch.rand(len(crystal), 3, dtype=torch.float64, generator=seeded(seed))
    return Sites(crystal.lattice, frac, crystal.numbers)


def relabelled(crystal: Sites, change: dict[int, int]) -> Sites:
    """Other elements in its places."""
    numbers = torch.tensor([change.get(int(z), int(z)) for z in crystal.numbers])
    return Sites(crystal.lattice, crystal.frac, numbers)
