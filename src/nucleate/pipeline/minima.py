"""What a search knows so far: distinct minima over all units, lowest first."""

from dataclasses import dataclass

import numpy as np

from nucleate.crystal.packing import Packings
from nucleate.pipeline.deduplicate import distinct_crystals
from nucleate.pipeline.generate import Arm
from nucleate.pipeline.units import UnitResult


@dataclass(frozen=True, eq=False)
class Minima:
    """All minima found, flat over arms; `row` points into that arm's packings."""

    packings: tuple[Packings, ...]
    arm: np.ndarray
    row: np.ndarray
    energy: np.ndarray  # eV per formula unit
    volume: np.ndarray  # Å^3 per formula unit
    fingerprint: np.ndarray
    contact: np.ndarray
    hits: np.ndarray
    random_hits: np.ndarray  # of these, from random and learned starts, which know of no minimum
    start: np.ndarray
    kind: np.ndarray  # of the unit that this minimum was taken from: random, learned or perturbed

    def __len__(self) -> int:
        return len(self.energy)

    def packing(self, i: int) -> Packings:
        return self.packings[self.arm[i]][int(self.row[i])]

    @staticmethod
    def merge(arms: list[Arm], empty: list[Packings], results: list[UnitResult]) -> "Minima":
        """Distinct minima over all results, lowest first; hits of duplicates add up."""
        by_arm = [[r.packings for r in results if r.unit.arm == a] for a in range(len(arms))]
        packings = tuple(Packings.concatenate(p) if p else empty[a] for a, p in enumerate(by_arm))
        ordered = [r for a in range(len(arms)) for r in results if r.unit.arm == a]

        def joined(name: str, width: tuple[int, ...] = ()) -> np.ndarray:
            parts = [getattr(r, name).numpy() for r in ordered]
            return np.concatenate(parts) if parts else np.zeros((0, *width))

        arm = np.concatenate([np.full(len(p), a) for a, p in enumerate(packings)]).astype(np.int64)
        row = np.concatenate([np.arange(len(p)) for p in packings]).astype(np.int64)
        kind = np.repeat(
            np.array([r.unit.kind for r in ordered], dtype=str), [len(r.energy) for r in ordered]
        )
        energy, volume, fingerprint = joined("energy"), joined("volume"), joined("fingerprint", (1,))
        distinct = distinct_crystals(energy, volume, fingerprint)
        kept, hits = distinct.kept, joined("hits")
        return Minima(
            packings=packings,
            arm=arm[kept],
            row=row[kept],
            energy=energy[kept],
            volume=volume[kept],
            fingerprint=fingerprint[kept],
            contact=joined("contact")[kept],
            hits=np.bincount(distinct.group, hits, len(kept)).astype(np.int64),
            random_hits=np.bincount(distinct.group, hits * (kind != "perturbed"), len(kept)).astype(np.int64),
            start=joined("start")[kept].astype(np.int64),
            kind=kind[kept],
        )
