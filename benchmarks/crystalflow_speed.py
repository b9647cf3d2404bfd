"""How fast CrystalFlow's networks train and sample: 128 crystals of 9 atoms on average, against CSPNet edge by edge.

    python benchmarks/crystalflow_speed.py [--threads 1] [--width 512]

Printed are CPU-seconds (the least of several repeats) of a training step of 128 crystals and of 100 evaluations of 64
crystals, each also over those of the published network evaluated as it is defined: the input of every edge, 3,590
numbers, put together in every layer (`edge by edge`). Peak memory is that of a process of its own. The reference code
took 14.7 CPU-s a step and 234 CPU-s for 100 evaluations with a batch of 1,169 atoms and 12,397 edges, on another
machine. Random weights and random crystals: speed does not depend on them.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable

import torch
from torch.nn.functional import silu

from nucleate.data.inorganic import Contents, Structures
from nucleate.geometry.manifold import State
from nucleate.models.crystalflow import CrystalFlow, Sampling
from nucleate.models.crystalflow_training import CrystalFlowSettings, flow_of
from nucleate.networks.atom_pairs import plane_waves
from nucleate.networks.cspnet import AtomsTold, CSPNet
from nucleate.networks.embed import time_waves

# 128 crystals of 3 to 15 atoms: 1,170 atoms, and 12,404 edges if atoms are joined to themselves, as in the reference
SIZES = torch.linspace(2.9, 15.4, 128).round().long().tolist()


class EdgeByEdge(CSPNet):
    """The published network as its definition reads."""

    def forward(self, state: State, t: torch.Tensor, told: AtomsTold) -> State:
        pairs = told.pairs
        frac = pairs.flat(state["frac"])
        receiver, sender = (pairs.crystal[:, None] == pairs.crystal).nonzero(as_tuple=True)
        times = time_waves(t, self.time_width)[pairs.crystal]
        h = self.enter(torch.cat([self.kind(pairs.flat(told.numbers) - 1), times], -1))
        for layer in self.layers:
            normed = layer.norm(h)
            even, odd = plane_waves((frac[sender] - frac[receiver]) % 1.0, self.waves)
            cells = state["lattice"][pairs.crystal[receiver]]
            edge = torch.cat([normed[receiver], normed[sender], even, odd, cells], -1)
            message = silu(layer.second(silu(layer.first(edge))))
            total = torch.zeros_like(h).index_add(0, receiver, message)
            mean = total / pairs.size[pairs.crystal][:, None]
            h = h + layer.update(torch.cat([normed, mean], -1))
        h = self.last(h)
        return {"frac": pairs.padded(self.frac(h)), "lattice": self.lattice(pairs.mean(h))}


def random_crystals(generator: torch.Generator) -> Structures:
    order = torch.randperm(len(SIZES), generator=generator).tolist()
    contents = Contents.of([torch.randint(1, 90, (SIZES[i],), generator=generator).tolist() for i in order])
    lattice = 0.2 * torch.randn(len(contents), 6, generator=generator)
    lattice[:, 5] += (15.0 * contents.sizes).log() / 3**0.5
    return Structures(contents, lattice, torch.rand(*contents.numbers.shape, 3, generator=generator), {})


def flow_named(name: str, width: int, data: Structures) -> CrystalFlow:
    network = "pairnet" if name == "pairnet" else "cspnet"
    recipe = "default" if name == "pairnet" else "published"
    layers = 5 if name == "pairnet" and width < 512 else 6
    flow = flow_of(CrystalFlowSettings(network=network, recipe=recipe, width=width, layers=layers))
    if name == "edge by edge":
        plain = EdgeByEdge(width, layers)
        plain.load_state_dict(flow.network.state_dict())
        flow.network = plain
    flow.fit(data)
    return flow


def least_seconds(task: Callable[[], object], repeats: int) -> float:
    """CPU-seconds; the first call is not counted."""
    task()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        task()
        taken.append(time.process_time() - began)
    return min(taken)


def measure(name: str, width: int, threads: int, answers: multiprocessing.SimpleQueue) -> None:
    """In a process of its own, so that its peak memory is its own."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    data = random_crystals(generator)
    flow = flow_named(name, width, data)

    def step() -> None:
        loss, _ = flow(data, generator)
        loss.backward()
        flow.zero_grad()

    training = least_seconds(step, 1 if name == "edge by edge" else 3)
    fewer = data.contents[slice(0, 64)]
    evaluations = 2 if name == "edge by edge" else 10
    one = (
        least_seconds(lambda: flow.sample(fewer, [generator], Sampling(evaluations, "euler", returns=0)), 1)
        / evaluations
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    parameters = sum(p.numel() for p in flow.network.parameters())
    answers.put((training, 100 * one, peak, parameters))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    rows = [
        ("edge by edge", options.width),
        ("cspnet", options.width),
        ("pairnet", options.width),
        ("pairnet", 256),
    ]
    print(
        f"{'network':>13} {'width':>6} {'parameters':>11} {'step, s':>9} {'ratio':>6} {'100 x 64, s':>12} "
        f"{'ratio':>6} {'GiB':>5}"
    )
    base: tuple[float, float] | None = None
    for name, width in rows:
        answers = spawn.SimpleQueue()
        process = spawn.Process(target=measure, args=(name, width, options.threads, answers))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{name}: the process ended with {process.exitcode}")
        training, sampling, peak, parameters = answers.get()
        base = base or (training, sampling)
        print(
            f"{name:>13} {width:>6} {parameters:>11,} {training:>9.2f} {base[0] / training:>6.1f} "
            f"{sampling:>12.1f} {base[1] / sampling:>6.1f} {peak:>5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
