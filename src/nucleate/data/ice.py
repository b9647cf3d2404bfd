"""Ice XI, the crystal of rigid water whose free energies are known: oxygens of ice Ih, hydrogens in order.

    eight molecules: where, and to which two neighbours they donate --> n places and turns, and the cell

Oxygens are those of ideal ice Ih in its orthorhombic cell (b = sqrt 3 a, c = sqrt(8/3) a: four neighbours at 3/8 c).
Hydrogens follow the order that published free energies of "ice XI" were computed for, which is `XI` of genice2:
P2_12_12_1 without a dipole, candidate 19 of Fan et al., Comput. Mater. Sci. 49, S170 (2010). The ice XI found in
nature is ferroelectric along c (Cmc2_1): another crystal.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.errors import InputError
from nucleate.geometry.so3 import matrix_to_quaternion

CELL = (4.4923, 7.7808, 7.3358)  # Å
STEPS = (2, 6, 8)  # of the grid, in a cell
# an oxygen, and the ways to the oxygens that its hydrogens point to, in steps of the grid
ORDER = (
    ((1, 0, 1), (1, -1, -1), (0, 2, -1)),
    ((1, 2, 0), (1, 1, 1), (0, 0, -3)),
    ((1, 0, 4), (-1, -1, 1), (0, 0, -3)),
    ((1, 2, 5), (-1, 1, -1), (0, -2, -1)),
    ((0, 3, 1), (1, -1, -1), (0, 0, 3)),
    ((0, 5, 0), (1, 1, 1), (0, -2, 1)),
    ((0, 3, 4), (-1, -1, 1), (0, 2, 1)),
    ((0, 5, 5), (-1, 1, -1), (0, 0, 3)),
)
SIZES = {16: (2, 1, 1), 128: (4, 2, 2), 432: (6, 3, 3)}


def ice_xi(
    n: int = 16,
) -> tuple[Float[Tensor, "molecules 3"], Float[Tensor, "molecules 4"], Float[Tensor, "3 3"]]:
    """Places of oxygens (Å), turns (unit quaternions) and the cell (Å, rows) of n molecules.

    The body has its oxygen at 0, its bisector along z and its hydrogens along x and -x, as in `rigid_sites.water`.
    Raises InputError for an n that is none of `SIZES`.
    """
    if n not in SIZES:
        raise InputError(f"expected {', '.join(map(str, SIZES))} molecules of ice XI, got {n}")
    cell = torch.tensor(CELL, dtype=torch.float64)
    sites, first, second = torch.tensor(ORDER, dtype=torch.float64).unbind(1)
    grid = cell / torch.tensor(STEPS, dtype=torch.float64)
    repeats = torch.cartesian_prod(*(torch.arange(m, dtype=torch.float64) for m in SIZES[n]))
    places = (repeats[:, None] * cell + sites * grid).flatten(0, 1)
    turns = _pointing(first * grid, second * grid).repeat(len(repeats), 1)
    return places, turns, torch.diag(cell * torch.tensor(SIZES[n], dtype=torch.float64))


def _pointing(first: Float[Tensor, "n 3"], second: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    """Hydrogens on either side of the bisector of two ways."""
    z = torch.nn.functional.normalize(first + second, dim=-1)
    x = torch.nn.functional.normalize(first - second, dim=-1)
    return matrix_to_quaternion(torch.stack([x, torch.linalg.cross(z, x), z], -1))
