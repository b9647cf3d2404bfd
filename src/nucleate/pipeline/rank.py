"""Rank crystals: the force field's order, then the best of it again with a better energy model."""

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from pydantic import BaseModel, NonNegativeInt, PositiveFloat, PositiveInt

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.standardise import formula_units
from nucleate.errors import EnergyModelError
from nucleate.physics.energy import EnergyModel, ProcessSettings, energy_model
from nucleate.physics.relax_atoms import RelaxAtomsSettings, relax_atoms


class RankSettings(BaseModel, frozen=True, extra="forbid"):
    """How the shortlist is judged."""

    top: PositiveInt = 20
    relax_steps: NonNegativeInt = (
        0  # all-atom steps before the energy counts; 0 takes the crystals as they are
    )
    time_limit: PositiveFloat = 120.0  # s for one structure
    workers: PositiveInt = 1


@dataclass(frozen=True, eq=False)
class Reranked:
    """Energies by the model for the shortlist, in the order of the crystals; NaN where there is none."""

    energy: Float[np.ndarray, " crystals"]  # eV per formula unit
    crystals: list[Crystal]  # relaxed where that was asked for
    failures: dict[str, int]
    seconds: float

    @property
    def judged(self) -> Bool[np.ndarray, " crystals"]:
        return np.isfinite(self.energy)


def default_energy() -> str:
    """CHGNet + D3 where both packages are installed, else the force field alone."""
    have = all(importlib.util.find_spec(name) is not None for name in ("chgnet", "dftd3"))
    return "chgnet" if have else "forcefield"


def rerank(
    crystals: Sequence[Crystal],
    name: str,
    settings: RankSettings | None = None,
    deadline: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reranked:
    """Evaluate the first `settings.top` crystals with the named model, one after the other until the deadline.

    A crystal that fails, or whose molecules react when relaxed, keeps NaN and is counted with its reason.
    """
    settings = settings or RankSettings()
    started = time.monotonic()
    energy = np.full(len(crystals), np.nan)
    relaxed, failures = list(crystals), dict[str, int]()
    shortlist = range(min(settings.top, len(crystals)))
    process = ProcessSettings(time_limit=settings.time_limit, workers=settings.workers)
    with energy_model(name, process=process) as model:
        model.start()
        for first in range(0, len(shortlist), settings.workers):
            if deadline is not None and time.monotonic() > deadline:
                failures["no time left for the shortlist"] = len(shortlist) - first
                break
            batch = shortlist[first : first + settings.workers]
            for i, (value, crystal, reason) in zip(
                batch, _judge([crystals[i] for i in batch], model, settings)
            ):
                if value is None:
                    failures[reason] = failures.get(reason, 0) + 1
                else:
                    energy[i], relaxed[i] = value / formula_units(crystal), crystal
            if progress is not None:
                progress(min(first + settings.workers, len(shortlist)), len(shortlist))
    return Reranked(energy, relaxed, failures, time.monotonic() - started)


def _judge(
    crystals: list[Crystal], model: EnergyModel, settings: RankSettings
) -> list[tuple[float | None, Crystal, str]]:
    if settings.relax_steps == 0:
        answers = model.evaluate(crystals)
        return [(a.energy, c, a.failure or "") for a, c in zip(answers, crystals)]
    steps = RelaxAtomsSettings(max_steps=settings.relax_steps, time_limit=settings.time_limit)
    out = []
    for result in relax_atoms(crystals, model, steps):
        usable = result.energy is not None and result.connectivity_kept
        out.append((result.energy if usable else None, result.crystal, result.reason or "no energy"))
    return out


def combined_energies(
    first: Float[np.ndarray, " crystals"], second: Float[np.ndarray, " crystals"]
) -> Float[np.ndarray, " crystals"]:
    """One scale for all: `second` where it is finite, elsewhere `first` shifted by their mean difference.

    Raises EnergyModelError where `second` has no finite value at all.
    """
    known = np.isfinite(second)
    if not known.any():
        raise EnergyModelError(
            "expected energies for some of the shortlist, got none; see the failures' reasons"
        )
    return np.where(known, second, first + (second - first)[known].mean())
