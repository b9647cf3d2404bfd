"""Volume and density of predicted crystals against the experimental ones.

Everything is per formula unit, so the number of molecules in the cell does not matter; and it is counted per heavy
atom inside, so hydrogens that one of the files lacks do not matter either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError


@dataclass(frozen=True)
class VolumeError:
    """How a crystal differs from the reference; positive where it is larger, or denser."""

    relative: float  # V / V_ref - 1 per formula unit
    per_molecule: float  # Å^3, averaged over the reference's molecules
    density: float  # g/cm^3, of the same contents as the reference
    relative_density: float  # V_ref / V - 1


@dataclass(frozen=True)
class VolumeDeviation:
    """Mean over the crystals that were measured, out of all that were asked for."""

    rmad: float  # mean |V - V_ref| / V_ref; NaN where nothing was measured
    bias: float  # mean (V - V_ref) / V_ref
    measured: int
    asked: int

    @property
    def failed(self) -> int:
        return self.asked - self.measured

    def __str__(self) -> str:
        if not self.measured:
            return f"RMAD unknown (0 of {self.asked} crystals)"
        return (
            f"RMAD {100 * self.rmad:.2f} %, bias {100 * self.bias:+.2f} % "
            f"({self.measured} of {self.asked} crystals)"
        )


def volume_error(crystal: Crystal, reference: Crystal) -> VolumeError:
    """Volume and density against a reference of the same composition (heavy atoms, any Z).

    Raises InputError with reason "other composition" where the heavy atoms are not in the same proportions.
    """
    ours, theirs = _heavy_counts(crystal), _heavy_counts(reference)
    if not torch.equal(ours * theirs.sum(), theirs * ours.sum()):
        raise InputError(
            "expected crystals of the same composition (hydrogens apart), got "
            f"{_formula(ours)} against the reference's {_formula(theirs)}; compare crystals of one compound",
            reason="other composition",
        )
    ratio = (crystal.volume / int(ours.sum())) / (reference.volume / int(theirs.sum()))
    return VolumeError(
        relative=ratio - 1,
        per_molecule=(ratio - 1) * reference.volume / reference.n_molecules,
        density=(1 / ratio - 1) * reference.density,
        relative_density=1 / ratio - 1,
    )


def volume_deviation(
    crystals: Sequence[Crystal | InputError | None], references: Crystal | Sequence[Crystal]
) -> VolumeDeviation:
    """RMAD = mean |V - V_ref| / V_ref per formula unit, as in the MolCrystalFlow paper (2026), and the bias.

    One reference for all, or one each. None or an InputError stands for a sample that failed: it has no volume,
    so it cannot enter the mean, but it stays in `asked`. Raises InputError as `volume_error`, and ValueError where
    the numbers of crystals and references differ.
    """
    pairs = [references] * len(crystals) if isinstance(references, Crystal) else list(references)
    if len(pairs) != len(crystals):
        raise ValueError(
            f"expected one reference or one for each of {len(crystals)} crystals, got {len(pairs)}"
        )
    errors = [volume_error(c, r).relative for c, r in zip(crystals, pairs) if isinstance(c, Crystal)]
    if not errors:
        return VolumeDeviation(math.nan, math.nan, 0, len(crystals))
    n = len(errors)
    return VolumeDeviation(sum(map(abs, errors)) / n, sum(errors) / n, n, len(crystals))


def _heavy_counts(crystal: Crystal) -> Int[Tensor, " elements"]:
    """Atoms by atomic number; hydrogen counts only where there is nothing else."""
    counts = torch.bincount(crystal.numbers, minlength=119)
    if counts[2:].any():
        counts[1] = 0
    return counts


def _formula(counts: Int[Tensor, " elements"]) -> str:
    symbol = Chem.GetPeriodicTable().GetElementSymbol
    return " ".join(f"{symbol(z)}{n}" for z, n in enumerate(counts.tolist()) if n)
