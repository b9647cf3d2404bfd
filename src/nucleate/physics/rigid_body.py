"""Rigid-body and cell minimisation of one crystal inside its space group, compiled.

Variables, all in Å so that one step cap and one tolerance fit them: the strains that the space group allows times
`STRAIN_LENGTH`, the Cartesian shift of each centroid, and each rotation vector times the molecule's radius of
gyration. Steps compose: L <- L (1 + e), R <- exp(omega) R. The method is dense BFGS with backtracking, which with
10 to 20 variables costs nothing beside one energy.
"""

import math

import numpy as np

from nucleate.compiled import compiled
from nucleate.physics.kernels import (
    atom_pairs,
    cartesian_rotations,
    find_images,
    overlap_energy,
    pair_coefficients,
    place,
    real_energy,
    reciprocal_energy,
    reciprocal_vectors,
    rigid_gradient,
)

STRAIN_LENGTH = 6.0  # Å
SKIN = 1.0  # Å of movement before the lists of neighbours and waves are made again
MAX_IMAGES = 20_000

CONVERGED, OUT_OF_STEPS, STUCK, COLLAPSED = 0, 1, 2, 3


@compiled
def rotation_exp(v):
    """Rodrigues' formula."""
    angle = math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
    a = math.sin(angle) / angle if angle > 1e-6 else 1.0 - angle**2 / 6.0
    b = (1.0 - math.cos(angle)) / angle**2 if angle > 1e-4 else 0.5 - angle**2 / 24.0
    K = np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])
    return np.eye(3) + a * K + b * (K @ K)


@compiled
def potential_energy(level, lattice, centroid, rotation, body, group, tables, lists, work, gradient, basis):
    """Energy per asymmetric unit (eV, or eV-like for the press) and its gradient in the scaled variables.

    `level` = (press, cutoff, alpha, k_max, stiffness, pressure); press > 0 asks for soft spheres and pressure.
    """
    press, cutoff, alpha, _, stiffness, pressure = level
    local, start, radius, gyration, q, c, types, size = body
    W, w, _ = group
    soft = tables[3]
    neighbours, coefficients, waves, sizes = lists
    x, force, virial, rigid_virial, centre_force, torque, R = work
    inverse = np.linalg.inv(lattice)
    cartesian_rotations(W, lattice, inverse, R)
    place(local, start, centroid, rotation, lattice, x)
    force[:, :] = 0.0
    virial[:, :] = 0.0
    if press > 0:
        energy = stiffness * overlap_energy(x, start, lattice, R, w, neighbours, size, force, virial)
        force *= stiffness
        virial *= stiffness
        work_done = pressure * abs(np.linalg.det(lattice)) / len(W)
        energy += work_done
        for d in range(3):
            virial[d, d] += work_done
    else:
        pair_arguments = (neighbours, coefficients, types, soft, alpha, cutoff, force, virial)
        energy = real_energy(x, start, lattice, R, w, *pair_arguments)
        energy += reciprocal_energy(x, lattice, inverse, W, w, waves, sizes, q, c, alpha, force, virial)
    rigid_gradient(x, start, centroid, lattice, force, virial, centre_force, torque, rigid_virial)
    modes = len(basis)
    for m in range(modes):
        gradient[m] = np.sum(rigid_virial * basis[m]) / STRAIN_LENGTH
    for m in range(len(start) - 1):
        for d in range(3):
            gradient[modes + 6 * m + d] = centre_force[m, d]
            gradient[modes + 6 * m + 3 + d] = torque[m, d] / gyration[m]
    return energy


@compiled
def neighbour_lists(level, lattice, centroid, rotation, body, group, tables, x):
    """Images within the cutoff and the skin, and the waves of the reciprocal sum (none for the press)."""
    press, cutoff, _, k_max, _, _ = level
    local, start, radius, _, q, _, types, _ = body
    W, w, inverses = group
    inverse = np.linalg.inv(lattice)
    place(local, start, centroid, rotation, lattice, x)
    images, weights = find_images(
        centroid, x, start, radius, lattice, inverse, W, w, inverses, cutoff + SKIN, True
    )
    R = np.empty((len(W), 3, 3))
    cartesian_rotations(W, lattice, inverse, R)
    at_i, at_j, first = atom_pairs(x, start, lattice, R, w, images, cutoff + SKIN)
    coefficients = pair_coefficients(at_i, at_j, types, q, tables[0], tables[1], tables[2])
    waves, sizes = reciprocal_vectors(inverse, W, 0.0 if press > 0 else k_max)
    return (images, weights, at_i, at_j, first), coefficients, waves, sizes


@compiled
def take_step(step, lattice, centroid, rotation, gyration, basis, new_lattice, new_centroid, new_rotation):
    """Apply a step in the scaled variables."""
    modes = len(basis)
    strain = np.eye(3)
    for m in range(modes):
        strain += step[m] / STRAIN_LENGTH * basis[m]
    new_lattice[:, :] = lattice @ strain
    inverse = np.linalg.inv(new_lattice)
    for m in range(len(centroid)):
        first = modes + 6 * m
        new_centroid[m] = centroid[m] + step[first : first + 3] @ inverse
        turn = rotation_exp(step[first + 3 : first + 6] / gyration[m])
        new_rotation[m] = turn @ rotation[m]


@compiled
def drift(step, modes, reach, radius, gyration):
    """About how much (Å) two atoms within reach have moved relative to each other.

    Twice this would be a strict bound; pairs that enter between two makings of the lists do so at the cutoff, where
    Ewald's real-space terms have died out.
    """
    strain = 0.0
    for m in range(modes):
        strain += (step[m] / STRAIN_LENGTH) ** 2
    far = 0.0
    for m in range(len(radius)):
        first = modes + 6 * m
        shift = math.sqrt(np.sum(step[first : first + 3] ** 2))
        angle = math.sqrt(np.sum(step[first + 3 : first + 6] ** 2)) / gyration[m]
        far = max(far, shift + angle * radius[m])
    return math.sqrt(strain) * (reach / 2 + np.max(radius)) + far


@compiled
def hopeless(lattice, inverse, radius, ops):
    """Cells no molecular crystal has: flatter than an atom, or a hundred times too large."""
    for k in range(3):
        if inverse[0, k] ** 2 + inverse[1, k] ** 2 + inverse[2, k] ** 2 > 1.0 / 2.0**2:
            return True
    volume = np.linalg.det(lattice)
    largest = np.sum((2.0 * radius + 4.0) ** 3) * ops
    return not (volume > 1.0 and volume < 4.0 * largest)


@compiled
def minimise_one(
    level, max_steps, tolerance, step_cap, lattice, centroid, rotation, body, group, tables, basis
):
    """Minimise in place. Returns (energy, largest gradient component, steps, status, evaluations)."""
    local, start, radius, gyration, q, c, types, size = body
    atoms, bodies, modes = len(local), len(centroid), len(basis)
    ops = len(group[0])
    n = modes + 6 * bodies
    x = np.empty((atoms, 3))
    work = (
        x,
        np.empty((atoms, 3)),
        np.empty((3, 3)),
        np.empty((3, 3)),
        np.empty((bodies, 3)),
        np.empty((bodies, 3)),
        np.empty((ops, 3, 3)),
    )
    gradient, new_gradient = np.empty(n), np.empty(n)
    new_lattice, new_centroid, new_rotation = (
        np.empty((3, 3)),
        np.empty((bodies, 3)),
        np.empty((bodies, 3, 3)),
    )
    if hopeless(lattice, np.linalg.inv(lattice), radius, ops):
        return 0.0, 0.0, 0, COLLAPSED, 0
    lists = neighbour_lists(level, lattice, centroid, rotation, body, group, tables, x)
    energy = potential_energy(
        level, lattice, centroid, rotation, body, group, tables, lists, work, gradient, basis
    )
    H = np.eye(n)
    fresh, steps, evaluations = True, 0, 1
    moved = trial_moved = 0.0  # how far the crystal and the trial are from where the lists were made
    largest = np.max(np.abs(gradient))
    while steps < max_steps:
        if largest < tolerance:
            return energy, largest, steps, CONVERGED, evaluations
        step = -(H @ gradient)
        slope = step @ gradient
        if slope >= 0.0:
            H, fresh = np.eye(n), True
            step = -gradient.copy()
            slope = step @ gradient
        longest = np.max(np.abs(step))
        scale = min(1.0, step_cap / longest)
        if fresh:  # no curvature known: a short first step
            scale = min(1.0, 0.3 * step_cap / longest)
        step *= scale
        slope *= scale
        accepted = False
        for _ in range(8):
            far = drift(step, modes, level[1], radius, gyration)
            take_step(
                step, lattice, centroid, rotation, gyration, basis, new_lattice, new_centroid, new_rotation
            )
            if not hopeless(new_lattice, np.linalg.inv(new_lattice), radius, ops):
                trial_moved = moved + far
                if trial_moved > SKIN:
                    lists = neighbour_lists(
                        level, new_lattice, new_centroid, new_rotation, body, group, tables, x
                    )
                    moved, trial_moved = far, 0.0
                    if len(lists[0][0]) > MAX_IMAGES:
                        return energy, largest, steps, COLLAPSED, evaluations
                new_energy = potential_energy(
                    level,
                    new_lattice,
                    new_centroid,
                    new_rotation,
                    body,
                    group,
                    tables,
                    lists,
                    work,
                    new_gradient,
                    basis,
                )
                evaluations += 1
                if new_energy <= energy + 1e-4 * slope:
                    accepted = True
                    break
            step *= 0.3
            slope *= 0.3
        if not accepted:
            if fresh and moved == 0.0:
                return energy, largest, steps, STUCK, evaluations
            # near a minimum the small jump between old lists and new ones can hide the way down: make them here
            H, fresh, moved = np.eye(n), True, 0.0
            lists = neighbour_lists(level, lattice, centroid, rotation, body, group, tables, x)
            energy = potential_energy(
                level, lattice, centroid, rotation, body, group, tables, lists, work, gradient, basis
            )
            evaluations += 1
            largest = np.max(np.abs(gradient))
            continue
        y = new_gradient - gradient
        sy = step @ y
        if sy > 1e-12:
            if fresh:
                H = np.eye(n) * (sy / (y @ y))
            Hy = H @ y
            H += (1.0 + (y @ Hy) / sy) / sy * np.outer(step, step) - (
                np.outer(step, Hy) + np.outer(Hy, step)
            ) / sy
            fresh = False
        lattice[:, :] = new_lattice
        centroid[:, :] = new_centroid
        rotation[:, :, :] = new_rotation
        gradient[:] = new_gradient
        energy = new_energy
        moved = trial_moved
        largest = np.max(np.abs(gradient))
        steps += 1
    return energy, largest, steps, CONVERGED if largest < tolerance else OUT_OF_STEPS, evaluations


@compiled
def minimise_all(
    level, max_steps, tolerance, step_cap, lattice, centroid, rotation, local, start, radius, gyration,
    q, c, types, size, group, tables, basis, energy, largest, steps, status, evaluations,
):  # fmt: skip
    """`minimise_one` over a batch that shares molecules and space group, in place."""
    for b in range(len(lattice)):
        body = (local[b], start, radius[b], gyration[b], q[b], c, types, size)
        energy[b], largest[b], steps[b], status[b], evaluations[b] = minimise_one(
            level,
            max_steps,
            tolerance,
            step_cap,
            lattice[b],
            centroid[b],
            rotation[b],
            body,
            group,
            tables,
            basis,
        )
