"""Which method puts clusters in order? The published table, and what it does not see, beside controls.

    python benchmarks/crystallization.py CLUSTERS NAME=WEIGHTS[,WEIGHTS...] ... [--split val,test] [--samples 10]
        [--limit N] [--inversion] [--steps 20] [--seed 0]

CLUSTERS is a data set of `nucleate data clusters`; its clusters of the named splits are loosened the same way for all.
Several weights of a name are repetitions with other seeds: numbers are means, with the deviation over them. `loose` is
what the methods are given, `shuffled` the truth with its molecules renamed, `collapsed` everything in one point.
Printed: the published columns (first sample), then what is left of them after assignment, and CPU-seconds a cluster
of 17 molecules (one thread, in batches).
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import torch

from nucleate.crystal.cluster import Cluster, ClusterBatch
from nucleate.data.cluster_files import read_cluster_splits
from nucleate.data.clusters import Loosening, evaluation_copies
from nucleate.generative.seeds import generator_of
from nucleate.metrics.cluster_evaluation import Row, controls, judge_cluster, summarise_clusters
from nucleate.models.crystallization import Crystallizer, Walk
from nucleate.models.crystallization_training import CrystallizationSettings, crystallizer_of
from nucleate.weights import read_weights

BATCH = 4  # clusters at a time: PaiNN holds a matrix of all pairs of atoms
HEADS = (
    *("PM atom", "PM center", "collision", "separation"),
    *("PM center, assigned", "best of k", "RMSD", "best of k", "molecules matched", "clash-free", "CPU-s"),
)


def samples(
    method: Crystallizer, loose: Sequence[Cluster], truths: Sequence[Cluster], k: int, steps: int, seed: int
) -> tuple[list[Row], float]:
    """A row a sample, and CPU-seconds a sample."""
    rows, spent = [], 0.0
    for sample in range(k):
        for first in range(0, len(loose), BATCH):
            some = loose[first : first + BATCH]
            began = time.process_time()
            found = method.sample(
                ClusterBatch.from_list(some), generator_of(seed, "sample", sample, first), Walk(steps)
            )
            spent += time.process_time() - began
            for cluster, truth, x in zip(some, truths[first : first + BATCH], found):
                positions = x[:, : len(cluster.numbers)]
                rows.append(judge_cluster("prediction", truth.name, sample, truth, positions))
    return rows, spent / (k * len(loose))


def columns(rows: list[Row], source: str, targets: list[str], k: int, cpu: float) -> list[float]:
    """The numbers of one line."""
    scores = summarise_clusters(rows, source, targets, (1, k))
    one, best = scores.best_of["1"], scores.best_of[str(k)]
    published = scores.published
    return [
        *(published.pm_atom, published.pm_center, 100 * published.collision, 100 * published.separation),
        *(one.pm_center_permuted, best.pm_center_permuted, one.rmsd, best.rmsd, 100 * one.matched),
        *(100 * scores.clash_free.value, cpu),
    ]


def line(name: str, several: list[list[float]]) -> str:
    """Means, and deviations over repetitions."""
    cells = []
    for values in zip(*several):
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        cells.append(f"{mean(values):.2f}{spread}")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clusters", type=Path)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--split", default="val,test")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--largest", type=int, default=60, help="atoms of a molecule at most")
    parser.add_argument("--inversion", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    splits = read_cluster_splits(options.clusters)
    found = [r.cluster for name in options.split.split(",") for r in splits[name]]
    small = [c for c in found if len(c.numbers) <= options.largest]
    truths = sorted(small, key=lambda c: c.name)[: options.limit]
    loose = evaluation_copies(truths, Loosening(inversion=options.inversion), options.seed)
    names = [c.name for c in truths]
    print(f"{len(truths)} clusters; Å, % of pairs, molecules and samples; best of {options.samples}\n")
    print("| | " + " | ".join(HEADS) + " |\n|" + "---|" * (len(HEADS) + 1))
    fixed = [row for t in truths for row in controls(t.name, t, generator_of(options.seed, t.name))]
    fixed += [judge_cluster("loose", t.name, 0, t, x.positions) for t, x in zip(truths, loose)]
    for name in ("loose", "shuffled", "collapsed"):
        print(line(name, [columns(fixed, name, names, options.samples, 0.0)]), flush=True)
    for given in options.methods:
        name, _, files = given.partition("=")
        several = []
        for file in files.split(","):
            weights = read_weights(Path(file), "crystallization")
            method = weights.fill(crystallizer_of(weights.settings(CrystallizationSettings)))
            rows, cpu = samples(method, loose, truths, options.samples, options.steps, options.seed)
            several.append(columns(rows, "prediction", names, options.samples, cpu))
        print(line(name, several), flush=True)


if __name__ == "__main__":
    main()
