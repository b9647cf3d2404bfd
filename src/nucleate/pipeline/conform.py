"""Conformers of a molecule: ETKDG embedding, MMFF94 energies, clustering; stereo verified."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, NonNegativeFloat, PositiveFloat, PositiveInt
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolAlign, rdMolDescriptors
from torch import Tensor

from nucleate.crystal.io import read_molecule
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.rigid import principal_axes
from nucleate.errors import InputError, NucleateError
from nucleate.files import write_atomically
from nucleate.physics.charges import mmff_properties
from nucleate.physics.parameters import KCAL_PER_MOL, KJ_PER_MOL
from nucleate.pipeline.folders import make_folder


class ConformSettings(BaseModel, frozen=True, extra="forbid"):
    """How conformers are searched. A rigid molecule needs no more than one."""

    embed: PositiveInt | None = None  # attempts; by default 20 for each rotatable bond, 10 to 200
    keep: PositiveInt = 6
    window: NonNegativeFloat = 20.0  # kJ/mol above the lowest
    distance: PositiveFloat = 0.4  # Å, heavy-atom RMSD within a cluster
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
    graph = Chem.Mol(molecule.graph)
    graph.RemoveAllConformers()
    if graph.GetNumAtoms() == 1:
        return Conformers(molecule.with_conformers(torch.zeros(1, 1, 3)), torch.zeros(1).double(), 1, 0)
    attempts = settings.embed or _attempts(graph)
    _embed(graph, attempts, seed, settings.time_limit)
    embedded = graph.GetNumConformers()
    if embedded == 0:
        raise NucleateError(
            f"expected RDKit to embed {molecule.smiles} within {settings.time_limit:.0f} s, got no conformer. Give "
            "a file with coordinates (SDF, XYZ or CIF) instead of SMILES, or raise the time limit."
        )
    energies = _optimise(graph, settings.dielectric, started + settings.time_limit)
    wrong = [c.GetId() for c in graph.GetConformers() if not same_stereo(molecule.graph, graph, c.GetId())]
    for conformer in wrong:
        graph.RemoveConformer(conformer)
    if graph.GetNumConformers() == 0:
        raise NucleateError(
            f"expected conformers with the stereo of {molecule.smiles}; all {embedded} embedded ones lost it. Give "
            "coordinates in an SDF file."
        )
    ids = [c.GetId() for c in graph.GetConformers()]
    order = _one_diastereomer(graph, sorted(ids, key=lambda i: energies[i]))
    lowest = energies[order[0]]
    near = [i for i in order if energies[i] - lowest <= settings.window * KJ_PER_MOL]
    kept = _cluster(graph, near, settings.distance)[: settings.keep]
    positions = torch.stack([torch.from_numpy(graph.GetConformer(i).GetPositions()) for i in kept])
    return Conformers(
        molecule=molecule.with_conformers(torch.stack([principal_axes(x) for x in positions])),
        energies=torch.tensor([energies[i] - lowest for i in kept], dtype=torch.float64),
        embedded=embedded,
        wrong_stereo=len(wrong),
    )


def same_stereo(given: Chem.Mol, built: Chem.Mol, conformer: int) -> bool:
    """True where every stereo element that the graph specifies is found again in the coordinates."""
    fresh = Chem.Mol(built, confId=conformer)
    Chem.AssignStereochemistryFrom3D(fresh, confId=conformer, replaceExistingTags=True)
    wanted, found = Chem.FindMolChiralCenters(given), dict(Chem.FindMolChiralCenters(fresh))
    centres = all(found.get(atom) == label for atom, label in wanted if label in "RS")
    defined = (Chem.BondStereo.STEREOE, Chem.BondStereo.STEREOZ)
    doubles = all(
        fresh.GetBondWithIdx(b.GetIdx()).GetStereo() == b.GetStereo()
        for b in given.GetBonds()
        if b.GetStereo() in defined
    )
    return centres and doubles


def _attempts(graph: Chem.Mol) -> int:
    rotatable = rdMolDescriptors.CalcNumRotatableBonds(graph)
    return int(np.clip(20 * rotatable, 10, 200))


def _embed(graph: Chem.Mol, attempts: int, seed: int, time_limit: float) -> None:
    options: Any = rdDistGeom.ETKDGv3()
    options.randomSeed = seed + 1
    options.pruneRmsThresh = 0.1
    options.symmetrizeConjugatedTerminalGroupsForPruning = False
    options.onlyHeavyAtomsForRMS = False
    options.timeout = max(1, int(time_limit / 2))
    options.maxIterations = 200
    with rdBase.BlockLogs():  # unusual charges are no news to the user
        rdDistGeom.EmbedMultipleConfs(graph, attempts, options)
        if graph.GetNumConformers() == 0:  # strained rings and macrocycles: start from random coordinates
            options.useRandomCoords = True
            rdDistGeom.EmbedMultipleConfs(graph, min(attempts, 20), options)


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


def _cluster(graph: Chem.Mol, ordered: list[int], distance: float) -> list[int]:
    """The lowest conformer of each cluster, in order of energy: symmetry-aware RMSD without hydrogens on carbon.

    The two oxygens of an acid count as different, and so do the places of hydrogens that make hydrogen bonds. Of
    mirror images one is enough unless the graph fixes the hand: a space group brings the other.
    """
    skeleton = _without_hydrogens_on_carbon(graph)
    mirrored = Chem.Mol(skeleton)
    for conformer in mirrored.GetConformers():
        conformer.SetPositions(-conformer.GetPositions())
    probes = [skeleton] if Chem.FindMolChiralCenters(graph) else [skeleton, mirrored]
    kept: list[int] = []
    for candidate in ordered:
        gaps = (
            rdMolAlign.GetBestRMS(
                Chem.Mol(probe, confId=candidate),
                Chem.Mol(skeleton, confId=earlier),
                maxMatches=1000,
                symmetrizeConjugatedTerminalGroups=False,
            )
            for earlier in kept
            for probe in probes
        )
        if all(gap >= distance for gap in gaps):
            kept.append(candidate)
    return kept


def _without_hydrogens_on_carbon(graph: Chem.Mol) -> Chem.Mol:
    bare = Chem.RWMol(graph)
    bare.BeginBatchEdit()
    for atom in graph.GetAtoms():
        if atom.GetAtomicNum() == 1 and all(n.GetAtomicNum() == 6 for n in atom.GetNeighbors()):
            bare.RemoveAtom(atom.GetIdx())
    bare.CommitBatchEdit()
    return bare.GetMol()


def _one_diastereomer(graph: Chem.Mol, ordered: list[int]) -> list[int]:
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


def conform_to_file(
    source: str, path: Path, settings: ConformSettings | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Conformers of every species of a SMILES or molecule file as one SDF file; one row a conformer."""
    make_folder(path.parent)
    rows: list[dict[str, Any]] = []
    records = []
    for molecule in read_molecule(source):
        found = conform(molecule, settings, seed)
        for k, positions in enumerate(found.molecule.conformers):
            energy = float(found.energies[k]) / KJ_PER_MOL
            record = Chem.Mol(molecule.graph)
            record.RemoveAllConformers()
            record.AddConformer(_conformer(positions), assignId=True)
            record.SetProp("_Name", f"{molecule.name or molecule.smiles} {k}")
            records.append(Chem.MolToMolBlock(record) + f">  <energy_kj_mol>\n{energy:.3f}\n\n$$$$\n")
            rows.append({"molecule": molecule.smiles, "conformer": k, "energy_kj_mol": energy})
    write_atomically(path, "".join(records))
    return rows


def _conformer(positions: Float[Tensor, "atoms 3"]) -> Chem.Conformer:
    conformer = Chem.Conformer(len(positions))
    conformer.SetPositions(positions.double().numpy())
    return conformer
