"""Clusters out of crystals, and the loose clusters that crystallization starts from.

    crystal --a molecule and its nearest neighbours--> final positions --every molecule moved--> initial positions

Clusters of 17 copies of one molecule, after Liu et al., "CrystalFlow" (GRaM workshop at ICML, 2024). How far their
molecules were moved is not published; the sizes of `Loosening` are ours.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, Field, NonNegativeFloat
from torch import Tensor

from nucleate.crystal.cluster import Cluster, padded_centroids
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import CONFORMER_TOLERANCE, represent_rigid
from nucleate.crystal.standardise import find_symmetry
from nucleate.errors import InputError
from nucleate.geometry.lattice import heights
from nucleate.geometry.so3 import rotation_exp

SIZE = 17  # molecules: a central one and its 16 nearest neighbours
TIE = 1e-4  # Å: distances that round to the same multiple count as equal


class Loosening(BaseModel, frozen=True, extra="forbid"):
    """How far each molecule of a cluster is moved, as a rigid body about its own centroid."""

    translation: NonNegativeFloat = Field(2.0, description="Å, standard deviation along each axis")
    rotation: NonNegativeFloat = Field(1.0, description="rad, standard deviation about a random axis")
    inversion: bool = False  # mirror each molecule through its centroid with probability 1/2


# ---------------------------------------------------------------- crystal -> cluster


def cluster_of(crystal: Crystal, size: int = SIZE) -> Cluster:
    """Molecule 0 of a crystal, its centroid at the origin, and its nearest neighbours by distance of centroids.

    For crystals of one kind of molecule with at most one in the asymmetric unit. Copies list their atoms so that they
    are congruent, by a proper rotation or an improper one. Neighbours equally far to `TIE` come by the number of the
    molecule in the crystal, then by cell. Bonds are the crystal's. Raises InputError with reason "several kinds",
    "Z' above 1", "single atoms", "other conformers" (copies that no rotation superimposes) or "no bonds".
    """
    if len(crystal) == crystal.n_molecules and len(crystal.numbers.unique()) == 1:
        raise InputError("expected molecules, got single atoms, which cannot be turned", "single atoms")
    packing, _ = represent_rigid(crystal, own=True)
    _refuse_kinds(packing)
    if (z_prime := find_symmetry(crystal).z_prime) > 1 + 1e-6:
        raise InputError(
            f"expected at most one molecule in the asymmetric unit, got {z_prime:g}; all copies of a cluster are equal",
            "Z' above 1",
        )
    local = packing.species[0].conformers
    if (apart := float((local - local[0]).square().sum(-1).mean(-1).sqrt().max())) > CONFORMER_TOLERANCE:
        raise InputError(
            f"expected copies of one shape, got {apart:.2f} Å RMSD between two; all copies of a cluster are equal",
            "other conformers",
        )
    copies = packing.positions()[0].unflatten(0, (packing.n_bodies, -1))
    return _cluster(packing, crystal.lattice.double(), copies, _name(crystal), size)


def cluster_of_packing(packing: Packings, name: str = "", size: int = SIZE) -> Cluster:
    """As `cluster_of` for a crystal (batch of one) whose space group is known; faster where it has one body.

    The copies are then images of one body under the operations: congruent, and atom by atom in order, by construction.
    """
    _refuse_kinds(packing)
    crystal = packing.crystal(0, id=name)
    if packing.n_bodies > 1 or len(packing.numbers) == 1:
        return cluster_of(crystal, size)
    copies = crystal.positions.unflatten(0, (len(packing.group), -1))
    return _cluster(packing, crystal.lattice, copies, name, size)


def nearest_images(
    lattice: Float[Tensor, "3 3"], centroids: Float[Tensor, "molecules 3"], size: int
) -> tuple[Int[Tensor, " size"], Int[Tensor, "size 3"]]:
    """Molecule and lattice shift of the images nearest to molecule 0, itself first; centroids in Å.

    All images within a radius r are among the cells up to r / height + 1/2 away once every centroid is wrapped to half
    a cell around that of molecule 0; r grows until enough are inside.
    """
    if size < 1:
        raise InputError(f"expected clusters of at least one molecule, got a size of {size}")
    step = (centroids - centroids[0]) @ torch.linalg.inv(lattice)
    home = -torch.round(step).long()
    volume = float(torch.linalg.det(lattice)) / len(centroids)
    reach = (3 * size * volume / (4 * math.pi)) ** (1 / 3)  # of a sphere that should hold `size` of them
    while True:
        axes = [torch.arange(-n, n + 1) for n in torch.ceil(reach / heights(lattice) + 0.5).long().tolist()]
        cells = torch.cartesian_prod(*axes)
        shifts = home[:, None] + cells
        distance = ((step[:, None] + shifts) @ lattice).norm(dim=-1).flatten()
        if int((distance <= reach - TIE).sum()) >= size:
            break
        reach *= 1.3
    order = torch.argsort(torch.round(distance / TIE), stable=True)[:size]
    return order // len(cells), shifts.flatten(0, 1)[order]


def _cluster(
    packing: Packings,
    lattice: Float[Tensor, "3 3"],
    copies: Float[Tensor, "molecules atoms 3"],
    name: str,
    size: int,
) -> Cluster:
    centroids = copies.mean(1)
    molecule, shift = nearest_images(lattice, centroids, size)
    positions = copies[molecule] + (shift.double() @ lattice)[:, None] - centroids[0]
    species = packing.species[0]
    return Cluster(species.numbers, positions, name, species.bonds)


def _refuse_kinds(packing: Packings) -> None:
    if len(packing.species) > 1:
        formulas = ", ".join(m.formula for m in packing.species)
        raise InputError(f"expected one kind of molecule, got {formulas}", "several kinds")


def _name(crystal: Crystal) -> str:
    return str((crystal.info or {}).get("id", ""))


# ---------------------------------------------------------------- cluster -> loose cluster


def loosened(
    positions: Float[Tensor, "batch molecules atoms 3"],
    mask: Bool[Tensor, "batch atoms"],
    generator: torch.Generator,
    how: Loosening,
) -> Float[Tensor, "batch molecules atoms 3"]:
    """Each molecule moved rigidly: x -> h R (x - c) + c + d, padding at the origin.

    d is normal along each axis, R turns by a normal angle about an axis uniform on the sphere, and h is -1 with
    probability 1/2 under `inversion`. The same generator gives the same d and R with and without inversion.
    """
    batch, molecules = positions.shape[:2]

    def normal(n: int) -> Float[Tensor, "batch molecules n"]:
        drawn = torch.randn(batch, molecules, n, generator=generator, device=generator.device)
        return drawn.to(positions)

    move = how.translation * normal(3)
    axis = torch.nn.functional.normalize(normal(3), dim=-1)
    turn = rotation_exp(how.rotation * normal(1) * axis)
    if how.inversion:
        turn = turn * torch.where(normal(1) < 0, -1.0, 1.0)[..., None]
    centre = padded_centroids(positions, mask)[:, :, None]
    moved = (positions - centre) @ turn.mT + centre + move[:, :, None]
    return torch.where(mask[:, None, :, None], moved, 0.0)


def loosened_cluster(cluster: Cluster, generator: torch.Generator, how: Loosening) -> Cluster:
    """`loosened` for one cluster."""
    everyone = torch.ones(1, len(cluster.numbers), dtype=torch.bool)
    return cluster.with_positions(loosened(cluster.positions[None], everyone, generator, how)[0])


def evaluation_copies(clusters: Sequence[Cluster], how: Loosening, seed: int) -> list[Cluster]:
    """Loose clusters to evaluate on: those of a seed and a name, whatever other clusters there are."""
    return [_evaluation_copy(cluster, how, seed) for cluster in clusters]


def _evaluation_copy(cluster: Cluster, how: Loosening, seed: int) -> Cluster:
    digest = hashlib.sha256(f"{seed} {cluster.name}".encode()).digest()
    return loosened_cluster(cluster, torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")), how)
