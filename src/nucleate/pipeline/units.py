"""A unit of search: a batch of starts of one arm, from random numbers to tight minima, and its file."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import save
from torch import Tensor

from nucleate.crystal.packing import Packings
from nucleate.data.containers import read_tensors_and_json
from nucleate.files import write_atomically
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import (
    PRESS,
    ROUGH,
    TIGHT,
    Minimised,
    closest_contacts,
    minimise,
    pair_energy_fingerprints,
)
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.deduplicate import Distinct, DuplicateTolerance, distinct_crystals
from nucleate.pipeline.generate import Arm, Composition, perturbed_packings, random_packings
from nucleate.pipeline.learned import Starts


class SearchSettings(BaseModel, frozen=True, extra="forbid"):
    """How many starts, and what happens to each."""

    n: PositiveInt = 5000
    seed: NonNegativeInt = 0
    sequence: Literal["sobol", "random"] = "sobol"
    share: float = Field(0.0, ge=0, le=1)  # of new starts that the learned generator makes, where it can
    unit: PositiveInt = 50  # starts
    rounds: PositiveInt = 6
    perturb: float = Field(
        0.35, ge=0, le=0.95
    )  # share of later rounds that starts from the lowest minima found
    window: PositiveFloat = 12.0  # kJ/mol above the lowest known minimum: what is worth a tight minimisation
    workers: PositiveInt = 2


ROUGH_TOLERANCE = DuplicateTolerance(energy=0.3 * KJ_PER_MOL, volume=0.008, pair_energy=1.2 * KJ_PER_MOL)
Kind = Literal["random", "learned", "perturbed"]
TENSORS = ("lattice", "centroid", "rotation", "handedness", "conformer")
OF_MINIMA = ("energy", "volume", "fingerprint", "contact", "hits", "start")


@dataclass(frozen=True)
class Unit:
    """One batch of starts: what to do, not how it went."""

    round: int
    index: int
    arm: int
    kind: Kind
    first: int
    count: int
    ceiling: float | None  # eV per formula unit; rough minima above it are left

    @property
    def name(self) -> str:
        return f"{self.round:03d}-{self.index:03d}"


@dataclass(frozen=True, eq=False)
class UnitResult:
    """Minima of one unit, and counts of what happened to its starts."""

    unit: Unit
    packings: Packings
    energy: Tensor  # (minima,) eV per formula unit, conformer energies included
    volume: Tensor  # (minima,) Å^3 per formula unit
    fingerprint: Tensor  # (minima, pairs) eV
    contact: Tensor  # (minima,) closest contact, see `closest_contacts`
    hits: Tensor  # (minima,) starts that came down here
    start: Tensor  # (minima,) number of the start
    counts: dict[str, int]
    seconds: dict[str, float]


def run_unit(
    composition: Composition,
    arm: Arm,
    field: ForceField,
    settings: SearchSettings,
    unit: Unit,
    parents: Packings | None,
    learned: Starts | None = None,
) -> UnitResult:
    """Generate, press, minimise roughly, keep the promising and distinct ones, minimise tightly.

    A learned unit needs its starts, which are `learned` with those of other units; a perturbed one its `parents`.
    """
    clock = Clock()
    starts = _starts(composition, arm, settings, unit, parents, learned)
    clock.lap("generate")
    pressed = minimise(starts.packings, field, PRESS)
    clock.lap("press")
    uncrushed = torch.nonzero(~pressed.collapsed).flatten()
    rough = minimise(pressed.packings[uncrushed], field, ROUGH)
    low, distinct = _promising(composition, arm, field, settings, unit, rough)
    chosen = low[torch.from_numpy(distinct.kept)]
    clock.lap("rough")
    tight = minimise(rough.packings[chosen], field, TIGHT)
    good = torch.nonzero(~tight.collapsed).flatten()
    packings = tight.packings[good]
    contact = closest_contacts(packings, field)
    clock.lap("tight")
    return UnitResult(
        unit=unit,
        packings=packings,
        energy=total_energy(composition, arm, packings, tight.energy[good]),
        volume=per_formula_unit(arm, packings.volume),
        fingerprint=pair_energy_fingerprints(packings, field),
        contact=contact,
        hits=torch.from_numpy(distinct.multiplicity)[good],
        start=starts.number[uncrushed[chosen][good]],
        counts={
            "asked": unit.count,
            "generated": len(starts.packings),
            "drawn": int(starts.draws.sum()),
            "without a sound cell": unit.count - len(starts.packings),
            "collapsed in the press": int(pressed.collapsed.sum()),
            "collapsed in minimisation": int(rough.collapsed.sum() + tight.collapsed.sum()),
            "above the energy window": int((~rough.collapsed).sum()) - len(low),
            "within the energy window": len(low),
            "merged": len(low) - len(distinct.kept),
            "not converged": int((~tight.converged[good]).sum()),
            "minima": len(good),
        },
        seconds=clock.seconds,
    )


def _starts(
    composition: Composition,
    arm: Arm,
    settings: SearchSettings,
    unit: Unit,
    parents: Packings | None,
    learned: Starts | None,
) -> Starts:
    if unit.kind == "random":
        numbered = (composition, arm, unit.first, unit.count, settings.seed, settings.sequence)
        return Starts.of(random_packings(*numbered), unit.first)
    if unit.kind == "learned":
        assert learned is not None, "a learned unit needs its starts"
        return learned
    assert parents is not None, "a perturbed unit needs parents"
    children = perturbed_packings(parents, unit.count, settings.seed, f"{arm.key}/{unit.name}")
    return Starts.of(children, unit.first)


def _promising(
    composition: Composition,
    arm: Arm,
    field: ForceField,
    settings: SearchSettings,
    unit: Unit,
    rough: Minimised,
) -> tuple[Int[Tensor, " low"], Distinct]:
    """Rough minima below the unit's ceiling (without one: the window above its own lowest), and which are distinct."""
    alive = torch.nonzero(~rough.collapsed).flatten()
    energy = total_energy(composition, arm, rough.packings, rough.energy)[alive]
    ceiling = unit.ceiling
    if ceiling is None:
        ceiling = energy.min().item() + settings.window * KJ_PER_MOL if len(energy) else 0.0
    within = energy <= ceiling
    low = alive[within]
    candidates = rough.packings[low]
    distinct = distinct_crystals(
        energy[within].numpy(),
        per_formula_unit(arm, candidates.volume).numpy(),
        pair_energy_fingerprints(candidates, field).numpy(),
        ROUGH_TOLERANCE,
    )
    return low, distinct


def total_energy(composition: Composition, arm: Arm, packings: Packings, energy: Tensor) -> Tensor:
    """eV per formula unit: lattice energy and what the conformers cost."""
    cost = sum(
        composition.conformer_energies[k].double()[packings.conformer[:, m]]
        for m, k in enumerate(packings.kind.tolist())
    )
    return (energy + cost) / arm.formula_units


def per_formula_unit(arm: Arm, volume: Tensor) -> Tensor:
    return volume / (len(arm.group) * arm.formula_units)


class Clock:
    """CPU-seconds of this process between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def save_unit(result: UnitResult, folder: Path) -> None:
    """One safetensors file a unit, written atomically; metadata are JSON."""
    tensors = {name: getattr(result.packings, name).contiguous() for name in TENSORS}
    for name in OF_MINIMA:
        tensors[name] = getattr(result, name).contiguous()
    about = {"unit": result.unit.__dict__, "counts": result.counts, "seconds": result.seconds}
    write_atomically(
        folder / f"{result.unit.name}.safetensors", save(tensors, {"nucleate": json.dumps(about)})
    )


def load_unit(path: Path, unit: Unit, like: Packings) -> UnitResult | None:
    """A finished unit, or None where the file is missing, damaged or belongs to other settings: then it is redone."""
    if not path.exists():
        return None
    try:
        tensors, about = read_tensors_and_json(path, "nucleate")
    except (OSError, ValueError):
        return None
    if (
        not isinstance(about, dict)
        or about.get("unit") != unit.__dict__
        or not _is_whole(tensors, about, like)
    ):
        return None
    return UnitResult(
        unit=unit,
        packings=replace(like, **{name: tensors.pop(name) for name in TENSORS}),
        counts=about["counts"],
        seconds=about["seconds"],
        **tensors,
    )


def _is_whole(tensors: dict[str, Tensor], about: dict[str, Any], like: Packings) -> bool:
    """Whether all that `save_unit` writes is there, in its shape, and is numbers."""
    if tensors.keys() != {*TENSORS, *OF_MINIMA} or not about.keys() >= {"counts", "seconds"}:
        return False
    n, m = len(tensors["start"]) if tensors["start"].ndim else 0, like.n_bodies
    shapes = {"lattice": (n, 3, 3), "centroid": (n, m, 3), "rotation": (n, m, 3, 3)}
    shapes |= dict.fromkeys(("handedness", "conformer"), (n, m))
    shapes |= {name: (n,) for name in OF_MINIMA if name != "fingerprint"}
    if any(tensors[name].shape != shape for name, shape in shapes.items()):
        return False
    return tensors["fingerprint"].ndim == 2 and all(bool(t.isfinite().all()) for t in tensors.values())
