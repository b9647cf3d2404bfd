"""Free energies of several temperatures at once from energies sampled at each, by MBAR (pymbar, an extra).

    energies at T_1 ... T_K --every g-th frame--> u_k(x) = E(x) / kT_k --MBAR--> F_k - F_1 with errors, overlap

What is sampled at one temperature of a crystal has an energy, and with it a weight, at every other: no positions are
needed (Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008)). F is configurational, in units of kT at its own
temperature: F_k = -log int exp(-E / kT_k) dx. Frames that remember each other count once: g is the statistical
inefficiency of their energies.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.errors import InputError
from nucleate.metrics.free_energy import FreeEnergy
from nucleate.physics.parameters import BOLTZMANN

FEW = 20  # frames that do not remember each other, below which errors mean little
BOOTSTRAPS = 100
SOLVER = ({"method": "adaptive"},)  # Newton or self-consistent steps; pymbar's default makes scipy warn


@dataclass(frozen=True, eq=False)
class Ladder:
    """Temperatures with the free energies of a crystal, against the first."""

    temperatures: Float[Tensor, " states"]  # K
    differences: Float[Tensor, " states"]  # F_k - F_1, each in its own kT
    errors: Float[Tensor, " states"]  # standard errors, kT
    overlap: Float[Tensor, "states states"]  # row: where samples of a state would count; 1 in sum
    frames: tuple[int, ...]  # sampled at each temperature
    independent: tuple[int, ...]  # of them, those that were counted
    effective: Float[Tensor, " states"]  # samples of all temperatures that count at each

    @property
    def weakest(self) -> float:
        """The least overlap of neighbours; below 0.03 the ladder has a gap (Klimovich et al. 2015)."""
        return float(torch.diagonal(self.overlap, 1).min())

    def at(self, state: int = -1) -> FreeEnergy:
        """Of one temperature against the first. `effective` is the share of all counted samples that count there."""
        share = float(self.effective[state]) / sum(self.independent)
        return FreeEnergy(float(self.differences[state]), float(self.errors[state]), share)


def multistate(
    energies: Sequence[Float[Tensor, " frames"]], temperatures: Sequence[float], seed: int = 0
) -> Ladder:
    """MBAR of energies (eV) of one crystal at each temperature (K), frames in the order in which they were sampled.

    Errors are the spread of bootstraps. Raises InputError where pymbar is missing, for less than two temperatures,
    for energies that are not finite, and for fewer than 20 independent frames of a temperature.
    """
    _check(energies, temperatures)
    pymbar, timeseries = need_pymbar()
    picked = [_independent(timeseries, part.double().numpy()) for part in energies]
    counts = np.array([len(part) for part in picked])
    if counts.min() < FEW:
        which = int(counts.argmin())
        raise InputError(
            f"expected at least {FEW} independent frames at each temperature, got {counts[which]} at "
            f"{temperatures[which]:.1f} K; sample more"
        )
    together = np.concatenate(picked)
    lowest, kT = together.min(), BOLTZMANN * np.array(temperatures)
    # above the lowest energy: free energies of thousands of kT keep their digits, and iterations come to an end
    reduced = (together - lowest) / kT[:, None]
    mbar = pymbar.MBAR(
        reduced,
        counts,
        n_bootstraps=BOOTSTRAPS,
        rseed=seed + 1,
        solver_protocol=SOLVER,
    )
    found = mbar.compute_free_energy_differences(uncertainty_method="bootstrap")
    differences = found["Delta_f"][0] + lowest / kT - lowest / kT[0]
    return Ladder(
        temperatures=torch.tensor(list(temperatures), dtype=torch.float64),
        differences=torch.from_numpy(differences),
        errors=torch.from_numpy(found["dDelta_f"][0].copy()),
        overlap=torch.from_numpy(mbar.compute_overlap()["matrix"].copy()),
        frames=tuple(len(part) for part in energies),
        independent=tuple(counts.tolist()),
        effective=torch.from_numpy(mbar.compute_effective_sample_number().copy()),
    )


def _independent(timeseries: Any, energies: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " kept"]:
    """Every g-th. Energies that never change have no memory to measure, and are kept."""
    if np.ptp(energies) == 0:
        return energies
    g = timeseries.statistical_inefficiency(energies)
    return energies[timeseries.subsample_correlated_data(energies, g=g)]


def _check(energies: Sequence[Tensor], temperatures: Sequence[float]) -> None:
    if len(energies) != len(temperatures) or len(energies) < 2:
        raise InputError(
            f"expected energies of two temperatures or more, got {len(energies)} sets of energies and "
            f"{len(temperatures)} temperatures"
        )
    if min(temperatures) <= 0:
        raise InputError(f"expected temperatures above 0 K, got {min(temperatures)} K")
    for temperature, part in zip(temperatures, energies):
        if not part.isfinite().all() or len(part) < FEW:
            raise InputError(
                f"expected at least {FEW} frames with finite energies, got {len(part)} at {temperature:.1f} K, "
                f"{int(part.isfinite().sum())} of them finite"
            )


def need_pymbar() -> tuple[Any, Any]:
    """pymbar and its module of time series. Raises InputError where it is missing."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # it advertises another package on being imported
    try:
        import pymbar
        from pymbar import timeseries
    except ImportError:
        raise InputError(
            "MBAR needs the package pymbar, which is not installed here; pip install 'nucleate[free-energy]'"
        ) from None
    return pymbar, timeseries
