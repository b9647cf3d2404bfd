"""How to walk from noise to crystals: how many known crystals does one sample find, how sharply, at what cost?

    python benchmarks/crystalflow_walks.py TABLE [-n 250] [--weights FILE] [--walks 20:0,40:0,20:2,20:4]

TABLE (parquet or CSV with a column `cif`) should be one that was validated on. Of n of its crystals the contents are
given; a walk is steps:returns, by Euler's method with hurried coordinates. All walks begin with the same noise. Found
is what StructureMatcher matches (ltol 0.3, stol 0.5, 10 degrees).
"""

import argparse
import math
import time
from pathlib import Path

import torch

from nucleate.crystal.sites import Sites
from nucleate.data.inorganic import Contents, read_table
from nucleate.errors import NucleateError
from nucleate.generative.seeds import generator_of
from nucleate.metrics.structure_matcher import StructureMatching
from nucleate.models.crystalflow import Sampling
from nucleate.models.crystalflow_training import CrystalFlowSettings, flow_of
from nucleate.weights import find_weights, read_weights

BATCH = 64


def distances(built: list[Sites | NucleateError], references: list[Sites]) -> list[float]:
    """RMS displacements, in units of (V / N)^(1/3), of the samples that match; what could not be built does not."""
    pairs = [(known, own) for known, own in zip(references, built) if isinstance(own, Sites)]
    with StructureMatching("crystalflow") as matching:
        return [answer.rms for answer in matching.compare(pairs) if answer.outcome == "matched"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("-n", type=int, default=250)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--walks", default="20:0,40:0,20:2,20:4")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = read_weights(find_weights("crystalflow", options.weights), "crystalflow")
    flow = found.fill(flow_of(found.settings(CrystalFlowSettings)))
    known = read_table(options.table).sites
    rows = torch.randperm(len(known), generator=generator_of(0))[: options.n].tolist()
    references = [known[row] for row in rows]
    contents = Contents.of([s.numbers.tolist() for s in references])
    print(f"{len(references)} crystals\n\n| steps | returns | found | RMSE | CPU-ms |\n|---|---|---|---|---|")
    for walk in options.walks.split(","):
        steps, returns = map(int, walk.split(":"))
        began, built = time.process_time(), []
        for batch in torch.arange(len(references)).split(BATCH):
            generators = [generator_of(1, int(row)) for row in batch]
            end = flow.sample(contents[batch], generators, Sampling(steps, returns=returns))
            built += flow.build(end, contents[batch])
        spent = 1000 * (time.process_time() - began) / len(references)
        rms = distances(built, references)
        share, mean = len(rms) / len(references), sum(rms) / len(rms) if rms else math.nan
        print(f"| {steps} | {returns} | {share:.1%} | {mean:.3f} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
