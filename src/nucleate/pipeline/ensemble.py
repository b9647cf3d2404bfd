"""The conformers of one molecule as an ensemble: shapes from any source, minima, energies, distinct ones with weights.

Molecule --source--> shapes --optimise--> minima --stereo and bonds still right--> energies --distinct-->
    lowest first, laid over the lowest --Boltzmann at 298.15 K--> Ensemble
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors
from torch import Tensor

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.rigid import principal_axes
from nucleate.crystal.stereo import right_stereo
from nucleate.data.conformers import boltzmann
from nucleate.errors import InputError, NucleateError
from nucleate.physics.molecule_energy import gfn2, optimise_mmff
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.conform import cluster, fit, one_diastereomer, without_hydrogens_on_carbon
from nucleate.pipeline.conformer_shapes import Drawn, Source, bare, is_sound, positions_of, with_positions
from nucleate.pipeline.learned_conformers import Method, Sampler, source_named

SHARE = {"none": 0.9, "mmff": 0.5, "gfn2": 0.3}  # of the time, for the source
SPARE = 2  # minima of the force field for each conformer that is asked for, where a better model looks at them again
STEPS = {"none": 0, "mmff": 1000, "gfn2": 1000}  # of the force field

COORDINATING = {*range(21, 31), *range(39, 49), *range(57, 81), *range(89, 113)}  # d and f block

Progress = Callable[[str, int, int, str], None]


class EnsembleSettings(BaseModel, frozen=True, extra="forbid"):
    """What is asked of an ensemble."""

    n: PositiveInt = Field(20, le=10_000)  # conformers at most
    method: Method = "etkdg"
    sampler: Sampler = "fast"  # of confgf
    weights: Path | None = None  # of confgf; None: those of the package
    samples: PositiveInt | None = Field(
        None, le=100_000
    )  # shapes to start from; None: by the rotatable bonds
    optimise: Literal["none", "mmff", "gfn2"] = "mmff"
    window: PositiveFloat | None = None  # kJ/mol above the lowest
    distance: PositiveFloat = 0.4  # Å, RMSD below which two are one
    dielectric: PositiveFloat = 4.0  # of MMFF94; in vacuum molecules fold onto themselves
    time_limit: PositiveFloat = 120.0  # s, of a molecule
    seed: NonNegativeInt = Field(0, lt=2**31)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """A molecule with its distinct conformers, lowest first, laid over the lowest."""

    molecule: Molecule
    positions: Float[Tensor, "conformers atoms 3"]  # Å
    energies: Float[Tensor, " conformers"]  # eV above the lowest; NaN where no model knows the molecule
    weights: Float[Tensor, " conformers"]  # Boltzmann at 298.15 K, mirror images counted; sum 1, or NaN
    images: Int[Tensor, " conformers"]  # 2 where the mirror image is another conformer of the same energy
    distances: Float[Tensor, " conformers"]  # Å, RMSD of heavy atoms from the lowest
    energy_model: str
    counts: dict[str, int]


@dataclass(frozen=True, eq=False)
class Shapes:
    """Conformers on their way: positions (Å) and energies (eV), and what became of the others."""

    positions: Float[Tensor, "conformers atoms 3"]
    energies: Float[Tensor, " conformers"]
    model: str
    counts: dict[str, int] = field(default_factory=dict)

    def kept(self, index: Tensor, **lost: int) -> "Shapes":
        """Those of the index; the numbers of what is lost are added to the counts."""
        counts = {k: self.counts.get(k, 0) + lost.get(k, 0) for k in {**self.counts, **lost}}
        return replace(self, positions=self.positions[index], energies=self.energies[index], counts=counts)


def source_of(settings: EnsembleSettings) -> Source:
    """Raises InputError where it needs weights and there are none."""
    return source_named(settings.method, settings.sampler, settings.weights)


def ensemble(
    molecule: Molecule,
    settings: EnsembleSettings | None = None,
    progress: Progress | None = None,
    source: Source | None = None,
) -> Ensemble:
    """Distinct conformers of the molecule's graph; coordinates that it has are not looked at.

    `source` is that of the settings, where it is there already. Raises NucleateError where no shape is left, and
    InputError for metal complexes and for elements that nothing knows.
    """
    refuse_complexes(molecule)
    settings, tell = settings or EnsembleSettings(), progress or (lambda *_: None)
    started = time.monotonic()
    deadline = started + settings.time_limit
    graph = bare(molecule)
    asked = settings.samples or max(enough(graph), 2 * settings.n)
    tell("shapes", 0, asked, settings.method)
    source = source or source_of(settings)
    drawn = source(molecule, asked, settings.seed, SHARE[settings.optimise] * settings.time_limit)
    tell("shapes", asked, asked, "")
    shapes = _minima(graph, drawn, settings, deadline, tell)
    refined = settings.optimise == "gfn2"
    shapes = _distinct(
        graph, _right(molecule, shapes), settings, SPARE * settings.n if refined else settings.n
    )
    if refined:
        shapes = _refined(molecule, shapes, deadline, tell)
        shapes = _distinct(graph, _right(molecule, shapes), settings, settings.n)
    counts = {**_counts_of(drawn), **shapes.counts, "handed_over": len(shapes.energies)}
    return _laid_out(molecule, shapes, settings.distance, counts)


def enough(graph: Chem.Mol) -> int:
    """How many shapes to start from: 20 for each way to bend, 10 to 200.

    Ways are rotatable bonds, rings of five to seven atoms that pucker, and in larger rings all single bonds but three.
    """
    ways = rdMolDescriptors.CalcNumRotatableBonds(graph)
    for ring in graph.GetRingInfo().BondRings():
        bonds = [graph.GetBondWithIdx(i) for i in ring]
        single = sum(b.GetBondType() == Chem.BondType.SINGLE for b in bonds)
        ways += max(0, single - 3) if len(ring) > 7 else int(single > 3)
    return int(min(max(20 * ways, 10), 200))


def refuse_complexes(molecule: Molecule) -> None:
    """Which ligands are opposite each other is no part of the graph, and no source here knows."""
    for atom in molecule.graph.GetAtoms():
        if atom.GetAtomicNum() in COORDINATING and atom.GetDegree() >= 4:
            raise InputError(
                f"expected a molecule without metal complexes, got {atom.GetSymbol()} with {atom.GetDegree()} bonds in "
                f"{molecule.smiles}, whose arrangement a graph does not tell; take its coordinates from a crystal or a "
                "quantum-chemical program",
                reason="metal complex",
            )


def _counts_of(drawn: Drawn) -> dict[str, int]:
    names = ("asked", "made", "wrong_stereo", "unsound", "mirrored")
    return {name: getattr(drawn, name) for name in names}


def _minima(
    graph: Chem.Mol, drawn: Drawn, settings: EnsembleSettings, deadline: float, tell: Progress
) -> Shapes:
    """Force-field minima of what was drawn, or its energies there; what the deadline leaves no time for is lost."""
    share = 0.5 if settings.optimise == "gfn2" else 1.0  # of the time that is left
    now = time.monotonic()
    end = now + share * (deadline - now)
    asked = len(drawn.positions)
    try:
        done = optimise_mmff(
            graph, drawn.positions, settings.dielectric, STEPS[settings.optimise], end,
            lambda k: tell("optimise", k, asked, ""),
        )  # fmt: skip
    except InputError:
        if settings.optimise == "mmff":
            raise
        return Shapes(drawn.positions, torch.full((asked,), torch.nan).double(), "none")
    late = {"out_of_time": asked - len(done.energies)}
    return Shapes(done.positions, done.energies, _named(done.method, settings), late)


def _named(method: str, settings: EnsembleSettings) -> str:
    """What the energies are, for a reader of the file."""
    dielectric = f", dielectric {settings.dielectric:g}" if method.startswith("MMFF") else ""
    return f"{method}{dielectric}{'' if STEPS[settings.optimise] else ', shapes not optimised'}"


def _right(molecule: Molecule, shapes: Shapes) -> Shapes:
    """Those whose bonds and stereo are still those of the graph: minimisers break them now and then."""
    sound = is_sound(molecule.graph, shapes.positions)
    right = right_stereo(molecule.graph, shapes.positions)
    if not (good := sound & right).any():
        raise NucleateError(
            f"expected minima with the bonds and stereo of {molecule.smiles}, got none of {len(good)}; choose another "
            "--optimise, or give more --samples"
        )
    return shapes.kept(
        good.nonzero()[:, 0], lost_stereo=int((sound & ~right).sum()), lost_bonds=int((~sound).sum())
    )


def _distinct(graph: Chem.Mol, shapes: Shapes, settings: EnsembleSettings, most: int) -> Shapes:
    """The lowest of each cluster, lowest first; of one diastereomer, where the graph leaves that open."""
    order = shapes.energies.argsort(stable=True).tolist()
    lowest = shapes.energies[order[0]]
    limit = settings.window * KJ_PER_MOL if settings.window else torch.inf
    full = with_positions(graph, shapes.positions)
    same = one_diastereomer(full, order)
    near = [i for i in same if not shapes.energies[i] - lowest > limit]  # NaN stays
    kept = cluster(full, near, settings.distance, most, terminal=True)
    seen = near.index(kept[-1]) + 1 if len(kept) == most else len(near)
    return shapes.kept(
        torch.tensor(kept),
        other_diastereomer=len(order) - len(same),
        alike=seen - len(kept),
        beyond=len(same) - seen,
    )


def _refined(molecule: Molecule, shapes: Shapes, deadline: float, tell: Progress) -> Shapes:
    """Minima in GFN2-xTB from those of the force field, lowest first while there is time."""
    found: list[tuple[Tensor, float]] = []
    failed = 0
    for k, shape in enumerate(shapes.positions):
        if time.monotonic() > deadline:
            break
        tell("GFN2-xTB", k, len(shapes.positions), "")
        done = gfn2(molecule.numbers, shape, molecule.charge, optimise=True, deadline=deadline)
        if done.converged:
            found.append((done.positions, done.energy))
        elif time.monotonic() < deadline:
            failed += 1
    if not found:
        raise NucleateError(
            f"expected minima of {molecule.smiles} in GFN2-xTB, got none that converged in time; raise --time-limit, "
            "or use --optimise mmff"
        )
    late = len(shapes.energies) - len(found) - failed
    counts = {
        **shapes.counts,
        "out_of_time": shapes.counts.get("out_of_time", 0) + late,
        "not_converged": failed,
    }
    positions = torch.stack([x for x, _ in found])
    return Shapes(positions, torch.tensor([e for _, e in found]).double(), "GFN2-xTB", counts)


def _laid_out(molecule: Molecule, shapes: Shapes, distance: float, counts: dict[str, int]) -> Ensemble:
    full = with_positions(bare(molecule), shapes.positions)
    energies = shapes.energies - shapes.energies[0]
    if Chem.FindMolChiralCenters(full):  # the mirror image is another substance
        images = torch.ones(len(energies), dtype=torch.long)
    else:
        skeleton = without_hydrogens_on_carbon(full)
        images = torch.tensor([_images(skeleton, k, distance) for k in range(len(energies))])
    share = torch.where(energies.isfinite(), boltzmann(energies, images), torch.nan)
    positions, distances = overlaid(full)
    return Ensemble(molecule, positions, energies, share, images, distances, shapes.model, counts)


def _images(skeleton: Chem.Mol, conformer: int, distance: float) -> int:
    """2 where the mirror image of a conformer is not the conformer, but another that is as low; else 1."""
    gap, _ = fit(skeleton, conformer, conformer, reflect=True, terminal=True)
    return 1 if gap < distance else 2


def overlaid(
    graph: Chem.Mol,
) -> tuple[Float[Tensor, "conformers atoms 3"], Float[Tensor, " conformers"]]:
    """Conformers (Å), the first on its principal axes and the others laid over it, and the RMSD (Å) of the fits.

    Heavy atoms are fitted, equal ones exchanged where that fits better; all atoms where three heavy ones are not there.
    """
    first, *others = positions_of(graph)
    if not others:
        return principal_axes(first)[None], torch.zeros(1, dtype=torch.float64)
    full = with_positions(graph, torch.stack([principal_axes(first), *others]))
    heavy = Chem.RemoveHs(full, sanitize=False)
    fitted = heavy if heavy.GetNumAtoms() >= 3 else full
    laid, gaps = [positions_of(full)[0]], [0.0]
    for k, x in enumerate(others, 1):
        gap, motion = fit(fitted, k, 0, terminal=True)
        matrix = torch.from_numpy(motion)
        laid.append(x @ matrix[:3, :3].T + matrix[:3, 3])
        gaps.append(gap)
    return torch.stack(laid), torch.tensor(gaps, dtype=torch.float64)
