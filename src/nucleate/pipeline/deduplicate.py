"""Distinct crystals: two are one when energy, volume and the energies of their molecule pairs agree."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from pydantic import BaseModel, PositiveFloat

from nucleate.physics.parameters import KJ_PER_MOL


class DuplicateTolerance(BaseModel, frozen=True, extra="forbid"):
    """How close two crystals must be to count as one."""

    energy: PositiveFloat = 0.15 * KJ_PER_MOL  # eV per formula unit
    volume: PositiveFloat = 0.004  # relative
    pair_energy: PositiveFloat = 0.6 * KJ_PER_MOL  # eV, largest difference in the fingerprint


@dataclass(frozen=True)
class Distinct:
    """`kept` are indices of the lowest member of each group, by energy; `group` maps every crystal to its row."""

    kept: Int[np.ndarray, " distinct"]
    group: Int[np.ndarray, " crystals"]

    @property
    def multiplicity(self) -> Int[np.ndarray, " distinct"]:
        """How many crystals each distinct one stands for, itself included."""
        return np.bincount(self.group, minlength=len(self.kept))


def distinct_crystals(
    energy: Float[np.ndarray, " crystals"],
    volume: Float[np.ndarray, " crystals"],
    fingerprint: Float[np.ndarray, "crystals pairs"],
    tolerance: DuplicateTolerance | None = None,
) -> Distinct:
    """Group equal crystals. Energies in eV and volumes in Å^3 per formula unit; fingerprints in eV.

    Crystals are taken in order of energy; each joins the lowest group that agrees with it. Only groups whose
    lowest member lies within the energy tolerance are looked at, so the cost is that of sorting.
    """
    tolerance = tolerance or DuplicateTolerance()
    kept: list[int] = []
    group = np.zeros(len(energy), np.int64)
    first = 0
    for i in np.argsort(energy, kind="stable"):
        while first < len(kept) and energy[i] - energy[kept[first]] > tolerance.energy:
            first += 1
        near = np.array(kept[first:], dtype=np.int64)
        same = (np.abs(volume[near] / volume[i] - 1) < tolerance.volume) & (
            np.abs(fingerprint[near] - fingerprint[i]).max(1, initial=0.0) < tolerance.pair_energy
        )
        if same.any():
            group[i] = first + int(same.argmax())
        else:
            group[i] = len(kept)
            kept.append(int(i))
    return Distinct(np.array(kept, dtype=np.int64), group)
