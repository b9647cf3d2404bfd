"""Lattice sums against closed forms, and every gradient against the slope of its energy."""

import math

import numpy as np
import pytest

from nucleate.physics import kernels
from nucleate.physics.parameters import COULOMB

IDENTITY = (np.eye(3, dtype=np.int64)[None], np.zeros((1, 3)), np.zeros(1, np.int64))
FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def lattice_sum(frac, lattice, q, c, alpha, cutoff=16.0, k_max=6.0):
    """Ewald energy of single atoms without repulsion: eV per cell."""
    frac, lattice = np.array(frac, float), np.array(lattice, float)
    n = len(frac)
    start, zero = np.arange(n + 1), np.zeros((n, 3))
    W, w, inverses = IDENTITY
    inverse = np.linalg.inv(lattice)
    rotation = np.tile(np.eye(3), (n, 1, 1))
    x, R = np.empty((n, 3)), np.empty((1, 3, 3))
    kernels.place(zero, start, frac, rotation, lattice, x)
    kernels.cartesian_rotations(W, lattice, inverse, R)
    images, weights = kernels.find_images(
        frac, x, start, np.zeros(n), lattice, inverse, W, w, inverses, cutoff, True
    )
    at_i, at_j, first = kernels.atom_pairs(x, start, lattice, R, w, images, cutoff)
    q, c = np.array(q, float), np.array(c, float)
    tables = np.zeros((n, n)), np.ones((n, n)), np.outer(c, c)
    coefficients = kernels.pair_coefficients(at_i, at_j, np.arange(n), q, *tables)
    neighbours = (images, weights, at_i, at_j, first)
    force, virial = np.zeros((n, 3)), np.zeros((3, 3))
    rest = (np.arange(n), np.full((n, n), 0.5), alpha, cutoff, force, virial)
    energy = kernels.real_energy(x, start, lattice, R, w, neighbours, coefficients, *rest)
    waves, sizes = kernels.reciprocal_vectors(inverse, W, k_max)
    energy += kernels.reciprocal_energy(x, lattice, inverse, W, w, waves, sizes, q, c, alpha, force, virial)
    return energy


@pytest.mark.parametrize("alpha", [0.3, 0.4])
@pytest.mark.parametrize(
    ("name", "frac", "charges", "nearest", "madelung"),
    [
        (
            "NaCl",
            FCC + (np.array(FCC) + np.array([0.5, 0, 0])).tolist(),
            [1] * 4 + [-1] * 4,
            0.5,
            1.747564594633,
        ),
        ("CsCl", [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1], math.sqrt(3) / 2, 1.762674773071),
        ("ZnS", FCC + (np.array(FCC) + 0.25).tolist(), [1] * 4 + [-1] * 4, math.sqrt(3) / 4, 1.638055053389),
    ],
)
def test_madelung_constants(name, frac, charges, nearest, madelung, alpha):
    a = 5.0
    energy = lattice_sum(frac, a * np.eye(3), charges, np.zeros(len(frac)), alpha)
    per_pair = energy / (len(frac) / 2)
    assert per_pair == pytest.approx(-madelung * COULOMB / (nearest * a), rel=5e-6), (
        name
    )  # erfc by polynomial: 1.5e-7 of a charge pair


@pytest.mark.parametrize("alpha", [0.25, 0.35, 0.45])
@pytest.mark.parametrize(
    ("frac", "nearest", "constant"),
    [(FCC, math.sqrt(0.5), 14.45392104), ([[0, 0, 0], [0.5, 0.5, 0.5]], math.sqrt(3) / 2, 12.25366787)],
    ids=["fcc", "bcc"],
)
def test_dispersion_lattice_sums(frac, nearest, constant, alpha):
    """Sums of r^-6 over the cubic lattices (Lennard-Jones & Ingham 1925)."""
    a, c6 = 5.0, 20.0
    energy = lattice_sum(frac, a * np.eye(3), np.zeros(len(frac)), np.full(len(frac), math.sqrt(c6)), alpha)
    assert energy / len(frac) == pytest.approx(-0.5 * c6 * constant / (nearest * a) ** 6, rel=1e-6)


@pytest.mark.parametrize("r", [0.3, 0.7, 1.1, 1.9, 3.3, 6.0])
@pytest.mark.parametrize("alpha", [0.0, 0.35])
def test_pair_slopes(r, alpha):
    """u'(r)/r of every pair function is the slope of its u(r)."""
    h = 1e-5
    pair = (2384.0, 3.96, 11.6, 0.94)
    functions = {
        "exp6": lambda r2: kernels.exp6_pair(r2, *pair, alpha),
        "coulomb": lambda r2: kernels.coulomb_pair(r2, alpha),
        "dispersion_inside": lambda r2: kernels.dispersion_inside(r2, alpha),
        "coulomb_inside": lambda r2: kernels.coulomb_inside(r2, alpha),
    }
    for name, u in functions.items():
        slope = (u((r + h) ** 2)[0] - u((r - h) ** 2)[0]) / (2 * h)
        assert u(r * r)[1] * r == pytest.approx(slope, rel=1e-5, abs=1e-7), name


def terms(r, A, B, C, qq, alpha):
    """`pair_terms` for an array of distances."""
    n = len(r)
    u, du = np.empty(n), np.empty(n)
    coefficients = [np.full(n, v) for v in (A, B, C, qq)]
    kernels.pair_terms(r * r, *coefficients, alpha, 1e9, np.empty((5, n)), u, du)
    return u, du


def test_vectorised_exponential():
    x = np.concatenate([np.linspace(-700, 60, 4001), [0.0, -1e-9]])
    out = np.empty_like(x)
    kernels.exponentials(x, len(x), np.empty_like(x), out)
    np.testing.assert_allclose(out, np.exp(x), rtol=3e-11)


def test_fast_pairs_are_the_sum_of_their_parts():
    r = np.linspace(0.95, 14.0, 300)
    A, B, C, soft, qq, alpha = 2384.0, 3.96, 11.6, 0.94, -0.37 * COULOMB, 0.3
    exp6 = np.array([kernels.exp6_pair(x * x, A, B, C, soft, alpha) for x in r]).T
    coulomb = np.array([kernels.coulomb_pair(x * x, alpha) for x in r]).T
    np.testing.assert_allclose(terms(r, A, B, C, qq, alpha), exp6 + qq * coulomb, atol=2e-6, rtol=1e-6)


def test_nothing_collapses():
    """Repulsion grows all the way in, whatever the charges (here H on O with O)."""
    r = np.linspace(0.02, 0.85, 100)
    u = [
        kernels.exp6_pair(x * x, 352.6, 4.31, 1.61, 1.0, 0.3)[0]
        - 0.3 * COULOMB * kernels.coulomb_pair(x * x, 0.3)[0]
        for x in r
    ]
    assert (np.diff(u) < 0).all()
