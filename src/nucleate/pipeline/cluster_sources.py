"""What a user gives -> the loose cluster that `nucleate crystallize` begins with, and the truth where it is known.

| given | loose cluster | truth |
|---|---|---|
| `.xyz` of copies of one molecule | as it is | |
| SMILES, `.mol`, `.sdf` | copies at random (`random_cluster`) | |
| `.cif` | a molecule and its neighbours, every molecule moved (`Loosening`) | as in the crystal |
| `.csv` of COD-Cluster17 | that in `InitialPositions` | that in `FinalPositions` |
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.crystal.assemble import with_lewis_structures
from nucleate.crystal.cluster import Cluster
from nucleate.crystal.cluster_xyz import read_cluster_xyz
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.open_space import crystal_of_cluster
from nucleate.crystal.rigid import CONFORMER_TOLERANCE, normalise_hydrogens, species_from_crystal
from nucleate.data.cluster_files import FINAL, FINAL_END, INITIAL, INITIAL_END, read_published
from nucleate.data.clusters import Loosening, cluster_of, loosened_cluster, nearest_images
from nucleate.errors import InputError
from nucleate.generative.seeds import generator_of
from nucleate.geometry.so3 import kabsch, random_rotation
from nucleate.physics.parameters import estimated_volume
from nucleate.pipeline.composition import default_name, folder_name, read_subject


@dataclass(frozen=True, eq=False)
class Start:
    """A loose cluster and what is known of it; `molecule` carries bond orders and charges."""

    name: str
    loose: Cluster
    molecule: Molecule
    truth: Cluster | None = None
    crystal: Crystal | None = None
    notes: list[str] = field(default_factory=list)


def read_start(source: str, molecules: int, how: Loosening, seed: int) -> Start:
    """Raises InputError for what is no cluster, crystal or molecule that can be crystallized."""
    path, suffix = Path(source), Path(source).suffix.lower()
    name = default_name(source, source)
    if suffix in (".xyz", ".extxyz"):
        return _known(folder_name(path.stem), read_cluster_xyz(path, molecules))
    if suffix == ".csv":
        return _published(path)
    if suffix == ".cif":
        crystal = normalise_hydrogens(read_crystal(path))
        truth = cluster_of(crystal.replace(info={"id": name}), molecules)
        return _known(name, loosened_cluster(truth, generator_of(seed, "loosening"), how), truth, crystal)
    return _from_molecule(source, molecules, how, seed)


def _known(name: str, loose: Cluster, truth: Cluster | None = None, crystal: Crystal | None = None) -> Start:
    one = crystal_of_cluster(loose.with_positions(loose.positions[:1]))
    [molecule] = species_from_crystal(with_lewis_structures(one))
    return Start(name, loose, molecule, truth, crystal, _notes(loose))


def _notes(loose: Cluster) -> list[str]:
    """A method takes all copies for one rigid shape, that of the first one."""
    copies = loose.positions.double()
    worst = float(kabsch(copies[:1].expand_as(copies), copies, allow_mirror=True).rmsd.max())
    if worst <= CONFORMER_TOLERANCE:
        return []
    return [
        f"molecules differ in shape by up to {worst:.2f} Å RMSD; all are taken for copies of the first one"
    ]


def _published(path: Path) -> Start:
    """Either file of a pair; InputError where the other one is not where the data set has it."""
    ends = {INITIAL: INITIAL_END, FINAL: FINAL_END}
    end = ends.get(path.parent.name, "")
    if not end or not path.name.endswith(end):
        raise InputError(
            f"expected a cluster of COD-Cluster17 in {INITIAL}/*{INITIAL_END} or {FINAL}/*{FINAL_END}, got {path}; "
            "other clusters are read as .xyz, lists of molecules by nucleate predict"
        )
    record = read_published(path.parent.parent, path.name.removesuffix(end))
    assert record.loose is not None
    return _known(folder_name(record.cluster.name), record.loose, record.cluster)


# ---------------------------------------------------------------- a loose cluster of nothing but a molecule


def _from_molecule(source: str, molecules: int, how: Loosening, seed: int) -> Start:
    subject = read_subject(source, seed=seed)
    composition = subject.composition
    if len(composition.species) > 1:
        formulas = ", ".join(m.formula for m in composition.species)
        raise InputError(f"expected one kind of molecule, got {formulas}; give one of them", "several kinds")
    [molecule] = composition.species
    if len(molecule) == 1:
        raise InputError("expected a molecule, got a single atom, which has no orientation", "single atoms")
    generator = generator_of(seed, "arrangement")
    positions = random_cluster(
        molecule.conformers[0], estimated_volume(molecule), molecules, not composition.enantiopure, generator
    )
    packed = Cluster(molecule.numbers, positions, subject.name, molecule.bonds)
    return Start(
        subject.name,
        loosened_cluster(packed, generator_of(seed, "loosening"), how),
        molecule,
        notes=subject.notes,
    )


def random_cluster(
    conformer: Float[Tensor, "atoms 3"],
    volume: float,
    molecules: int,
    both_hands: bool,
    generator: torch.Generator,
) -> Float[Tensor, "molecules atoms 3"]:
    """Copies of a centred conformer (Å) at the places of close-packed spheres of this volume (Å^3), turned at random.

    Half of them mirrored where `both_hands`: most crystals of molecules that may have either hold both.
    """
    edge = (volume * math.sqrt(2)) ** (1 / 3)  # of the primitive cell, edges at 60 degrees
    lattice = edge / math.sqrt(2) * torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    places = nearest_images(lattice, torch.zeros(1, 3, dtype=torch.float64), molecules)[1].double() @ lattice
    turn = random_rotation(molecules, generator=generator)
    hand = torch.ones(molecules, dtype=torch.float64)
    if both_hands:
        hand[torch.randperm(molecules, generator=generator)[: molecules // 2]] = -1
    return hand[:, None, None] * conformer.double() @ turn.mT + places[:, None]
