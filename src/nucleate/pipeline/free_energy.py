"""The free energy of a crystal of rigid molecules at one temperature against another, and samples there.

    crystal --dynamics at T_A--> frames --learn on some, map the others to T_B--> work --> F_B - F_A with its error
                                                                             `--> weighted samples at T_B

Methods: `fep` (no map: Zwanzig), `harmonic` (displacements and turns scaled by sqrt(T_B / T_A)), `flow` (a trained
flow; both others stand beside it, from the same frames) and `mbar` (dynamics at a ladder of temperatures).
All free energies are configurational and in kT, each at its own temperature: F = -log int exp(-E / kT) dx.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from nucleate.data.ice import ice_xi
from nucleate.data.rigid_frames import RigidFrames, how_made, read_frames, walk_of, write_frames
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.generative.normalizing_flow import Bodies, HarmonicScaling
from nucleate.generative.seeds import generator_of
from nucleate.geometry.so3 import matrix_to_quaternion
from nucleate.metrics.free_energy import FreeEnergy, one_sided, two_sided
from nucleate.metrics.multistate import Ladder
from nucleate.models.rigid_body_flow import (
    CRYSTAL,
    HeldCrystal,
    IdealCrystal,
    Map,
    RigidBodyFlow,
    ideal_crystal,
)
from nucleate.models.rigid_body_flow_published import PublishedFlow
from nucleate.models.rigid_body_flow_training import FlowSettings, flow_for, held_crystal, with_energies
from nucleate.physics.rigid_sampler import Frame, Walk, accepted_chains, first_walk, walks
from nucleate.physics.rigid_sites import TIP4P_EW, TIP4P_ICE
from nucleate.pipeline.composition import folder_name
from nucleate.pipeline.folders import hold_folder, make_folder
from nucleate.pipeline.free_energy_record import describe
from nucleate.pipeline.predict import Stopwatch
from nucleate.pipeline.rigid_crystal import rigid_crystal
from nucleate.pipeline.temperature_ladder import RigidCrystal, geometric, sample_frames, temperature_ladder
from nucleate.pipeline.train import WEIGHTS, train
from nucleate.report.folder import FREE_ENERGY, finite
from nucleate.report.free_energy_page import write_free_energy_report
from nucleate.weights import Weights, read_weights

Progress = Callable[[str, int, int, str], None]
SAMPLES = "samples.safetensors"
SYSTEM = "rigid_body_flow"
WATERS = {"tip4p-ew": TIP4P_EW, "tip4p-ice": TIP4P_ICE}
CHUNK = 100  # frames mapped at once
CHAINS = 16  # of our own sampler
SETTLING, BETWEEN = 60, 2  # its trajectories before the first frame, and between frames
SAVE_EVERY = 20.0  # s, the most that a kill costs of it
LEARNT = 0.8  # share of the frames, the first ones, that a flow learns from; estimates are from the others


class FreeEnergySettings(BaseModel, frozen=True, extra="forbid"):
    """What `nucleate free-energy` was asked for."""

    t_base: PositiveFloat = 250.0  # K
    t_target: PositiveFloat = 100.0  # K
    method: Literal["flow", "harmonic", "fep", "mbar"] = "flow"
    sampler: Literal["auto", "openmm", "own"] = "auto"
    frames: Annotated[int, Field(ge=100)] = 4000  # at each temperature
    temperatures: Annotated[int, Field(ge=2)] = 5  # of the ladder of mbar
    steps: PositiveInt = 800  # of training
    minutes: PositiveFloat | None = None  # of training at most
    seed: NonNegativeInt = 0


@dataclass(frozen=True, eq=False)
class Estimate:
    """What one way of mapping says."""

    method: str
    found: FreeEnergy  # kT
    log_w: Float[Tensor, " frames"]  # less the spring's share
    samples: RigidFrames  # at the target; they count by their weights


@dataclass(frozen=True, eq=False)
class FreeEnergyRun:
    """What was written: the record, and the folder."""

    folder: Path
    record: dict[str, Any]
    estimates: list[Estimate]
    ladder: Ladder | None


def free_energy(
    source: str,
    n: int = 16,
    water: str = "tip4p-ew",
    settings: FreeEnergySettings | None = None,
    output: Path | None = None,
    weights: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> FreeEnergyRun:
    """F(target) - F(base) of `ice-xi` with n molecules of a water, or of the crystal of a CIF.

    The folder gets frames, the trained flow, weighted samples, `free_energy.json` and `report.html`. `weights` are
    those of `nucleate train rigid_body_flow`; without them (or those that come with the package, where they fit) a flow
    is trained on the first four fifths of the frames. Raises InputError for crystals that cannot be used.
    """
    settings, clock = settings or FreeEnergySettings(), Stopwatch()
    crystal, name = crystal_of(source, n, water)
    folder = make_folder(output or Path("results") / f"{name}-free-energy")
    with hold_folder(folder):
        if (folder / FREE_ENERGY).exists() and not resume:
            raise InputError(
                f"{folder} holds a free energy already; choose another folder with -o, or go on with --resume"
            )
        frames = with_energies(frames_at(crystal, settings, folder, settings.t_base, settings.seed, progress))
        clock.lap("dynamics")
        ladder, sampled, flow = None, None, None
        if settings.method == "mbar":
            ladder, sampled = ladder_of(crystal, settings, folder, progress)
            clock.lap("ladder")
        if settings.method == "flow":
            flow = flow_of_run(crystal, settings, folder, weights, resume, progress)
            clock.lap("flow")
        estimates = mapped(frames, settings, flow, progress)
        clock.lap("mapping")
        bar = None if sampled is None else both_ways(frames, sampled, settings)
        record = describe(source, name, crystal, settings, frames, estimates, ladder, sampled, bar, clock)
        write_samples(estimates[-1], folder)
        write_atomically(folder / FREE_ENERGY, json.dumps(finite(record), indent=1) + "\n")
        write_free_energy_report(folder)
    return FreeEnergyRun(folder, record, estimates, ladder)


# ------------------------------------------------------------------ the crystal and its frames


def crystal_of(source: str, n: int, water: str) -> tuple[RigidCrystal, str]:
    """The crystal and what to call it."""
    if source.lower() in ("ice-xi", "ice_xi"):
        if water not in WATERS:
            raise InputError(f"expected a water ({', '.join(WATERS)}), got {water!r}")
        places, turns, cell = ice_xi(n)
        return RigidCrystal(WATERS[water], cell, places, turns), f"ice-xi-{n}"
    path = Path(source)
    if not path.is_file():
        raise InputError(f"expected ice-xi or a CIF file, got {source!r}, which is neither; check the path")
    return rigid_crystal(path), folder_name(path.stem)


def frames_at(
    crystal: RigidCrystal,
    settings: FreeEnergySettings,
    folder: Path,
    temperature: float,
    seed: int,
    progress: Progress | None,
) -> RigidFrames:
    """Sampled by OpenMM where it can (water) and is installed, else by Hamiltonian Monte Carlo of our own."""
    file = folder / "frames" / f"{temperature:.3f}K.safetensors"
    if settings.sampler == "openmm" or (settings.sampler == "auto" and openmm_can(crystal)):
        return sample_frames(crystal, temperature, settings.frames, file, seed, progress=progress)
    return own_frames(crystal, temperature, settings.frames, file, seed, progress)


def openmm_can(crystal: RigidCrystal) -> bool:
    """Whether dynamics by OpenMM are at hand for this molecule."""
    return crystal.molecule.exp6 is None and find_spec("openmm") is not None


def own_frames(
    crystal: RigidCrystal, temperature: float, frames: int, path: Path, seed: int, progress: Progress | None
) -> RigidFrames:
    """By `rigid_sampler`, a few chains at once; at least `frames` frames, chain after chain.

    The file is written every `SAVE_EVERY` seconds and after Ctrl-C, and holds where the chains are: a run that was
    stopped, or one for more frames, goes on as if it had never been cut. Raises InputError for a file of another run.
    """
    tell = progress or (lambda *_: None)
    chains, energy = min(CHAINS, frames), crystal.potential
    made = {"method": "Hamiltonian Monte Carlo", "seed": seed, "chains": chains, "settling": SETTLING}
    made |= {"between": BETWEEN}
    walk = None
    if path.exists():
        before = _earlier_frames(crystal, temperature, path, made)
        walk = _earlier_walk(before, path, frames)
        if walk is None:
            return before
    if walk is None:
        walk = first_walk(energy, crystal.places, crystal.turns, temperature, chains, seed)
    total = SETTLING + BETWEEN * -(-frames // chains)
    going_on = walks(walk, energy, temperature, BETWEEN, SETTLING)
    begun, saved = walk.done, time.monotonic()
    try:
        while walk.done < total:
            walk = next(going_on)
            tell(f"{temperature:.1f} K", walk.done, total, "Monte Carlo")
            if time.monotonic() - saved > SAVE_EVERY:
                _write_walk(walk, crystal, temperature, path, made)
                saved = time.monotonic()
    finally:  # whatever ends it
        if walk.done > begun:
            _write_walk(walk, crystal, temperature, path, made)
    accepted_chains(walk, temperature, SETTLING)
    return read_frames(path)


def _write_walk(
    walk: Walk, crystal: RigidCrystal, temperature: float, path: Path, made: dict[str, Any]
) -> None:
    """The frames so far and where the chains are; nothing before the first frame, which is quickly made again."""
    if not walk.kept:
        return
    found = walk.chains(temperature, SETTLING)
    places, turns, energies = found.one_after_another()
    frames = RigidFrames(
        crystal.molecule, crystal.cell, temperature, places, turns, energies, hands=crystal.hands
    )
    write_frames(frames, path, made | {"accepted": found.accepted}, walk.state())


def _earlier_frames(
    crystal: RigidCrystal, temperature: float, path: Path, made: dict[str, Any]
) -> RigidFrames:
    """What is in the file. Raises InputError where it is of another crystal or made in another way.

    Frames that do not say how they were made are taken as they are.
    """
    found = read_frames(path)
    same = found.molecule.name == crystal.molecule.name and found.cell.equal(crystal.cell)
    same = same and found.temperature == temperature
    before = how_made(path)
    if not same or (before and any(before.get(key, value) != value for key, value in made.items())):
        raise InputError(
            f"expected frames of the same crystal, temperature, sampler and seed in {path}, got others; choose another "
            "with -o"
        )
    return found


def _earlier_walk(before: RigidFrames, path: Path, frames: int) -> Walk | None:
    """Where the sampler was; None for enough frames that say nothing of it. Raises InputError for too few of them."""
    state = walk_of(path)
    if not state and len(before) >= frames:
        return None
    if not state:
        raise InputError(
            f"expected {frames} frames in {path}, got {len(before)} of another program, which cannot be gone on with; "
            f"ask for --frames {len(before)}, or choose another with -o"
        )
    chains = len(state["places"])
    parts = [x.unflatten(0, (chains, -1)).unbind(1) for x in (before.places, before.turns, before.energies)]
    return Walk.of(state, (Frame(*frame) for frame in zip(*parts)))


def ladder_of(
    crystal: RigidCrystal, settings: FreeEnergySettings, folder: Path, progress: Progress | None
) -> tuple[Ladder, RigidFrames]:
    """MBAR of frames at a geometric ladder of temperatures, and those at the target."""
    steps = geometric(settings.t_base, settings.t_target, settings.temperatures)
    ladder, sampled = temperature_ladder(
        steps, lambda T, seed: frames_at(crystal, settings, folder, T, seed, progress), settings.seed
    )
    return ladder, sampled[-1]


# ------------------------------------------------------------------ the flow


def flow_of_run(
    crystal: RigidCrystal,
    settings: FreeEnergySettings,
    folder: Path,
    weights: Path | None,
    resume: bool,
    progress: Progress | None,
) -> RigidBodyFlow | PublishedFlow:
    """Of given weights, or those that come with the package where they are for this crystal, or trained here."""
    if weights is None:
        shipped = Path(str(files("nucleate.weights") / f"{SYSTEM}.safetensors"))
        weights = (
            shipped if shipped.is_file() and fits(read_weights(shipped, SYSTEM), crystal, settings) else None
        )
    if weights is None:
        weights = trained_flow(settings, folder, resume, progress)
    found = read_weights(weights, SYSTEM)
    if not fits(found, crystal, settings):
        raise InputError(
            f"expected the flow of this crystal from {settings.t_base:g} to {settings.t_target:g} K, got another's in "
            f"{weights}; leave --weights out to train one"
        )
    return flow_of(found)


def trained_flow(settings: FreeEnergySettings, folder: Path, resume: bool, progress: Progress | None) -> Path:
    """Weights of a flow trained in the folder, which keeps the settings, so that it can be trained further by hand."""
    own = folder / "flow"
    make_folder(own)
    table: dict[str, dict[str, Any]] = {
        "training": {
            "steps": settings.steps, "warm_up": 50, "learning_rate": 1e-3, "weight_decay": 0.0, "clip": 5.0,
            "average": 0.98, "validate_every": max(1, settings.steps // 10), "checkpoint_minutes": 2.0,
            "monitor": "loss", "seed": settings.seed, "tensorboard": False,
        },
        "model": {"target": settings.t_target, "held": round(1 - LEARNT, 6), "batch": 64},
    }  # fmt: skip
    text = "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        for name, values in table.items()
    )
    write_atomically(own / "settings.toml", text)
    going_on = resume and (own / "checkpoint.safetensors").exists()
    trained = train(
        SYSTEM, folder / "frames" / f"{settings.t_base:.3f}K.safetensors", own, settings=own / "settings.toml",
        resume=going_on, minutes=settings.minutes, progress=progress,
    )  # fmt: skip
    return trained.folder / WEIGHTS


def fits(weights: Weights, crystal: RigidCrystal, settings: FreeEnergySettings) -> bool:
    """Whether a flow is for this molecule, cell and pair of temperatures."""
    about = weights.card.get("data", {})
    if about.get("molecule") not in (None, crystal.molecule.name) or "cell" not in weights.tensors:
        return False
    same = weights.tensors["cell"].shape == crystal.cell.shape and bool(
        torch.allclose(weights.tensors["cell"].double(), crystal.cell, atol=1e-3)
    )
    same = same and len(weights.tensors["places"]) == len(crystal.places)
    return (
        same
        and weights.settings(FlowSettings).target == settings.t_target
        and about.get("base", settings.t_base) == settings.t_base
    )


def flow_of(weights: Weights) -> RigidBodyFlow | PublishedFlow:
    """The flow of a file, for the crystal that it was trained on (double precision, fixed)."""
    settings = weights.settings(FlowSettings)
    ideal = IdealCrystal(*(weights.tensors[name].double() for name in CRYSTAL))
    c, length = weights.tensors.get("scales", torch.ones(2)).tolist()
    return weights.fill(flow_for(settings, ideal, c, length).double())


# ------------------------------------------------------------------ what maps are worth


def mapped(
    frames: RigidFrames,
    settings: FreeEnergySettings,
    flow: RigidBodyFlow | PublishedFlow | None,
    progress: Progress | None = None,
) -> list[Estimate]:
    """Estimates without a map, by harmonic scaling, and by the flow if there is one; all from the same frames.

    These are the last fifth where a flow may have learnt from the others.
    """
    tell = progress or (lambda *_: None)
    base, target = settings.t_base, settings.t_target
    learnt = frames.part(slice(0, int(LEARNT * len(frames))))
    held = frames.part(slice(len(learnt), None)) if flow is not None else frames
    ideal = ideal_crystal(learnt) if flow is None else flow.ideal
    maps: dict[str, Map] = {
        "fep": scaling(base, base),
        "harmonic": scaling(base, target),
    }
    maps = {"fep": maps["fep"]} if settings.method == "fep" else maps
    if flow is not None:
        maps["flow"] = flow
    found: list[Estimate] = []
    for name, one in maps.items():
        tell(f"map: {name}", len(found), len(maps), "")
        crystal = held_crystal(learnt, ideal)
        if isinstance(one, PublishedFlow):
            crystal = replace(crystal, spring=0.0)
        found.append(_estimate(name, one, crystal, held, settings))
    tell("map", len(maps), len(maps), "")
    return found


def _estimate(
    name: str, one: Map, crystal: HeldCrystal, frames: RigidFrames, settings: FreeEnergySettings
) -> Estimate:
    """Frame by frame: log w, where it goes and its energy there."""
    bodies = crystal.ideal.represent(frames)
    generator = generator_of(settings.seed, "shift", name)
    parts, weights, energies = [], [], []
    with torch.no_grad():
        for places, turns, energy in zip(
            bodies.places.split(CHUNK), bodies.turns.split(CHUNK), frames.energies.split(CHUNK)
        ):
            log_w, moved = crystal.work(
                one, Bodies(places, turns), energy, settings.t_base, settings.t_target, generator
            )
            weights.append(log_w + crystal.spring_share(settings.t_base, settings.t_target))
            parts.append(crystal.ideal.build(moved))
            energies.append(crystal.energy(*parts[-1]))
    places, rotations = (torch.cat(x) for x in zip(*parts))
    samples = replace(
        frames,
        temperature=settings.t_target,
        places=places,
        turns=matrix_to_quaternion(rotations),
        energies=torch.cat(energies),
    )
    log_w = torch.cat(weights)
    return Estimate(name, one_sided(log_w, settings.seed), log_w, samples)


def scaling(base: float, target: float) -> Map:
    """Harmonic scaling from one temperature (K) to another; from one to itself it does nothing."""
    layer = HarmonicScaling((target / base) ** 0.5)
    return lambda bodies: layer(bodies, None)


def both_ways(frames: RigidFrames, sampled: RigidFrames, settings: FreeEnergySettings) -> FreeEnergy:
    """Bennett's acceptance ratio of harmonic scaling, from frames of the base and of the target."""
    sampled = with_energies(sampled)
    crystal = held_crystal(frames, ideal_crystal(frames))
    ends = ((frames, settings.t_base, settings.t_target), (sampled, settings.t_target, settings.t_base))
    works = []
    for own, here, there in ends:
        generator = generator_of(settings.seed, "shift", "both ways", f"{here} K")
        bodies = crystal.ideal.represent(own)
        log_w, _ = crystal.work(scaling(here, there), bodies, own.energies, here, there, generator)
        works.append(log_w + crystal.spring_share(here, there))
    return two_sided(works[0], works[1], settings.seed)


def write_samples(estimate: Estimate, folder: Path) -> None:
    """Crystals at the target with the logarithms of their weights (the largest is 0), as frames and as a table."""
    log_w = estimate.log_w - estimate.log_w.max()
    write_frames(estimate.samples, folder / SAMPLES, {"method": estimate.method})
    rows = "".join(
        f"{k},{float(energy):.6f},{float(weight):.6f}\n"
        for k, (energy, weight) in enumerate(zip(estimate.samples.energies, log_w))
    )
    write_atomically(folder / "samples.csv", f"frame,energy_eV,log_weight\n{rows}")
