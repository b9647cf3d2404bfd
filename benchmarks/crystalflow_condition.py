"""Conditions: does what is generated have the property that was asked for? Its distribution, as text and figure.

    python benchmarks/crystalflow_condition.py WEIGHTS PROPERTY TARGET... [--table T.parquet ...] [-n 200]
        [--guidance 1,2] [--contents TEST.parquet] [--figure FILE.svg]

`volume_per_atom` (Å^3) is measured on every crystal. Any other property is looked up: that of the crystals of the same
composition in the tables (their mean), and how many generated compositions are in none of them is printed. With
`--contents` the atoms are those of random crystals of a table (weights that do not choose atoms). Guidance 0 does not
listen to the condition: it is the control.
"""

import argparse
import math
from pathlib import Path

import torch

from nucleate.crystal.sites import Sites
from nucleate.data.inorganic import Contents, read_table
from nucleate.files import write_atomically
from nucleate.models.crystalflow import CrystalFlow, Sampling
from nucleate.models.crystalflow_training import VOLUME, CrystalFlowSettings, flow_of
from nucleate.weights import read_weights

BINS = 30


def known_values(tables: list[Path], name: str) -> dict[str, float]:
    """Composition -> mean of the property."""
    sums: dict[str, list[float]] = {}
    for path in tables:
        table = read_table(path)
        for crystal, value in zip(table.sites, table.columns[name]):
            if value is not None:
                sums.setdefault(crystal.reduced_formula, []).append(float(value))
    return {formula: sum(v) / len(v) for formula, v in sums.items()}


def made(flow: CrystalFlow, contents: Contents, name: str, target: float, guidance: float) -> list[Sites]:
    state = flow.sample(
        contents,
        [torch.Generator().manual_seed(1)],
        Sampling(20, guidance=guidance, returns=0),
        {name: target},
    )
    return [crystal for crystal in flow.build(state, contents) if isinstance(crystal, Sites)]


def quantiles(values: list[float]) -> str:
    if not values:
        return "none known"
    q = torch.tensor(values).quantile(torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
    return " ".join(f"{v:8.2f}" for v in q.tolist())


def histogram_svg(rows: list[tuple[str, float, list[float]]], name: str) -> str:
    """One strip for each (label, target, values)."""
    everything = [v for _, _, values in rows for v in values] + [t for _, t, _ in rows if math.isfinite(t)]
    low, high = min(everything), max(everything)
    width, height, left = 560, 46, 150
    x = lambda v: left + width * (v - low) / (high - low or 1)  # noqa: E731
    parts = []
    for k, (label, target, values) in enumerate(rows):
        base = 20 + (k + 1) * (height + 8)
        counts = torch.histc(torch.tensor(values), BINS, low, high) if values else torch.zeros(BINS)
        top = float(counts.max()) or 1.0
        for b, count in enumerate(counts.tolist()):
            tall = height * count / top
            parts.append(
                f'<rect x="{left + width * b / BINS:.1f}" y="{base - tall:.1f}" width="{width / BINS - 1:.1f}" '
                f'height="{tall:.1f}" fill="#4c78a8"/>'
            )
        if math.isfinite(target):
            parts.append(
                f'<line x1="{x(target):.1f}" x2="{x(target):.1f}" y1="{base - height}" y2="{base}" stroke="#e45756" '
                'stroke-width="2"/>'
            )
        parts.append(f'<text x="4" y="{base - 6}">{label}</text>')
    bottom = 20 + len(rows) * (height + 8) + 20
    for v in (low, (low + high) / 2, high):
        parts.append(f'<text x="{x(v):.1f}" y="{bottom}" text-anchor="middle">{v:.3g}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{bottom + 18}" text-anchor="middle">{name}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {bottom + 28}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(parts)}</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("property")
    parser.add_argument("targets", type=float, nargs="+")
    parser.add_argument("--table", type=Path, nargs="+", default=[])
    parser.add_argument("--contents", type=Path)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--guidance", default="1,2")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    found, name = read_weights(options.weights, "crystalflow"), options.property
    flow = found.fill(flow_of(found.settings(CrystalFlowSettings)))
    known = known_values(options.table, name)
    generator = torch.Generator().manual_seed(0)
    if flow.generates_kinds:
        contents = Contents.of([[1] * size for size in flow.draw_sizes(options.n, generator)])
    else:
        sites = read_table(options.contents).sites
        rows = torch.randperm(len(sites), generator=generator)[: options.n].tolist()
        contents = Contents.of([sites[row].numbers.tolist() for row in rows])
    figure: list[tuple[str, float, list[float]]] = []
    print(f"{name}: 10, 25, 50, 75 and 90 % of {options.n} crystals lie below")
    asked = [(math.nan, 0.0)] + [(t, float(w)) for w in options.guidance.split(",") for t in options.targets]
    for target, guidance in asked:
        crystals = made(flow, contents, name, options.targets[0] if math.isnan(target) else target, guidance)
        if name == VOLUME:
            values = [c.volume / len(c) for c in crystals]
        else:
            values = [known[c.reduced_formula] for c in crystals if c.reduced_formula in known]
        label = "not asked" if math.isnan(target) else f"asked {target:g}, guidance {guidance:g}"
        print(
            f"{label:>26}: {quantiles(values)}   known {len(values)}, built {len(crystals)} of {options.n}",
            flush=True,
        )
        figure.append((label, target, values))
    if options.figure:
        write_atomically(options.figure, histogram_svg(figure, name))


if __name__ == "__main__":
    main()
