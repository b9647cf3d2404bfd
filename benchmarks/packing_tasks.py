"""What the benchmarks of packing share: experimental crystals as tasks, where starts come from, what becomes of them.

Not a program: `pack_quality.py`, `pack_practice.py` and `packing_figure.py` import it. A task gives away what a blind
test would not: the experiment's own conformers (X-H bonds at neutron lengths) and the number of molecules; its space
group only where a benchmark says so. Crystals that make no task are counted with their reasons.
"""

import argparse
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any

import torch

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.crystal.packing import Packings
from nucleate.crystal.rigid import normalise_hydrogens
from nucleate.crystal.standardise import Symmetry, find_symmetry, represent_symmetric
from nucleate.data.packed import data_sets, read_keys
from nucleate.data.predictions import read_references
from nucleate.errors import InputError
from nucleate.geometry.symmetry import SpaceGroup
from nucleate.metrics.heavy_molecules import molecule_key
from nucleate.models.molcrystalflow_training import MolCrystalFlowSettings
from nucleate.models.molcrystalflow_whole_cell import WholeCellFlow
from nucleate.models.molcrystalflow_whole_cell_training import network_of
from nucleate.models.whole_cell_packings import sample_packings
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import (
    PRESS,
    ROUGH,
    TIGHT,
    closest_contacts,
    minimise,
    pair_energy_fingerprints,
)
from nucleate.pipeline.crystal_files import cif_files
from nucleate.pipeline.generate import SEARCHABLE, Arm, Composition, arms, random_packings, start_seed
from nucleate.pipeline.import_crystals import read_splits
from nucleate.pipeline.learned import LearnedGenerator, SamplingSettings
from nucleate.weights import Weights, read_weights


@dataclass(frozen=True, eq=False)
class Starts:
    """Packings and their numbers; numbers that lack were no crystals."""

    packings: Packings
    number: torch.Tensor


@dataclass(frozen=True)
class Source:
    """Where starts come from. `starts` takes (composition, arm, first, count, seed), `refusal` (composition, arm)."""

    starts: Callable[[Composition, Arm, int, int, int], Starts]
    refusal: Callable[[Composition, Arm], str] = lambda *_: ""  # why it makes none of this kind


@dataclass(frozen=True, eq=False)
class PackingTask:
    """An experimental crystal that a generator is asked for."""

    name: str
    crystal: Crystal
    experiment: Packings  # the same as rigid bodies of its asymmetric unit
    composition: Composition
    symmetry: Symmetry
    arms: tuple[Arm, ...]  # the experiment's space group, as a search would start in it

    @cached_property
    def field(self) -> ForceField:
        return ForceField.for_molecules(self.composition.species)

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(molecule_key(m) for m in self.composition.species)

    def seed(self, seed: int) -> int:
        """A seed of its own, which does not depend on the other tasks."""
        return zlib.crc32(self.name.encode()) ^ seed

    def about(self) -> dict[str, Any]:
        return {
            "symbol": self.symmetry.symbol,
            "z": self.symmetry.z,
            "z_prime": self.symmetry.z_prime,
            "atoms": sum(len(m) * n for m, n in zip(self.composition.species, self.composition.counts)),
        }


@dataclass
class LeftOut:
    """Crystals that make no task."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        self.names.setdefault(reason, []).append(name)

    def __str__(self) -> str:
        counts = Counter({reason: len(names) for reason, names in self.names.items()})
        return ", ".join(f"{n} {reason}" for reason, n in counts.most_common()) or "none"


def task_of(name: str, crystal: Crystal, largest: int) -> PackingTask:
    """Raises InputError with the reason why the crystal makes no task."""
    crystal = normalise_hydrogens(crystal)
    experiment, _ = represent_symmetric(crystal)
    symmetry = find_symmetry(crystal)
    counts = torch.bincount(experiment.kind, minlength=len(experiment.species)).tolist()
    unit = gcd(*counts)
    species = experiment.species
    composition = Composition(
        species=species,
        counts=tuple(n // unit for n in counts),
        conformer_energies=tuple(torch.zeros(len(m.conformers), dtype=torch.float64) for m in species),
        enantiopure=symmetry.group.is_sohncke and any(m.is_chiral for m in species),
    )
    if (atoms := sum(len(m) * n for m, n in zip(species, composition.counts))) > largest:
        raise InputError(f"expected at most {largest} atoms in a formula unit, got {atoms}", "too large")
    task = PackingTask(
        name, crystal, experiment, composition, symmetry, own_arms(composition, symmetry, experiment)
    )
    composition.volume, task.field  # noqa: B018  raise where an element has no parameters
    return task


def own_arms(composition: Composition, symmetry: Symmetry, experiment: Packings) -> tuple[Arm, ...]:
    """The space group of an experiment as arms, weights summing to one.

    Where Z' is neither 1/2 nor whole, it is the subgroup in which the experiment's molecules are whole.
    """
    if symmetry.z_prime in SEARCHABLE:
        return tuple(arms(composition, str(symmetry.number), z_prime=[symmetry.z_prime]))
    if symmetry.z_prime == round(symmetry.z_prime):
        units, group = round(symmetry.z_prime), SpaceGroup.from_name(symmetry.number)
        return (Arm(f"{group.symbol} Z'={units}", group, units),)
    units, rest = divmod(experiment.n_bodies, composition.molecules)
    if rest or sorted(experiment.kind.tolist()) != sorted(composition.kinds(units)):
        raise InputError("expected whole formula units in the asymmetric unit", "special positions")
    return (Arm(f"{symmetry.symbol} Z'={symmetry.z_prime:g}", experiment.group, units),)


# ---------------------------------------------------------------- which crystals


def add_choice(parser: argparse.ArgumentParser) -> None:
    """The arguments of `chosen_tasks`."""
    parser.add_argument("crystals", type=Path, help="a folder of CIF files, or an extended XYZ file")
    parser.add_argument("--splits", type=Path, help="a CSV table with the columns cod_id and split")
    parser.add_argument("--split", default="val+test", help="which of its splits, joined by +")
    parser.add_argument("--unseen", type=Path, action="append", default=[], metavar="DATA",
                        help="training data: crystals of its molecules are left out")  # fmt: skip
    parser.add_argument("--largest", type=int, default=100, help="atoms of a formula unit")
    parser.add_argument("--only", default="", help="names of crystals, joined by commas")
    parser.add_argument(
        "--limit", type=int, help="so many crystals, those with the smallest hash of their names"
    )
    parser.add_argument("--seed", type=int, default=0)


def chosen_tasks(options: argparse.Namespace) -> tuple[list[PackingTask], LeftOut]:
    """Tasks in an order that has nothing to do with chemistry, so that an interrupted run is a fair sample."""
    seen = _seen(options.unseen)
    found, left_out = [], LeftOut()
    for name, crystal in sorted(_crystals(options), key=lambda pair: _shuffled(pair[0])):
        try:
            if isinstance(crystal, InputError):
                raise crystal
            task = task_of(name, crystal, options.largest)
            if task.keys & seen:
                raise InputError("expected molecules that no generator was trained on", "seen in training")
        except InputError as error:
            left_out.add(name, error.reason)
            continue
        found.append(task)
        if len(found) == options.limit:
            break
    if not found:
        raise InputError(f"expected crystals to be tried on, got none: {left_out}")
    return found, left_out


def _shuffled(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _crystals(options: argparse.Namespace) -> Iterator[tuple[str, Crystal | InputError]]:
    only = set(filter(None, options.only.split(",")))
    if options.crystals.is_file() and options.crystals.suffix.lower() != ".cif":
        for name, forms in read_references(options.crystals).items():
            for k, form in enumerate(forms):
                label = name if len(forms) == 1 else f"{name}-{k + 1}"
                if not only or label in only:
                    yield label, form
        return
    table = read_splits(options.splits) if options.splits else None
    for path in cif_files([options.crystals]):
        if table is not None and table.get(path.stem) not in options.split.split("+"):
            continue
        if only and path.stem not in only:
            continue
        yield path.stem, _read(path)


def _read(path: Path) -> Crystal | InputError:
    try:
        return read_crystal(path)
    except InputError as error:
        return error


def _seen(folders: Iterable[Path]) -> frozenset[str]:
    """Molecules of data sets."""
    keys = (key for folder in folders for place in data_sets(folder) for key in read_keys(place))
    return frozenset(part for key in keys for part in key.split("."))


# ---------------------------------------------------------------- where starts come from


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """The arguments of `learned`."""
    given = SamplingSettings()
    parser.add_argument("--steps", type=int, default=given.steps, help="of a learned generator")
    parser.add_argument("--draws", type=int, default=given.draws, help="of a learned sample that overlaps")
    parser.add_argument(
        "--volume", choices=("predicted", "sampled"), default=given.volume, help="of its cell"
    )


def learned(weights: str, options: argparse.Namespace) -> Source:
    """A trained generator. Raises InputError where the file is none of its weights."""
    found = read_weights(Path(weights), LearnedGenerator.name)
    if found.model.get("network") == "molcrystalnet":
        return whole_cells(found, options)
    generator = LearnedGenerator(
        Path(weights), SamplingSettings(steps=options.steps, draws=options.draws, volume=options.volume)
    )

    def starts(*asked: Any) -> Starts:
        made = generator.starts(*asked)
        return Starts(made.packings, made.number)

    return Source(starts, generator.refusal)


def whole_cells(weights: Weights, options: argparse.Namespace) -> Source:
    """The published network. Conformers and hands are dealt as among random starts; equal ones go together."""
    settings = weights.settings(MolCrystalFlowSettings).whole_cell
    flow = WholeCellFlow(weights.fill(network_of(settings))).eval()

    def starts(composition: Composition, arm: Arm, first: int, count: int, seed: int) -> Starts:
        dealt = random_packings(composition, arm, first, count, seed)
        generator = torch.Generator().manual_seed(start_seed(seed, f"{arm.key}/{first}"))
        kinds, place = torch.cat([dealt.handedness, dealt.conformer], 1).unique(dim=0, return_inverse=True)
        rows = [torch.nonzero(place == kind).flatten() for kind in range(len(kinds))]
        made = [sample_packings(flow, dealt[own[:1]], len(own), generator, options.steps) for own in rows]
        packings = Packings.concatenate(made)[torch.argsort(torch.cat(rows))]
        sound = packings.lattice.isfinite().all((1, 2)) & (packings.volume > 0)
        return Starts(packings[sound], first + torch.nonzero(sound).flatten())

    return Source(starts)


def random_starts(composition: Composition, arm: Arm, first: int, count: int, seed: int) -> Starts:
    return Starts(random_packings(composition, arm, first, count, seed), first + torch.arange(count))


RANDOM = Source(random_starts)


def in_turn(one: Source, other: Source) -> Source:
    """Even numbers from one source, odd ones from another."""

    def starts(composition: Composition, arm: Arm, first: int, count: int, seed: int) -> Starts:
        parts = []
        for place, source in enumerate((one, other)):
            begin, end = (first + 1 - place) // 2, (first + count + 1 - place) // 2
            if end > begin:
                found = source.starts(composition, arm, begin, end - begin, seed)
                parts.append(Starts(found.packings, 2 * found.number + place))
        number = torch.cat([part.number for part in parts])
        order = torch.argsort(number)
        packings = Packings.concatenate([part.packings for part in parts])[order]
        return Starts(packings, number[order])

    return Source(starts, lambda *asked: one.refusal(*asked) or other.refusal(*asked))


def digest_of(weights: str) -> str:
    """What tells one file of weights from another; empty where none are needed."""
    if not weights:
        return ""
    if not Path(weights).is_file():
        raise InputError(f"expected a file of weights, got {weights}, which is none")
    return hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:12]


# ---------------------------------------------------------------- what becomes of them


@dataclass(frozen=True, eq=False)
class Ends:
    """Where starts came to rest. `row` says which start each is, from 0; the others were not made or collapsed."""

    packings: Packings
    row: torch.Tensor
    energy: torch.Tensor  # eV per asymmetric unit; NaN of what has not moved yet

    @staticmethod
    def of(packings: Packings, row: torch.Tensor | None = None) -> "Ends":
        """Starts, where they began."""
        rows = torch.arange(len(packings)) if row is None else row
        return Ends(packings, rows, torch.full((len(packings),), torch.nan, dtype=torch.float64))


def press(starts: Ends, field: ForceField) -> Ends:
    """No overlaps, molecules together. The energy is that of the press."""
    return _alive(starts.packings, starts.row, field, PRESS)


def relax(pressed: Ends, field: ForceField) -> Ends:
    """Roughly, then tightly, inside the space group: what the search does to its best starts."""
    rough = _alive(pressed.packings, pressed.row, field, ROUGH)
    return _alive(rough.packings, rough.row, field, TIGHT)


def _alive(packings: Packings, row: torch.Tensor, field: ForceField, level: Any) -> Ends:
    found = minimise(packings, field, level)
    kept = torch.nonzero(~found.collapsed).flatten()
    return Ends(found.packings[kept], row[kept], found.energy[kept])


def warm_up(task: PackingTask, sources: Iterable[Source]) -> None:
    """What is compiled or loaded once is not counted."""
    for source in sources:
        if source.refusal(task.composition, task.arms[0]):
            continue
        few = source.starts(task.composition, task.arms[0], 0, 1, 0).packings
        ends = relax(press(Ends.of(few), task.field), task.field)
        closest_contacts(ends.packings, task.field), pair_energy_fingerprints(ends.packings, task.field)


# ---------------------------------------------------------------- rows that outlive an interruption


def read_lines(path: Path | None, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of an earlier run. Raises InputError where its settings were others."""
    if path is None or not path.exists():
        return []
    found = [line for text in path.read_text().splitlines() if (line := _whole(text)) is not None]
    if found and found[0] != about:
        raise InputError(
            f"expected {path} to be of the settings {about}, got {found[0]}; choose another --out"
        )
    return found[1:]


def _whole(text: str) -> dict[str, Any] | None:
    """None for what a killed run left of its last line: that crystal is done again."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def append_line(path: Path | None, about: dict[str, Any], line: dict[str, Any]) -> None:
    """On a line of its own, whatever the file ends with."""
    if path is None:
        return
    before = path.read_bytes() if path.exists() else b""
    head = "" if before.endswith(b"\n") else "\n" if before else json.dumps(about) + "\n"
    with path.open("a") as file:
        file.write(head + json.dumps(line) + "\n")
