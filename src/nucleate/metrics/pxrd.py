"""Powder X-ray diffraction: what a diffractometer would draw for a crystal.

Kinematic intensities of all reflections in the range, from every atom of one cell. The unit cell may be
chosen in any way: a supercell or another basis of the same lattice gives the same pattern. Elements scatter
as free, neutral, spherical atoms without anomalous dispersion, all with one isotropic displacement.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import gemmi
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError

CU_K_ALPHA = 1.540598  # Å, Cu K-alpha1
PEAK_REACH = 20.0  # a peak is drawn out to this many widths; a Lorentzian is below 0.1 % there
CHUNK = 4_000_000  # reflections times atoms held at once


@dataclass(frozen=True, eq=False)
class Reflections:
    """Every reflection in the range, one of each Friedel pair; equivalent ones are separate rows."""

    hkl: Int[Tensor, "peaks 3"]
    d: Float[Tensor, " peaks"]  # Å
    two_theta: Float[Tensor, " peaks"]  # degrees
    intensity: Float[Tensor, " peaks"]  # |F|^2 LP / V^2, arbitrary scale, comparable between cells


@dataclass(frozen=True, eq=False)
class PowderPattern:
    """A drawn profile; the highest point is 100 unless nothing scatters in the range."""

    two_theta: Float[Tensor, " points"]  # degrees
    intensity: Float[Tensor, " points"]


def reflections(
    crystal: Crystal,
    two_theta: tuple[float, float] = (5.0, 50.0),
    wavelength: float = CU_K_ALPHA,
    u_iso: float = 0.03,
) -> Reflections:
    """Reflections with Bragg angle 2θ (degrees) in the closed range, from Bragg's law λ = 2 d sin θ.

    I(hkl) = |F|^2 (1 + cos^2 2θ) / (sin^2 θ cos θ) / V^2, where F = Σ_j f_j(s) exp(-8π² U s²) exp(2πi h·x_j)
    and s = sin θ / λ (International Tables for Crystallography C, sections 6.1 and 6.2; unpolarised beam, no
    monochromator). The multiplicity is there because equivalent reflections are all listed. `wavelength` is
    in Å, the displacement `u_iso` in Å^2.

    Raises InputError if the range is not inside (0, 180) degrees or an element has no form factor.
    """
    _check_range(two_theta, wavelength)
    low, high = (2 / wavelength * math.sin(math.radians(x / 2)) for x in two_theta)  # 1/d
    hkl = _half_sphere(crystal.lattice.double(), high)
    q = torch.linalg.norm(hkl.double() @ torch.linalg.inv(crystal.lattice.double()).T, dim=1)  # 1/d
    inside = (q >= low - 1e-9) & (q <= high + 1e-9)
    hkl, q = hkl[inside], q[inside]
    squared = _structure_factors_squared(crystal, hkl, q / 2, u_iso)
    theta = (q * wavelength / 2).clamp(max=1.0).asin()
    polarisation = (1 + (2 * theta).cos() ** 2) / (theta.sin() ** 2 * theta.cos())
    order = torch.argsort(theta, stable=True)
    intensity = squared * polarisation / crystal.volume**2
    return Reflections(hkl[order], 1 / q[order], 2 * theta[order].rad2deg(), intensity[order])


def powder_pattern(
    crystal: Crystal,
    two_theta: tuple[float, float] = (5.0, 50.0),
    step: float = 0.02,
    fwhm: float = 0.1,
    lorentzian: float = 0.5,
    wavelength: float = CU_K_ALPHA,
    u_iso: float = 0.03,
) -> PowderPattern:
    """Simulated powder pattern: reflections broadened to pseudo-Voigt peaks, highest point 100.

    Every peak is η L + (1 - η) G with one full width at half maximum `fwhm` (degrees 2θ) and the Lorentzian
    share η = `lorentzian` (0 is a pure Gaussian). `step` is the grid spacing in degrees. The ends of the
    range show no shoulders of peaks that lie outside it. Errors as for `reflections`.
    """
    if step <= 0 or fwhm <= 0 or not 0 <= lorentzian <= 1:
        raise InputError(
            f"expected step > 0, fwhm > 0 and a Lorentzian share in [0, 1], got {step}, {fwhm}, {lorentzian}"
        )
    peaks = reflections(crystal, two_theta, wavelength, u_iso)
    n_points = round((two_theta[1] - two_theta[0]) / step) + 1
    grid = two_theta[0] + step * torch.arange(n_points, dtype=torch.float64)
    profile = _draw(peaks, grid, step, fwhm, lorentzian)
    top = profile.max()
    return PowderPattern(grid, profile * (100.0 / top) if top > 0 else profile)


def _check_range(two_theta: tuple[float, float], wavelength: float) -> None:
    if not (0 < two_theta[0] < two_theta[1] < 180) or wavelength <= 0:
        raise InputError(
            f"expected 0 < low < high < 180 degrees 2theta and a positive wavelength in Å, got {two_theta} "
            f"and {wavelength}"
        )


def _half_sphere(lattice: Float[Tensor, "3 3"], q_max: float) -> Int[Tensor, "points 3"]:
    """Miller indices that may reach q <= q_max (1/Å): the origin left out, one of each pair (h, -h).

    h_i = a_i · q is at most |a_i| q_max, which bounds the box for any cell, however skew.
    """
    bounds = (torch.linalg.norm(lattice, dim=1) * q_max + 1e-6).floor().long().tolist()
    h, k, l = (torch.arange(-n, n + 1) for n in bounds)  # noqa: E741
    hkl = torch.cartesian_prod(h[bounds[0] :], k, l)
    first, second, third = hkl.T
    return hkl[(first > 0) | ((first == 0) & ((second > 0) | ((second == 0) & (third > 0))))]


def _structure_factors_squared(
    crystal: Crystal, hkl: Int[Tensor, "peaks 3"], s: Float[Tensor, " peaks"], u_iso: float
) -> Float[Tensor, " peaks"]:
    """|F|^2 in electrons^2, the displacement factor exp(-8π² U s²) included."""
    elements, element_of_atom = torch.unique(crystal.numbers, return_inverse=True)
    factors = _form_factors(tuple(elements.tolist()), s)
    frac = crystal.frac.double()
    parts = []
    size = max(1, CHUNK // max(1, len(frac)))
    for rows, f in zip(hkl.double().split(size), factors.split(size)):
        phase = 2 * math.pi * (rows @ frac.T)
        weight = f[:, element_of_atom]
        parts.append((weight * phase.cos()).sum(1) ** 2 + (weight * phase.sin()).sum(1) ** 2)
    squared = torch.cat(parts) if parts else s.new_zeros(0)
    return squared * torch.exp(-16 * math.pi**2 * u_iso * s**2)


def _form_factors(elements: tuple[int, ...], s: Float[Tensor, " peaks"]) -> Float[Tensor, "peaks elements"]:
    """f(s) = Σ_i a_i exp(-b_i s²) + c, electrons (International Tables C, table 6.1.1.4)."""
    table = _coefficients(elements)
    a, b, c = table[:, :4], table[:, 4:8], table[:, 8]
    return (a * torch.exp(-b * (s**2)[:, None, None])).sum(-1) + c


@lru_cache(maxsize=256)
def _coefficients(elements: tuple[int, ...]) -> Float[Tensor, "elements 9"]:
    missing = [gemmi.Element(z).name for z in elements if gemmi.Element(z).it92 is None]
    if missing:
        raise InputError(f"expected elements with tabulated X-ray form factors, got {', '.join(missing)}")
    return torch.tensor([gemmi.Element(z).it92.get_coefs() for z in elements], dtype=torch.float64)


def _draw(
    peaks: Reflections, grid: Float[Tensor, " points"], step: float, fwhm: float, lorentzian: float
) -> Float[Tensor, " points"]:
    """Sum of unit-area pseudo-Voigt peaks times their intensities, each on its own window of the grid."""
    reach = int(PEAK_REACH * fwhm / step) + 1
    nearest = ((peaks.two_theta - grid[0]) / step).round().long()
    index = nearest[:, None] + torch.arange(-reach, reach + 1)
    away = (grid[0] + index * step - peaks.two_theta[:, None]) / fwhm  # in widths
    gaussian = math.sqrt(4 * math.log(2) / math.pi) * torch.exp2(-4 * away**2)
    cauchy = 2 / math.pi / (1 + 4 * away**2)
    height = peaks.intensity[:, None] / fwhm * (lorentzian * cauchy + (1 - lorentzian) * gaussian)
    seen = (index >= 0) & (index < len(grid))
    return grid.new_zeros(len(grid)).index_add(0, index[seen], height[seen])
