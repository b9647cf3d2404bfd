"""What each family of maps of rotations can learn: the twelve wells of a tetrahedron in an octupole field.

    python benchmarks/tetrahedron.py [--steps 400] [--seed 0] [--figure docs/images/tetrahedron.png]

    exact samples --maximum likelihood, through the inverse--> stack of maps --> held-out likelihood, samples
    uniform on S^3 --reverse KL------------------------------>

One body, so no conditioning: a stack of maps with free parameters, from the uniform density of quaternions. All stacks
but the largest have 192 parameters. Printed for each, as a table: the mean of log exact density less log density of the
stack over held-out samples (KL, nats, with its standard error), the effective share of the stack's samples when they
are weighted to the exact density, how many of the 12 wells are held (at least half of the exact share lies within 30
degrees), and the CPU-seconds of training. The wells are 10 kT deep (100 K). The figure shows where one corner of the
body points, by integrals over the turn about it: the exact density and those of the stacks of maximum likelihood.
"""

import argparse
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nucleate.files import write_atomically
from nucleate.generative.seeds import generator_of
from nucleate.generative.sphere_maps import DoubleMoebius, ProjectiveGradient, ProjectiveLinear, SphereMap
from nucleate.geometry.so3 import matrix_to_quaternion, quaternion_to_matrix, rotation_exp
from nucleate.metrics.free_energy import effective_share
from nucleate.physics.parameters import BOLTZMANN
from nucleate.physics.tetrahedron import Tetrahedron

BODY, TEMPERATURE = Tetrahedron(), 100.0
LOG_Z = BODY.log_partition(TEMPERATURE).value

STACKS: dict[str, tuple[SphereMap, ...]] = {
    "DoubleMoebius x 48": 48 * (DoubleMoebius(),),
    "ProjectiveLinear x 12": 12 * (ProjectiveLinear(),),
    "ProjectiveGradient(8) x 6": 6 * (ProjectiveGradient(8),),
    "(ProjectiveLinear, ProjectiveGradient(8)) x 4": 4 * (ProjectiveLinear(), ProjectiveGradient(8)),
    "ProjectiveGradient(8, d = 4) x 6": 6 * (ProjectiveGradient(8, d=4),),
    "ProjectiveGradient(12) x 8": 8 * (ProjectiveGradient(12),),
}
DRAWN, HELD_OUT, SAMPLES = 20_000, 4_000, 20_000
BATCH, RATE, LONGEST = 256, 0.03, 5.0  # of a gradient
FIRST = 0.5  # spread of parameters; a quarter of it for matrices


@dataclass(frozen=True, eq=False)
class Stack:
    """Maps one after the other, each with its parameters: a density of rotations relative to uniform ones."""

    maps: tuple[SphereMap, ...]
    parameters: tuple[Tensor, ...]

    @staticmethod
    def of(maps: tuple[SphereMap, ...], generator: torch.Generator) -> "Stack":
        """No map starts as nothing: at 0 a potential without ridges has no slope."""
        scale = {ProjectiveLinear: FIRST / 4}
        drawn = (
            scale.get(type(m), FIRST) * torch.randn(m.size(4), generator=generator, dtype=torch.float64)
            for m in maps
        )
        return Stack(maps, tuple(theta.requires_grad_() for theta in drawn))

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rotations and their log density."""
        q = normalize(torch.randn(count, 4, generator=generator, dtype=torch.float64), dim=-1)
        log_density = torch.zeros(count, dtype=torch.float64)
        for m, theta in zip(self.maps, self.parameters):
            q, grown = m.forward(q, theta[None])
            log_density = log_density - grown
        return quaternion_to_matrix(q), log_density

    def log_density(self, rotations: Tensor) -> Tensor:
        q = matrix_to_quaternion(rotations)
        log_density = torch.zeros(len(q), dtype=torch.float64)
        for m, theta in zip(reversed(self.maps), reversed(self.parameters)):
            q, shrunk = m.inverse(q, theta[None])
            log_density = log_density + shrunk
        return log_density


@dataclass(frozen=True)
class Result:
    kl: float  # nats
    error: float
    effective: float
    wells: int
    seconds: float  # CPU


def exact_log_density(rotations: Tensor) -> Tensor:
    return -BODY(rotations) / (BOLTZMANN * TEMPERATURE) - LOG_Z


def by_likelihood(samples: Tensor) -> Callable[[Stack, torch.Generator], Tensor]:
    def loss(stack: Stack, generator: torch.Generator) -> Tensor:
        return -stack.log_density(samples[torch.randint(len(samples), (BATCH,), generator=generator)]).mean()

    return loss


def by_reverse_kl(stack: Stack, generator: torch.Generator) -> Tensor:
    rotations, log_density = stack.sample(BATCH, generator)
    return (log_density - exact_log_density(rotations)).mean()


def train(stack: Stack, loss: Callable[[Stack, torch.Generator], Tensor], steps: int, seed: int) -> float:
    """Adam with a rate that falls as a cosine. Returns CPU-seconds."""
    generator, start = generator_of(seed, "batches"), time.process_time()
    optimizer = torch.optim.Adam(stack.parameters, lr=RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=RATE / 100)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(stack, generator).backward()
        torch.nn.utils.clip_grad_norm_(stack.parameters, LONGEST)
        optimizer.step()
        schedule.step()
    return time.process_time() - start


@torch.no_grad()
def judge(stack: Stack, held_out: Tensor, seconds: float) -> Result:
    gap = exact_log_density(held_out) - stack.log_density(held_out)
    rotations, log_density = stack.sample(SAMPLES, generator_of(0, "judge"))
    expected = BODY.share_in_wells(held_out).mean()
    return Result(
        float(gap.mean()),
        float(gap.std()) / math.sqrt(len(gap)),
        effective_share(exact_log_density(rotations) - log_density),
        int((BODY.share_in_wells(rotations) > expected / 2).sum()),
        seconds,
    )


def row(name: str, size: int, told: str, r: Result) -> str:
    numbers = f"{r.kl:.3f} ± {r.error:.3f} | {100 * r.effective:.1f} % | {r.wells} | {r.seconds:.0f}"
    return f"| {name} | {size} | {told} | {numbers} |"


# ---------------------------------------------------------------- the figure


@torch.no_grad()
def corner_density(log_density: Callable[[Tensor], Tensor], rows: int = 32, turns: int = 18) -> Tensor:
    """Of the direction of the first corner, relative to uniform, on a grid of latitude and longitude."""
    corner = normalize(BODY.corners[0], dim=0)
    polar = math.pi / rows * (torch.arange(rows, dtype=torch.float64) + 0.5)
    azimuth = math.pi / rows * (torch.arange(2 * rows, dtype=torch.float64) + 0.5) - math.pi
    x, y, z = torch.eye(3, dtype=torch.float64)
    up = torch.linalg.cross(corner, z)
    to_pole = rotation_exp(up / up.norm() * corner[2].clamp(-1, 1).arccos())
    spins = rotation_exp(2 * math.pi / turns * torch.arange(turns, dtype=torch.float64)[:, None] * z)
    tilts, swings = rotation_exp(polar[:, None] * y), rotation_exp(azimuth[:, None] * z)
    rotations = swings[:, None] @ tilts[:, None, None] @ (spins @ to_pole)
    return log_density(rotations.flatten(0, 2)).exp().reshape(rows, 2 * rows, turns).mean(-1)


def draw(densities: dict[str, Tensor], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2,
        math.ceil(len(densities) / 2),
        figsize=(9, 3.6),
        layout="constrained",
        subplot_kw={"projection": "mollweide"},
    )
    shown = list(axes.flat[: len(densities)])
    for axis in axes.flat[len(densities) :]:
        axis.remove()
    most = float(densities["exact"].max())
    for axis, (name, density) in zip(shown, densities.items()):
        rows = len(density)
        longitude = torch.linspace(-math.pi, math.pi, 2 * rows + 1)
        latitude = torch.linspace(math.pi / 2, -math.pi / 2, rows + 1)
        image = axis.pcolormesh(
            longitude, latitude, density, vmin=0, vmax=most, cmap="viridis", rasterized=True
        )
        axis.set_title(name, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(image, ax=shown, shrink=0.8, label="density over that of uniform rotations")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


# ---------------------------------------------------------------- the table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--stacks", nargs="+", choices=STACKS, default=list(STACKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples, held_out = (
        BODY.sample(n, TEMPERATURE, generator_of(options.seed, use))
        for n, use in ((DRAWN, "samples"), (HELD_OUT, "held out"))
    )
    densities = {"exact": corner_density(exact_log_density)}
    print("| stack | parameters | trained by | KL, nats | effective share | wells of 12 | CPU-s |")
    print("|---|---|---|---|---|---|---|")
    print(row("uniform", 0, "", judge(Stack((), ()), held_out, 0)))
    for name in options.stacks:
        for told, loss in (("likelihood", by_likelihood(samples)), ("reverse KL", by_reverse_kl)):
            stack = Stack.of(STACKS[name], generator_of(options.seed, "start"))
            seconds = train(stack, loss, options.steps, options.seed)
            size = sum(theta.numel() for theta in stack.parameters)
            print(row(name, size, told, judge(stack, held_out, seconds)), flush=True)
            if told == "likelihood":
                densities[name] = corner_density(stack.log_density)
    if options.figure:
        draw(densities, options.figure)


if __name__ == "__main__":
    main()
