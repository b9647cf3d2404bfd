"""Packings from learned weights, in the groups and with the conformers of the search.

    numbers of a sample --> noise --flow, some steps--> state --> `Packings` of the predicted volume
                        --> clear of overlaps, or drawn again

Sample i of a seed has numbers of its own and, but for rounding, does not depend on the batch it is made in.
Conformers and hands are dealt as among random starts. Cells obey their group to the rounding of double precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from nucleate.crystal.packing import Packings
from nucleate.data.poses import Groups, Molecules
from nucleate.errors import InputError, NucleateError
from nucleate.geometry.lattice import (
    heights,
    lattice_from_log,
    lattice_from_metric,
    log_coordinates,
    volume,
)
from nucleate.geometry.manifold import State
from nucleate.geometry.so3 import nearest_rotation, rotation_from_uniform
from nucleate.geometry.symmetry import SpaceGroup, averaged_metric
from nucleate.models.molcrystalflow import PoseFlow, Task
from nucleate.models.molcrystalflow_training import MolCrystalFlowSettings, network_of
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import CLASH, closest_contacts
from nucleate.physics.parameters import has_volume
from nucleate.pipeline.generate import (
    Arm,
    Composition,
    Sequence_,
    choose_conformers,
    choose_hands,
    start_seed,
    uniform_numbers,
)
from nucleate.weights import Weights, find_weights, read_weights

CHUNK = 32  # samples at a time: fewer take longer each, more need more memory
SMALLEST = 1e-9  # uniform numbers nearer to 0 or 1 would be normal ones without end
VOLUMES = (0.4, 3.0)  # times the expected volume: a cell outside is no crystal
FLATTEST = 1.2  # Å between faces
BROKEN, OVERLAPPING, CLEAR = 0, 1, 2
FARTHEST = 4.0  # from the noise, in log coordinates: that far lengths have grown by a factor of ten or more


# auto is a mixture wherever the weights can make the crystals, random starts elsewhere (why: docs/learning.md)
Name = Literal["auto", "random", "molcrystalflow", "mixture"]


class SamplingSettings(BaseModel, frozen=True, extra="forbid"):
    """How samples are made of noise."""

    steps: PositiveInt = 10
    draws: PositiveInt = 1  # of one sample at most, until its molecules are clear of each other
    share: float = Field(0.5, gt=0, lt=1)  # of a mixture's new starts
    # the network knows shapes of cells better than their volumes, which `predicted_volume` knows to 3 %
    volume: Literal["predicted", "sampled"] = "predicted"


@dataclass(frozen=True, eq=False)
class Starts:
    """Packings with their numbers, and how often each was drawn."""

    packings: Packings
    number: Int[Tensor, " starts"]
    draws: Int[Tensor, " starts"]

    @staticmethod
    def of(packings: Packings, first: int) -> "Starts":
        """Packings that were drawn once each, numbered from `first`."""
        number = first + torch.arange(len(packings))
        return Starts(packings, number, torch.ones_like(number))


@dataclass(frozen=True, eq=False)
class Embedded:
    """All conformers of a composition, and what the network makes of them."""

    composition: Composition
    molecules: Molecules
    first: tuple[int, ...]  # molecule of each species' first conformer
    features: Float[Tensor, "molecules anchors width"]
    field: ForceField


class LearnedGenerator:
    """Weights of MolCrystalFlow as a source of packings. Each composition's molecules are encoded once."""

    name: ClassVar = "molcrystalflow"

    def __init__(self, weights: Path | None = None, settings: SamplingSettings | None = None) -> None:
        """Those of the package unless a file is given. Raises InputError where it cannot be used."""
        found = read_weights(find_weights(self.name, weights), self.name)
        self.weights, self.digest = found.path, found.digest
        self.settings = settings or SamplingSettings()
        self.flow, self.bodies = _flow_of(found)
        self._embedded: Embedded | None = None

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Other processes read the file themselves, once."""
        return _again, (self.weights, self.digest, self.settings)

    def refusals(self, composition: Composition, arms: Sequence[Arm]) -> dict[str, list[str]]:
        """Arms that it cannot make, by the reason."""
        found: dict[str, list[str]] = {}
        for arm in arms:
            if reason := self.refusal(composition, arm):
                found.setdefault(reason, []).append(arm.key)
        return found

    def refusal(self, composition: Composition, arm: Arm) -> str:
        """Why it makes no packings of this kind, or nothing where it does."""
        bodies = len(composition.kinds(arm.formula_units))
        if len(composition.species) > 1:
            return "several kinds of molecules"
        if bodies != self.bodies:
            return f"{bodies} molecules in the asymmetric unit, the weights know {self.bodies}"
        if not has_volume(composition.species[0]):
            return "elements of unknown volume"
        return ""

    def packings(
        self,
        composition: Composition,
        arm: Arm,
        first: int,
        count: int,
        seed: int,
        sequence: Sequence_ = "sobol",
    ) -> Packings:
        """Samples number `first` to `first + count` of this arm, less those that are no crystals (see `starts`)."""
        return self.starts(composition, arm, first, count, seed, sequence).packings

    def starts(
        self,
        composition: Composition,
        arm: Arm,
        first: int,
        count: int,
        seed: int,
        sequence: Sequence_ = "sobol",
    ) -> Starts:
        """Samples with their numbers; each depends only on its number and the seed.

        A sample whose molecules overlap is drawn again, and the first without overlaps kept; where `draws` do not bring
        one, the first with a sound cell (the clearest would be too large). Those without any are left out. Raises
        InputError for what `refusal` refuses.
        """
        return self.batch(composition, [(arm, first, count)], seed, sequence)[0]

    def batch(
        self,
        composition: Composition,
        wanted: Sequence[tuple[Arm, int, int]],
        seed: int,
        sequence: Sequence_ = "sobol",
    ) -> list[Starts]:
        """`starts` of several (arm, first, count), which share calls of the network: each has a price of its own."""
        for arm, _, _ in wanted:
            if reason := self.refusal(composition, arm):
                raise InputError(f"expected what {self.name} can generate, got {arm.key} with {reason}")
        known = self._of(composition)
        groups = Groups.of([arm.group for arm, _, _ in wanted], normalised=False)
        best: list[Packings] = []
        grades = [torch.full((count,), BROKEN) for _, _, count in wanted]
        draws = [torch.zeros(count, dtype=torch.long) for _, _, count in wanted]
        for draw in range(self.settings.draws):
            asked = [torch.nonzero(grade < CLEAR).flatten() for grade in grades]
            if not sum(map(len, asked)):
                break
            dealt = [self._dealt(composition, *own, seed, draw, sequence) for own in wanted]
            # the first draw settles conformers and hands, whose shares clearing must not change
            best = best or [_blank(composition, arm, body) for (arm, _, _), (_, body) in zip(wanted, dealt)]
            rows = [(blank[own], u[own], body[own]) for blank, own, (u, body) in zip(best, asked, dealt)]
            for k, found in enumerate(self._sampled(known, groups, rows)):
                now = self._grades(known, found)
                better = now > grades[k][asked[k]]
                best[k] = _replaced(best[k], asked[k][better], found, better)
                grades[k][asked[k][better]] = now[better]
                draws[k][asked[k]] += 1
        kept = [torch.nonzero(grade > BROKEN).flatten() for grade in grades]
        return [
            Starts(packings[own], first + own, drawn[own])
            for packings, own, drawn, (_, first, _) in zip(best, kept, draws, wanted)
        ]

    def _of(self, composition: Composition) -> Embedded:
        if self._embedded is None or self._embedded.composition is not composition:
            self._embedded = _embed(self.flow, composition)
        return self._embedded

    def _dealt(
        self,
        composition: Composition,
        arm: Arm,
        first: int,
        count: int,
        seed: int,
        draw: int,
        sequence: Sequence_,
    ) -> tuple[Float[Tensor, "count 6"], Float[Tensor, "count bodies 8"]]:
        """Uniform numbers for the cells and for the bodies of some samples of an arm."""
        bodies = len(composition.kinds(arm.formula_units))
        key = start_seed(seed, f"{arm.key}/{self.name}/{draw}")
        u = uniform_numbers(6 + 8 * bodies, first, count, key, sequence)
        return u[:, :6], u[:, 6:].unflatten(1, (bodies, 8))

    def _sampled(
        self, known: Embedded, groups: Groups, rows: Sequence[tuple[Packings, Tensor, Tensor]]
    ) -> list[Packings]:
        """Blank packings of each group in turn, with the numbers of their cells and bodies, filled in by the flow."""
        sizes = [len(blank) for blank, _, _ in rows]
        group = torch.arange(len(rows)).repeat_interleave(torch.tensor(sizes))
        first = [torch.tensor([known.first[k] for k in blank.kind.tolist()]) for blank, _, _ in rows]
        molecule = torch.cat([blank.conformer + own for (blank, _, _), own in zip(rows, first)])
        hand = torch.cat([blank.handedness for blank, _, _ in rows]).float()
        u, body = torch.cat([u for _, u, _ in rows]), torch.cat([body for _, _, body in rows])
        task = Task(molecule, hand, group)
        normal = torch.special.ndtri(u.clamp(SMALLEST, 1 - SMALLEST)).float()
        noise = {
            "lattice": self.flow.cells(known.molecules, groups, task, normal),
            "centroid": body[..., :3].float(),
            # from the conformer's own axes, so that it does not matter how the molecule is written down
            "rotation": rotation_from_uniform(body[..., 3:6]).float() @ known.molecules.axes[molecule],
        }
        parts = [self._chunk(known, groups, task, noise, some) for some in torch.arange(len(u)).split(CHUNK)]
        end = {name: torch.cat([part[name] for part in parts]) for name in noise}
        sound = torch.stack([x.flatten(1).isfinite().all(1) for x in end.values()]).all(0)
        sound &= (end["lattice"] - noise["lattice"]).norm(dim=1) < FARTHEST
        state = {
            name: torch.where(sound.reshape(-1, *[1] * (x.ndim - 1)), x, noise[name])
            for name, x in end.items()
        }
        ends = zip(*(state[name].double().split(sizes) for name in ("lattice", "centroid", "rotation")))
        return [
            replace(
                blank,
                lattice=self._cells(known, blank, k, good),
                centroid=centroid % 1.0,
                rotation=nearest_rotation(rotation),
            )
            for (blank, _, _), (k, centroid, rotation), good in zip(rows, ends, sound.split(sizes))
        ]

    def _cells(
        self,
        known: Embedded,
        blank: Packings,
        k: Float[Tensor, "count 6"],
        sound: Bool[Tensor, " count"],
    ) -> Float[Tensor, "count 3 3"]:
        """Cells of log coordinates, of the predicted volume if the settings say so; zero where they are no crystals."""
        cells = symmetric_cells(k, blank.group)
        bodies = blank.n_bodies * len(blank.group)
        ratio = volume(cells) / (known.composition.volume / known.composition.molecules * bodies)
        sound = sound & (ratio > VOLUMES[0]) & (ratio < VOLUMES[1])
        if self.settings.volume == "predicted":
            cells = cells * ratio[:, None, None] ** (-1 / 3)
        return torch.where(sound[:, None, None], cells, 0.0)

    def _chunk(
        self, known: Embedded, groups: Groups, task: Task, noise: State, rows: Int[Tensor, " rows"]
    ) -> State:
        """The flow's end from some rows of the noise."""
        some = Task(task.molecule[rows], task.hand[rows], task.group[rows])
        start = {name: x[rows] for name, x in noise.items()}
        return self.flow.sample(
            known.molecules, groups, some, None, self.settings.steps, start=start, features=known.features
        )

    def _grades(self, known: Embedded, packings: Packings) -> Int[Tensor, " count"]:
        """`BROKEN` without a sound cell, `CLEAR` without overlaps."""
        sound = torch.nonzero(packings.volume > 0).flatten()
        sound = sound[heights(packings.lattice[sound]).amin(-1) > FLATTEST]
        grades = torch.full((len(packings),), BROKEN)
        if len(sound):
            clear = closest_contacts(packings[sound], known.field) >= CLASH
            grades[sound] = torch.where(clear, CLEAR, OVERLAPPING)
        return grades


def shares_of(
    generator: LearnedGenerator | None, share: float, composition: Composition, arms: Sequence[Arm]
) -> Float[np.ndarray, " arms"]:
    """Of each arm's new starts, the share that the generator makes: none where it cannot."""
    if generator is None:
        return np.zeros(len(arms))
    return np.array([0.0 if generator.refusal(composition, arm) else share for arm in arms])


def generator_named(
    name: Name,
    weights: Path | None,
    settings: SamplingSettings,
    composition: Composition,
    arms: Sequence[Arm],
) -> tuple[LearnedGenerator | None, float]:
    """The learned generator, if `name` asks for one, and its share of new starts in the arms that it can make.

    Raises InputError for weights that cannot be used or that nobody asked for, and, but for `auto`, where it can make
    none of the arms.
    """
    if name == "random":
        if weights is not None:
            raise InputError(
                f"--weights: expected --generator auto, molcrystalflow or mixture with {weights}, got random"
            )
        return None, 0.0
    generator = LearnedGenerator(weights, settings)
    refused = generator.refusals(composition, arms)
    if name != "auto" and sum(map(len, refused.values())) == len(arms):
        raise InputError(
            f"--generator: expected crystals that {generator.name} can make, got {'; '.join(refused)}. Choose "
            "--generator random."
        )
    return generator, 1.0 if name == "molcrystalflow" else settings.share


def _flow_of(found: Weights) -> tuple[PoseFlow, int]:
    """The flow with its weights, and how many molecules it has learnt to have in the asymmetric unit."""
    settings = found.settings(MolCrystalFlowSettings)
    return PoseFlow(found.fill(network_of(settings))).eval(), settings.bodies


def _again(weights: Path, digest: str, settings: SamplingSettings) -> LearnedGenerator:
    generator = LearnedGenerator(weights, settings)
    if generator.digest != digest:
        raise NucleateError(f"expected {weights} to stay as it was, but it has been changed; begin again")
    return generator


def _embed(flow: PoseFlow, composition: Composition) -> Embedded:
    """Encode every conformer."""
    given = [(molecule, local) for molecule in composition.species for local in molecule.conformers]
    sizes = [len(m.conformers) for m in composition.species]
    molecules = Molecules.of(given)
    with torch.no_grad():
        features = flow.encode(molecules, torch.arange(len(given)))
    return Embedded(
        composition=composition,
        molecules=molecules,
        first=tuple(sum(sizes[:k]) for k in range(len(sizes))),
        features=features,
        field=ForceField.for_molecules(composition.species),
    )


def symmetric_cells(k: Float[Tensor, "count 6"], group: SpaceGroup) -> Float[Tensor, "count 3 3"]:
    """Cells (symmetric matrices, Å) of log coordinates; their metric is averaged over the group, so it is exact."""
    cells = lattice_from_log(k)
    return lattice_from_log(log_coordinates(lattice_from_metric(averaged_metric(group, cells @ cells.mT))))


def _blank(composition: Composition, arm: Arm, body: Float[Tensor, "count bodies 8"]) -> Packings:
    """Conformers and hands, dealt as among random starts; cells and poses are still to be filled in."""
    count, kinds = len(body), composition.kinds(arm.formula_units)
    return Packings(
        species=composition.species,
        group=arm.group,
        kind=torch.tensor(kinds),
        lattice=torch.zeros(count, 3, 3, dtype=torch.float64),
        centroid=torch.zeros(count, len(kinds), 3, dtype=torch.float64),
        rotation=torch.zeros(count, len(kinds), 3, 3, dtype=torch.float64),
        handedness=choose_hands(composition, kinds, body[..., 7]),
        conformer=choose_conformers(composition, kinds, body[..., 6]),
    )


def _replaced(
    packings: Packings, rows: Int[Tensor, " rows"], found: Packings, chosen: Bool[Tensor, " found"]
) -> Packings:
    names = ("lattice", "centroid", "rotation")
    return replace(
        packings, **{n: getattr(packings, n).index_copy(0, rows, getattr(found, n)[chosen]) for n in names}
    )
