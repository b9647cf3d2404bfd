"""The gate of the pose network: can it learn a few molecules by heart?

    python benchmarks/pose_gate.py DATA [--molecules 10] [--crystals N] [--group P21/c] [--steps 4000] [--width 128]

DATA is a folder of `nucleate data synthesize`. The network learns the crystals within 6 kJ/mol of the lowest of some
molecules, 64 a step, then samples their groups from noise. Printed: the share of samples within 2 Å and 1 Å of a
crystal that it learnt (`models.molcrystalflow_training.distance_to_known`), beside that of the noise it starts from.
More than half within 2 Å for ten molecules is asked for before any larger training.
"""

import argparse
import time
from pathlib import Path

import torch

from nucleate.data.packed import from_row, read_rows
from nucleate.data.poses import Poses, poses_of
from nucleate.generative.average import Average
from nucleate.generative.optimizers import Optimizers
from nucleate.generative.train_settings import TrainSettings, learning_rate
from nucleate.geometry.manifold import State
from nucleate.models.molcrystalflow import PoseFlow, Task
from nucleate.models.molcrystalflow_training import FOUND, distance_to_known
from nucleate.networks.pose import PoseNetwork

BATCH = 64


def chosen_poses(data: Path, molecules: int, crystals: int | None, group: str | None) -> Poses:
    """Crystals with one molecule in the asymmetric unit, of the first molecules by key."""
    rows = [r for r in read_rows(data) if r["above"] is not None and r["above"] < 6 and len(r["kind"]) == 1]
    rows = [r for r in rows if group is None or r["symbol"] == group]
    keys = sorted({r["key"] for r in rows})[:molecules]
    return poses_of([from_row(r) for r in rows if r["key"] in keys][:crystals])


def train(flow: PoseFlow, poses: Poses, steps: int, rate: float) -> Average:
    average = Average(flow, 0.998)
    settings = TrainSettings(
        optimizer="muon",
        steps=steps,
        learning_rate=rate,
        matrix_rate=10 * rate,
        weight_decay=1e-3,
        warm_up=100,
    )
    optimizers = Optimizers(flow, settings)
    generator = torch.Generator().manual_seed(0)
    began, mean = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        loss, _ = flow(poses[torch.randint(len(poses), (BATCH,), generator=generator)], generator)
        flow.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizers.step(learning_rate(step - 1, settings) / rate)
        average.update(step)
        mean += (float(loss.detach()) - mean) / min(step, 100)
        if step % max(1, steps // 10) == 0:
            print(f"  step {step}: loss {mean:.3f}, {time.monotonic() - began:.0f} s", flush=True)
    return average


def line(title: str, state: State, task: Task, poses: Poses) -> str:
    away = distance_to_known(state, task, poses)
    shares = [float((away < limit).float().mean()) for limit in (FOUND, 1.0)]
    return f"{title:16s}{shares[0]:8.1%} within 2 Å{shares[1]:8.1%} within 1 Å   median {away.median():.2f} Å"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--molecules", type=int, default=10)
    parser.add_argument("--crystals", type=int)
    parser.add_argument("--group")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--samples", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    poses = chosen_poses(options.data, options.molecules, options.crystals, options.group)
    flow = PoseFlow(PoseNetwork(options.width, options.layers))
    size = sum(p.numel() for p in flow.parameters())
    print(f"{len(poses)} crystals of {len(set(poses.keys))} molecules, {size:,} parameters")
    average = train(flow, poses, options.steps, options.rate)
    asked = poses[torch.randint(len(poses), (options.samples,), generator=torch.Generator().manual_seed(1))]
    task = Task(asked.molecule, asked.hand, asked.group, asked.above)
    noise = flow.prior(poses.molecules, poses.groups, task, torch.Generator().manual_seed(2))
    print(line("noise", noise, task, poses))
    with average.applied():
        for steps in (5, 10, 30):
            generator = torch.Generator().manual_seed(3)
            end = flow.sample(poses.molecules, poses.groups, task, generator, steps, start=noise)
            print(line(f"{steps} Euler steps", end, task, poses))


if __name__ == "__main__":
    main()
