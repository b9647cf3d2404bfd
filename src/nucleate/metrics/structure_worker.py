"""The program of `structure_matcher`: pymatgen's StructureMatcher, run by `nucleate.far_end`.

    opening: tolerances      request: two crystals by number      reply: normalised RMS at every stol

Crystals come once, as lattice, fractional coordinates and atomic numbers, and are kept as reduced structures
(Niggli cell, then the primitive cell) until the other side says to forget them.

pymatgen superposes two reduced cells in some 35 ways, and works out the mean lattice of each, its reciprocal and its
LLL cell anew though there are two or three different ones. Here all ways are found in arrays, and mean lattices
that are equal to 1e-9 (Å, degrees) are one, which remembers what was asked of it. What is compared, and how,
stays pymatgen's: the answers agree to rounding, in a third of the time (benchmarks/inorganic_matching.py).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import product
from math import cos, prod, radians
from typing import Any

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Lattice, Structure

Number = float | int
SLACK = 1e-6  # relative: what rounding may do to a volume or an angle at its limit


class RecordingMatcher(StructureMatcher):
    """StructureMatcher for structures that are reduced already, which notes every superposition it tries.

    pymatgen reduces both structures again in every call (its cache compares all sites with all sites, which
    takes longer than the reduction), and does not say what length it divided by. Both are had here by
    stepping in where it reduces and where it superposes; nothing that it decides is changed.
    `_get_supercells` is its list of ways to lay one cell on the other.
    """

    def __init__(self, **tolerances: Any) -> None:
        super().__init__(**tolerances)
        self.tried: list[tuple[float, float]] = []  # normalised RMS, and (V / N)^(1/3) in Å

    @classmethod
    def _get_reduced_structure(cls, struct: Any, *_: Any, **__: Any) -> Structure:
        return struct.copy()  # the matcher rescales what it gets

    def _cart_dists(self, s1: Any, s2: Any, avg_lattice: Any, mask: Any, normalization: Any, *rest: Any):  # type: ignore[override]
        answer = super()._cart_dists(s1, s2, avg_lattice, mask, normalization, *rest)
        self.tried.append((np.linalg.norm(answer[0]) / len(answer[0]) ** 0.5, 1 / normalization))
        return answer

    def _get_supercells(
        self, struct1: Any, struct2: Any, fu: int, s1_supercell: bool
    ) -> Iterator[tuple[Any, ...]]:
        if fu != 1:
            yield from super()._get_supercells(struct1, struct2, fu, s1_supercell)
            return
        steps, cells = superpositions(struct1.lattice, struct2.lattice, self.ltol, self.angle_tol)
        if not len(steps):
            return
        frac = struct1.cart_coords @ np.linalg.inv(cells)
        mean = (parameters(cells) + np.array(struct2.lattice.parameters)) / 2
        known: dict[tuple[float, ...], MeanLattice] = {}
        for x, step, six in zip(frac - np.floor(frac), steps, mean):
            key = tuple(np.round(six, 9))
            if key not in known:
                known[key] = MeanLattice(Lattice.from_parameters(*six).matrix)
            yield x, np.array(struct2.frac_coords), known[key], step

    def rms(self, first: Structure, second: Structure) -> tuple[float, float] | None:
        """Normalised RMS and RMS in Å of the best match, or None. `tried` is of this call alone."""
        self.tried = []
        found = self.get_rms_dist(first, second)
        if found is None:
            return None
        length = next(length for value, length in self.tried if value == found[0])
        return float(found[0]), float(found[0] * length)


class MeanLattice(Lattice):
    """A lattice that works out once what pymatgen's works out whenever it is asked."""

    @cached_property
    def reciprocal_lattice(self) -> "MeanLattice":  # type: ignore[override]
        return MeanLattice(super().reciprocal_lattice.matrix)

    @cached_property
    def lll_inverse(self) -> np.ndarray:  # type: ignore[override]
        return super().lll_inverse

    @cached_property
    def volume(self) -> float:  # type: ignore[override]
        return super().volume

    @cached_property
    def lengths(self) -> tuple[float, float, float]:  # type: ignore[override]
        return super().lengths

    @cached_property
    def _lll(self) -> "MeanLattice":
        return MeanLattice(super().get_lll_reduced_lattice().matrix)

    def get_lll_reduced_lattice(self, delta: float = 0.75) -> Lattice:  # type: ignore[override]
        return self._lll if delta == 0.75 else super().get_lll_reduced_lattice(delta)


def superpositions(
    lattice: Lattice, target: Lattice, ltol: Number, angle_tol: Number
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of `lattice` with its volume, and lengths and angles within tolerance of the target's, of either hand.

    Returns them as whole steps of the lattice and in Å, (ways, 3, 3) with rows a, b, c, in pymatgen's order.
    """
    lengths = np.array(target.lengths)
    found: Any = lattice.get_points_in_sphere(
        [[0, 0, 0]], [0, 0, 0], max(lengths) * (1 + ltol), zip_results=False
    )
    steps, far = np.array(found[0]), np.array(found[1])
    vectors = lattice.get_cartesian_coords(steps)
    ratio = far[:, None] / lengths
    near = (ratio < 1 + ltol) & (ratio > 1 / (1 + ltol))  # the origin is not
    a, b, c = (np.flatnonzero(column) for column in near.T)
    unit = vectors / np.maximum(far, 1e-12)[:, None]

    def fit(one: np.ndarray, other: np.ndarray, angle: float) -> np.ndarray:
        between = np.degrees(np.arccos(np.clip(unit[one] @ unit[other].T, -1, 1)))
        return np.abs(between - angle) <= angle_tol

    alpha, beta, gamma = target.angles
    i, j = np.nonzero(fit(a, b, gamma))
    pair, k = np.nonzero(fit(a, c, beta)[i] & fit(b, c, alpha)[j])
    rows = np.stack([a[i[pair]], b[j[pair]], c[k]], 1)
    whole = np.abs(np.abs(np.linalg.det(steps[rows])) - 1) <= 0.5
    return steps[rows[whole]].astype(int), vectors[rows[whole]]


def parameters(cells: np.ndarray) -> np.ndarray:
    """Lengths (Å) and angles (degrees) of cells (ways, 3, 3): (ways, 6)."""
    lengths = np.linalg.norm(cells, axis=-1)
    unit = cells / lengths[..., None]
    cosines = np.stack([(unit[:, i] * unit[:, j]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))], -1)
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))], -1)


def reduced(
    lattice: Sequence[Sequence[float]], frac: Sequence[Sequence[float]], numbers: Sequence[int]
) -> Structure:
    """The structure that pymatgen's matcher compares: Niggli cell, then primitive cell."""
    whole = Structure(Lattice(lattice), [Element.from_Z(z) for z in numbers], np.array(frac))
    return whole.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()


def compare(
    first: Structure, second: Structure, ltol: Number, angle_tol: Number, scale: bool, stols: Sequence[Number]
) -> dict[str, Any]:
    """Normalised RMS and RMS in Å at every stol (descending; None: no match), and why there is no match.

    Every stol is asked for on its own: a wider tolerance may pair the atoms differently, so the RMS at one
    stol does not follow from that at another. Only where no lattice and translation brings all atoms within
    reach are the smaller ones left out: within reach is |Δx| <= 2 stol (V / N)^(1/3) / d on each axis
    (d the spacing of its planes), and nothing comes within less that is not within more.
    """
    nothing: list[float | None] = [None] * len(stols)
    if reason := impossible(first, second, ltol, angle_tol, scale):
        return {"rms": nothing, "angstrom": nothing, "reason": reason}
    found: list[tuple[float, float] | None] = []
    for stol in stols:
        matcher = RecordingMatcher(ltol=ltol, stol=stol, angle_tol=angle_tol, scale=scale)
        found.append(matcher.rms(first, second))
        if not matcher.tried:
            break
    found += [None] * (len(stols) - len(found))
    reason = "" if any(found) else "no lattice and translation brings the atoms together"
    return {"rms": [f and f[0] for f in found], "angstrom": [f and f[1] for f in found], "reason": reason}


def impossible(first: Structure, second: Structure, ltol: Number, angle_tol: Number, scale: bool) -> str:
    """Why no tolerance of the sites could make these reduced structures match; "" if nothing speaks against it.

    The matcher compares cells with equal contents only, and without scaling it needs a cell of the first
    with lengths within 1 + ltol and angles within angle_tol of the second's, and with the first's volume.
    """
    if first.composition != second.composition:
        return f"primitive cells of {first.composition.formula} and {second.composition.formula}"
    low, high = volume_limits(second.lattice, ltol, angle_tol)
    if not scale and not low <= first.volume <= high:
        return (
            f"primitive cells of {first.volume:.0f} and {second.volume:.0f} Å^3, more than the tolerances "
            "of lengths and angles allow"
        )
    return ""


def volume_limits(lattice: Lattice, ltol: Number, angle_tol: Number) -> tuple[float, float]:
    """Least and largest volume (Å^3) of a cell whose lengths and angles are within tolerance of `lattice`.

    V = abc sqrt(g), where g = det G and G has ones on the diagonal and the cosines beside it. log det G is
    concave where G is positive definite, and the angles allow a box of cosines: going up one cosine at a time
    (g is largest at x = y z, or at the end of x's range next to it) leads to the maximum. In each cosine
    alone g is a parabola that opens downwards, so its minimum is at a corner of the box; where that is
    negative the angles close to no cell, and volumes have no lower limit but 0.
    """
    ranges = [
        (cos(radians(min(180.0, angle + angle_tol))), cos(radians(max(0.0, angle - angle_tol))))
        for angle in lattice.angles
    ]
    lowest = min(gram(corner) for corner in product(*ranges))
    top = [cos(radians(angle)) for angle in lattice.angles]
    last, now = -1.0, gram(top)
    while now - last > 1e-12:
        for k in range(3):
            x, y = (top[i] for i in range(3) if i != k)
            top[k] = min(max(x * y, ranges[k][0]), ranges[k][1])
        last, now = now, gram(top)
    box = prod(lattice.lengths)
    return (
        box * max(lowest, 0.0) ** 0.5 / (1 + ltol) ** 3 * (1 - SLACK),
        box * (now + SLACK) ** 0.5 * (1 + ltol) ** 3 * (1 + SLACK),
    )


def gram(cosines: Sequence[float]) -> float:
    """det of the unit vectors' Gram matrix, (V / abc)^2."""
    x, y, z = cosines
    return 1 - x * x - y * y - z * z + 2 * x * y * z


def start(opening: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Set the tolerances; make sure that this pymatgen lets itself be recorded."""
    check_recording()
    known: dict[str, Structure] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        for name in request["forget"]:
            known.pop(name, None)
        for name, sites in request["crystals"].items():
            known[name] = reduced(**sites)
        first, second = (known[name] for name in request["pair"])
        return compare(first, second, **opening)

    return {}, answer


def check_recording() -> None:
    """Raises NotImplementedError where pymatgen no longer superposes in the method that is recorded, or otherwise."""
    two = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], np.array([[0.0] * 3, [0.5] * 3]))
    other = Structure(
        Lattice.orthorhombic(4.1, 3.9, 4.0), ["Cs", "Cl"], np.array([[0.0] * 3, [0.55, 0.48, 0.51]])
    )
    matcher = RecordingMatcher()
    found, expected = matcher.get_rms_dist(two, other), StructureMatcher().get_rms_dist(two, other)
    if not matcher.tried or not found or not expected or abs(found[0] - expected[0]) > 1e-9:
        raise NotImplementedError(
            "expected a pymatgen whose StructureMatcher superposes in _cart_dists (2025.1.9 and 2026.10.24 do), got "
            "another; install one of these"
        )
