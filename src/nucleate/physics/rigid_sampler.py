"""Boltzmann samples of rigid molecules in any energy that torch can differentiate, by Hamiltonian Monte Carlo.

    one start --many chains: find widths and step, then freeze them--> trajectories, Metropolis test --> Chains

Each molecule has a place x and a rotation R, and a momentum for each, p and l (in the body's frame), both normal. With
the widths s (Å) and a (rad) of a molecule, H = E / kT + sum (|p|^2 + |l|^2) / 2, and a leapfrog step of size e is

    kick    p -= e/2 s dE/dx / kT        l -= e/2 a dE/dR / kT
    drift   x += e s p                   R <- R Exp(e a l)
    kick    again

The integrator is exact for what the test needs. Drift is the free motion of a ball, which keeps l; it shifts x and
multiplies R on the right for fixed p and l, and so keeps the uniform measure of rotations; a kick shifts p and l for
fixed x and R. So volume is kept whatever the step. Kick, drift, kick read the same backwards, so a step with momenta
turned around leads back. The Metropolis test on H then leaves exp(-E / kT) exactly invariant; the step decides only how
many trajectories are accepted. Widths and step change during burn-in only.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nucleate.errors import InputError, NucleateError
from nucleate.geometry.so3 import matrix_to_quaternion, quaternion_to_matrix, rotation_exp
from nucleate.physics.parameters import BOLTZMANN

Places = Float[Tensor, "chains molecules 3"]
Rotations = Float[Tensor, "chains molecules 3 3"]
Energy = Callable[[Tensor, Tensor], Tensor]
"""Places (Å) and rotations (chains first) to the energy of each chain (eV)."""

STEPS = 10  # of a trajectory
BURN_IN = 200  # trajectories
WANTED = 0.8  # share of trajectories accepted
JITTER = 0.2  # of the step, up and down: no motion comes back to its start in every trajectory
WIDEST = 1.0  # Å and rad: of a molecule that feels nothing
FIRST = 0.05  # Å and rad: before any slope was seen


class Widths(NamedTuple):
    """How far a molecule moves in a unit step."""

    place: Float[Tensor, "molecules 1"]  # Å
    turn: Float[Tensor, "molecules 1"]  # rad


class Poses(NamedTuple):
    """Where all chains are, what they feel there (reduced: divided by kT)."""

    places: Places
    rotations: Rotations
    energy: Float[Tensor, " chains"]  # kT
    pull: Places  # dE/dx, kT/Å
    twist: Places  # dE/dR along rotation vectors in the body's frame, kT/rad


class Momenta(NamedTuple):
    """Of places and of rotations, without unit."""

    place: Places
    turn: Places


class Frame(NamedTuple):
    """Where all chains are at one time."""

    places: Places
    turns: Float[Tensor, "chains molecules 4"]  # unit quaternions (w, x, y, z) with w >= 0
    energies: Float[Tensor, " chains"]  # eV


@dataclass(frozen=True, eq=False)
class Walk:
    """Where all chains are after some trajectories, their frames, and everything that the next trajectory needs."""

    done: int  # trajectories
    poses: Poses
    tuner: "Tuner"
    moves: int  # accepted after burn-in, of all chains
    chance: Tensor  # state of the random numbers
    kept: tuple[Frame, ...] = ()

    def state(self) -> dict[str, Tensor]:
        """All of it but the frames, for a file."""
        numbers = torch.tensor([self.done, self.moves])
        log_step = torch.tensor(self.tuner.log_step, dtype=torch.float64)
        tuner = {"squares": self.tuner.squares, "log_step": log_step}
        return {"numbers": numbers, "chance": self.chance, **tuner, **self.poses._asdict()}

    @staticmethod
    def of(state: Mapping[str, Tensor], kept: Iterable[Frame]) -> "Walk":
        """What `state` said, to the last bit."""
        done, moves = state["numbers"].tolist()
        tuner = Tuner(state["squares"], float(state["log_step"]))
        poses = Poses(*(state[name] for name in Poses._fields))
        return Walk(done, poses, tuner, moves, state["chance"], tuple(kept))

    def chains(self, temperature: float, burn_in: int) -> "Chains":
        """The frames so far."""
        places, turns, energies = (torch.stack(parts, 1) for parts in zip(*self.kept))
        accepted = self.moves / (len(places) * (self.done - burn_in))
        return Chains(temperature, places, turns, energies, accepted, self.tuner.widths, self.tuner.step)


@dataclass(frozen=True, eq=False)
class Chains:
    """Frames of independent chains at a temperature, in the order in which they were sampled."""

    temperature: float  # K
    places: Float[Tensor, "chains frames molecules 3"]  # Å, continuous
    turns: Float[Tensor, "chains frames molecules 4"]  # unit quaternions (w, x, y, z) with w >= 0
    energies: Float[Tensor, "chains frames"]  # eV
    accepted: float  # share of trajectories after burn-in
    widths: Widths
    step: float

    def one_after_another(
        self,
    ) -> tuple[Float[Tensor, "all molecules 3"], Float[Tensor, "all molecules 4"], Float[Tensor, " all"]]:
        """Places, turns and energies of all frames, chain after chain."""
        return self.places.flatten(0, 1), self.turns.flatten(0, 1), self.energies.flatten()


def sample(
    energy: Energy,
    places: Float[Tensor, "molecules 3"],
    turns: Float[Tensor, "molecules 4"],
    temperature: float,
    frames: int,
    every: int = 1,
    chains: int = 16,
    seed: int = 0,
    burn_in: int = BURN_IN,
    steps: int = STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> Chains:
    """`frames` of each chain, `every` trajectories of `steps` leapfrog steps apart, after `burn_in` trajectories.

    All chains start from `places` (Å) and `turns`. A common translation is free where the energy does not feel it.
    `progress` is told how many trajectories are done, of how many. Raises InputError for a start without a finite
    energy, NucleateError where next to nothing is accepted.
    """
    if min(frames, every, chains, steps) < 1 or temperature <= 0:
        raise InputError(
            "expected a temperature above 0 and at least one of frames, chains, steps and trajectories between frames, "
            f"got {temperature} K, {frames}, {chains}, {steps} and {every}"
        )
    walk = first_walk(energy, places, turns, temperature, chains, seed)
    total = burn_in + frames * every
    for after in islice(walks(walk, energy, temperature, every, burn_in, steps), total):
        walk = after
        if progress is not None:
            progress(walk.done, total)
    return accepted_chains(walk, temperature, burn_in)


def first_walk(
    energy: Energy,
    places: Float[Tensor, "molecules 3"],
    turns: Float[Tensor, "molecules 4"],
    temperature: float,
    chains: int,
    seed: int,
) -> Walk:
    """All chains at one start. Raises InputError where it has no finite energy."""
    chance = torch.Generator().manual_seed(seed).get_state()
    start = _start(energy, places, turns, BOLTZMANN * temperature, chains)
    return Walk(0, start, Tuner.of(len(places)), 0, chance)


def walks(
    walk: Walk, energy: Energy, temperature: float, every: int = 1, burn_in: int = BURN_IN, steps: int = STEPS
) -> Iterator[Walk]:
    """The walk after one more trajectory, after two, and so on without end; from any of them it goes on alike."""
    generator = torch.Generator()
    generator.set_state(walk.chance)
    kT, chains = BOLTZMANN * temperature, len(walk.poses.places)
    poses, tuner, moves, kept = walk.poses, walk.tuner, walk.moves, list(walk.kept)
    for n in count(walk.done):
        step = _jittered(tuner.step, chains, generator)
        momenta = Momenta(
            *(torch.randn(poses.places.shape, generator=generator, dtype=torch.float64) for _ in "xR")
        )
        end, last = trajectory(energy, kT, poses, momenta, tuner.widths, step, steps)
        chance = acceptance(poses, momenta, end, last)
        taken = torch.rand(chains, generator=generator, dtype=torch.float64) < chance
        poses = _chosen(taken, end, poses)
        if n < burn_in:
            tuner = tuner.after(poses, float(chance.mean()), n)
        else:
            moves += int(taken.sum())
            if (n + 1 - burn_in) % every == 0:
                kept.append(Frame(poses.places, matrix_to_quaternion(poses.rotations), kT * poses.energy))
        yield Walk(n + 1, poses, tuner, moves, generator.get_state(), tuple(kept))


def accepted_chains(walk: Walk, temperature: float, burn_in: int) -> Chains:
    """All frames of a finished walk. Raises NucleateError where next to nothing was accepted."""
    chains = walk.chains(temperature, burn_in)
    if chains.accepted < 0.01:
        raise NucleateError(
            f"expected about {WANTED:.0%} of trajectories to be accepted, got {chains.accepted:.1%}; start from a "
            "minimum of the energy, or give a longer burn-in"
        )
    return chains


def trajectory(
    energy: Energy,
    kT: float,
    poses: Poses,
    momenta: Momenta,
    widths: Widths,
    step: Float[Tensor, "chains 1 1"],
    steps: int,
) -> tuple[Poses, Momenta]:
    """Leapfrog steps of one size for each chain."""
    for _ in range(steps):
        momenta = _kicked(momenta, poses, widths, step / 2)
        places = poses.places + step * widths.place * momenta.place
        rotations = poses.rotations @ rotation_exp(step * widths.turn * momenta.turn)
        poses = felt(energy, kT, places, rotations)
        momenta = _kicked(momenta, poses, widths, step / 2)
    return poses, momenta


def felt(energy: Energy, kT: float, places: Places, rotations: Rotations) -> Poses:
    """Energies and their slopes. The slope along a rotation vector v in the body's frame is that of R (1 + [v])."""
    x, R = places.detach().requires_grad_(), rotations.detach().requires_grad_()
    with torch.enable_grad():
        reduced = energy(x, R) / kT
        pull, across = torch.autograd.grad(reduced.sum(), (x, R), allow_unused=True, materialize_grads=True)
    spin = rotations.mT @ across  # its part without symmetry is the slope
    twist = torch.stack(
        [
            spin[..., 2, 1] - spin[..., 1, 2],
            spin[..., 0, 2] - spin[..., 2, 0],
            spin[..., 1, 0] - spin[..., 0, 1],
        ],
        -1,
    )
    return Poses(places, rotations, reduced.detach(), pull, twist)


def acceptance(start: Poses, first: Momenta, end: Poses, last: Momenta) -> Float[Tensor, " chains"]:
    """min(1, exp(-change of H)); 0 where the end has no finite energy."""
    change = end.energy - start.energy + _kinetic(last) - _kinetic(first)
    return torch.where(change.isfinite(), (-change).clamp(max=0).exp(), 0.0)


@dataclass(frozen=True)
class Tuner:
    """Widths from the slopes seen so far, the step from the acceptance; for burn-in.

    In a well of width s the mean squared slope of E / kT is 1 / s^2, in any direction: that is how widths are known
    without waiting for a molecule to come round. Later slopes count more. The step follows Robbins and Monro.
    """

    squares: Float[
        Tensor, "2 molecules 1"
    ]  # mean squared slopes along one axis, of places (1/Å^2) and turns (1/rad^2)
    log_step: float

    @staticmethod
    def of(molecules: int) -> "Tuner":
        return Tuner(torch.full((2, molecules, 1), FIRST**-2, dtype=torch.float64), math.log(0.3))

    @property
    def step(self) -> float:
        return math.exp(self.log_step)

    @property
    def widths(self) -> Widths:
        return Widths(*self.squares.rsqrt().clamp(max=WIDEST))

    def after(self, poses: Poses, accepted: float, n: int) -> "Tuner":
        """After trajectory n."""
        seen = torch.stack([slope.square().mean((0, 2))[:, None] for slope in (poses.pull, poses.twist)])
        share = 10 / (n + 20)
        squares = (1 - share) * self.squares + share * seen
        return Tuner(squares, self.log_step + (accepted - WANTED) / (1 + n / 10) ** 0.6)


def _start(
    energy: Energy,
    places: Float[Tensor, "molecules 3"],
    turns: Float[Tensor, "molecules 4"],
    kT: float,
    chains: int,
) -> Poses:
    x = places.double().expand(chains, -1, -1).clone()
    poses = felt(energy, kT, x, quaternion_to_matrix(turns.double()).expand(chains, -1, -1, -1).clone())
    if not poses.energy.isfinite().all():
        raise InputError(
            "expected a start with a finite energy, got none; molecules overlap there: relax it first"
        )
    return poses


def _kicked(momenta: Momenta, poses: Poses, widths: Widths, by: Float[Tensor, "chains 1 1"]) -> Momenta:
    return Momenta(
        momenta.place - by * widths.place * poses.pull, momenta.turn - by * widths.turn * poses.twist
    )


def _kinetic(momenta: Momenta) -> Float[Tensor, " chains"]:
    return (momenta.place.square() + momenta.turn.square()).sum((-1, -2)) / 2


def _jittered(step: float, chains: int, generator: torch.Generator) -> Float[Tensor, "chains 1 1"]:
    u = torch.rand(chains, 1, 1, generator=generator, dtype=torch.float64)
    return step * (1 + JITTER * (2 * u - 1))


def _chosen(taken: Bool[Tensor, " chains"], end: Poses, start: Poses) -> Poses:
    """Rotations are made orthogonal again, which products forget by rounding."""
    places, rotations, *rest = (
        torch.where(taken.reshape(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(end, start)
    )
    return Poses(places, quaternion_to_matrix(matrix_to_quaternion(rotations)), *rest)
