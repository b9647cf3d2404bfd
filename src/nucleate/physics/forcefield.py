"""The built-in force field: FIT exp-6 with point charges, molecules rigid, dispersion and charges by Ewald sums.

Lattice energies are those of the crystal less its molecules far apart, plus what the chosen conformers cost
(`conformer_energy`). The arithmetic is in `kernels`; here molecules become arrays and batches become calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.physics import kernels
from nucleate.physics.charges import mmff_charges
from nucleate.physics.parameters import EXP6, TYPES, VDW_RADII, atom_types, donates_hydrogen_bond


class Accuracy(NamedTuple):
    """How the lattice sums are split: real-space cutoff (Å), Ewald's alpha (1/Å), largest wave vector (1/Å)."""

    cutoff: float
    alpha: float
    k_max: float


COARSE = Accuracy(cutoff=7.0, alpha=0.40, k_max=2.1)  # within about 1 kJ/mol of FINAL
FINE = Accuracy(cutoff=10.0, alpha=0.32, k_max=2.4)
FINAL = Accuracy(cutoff=14.0, alpha=0.28, k_max=2.8)

SOFTNESS = 0.9  # spheres of the press: this fraction of the van der Waals distance
DONOR_CONTACT = 1.75  # Å between a hydrogen on N or O and N or O: hydrogen bonds may be this short
ANION_CONTACT = 0.66  # the same to other anions (halides), as a fraction of the van der Waals distance


@dataclass(frozen=True, eq=False)
class ForceField:
    """Charges and parameters for the molecules of a crystal.

    `charges[s]` holds the charges (e) of species s, one row a conformer, (conformers, atoms); MMFF94 unless given.
    """

    species: tuple[Molecule, ...]
    charges: tuple[Float[np.ndarray, "_ _"], ...]

    @staticmethod
    def for_molecules(
        species: Sequence[Molecule], charges: Sequence[Float[np.ndarray, "_ _"]] | None = None
    ) -> "ForceField":
        """MMFF94 charges for every conformer, unless fitted ones are given. Refuses unknown elements."""
        for molecule in species:
            atom_types(molecule.graph)
        if charges is None:
            charges = [np.tile(mmff_charges(m.graph), (max(len(m.conformers), 1), 1)) for m in species]
        return ForceField(tuple(species), tuple(charges))

    @cached_property
    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A, B, C and the radius of the steepest point for each pair of types."""
        return exp6_tables()

    def arrays(self, packings: Packings) -> "BodyArrays":
        return BodyArrays.of(self, packings)

    def energy(self, packings: Packings, accuracy: Accuracy = FINAL) -> Float[Tensor, " batch"]:
        """Intermolecular energy of each asymmetric unit (eV)."""
        return self.energy_and_gradient(packings, accuracy)[0]

    def energy_and_gradient(
        self, packings: Packings, accuracy: Accuracy = FINAL
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch atoms 3"], Float[Tensor, "batch 3 3"]]:
        """Energy (eV), its gradient in the atoms of the asymmetric unit (eV/Å) and in an affine strain (eV).

        All symmetry copies move with their original; the energy and both gradients are per asymmetric unit. Strain
        moves atoms, not molecules: x -> x (1 + e) with row vectors.
        """
        arrays = self.arrays(packings)
        out = [arrays.evaluate(b, accuracy, self.tables) for b in range(len(packings))]
        energies, gradients, strains = (np.array(part) for part in zip(*out))
        return torch.from_numpy(energies), torch.from_numpy(gradients), torch.from_numpy(strains)


def exp6_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pair parameters by the combining rules, and the distance where each pair repels most steeply."""
    A1, B1, C1 = (np.array([getattr(EXP6[t], name) for t in TYPES]) for name in "ABC")
    A, B, C = np.sqrt(np.outer(A1, A1)), (B1[:, None] + B1) / 2, np.sqrt(np.outer(C1, C1))
    r = np.linspace(0.3, 4.0, 3701)
    curvature = A[..., None] * B[..., None] ** 2 * np.exp(-B[..., None] * r) - 42 * C[..., None] / r**8
    # from outside inwards the curvature is positive in the repulsive wall and first turns negative at its steepest
    wall = np.argmax(curvature, axis=-1)
    inside = (curvature < 0) & (np.arange(len(r)) < wall[..., None])
    steepest = len(r) - 1 - np.argmax(inside[..., ::-1], axis=-1)
    return A, B, C, r[np.minimum(steepest + 1, wall)]


class BodyArrays(NamedTuple):
    """What the kernels need to know of a batch; leading axis the crystal where conformers may differ."""

    local: np.ndarray  # (batch, atoms, 3) Å
    start: np.ndarray  # (bodies + 1,) first atom of each body
    radius: np.ndarray  # (batch, bodies) Å, farthest atom from the centroid
    gyration: np.ndarray  # (batch, bodies) Å
    q: np.ndarray  # (batch, atoms) e
    c: np.ndarray  # (atoms,) sqrt of the C6 of a like pair
    types: np.ndarray  # (atoms,) rows of the exp-6 tables
    size: np.ndarray  # (atoms, atoms) Å, where soft spheres touch
    group: tuple[np.ndarray, np.ndarray, np.ndarray]
    lattice: np.ndarray
    centroid: np.ndarray
    rotation: np.ndarray

    @staticmethod
    def of(field: ForceField, packings: Packings) -> "BodyArrays":
        kinds = packings.kind.tolist()
        conformer = packings.conformer.numpy()
        return BodyArrays.build(
            local=packings.local(),
            sizes=[len(field.species[k]) for k in kinds],
            q=np.concatenate([field.charges[k][conformer[:, m]] for m, k in enumerate(kinds)], 1),
            graphs=[field.species[k].graph for k in kinds],
            group=packings.group,
            lattice=packings.lattice,
            centroid=packings.centroid,
            rotation=packings.rotation,
        )

    @staticmethod
    def build(
        local: Float[Tensor, "batch atoms 3"],
        sizes: Sequence[int],
        q: Float[np.ndarray, "batch atoms"],
        graphs: Sequence[Chem.Mol],
        group: SpaceGroup,
        lattice: Float[Tensor, "batch 3 3"],
        centroid: Float[Tensor, "batch bodies 3"],
        rotation: Float[Tensor, "batch bodies 3 3"],
    ) -> "BodyArrays":
        """From body-frame positions; `sizes` are atoms of each body, `graphs` together hold all atoms in order."""
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        positions = local.double().numpy()
        distance2 = (positions**2).sum(-1)
        blocks = [slice(a, b) for a, b in pairwise(start)]
        radius = np.stack([np.sqrt(distance2[:, s].max(1)) for s in blocks], 1)
        # a lone atom has no size to turn about; 0.5 Å keeps its (unused) rotation variables finite
        gyration = np.stack([np.maximum(np.sqrt(distance2[:, s].mean(1)), 0.5) for s in blocks], 1)
        c, types, size = atom_parameters(tuple(graphs))
        lattices, centroids, rotations = (np.array(t.double().numpy()) for t in (lattice, centroid, rotation))
        return BodyArrays(
            local=np.ascontiguousarray(positions),
            start=start,
            radius=radius,
            gyration=gyration,
            q=np.ascontiguousarray(q),
            c=c,
            types=types,
            size=size,
            group=group_arrays(group),
            lattice=np.ascontiguousarray(lattices),
            centroid=np.ascontiguousarray(centroids),
            rotation=np.ascontiguousarray(rotations),
        )

    def frame(self, b: int, reach: float, half: bool) -> tuple[np.ndarray, ...]:
        """Positions, inverse lattice, Cartesian rotations and images of crystal b."""
        W, w, inverses = self.group
        lattice, inverse = self.lattice[b], np.linalg.inv(self.lattice[b])
        x, R = np.empty_like(self.local[b]), np.empty((len(W), 3, 3))
        kernels.place(self.local[b], self.start, self.centroid[b], self.rotation[b], lattice, x)
        kernels.cartesian_rotations(W, lattice, inverse, R)
        images, weights = kernels.find_images(
            self.centroid[b], x, self.start, self.radius[b], lattice, inverse, W, w, inverses, reach, half
        )
        return x, inverse, R, images, weights

    def evaluate(self, b: int, accuracy: Accuracy, tables: tuple) -> tuple[float, np.ndarray, np.ndarray]:
        """Energy per asymmetric unit, gradient in its atoms, gradient in affine strain, of crystal b."""
        W, w, _ = self.group
        cutoff, alpha, k_max = accuracy
        x, inverse, R, images, weights = self.frame(b, cutoff, True)
        q, c, lattice = self.q[b], self.c, self.lattice[b]
        at_i, at_j, first = kernels.atom_pairs(x, self.start, lattice, R, w, images, cutoff)
        coefficients = kernels.pair_coefficients(at_i, at_j, self.types, q, *tables[:3])
        neighbours = (images, weights, at_i, at_j, first)
        force, virial = np.zeros_like(x), np.zeros((3, 3))
        pair_arguments = (neighbours, coefficients, self.types, tables[3], alpha, cutoff, force, virial)
        energy = kernels.real_energy(x, self.start, lattice, R, w, *pair_arguments)
        waves, sizes = kernels.reciprocal_vectors(inverse, W, k_max)
        energy += kernels.reciprocal_energy(
            x, lattice, inverse, W, w, waves, sizes, q, c, alpha, force, virial
        )
        inner = np.zeros_like(x)
        energy += kernels.intramolecular_correction(x, self.start, q, c, alpha, inner)
        return energy, force + inner, virial + inner.T @ x

    def intramolecular(self, accuracy: Accuracy) -> np.ndarray:
        """(batch,) the correction for rigid molecules: a constant of the conformers."""
        return np.array(
            [
                kernels.intramolecular_correction(
                    self.local[b], self.start, self.q[b], self.c, accuracy.alpha, np.zeros_like(self.local[b])
                )
                for b in range(len(self.local))
            ]
        )


def group_arrays(group: SpaceGroup) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations, translations and index of the inverse of each operation."""
    return (
        group.rotations.numpy().astype(np.int64),
        group.translations.double().numpy(),
        np.array(group.inverses, dtype=np.int64),
    )


@lru_cache(maxsize=64)  # a search asks again and again for the few molecules it is about
def atom_parameters(graphs: tuple[Chem.Mol, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For all atoms in order: the root of a like pair's C6, the row in the exp-6 tables, and `sphere_sizes`."""
    names = [t for graph in graphs for t in atom_types(graph)]
    types = np.array([TYPES.index(t) for t in names])
    return np.sqrt([EXP6[t].C for t in names]), types, sphere_sizes(graphs)


def sphere_sizes(graphs: Sequence[Chem.Mol]) -> np.ndarray:
    """Distances (Å) at which the press lets atoms touch: shorter between donor hydrogens and acceptors.

    Acceptors are N, O and anions; without the latter every hydrochloride would count as a clash.
    """
    atoms = [a for graph in graphs for a in graph.GetAtoms()]
    radii = np.array([VDW_RADII[a.GetSymbol()] for a in atoms])
    donor = np.array([donates_hydrogen_bond(a) for a in atoms])
    acceptor = np.array([a.GetSymbol() in ("N", "O") for a in atoms])
    anion = np.array([a.GetFormalCharge() < 0 for a in atoms])
    apart = radii[:, None] + radii
    size = SOFTNESS * apart
    for kind, contact in ((anion, ANION_CONTACT * apart), (acceptor, DONOR_CONTACT)):
        size = np.where((donor[:, None] & kind) | (kind[:, None] & donor), contact, size)
    return size
