"""The inner part of a packing comparison, compiled: lay a cluster on a crystal, judge, superpose, repeat.

Notation. The cluster has molecules k = 0 (the centre), 1, ... with atoms x_ki and centroids c_k; the other crystal
has molecules m. A motion is x -> R x + t with R improper where the hand is -1. Arguments travel in four tuples:

    cluster     positions (n, width, 3), sizes (n), centroids (n, 3), kinds (n)
    crystal     positions (m, width, 3), centroids (m, 3), kinds (m), lattice, inverse; kind -1: none of the cluster's
    graphs      maps (total, width), first map of each kind (kinds + 1), classes (kinds, width)
    tolerances  distance (relative), angle (rad)

The maps of a kind are the automorphisms of its graph; a kind without maps has too many, and pairs its equivalent
atoms (one class) by distance.
"""

import math

import numpy as np

from nucleate.compiled import compiled

SHORTEST = 3.0  # Å: closer than atoms of different molecules come, so no distance needs a finer tolerance
JUDGED = 60_000  # pairs of atoms looked at to choose among starts: all starts, unless there are very many
REFINED = 8  # starts that are refined, the most promising ones
ROUNDS = 4  # of assigning and superposing
TWICE = 1e-3  # Å: two centroids as near as this are one molecule


@compiled
def search(cluster, crystal, graphs, tolerances, rotations, translations, hands, centres):
    """Refine the most promising starts. The best match: (count, RMSD in Å, start, R, t, RMSD of the centre alone)."""
    positions, sizes, _, kinds = cluster
    n, width = len(kinds), positions.shape[1]
    molecule, shift = np.empty(n, np.int64), np.empty((n, 3))
    allowed, ok, alone = np.empty(n, np.bool_), np.empty(n, np.bool_), np.zeros(n, np.bool_)
    target = np.zeros((n, width, 3))
    R, t, fit, place = np.empty((3, 3)), np.empty(3), np.empty((3, 3)), np.empty(3)
    alone[0] = True
    order = _most_promising(
        cluster,
        crystal,
        graphs,
        tolerances,
        rotations,
        translations,
        hands,
        centres,
        (molecule, shift, allowed, ok, target, fit, place),
    )
    best_count, best_rmsd, best_start, best_alone = 0, np.inf, -1, np.inf
    best_R, best_t = np.eye(3), np.zeros(3)
    for s in order:
        R[:], t[:] = rotations[s], translations[s]
        own_count, own_rmsd = 0, np.inf
        for _ in range(ROUNDS):
            _assign(cluster, crystal, tolerances, R, t, centres[s], molecule, shift, allowed)
            _lay(cluster, crystal, graphs, R, molecule, shift, allowed, target)
            count = _judge(cluster, crystal, tolerances, R, molecule, shift, allowed, target, ok)
            rmsd = _superpose(positions, sizes, target, ok, hands[s], fit, place)
            if count < own_count or (count == own_count and rmsd > own_rmsd - 1e-9):
                break
            own_count, own_rmsd = count, rmsd
            # of equals the proper motion
            if count > best_count or (count == best_count and rmsd - 1e-6 * hands[s] < best_rmsd):
                best_count, best_rmsd, best_start = count, rmsd - 1e-6 * hands[s], s
                best_R[:], best_t[:] = fit, place
                best_alone = _superpose(positions, sizes, target, alone, hands[s], R, t)
            # what is nearly right pulls the rest into place: superpose on all whose centroids agree
            _superpose(positions, sizes, target, allowed, hands[s], R, t)
    return best_count, best_rmsd + 1e-6 * hands[best_start], best_start, best_R, best_t, best_alone


@compiled
def _most_promising(cluster, crystal, graphs, tolerances, rotations, translations, hands, centres, work):
    """Numbers of the starts that match most: all of them by centroids, the best of those atom by atom.

    Of those that match equally many the smaller RMSD comes first: wide tolerances let all ways pass to turn a
    small molecule.
    """
    positions, sizes, _, kinds = cluster
    _, first, _ = graphs
    molecule, shift, allowed, ok, target, fit, spot = work
    score = np.empty(len(centres))
    for s in range(len(centres)):
        score[s] = _assign(
            cluster, crystal, tolerances, rotations[s], translations[s], centres[s], molecule, shift, allowed
        )
    # a stable sort: of equal starts the one that fits its molecule best stays first
    order = np.argsort(-score, kind="mergesort")
    maps = first[kinds[0] + 1] - first[kinds[0]]
    pairs = sizes.sum() * (maps if maps > 0 else 200)
    order = order[: max(JUDGED // pairs, REFINED)]
    score = score[order]
    for place in range(len(order)):
        s = order[place]
        _assign(
            cluster, crystal, tolerances, rotations[s], translations[s], centres[s], molecule, shift, allowed
        )
        _lay(cluster, crystal, graphs, rotations[s], molecule, shift, allowed, target)
        count = _judge(cluster, crystal, tolerances, rotations[s], molecule, shift, allowed, target, ok)
        rmsd = _superpose(positions, sizes, target, ok, hands[s], fit, spot)
        score[place] += 100 * count - 0.1 * rmsd
    return order[np.argsort(-score, kind="mergesort")][:REFINED]


@compiled
def _assign(cluster, crystal, tolerances, R, t, centre, molecule, shift, allowed):
    """The nearest molecule of its kind for each moved centroid, judged by centroids alone.

    Images come from rounding in the reduced cell: exact for gaps below half its smallest height. Returns how many
    are allowed, less a little for the gaps: a score to sort starts by.
    """
    _, _, centroids, kinds = cluster
    _, theirs, their_kinds, lattice, inverse = crystal
    distance, angle = tolerances
    n = len(kinds)
    gap = np.empty(n)
    arm, found, moved, away = np.empty((n, 3)), np.empty((n, 3)), np.empty(3), np.empty(3)
    for k in range(n):
        for d in range(3):
            arm[k, d] = R[d, 0] * centroids[k, 0] + R[d, 1] * centroids[k, 1] + R[d, 2] * centroids[k, 2]
            moved[d] = arm[k, d] + t[d]
        gap[k] = np.inf
        for m in range(len(their_kinds)):
            if their_kinds[m] != kinds[k] or (k == 0 and m != centre):
                continue
            near = _nearest_image(moved, theirs[m], lattice, inverse, away)
            if near < gap[k]:
                gap[k], molecule[k] = near, m
                shift[k] = away
                found[k] = theirs[m] + away
        allowed[k] = gap[k] < np.inf and _same_arm(arm[k] - arm[0], found[k] - found[0], distance, angle)
    # a molecule wanted twice goes to the nearer; the centre stays
    for k in range(n):
        for j in range(k):
            if (
                allowed[k]
                and allowed[j]
                and molecule[k] == molecule[j]
                and math.sqrt(_square(found[k] - found[j])) < TWICE
            ):
                if j == 0 or gap[j] <= gap[k]:
                    allowed[k] = False
                else:
                    allowed[j] = False
    count, total = 0, 0.0
    for k in range(n):
        if allowed[k]:
            count += 1
            total += gap[k]
    return count - 1e-3 * total / n


@compiled
def _nearest_image(point, other, lattice, inverse, away):
    """Distance (Å) to the nearest image of `other`, and in `away` the lattice translation to it."""
    for d in range(3):
        away[d] = 0.0
    for k in range(3):
        f = 0.0
        for d in range(3):
            f += (point[d] - other[d]) * inverse[d, k]
        f = np.round(f)
        for d in range(3):
            away[d] += f * lattice[k, d]
    total = 0.0
    for d in range(3):
        total += (point[d] - other[d] - away[d]) ** 2
    return math.sqrt(total)


@compiled
def _same_arm(a, b, distance, angle):
    """Do two vectors from the centre agree in length and direction? Short ones by their difference."""
    length, other = math.sqrt(_square(a)), math.sqrt(_square(b))
    if abs(length - other) > distance * max(length, SHORTEST):
        return False
    if math.sqrt(_square(a - b)) <= 2 * math.sin(angle / 2) * SHORTEST:
        return True
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] >= math.cos(angle) * length * other


@compiled
def _lay(cluster, crystal, graphs, R, molecule, shift, allowed, target):
    """Atoms of the assigned molecules in that equivalent order which is nearest to the moved cluster."""
    positions, sizes, centroids, kinds = cluster
    theirs, middle, _, _, _ = crystal
    maps, first, classes = graphs
    width = positions.shape[1]
    ours, overlap, chosen = np.empty((width, 3)), np.empty((width, width)), np.empty(width, np.int64)
    for k in range(len(kinds)):
        if not allowed[k]:
            continue
        size, m, kind = sizes[k], molecule[k], kinds[k]
        for i in range(size):
            for d in range(3):
                ours[i, d] = 0.0
                for e in range(3):
                    ours[i, d] += R[d, e] * (positions[k, i, e] - centroids[k, e])
        for i in range(size):
            for j in range(size):
                overlap[i, j] = 0.0
                for d in range(3):
                    overlap[i, j] += ours[i, d] * (theirs[m, j, d] - middle[m, d])
        if first[kind + 1] > first[kind]:
            best = -np.inf
            for p in range(first[kind], first[kind + 1]):
                gain = 0.0  # larger is nearer: |x - y|^2 = |x|^2 + |y|^2 - 2 x.y
                for i in range(size):
                    gain += overlap[i, maps[p, i]]
                if gain > best:
                    best = gain
                    chosen[:size] = maps[p, :size]
        else:
            _pair(overlap, classes[kind], size, chosen)
        for i in range(size):
            for d in range(3):
                target[k, i, d] = theirs[m, chosen[i], d] + shift[k, d]


@compiled
def _pair(overlap, classes, size, chosen):
    """The pairing of atoms within their classes of largest overlap: shortest augmenting paths (Jonker-Volgenant)."""
    row_of = np.full(size, -1)
    u, v = np.zeros(size), np.zeros(size)
    shortest, via, done = np.empty(size), np.empty(size, np.int64), np.empty(size, np.bool_)
    for start in range(size):
        shortest[:], done[:] = np.inf, False
        row, column, reached = start, -1, 0.0
        while True:
            for j in range(size):
                if not done[j] and classes[j] == classes[start]:
                    cost = reached - overlap[row, j] - u[row] - v[j]
                    if cost < shortest[j]:
                        shortest[j], via[j] = cost, row
            column = -1
            for j in range(size):
                if not done[j] and (column < 0 or shortest[j] < shortest[column]):
                    column = j
            reached, done[column] = shortest[column], True
            if row_of[column] < 0:
                break
            row = row_of[column]
        for j in range(size):
            if done[j] and j != column:
                u[row_of[j]] += reached - shortest[j]
                v[j] -= reached - shortest[j]
        u[start] += reached
        while True:  # swap along the path
            row = via[column]
            row_of[column] = row
            column, chosen[row] = chosen[row], column
            if row == start:
                break


@compiled
def _judge(cluster, crystal, tolerances, R, molecule, shift, allowed, target, ok):
    """Marks the molecules whose atoms keep their distances to the centre and their orientation; how many."""
    positions, sizes, centroids, kinds = cluster
    _, middle, _, _, _ = crystal
    distance, angle = tolerances
    count = 0
    found, middle_0 = np.empty(3), middle[molecule[0]] + shift[0]
    for k in range(len(kinds)):
        ok[k] = allowed[k]
        if allowed[k] and k > 0:
            found[:] = middle[molecule[k]] + shift[k]
            ok[k] = (
                _same_distances(positions[k], centroids[0], target[k], middle_0, sizes[k], distance)
                and _same_distances(positions[0], centroids[k], target[0], found, sizes[0], distance)
                and _same_orientation(positions[k], centroids[k], R, target[k], found, sizes[k], angle)
            )
        count += ok[k]
    return count


@compiled
def _same_distances(atoms, point, found, point_found, size, distance):
    """Does each atom keep its distance to the point?"""
    for i in range(size):
        far = math.sqrt(_square(atoms[i] - point))
        if abs(math.sqrt(_square(found[i] - point_found)) - far) > distance * max(far, SHORTEST):
            return False
    return True


@compiled
def _same_orientation(atoms, centroid, R, found, middle, size, angle):
    """Is the moved molecule turned by less than the angle? Measured by the cosine of the two sets of arms."""
    dot, own, theirs = 0.0, 0.0, 0.0
    for i in range(size):
        for d in range(3):
            x, y = 0.0, found[i, d] - middle[d]
            for e in range(3):
                x += R[d, e] * (atoms[i, e] - centroid[e])
            dot += x * y
            own += x * x
            theirs += y * y
    return dot >= math.cos(angle) * math.sqrt(own * theirs) - 1e-9


@compiled
def _superpose(positions, sizes, target, kept, hand, R, t):
    """The motion of one hand that lays the kept molecules on their targets best, and the RMSD (Å) left."""
    own, theirs, atoms = np.zeros(3), np.zeros(3), 0
    for k in range(len(kept)):
        if kept[k]:
            atoms += sizes[k]
            for i in range(sizes[k]):
                for d in range(3):
                    own[d] += hand * positions[k, i, d]
                    theirs[d] += target[k, i, d]
    own /= atoms
    theirs /= atoms
    S = np.zeros((3, 3))
    for k in range(len(kept)):
        if kept[k]:
            for i in range(sizes[k]):
                for d in range(3):
                    x = hand * positions[k, i, d] - own[d]
                    for e in range(3):
                        S[d, e] += x * (target[k, i, e] - theirs[e])
    _rotation(S, R)
    R *= hand
    for d in range(3):
        t[d] = theirs[d]
        for e in range(3):
            t[d] -= hand * R[d, e] * own[e]
    total = 0.0
    for k in range(len(kept)):
        if kept[k]:
            for i in range(sizes[k]):
                for d in range(3):
                    gap = t[d] - target[k, i, d]
                    for e in range(3):
                        gap += R[d, e] * positions[k, i, e]
                    total += gap * gap
    return math.sqrt(total / atoms)


@compiled
def _rotation(S, R):
    """The proper R that maximises tr(R S), S = sum of x y^T for x laid on y.

    Its quaternion is the last eigenvector of Horn's matrix (J. Opt. Soc. Am. A 4, 629 (1987)).
    """
    N = np.empty((4, 4))
    N[0, 0] = S[0, 0] + S[1, 1] + S[2, 2]
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        N[0, a + 1] = N[a + 1, 0] = S[b, c] - S[c, b]
        N[a + 1, a + 1] = S[a, a] - S[b, b] - S[c, c]
        N[a + 1, b + 1] = N[b + 1, a + 1] = S[a, b] + S[b, a]
    w, x, y, z = np.linalg.eigh(N)[1][:, 3]
    R[0, 0], R[0, 1], R[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    R[1, 0], R[1, 1], R[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    R[2, 0], R[2, 1], R[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)


@compiled
def fit_maps(own, theirs, maps, hands, limit, spare):
    """The best fits of a molecule (atoms, 3) onto others (places, atoms, 3) under every map and hand.

    At most `limit`, none worse than the best by more than `spare` Å: hand, place, R and t of each, best first.
    """
    count = len(hands) * len(theirs) * len(maps)
    rmsd, covariance = np.empty(count), np.empty((3, 3))
    for p in range(len(theirs)):
        for m in range(len(maps)):
            size = _covariance(own, theirs[p], maps[m], covariance)
            for h in range(len(hands)):
                spread = size - 2 * _largest(covariance, hands[h], size)
                rmsd[(h * len(theirs) + p) * len(maps) + m] = math.sqrt(max(spread, 0.0) / len(own))
    order = np.argsort(rmsd, kind="mergesort")[:limit]
    order = order[rmsd[order] <= rmsd[order[0]] + spare]
    hand, place = hands[order // (len(theirs) * len(maps))], (order // len(maps)) % len(theirs)
    R, t = np.empty((len(order), 3, 3)), np.empty((len(order), 3))
    for s in range(len(order)):
        _covariance(own, theirs[place[s]], maps[order[s] % len(maps)], covariance)
        _rotation(hand[s] * covariance, R[s])
        R[s] *= hand[s]
        for d in range(3):
            t[s, d] = theirs[place[s], :, d].mean()
            for e in range(3):
                t[s, d] -= R[s, d, e] * own[:, e].mean()
    return hand, place, R, t


@compiled
def _covariance(own, theirs, chosen, S):
    """S = sum of x y^T about the means, and the sum of all squares |x|^2 + |y|^2."""
    x, y, atoms = np.zeros(3), np.zeros(3), len(own)
    for i in range(atoms):
        for d in range(3):
            x[d] += own[i, d] / atoms
            y[d] += theirs[i, d] / atoms
    S[:] = 0.0
    size = 0.0
    for i in range(atoms):
        for d in range(3):
            a, b = own[i, d] - x[d], theirs[chosen[i], d] - y[d]
            size += a * a + b * b
            for e in range(3):
                S[d, e] += a * (theirs[chosen[i], e] - y[e])
    return size


@compiled
def _largest(S, hand, size):
    """The largest eigenvalue of Horn's matrix of hand * S: max of tr(R hand S) over proper R.

    Newton's method on its characteristic polynomial from above (Theobald, Acta Cryst. A61, 478 (2005)); with the
    singular values of S its coefficients are -2 |S|^2, -8 det S and |S|^4 - 4 |cofactors of S|^2.
    """
    square, minors, determinant = 0.0, 0.0, 0.0
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        for d in range(3):
            e, f = (d + 1) % 3, (d + 2) % 3
            minor = S[b, e] * S[c, f] - S[b, f] * S[c, e]
            square += S[a, d] * S[a, d]
            minors += minor * minor
            if a == 0:
                determinant += S[0, d] * minor
    c1, c0 = -8 * hand * determinant, square * square - 4 * minors
    top = size / 2
    for _ in range(60):
        value = ((top * top - 2 * square) * top + c1) * top + c0
        slope = (4 * top * top - 4 * square) * top + c1
        if slope <= 0:  # a double root, reached
            break
        step = value / slope
        top -= step
        if step < 1e-10 * size:
            break
    return top


@compiled
def _square(a):
    return a[0] * a[0] + a[1] * a[1] + a[2] * a[2]
