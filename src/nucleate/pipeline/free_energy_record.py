"""free_energy.json: estimates, and what a report draws of them."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from nucleate.data.rigid_frames import RigidFrames
from nucleate.metrics.free_energy import FreeEnergy, gap, one_sided
from nucleate.metrics.multistate import Ladder
from nucleate.metrics.radial import radial_distribution
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.physics.rigid_sites import TIP4P_EW, TIP4P_ICE
from nucleate.pipeline.predict import Stopwatch
from nucleate.pipeline.provenance import provenance
from nucleate.pipeline.temperature_ladder import RigidCrystal

if TYPE_CHECKING:
    from nucleate.pipeline.free_energy import Estimate, FreeEnergySettings

WATER = {water.name: {"smiles": "O", "formula": "H2O"} for water in (TIP4P_EW, TIP4P_ICE)}
BINS = 50
POINTS = 20  # of the convergence
FRAMES = 1000  # for radial distributions


def describe(
    source: str,
    name: str,
    crystal: RigidCrystal,
    settings: "FreeEnergySettings",
    frames: RigidFrames,
    estimates: Sequence["Estimate"],
    ladder: Ladder | None,
    sampled: RigidFrames | None,
    bar: FreeEnergy | None,
    clock: Stopwatch,
) -> dict[str, Any]:
    """Everything, JSON-ready but for numbers that are not finite."""
    n, last = len(crystal.places), estimates[-1]
    rows = [_row(one.method, one.found, n, one.log_w) for one in estimates]
    if bar is not None and sampled is not None:
        rows.append(_row("bar", bar, n, None) | {"frames": len(frames) + len(sampled)})
    if ladder is not None:
        rows.append(_row("mbar", ladder.at(), n, None) | {"frames": sum(ladder.frames)})
    return {
        **provenance("torch", "numpy", *(extra for extra in ("openmm", "pymbar") if find_spec(extra))),
        "molecule": {
            "name": f"{name}, {n} x {crystal.molecule.name}",
            **WATER.get(crystal.molecule.name, {}),
        },
        "crystal": {"molecules": n, "cell_A": crystal.cell.tolist(), "source": source},
        "settings": settings.model_dump(mode="json"),
        "base_K": settings.t_base,
        "target_K": settings.t_target,
        "method": settings.method,
        "estimates": rows,
        "ladder": None if ladder is None else _ladder(ladder),
        "energies": energies_of(frames, estimates, sampled),
        "work": work_of(estimates),
        "radial": radial_of(frames, last, sampled),
        "convergence": convergence_of(estimates),
        "notes": notes_of(estimates, ladder),
        "seconds": clock.laps,
        "wall_seconds": clock.total,
    }


def _row(method: str, found: FreeEnergy, n: int, log_w: Tensor | None) -> dict[str, Any]:
    return {
        "method": method,
        "difference_kT": found.difference,
        "error_kT": found.error,
        "per_molecule_kT": found.difference / n,
        "effective_share": found.effective,
        "gap_kT": None if log_w is None else gap(log_w, found.difference),
        "frames": None if log_w is None else len(log_w),
        "overlaps": found.overlaps,
    }


def _ladder(ladder: Ladder) -> dict[str, Any]:
    return {
        "temperatures_K": ladder.temperatures.tolist(),
        "differences_kT": ladder.differences.tolist(),
        "errors_kT": ladder.errors.tolist(),
        "overlap": ladder.overlap.tolist(),
        "frames": list(ladder.frames),
        "independent": list(ladder.independent),
    }


def energies_of(
    frames: RigidFrames, estimates: Sequence["Estimate"], sampled: RigidFrames | None
) -> dict[str, Any]:
    """Densities of the energy of a molecule (kJ/mol): as sampled, as mapped, and as mapped and weighted."""
    unit = KJ_PER_MOL * frames.places.shape[1]
    before = frames.energies / unit
    after = {one.method: one.samples.energies / unit for one in estimates if one.method != "fep"}
    whole = [before, *after.values()] + ([] if sampled is None else [sampled.energies / unit])
    # a few mapped frames with molecules on top of each other must not stretch the axis
    edges = torch.linspace(
        float(min(x.min() for x in whole)), float(max(x.quantile(0.995) for x in whole)), BINS + 1
    ).double()
    shares = {one.method: one.log_w.softmax(0) for one in estimates}
    return {
        "edges_kj_mol": edges.tolist(),
        "base": density(before, edges),
        "mapped": {name: density(x, edges) for name, x in after.items()},
        "reweighted": {name: density(x, edges, shares[name]) for name, x in after.items()},
        "sampled": None if sampled is None else density(sampled.energies / unit, edges),
    }


def work_of(estimates: Sequence["Estimate"]) -> dict[str, Any]:
    """Densities of log w plus the difference: 0 everywhere for a perfect map."""
    found = {one.method: one.log_w + one.found.difference for one in estimates}
    shown = [x for name, x in found.items() if name != "fep"] or list(found.values())
    edges = torch.linspace(
        float(min(x.quantile(0.005) for x in shown)), float(max(x.max() for x in shown)), BINS + 1
    ).double()
    return {"edges_kT": edges.tolist()} | {name: density(x, edges) for name, x in found.items()}


def radial_of(frames: RigidFrames, last: "Estimate", sampled: RigidFrames | None) -> dict[str, Any]:
    """g(r) of places before and after the last map, with and without weights."""
    few = slice(None, None, max(1, len(frames) // FRAMES))
    some = slice(None, None, max(1, len(last.samples) // FRAMES))
    before = radial_distribution(frames.places[few], frames.cell)
    after = last.samples.places[some]
    return {
        "r_A": before.r.tolist(),
        "base": before.g.tolist(),
        "mapped": radial_distribution(after, frames.cell).g.tolist(),
        "reweighted": radial_distribution(after, frames.cell, last.log_w[some].softmax(0)).g.tolist(),
        "sampled": None
        if sampled is None
        else radial_distribution(sampled.places[:: max(1, len(sampled) // FRAMES)], frames.cell).g.tolist(),
    }


def convergence_of(estimates: Sequence["Estimate"]) -> Mapping[str, Any]:
    """Estimates from the first so many frames."""
    least, most = 20, len(estimates[0].log_w)
    counts = torch.linspace(least, most, POINTS).long().tolist() if most > least else [most]
    return {"frames": counts} | {
        one.method: [one_sided(one.log_w[:count], resamples=2).difference for count in counts]
        for one in estimates
    }


def notes_of(estimates: Sequence["Estimate"], ladder: Ladder | None) -> list[str]:
    """What a reader should know before quoting a number."""
    notes = [
        f"{one.method}: only {one.found.effective:.2%} of the frames count at the target; its error is too small. "
        "Choose a nearer temperature, more frames or another method."
        for one in estimates
        if not one.found.overlaps
    ]
    if ladder is not None and ladder.weakest < 0.03:
        notes.append(
            f"neighbouring temperatures overlap by {ladder.weakest:.3f} only (0.03 is the least); use more of them"
        )
    return notes


def density(
    x: Float[Tensor, " samples"],
    edges: Float[Tensor, " edges"],
    shares: Float[Tensor, " samples"] | None = None,
) -> list[float]:
    """A histogram of area 1 (less what lies outside)."""
    shares = torch.full_like(x, 1 / len(x)) if shares is None else shares
    width = float(edges[1] - edges[0])
    number = torch.floor((x - edges[0]) / width).long()
    number = torch.where(x == edges[-1], len(edges) - 2, number)
    inside = (number >= 0) & (number < len(edges) - 1)
    counts = torch.zeros(len(edges) - 1, dtype=x.dtype).index_add(0, number[inside], shares.to(x)[inside])
    return (counts / width).tolist()
