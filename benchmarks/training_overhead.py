"""What the training loop costs beside the model: CPU-seconds a step, against a bare loop of the same network.

    python benchmarks/training_overhead.py

Prints, for a tiny network and for one of 4.6 million parameters, the CPU time of a step of `generative.training.fit`
and of a bare loop (zero_grad, loss, backward, clip_grad_norm_, fused AdamW step). The difference is what the average of
the weights, the seeds, the checks for finite numbers and the log cost. Checkpoints and imports are left out: steps are
timed between the hundredth and the last.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nucleate.generative.train_settings import TrainSettings
from nucleate.generative.training import fit

SKIPPED = 100  # steps before the clock starts


class Layers:
    """Linear layers one behind the other, and a clock that is read at every loss."""

    def __init__(self, width: int, depth: int) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))
        self.width = width
        self.times: list[float] = []

    def loss(self, batch: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Mapping[str, Any]]:
        self.times.append(time.process_time())
        loss = self.network(batch).square().mean()
        return loss, {"one": loss, "two": loss}

    def validate(self, generator: torch.Generator) -> Mapping[str, float]:
        return {}

    def batches(self, seed: int, start: int = 0, stride: int = 1) -> Iterator[Tensor]:
        batch = torch.randn(4, self.width)
        while True:
            yield batch

    @property
    def a_step(self) -> float:
        """CPU-seconds."""
        timed = self.times[SKIPPED:]
        return (timed[-1] - timed[0]) / (len(timed) - 1)


def bare(model: Layers, steps: int) -> float:
    parameters = list(model.network.parameters())
    optimizer = torch.optim.AdamW(parameters, fused=True)
    for batch, _ in zip(model.batches(0), range(steps)):
        optimizer.zero_grad()
        model.loss(batch, None)[0].backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return model.a_step


def looped(model: Layers, steps: int) -> float:
    settings = TrainSettings(steps=steps, tensorboard=False)
    with tempfile.TemporaryDirectory() as folder:
        fit(model, model, settings, Path(folder))
    return model.a_step


def main(steps: int) -> None:
    torch.set_num_threads(1)
    print(f"{'parameters':>10} {'tensors':>7} {'bare ms':>8} {'loop ms':>8} {'more ms':>8}")
    for width, depth, count in ((8, 4, steps), (256, 70, steps // 8 + SKIPPED)):
        own, plain = looped(Layers(width, depth), count), bare(Layers(width, depth), count)
        size = depth * (width * width + width)
        print(f"{size:10d} {2 * depth:7d} {1e3 * plain:8.3f} {1e3 * own:8.3f} {1e3 * (own - plain):8.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", type=int, default=2000, help="of the tiny network; an eighth of the large one"
    )
    main(parser.parse_args().steps)
