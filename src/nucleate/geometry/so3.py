"""Rotations: matrices R with x -> R x on columns, or `x @ R.T` on rows of positions.

Every map between matrices and rotation vectors goes through the unit quaternion (w, x, y, z), which has no
singular point: near 0 and near pi all maps keep the accuracy of the number format.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nucleate.geometry.manifold import Manifold, safe_sqrt


@dataclass(frozen=True)
class SO3(Manifold):
    """Proper rotations, as 3x3 matrices; tangent vectors are rotation vectors (rad) in the body's own frame.

    exp(R, v) = R Exp(v), so tangent coordinates do not change when the world is turned (G R for all R). The
    distance is the rotation angle, at most pi.
    """

    point = (3, 3)
    tangent = (3,)

    def exp(self, x: Float[Tensor, "..."], v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return x @ rotation_exp(v)

    def log(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return rotation_log(x.mT @ y)

    def random(
        self, *batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "..."]:
        return random_rotation(*batch, generator=generator, dtype=dtype)

    def project(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return nearest_rotation(x)


def rotation_exp(v: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """The rotation by |v| rad about v (Rodrigues), of any length, smooth at 0.

    The quaternion is (cos |v|/2, sin(|v|/2)/|v| v); the second factor is even in |v| and has a series at 0.
    """
    half_squared = v.square().sum(-1, keepdim=True) / 4
    half = safe_sqrt(half_squared)
    small = half_squared < 1e-3  # the series below is then exact to 1e-16 relative
    series = 1 - half_squared / 6 * (
        1 - half_squared / 20 * (1 - half_squared / 42 * (1 - half_squared / 72))
    )
    sinc = torch.where(small, series, half.sin() / torch.where(small, 1.0, half))
    cos_series = 1 - half_squared / 2 * (
        1 - half_squared / 12 * (1 - half_squared / 30 * (1 - half_squared / 56))
    )
    cos = torch.where(small, cos_series, half.cos())
    return quaternion_to_matrix(torch.cat([cos, sinc * v / 2], -1))


def rotation_log(rotation: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3"]:
    """The rotation vector (rad) of length at most pi.

    At exactly pi both signs are right; the vector whose largest component is positive is returned.
    The gradient is finite everywhere (at pi it is that of the side the sign was taken from).
    """
    q = matrix_to_quaternion(rotation)
    w, u = q[..., :1], q[..., 1:]
    squared = u.square().sum(-1, keepdim=True)
    sine = safe_sqrt(squared)
    small = squared < 1e-3
    ratio = squared / torch.where(small, w.square(), 1.0)  # tan^2 of half the angle
    # atan(t)/t by its series; at |u|^2 < 1e-3 seven terms reach double precision
    series = sum((-ratio) ** k / (2 * k + 1) for k in range(7)) / torch.where(small, w, 1.0)
    factor = torch.where(small, series, torch.atan2(sine, w) / torch.where(small, 1.0, sine))
    return 2 * factor * u


def quaternion_to_matrix(q: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 3 3"]:
    """The rotation of a quaternion (w, x, y, z) of any length but 0; q and -q give the same matrix."""
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_quaternion(rotation: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 4"]:
    """The unit quaternion (w, x, y, z) with w >= 0; where w = 0, its largest component is positive.

    The matrix 4 q q^T is linear in the entries of R. Its row with the largest diagonal is never shorter than
    1, so normalising that row loses no digit for any rotation and has a finite gradient.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rotation.unbind(-2))
    outer = [
        [1 + xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx],
        [xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy],
        [yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz],
    ]
    matrix = torch.stack([torch.stack(row, -1) for row in outer], -2)
    largest = matrix.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*matrix.shape[:-2], 1, 4)
    row = matrix.gather(-2, largest).squeeze(-2)
    q = row / row.norm(dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def rotation_angle(a: Float[Tensor, "*n 3 3"], b: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n"]:
    """Geodesic distance (rad, 0 to pi) between two rotations; accurate at both ends, gradient 0 at 0."""
    q = matrix_to_quaternion(a.mT @ b)
    return 2 * torch.atan2(safe_sqrt(q[..., 1:].square().sum(-1)), q[..., 0])


def random_rotation(
    *batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "*batch 3 3"]:
    """Rotations from the uniform (Haar) measure: a normal quaternion has a uniform direction."""
    q = torch.randn(*batch, 4, generator=generator, dtype=dtype, device=generator.device)
    return quaternion_to_matrix(q)


def rotation_from_uniform(u: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Three numbers in [0, 1) to a rotation, uniform to uniform (Shoemake 1992): for Sobol sequences."""
    radius_1, radius_2 = (1 - u[..., 0]).sqrt(), u[..., 0].sqrt()
    angle_1, angle_2 = 2 * math.pi * u[..., 1], 2 * math.pi * u[..., 2]
    parts = [
        radius_2 * angle_2.cos(),
        radius_1 * angle_1.sin(),
        radius_1 * angle_1.cos(),
        radius_2 * angle_2.sin(),
    ]
    return quaternion_to_matrix(torch.stack(parts, -1))


def nearest_rotation(matrix: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """The proper rotation closest to a matrix in the Frobenius norm."""
    u, _, vh = torch.linalg.svd(matrix)
    last = torch.linalg.det(u @ vh).sign()  # flipping the smallest singular direction costs least
    signs = torch.stack([torch.ones_like(last), torch.ones_like(last), last], -1)
    return (u * signs[..., None, :]) @ vh


class Superposition(NamedTuple):
    """`moving @ rotation.mT + translation` lies on `fixed`."""

    rotation: Float[Tensor, "*n 3 3"]
    translation: Float[Tensor, "*n 3"]  # Å
    rmsd: Float[Tensor, "*n"]  # Å, weighted root of the mean squared distance left
    mirrored: Bool[Tensor, "*n"]  # True where the rotation is improper


def kabsch(
    moving: Float[Tensor, "*n atoms 3"],
    fixed: Float[Tensor, "*n atoms 3"],
    weights: Float[Tensor, "*n atoms"] | None = None,
    allow_mirror: bool = False,
) -> Superposition:
    """Least-squares superposition of point sets in the given order (Kabsch 1976, 1978), batched.

    Proper unless `allow_mirror`, which takes the better of both hands and, where both fit equally (planar
    sets), the proper one. Collinear sets and single points get one of their best rotations; weights of 0
    leave atoms out. The rotation carries no gradient, yet that of the residual is exact: it is at a minimum.
    """
    w = torch.ones_like(moving[..., 0]) if weights is None else weights
    w = (w / w.sum(-1, keepdim=True))[..., None]
    centre_moving, centre_fixed = (w * moving).sum(-2), (w * fixed).sum(-2)
    x, y = moving - centre_moving[..., None, :], fixed - centre_fixed[..., None, :]
    rotation, mirrored = _best_rotation(((w * y).mT @ x).detach(), allow_mirror)
    residual = x @ rotation.mT - y
    rmsd = safe_sqrt((w[..., 0] * residual.square().sum(-1)).sum(-1))
    translation = centre_fixed - (rotation @ centre_moving[..., None])[..., 0]
    return Superposition(rotation, translation, rmsd, mirrored)


def _best_rotation(
    covariance: Float[Tensor, "*n 3 3"], allow_mirror: bool
) -> tuple[Float[Tensor, "*n 3 3"], Bool[Tensor, "*n"]]:
    """The R that maximises tr(R^T covariance), with covariance = sum of w y x^T."""
    proper = nearest_rotation(covariance)
    if not allow_mirror:
        return proper, torch.zeros(covariance.shape[:-2], dtype=torch.bool, device=covariance.device)
    improper = -nearest_rotation(-covariance)
    gain_proper, gain_improper = ((r * covariance).sum((-1, -2)) for r in (proper, improper))
    tie = 1e-5 * covariance.flatten(-2).norm(dim=-1)
    mirrored = gain_improper > gain_proper + tie
    return torch.where(mirrored[..., None, None], improper, proper), mirrored
