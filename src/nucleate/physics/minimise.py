"""Press and minimise batches of packings: rigid molecules and cell, inside the space group."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nucleate.crystal.packing import Packings
from nucleate.geometry.symmetry import strain_bases
from nucleate.physics import kernels, rigid_body
from nucleate.physics.forcefield import COARSE, FINE, Accuracy, BodyArrays, ForceField
from nucleate.physics.parameters import KJ_PER_MOL

CLASH = 0.8  # closer contacts than this (see `closest_contacts`) are not sound


class Level(NamedTuple):
    """One stage of a minimisation."""

    accuracy: Accuracy
    max_steps: int
    tolerance: float  # eV/Å, largest component of the scaled gradient
    step_cap: float = 0.4  # Å
    press: bool = False
    stiffness: float = 50 * KJ_PER_MOL  # eV/Å^2, of the press's soft spheres
    pressure: float = 1.0 * KJ_PER_MOL  # eV/Å^3, of the press


PRESS = Level(Accuracy(4.0, 0.0, 0.0), max_steps=40, tolerance=0.02, step_cap=0.5, press=True)
ROUGH = Level(COARSE, max_steps=40, tolerance=0.01)
TIGHT = Level(FINE, max_steps=200, tolerance=0.001)


@dataclass(frozen=True, eq=False)
class Minimised:
    """Crystals after a stage, in the order they came. `energy` is per asymmetric unit in eV."""

    packings: Packings
    energy: Float[Tensor, " batch"]
    gradient: Float[Tensor, " batch"]  # eV/Å, largest component left
    steps: Int[Tensor, " batch"]
    converged: Bool[Tensor, " batch"]
    collapsed: Bool[Tensor, " batch"]  # the cell became one that no crystal has; energy is meaningless
    evaluations: Int[Tensor, " batch"]


def minimise(packings: Packings, field: ForceField, level: Level = TIGHT) -> Minimised:
    """Lower the energy of every packing. Deterministic; no crystal affects another."""
    arrays = field.arrays(packings)
    n = len(packings)
    energy, largest = np.zeros(n), np.zeros(n)
    steps, status, evaluations = (np.zeros(n, np.int64) for _ in range(3))
    setting = (float(level.press), *level.accuracy, level.stiffness, level.pressure)
    for allowed, cells in strain_bases(packings.group, packings.lattice.double()):
        basis, chosen = np.ascontiguousarray(allowed.numpy()), cells.numpy()
        part = BodyArrays(**{k: v[chosen] if k in _PER_CRYSTAL else v for k, v in arrays._asdict().items()})
        out = [
            np.zeros(len(chosen)),
            np.zeros(len(chosen)),
            *(np.zeros(len(chosen), np.int64) for _ in range(3)),
        ]
        rigid_body.minimise_all(
            setting, level.max_steps, level.tolerance, level.step_cap, part.lattice, part.centroid, part.rotation,
            part.local, part.start, part.radius, part.gyration, part.q, part.c, part.types, part.size, part.group,
            field.tables, basis, *out,
        )  # fmt: skip
        for whole, piece in zip((energy, largest, steps, status, evaluations), out):
            whole[chosen] = piece
        for name in ("lattice", "centroid", "rotation"):
            getattr(arrays, name)[chosen] = getattr(part, name)
    if not level.press:
        energy = energy + arrays.intramolecular(level.accuracy)
    collapsed = (status == rigid_body.COLLAPSED) | ~np.isfinite(energy)
    moved = replace(
        packings,
        lattice=torch.from_numpy(arrays.lattice),
        centroid=torch.from_numpy(arrays.centroid) % 1.0,
        rotation=torch.from_numpy(arrays.rotation),
    )
    return Minimised(
        packings=moved,
        energy=torch.from_numpy(energy),
        gradient=torch.from_numpy(largest),
        steps=torch.from_numpy(steps),
        converged=torch.from_numpy(status == rigid_body.CONVERGED),
        collapsed=torch.from_numpy(collapsed),
        evaluations=torch.from_numpy(evaluations),
    )


_PER_CRYSTAL = {"local", "radius", "gyration", "q", "lattice", "centroid", "rotation"}


def closest_contacts(packings: Packings, field: ForceField) -> Float[Tensor, " batch"]:
    """For each crystal the smallest distance between molecules, over that at which the press lets atoms touch.

    That is 0.9 of the van der Waals distance, and 1.75 Å in hydrogen bonds; sound crystals stay above `CLASH`.
    """
    arrays = field.arrays(packings)
    W, w, _ = arrays.group
    found = np.empty(len(packings))
    for b in range(len(packings)):
        x, _, R, images, _ = arrays.frame(b, 4.0, True)
        found[b] = kernels.closest_contact(x, arrays.start, arrays.lattice[b], R, w, images, arrays.size)
    return torch.from_numpy(found)


def pair_energy_fingerprints(
    packings: Packings, field: ForceField, count: int = 16, reach: float = 9.0
) -> Float[Tensor, "batch count"]:
    """The lowest energies (eV) of a molecule with its single neighbours, ascending, averaged over the bodies.

    It does not depend on how cell and asymmetric unit were chosen, so equal crystals have equal fingerprints.
    Bodies of different species are averaged too: a fingerprint compares crystals of one composition.
    """
    arrays = field.arrays(packings)
    W, w, _ = arrays.group
    found = np.empty((len(packings), count))
    for b in range(len(packings)):
        x, _, R, images, _ = arrays.frame(b, reach, False)
        out = np.empty((packings.n_bodies, count))
        kernels.molecule_pair_energies(
            x,
            arrays.start,
            arrays.lattice[b],
            R,
            w,
            images,
            arrays.types,
            arrays.q[b],
            *field.tables,
            count,
            out,
        )
        found[b] = out.mean(0)
    return torch.from_numpy(found)
