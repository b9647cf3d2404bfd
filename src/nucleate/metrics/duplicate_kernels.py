"""Compiled loops of `fingerprint` and `duplicates`: nearest atoms by class, and pairs of near fingerprints."""

import math

import numpy as np

from nucleate.compiled import compiled


@compiled
def nearest_by_class(x, start, centre, radius, classes, lattice, inverse, cutoff, out):
    """Distances from atom i to the nearest atoms of every class in other molecules (their images included).

    Body a has the atoms start[a]:start[a + 1] within radius[a] Å of centre[a]; positions x in Å, whole
    molecules. Fills out[i, class] with the smallest distances, ascending; infinity where fewer lie within
    `cutoff` Å. The images of body b that can matter to a are those whose centre lies within
    cutoff + radius[a] + radius[b], and along axis d of the cell a centre n cells away is at least
    |n + f_d| height_d from a, f being the fractional vector between the centres.
    """
    k = out.shape[2]
    low, high, f, t, height = (
        np.empty(3, np.int64),
        np.empty(3, np.int64),
        np.empty(3),
        np.empty(3),
        np.empty(3),
    )
    for d in range(3):
        height[d] = 1.0 / math.sqrt(inverse[0, d] ** 2 + inverse[1, d] ** 2 + inverse[2, d] ** 2)
    out[:] = math.inf
    for a in range(len(start) - 1):
        for b in range(len(start) - 1):
            reach = cutoff + radius[a] + radius[b]
            for d in range(3):
                f[d] = 0.0
                for e in range(3):
                    f[d] += (centre[b, e] - centre[a, e]) * inverse[e, d]
                low[d] = math.ceil(-reach / height[d] - f[d])
                high[d] = math.floor(reach / height[d] - f[d])
            for n0 in range(low[0], high[0] + 1):
                for n1 in range(low[1], high[1] + 1):
                    for n2 in range(low[2], high[2] + 1):
                        if a == b and n0 == 0 and n1 == 0 and n2 == 0:
                            continue  # the molecule itself
                        away = 0.0
                        for d in range(3):
                            t[d] = n0 * lattice[0, d] + n1 * lattice[1, d] + n2 * lattice[2, d]
                            away += (centre[b, d] + t[d] - centre[a, d]) ** 2
                        if away > reach * reach:
                            continue
                        for i in range(start[a], start[a + 1]):
                            _insert(i, x, t, start[b], start[b + 1], classes, cutoff * cutoff, k, out)
    for i in range(out.shape[0]):
        for c in range(out.shape[1]):
            for m in range(k):
                out[i, c, m] = math.sqrt(out[i, c, m])


@compiled
def _insert(i, x, t, first, last, classes, limit, k, out):
    """Sort the squared distances from atom i to atoms first:last, shifted by t, into out[i]."""
    y0, y1, y2 = x[i, 0] - t[0], x[i, 1] - t[1], x[i, 2] - t[2]
    for j in range(first, last):
        square = (y0 - x[j, 0]) ** 2 + (y1 - x[j, 1]) ** 2 + (y2 - x[j, 2]) ** 2
        c = classes[j]
        if square > limit or square >= out[i, c, k - 1]:
            continue
        m = k - 1
        while m > 0 and out[i, c, m - 1] > square:
            out[i, c, m] = out[i, c, m - 1]
            m -= 1
        out[i, c, m] = square


@compiled
def near_pairs(
    values, log_volume, energy, group, cursor, window, energy_window, low, high, most, first, second
):
    """Pairs i < j of different groups with low < max |values_i - values_j| <= high; returns how many.

    Rows ascend in `log_volume`, so those within `window` of i follow it. Energies count where both are
    numbers. Row i goes on at cursor[i] and stops after `most` pairs, so a call needs room for most * rows
    pairs and the next call finds the others: `cursor` is moved. Meanwhile groups may have been joined.
    """
    count, rows, width = 0, values.shape[0], values.shape[1]
    for i in range(rows):
        taken, j = 0, max(cursor[i], i + 1)
        while taken < most and j < rows and log_volume[j] - log_volume[i] <= window:
            if group[i] != group[j] and not abs(energy[i] - energy[j]) > energy_window:
                distance, d = 0.0, 0
                while d < width and distance <= high:
                    distance = max(distance, abs(values[i, d] - values[j, d]))
                    d += 1
                if low < distance <= high:
                    first[count], second[count] = i, j
                    count += 1
                    taken += 1
            j += 1
        cursor[i] = j
    return count
