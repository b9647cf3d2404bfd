"""Conformers of a molecule for its crystals: shapes from a source, MMFF94 minima, clustering; stereo verified.

Ensembles for their own sake, with weights and other energies, are in `ensemble`.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, NonNegativeFloat, PositiveFloat, PositiveInt
from rdkit import Chem
from rdkit.Chem import rdMolAlign
from torch import Tensor

from nucleate.crystal.graph import with_stereo
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.rigid import principal_axes
from nucleate.crystal.stereo import right_stereo
from nucleate.errors import NucleateError
from nucleate.physics.molecule_energy import optimise_mmff
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.conformer_shapes import bare, etkdg, positions_of, shapes_for, with_positions
from nucleate.pipeline.learned_conformers import Method, Sampler, source_named

MAPS = 1000  # of a molecule on itself, looked at in a fit


class ConformSettings(BaseModel, frozen=True, extra="forbid"):
    """How conformers are searched. A rigid molecule needs no more than one."""

    embed: PositiveInt | None = None  # attempts; by default 20 for each rotatable bond, 10 to 200
    keep: PositiveInt = 6
    window: NonNegativeFloat = 20.0  # kJ/mol above the lowest
    distance: PositiveFloat = 0.4  # Å, heavy-atom RMSD within a cluster
    conformers: Method = "etkdg"  # where shapes come from before they are optimised
    sampler: Sampler = "fast"  # of confgf
    weights: Path | None = None  # of confgf; None: those of the package
    time_limit: PositiveFloat = 60.0  # s
    dielectric: PositiveFloat = 4.0  # a crystal screens charges; in vacuum molecules fold onto themselves


@dataclass(frozen=True, eq=False)
class Conformers:
    """A molecule with its distinct low conformers, lowest first."""

    molecule: Molecule
    energies: Float[Tensor, " conformers"]  # eV above the lowest (MMFF94)
    embedded: int
    wrong_stereo: int


def conform(molecule: Molecule, settings: ConformSettings | None = None, seed: int = 0) -> Conformers:
    """Low-energy conformers of the molecule's graph, centred, each on its principal axes.

    Raises NucleateError where nothing could be embedded within the time limit or with the right stereo.
    """
    settings = settings or ConformSettings()
    started = time.monotonic()
    graph = bare(molecule)
    if graph.GetNumAtoms() == 1:
        return Conformers(molecule.with_conformers(torch.zeros(1, 1, 3)), torch.zeros(1).double(), 1, 0)
    source = source_named(settings.conformers, settings.sampler, settings.weights)
    if source is etkdg:
        source = partial(etkdg, hydrogens=False)  # fewer minima; hydroxyls go where the first shape has them
    drawn = source(molecule, settings.embed or shapes_for(graph), seed, settings.time_limit / 2)
    deadline = started + settings.time_limit
    minima = optimise_mmff(graph, drawn.positions, settings.dielectric, deadline=deadline)
    right = right_stereo(molecule.graph, minima.positions)
    if not right.any():
        raise NucleateError(
            f"expected conformers with the stereo of {molecule.smiles}; all {drawn.made} lost it. Give "
            "coordinates in an SDF file."
        )
    graph = with_positions(graph, minima.positions[right])
    energies = minima.energies[right].tolist()
    order = one_diastereomer(graph, sorted(range(len(energies)), key=lambda i: energies[i]))
    lowest = energies[order[0]]
    near = [i for i in order if energies[i] - lowest <= settings.window * KJ_PER_MOL]
    kept = cluster(graph, near, settings.distance, settings.keep)
    positions = positions_of(graph)[kept]
    return Conformers(
        molecule=molecule.with_conformers(torch.stack([principal_axes(x) for x in positions])),
        energies=torch.tensor([energies[i] - lowest for i in kept], dtype=torch.float64),
        embedded=drawn.made,
        wrong_stereo=drawn.wrong_stereo + int((~right).sum()),
    )


def cluster(
    graph: Chem.Mol, ordered: list[int], distance: float, most: int, terminal: bool = False
) -> list[int]:
    """The lowest conformer of each cluster, in order of energy, `most` at most.

    Distances are symmetry-aware RMSDs without hydrogens on carbon. The two oxygens of an acid count as different, and
    so do the places of hydrogens that make hydrogen bonds; the oxygens of a carboxylate or nitro group count as equal
    with `terminal`. Of mirror images one is enough unless the graph fixes the hand: a space group brings the other.
    """
    skeleton = without_hydrogens_on_carbon(graph)
    hands = [False] if Chem.FindMolChiralCenters(graph) else [False, True]
    kept: list[int] = []
    for candidate in ordered:
        if len(kept) == most:
            break
        gaps = (
            fit(skeleton, candidate, earlier, reflect, terminal)[0] for earlier in kept for reflect in hands
        )
        if all(gap >= distance for gap in gaps):
            kept.append(candidate)
    return kept


def fit(
    graph: Chem.Mol, moving: int, fixed: int, reflect: bool = False, terminal: bool = False
) -> tuple[float, Float[np.ndarray, "4 4"]]:
    """RMSD (Å) and motion of one conformer over another, equal atoms exchanged where that fits better."""
    gap, motion, _ = rdMolAlign.GetBestAlignmentTransform(
        graph,
        graph,
        moving,
        fixed,
        maxMatches=MAPS,
        symmetrizeConjugatedTerminalGroups=terminal,
        reflect=reflect,
    )
    return gap, motion


def without_hydrogens_on_carbon(graph: Chem.Mol) -> Chem.Mol:
    bare = Chem.RWMol(graph)
    bare.BeginBatchEdit()
    for atom in graph.GetAtoms():
        if atom.GetAtomicNum() == 1 and all(n.GetAtomicNum() == 6 for n in atom.GetNeighbors()):
            bare.RemoveAtom(atom.GetIdx())
    bare.CommitBatchEdit()
    return bare.GetMol()


def one_diastereomer(graph: Chem.Mol, ordered: list[int]) -> list[int]:
    """Conformers with the configuration of the lowest one or its mirror image.

    Where a graph leaves several stereocentres open, embedding mixes diastereomers, which are other substances.
    """
    labels = {i: _configuration(graph, i) for i in ordered}
    swap = str.maketrans("RS", "SR")
    lowest = labels[ordered[0]]
    return [i for i in ordered if labels[i] in (lowest, lowest.translate(swap))]


def _configuration(graph: Chem.Mol, conformer: int) -> str:
    """R and S of the centres that a conformer shows."""
    positions = torch.from_numpy(graph.GetConformer(conformer).GetPositions())
    return "".join(label for _, label in Chem.FindMolChiralCenters(with_stereo(graph, positions)))
