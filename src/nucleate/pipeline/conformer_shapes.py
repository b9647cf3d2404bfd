"""Where shapes of a molecule come from: functions of one signature, so that whoever asks need not know which it is.

molecule, how many, seed, seconds --source--> Drawn: positions of what is sound, and counts of what is not
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdMolDescriptors
from torch import Tensor

from nucleate.crystal.bond_graph import bond_graph
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.errors import NucleateError

SHORTEST, LONGEST = 0.6, 1.45  # of a bond, in units of the sum of covalent radii
NEAREST = 1.15  # of atoms three bonds apart or more, in the same units
RANDOM_STARTS = 20
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Drawn:
    """Shapes of one molecule, not optimised. `made` is how many came out of the method, before any was refused."""

    positions: Float[Tensor, "conformers atoms 3"]  # Å
    asked: int
    made: int
    wrong_stereo: int = 0
    unsound: int = 0  # not finite, atoms on top of each other, bonds torn
    mirrored: int = 0  # kept as their mirror images, which have the right stereo


Source = Callable[[Molecule, int, int, float], Drawn]  # molecule, how many, seed, time limit in s


def etkdg(
    molecule: Molecule, n: int, seed: int = 0, time_limit: float = 60.0, hydrogens: bool = True
) -> Drawn:
    """RDKit's ETKDGv3, nearly equal shapes (0.1 Å) once. Without `hydrogens` those that differ in them alone count as
    equal, such as the places of a hydroxyl's.

    Raises NucleateError where nothing could be embedded within the time limit or with the right stereo.
    """
    graph = bare(molecule)
    if graph.GetNumAtoms() == 1:
        return Drawn(torch.zeros(1, 1, 3, dtype=torch.float64), n, 1)
    deadline = time.monotonic() + time_limit
    options = {"useSymmetryForPruning": not hydrogens}  # with symmetry RDKit looks at heavy atoms only
    positions = _embedded(graph, n, seed, deadline, **options)
    if not len(positions):  # strained rings and macrocycles: start from random coordinates
        positions = _embedded(graph, min(n, RANDOM_STARTS), seed, deadline, useRandomCoords=True, **options)
    if not len(positions):
        raise NucleateError(
            f"expected RDKit to embed {molecule.smiles} within {time_limit:.0f} s, got no conformer. Give "
            "a file with coordinates (SDF, XYZ or CIF) instead of SMILES, or raise the time limit."
        )
    good = right_stereo(molecule.graph, positions)
    if not good.any():
        raise NucleateError(
            f"expected conformers with the stereo of {molecule.smiles}; all {len(positions)} embedded ones lost it. "
            "Give coordinates in an SDF file."
        )
    return Drawn(positions[good], n, len(positions), wrong_stereo=int((~good).sum()))


def shapes_for(graph: Chem.Mol) -> int:
    """How many shapes to start from: 20 for each rotatable bond, 10 to 200."""
    return min(max(20 * rdMolDescriptors.CalcNumRotatableBonds(graph), 10), 200)


def bare(molecule: Molecule) -> Chem.Mol:
    """A copy of the graph without conformers."""
    graph = Chem.Mol(molecule.graph)
    graph.RemoveAllConformers()
    return graph


def is_sound(graph: Chem.Mol, positions: Float[Tensor, "conformers atoms 3"]) -> Bool[Tensor, " conformers"]:
    """True for each shape (Å) that is finite, with bonds as long as bonds are and no atoms on top of each other."""
    known = bond_graph(graph)
    table = Chem.GetPeriodicTable()
    radius = torch.tensor([table.GetRcovalent(z) for z in known.numbers.tolist()], dtype=positions.dtype)
    ratio = torch.cdist(positions, positions) / (radius[:, None] + radius)
    bonded, apart = (known.bond > 0), (known.hops >= 3)
    torn = ((ratio < SHORTEST) | (ratio > LONGEST)) & bonded
    crowded = (ratio < NEAREST) & apart
    finite = positions.isfinite().flatten(1).all(1)
    return finite & ~(torn | crowded).flatten(1).any(1)


def _embedded(
    graph: Chem.Mol, n: int, seed: int, deadline: float, **options: Any
) -> Float[Tensor, "conformers atoms 3"]:
    """Shapes of `graph`, as RDKit embeds n at once where that fits into the time.

    Where it does not, one by one from the same seeds: stopped at its own time limit, RDKit hands over one conformer,
    however many it has made. Gives up at half time if nothing came by then.
    """
    started = time.monotonic()
    half_time = (started + deadline) / 2
    _embed(graph, 1, _seed(seed, 0), half_time, **options)
    expected = n * (time.monotonic() - started)
    if n > 1 and expected < half_time - started:
        _embed(graph, n, _seed(seed, 0), deadline, **options)
        return positions_of(graph)
    found = positions_of(graph)
    for k in range(1, n):
        if time.monotonic() > (deadline if len(found) else half_time):
            break
        _embed(graph, 1, _seed(seed, k), deadline, **options)
        found = torch.cat([found, positions_of(graph)])
    return found


def _seed(seed: int, k: int) -> int:
    """What RDKit makes of a seed for conformer k of many; its seeds begin with 1."""
    return ((k + 1) * (seed + 1) - 1) % LARGEST_SEED + 1


def _embed(graph: Chem.Mol, n: int, seed: int, deadline: float, **changes: Any) -> None:
    """Replace the conformers of `graph`; none come where RDKit cannot even find bounds, as for some metals."""
    options: Any = rdDistGeom.ETKDGv3()
    options.randomSeed = seed
    options.pruneRmsThresh = 0.1
    options.symmetrizeConjugatedTerminalGroupsForPruning = False
    options.onlyHeavyAtomsForRMS = False
    options.timeout = max(1, int(deadline - time.monotonic()))
    options.maxIterations = 200
    for name, value in changes.items():
        setattr(options, name, value)
    with rdBase.BlockLogs():  # unusual charges are no news to the user
        try:
            rdDistGeom.EmbedMultipleConfs(graph, n, options)
        except (RuntimeError, ValueError):  # "Invariant Violation: bad lower bound"
            graph.RemoveAllConformers()


def positions_of(graph: Chem.Mol) -> Float[Tensor, "conformers atoms 3"]:
    """All conformers, Å."""
    if not graph.GetNumConformers():
        return torch.zeros(0, graph.GetNumAtoms(), 3, dtype=torch.float64)
    return torch.stack([torch.from_numpy(c.GetPositions()) for c in graph.GetConformers()])


def with_positions(graph: Chem.Mol, positions: Float[Tensor, "conformers atoms 3"]) -> Chem.Mol:
    """A copy whose conformers 0, 1, ... are these (Å)."""
    full = Chem.Mol(graph)
    full.RemoveAllConformers()
    for x in positions:
        conformer = Chem.Conformer(len(x))
        conformer.SetPositions(x.double().numpy())
        full.AddConformer(conformer, assignId=True)
    return full
