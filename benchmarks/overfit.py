"""Can a network learn twenty crystals by heart? Then it can at least say what it was told.

    python benchmarks/overfit.py DATA [--network molcrystalnet|pose] [--crystals 20] [--minutes 10] [--group]

DATA is a folder of packed crystals. The lowest crystal of each of the first molecules by key, of elements whose volume
is known, is learnt for so many CPU-minutes, then each is sampled ten times from noise, its molecules, number and hands
given (with --group its operations too). Printed: how many of the crystals have a sample that StructureMatcher finds
equal (all atoms, stol 0.3, ltol 0.3, 10°) and one that matches 15 of 15 molecules (`strict15`), the share of all
samples that do, and the same for the noise they start from. Times are CPU-seconds of one thread.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from nucleate.crystal.crystal import Crystal
from nucleate.data.packed import PackedCrystal, from_row, read_rows
from nucleate.data.poses import poses_of
from nucleate.data.whole_cells import WholeCells, whole_cells_of, written_out
from nucleate.generative.average import Average
from nucleate.generative.flow_matching import Euler, Heun
from nucleate.generative.optimizers import Optimizers
from nucleate.generative.train_settings import TrainSettings
from nucleate.geometry.manifold import State
from nucleate.metrics.criteria import Judge, criterion
from nucleate.metrics.structure_matcher import StructureMatching
from nucleate.models.molcrystalflow import PoseFlow, Task
from nucleate.models.molcrystalflow import build as build_pose
from nucleate.models.molcrystalflow_whole_cell import FLOW, WholeCellFlow, build
from nucleate.networks.molcrystalnet import MolCrystalNet
from nucleate.networks.pose import PoseNetwork
from nucleate.physics.parameters import has_volume

BATCH = 64


def chosen(data: Path, count: int) -> list[PackedCrystal]:
    """The lowest crystal of each of the first molecules; Z' = 1."""
    rows = [r for r in read_rows(data) if len(r["kind"]) == 1]
    lowest: dict[str, dict] = {}
    for row in sorted(rows, key=lambda r: (r["key"], r["above"] or 0.0, r["id"])):
        lowest.setdefault(row["key"], row)
    found = (from_row(row) for row in lowest.values())
    return list(islice((c for c in found if has_volume(c.packing.species[0])), count))


def train(
    flow: nn.Module, loss_of: Callable[[torch.Generator], Tensor], minutes: float, rate: float, average: float
) -> Average:
    """Muon and AdamW, warm-up and cosine over the CPU time given."""
    mean = Average(flow, average)
    settings = TrainSettings(
        optimizer="muon", learning_rate=rate, matrix_rate=10 * rate, weight_decay=1e-4, betas=(0.9, 0.99)
    )
    optimizers = Optimizers(flow, settings)
    generator = torch.Generator().manual_seed(0)
    began, step, shown, smooth = time.process_time(), 0, 0, 0.0
    while (spent := (time.process_time() - began) / (60 * minutes)) < 1:
        share = min(1.0, (step + 1) / 200) * (0.5 * (1 + math.cos(math.pi * spent)) + 0.005)
        loss = loss_of(generator)
        flow.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizers.step(share)
        step += 1
        mean.update(step)
        smooth += (float(loss.detach()) - smooth) / min(step, 100)
        if spent * 10 >= shown:
            shown += 1
            print(f"  step {step}: loss {smooth:.4f}, {time.process_time() - began:.0f} CPU-s", flush=True)
    print(f"  {step} steps of {BATCH} crystals, loss {smooth:.4f}")
    return mean


def verdict(title: str, references: Sequence[Crystal], samples: Sequence[Sequence[Crystal]]) -> None:
    """Counts of crystals and of samples that match."""
    strict = [Judge(criterion("strict15"), [r]) for r in references]
    packing = [[judge.judge(s).same for s in own] for judge, own in zip(strict, samples)]
    pairs = [(r, s) for r, own in zip(references, samples) for s in own]
    with StructureMatching("molcrystalflow") as matching:
        answers = iter(matching.compare(pairs))
        cells = [[bool(next(answers).matched.get(0.3)) for _ in own] for own in samples]
    for name, found in (("stol 0.3", cells), ("strict15", packing)):
        asked = sum(map(len, found))
        print(
            f"{title:10s}{name}: {sum(map(any, found))}/{len(found)} crystals, {sum(map(sum, found))}/{asked} samples; "
            f"of each {' '.join(str(sum(own)) for own in found)}",
            flush=True,
        )


def repeated(cells: WholeCells, times: int) -> WholeCells:
    return cells[torch.arange(len(cells)).repeat_interleave(times)]


def whole_cells(options: argparse.Namespace, crystals: list[PackedCrystal]) -> None:
    cells, left_out = whole_cells_of(crystals)
    learnt = cells.with_mirror_images() if options.mirror else cells
    network = MolCrystalNet(
        options.width, options.layers, molecule_width=options.width // 8, sees_cell=not options.blind
    )
    network.scores.fit(cells.molecules.features)
    network.lattice_scores.fit(cells.lattice)
    share = options.symmetric if options.group else 0.0
    flow = WholeCellFlow(network, coupling=options.coupling, weights=options.weights, symmetric=share)
    size = sum(p.numel() for p in flow.parameters())
    print(
        f"{len(cells)} crystals ({dict(left_out)} left out), cells of {cells.bodies.tolist()}, {size:,} parameters"
    )

    def loss_of(generator: torch.Generator) -> Tensor:
        return flow(learnt[torch.randint(len(learnt), (BATCH,), generator=generator)], generator)[0]

    average = train(flow, loss_of, options.minutes, options.rate, options.average)
    asked = repeated(cells, options.samples)
    everywhere = torch.ones(len(asked), dtype=torch.bool)
    contents = asked.contents if options.group else asked.contents.without_symmetry(everywhere)
    noise = flow.prior(asked.molecules, contents, torch.Generator().manual_seed(1))
    packings = {c.id: c.packing for c in crystals}

    def built(state: State) -> list[list[Crystal]]:
        found = []
        for i, name in enumerate(cells.ids):
            rows = torch.arange(i * options.samples, (i + 1) * options.samples)
            own = {n: v[rows] for n, v in state.items()}
            like, transform = packings[name], asked.transform[rows]
            if not options.group:
                like, transform = written_out(like, int(cells.bodies[i])), None
            found.append(split(build(own, asked.molecules, contents[rows], like, transform)))
        return found

    references = [packings[name].crystal(0) for name in cells.ids]
    verdict("noise", references, built(noise))
    with average.applied():
        for evaluations in options.evaluations:
            for sampler in (Euler(FLOW), Heun(FLOW))[: 2 if options.heun else 1]:
                began = time.process_time()
                end = flow.sample(asked.molecules, contents, None, evaluations, noise, sampler)
                spent = time.process_time() - began
                kind = type(sampler).__name__
                print(f"{evaluations} evaluations, {kind}: {len(asked) / spent:.0f} crystals/CPU-s")
                verdict(f"{kind} {evaluations}", references, built(end))


def poses(options: argparse.Namespace, crystals: list[PackedCrystal]) -> None:
    known = poses_of(crystals)
    flow = PoseFlow(PoseNetwork(options.width, options.layers))
    print(
        f"{len(known)} crystals, {sum(p.numel() for p in flow.parameters()):,} parameters; the group is given"
    )

    def loss_of(generator: torch.Generator) -> Tensor:
        return flow(known[torch.randint(len(known), (BATCH,), generator=generator)], generator)[0]

    average = train(flow, loss_of, options.minutes, options.rate, options.average)
    asked = known[torch.arange(len(known)).repeat_interleave(options.samples)]
    task = Task(asked.molecule, asked.hand, asked.group)
    noise = flow.prior(asked.molecules, asked.groups, task, torch.Generator().manual_seed(1))

    def built(state: State) -> list[list[Crystal]]:
        rows = torch.arange(len(asked)).reshape(-1, options.samples)
        return [
            split(build_pose({n: v[own] for n, v in state.items()}, c.packing))
            for own, c in zip(rows, crystals)
        ]

    references = [c.packing.crystal(0) for c in crystals]
    verdict("noise", references, built(noise))
    with average.applied():
        for evaluations in options.evaluations:
            generator = torch.Generator().manual_seed(3)
            end = flow.sample(asked.molecules, asked.groups, task, generator, evaluations, start=noise)
            verdict(f"Euler {evaluations}", references, built(end))


def split(packings) -> list[Crystal]:
    return [packings.crystal(i) for i in range(len(packings))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", choices=("molcrystalnet", "pose"), default="molcrystalnet")
    parser.add_argument("--crystals", type=int, default=20)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=10, help="CPU time of training")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--average", type=float, default=0.998)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--heun", action="store_true", help="Heun's sampler too")
    parser.add_argument("--group", action="store_true", help="symmetric samples")
    parser.add_argument("--symmetric", type=float, default=1.0, help="share learnt so, with --group")
    parser.add_argument("--mirror", action="store_true", help="learn mirror images too")
    parser.add_argument("--coupling", choices=("joint", "chi_grouped"), default="joint")
    parser.add_argument("--weights", choices=("angstrom", "published"), default="angstrom")
    parser.add_argument("--blind", action="store_true", help="as published: bodies do not see the cell")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    crystals = chosen(options.data, options.crystals)
    (whole_cells if options.network == "molcrystalnet" else poses)(options, crystals)


if __name__ == "__main__":
    main()
