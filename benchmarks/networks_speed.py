"""How fast the published network trains and samples: 32 crystals of 4 molecules of 30 atoms, each molecule its own.

    python benchmarks/networks_speed.py [--threads 2] [--crystals 32]

The published code took 1.21 s for a training step of this batch (26 crystals/s) and 19.8 s for 50 evaluations (1.6
crystals/s) with a peak of 2.5 GB, on two threads of another machine. Printed are wall time and CPU time, each the least
of several repeats, for on a busy machine only the least is ours. Sampling includes the embedding of the molecules
(once) and the sampler; training includes embedding, path, loss, gradients, clipping and AdamW. Random weights and
random crystals: speed does not depend on them.
"""

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nucleate.generative.flow_matching import Euler, FlowMatching, Uniform, even_times
from nucleate.geometry.manifold import Euclidean, Product, State
from nucleate.geometry.so3 import SO3
from nucleate.geometry.torus import Torus
from nucleate.networks.molcrystalnet import BodyCondition, MolCrystalNet

BODIES, ATOMS, DENSITY = 4, 30, 0.1  # atoms/Å^3 within a molecule's ball
FLOW = FlowMatching(
    Product({"lattice": Euclidean(6), "centroid": Torus(), "rotation": SO3()}),
    endpoint={"lattice", "rotation"},
    centred={"centroid"},
)


@dataclass(frozen=True)
class Molecules:
    """One molecule a crystal, as flat atoms."""

    numbers: Tensor
    positions: Tensor  # Å
    index: Tensor


def random_molecules(n: int, generator: torch.Generator) -> Molecules:
    """Random light elements in a ball of the density of a molecule."""
    direction = torch.nn.functional.normalize(torch.randn(n * ATOMS, 3, generator=generator), dim=-1)
    ball = (ATOMS / DENSITY * 0.75 / torch.pi) ** (1 / 3)
    radius = ball * torch.rand(n * ATOMS, 1, generator=generator) ** (1 / 3)
    numbers = torch.randint(1, 10, (n * ATOMS,), generator=generator)
    return Molecules(numbers, radius * direction, torch.arange(n).repeat_interleave(ATOMS))


def random_state(n: int, generator: torch.Generator) -> State:
    state = {
        "lattice": 0.2 * torch.randn(n, 6, generator=generator),
        "centroid": Torus().random(n, BODIES, generator=generator, dtype=torch.float32),
        "rotation": SO3().random(n, BODIES, generator=generator, dtype=torch.float32),
    }
    state["lattice"][:, 5] += 4  # cells of about 1000 Å^3
    return state


def condition(net: MolCrystalNet, molecules: Molecules, features: Tensor) -> BodyCondition:
    n = len(features)
    vectors = net.embedder.embed(molecules.numbers, molecules.positions, molecules.index)
    return BodyCondition(
        embedding=vectors[:, None].expand(-1, BODIES, -1),
        features=features[:, None].expand(-1, BODIES, -1),
        handedness=torch.tensor([1, -1, 1, -1]).expand(n, -1),
        mask=torch.ones(n, BODIES, dtype=torch.bool),
    )


def least(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least wall and least CPU seconds of some repeats, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(w for w, _ in times), min(c for _, c in times)


def peak_memory() -> float:
    """GB, of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def report(what: str, crystals: int, seconds: tuple[float, float]) -> None:
    wall, cpu = seconds
    rates = f"{crystals / wall:7.1f}      {crystals / cpu:7.1f}"
    print(f"{what:44} {wall:7.3f} s  {cpu:7.3f}     {rates}     {peak_memory():.2f}")


def main(crystals: int, repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = MolCrystalNet()
    molecules = random_molecules(crystals, generator)
    features = torch.randn(crystals, 18, generator=generator)
    x_0, x_1 = random_state(crystals, generator), random_state(crystals, generator)
    print(
        f"{sum(p.numel() for p in net.parameters()):,} parameters, {torch.get_num_threads()} threads, ",
        end="",
    )
    print(f"{crystals} crystals, torch {torch.__version__}; memory before: {peak_memory():.2f} GB")
    print(f"{'':44}      wall  CPU s    crystals/s  per CPU-s  peak GB")

    def sample(evaluations: int, dtype: torch.dtype | None) -> None:
        def predict(x: State, t: Tensor) -> State:
            with torch.autocast(
                "cpu", dtype=dtype, enabled=dtype is not None
            ):  # the network, not the manifolds
                return net(x, t, known)

        with torch.inference_mode():
            known = condition(net, molecules, features)
            Euler(FLOW).sample(predict, x_0, even_times(evaluations))

    with torch.inference_mode():
        report(
            "embedding of the molecules",
            crystals,
            least(lambda: condition(net, molecules, features), repeats),
        )
    for evaluations in (10, 20, 50):  # 10 is the default of `WholeCellFlow.sample`
        report(
            f"sampling, {evaluations} evaluations",
            crystals,
            least(lambda e=evaluations: sample(e, None), repeats),
        )
        report(
            f"sampling, {evaluations} evaluations, bfloat16", crystals,
            least(lambda e=evaluations: sample(e, torch.bfloat16), repeats),
        )  # fmt: skip

    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        t = Uniform(0.01, 0.99).draw(crystals, generator, dtype=torch.float32)
        x_t = FLOW.interpolate(x_0, x_1, t)
        errors = FLOW.squared_error(net(x_t, t, condition(net, molecules, features)), x_t, x_1, t)
        optimiser.zero_grad()
        sum(e.mean() for e in errors.values()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimiser.step()

    report("training step", crystals, least(step, 3 * repeats))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--crystals", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    main(chosen.crystals, chosen.repeats)
