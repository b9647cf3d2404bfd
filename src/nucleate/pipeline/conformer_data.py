"""A list of SMILES -> a data set of conformers, split by molecule: what networks of conformers learn from.

    SMILES --ETKDG--> shapes --MMFF94--> minima [--GFN2-xTB--> minima] --stereo and bonds checked--> one stereoisomer
        --distinct--> lowest first --window, keep--> Boltzmann weights --> a row

Every molecule is one job (`jobs`), every failure is counted with its reason in `conformers.json`.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.bond_graph import bond_graph
from nucleate.crystal.graph import with_stereo
from nucleate.crystal.io import read_molecule
from nucleate.crystal.molecule import Molecule
from nucleate.crystal.stereo import right_stereo
from nucleate.data.conformers import ConformerSet, boltzmann
from nucleate.errors import InputError, NucleateError
from nucleate.metrics.conformer_rmsd import best_rmsds, symmetry
from nucleate.metrics.heavy_molecules import molecule_key
from nucleate.physics.energy import ProcessSettings, Requirement
from nucleate.physics.molecule_energy import XtbState, gfn2, optimise_mmff
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.conformer_shapes import etkdg, is_sound, shapes_for
from nucleate.pipeline.conformer_shards import DONE, ConformerShards, ConformersMade, refuse_full
from nucleate.pipeline.folders import hold_folder, make_folder
from nucleate.pipeline.jobs import Answer, Job, answers
from nucleate.pipeline.molecule_lists import Given

PROGRAM = Path(__file__).with_name("conformer_data_worker.py")
GRACE = 120.0  # s beyond the time limit, for the minimisation under way
LARGEST_SEED = 2**31 - 1
SPARE = 2  # minima of the force field for each conformer that is kept, where GFN2-xTB looks at them again
EQUAL = 0.0005  # eV: two minima of GFN2-xTB so close in energy ...
NEARLY = 3.0  # ... may be so many times `distance` apart and still be one: soft torsions end where forces are small
MAX_SYMMETRY = 1000  # orders of equivalent atoms looked at when conformers are compared


class ConformerDataSettings(BaseModel, frozen=True, extra="forbid"):
    """How the conformers of each molecule are searched and what is kept of them."""

    embed: PositiveInt | None = None  # shapes to start from; None: 20 for each rotatable bond, 10 to 200
    optimise: Literal["none", "mmff", "gfn2"] = "mmff"
    keep: PositiveInt = 5  # conformers of a molecule at most, the lowest
    window: PositiveFloat = 25.0  # kJ/mol above the lowest
    distance: PositiveFloat = 0.125  # Å, heavy-atom RMSD below which two are one
    mirrors: bool = True  # mirror images of conformers of molecules without stereocentres are conformers too
    largest: PositiveInt = 200  # atoms
    time_limit: PositiveFloat = 60.0  # s for one molecule
    seed: NonNegativeInt = 0
    workers: PositiveInt = Field(1, le=256)


@dataclass(frozen=True, eq=False)
class Found:
    """The conformers of a molecule, and what became of the shapes that were embedded."""

    conformers: ConformerSet
    counts: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Minima:
    """Shapes on their way: positions (Å), energies (eV; NaN where not known)."""

    positions: Float[Tensor, "shapes atoms 3"]
    energies: Float[Tensor, " shapes"]
    method: str
    lost: dict[str, int] = field(default_factory=dict)

    def sorted(self) -> "_Minima":
        """Lowest first."""
        order = self.energies.argsort(stable=True)
        return replace(self, positions=self.positions[order], energies=self.energies[order])

    def kept(self, which: Tensor, reason: str) -> "_Minima":
        """Those of a mask or an index; the others are counted."""
        positions = self.positions[which]
        missing = len(self.positions) - len(positions)
        lost = self.lost | {reason: self.lost.get(reason, 0) + missing}
        return replace(self, positions=positions, energies=self.energies[which], lost=lost)


def make_conformers(
    molecules: Sequence[Given],
    folder: Path,
    settings: ConformerDataSettings | None = None,
    exclude: Iterable[str] = (),
    split: str | None = None,
    resume: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> ConformersMade:
    """Conformers of every SMILES, as data sets in sub-folders of `folder`, one for each split.

    80, 10 and 10 % of the molecules go to train, val and test by a hash of their graphs, or all to `split`. Molecules
    with a key in `exclude` are left out and counted. Ctrl-C ends the run early. Raises InputError where tblite is
    missing and asked for, where the folder holds data and `resume` is not set, or data of other settings, molecules or
    exclusions, and NucleateError where no process can be started.
    """
    settings = settings or ConformerDataSettings()
    if settings.optimise == "gfn2":
        Requirement("tblite", "'nucleate[xtb]'").check("gfn2", ProcessSettings())
    excluded = frozenset(exclude)
    about = {"settings": identity(settings), "excluded": fingerprint(excluded), "one_split": split}
    with hold_folder(make_folder(folder)):
        files = ConformerShards(folder, about, split)
        if resume:
            files.resume()
            _refuse_others(files, molecules)
        else:
            refuse_full(folder)
        return _make(molecules, files, settings, excluded, progress or (lambda *_: None))


def _make(
    molecules: Sequence[Given],
    files: ConformerShards,
    settings: ConformerDataSettings,
    excluded: frozenset[str],
    tell: Callable[[int, int, str], None],
) -> ConformersMade:
    """Take up the molecules that are not done yet."""
    interrupted = False
    try:
        tell(len(files.known), len(molecules), f"{files.conformers} conformers")
        todo = [(i, given) for i, given in enumerate(molecules) if i not in files.known]
        for i, given in todo:
            if isinstance(given, InputError):
                files.leave_out(i, "", given.reason, str(given))
        jobs = [Job(i, {"number": i, "smiles": given}) for i, given in todo if isinstance(given, str)]
        with closing(_run(jobs, settings, excluded)) as finished:
            for answer in finished:
                _record(answer, str(molecules[answer.number]), files)
                tell(len(files.known), len(molecules), f"{files.conformers} conformers")
    except KeyboardInterrupt:
        interrupted = True
    return files.finish(len(molecules), interrupted)


def conformers_of(
    smiles: str, number: int, settings: ConformerDataSettings, excluded: frozenset[str] = frozenset()
) -> Found:
    """The low conformers of one molecule; `number` is its place in the data set and in the seed.

    Where the SMILES leaves stereocentres open, the set is of the stereoisomer that the lowest conformer shows, and its
    graph says so. Raises NucleateError with the reason why there are none.
    """
    deadline = time.monotonic() + settings.time_limit
    molecule = _molecule(smiles, settings, excluded)
    seed = (settings.seed * 1_000_003 + number) % LARGEST_SEED
    n = settings.embed or shapes_for(molecule.graph)
    drawn = etkdg(molecule, n, seed, settings.time_limit / 2)
    found = _force_field(molecule, drawn.positions, settings, deadline)
    found = _distinct(molecule, _right(molecule, found), settings)
    if settings.optimise == "gfn2":
        most = SPARE * settings.keep
        found = _refined(molecule, found.kept(torch.arange(len(found.energies))[:most], "beyond"), deadline)
        found = _distinct(molecule, _right(molecule, found), settings)
    graph = with_stereo(molecule.graph, found.positions[0])
    found = _distinct(molecule, _one_stereoisomer(molecule.graph, graph, found), settings)
    if settings.mirrors and not len(bond_graph(graph).centres):
        found = _with_mirrors(graph, found, settings.distance)
    found = found.kept(torch.arange(len(found.energies))[: settings.keep], "beyond")
    counts = {
        "asked": drawn.asked, "embedded": drawn.made, "wrong stereo": drawn.wrong_stereo, **found.lost,
        "kept": len(found.energies),
    }  # fmt: skip
    energies = found.energies - found.energies[0]
    own = Molecule(graph, found.positions, molecule.name)
    return Found(ConformerSet(own, energies, boltzmann(energies), f"ETKDG, {found.method}"), counts)


def identity(settings: ConformerDataSettings) -> dict[str, Any]:
    """What must be the same for sets to belong together."""
    return settings.model_dump(mode="json", exclude={"workers"})


def fingerprint(keys: Iterable[str]) -> str:
    """Equal for equal sets of keys; nothing for none."""
    ordered = sorted(keys)
    return hashlib.sha256("\n".join(ordered).encode()).hexdigest()[:16] if ordered else ""


# ---------------------------------------------------------------- one molecule


def _molecule(smiles: str, settings: ConformerDataSettings, excluded: frozenset[str]) -> Molecule:
    found = read_molecule(smiles)
    if len(found) > 1 or "." in smiles:
        raise InputError(f"expected one molecule, got {smiles}", reason="several molecules")
    if len(found[0]) > settings.largest:
        raise InputError(f"expected at most {settings.largest} atoms, got {len(found[0])}", "too large")
    if molecule_key(found[0]) in excluded:
        raise InputError("expected a molecule that is not excluded", reason="excluded")
    return found[0]


def _force_field(
    molecule: Molecule,
    positions: Float[Tensor, "shapes atoms 3"],
    settings: ConformerDataSettings,
    deadline: float,
) -> _Minima:
    """Minima in MMFF94 in vacuum, or with `none` the energies of the shapes; those after the deadline are lost."""
    steps = 0 if settings.optimise == "none" else 1000
    try:
        done = optimise_mmff(molecule.graph, positions, steps=steps, deadline=deadline)
    except InputError:
        if settings.optimise == "mmff":
            raise
        return _Minima(positions, torch.full((len(positions),), torch.nan).double(), "no force field")
    found = _Minima(
        done.positions,
        done.energies,
        done.method if steps else f"{done.method} energies",
        {"out of time": len(positions) - len(done.energies)},
    )
    return found.kept(found.energies.isfinite(), "no energy")


def _refined(molecule: Molecule, found: _Minima, deadline: float) -> _Minima:
    """Minima in GFN2-xTB; the electrons or atoms of some may not converge in time."""
    done: list[XtbState] = []
    for shape in found.positions:
        if done and time.monotonic() > deadline:
            break
        done.append(gfn2(molecule.numbers, shape, molecule.charge, optimise=True, deadline=deadline))
    late = len(found.positions) - len(done)
    minima = _Minima(
        torch.stack([d.positions for d in done]),
        torch.tensor([d.energy for d in done], dtype=torch.float64),
        "GFN2-xTB",
        found.lost | {"out of time": found.lost.get("out of time", 0) + late},
    )
    minima = minima.kept(torch.tensor([d.converged for d in done]), "not converged")
    if not len(minima.energies):
        raise InputError(
            f"expected minima in GFN2-xTB within {len(done)} attempts, got none", reason="not converged"
        )
    return minima


def _right(molecule: Molecule, found: _Minima) -> _Minima:
    """Those whose bonds and stereo are those of the graph, as far as it gives it: minimisers break some."""
    found = found.kept(is_sound(molecule.graph, found.positions), "lost bonds")
    if not len(found.energies):
        raise InputError("expected conformers with the bonds of the graph, got none", reason="lost bonds")
    found = found.kept(right_stereo(molecule.graph, found.positions), "lost stereo")
    if not len(found.energies):
        raise InputError("expected conformers with the stereo of the graph, got none", reason="lost stereo")
    return found


def _distinct(molecule: Molecule, found: _Minima, settings: ConformerDataSettings) -> _Minima:
    """The lowest of each group of nearly equal ones, lowest first, within the window."""
    found = found.sorted()
    above = (found.energies - found.energies[0]) / KJ_PER_MOL
    found = found.kept(~(above > settings.window), "beyond")  # what is not known is not beyond
    alike = symmetry(molecule.graph, MAX_SYMMETRY)
    kept: list[int] = []
    for i, (shape, energy) in enumerate(zip(found.positions, found.energies)):
        gaps = best_rmsds(alike, shape[None], found.positions[kept])[0]
        near = gaps < settings.distance
        if settings.optimise == "gfn2" and found.method == "GFN2-xTB":
            same = (found.energies[kept] - energy).abs() < EQUAL
            near |= same & (gaps < NEARLY * settings.distance)
        if not near.any():
            kept.append(i)
    return found.kept(torch.tensor(kept), "alike")


def _one_stereoisomer(given: Chem.Mol, seen: Chem.Mol, found: _Minima) -> _Minima:
    """Of several stereoisomers that an open SMILES leads to, the one of the lowest conformer.

    Its mirror images are turned into it, where the SMILES fixes no hand: they are as low.
    """
    same = right_stereo(seen, found.positions)
    if not len(bond_graph(given).centres):
        mirrored = right_stereo(seen, -found.positions) & ~same
        positions = torch.where(mirrored[:, None, None], -found.positions, found.positions)
        found, same = replace(found, positions=positions), same | mirrored
    return found.kept(same, "other stereoisomers")


def _with_mirrors(graph: Chem.Mol, found: _Minima, distance: float) -> _Minima:
    """Each conformer and, where that is another one, its mirror image; a sample may have found one of them only."""
    gaps = best_rmsds(symmetry(graph, MAX_SYMMETRY), -found.positions, found.positions)
    new: Bool[Tensor, " shapes"] = (gaps >= distance).all(1)
    positions = torch.cat([found.positions, -found.positions[new]])
    energies = torch.cat([found.energies, found.energies[new]])
    return replace(found, positions=positions, energies=energies).sorted()


# ---------------------------------------------------------------- processes


def _run(
    jobs: Sequence[Job], settings: ConformerDataSettings, excluded: frozenset[str]
) -> Generator[Answer, None, None]:
    """Answers of the worker processes, as they come."""
    opening = {"settings": settings.model_dump(mode="json"), "excluded": sorted(excluded)}
    workers = max(1, min(settings.workers, len(jobs)))
    return answers(PROGRAM, opening, jobs, workers, settings.time_limit + GRACE)


def _record(answer: Answer, given: str, files: ConformerShards) -> None:
    reply = answer.reply
    if not answer.lost and reply["outcome"] == DONE:
        files.take(answer.number, given, reply["row"], reply["counts"])
    else:
        files.leave_out(
            answer.number, given, answer.lost or reply["outcome"], answer.why or reply.get("why", "")
        )


def _refuse_others(files: ConformerShards, molecules: Sequence[Given]) -> None:
    """Numbers mean the same molecules only as long as the list is the same, or has grown at its end."""
    for number, before in files.known.items():
        now = molecules[number] if number < len(molecules) else before
        if isinstance(now, str) and now != before:
            raise InputError(
                f"expected the molecules that {files.folder} was made of, got {now} as number {number} instead of "
                f"{before}; give the same list, -n and --seed, or choose another folder with -o"
            )


def reason_of(error: NucleateError) -> str:
    """A short stable name of what went wrong."""
    return str(getattr(error, "reason", "")) or "no conformers"
