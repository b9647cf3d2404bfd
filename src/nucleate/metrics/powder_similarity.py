"""How alike are two powder patterns, when cells differ by thermal expansion or by the energy model?

Two measures, both 1 for equal patterns and 0 for patterns without peaks near each other:

* `pattern_similarity`, the weighted cross-correlation of de Gelder, Wehrens & Hageman, J. Comput. Chem. 22, 273
  (2001): peaks as far apart as `width` no longer meet. Works on any two patterns, measured ones too.
* `variable_cell_similarity`, after the idea of VC-PWDF (Mayo, Otero-de-la-Roza & Johnson, CrystEngComm 24, 8326,
  2022): the other crystal's cell is first deformed onto the reference's, fractional coordinates kept, over every
  way to lay one reduced basis on the other within tolerances; the best similarity counts, with its strain. Expansion
  and the errors of an energy model no longer hide that two packings are one.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.standardise import primitive_niggli
from nucleate.errors import InputError
from nucleate.geometry.lattice import niggli_reduce, parameters_from_lattice, symmetric_log
from nucleate.metrics.pxrd import CU_K_ALPHA, PowderPattern, powder_pattern
from nucleate.reading import read_file

WIDTH = 1.0  # degrees 2theta, the base of the triangle on either side
STEP = 0.02  # degrees: grid on which patterns are compared
LENGTH_TOLERANCE, ANGLE_TOLERANCE = 0.2, 15.0  # of a basis vector (relative) and between two (degrees)
REACH = 3  # multiples of a reduced basis that make a vector of another
LARGEST_INDEX = 4  # atoms of one primitive cell over those of the other
MOST_BASES = 48  # least strained; a cubic lattice has 24 ways to lie on itself
SAME = 0.9999  # nothing better is looked for
COMMENTS = ("#", "!", ";", "%", "'", '"', "/")


@dataclass(frozen=True)
class PowderMatch:
    """Similarity of two crystals' patterns at best, and the strain that it took."""

    similarity: float  # after deformation
    plain: float  # as they are
    strain: tuple[float, float, float]  # principal logarithmic strains of the other crystal, ascending
    bases: int  # ways to lay one cell on the other that were tried; 0 where none is within the tolerances

    @property
    def volume_ratio(self) -> float:
        """By how much the other crystal's volume was scaled."""
        return math.exp(sum(self.strain))

    @property
    def largest_strain(self) -> float:
        return max(map(abs, self.strain))


def pattern_similarity(a: PowderPattern, b: PowderPattern, width: float = WIDTH) -> float:
    """c_ab / sqrt(c_aa c_bb) with c_fg = ∫ w(r) ∫ f(x) g(x + r) dx dr, w(r) = 1 - |r| / width for |r| < width.

    de Gelder et al. (2001), equations 8 and 10; x is 2θ in degrees. Patterns on other grids are brought to 0.02
    degrees over the range that both have. Scales do not matter; a background that was not subtracted raises the
    similarity of anything to anything (`without_background`). Raises InputError where the ranges share less than
    5 degrees, nothing scatters in them, or `width` is not positive.
    """
    if width <= 0:
        raise InputError(f"expected a positive width in degrees 2theta, got {width}")
    f, g = _on_one_grid(a, b)
    smeared_f, smeared_g = _smeared(f, width), _smeared(g, width)
    own = float(f @ smeared_f) * float(g @ smeared_g)
    if own <= 0:
        raise InputError("expected two patterns with intensity in their common range, got a flat line")
    return min(1.0, float(f @ smeared_g) / math.sqrt(own))


def powder_similarity(
    a: Crystal,
    b: Crystal,
    two_theta: tuple[float, float] = (5.0, 50.0),
    width: float = WIDTH,
    wavelength: float = CU_K_ALPHA,
) -> float:
    """`pattern_similarity` of the simulated patterns of two crystals as they are. Errors as there."""
    first, second = (powder_pattern(c, two_theta, STEP, wavelength=wavelength) for c in (a, b))
    return pattern_similarity(first, second, width)


def variable_cell_similarity(
    reference: Crystal,
    other: Crystal,
    two_theta: tuple[float, float] = (5.0, 50.0),
    width: float = WIDTH,
    wavelength: float = CU_K_ALPHA,
    length_tolerance: float = LENGTH_TOLERANCE,
    angle_tolerance: float = ANGLE_TOLERANCE,
    symprec: float = 0.1,
) -> PowderMatch:
    """The best similarity over deformations of the other crystal's cell onto the reference's.

    Both are brought to primitive cells (translations found within `symprec` Å); where one holds 2, 3 or 4 times the
    atoms of the other, the other's superlattices are tried; with any other numbers only the plain similarity
    remains. Deformation moves whole cells, so molecules are strained too: a large `largest_strain` means that a match
    should not be believed. Swapping the crystals changes the answer a little, because the patterns are then drawn in
    the other cell. Errors as for `pattern_similarity`.
    """

    def draw(crystal: Crystal) -> PowderPattern:
        return powder_pattern(crystal, two_theta, STEP, wavelength=wavelength)

    target, source = (primitive_niggli(c, symprec)[0] for c in (reference, other))
    pattern = draw(target)
    plain = pattern_similarity(pattern, draw(source), width)
    deformations, strains = _deformations(target, source, length_tolerance, angle_tolerance)
    best = PowderMatch(plain, plain, (0.0, 0.0, 0.0), len(deformations))
    for deformation, strain in zip(deformations, strains.tolist()):
        if best.similarity > SAME:
            break
        deformed = source.replace(lattice=source.lattice.double() @ deformation)
        value = pattern_similarity(pattern, draw(deformed), width)
        if value > best.similarity:
            best = PowderMatch(value, plain, (strain[0], strain[1], strain[2]), len(deformations))
    return best


def _deformations(
    target: Crystal, source: Crystal, length_tolerance: float, angle_tolerance: float
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]:
    """Ways to deform the source's lattice onto the target's, the least strained first.

    Where one primitive cell holds a small multiple of the other's atoms (a centring that one of them breaks) every
    superlattice of the smaller is tried.
    """
    small, large = sorted((len(target), len(source)))
    index = large // small
    if large % small or index > LARGEST_INDEX:
        return torch.zeros(0, 3, 3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.float64)
    found = []
    for step in superlattices(index):
        ours, theirs = target.lattice.double(), source.lattice.double()
        if len(target) == small:
            ours = niggli_reduce(step.double() @ ours)[0]
        else:
            theirs = niggli_reduce(step.double() @ theirs)[0]
        _, deformation, strain = matching_bases(ours, theirs, length_tolerance, angle_tolerance)
        found.append((deformation, strain))
    deformations, strains = (torch.cat(parts) for parts in zip(*found))
    order = torch.argsort(strains.norm(dim=1), stable=True)[:MOST_BASES]
    return deformations[order], strains[order]


def superlattices(index: int) -> Int[Tensor, "n 3 3"]:
    """One basis of every sublattice of this index: the Hermite normal forms with this determinant."""
    forms = [
        [[a, 0, 0], [b, c, 0], [d, e, f]]
        for a in range(1, index + 1)
        for c in range(1, index + 1)
        for f in range(1, index + 1)
        if a * c * f == index
        for b in range(a)
        for d in range(a)
        for e in range(c)
    ]
    return torch.tensor(forms)


def matching_bases(
    target: Float[Tensor, "3 3"],
    source: Float[Tensor, "3 3"],
    length_tolerance: float = LENGTH_TOLERANCE,
    angle_tolerance: float = ANGLE_TOLERANCE,
) -> tuple[Int[Tensor, "n 3 3"], Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]:
    """Unimodular M for which the cell `M @ source` nearly is the target; the deformations and their strains.

    Lengths agree within a factor of 1 + length_tolerance, angles within angle_tolerance degrees; at most
    `MOST_BASES`, least strained first. A deformation F fulfils `M @ source @ F = target`; its principal logarithmic
    strains (ascending) are half the eigenvalues of log(F^T F). Both cells (Å) should be reduced. -M is not listed
    beside M: a crystal and its mirror image have one powder pattern.
    """
    lengths, angles = parameters_from_lattice(target)
    steps = torch.cartesian_prod(*[torch.arange(-REACH, REACH + 1)] * 3)
    vectors = steps.double() @ source
    off = (vectors.norm(dim=1)[:, None].clamp(min=1e-9) / lengths).log().abs()
    a, b, c = (torch.nonzero(column).flatten() for column in (off <= math.log1p(length_tolerance)).T)
    change = steps[torch.cartesian_prod(a, b, c).reshape(-1, 3)]
    change = change[torch.linalg.det(change.double()).round() == 1]
    turned = (parameters_from_lattice(change.double() @ source)[1] - angles).abs()
    change = change[(turned <= math.radians(angle_tolerance)).all(1)]
    F = torch.linalg.inv(change.double() @ source) @ target
    strains = torch.linalg.eigvalsh(symmetric_log(F.mT @ F) / 2)
    order = torch.argsort(strains.norm(dim=1), stable=True)[:MOST_BASES]
    return change[order], F[order], strains[order]


def read_pattern(path: str | Path) -> PowderPattern:
    """A measured pattern from two columns, 2θ in degrees and intensity (.xy, .xye, .csv, .dat, .txt).

    Columns are parted by blanks, tabs, commas or semicolons; further columns are left alone. Header lines before the
    first number and lines that start with one of # ! ; % ' " / are skipped. The highest point becomes 100; the
    background stays. Raises InputError where the file cannot be read, a line is no number, angles do not increase
    or leave (0, 180) degrees, or fewer than 10 points or no intensity are there.
    """
    path = Path(path)
    lines = read_file(path, "a powder pattern").decode("utf-8-sig", errors="replace").splitlines()
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith(COMMENTS):
            continue
        if (row := _numbers(line)) is not None:
            rows.append(row)
        elif rows:
            raise InputError(
                f"expected two numbers, 2theta and intensity, got {line.strip()[:40]!r} in line {number} of "
                f"{path.name}; remove the line or start it with #",
                reason="unreadable",
            )
    return _checked_pattern(rows, path.name)


def without_background(pattern: PowderPattern, window: float = 3.0) -> PowderPattern:
    """The pattern less everything broader than `window` degrees: a smoothed morphological opening.

    Simple and blind: for peaks broader than the window, or very crowded patterns, subtract the background by hand.
    """
    grid, profile = _resampled(pattern, float(pattern.two_theta[0]), float(pattern.two_theta[-1]))
    half = max(1, round(window / 2 / STEP))
    lowest = -_running_max(-profile, half)
    background = _smeared(_running_max(lowest, half), window / 2) / _smeared(
        torch.ones_like(profile), window / 2
    )
    peaks = (profile - background).clamp(min=0)
    return PowderPattern(grid, peaks * (100 / peaks.max()) if peaks.max() > 0 else peaks)


# ---------------------------------------------------------------- grids and files


def _on_one_grid(
    a: PowderPattern, b: PowderPattern
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    same = len(a.two_theta) == len(b.two_theta) and torch.equal(a.two_theta, b.two_theta)
    if same and float((a.two_theta.diff() - STEP).abs().max()) < 1e-6:
        return a.intensity.double(), b.intensity.double()
    low = max(float(a.two_theta[0]), float(b.two_theta[0]))
    high = min(float(a.two_theta[-1]), float(b.two_theta[-1]))
    if high - low < 5:
        raise InputError(
            "expected patterns that share 5 degrees 2theta or more, got "
            f"{float(a.two_theta[0]):.1f} to {float(a.two_theta[-1]):.1f} and "
            f"{float(b.two_theta[0]):.1f} to {float(b.two_theta[-1]):.1f}; do both have the same wavelength?"
        )
    return _resampled(a, low, high)[1], _resampled(b, low, high)[1]


def _resampled(
    pattern: PowderPattern, low: float, high: float
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """The pattern on a grid of `STEP` degrees, linear between its points."""
    x, y = pattern.two_theta.double(), pattern.intensity.double()
    grid = low + STEP * torch.arange(math.floor((high - low) / STEP + 1e-6) + 1, dtype=torch.float64)
    after = torch.searchsorted(x, grid).clamp(1, len(x) - 1)
    share = ((grid - x[after - 1]) / (x[after] - x[after - 1])).clamp(0, 1)
    return grid, torch.lerp(y[after - 1], y[after], share)


def _smeared(profile: Float[Tensor, " points"], width: float) -> Float[Tensor, " points"]:
    """Convolution with the triangle, nothing beyond the ends."""
    n = max(1, round(width / STEP))
    triangle = 1 - torch.arange(-n, n + 1, dtype=profile.dtype).abs() / n
    return torch.nn.functional.conv1d(profile[None, None], triangle[None, None], padding=n)[0, 0]


def _running_max(profile: Float[Tensor, " points"], half: int) -> Float[Tensor, " points"]:
    return torch.nn.functional.max_pool1d(profile[None, None], 2 * half + 1, stride=1, padding=half)[0, 0]


def _numbers(line: str) -> tuple[float, float] | None:
    words = line.replace(",", " ").replace(";", " ").split()
    try:
        return float(words[0]), float(words[1])
    except (ValueError, IndexError):
        return None


def _checked_pattern(rows: list[tuple[float, float]], name: str) -> PowderPattern:
    if len(rows) < 10:
        raise InputError(
            f"expected at least 10 rows of 2theta and intensity, got {len(rows)} in {name}; is it a powder pattern?",
            reason="unreadable",
        )
    x, y = torch.tensor(rows, dtype=torch.float64).T
    if not (torch.isfinite(x).all() and torch.isfinite(y).all() and x[0] > 0 and x[-1] < 180):
        raise InputError(f"expected finite intensities at angles between 0 and 180 degrees in {name}")
    if (x.diff() <= 0).any():
        at = int((x.diff() <= 0).int().argmax())
        raise InputError(
            f"expected angles that increase, got {float(x[at + 1])} after {float(x[at])} in {name}; sort the rows"
        )
    if y.max() <= 0:
        raise InputError(f"expected some positive intensity, got none in {name}")
    return PowderPattern(x.contiguous(), y * (100 / y.max()))
