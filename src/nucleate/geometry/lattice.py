"""Cells: lengths and angles, strain, log-Euclidean coordinates, crystal families, reduction, images.

A lattice is a matrix with rows a, b, c in Å and positive determinant; angles are radians. Turning a crystal
in space is `lattice @ R.T`; the metric G = L L^T does not notice, and G is all that these coordinates see.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import spglib
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nucleate.errors import InputError
from nucleate.geometry.manifold import Manifold

# ---------------------------------------------------------------- lengths and angles


def parameters_from_lattice(
    lattice: Float[Tensor, "*n 3 3"],
) -> tuple[Float[Tensor, "*n 3"], Float[Tensor, "*n 3"]]:
    """Lengths a, b, c (Å) and angles alpha, beta, gamma (rad)."""
    lengths = lattice.norm(dim=-1)
    after, before = lattice.roll(-1, -2), lattice.roll(1, -2)  # alpha lies between b and c
    sine = torch.linalg.cross(after, before).norm(dim=-1)
    return lengths, torch.atan2(sine, (after * before).sum(-1))


def lattice_from_parameters(
    lengths: Float[Tensor, "*n 3"], angles: Float[Tensor, "*n 3"]
) -> Float[Tensor, "*n 3 3"]:
    """The right-handed cell in standard orientation: a along x, b in the xy plane with positive y.

    Raises InputError where lengths are not positive or no cell has these angles (rad).
    """
    if not (lengths > 0).all():
        raise InputError(
            f"expected positive cell lengths in Å, got {_first_bad(lengths, (lengths > 0).all(-1))}"
        )
    feasible = angles_feasible(angles)
    if not feasible.all():
        raise InputError(
            f"expected cell angles in radians that close to a cell (each less than the sum of the other two, "
            f"sum less than 2 pi), got {_first_bad(angles, feasible)}"
        )
    alpha, beta, gamma = angles.unbind(-1)
    a, b, c = lengths.unbind(-1)
    zero = torch.zeros_like(a)
    x = beta.cos()
    y = (alpha.cos() - x * gamma.cos()) / gamma.sin()
    z = _cell_sine(angles) / gamma.sin()
    rows = [[a, zero, zero], [b * gamma.cos(), b * gamma.sin(), zero], [c * x, c * y, c * z]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def angles_feasible(angles: Float[Tensor, "*n 3"]) -> Bool[Tensor, "*n"]:
    """True where three angles (rad) can be those of a cell with positive volume."""
    half = angles.sum(-1, keepdim=True) / 2
    return ((half - angles) > 0).all(-1) & (angles > 0).all(-1) & (half[..., 0] < math.pi)


def _cell_sine(angles: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
    """Volume of the cell with unit lengths: 2 sqrt(sin s sin(s-alpha) sin(s-beta) sin(s-gamma)), 2s the sum.

    Unlike 1 - cos^2 ... + 2 cos cos cos this form does not cancel for flat cells.
    """
    half = angles.sum(-1, keepdim=True) / 2
    return 2 * (half[..., 0].sin() * (half - angles).sin().prod(-1)).sqrt()


def _first_bad(values: Float[Tensor, "*n 3"], good: Bool[Tensor, "*n"]) -> list[float]:
    return [
        round(v, 4) for v in values.detach().reshape(-1, 3)[int((~good.reshape(-1)).int().argmax())].tolist()
    ]


def standard_orientation(lattice: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """The same cell turned so that a lies along x and b in the xy plane (right-handed cells only)."""
    return lattice_from_metric(lattice @ lattice.mT)


def lattice_from_metric(metric: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """The cell in standard orientation whose metric tensor L L^T (Å^2) is given: its Cholesky factor."""
    return torch.linalg.cholesky(metric)


def volume(lattice: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n"]:
    """Å^3, positive for right-handed cells."""
    return torch.linalg.det(lattice)


def heights(lattice: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3"]:
    """Distances (Å) between opposite faces of the cell: one over the lengths of the reciprocal rows."""
    return 1 / torch.linalg.inv(lattice).norm(dim=-2)


# ---------------------------------------------------------------- strain and log-Euclidean coordinates

_R2, _R3, _R6 = 0.5**0.5, (1 / 3) ** 0.5, (1 / 6) ** 0.5
SHAPE_BASIS = torch.tensor(
    [
        [[0, _R2, 0], [_R2, 0, 0], [0, 0, 0]],
        [[0, 0, _R2], [0, 0, 0], [_R2, 0, 0]],
        [[0, 0, 0], [0, 0, _R2], [0, _R2, 0]],
        [[_R2, 0, 0], [0, -_R2, 0], [0, 0, 0]],
        [[_R6, 0, 0], [0, _R6, 0], [0, 0, -2 * _R6]],
        [[_R3, 0, 0], [0, _R3, 0], [0, 0, _R3]],
    ],
    dtype=torch.float64,
)
"""Orthonormal symmetric matrices B_1..B_6: gamma, beta, alpha, a against b, c against both, volume."""


def strained(lattice: Float[Tensor, "*n 3 3"], strain: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """L expm(e) for a symmetric Cartesian strain e; the volume grows by exactly exp(tr e)."""
    return lattice @ torch.linalg.matrix_exp(strain)


def log_coordinates(lattice: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 6"]:
    """k with L = expm(sum of k_i B_i) Q for a rotation Q: k_i = <B_i, log(L L^T) / 2>.

    Blind to how the crystal is turned; k_6 = log(volume) / sqrt(3), and k_1..k_5 are pure shape. Up to the
    scale of the basis these are the coordinates of DiffCSP++ (Jiao et al. 2024).
    """
    exact = lattice.double()  # the metric squares the rounding error of flat cells
    half_log = symmetric_log(exact @ exact.mT) / 2
    return torch.einsum("kij,...ij->...k", SHAPE_BASIS.to(exact), half_log).to(lattice.dtype)


def lattice_from_log(k: Float[Tensor, "*n 6"]) -> Float[Tensor, "*n 3 3"]:
    """The cell expm(sum of k_i B_i): a symmetric matrix (`standard_orientation` turns a along x)."""
    return torch.linalg.matrix_exp(torch.einsum("...k,kij->...ij", k, SHAPE_BASIS.to(k)))


def symmetric_log(matrix: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """Logarithm of symmetric positive definite matrices; once differentiable, equal eigenvalues too."""
    return _SymmetricLog.apply(matrix)


class _SymmetricLog(torch.autograd.Function):
    """Autograd through eigh divides by differences of eigenvalues; a cubic cell has none.

    The derivative of V log(d) V^T along E is V (F * V^T E V) V^T with F_ij the divided differences of the
    logarithm (Daleckii and Krein), which are finite: log(d_i/d_j) / (d_i - d_j), or 1/d_i.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        return (vectors * values.log()[..., None, :]) @ vectors.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        d, v = ctx.saved_tensors
        r = (d[..., :, None] - d[..., None, :]) / d[..., None, :]  # log1p(r)/r has no cancellation at r = 0
        quotient = torch.where(r.abs() < 1e-12, 1 - r / 2, torch.log1p(r) / torch.where(r == 0, 1.0, r))
        inner = v.mT @ ((grad + grad.mT) / 2) @ v
        return v @ (inner * quotient / d[..., None, :]) @ v.mT


@dataclass(frozen=True)
class LogLattice(Manifold):
    """Cells up to rotation, log-Euclidean metric; tangent vectors are differences of `log_coordinates`.

    The representative of a cell is the symmetric matrix sqrt(L L^T): `project` and `exp` return it, `log` and
    `distance` do not depend on the orientation of their arguments.
    """

    point = (3, 3)
    tangent = (6,)

    def exp(self, x: Float[Tensor, "..."], v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return lattice_from_log(log_coordinates(x) + v)

    def log(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return log_coordinates(y) - log_coordinates(x)

    def random(
        self, *batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "..."]:
        """Normal log coordinates of standard deviation 0.3: cells around the unit cube, none very flat."""
        normal = torch.randn(*batch, 6, generator=generator, dtype=dtype, device=generator.device)
        return lattice_from_log(0.3 * normal)

    def project(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return lattice_from_log(log_coordinates(x))


# ---------------------------------------------------------------- crystal families

_HEXAGONAL = -math.log(3) / 4 * 2**0.5  # k_1 of every cell with a = b and gamma = 120 degrees

LOG_FREE: dict[str, tuple[bool, ...]] = {
    "triclinic": (True, True, True, True, True, True),
    "monoclinic": (False, True, False, True, True, True),  # unique axis b: beta stays free
    "orthorhombic": (False, False, False, True, True, True),
    "tetragonal": (False, False, False, False, True, True),
    "trigonal": (False, False, False, False, True, True),  # hexagonal axes
    "hexagonal": (False, False, False, False, True, True),
    "cubic": (False, False, False, False, False, True),
}
"""Which of the six log coordinates a family leaves free in its standard setting; the others are fixed."""

PARAMETER_FREE: dict[str, tuple[bool, ...]] = {
    "triclinic": (True, True, True, True, True, True),
    "monoclinic": (True, True, True, False, True, False),
    "orthorhombic": (True, True, True, False, False, False),
    "tetragonal": (True, False, True, False, False, False),
    "trigonal": (True, False, True, False, False, False),
    "hexagonal": (True, False, True, False, False, False),
    "cubic": (True, False, False, False, False, False),
}
"""Which of a, b, c, alpha, beta, gamma are free numbers in a family's standard setting."""


def family_log(k: Float[Tensor, "*n 6"], family: str) -> Float[Tensor, "*n 6"]:
    """The nearest log coordinates (Frobenius norm) of a cell of the family, standard setting."""
    free = torch.tensor(_lookup(LOG_FREE, family), device=k.device)
    fixed = torch.zeros(6, dtype=k.dtype, device=k.device)
    if family in ("trigonal", "hexagonal"):
        fixed[0] = _HEXAGONAL
    return torch.where(free, k, fixed)


def family_parameters(
    lengths: Float[Tensor, "*n 3"], angles: Float[Tensor, "*n 3"], family: str
) -> tuple[Float[Tensor, "*n 3"], Float[Tensor, "*n 3"]]:
    """Lengths (Å), angles (rad) that obey the family: tied lengths follow the first, fixed angles are set."""
    free = torch.tensor(_lookup(PARAMETER_FREE, family), device=lengths.device)
    right = torch.full((3,), math.pi / 2, dtype=angles.dtype, device=angles.device)
    if family in ("trigonal", "hexagonal"):
        right[2] = 2 * math.pi / 3
    return torch.where(free[:3], lengths, lengths[..., :1]), torch.where(free[3:], angles, right)


def _lookup(table: dict[str, tuple[bool, ...]], family: str) -> tuple[bool, ...]:
    if family not in table:
        raise InputError(f"expected a crystal family out of {', '.join(table)}; got {family!r}")
    return table[family]


# ---------------------------------------------------------------- reduction and images


def niggli_reduce(
    lattice: Float[Tensor, "3 3"], tolerance: float = 1e-5
) -> tuple[Float[Tensor, "3 3"], Int[Tensor, "3 3"]]:
    """The Niggli cell and the unimodular M with `reduced = M @ lattice` (spglib; right-handed, not turned).

    `tolerance` (Å) decides when lengths count as equal. Fractional coordinates become `frac @ inv(M)`.
    Raises InputError where the cell is too flat to reduce.
    """
    return _reduced(lattice, spglib.niggli_reduce, tolerance, "Niggli")


def delaunay_reduce(
    lattice: Float[Tensor, "3 3"], tolerance: float = 1e-5
) -> tuple[Float[Tensor, "3 3"], Int[Tensor, "3 3"]]:
    """The Delaunay cell and the unimodular M with `reduced = M @ lattice`, as `niggli_reduce`."""
    return _reduced(lattice, spglib.delaunay_reduce, tolerance, "Delaunay")


def _reduced(
    lattice: Tensor, method: Callable[..., Any], tolerance: float, name: str
) -> tuple[Tensor, Tensor]:
    exact = lattice.detach().double().cpu().numpy()
    reduced = call_spglib(method, exact, eps=tolerance) if abs(np.linalg.det(exact)) > 1e-6 else None
    if reduced is None:
        shape = [round(float(v), 4) for v in np.linalg.norm(exact, axis=1)]
        raise InputError(
            f"expected a cell with volume for {name} reduction, got lengths {shape} Å, flat or "
            "not finite; check the lattice rows"
        )
    change = torch.as_tensor(np.rint(reduced @ np.linalg.inv(exact)), dtype=torch.long, device=lattice.device)
    return change.to(lattice) @ lattice, change


def call_spglib(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What spglib answers, or None where it fails: its versions differ in how they say so.

    Some return None after a DeprecationWarning (which we keep from the user), later ones raise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return function(*arguments, **options)
        except spglib.SpglibError:
            return None


def image_shifts(
    lattice: Float[Tensor, "batch 3 3"], cutoff: float, spread: float = 1.0
) -> tuple[Int[Tensor, "shifts 3"], Int[Tensor, " shifts"]]:
    """Every translation n for which a point of cell 0 and one of cell n can lie within `cutoff` (Å).

    `spread` is how far fractional coordinates reach apart (1 for wrapped ones). Flat over the batch: returns
    the shifts and the cell that each belongs to, the cells in order, shift 0 included. No image is missed,
    because |n_i| <= cutoff / height_i + spread; far corners of that box are kept.
    """
    reach = torch.floor(cutoff / heights(lattice.double()) + spread).long()
    sides = [torch.arange(-int(r), int(r) + 1, device=lattice.device) for r in reach.amax(0)]
    box = torch.cartesian_prod(*sides)
    cell, index = torch.nonzero((box.abs() <= reach[:, None]).all(-1), as_tuple=True)
    return box[index], cell
