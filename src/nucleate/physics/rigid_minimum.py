"""The minimum of a crystal of rigid molecules in a fixed cell that is nearest to where they are.

places, turns --L-BFGS in a shift and a rotation vector of each molecule--> places, turns at rest
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.errors import NucleateError
from nucleate.geometry.so3 import matrix_to_quaternion, quaternion_to_matrix, rotation_exp

Energy = Callable[[Tensor, Tensor], Tensor]  # places (Å), rotations -> eV

STEPS = 200
FLAT = 1e-6  # eV/Å and eV/rad: the largest slope at rest
STILL = 1e-10  # eV, Å and rad: what a step has to gain


def nearest_minimum(
    energy: Energy,
    places: Float[Tensor, "n 3"],
    turns: Float[Tensor, "n 4"],
    steps: int = STEPS,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"]]:
    """Places (Å) and turns at rest, or as far down as `steps` go.

    Rotations are about the body's axes. Raises NucleateError where there is no finite energy.
    """
    rotations = quaternion_to_matrix(turns.double())
    moves = torch.zeros(len(places), 6, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [moves],
        max_iter=steps,
        max_eval=2 * steps,
        tolerance_grad=FLAT,
        tolerance_change=STILL,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def moved() -> tuple[Tensor, Tensor]:
        return places.double() + moves[:, :3], rotations @ rotation_exp(moves[:, 3:])

    def height() -> Tensor:
        search.zero_grad()
        found = energy(*moved())
        found.backward()
        return found

    with torch.enable_grad():
        search.step(height)
    with torch.no_grad():
        x, R = moved()
        lowest = float(energy(x, R))
    if not math.isfinite(lowest):
        raise NucleateError(
            "expected molecules with a finite energy, got none; molecules overlap there: start elsewhere"
        )
    return x, matrix_to_quaternion(R)
