"""The coordination shell: a molecule of a crystal and its nearest neighbours."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.geometry.lattice import image_shifts
from nucleate.metrics.heavy_molecules import HeavyMolecules


@dataclass(frozen=True, eq=False)
class Cluster:
    """A central molecule (index 0) and its neighbours, nearest first."""

    centre: int  # the molecule's index in the reference crystal
    keys: tuple[str, ...]
    positions: Float[Tensor, "n width 3"]  # Å
    present: Float[Tensor, "n width"]
    centroids: Float[Tensor, "n 3"]  # Å
    fingerprint: Float[Tensor, " numbers"]  # Å, equal for symmetry-equivalent (or mirrored) centres


def distinct_clusters(molecules: HeavyMolecules, n: int) -> list[Cluster]:
    """One cluster for each environment that differs by more than 0.02 Å, centres with more atoms first."""
    sizes = molecules.present.sum(1)
    found: list[Cluster] = []
    for centre in torch.argsort(-sizes, stable=True).tolist():
        new = _cluster(molecules, centre, n)
        known = (
            c
            for c in found
            if c.keys[0] == new.keys[0] and c.keys.count(c.keys[0]) == new.keys.count(new.keys[0])
        )
        if not any(torch.allclose(c.fingerprint, new.fingerprint, atol=0.02, rtol=0) for c in known):
            found.append(new)
    return found


def _cluster(molecules: HeavyMolecules, centre: int, n: int) -> Cluster:
    own = molecules.positions[centre][molecules.present[centre] > 0]
    radii = (molecules.positions - molecules.centroids[:, None]).norm(dim=-1) * molecules.present
    reach = float(radii[centre].max() + radii.max())
    volume = torch.linalg.det(molecules.lattice) / len(molecules.keys)
    cutoff = reach + float(volume * n) ** (1 / 3) / 2
    while True:
        who, shift = images_within(molecules, centre, cutoff)
        if len(who) >= n:
            atoms = molecules.positions[who] + (shift * molecules.present[who][..., None])
            gaps = torch.cdist(own, atoms.flatten(0, 1)).unflatten(1, atoms.shape[:2])
            contact = torch.where(molecules.present[who] > 0, gaps, math.inf).amin((0, 2))
            contact[0] = 0.0  # the centre itself, which images_within puts first
            if float(contact.kthvalue(n).values) <= cutoff - reach:
                break  # no molecule farther out can be nearer than these
        cutoff *= 1.25
    distance = (molecules.centroids[who] + shift[:, 0] - molecules.centroids[centre]).norm(dim=-1)
    order = torch.from_numpy(np.lexsort((distance.numpy(), contact.round(decimals=3).numpy())))[:n]
    fingerprint = torch.cat(
        [contact.sort().values[:n], distance.sort().values[:n], radii[centre].sort().values]
    )
    return Cluster(
        centre=centre,
        keys=tuple(molecules.keys[i] for i in who[order].tolist()),
        positions=atoms[order],
        present=molecules.present[who[order]],
        centroids=molecules.centroids[who[order]] + shift[order, 0],
        fingerprint=fingerprint,
    )


def images_within(
    molecules: HeavyMolecules, centre: int, cutoff: float
) -> tuple[Int[Tensor, " images"], Float[Tensor, "images 1 3"]]:
    """Molecules (index, shift in Å) with their centroid within `cutoff` Å of the centre's, itself first."""
    inverse = torch.linalg.inv(molecules.lattice)
    apart = (molecules.centroids - molecules.centroids[centre]) @ inverse
    near = torch.round(apart)
    cells, _ = image_shifts(molecules.lattice[None], cutoff, spread=0.5)
    shift = (cells[:, None] - near) @ molecules.lattice
    distance = (molecules.centroids - molecules.centroids[centre] + shift).norm(dim=-1)
    cell, who = torch.nonzero(distance <= cutoff, as_tuple=True)
    order = torch.argsort(distance[cell, who], stable=True)
    itself = (who == centre) & (cells[cell] == 0).all(1)
    order = torch.cat([torch.nonzero(itself)[:, 0], order[~itself[order]]])
    return who[order], shift[cell[order], who[order]][:, None]
