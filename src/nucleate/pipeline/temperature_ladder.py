"""Free energies of a crystal of rigid molecules at several temperatures, by dynamics at each of them and MBAR.

    base, target --> geometric ladder --dynamics, each in a file--> frames --> MBAR --> Ladder

What is finished is kept: a run that was stopped goes on from the last frame in each file.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from nucleate.data.rigid_frames import RigidFrames, how_made, joined, read_frames, write_frames
from nucleate.errors import InputError
from nucleate.metrics.multistate import Ladder, multistate, need_pymbar
from nucleate.physics.molecular_dynamics import DynamicsSettings, simulate
from nucleate.physics.rigid_sites import RigidSites, SiteEnergy

Progress = Callable[[str, int, int, str], None]  # stage, done, asked, a word
RUNG = 10_007  # between the seeds of one temperature and the next


@dataclass(frozen=True, eq=False)
class RigidCrystal:
    """Where dynamics begins."""

    molecule: RigidSites
    cell: Float[Tensor, "3 3"]  # Å, rows
    places: Float[Tensor, "molecules 3"]  # Å
    turns: Float[Tensor, "molecules 4"]
    hands: Float[Tensor, " molecules"] | None = (
        None  # -1 for mirror images of the molecule; None: there are none
    )

    @property
    def potential(self) -> SiteEnergy:
        """The energy of its molecules in its cell, with the widest cut-off that fits."""
        return SiteEnergy(self.molecule, len(self.places), self.cell, hands=self.hands)


def temperature_ladder(
    temperatures: Sequence[float], frames_at: Callable[[float, int], RigidFrames], seed: int = 0
) -> tuple[Ladder, list[RigidFrames]]:
    """Free energies of a crystal at each temperature (K) against the first, in kT of each, and the frames of each.

    `frames_at(temperature, seed)` samples, or knows samples. Raises InputError where pymbar is missing, before anything
    is sampled.
    """
    need_pymbar()
    sampled = [frames_at(temperature, seed + RUNG * k) for k, temperature in enumerate(temperatures)]
    return multistate([frames.energies for frames in sampled], temperatures, seed), sampled


def geometric(base: float, target: float, temperatures: int) -> list[float]:
    """From base to target (K), each the same factor times the one before; neighbours then overlap alike."""
    steps = temperatures - 1
    return [base, *(base * (target / base) ** (k / steps) for k in range(1, steps)), target]


def sample_frames(
    crystal: RigidCrystal,
    temperature: float,
    frames: int,
    path: Path,
    seed: int = 0,
    settings: DynamicsSettings | None = None,
    progress: Progress | None = None,
) -> RigidFrames:
    """At least `frames` frames at a temperature (K), as many as the file at `path` lacks being sampled anew.

    The file is written after each chunk. Raises InputError for a file made with other settings.
    """
    settings, tell = settings or DynamicsSettings(), progress or (lambda *_: None)
    if crystal.hands is not None:
        raise InputError(
            "expected molecules of one hand for OpenMM, got mirror images too; use --sampler own"
        )
    made = {"method": "Langevin dynamics, OpenMM", "seed": seed, "settings": asdict(settings)}
    so_far = _earlier(crystal, temperature, path, made)
    last = crystal if so_far is None else _last(so_far)
    done = 0 if so_far is None else len(so_far)
    chunks = simulate(
        crystal.molecule,
        crystal.cell,
        last.places,
        last.turns,
        temperature,
        frames,
        seed,
        settings,
        done,
    )
    tell(f"{temperature:.1f} K", done, frames, "")
    for chunk in chunks:
        new = RigidFrames(
            crystal.molecule, crystal.cell, temperature, chunk.places, chunk.turns, chunk.energies
        )
        so_far = new if so_far is None else joined([so_far, new])
        write_frames(so_far, path, made)
        tell(f"{temperature:.1f} K", len(so_far), frames, f"{float(chunk.heat.mean()):.1f} K measured")
    if so_far is None:
        raise InputError(f"expected at least one frame to be asked for, got {frames}")
    return so_far


def _last(frames: RigidFrames) -> RigidCrystal:
    return RigidCrystal(frames.molecule, frames.cell, frames.places[-1], frames.turns[-1])


def _earlier(
    crystal: RigidCrystal, temperature: float, path: Path, made: dict[str, object]
) -> RigidFrames | None:
    """What a run that was stopped left, or None. Raises InputError where it is another crystal's or run's."""
    if not path.exists():
        return None
    frames = read_frames(path)
    same = frames.temperature == temperature and frames.cell.equal(crystal.cell)
    same = same and frames.places.shape[1] == len(crystal.places)
    same = same and frames.molecule.name == crystal.molecule.name
    if not same or how_made(path) != made:
        raise InputError(
            f"expected frames of the same crystal, temperature, seed and settings in {path}, got others; "
            "choose another folder, or remove it"
        )
    return frames
