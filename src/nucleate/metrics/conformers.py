"""Do the conformers that were made cover those there are, and are they anything else beside?

Of one molecule, from the RMSDs d (Å) of its references r and the conformers g that were made (`conformer_rmsd`):

    COV-R = share of r with min_g d <= threshold        MAT-R = mean over r of min_g d       are all references found?
    COV-P = share of g with min_r d <= threshold        MAT-P = mean over g of min_r d       is what was made real?

as in ConfGF (Shi et al., ICML 2021) and, with P for precision, in its successors; thresholds are 0.5 Å for QM9 and
1.25 Å for drug-like molecules. What was asked for and not made stays in the denominators:

* COV-P counts it as a miss: its denominator is the number asked for. COV-R gains nothing by it.
* In MAT it is the molecule with all atoms on one spot, which is sqrt(sum |x - c|^2 / n) from each reference, its radius
  of gyration. It enters MAT-P like any other conformer, and MAT-R only where nothing at all was made.

So every molecule has all four numbers, and a method cannot gain by giving up: of 20 asked for and 1 made COV-P is at
most 5 %. Conformers of another stereoisomer are compared like all others, and counted beside (`conformer_evaluation`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nucleate.errors import InputError
from nucleate.metrics.rate import Rate

QM9, DRUGS = 0.5, 1.25  # Å: the published thresholds


# ---------------------------------------------------------------- coverage and matching


@dataclass(frozen=True)
class Coverage:
    """Of one molecule."""

    cov_r: float  # share of the references
    mat_r: float  # Å
    cov_p: float  # share of the conformers asked for
    mat_p: float  # Å
    made: Rate  # conformers, out of those asked for


def coverage(
    rmsds: Float[Tensor, "references made"],
    radii: Float[Tensor, " references"],
    asked: int,
    threshold: float = QM9,
) -> Coverage:
    """From the RMSDs (Å) of the conformers made and the `collapsed_rmsds` (Å) of the references.

    Raises InputError where there are no references, or more conformers than asked for: a method that makes more
    finds more, so let it choose first.
    """
    references, made = rmsds.shape
    if references == 0 or asked == 0 or made > asked:
        raise InputError(
            f"expected at least one reference and at most the {asked} conformers asked for, got {references} "
            f"references and {made} conformers; take the first {asked}"
        )
    missing = asked - made
    nearest_made = torch.cat([rmsds, rmsds.new_full((references, 1), torch.inf)], 1).amin(1)
    nearest_reference = rmsds.amin(0)
    return Coverage(
        cov_r=float((nearest_made <= threshold).double().mean()),
        mat_r=float((nearest_made if made else radii).mean()),
        cov_p=int((nearest_reference <= threshold).sum()) / asked,
        mat_p=float(nearest_reference.sum() + missing * radii.amin()) / asked,
        made=Rate(made, asked),
    )


def collapsed_rmsds(
    references: Float[Tensor, "references atoms 3"], heavy: Int[Tensor, " heavy"]
) -> Float[Tensor, " references"]:
    """RMSD (Å) of each reference from its heavy atoms all on one spot: its radius of gyration, all masses equal."""
    points = references[:, heavy].double()
    return (points - points.mean(1, keepdim=True)).square().sum(-1).mean(-1).sqrt()


# ---------------------------------------------------------------- energies and gaps


@dataclass(frozen=True, eq=False)
class Properties:
    """Energies and HOMO-LUMO gaps (eV) of conformers of one molecule; NaN where they could not be had."""

    energies: Float[Tensor, " conformers"]  # total, not relative: of one method for all
    gaps: Float[Tensor, " conformers"]

    @property
    def known(self) -> int:
        return int((self.energies.isfinite() & self.gaps.isfinite()).sum())


@dataclass(frozen=True)
class PropertyErrors:
    """Mean absolute errors (eV) over molecules of what an ensemble tells; NaN where no molecule could be compared."""

    mean_energy: float
    min_energy: float
    mean_gap: float
    min_gap: float
    max_gap: float
    molecules: Rate  # compared, out of all
    conformers: Rate  # made and with both numbers, out of all


def property_errors(generated: Sequence[Properties], references: Sequence[Properties]) -> PropertyErrors:
    """Molecule k is `generated[k]` and `references[k]`; conformers without both numbers are left out, and counted.

    Means and extremes depend on how many conformers there are: ask every method for the same number.
    """
    pairs = list(zip(generated, references, strict=True))
    told = [(_told(g), _told(r)) for g, r in pairs if g.known and r.known]
    errors = [
        sum(abs(g[k] - r[k]) for g, r in told) / len(told) if told else math.nan for k in range(len(_TOLD))
    ]
    known = Rate(sum(g.known for g in generated), sum(len(g.energies) for g in generated))
    return PropertyErrors(**dict(zip(_TOLD, errors)), molecules=Rate(len(told), len(pairs)), conformers=known)


_TOLD = ("mean_energy", "min_energy", "mean_gap", "min_gap", "max_gap")


def _told(ensemble: Properties) -> tuple[float, ...]:
    kept = ensemble.energies.isfinite() & ensemble.gaps.isfinite()
    energy, gap = ensemble.energies[kept].double(), ensemble.gaps[kept].double()
    numbers = (energy.mean(), energy.min(), gap.mean(), gap.min(), gap.max())
    return tuple(map(float, numbers))
