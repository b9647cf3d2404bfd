"""What does the published packing-matching metric see? Clusters of known crystals, spoilt in known ways.

    python benchmarks/cluster_metric.py CLUSTERS [--limit 100] [--figure FILE.svg]

CLUSTERS is a data set of `nucleate data clusters`. Each true cluster is compared with itself after: its molecules
renamed (the same cluster), everything drawn into one point, every molecule moved by normal steps of 0.25 to 4 Å along
each axis, and loosened as in training. Printed: mean PM(center) as published, and the same after assignment, in Å.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from nucleate.crystal.cluster import Cluster
from nucleate.data.cluster_files import read_cluster_splits
from nucleate.data.clusters import Loosening, loosened_cluster
from nucleate.files import write_atomically
from nucleate.generative.seeds import generator_of
from nucleate.metrics.clusters import collapsed, pm_center, pm_center_permuted, shuffled

STEPS = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0)  # Å along each axis
WIDE, HIGH, LEFT, LOW = 560, 320, 60, 44  # of the figure, and its margins

Spoil = Callable[[Cluster, torch.Generator], Tensor]


def moved(step: float) -> Spoil:
    """Every molecule moved, none turned."""

    def spoil(cluster: Cluster, generator: torch.Generator) -> Tensor:
        return loosened_cluster(cluster, generator, Loosening(translation=step, rotation=0.0)).positions

    return spoil


SPOILT: dict[str, Spoil] = {
    "the true cluster, its molecules renamed": lambda c, g: shuffled(c.positions.double(), g),
    "collapsed to a point": lambda c, g: collapsed(c.positions.double()),
    **{f"moved by {step:g} Å along each axis": moved(step) for step in STEPS},
    "loosened as in training": lambda c, g: loosened_cluster(c, g, Loosening()).positions,
}


def figure(numbers: dict[str, tuple[float, float]]) -> str:
    """Both metrics against how far molecules were moved, the published values of the two controls as lines."""
    top = 1.08 * max(max(pair) for pair in numbers.values())
    across = lambda step: LEFT + (WIDE - LEFT - 20) * step / STEPS[-1]  # noqa: E731
    up = lambda value: HIGH - LOW - (HIGH - LOW - 16) * value / top  # noqa: E731
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDE}" height="{HIGH}" fill="#fff"/>',
    ]
    for value in range(0, int(top) + 1, 2):
        parts.append(
            f'<path d="M{LEFT} {up(value):.1f}H{WIDE - 20}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{up(value) + 4:.1f}" text-anchor="end" fill="#333">{value}</text>'
        )
    for name, colour, said in (
        ("collapsed to a point", "#b2182b", "collapsed to a point, as published"),
        ("the true cluster, its molecules renamed", "#555", "the true cluster renamed, as published"),
    ):
        y = up(numbers[name][0])
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDE - 20}" stroke="{colour}" stroke-dasharray="6 4"/>'
            f'<text x="{LEFT + 8}" y="{y - 5:.1f}" fill="{colour}">{said}</text>'
        )
    for place, colour, said, below in (
        (0, "#e08214", "as published", -10),
        (1, "#2166ac", "after assignment", 22),
    ):
        points = [(0.0, 0.0)] + [
            (step, numbers[f"moved by {step:g} Å along each axis"][place]) for step in STEPS
        ]
        line = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)
        x, y = points[-3]
        parts.append(
            f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
            f'<text x="{across(x):.1f}" y="{up(y) + below:.1f}" text-anchor="{"end" if place == 0 else "start"}" '
            f'fill="{colour}">moved, {said}</text>'
        )
    for step in range(int(STEPS[-1]) + 1):
        parts.append(
            f'<text x="{across(step):.1f}" y="{HIGH - LOW + 18}" text-anchor="middle" fill="#333">{step}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDE) / 2}" y="{HIGH - 8}" text-anchor="middle" fill="#333">'
        "how far molecules were moved along each axis, Å</text>"
        f'<text x="16" y="{HIGH / 2}" transform="rotate(-90 16 {HIGH / 2})" text-anchor="middle" fill="#333">'
        "PM(center), Å</text></svg>\n"
    )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clusters", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    found = [r.cluster for own in read_cluster_splits(options.clusters).values() for r in own]
    clusters = sorted(found, key=lambda c: c.name)[: options.limit]
    print(f"{len(clusters)} clusters\n\n| | PM(center) as published | after assignment |\n|---|---|---|")
    numbers = {}
    for name, spoil in SPOILT.items():
        spoilt = [spoil(c, generator_of(0, name, c.name)) for c in clusters]
        truths = [c.positions.double() for c in clusters]
        as_published = mean(float(pm_center(x, y)) for x, y in zip(truths, spoilt))
        permuted = mean(pm_center_permuted(x, y) for x, y in zip(truths, spoilt))
        numbers[name] = as_published, permuted
        print(f"| {name} | {as_published:.2f} | {permuted:.2f} |", flush=True)
    if options.figure:
        write_atomically(options.figure, figure(numbers))


if __name__ == "__main__":
    main()
