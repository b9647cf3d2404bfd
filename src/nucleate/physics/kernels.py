"""The lattice energy of rigid molecules in a space group and its gradient, compiled.

Notation. The asymmetric unit holds bodies a, b with atoms i, j at Cartesian positions x_i. Operation o takes a
fractional column to W x + w; R = L^T W L^-T is its Cartesian rotation (row lattice L). An *image* (a, b, o, n) is
the pair of body a and the copy W b + w + n of body b. The energy per asymmetric unit is

    E = sum over images of weight * sum_ij u_ij(|x_i - x'_j|)  +  Ewald's reciprocal and self terms,

where each pair of molecules appears once: for a = b an operation is paired with its inverse (weight 1/2 where it is
its own inverse), for a < b every operation counts.

Dispersion and Coulomb terms are both summed by Ewald's method, so nothing is cut off:
    Coulomb   real  q_i q_j erfc(alpha r)/r
    -C/r^6    real  -C/r^6 (1 + s + s^2/2) exp(-s),  s = alpha^2 r^2
(Williams, Acta Cryst. A27, 452 (1971); Karasawa & Goddard, J. Phys. Chem. 93, 7320 (1989)). This asks for
C_ij = c_i c_j. At distances that no crystal has, both are continued so that nothing collapses: exp-6 linearly from
its steepest point inwards, 1/r linearly inside `SOFT_COULOMB`.
"""

import math

import numpy as np

from nucleate.compiled import compiled
from nucleate.physics.parameters import COULOMB

SOFT_COULOMB = 0.9  # Å; no two atoms of different molecules come closer in any crystal
ROUNDING = 6755399441055744.0  # 1.5 * 2^52: adding it leaves the nearest integer in the low bits
MAX_ORDER = 40  # highest |h|, |k| or |l| of the reciprocal sum


# ------------------------------------------------------------------ geometry of the asymmetric unit


@compiled
def place(local, start, centroid, rotation, lattice, x):
    """x_i = R local_i + centroid @ lattice, body after body."""
    for m in range(len(start) - 1):
        for d in range(3):
            c = 0.0
            for k in range(3):
                c += centroid[m, k] * lattice[k, d]
            for i in range(start[m], start[m + 1]):
                x[i, d] = (
                    c
                    + rotation[m, d, 0] * local[i, 0]
                    + rotation[m, d, 1] * local[i, 1]
                    + rotation[m, d, 2] * local[i, 2]
                )


@compiled
def cartesian_rotations(W, lattice, inverse, out):
    """R = L^T W L^-T for every operation."""
    for o in range(len(W)):
        for p in range(3):
            for q in range(3):
                total = 0.0
                for k in range(3):
                    for m in range(3):
                        total += lattice[k, p] * W[o, k, m] * inverse[q, m]
                out[o, p, q] = total


@compiled
def find_images(centroid, x, start, radius, lattice, inverse, W, w, inverses, reach, half):
    """All images with an atom pair closer than `reach` (Å): integer rows (a, b, o, n1, n2, n3) and weights."""
    bodies = len(start) - 1
    R = np.empty((len(W), 3, 3))
    cartesian_rotations(W, lattice, inverse, R)
    rows, weights = np.empty((256, 6), np.int64), np.empty(256)
    count = 0
    height = np.empty(3)
    for k in range(3):
        height[k] = 1.0 / math.sqrt(inverse[0, k] ** 2 + inverse[1, k] ** 2 + inverse[2, k] ** 2)
    f, low, high, n, m, t = (
        np.empty(3),
        np.empty(3, np.int64),
        np.empty(3, np.int64),
        np.empty(3),
        np.empty(3),
        np.empty(3),
    )
    moved = np.empty((len(x), 3))
    for a in range(bodies):
        for b in range(a if half else 0, bodies):
            limit = reach + radius[a] + radius[b]
            for o in range(len(W)):
                for k in range(3):
                    f[k] = w[o, k] - centroid[a, k]
                    for p in range(3):
                        f[k] += W[o, k, p] * centroid[b, p]
                    low[k] = math.ceil(-f[k] - limit / height[k])
                    high[k] = math.floor(-f[k] + limit / height[k])
                _rotate(x, start[b], start[b + 1], R[o], moved)
                for n0 in range(low[0], high[0] + 1):
                    for n1 in range(low[1], high[1] + 1):
                        for n2 in range(low[2], high[2] + 1):
                            n[0], n[1], n[2] = n0, n1, n2
                            gap = 0.0
                            for d in range(3):
                                s = 0.0
                                for k in range(3):
                                    s += (f[k] + n[k]) * lattice[k, d]
                                gap += s * s
                            if gap > limit * limit:
                                continue
                            weight = 1.0 if half else 0.5
                            if a == b:
                                if o == 0 and n0 == 0 and n1 == 0 and n2 == 0:
                                    continue
                                if half:
                                    # the inverse of x -> W x + w + n is x -> W' x - W' (w + n)
                                    v = inverses[o]
                                    order = o - v
                                    for k in range(3):
                                        m[k] = -w[v, k]
                                        for p in range(3):
                                            m[k] -= W[v, k, p] * (w[o, p] + n[p])
                                        if order == 0:
                                            order = int(n[k] - round(m[k]))
                                    if order < 0:
                                        continue
                                    if order == 0:
                                        weight = 0.5
                            _shift(w[o], n, lattice, t)
                            if not _touches(
                                x, start[a], start[a + 1], moved, start[b], start[b + 1], t, reach
                            ):
                                continue
                            if count == len(rows):
                                rows = np.concatenate((rows, np.empty_like(rows)))
                                weights = np.concatenate((weights, np.empty_like(weights)))
                            rows[count, 0], rows[count, 1], rows[count, 2] = a, b, o
                            rows[count, 3], rows[count, 4], rows[count, 5] = n0, n1, n2
                            weights[count] = weight
                            count += 1
    return rows[:count], weights[:count]


@compiled
def _rotate(x, first, last, R, out):
    for j in range(first, last):
        for d in range(3):
            out[j, d] = R[d, 0] * x[j, 0] + R[d, 1] * x[j, 1] + R[d, 2] * x[j, 2]


@compiled
def _shift(w, n, lattice, t):
    """t = (w + n) @ lattice"""
    for d in range(3):
        t[d] = (w[0] + n[0]) * lattice[0, d] + (w[1] + n[1]) * lattice[1, d] + (w[2] + n[2]) * lattice[2, d]


@compiled
def _touches(x, a0, a1, moved, b0, b1, t, reach):
    limit = reach * reach
    for j in range(b0, b1):
        y0, y1, y2 = moved[j, 0] + t[0], moved[j, 1] + t[1], moved[j, 2] + t[2]
        for i in range(a0, a1):
            if (x[i, 0] - y0) ** 2 + (x[i, 1] - y1) ** 2 + (x[i, 2] - y2) ** 2 < limit:
                return True
    return False


# ------------------------------------------------------------------ pair functions: u(r) and u'(r)/r


@compiled
def exp6_pair(r2, A, B, C, r_soft, alpha):
    """A exp(-B r) - C/r^6 less what the reciprocal sum brings of it; alpha = 0 gives the bare function."""
    s = alpha * alpha * r2
    inverse2 = 1.0 / r2
    inverse6 = inverse2 * inverse2 * inverse2
    if r2 >= r_soft * r_soft:
        r = math.sqrt(r2)
        repulsion = A * math.exp(-B * r)
        if alpha == 0.0:
            return repulsion - C * inverse6, -B * repulsion / r + 6.0 * C * inverse6 * inverse2
        g = math.exp(-s)
        shape = (1.0 + s * (1.0 + 0.5 * s)) * g
        u = repulsion - C * inverse6 * shape
        return u, -B * repulsion / r + C * inverse6 * (6.0 * inverse2 * shape + alpha * alpha * s * s * g)
    # steepest point inwards: a straight line, less the reciprocal part -C (1 - shape)/r^6
    r = math.sqrt(r2)
    repulsion = A * math.exp(-B * r_soft)
    inside6 = C / r_soft**6
    slope = -B * repulsion + 6.0 * inside6 / r_soft
    u = repulsion - inside6 + slope * (r - r_soft)
    du = slope / max(r, 1e-9)
    extra, d_extra = dispersion_inside(r2, alpha)
    return u + C * extra, du + C * d_extra


@compiled
def dispersion_inside(r2, alpha):
    """(1 - (1 + s + s^2/2) exp(-s)) / r^6 and its (d/dr)/r: what the reciprocal sum brings of 1/r^6, finite at 0."""
    if alpha == 0.0:
        return 0.0, 0.0
    s = alpha * alpha * r2
    a2 = alpha * alpha
    if s < 0.05:  # series, since 1 - (...) loses all its digits
        value = a2**3 * (1.0 / 6.0 - s / 8.0 + s * s / 20.0 - s**3 / 72.0)
        slope = 2.0 * a2**4 * (-1.0 / 8.0 + s / 10.0 - s * s / 24.0 + s**3 / 84.0)
        return value, slope
    g = math.exp(-s)
    value = (1.0 - (1.0 + s + 0.5 * s * s) * g) / r2**3
    return value, -6.0 * value / r2 + a2 * s * s * g / r2**3


@compiled
def coulomb_pair(r2, alpha):
    """erfc(alpha r)/r, the bare 1/r part made linear inside SOFT_COULOMB; in units of q q' COULOMB."""
    r = math.sqrt(r2)
    a = alpha * r
    if r >= SOFT_COULOMB:
        u = math.erfc(a) / r
        return u, -(u + 1.1283791670955126 * alpha * math.exp(-a * a)) / r2
    bare, d_bare = (2.0 - r / SOFT_COULOMB) / SOFT_COULOMB, -1.0 / (SOFT_COULOMB**2 * max(r, 1e-9))
    u, du = coulomb_inside(r2, alpha)
    return bare - u, d_bare - du


@compiled
def coulomb_inside(r2, alpha):
    """erf(alpha r)/r and its (d/dr)/r: what the reciprocal sum brings of 1/r, finite at 0."""
    a2 = alpha * alpha
    s = a2 * r2
    if s < 1e-3:
        c = 1.1283791670955126 * alpha
        return c * (1.0 - s / 3.0 + s * s / 10.0), c * a2 * (-2.0 / 3.0 + 0.4 * s - s * s / 7.0)
    r = math.sqrt(r2)
    u = math.erf(alpha * r) / r
    return u, (1.1283791670955126 * alpha * math.exp(-s) - u) / r2


# ------------------------------------------------------------------ real space


@compiled
def exponentials(x, n, scratch, out):
    """out = exp(x) for the first n of x in (-700, 700): 2^m exp(f) with |f| < 0.35, without a branch.

    The processor's vector units work on several numbers at a time here, seven times as fast as calls of `exp`. Adding
    1.5 * 2^52 leaves m in the low bits of `scratch`; shifted into the exponent field they are 2^m. Error 1e-11.
    """
    bits = scratch.view(np.int64)
    for k in range(n):
        scratch[k] = x[k] * 1.4426950408889634 + ROUNDING
    for k in range(n):
        m = scratch[k] - ROUNDING
        f = x[k] - m * 0.6931471803691238 - m * 1.9082149292705877e-10
        high = f * (1 / 120 + f * (1 / 720 + f * (1 / 5040 + f * (1 / 40320 + f / 362880))))
        out[k] = 1.0 + f * (1.0 + f * (0.5 + f * (1 / 6 + f * (1 / 24 + high))))
    for k in range(n):
        bits[k] = (bits[k] + 1023) << 52
    for k in range(n):
        out[k] *= scratch[k]


@compiled
def pair_terms(r2, A, B, C, qq, alpha, limit, buffer, u, du):
    """u and u'/r of pairs outside the soft region, zero where r2 >= limit: `exp6_pair` + qq `coulomb_pair`, vectorised.

    Both share the exponential of Ewald's real-space terms; erfc is 7.1.26 of Abramowitz & Stegun (error below
    1.5e-7, less than 1e-7 eV in any energy here). `buffer` has five rows.
    """
    n = len(r2)
    a2 = alpha * alpha
    # what the Ewald terms still are at the cutoff is taken off, so that the energy has no step there
    edge = a2 * limit
    edge_coulomb = math.erfc(math.sqrt(edge)) / math.sqrt(limit)
    edge_dispersion = (1.0 + edge * (1.0 + 0.5 * edge)) * math.exp(-edge) / limit**3
    first, second, scratch, repulsions, gaussians = buffer[0], buffer[1], buffer[2], buffer[3], buffer[4]
    for k in range(n):
        first[k] = max(-B[k] * math.sqrt(r2[k]), -700.0)
        second[k] = max(-a2 * r2[k], -700.0)
    exponentials(first, n, scratch, repulsions)
    exponentials(second, n, scratch, gaussians)
    for k in range(n):
        inverse2 = 1.0 / r2[k]
        r = math.sqrt(r2[k])
        inverse = r * inverse2
        s = a2 * r2[k]
        g = gaussians[k]
        repulsion = A[k] * repulsions[k]
        attraction = C[k] * inverse2 * inverse2 * inverse2
        shape = (1.0 + s * (1.0 + 0.5 * s)) * g
        t = 1.0 / (1.0 + 0.3275911 * alpha * r)
        tail = t * (
            0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
        )
        v = tail * g * inverse
        value = repulsion - attraction * shape + qq[k] * v + (C[k] * edge_dispersion - qq[k] * edge_coulomb)
        slope = -B[k] * repulsion * inverse + attraction * (6.0 * inverse2 * shape + a2 * s * s * g)
        slope -= qq[k] * (v + 1.1283791670955126 * alpha * g) * inverse2
        inside = r2[k] < limit
        u[k] = value if inside else 0.0
        du[k] = slope if inside else 0.0


@compiled
def atom_pairs(x, start, lattice, R, w, images, reach):
    """Atoms i closer than `reach` (Å) to atom j of an image, for every image and j.

    Returned as partners of i and j, sorted by image and j; the partners of the m-th (image, j) are rows first[m] to
    first[m + 1].
    """
    at_i, at_j = np.empty(1024, np.int64), np.empty(1024, np.int64)
    segments = 0
    for e in range(len(images)):
        segments += start[images[e, 1] + 1] - start[images[e, 1]]
    first = np.empty(segments + 1, np.int64)
    moved = np.empty_like(x)
    t, n, limit, count, m = np.empty(3), np.empty(3), reach * reach, 0, 0
    for e in range(len(images)):
        a, b, o = images[e, 0], images[e, 1], images[e, 2]
        n[0], n[1], n[2] = images[e, 3], images[e, 4], images[e, 5]
        _rotate(x, start[b], start[b + 1], R[o], moved)
        _shift(w[o], n, lattice, t)
        room = (start[a + 1] - start[a]) * (start[b + 1] - start[b])
        if count + room > len(at_i):
            more = np.empty(len(at_i) + room, np.int64)
            at_i, at_j = np.concatenate((at_i, more)), np.concatenate((at_j, more))
        for j in range(start[b], start[b + 1]):
            first[m] = count
            m += 1
            y0, y1, y2 = moved[j, 0] + t[0], moved[j, 1] + t[1], moved[j, 2] + t[2]
            for i in range(start[a], start[a + 1]):
                if (x[i, 0] - y0) ** 2 + (x[i, 1] - y1) ** 2 + (x[i, 2] - y2) ** 2 < limit:
                    at_i[count], at_j[count] = i, j
                    count += 1
    first[m] = count
    return at_i[:count].copy(), at_j[:count].copy(), first


@compiled
def pair_coefficients(at_i, at_j, types, q, A, B, C):
    """Rows A, B, C and COULOMB q q' of every pair."""
    out = np.empty((4, len(at_i)))
    for k in range(len(at_i)):
        i, j = at_i[k], at_j[k]
        p, s = types[i], types[j]
        out[0, k], out[1, k], out[2, k], out[3, k] = A[p, s], B[p, s], C[p, s], COULOMB * q[i] * q[j]
    return out


@compiled
def real_energy(x, start, lattice, R, w, neighbours, coefficients, types, soft, alpha, cutoff, force, virial):
    """Real-space energy per asymmetric unit; adds dE/dx to `force` and sum g (x) d, the affine strain gradient,
    to `virial`. `neighbours` = images, their weights, and `atom_pairs`; `coefficients` = `pair_coefficients`.

    Three passes: distances of all pairs, all pair functions at once, gradients back to the atoms.
    """
    images, weights, at_i, at_j, first = neighbours
    room, images_n = len(at_i), len(images)
    d, r2, u, du = np.empty((3, room)), np.empty(room), np.empty(room), np.empty(room)
    y = np.empty((len(first), 3))
    moved, t, n = np.empty_like(x), np.empty(3), np.empty(3)
    widest = max(np.max(soft), SOFT_COULOMB) ** 2
    close, m = False, 0
    for e in range(images_n):
        b, o = images[e, 1], images[e, 2]
        n[0], n[1], n[2] = images[e, 3], images[e, 4], images[e, 5]
        _rotate(x, start[b], start[b + 1], R[o], moved)
        _shift(w[o], n, lattice, t)
        for j in range(start[b], start[b + 1]):
            y0, y1, y2 = moved[j, 0] + t[0], moved[j, 1] + t[1], moved[j, 2] + t[2]
            y[m, 0], y[m, 1], y[m, 2] = y0, y1, y2
            for k in range(first[m], first[m + 1]):
                i = at_i[k]
                d0, d1, d2 = x[i, 0] - y0, x[i, 1] - y1, x[i, 2] - y2
                d[0, k], d[1, k], d[2, k] = d0, d1, d2
                r2[k] = d0 * d0 + d1 * d1 + d2 * d2
                close |= r2[k] < widest
            m += 1
    A, B, C, qq = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    pair_terms(r2, A, B, C, qq, alpha, cutoff * cutoff, np.empty((5, room)), u, du)
    if close:
        for k in range(room):
            edge = soft[types[at_i[k]], types[at_j[k]]]
            if r2[k] < max(edge, SOFT_COULOMB) ** 2:
                value, slope = exp6_pair(r2[k], A[k], B[k], C[k], edge, alpha)
                charge, d_charge = coulomb_pair(r2[k], alpha)
                u[k], du[k] = value + qq[k] * charge, slope + qq[k] * d_charge
    # with F_i the gradient that x_i alone feels and f_j that of each image atom y_j, sum g (x) d is
    # sum F_i (x) x_i - sum f_j (x) y_j: the pairs need not be touched for it
    own = np.zeros_like(x)
    energy, m = 0.0, 0
    for e in range(images_n):
        b, o, weight = images[e, 1], images[e, 2], weights[e]
        total = 0.0
        for j in range(start[b], start[b + 1]):
            f0 = f1 = f2 = 0.0
            for k in range(first[m], first[m + 1]):
                i = at_i[k]
                total += u[k]
                g = weight * du[k]
                g0, g1, g2 = g * d[0, k], g * d[1, k], g * d[2, k]
                own[i, 0] += g0
                own[i, 1] += g1
                own[i, 2] += g2
                f0 += g0
                f1 += g1
                f2 += g2
            for k in range(3):  # the image's gradient, turned back to the asymmetric unit
                force[j, k] -= R[o, 0, k] * f0 + R[o, 1, k] * f1 + R[o, 2, k] * f2
                virial[0, k] -= f0 * y[m, k]
                virial[1, k] -= f1 * y[m, k]
                virial[2, k] -= f2 * y[m, k]
            m += 1
        energy += weight * total
    for i in range(len(x)):
        for p in range(3):
            force[i, p] += own[i, p]
            for s in range(3):
                virial[p, s] += own[i, p] * x[i, s]
    return energy


@compiled
def _add_symmetric(matrix, v00, v01, v02, v11, v12, v22):
    matrix[0, 0] += v00
    matrix[1, 1] += v11
    matrix[2, 2] += v22
    matrix[0, 1] += v01
    matrix[1, 0] += v01
    matrix[0, 2] += v02
    matrix[2, 0] += v02
    matrix[1, 2] += v12
    matrix[2, 1] += v12


@compiled
def overlap_energy(x, start, lattice, R, w, neighbours, size, force, virial):
    """Soft spheres: sum (size_ij - r)^2 over overlapping atoms of different molecules (Å^2), as `real_energy`."""
    images, weights, at_i, at_j, first = neighbours
    energy = 0.0
    moved = np.empty_like(x)
    t, n = np.empty(3), np.empty(3)
    v00 = v01 = v02 = v11 = v12 = v22 = 0.0
    m = 0
    for e in range(len(images)):
        begin, m = first[m], m + start[images[e, 1] + 1] - start[images[e, 1]]
        if begin == first[m]:
            continue
        b, o = images[e, 1], images[e, 2]
        n[0], n[1], n[2] = images[e, 3], images[e, 4], images[e, 5]
        _rotate(x, start[b], start[b + 1], R[o], moved)
        _shift(w[o], n, lattice, t)
        weight = weights[e]
        for k in range(begin, first[m]):
            i, j = at_i[k], at_j[k]
            d0, d1, d2 = (
                x[i, 0] - moved[j, 0] - t[0],
                x[i, 1] - moved[j, 1] - t[1],
                x[i, 2] - moved[j, 2] - t[2],
            )
            r2 = d0 * d0 + d1 * d1 + d2 * d2
            if r2 >= size[i, j] * size[i, j]:
                continue
            r = max(math.sqrt(r2), 1e-9)
            depth = size[i, j] - r
            energy += weight * depth * depth
            g = -2.0 * weight * depth / r
            g0, g1, g2 = g * d0, g * d1, g * d2
            force[i, 0] += g0
            force[i, 1] += g1
            force[i, 2] += g2
            for d in range(3):
                force[j, d] -= R[o, 0, d] * g0 + R[o, 1, d] * g1 + R[o, 2, d] * g2
            v00 += g0 * d0
            v01 += g0 * d1
            v02 += g0 * d2
            v11 += g1 * d1
            v12 += g1 * d2
            v22 += g2 * d2
    _add_symmetric(virial, v00, v01, v02, v11, v12, v22)
    return energy


# ------------------------------------------------------------------ reciprocal space


@compiled
def reciprocal_vectors(inverse, W, k_max):
    """Integer rows (h, k, l) with |k| < k_max, one of each orbit under the point group and inversion, and the
    orbit sizes. Members of an orbit have equal |S(k)|, so one speaks for all."""
    order = np.empty(3, np.int64)
    for d in range(3):  # |h| = |k . a| / 2 pi <= |k| |a| / 2 pi; rows of the lattice are a, b, c
        order[d] = 0
    lattice = np.linalg.inv(inverse)
    for d in range(3):
        length = math.sqrt(lattice[d, 0] ** 2 + lattice[d, 1] ** 2 + lattice[d, 2] ** 2)
        order[d] = min(int(k_max * length / (2 * math.pi)), MAX_ORDER)
    rows, sizes = np.empty((128, 3), np.int64), np.empty(128)
    count = 0
    v, orbit = np.empty(3, np.int64), np.empty((2 * len(W), 3), np.int64)
    for h in range(0, order[0] + 1):
        for k in range(-order[1], order[1] + 1):
            for m in range(-order[2], order[2] + 1):
                if h == 0 and (k < 0 or (k == 0 and m <= 0)):
                    continue
                k2 = 0.0
                for d in range(3):
                    k2 += (inverse[d, 0] * h + inverse[d, 1] * k + inverse[d, 2] * m) ** 2
                if 4 * math.pi**2 * k2 >= k_max * k_max:
                    continue
                members, largest = 0, True
                for o in range(len(W)):
                    for p in range(3):
                        v[p] = W[o, 0, p] * h + W[o, 1, p] * k + W[o, 2, p] * m
                    for sign in (1, -1):
                        c0, c1, c2 = sign * v[0], sign * v[1], sign * v[2]
                        if c0 > h or (c0 == h and (c1 > k or (c1 == k and c2 > m))):
                            largest = False
                            break
                        new = True
                        for e in range(members):
                            if orbit[e, 0] == c0 and orbit[e, 1] == c1 and orbit[e, 2] == c2:
                                new = False
                                break
                        if new:
                            orbit[members, 0], orbit[members, 1], orbit[members, 2] = c0, c1, c2
                            members += 1
                    if not largest:
                        break
                if not largest:
                    continue
                if count == len(rows):
                    rows = np.concatenate((rows, np.empty_like(rows)))
                    sizes = np.concatenate((sizes, np.empty_like(sizes)))
                rows[count, 0], rows[count, 1], rows[count, 2] = h, k, m
                sizes[count] = members
                count += 1
    return rows[:count], sizes[:count]


@compiled
def reciprocal_energy(x, lattice, inverse, W, w, waves, sizes, q, c, alpha, force, virial):
    """Reciprocal, self and k = 0 terms of both Ewald sums per asymmetric unit; adds gradients as `real_energy`.

    S(k) = sum_o exp(2 pi i k.w_o) F(W_o^T k) with F(k) = sum_j q_j exp(2 pi i k.x_j) over the asymmetric unit.
    """
    atoms, ops = len(x), len(W)
    volume = abs(np.linalg.det(lattice))
    coulomb = 2.0 * math.pi * COULOMB / volume
    dispersion = -(math.pi**1.5) / (24.0 * volume)
    self_q = self_c = sum_c = 0.0
    for i in range(atoms):
        self_q += q[i] * q[i]
        self_c += c[i] * c[i]
        sum_c += c[i]
    energy = -COULOMB * alpha / math.sqrt(math.pi) * self_q * ops + alpha**6 / 12.0 * self_c * ops
    zero = -(math.pi**1.5) * alpha**3 / (6.0 * volume) * (sum_c * ops) ** 2
    energy += zero
    for d in range(3):
        virial[d, d] -= zero / ops  # 1/V

    # exp(2 pi i n x) for every n up to the highest order
    top = 1
    for e in range(len(waves)):
        for o in range(ops):
            for p in range(3):
                s = W[o, 0, p] * waves[e, 0] + W[o, 1, p] * waves[e, 1] + W[o, 2, p] * waves[e, 2]
                top = max(top, abs(int(s)))
    power = np.empty((3, top + 1, atoms), np.complex128)
    for i in range(atoms):
        for d in range(3):
            f = x[i, 0] * inverse[0, d] + x[i, 1] * inverse[1, d] + x[i, 2] * inverse[2, d]
            step = complex(math.cos(2 * math.pi * f), math.sin(2 * math.pi * f))
            power[d, 0, i] = 1.0
            for n in range(top):
                power[d, n + 1, i] = power[d, n, i] * step
    wave = np.empty((ops, atoms), np.complex128)
    kv = np.empty((ops, 3))
    for e in range(len(waves)):
        k0, k1, k2 = waves[e, 0], waves[e, 1], waves[e, 2]
        Sq, Sc = 0.0 + 0.0j, 0.0 + 0.0j
        for o in range(ops):
            h = W[o, 0, 0] * k0 + W[o, 1, 0] * k1 + W[o, 2, 0] * k2
            k = W[o, 0, 1] * k0 + W[o, 1, 1] * k1 + W[o, 2, 1] * k2
            m = W[o, 0, 2] * k0 + W[o, 1, 2] * k1 + W[o, 2, 2] * k2
            for d in range(3):
                kv[o, d] = 2 * math.pi * (inverse[d, 0] * h + inverse[d, 1] * k + inverse[d, 2] * m)
            angle = 2 * math.pi * (k0 * w[o, 0] + k1 * w[o, 1] + k2 * w[o, 2])
            phase = complex(math.cos(angle), math.sin(angle))
            for i in range(atoms):
                z = power[0, abs(int(h)), i] if h >= 0 else power[0, abs(int(h)), i].conjugate()
                z *= power[1, abs(int(k)), i] if k >= 0 else power[1, abs(int(k)), i].conjugate()
                z *= power[2, abs(int(m)), i] if m >= 0 else power[2, abs(int(m)), i].conjugate()
                z *= phase
                wave[o, i] = z
                Sq += q[i] * z
                Sc += c[i] * z
        kk = kv[0, 0] ** 2 + kv[0, 1] ** 2 + kv[0, 2] ** 2
        b = math.sqrt(kk) / (2 * alpha)
        g = math.exp(-b * b)
        decay = math.sqrt(math.pi) * math.erfc(b)
        fq = coulomb * g / kk
        fc = dispersion * 8 * alpha**3 * (b**3 * decay + (0.5 - b * b) * g)
        dfq = -fq * (0.5 / alpha**2 + 2.0 / kk)  # (df/dk)/k
        dfc = dispersion * 8 * alpha**3 * 3 * b * (b * decay - g) / (2 * alpha) / math.sqrt(kk)
        nq = sizes[e] * (Sq.real**2 + Sq.imag**2)
        nc = sizes[e] * (Sc.real**2 + Sc.imag**2)
        energy += fq * nq + fc * nc
        iso = (fq * nq + fc * nc) / ops
        slope = (dfq * nq + dfc * nc) / (ops * ops)
        for p in range(3):
            virial[p, p] -= iso
        for o in range(ops):  # k k^T averaged over the orbit
            for p in range(3):
                for s in range(3):
                    virial[p, s] -= slope * kv[o, p] * kv[o, s]
            for i in range(atoms):
                z = wave[o, i]
                pull = fq * q[i] * (Sq.imag * z.real - Sq.real * z.imag)
                pull += fc * c[i] * (Sc.imag * z.real - Sc.real * z.imag)
                pull *= 2.0 * sizes[e] / ops
                force[i, 0] += pull * kv[o, 0]
                force[i, 1] += pull * kv[o, 1]
                force[i, 2] += pull * kv[o, 2]
    return energy / ops


@compiled
def intramolecular_correction(x, start, q, c, alpha, force):
    """Takes out what the reciprocal sum wrongly brings between atoms of one molecule (constant if rigid)."""
    energy = 0.0
    for m in range(len(start) - 1):
        for i in range(start[m], start[m + 1]):
            for j in range(start[m], i):
                d0, d1, d2 = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
                r2 = d0 * d0 + d1 * d1 + d2 * d2
                u, du = coulomb_inside(r2, alpha)
                v, dv = dispersion_inside(r2, alpha)
                qq, cc = COULOMB * q[i] * q[j], c[i] * c[j]
                energy += -qq * u + cc * v
                g = -qq * du + cc * dv
                force[i, 0] += g * d0
                force[i, 1] += g * d1
                force[i, 2] += g * d2
                force[j, 0] -= g * d0
                force[j, 1] -= g * d1
                force[j, 2] -= g * d2
    return energy


# ------------------------------------------------------------------ rigid bodies


@compiled
def rigid_gradient(x, start, centroid, lattice, force, virial, centre_force, torque, rigid_virial):
    """From atoms to bodies: total force, torque about the centroid, and the strain gradient at rigid molecules.

    Under strain only centroids move, so what strain would have done to atoms relative to them is taken out.
    """
    rigid_virial[:, :] = virial
    for m in range(len(start) - 1):
        c = np.zeros(3)
        for d in range(3):
            for k in range(3):
                c[d] += centroid[m, k] * lattice[k, d]
        centre_force[m, :] = 0.0
        torque[m, :] = 0.0
        for i in range(start[m], start[m + 1]):
            r0, r1, r2 = x[i, 0] - c[0], x[i, 1] - c[1], x[i, 2] - c[2]
            f0, f1, f2 = force[i, 0], force[i, 1], force[i, 2]
            centre_force[m, 0] += f0
            centre_force[m, 1] += f1
            centre_force[m, 2] += f2
            torque[m, 0] += r1 * f2 - r2 * f1
            torque[m, 1] += r2 * f0 - r0 * f2
            torque[m, 2] += r0 * f1 - r1 * f0
            rigid_virial[0, 0] -= f0 * r0
            rigid_virial[0, 1] -= f0 * r1
            rigid_virial[0, 2] -= f0 * r2
            rigid_virial[1, 0] -= f1 * r0
            rigid_virial[1, 1] -= f1 * r1
            rigid_virial[1, 2] -= f1 * r2
            rigid_virial[2, 0] -= f2 * r0
            rigid_virial[2, 1] -= f2 * r1
            rigid_virial[2, 2] -= f2 * r2


@compiled
def molecule_pair_energies(x, start, lattice, R, w, images, types, q, A, B, C, soft, count, out):
    """For each body the `count` lowest energies with single neighbours (bare functions), ascending, in `out`."""
    moved = np.empty_like(x)
    t, n = np.empty(3), np.empty(3)
    out[:, :] = 0.0
    for e in range(len(images)):
        a, b, o = images[e, 0], images[e, 1], images[e, 2]
        n[0], n[1], n[2] = images[e, 3], images[e, 4], images[e, 5]
        _rotate(x, start[b], start[b + 1], R[o], moved)
        _shift(w[o], n, lattice, t)
        energy = 0.0
        for j in range(start[b], start[b + 1]):
            for i in range(start[a], start[a + 1]):
                r2 = (
                    (x[i, 0] - moved[j, 0] - t[0]) ** 2
                    + (x[i, 1] - moved[j, 1] - t[1]) ** 2
                    + (x[i, 2] - moved[j, 2] - t[2]) ** 2
                )
                p, s = types[i], types[j]
                u, _ = exp6_pair(r2, A[p, s], B[p, s], C[p, s], soft[p, s], 0.0)
                v, _ = coulomb_pair(r2, 0.0)
                energy += u + COULOMB * q[i] * q[j] * v
        slot = count - 1  # insertion into a short sorted list
        if energy < out[a, slot]:
            while slot > 0 and out[a, slot - 1] > energy:
                out[a, slot] = out[a, slot - 1]
                slot -= 1
            out[a, slot] = energy


@compiled
def closest_contact(x, start, lattice, R, w, images, size):
    """The smallest (distance / size_ij) between atoms of different molecules."""
    moved = np.empty_like(x)
    t, n = np.empty(3), np.empty(3)
    closest = 1e9
    for e in range(len(images)):
        a, b, o = images[e, 0], images[e, 1], images[e, 2]
        n[0], n[1], n[2] = images[e, 3], images[e, 4], images[e, 5]
        _rotate(x, start[b], start[b + 1], R[o], moved)
        _shift(w[o], n, lattice, t)
        for j in range(start[b], start[b + 1]):
            for i in range(start[a], start[a + 1]):
                r2 = (
                    (x[i, 0] - moved[j, 0] - t[0]) ** 2
                    + (x[i, 1] - moved[j, 1] - t[1]) ** 2
                    + (x[i, 2] - moved[j, 2] - t[2]) ** 2
                )
                closest = min(closest, math.sqrt(r2) / size[i, j])
    return closest
