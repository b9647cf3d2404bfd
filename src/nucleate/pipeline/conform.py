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
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers, rdMolAlign, rdMolDescriptors
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.rigid import principal_axes
from nucleate.crystal.stereo import right_stereo
from nucleate.errors import InputError, NucleateError
from nucleate.physics.charges import mmff_properties
from nucleate.physics.parameters import KCAL_PER_MOL, KJ_PER_MOL
from nucleate.pipeline.conformer_sources import bare, etkdg, with_positions
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
    drawn = source(molecule, settings.embed or _attempts(graph), seed, settings.time_limit / 2)
    graph = with_positions(graph, drawn.positions)
    energies = _optimise(graph, settings.dielectric, started + settings.time_limit)
    wrong = [c.GetId() for c in graph.GetConformers() if not same_stereo(molecule.graph, graph, c.GetId())]
    for conformer in wrong:
        graph.RemoveConformer(conformer)
    if graph.GetNumConformers() == 0:
        raise NucleateError(
            f"expected conformers with the stereo of {molecule.smiles}; all {drawn.made} lost it. Give "
            "coordinates in an SDF file."
        )
    ids = [c.GetId() for c in graph.GetConformers()]
    order = one_diastereomer(graph, sorted(ids, key=lambda i: energies[i]))
    lowest = energies[order[0]]
    near = [i for i in order if energies[i] - lowest <= settings.window * KJ_PER_MOL]
    kept = cluster(graph, near, settings.distance, settings.keep)
    positions = torch.stack([torch.from_numpy(graph.GetConformer(i).GetPositions()) for i in kept])
    return Conformers(
        molecule=molecule.with_conformers(torch.stack([principal_axes(x) for x in positions])),
        energies=torch.tensor([energies[i] - lowest for i in kept], dtype=torch.float64),
        embedded=drawn.made,
        wrong_stereo=drawn.wrong_stereo + len(wrong),
    )


def same_stereo(given: Chem.Mol, built: Chem.Mol, conformer: int) -> bool:
    """True where every stereo element that the graph specifies is found again in the coordinates."""
    positions = torch.from_numpy(built.GetConformer(conformer).GetPositions())
    return bool(right_stereo(given, positions[None])[0])


def _attempts(graph: Chem.Mol) -> int:
    rotatable = rdMolDescriptors.CalcNumRotatableBonds(graph)
    return int(np.clip(20 * rotatable, 10, 200))


def _optimise(graph: Chem.Mol, dielectric: float, deadline: float) -> dict[int, float]:
    """MMFF94 (UFF where that does not fit) minimisation of each conformer; energies in eV by conformer id.

    Conformers that the deadline does not leave time for are removed, all but the first.
    """
    properties = mmff_properties(graph)
    if properties is not None:
        properties.SetMMFFDielectricConstant(dielectric)
    energies: dict[int, float] = {}
    for conformer in [c.GetId() for c in graph.GetConformers()]:
        if energies and time.monotonic() > deadline:
            graph.RemoveConformer(conformer)
            continue
        if properties is not None:
            field = rdForceFieldHelpers.MMFFGetMoleculeForceField(graph, properties, confId=conformer)
        else:
            with rdBase.BlockLogs():
                field = rdForceFieldHelpers.UFFGetMoleculeForceField(graph, confId=conformer)
        if field is None:
            raise InputError(
                f"neither MMFF94 nor UFF knows all atoms of {Chem.MolToSmiles(Chem.RemoveHs(graph))}; give its "
                "coordinates in an SDF, XYZ or CIF file",
                reason="unknown element",
            )
        field.Minimize(maxIts=1000)
        energies[conformer] = field.CalcEnergy() * KCAL_PER_MOL
    return energies


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
    fresh = Chem.Mol(graph, confId=conformer)
    Chem.AssignStereochemistryFrom3D(fresh, confId=conformer, replaceExistingTags=True)
    return "".join(label for _, label in Chem.FindMolChiralCenters(fresh))
