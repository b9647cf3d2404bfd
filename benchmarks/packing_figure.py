"""A figure: samples of one molecule beside its experimental packing, as they were generated and relaxed.

    python benchmarks/packing_figure.py CRYSTAL.cif -o packing.svg [--weights WEIGHTS] [--samples 200] [--seed 0]

Samples of the experiment's space group (random starts, or a learned generator's with `--weights`) are pressed and
relaxed; of the different minima those that share most with the experiment are drawn, best first: n of 15 molecules
found, then by RMSD. Each is laid onto the experiment's central molecule and its neighbours (grey), and 15 molecules of
it are drawn without hydrogens on carbon, seen along the experiment's shortest cell axis. The same command gives the
same file. What it prints is what stands under the pictures.
"""

import argparse
import html
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from packing_tasks import (
    RANDOM,
    Ends,
    PackingTask,
    add_sampling,
    learned,
    press,
    relax,
    task_of,
)

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.io import read_crystal
from nucleate.errors import InputError
from nucleate.files import write_atomically
from nucleate.metrics.packing import PackingMatch, PackingReference
from nucleate.physics.minimise import CLASH, closest_contacts, pair_energy_fingerprints
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.deduplicate import distinct_crystals
from nucleate.pipeline.strategy import apportion
from nucleate.report.drawing import molecule_svg, space_group_symbol

SHOWN_MOLECULES = 15
PANEL, CAPTION, GAP = 230.0, 34.0, 10.0  # in pixels
LAYERS = 8  # of depth
FOG = 0.6  # how much of its colour the farthest layer loses to the white ground
COLOURS = {1: "#9a9a9a", 6: "#4a4a4a", 7: "#2f4fd8", 8: "#d8262c", 9: "#2c9c4b", 15: "#d97a1a", 16: "#b8930a",
           17: "#2c9c4b", 35: "#8c3a26", 53: "#6d2a8c"}  # fmt: skip
OTHER, GHOST = "#8a5a8a", "#d4d4d4"


@dataclass(frozen=True, eq=False)
class Molecules:
    """Some whole molecules in space: positions (Å), elements and bonds."""

    positions: np.ndarray
    numbers: np.ndarray
    bonds: np.ndarray


@dataclass(frozen=True, eq=False)
class Found:
    """One minimum and the start it came from."""

    start: Crystal
    relaxed: Crystal
    match: PackingMatch  # of the relaxed crystal
    energy: float  # kJ/mol per molecule above the lowest
    number: int
    hits: int  # starts that came down to it


# ---------------------------------------------------------------- samples


def samples(task: PackingTask, options: argparse.Namespace) -> list[Found]:
    """Different minima, those that share most with the experiment first."""
    source = learned(options.weights, options) if options.weights else RANDOM
    counts = apportion(options.samples, np.array([a.weight for a in task.arms]))
    parts = [_of_arm(task, source, arm, count, options.seed) for arm, count in enumerate(counts) if count]
    starts, ends = zip(*parts)
    energy, volume, fingerprint, place = _joined(task, ends)
    distinct = distinct_crystals(energy, volume, fingerprint)
    reference = PackingReference(task.crystal)
    found = []
    for i, hits in zip(distinct.kept.tolist(), distinct.multiplicity.tolist()):
        part, row = place[i]
        crystal = ends[part].packings.crystal(row)
        found.append(
            Found(
                start=starts[part].packings.crystal(int(ends[part].row[row])),
                relaxed=crystal,
                match=reference.compare(crystal),
                energy=float(energy[i] - energy.min()) / KJ_PER_MOL,
                number=int(ends[part].row[row]) + sum(filter(None, counts[:part])),
                hits=hits,
            )
        )
    return sorted(found, key=lambda f: (-f.match.n_matched, f.match.rmsd, f.energy))


def _of_arm(task: PackingTask, source, arm: int, count: int, seed: int) -> tuple[Ends, Ends]:
    """Starts and the sound minima they came down to; rows of the latter index the former."""
    drawn = source.starts(task.composition, task.arms[arm], 0, count, task.seed(seed))
    start = Ends.of(drawn.packings)
    ends = relax(press(start, task.field), task.field)
    sound = torch.nonzero(closest_contacts(ends.packings, task.field) >= CLASH).flatten()
    return start, Ends(ends.packings[sound], ends.row[sound], ends.energy[sound])


def _joined(
    task: PackingTask, parts: Sequence[Ends]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Energies (eV) and volumes (Å^3) per molecule, fingerprints, and where each crystal is."""
    energy = np.concatenate([(p.energy / p.packings.n_bodies).numpy() for p in parts])
    copies = [len(p.packings.group) * p.packings.n_bodies for p in parts]
    volume = np.concatenate([(p.packings.volume / n).numpy() for p, n in zip(parts, copies)])
    fingerprint = np.concatenate([pair_energy_fingerprints(p.packings, task.field).numpy() for p in parts])
    place = [(k, row) for k, p in enumerate(parts) for row in range(len(p.row))]
    if not place:
        raise InputError("expected samples that relax to sound crystals, got none; ask for more --samples")
    return energy, volume, fingerprint, place


# ---------------------------------------------------------------- molecules in the frame of the experiment


def around(crystal: Crystal, centre: np.ndarray) -> Molecules:
    """The whole molecules of a crystal whose centroids are nearest to a point (Å)."""
    lattice = crystal.lattice.numpy()
    cells = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    centroids = crystal.centroids.numpy()
    home = np.round(np.linalg.solve(lattice.T, centre) - centroids)
    images = (centroids + home + cells[:, None]) @ lattice
    nearest = np.argsort(np.linalg.norm(images - centre, axis=-1), axis=None)[:SHOWN_MOLECULES]
    cell, molecule = np.unravel_index(nearest, images.shape[:2])
    positions, numbers, bonds, size = [], [], [], 0
    for c, m in zip(cell, molecule):
        atoms = np.flatnonzero(crystal.molecule.numpy() == m)
        positions.append((crystal.frac.numpy()[atoms] + home[m] + cells[c]) @ lattice)
        numbers.append(crystal.numbers.numpy()[atoms])
        own = crystal.bonds.numpy()[np.isin(crystal.bonds.numpy()[:, 0], atoms)]
        bonds.append(np.searchsorted(atoms, own) + size)
        size += len(atoms)
    return Molecules(np.concatenate(positions), np.concatenate(numbers), np.concatenate(bonds))


def laid_onto(match: PackingMatch, crystal: Crystal, centre: np.ndarray) -> Molecules:
    """Molecules of a sample in the frame of the experiment: x_sample = x R^T + t, solved for x."""
    R, t = match.rotation.numpy(), match.translation.numpy()
    own = around(crystal, centre @ R.T + t)
    return Molecules((own.positions - t) @ R, own.numbers, own.bonds)


def view_of(crystal: Crystal) -> np.ndarray:
    """Columns: to the right, up, and towards the eye, which looks along the shortest cell axis."""
    axes = crystal.lattice.numpy()
    order = np.argsort(np.linalg.norm(axes, axis=1))
    depth = axes[order[0]] / np.linalg.norm(axes[order[0]])
    right = axes[order[2]] - (axes[order[2]] @ depth) * depth
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(depth, right), depth], 1)


# ---------------------------------------------------------------- lines


def drawn(molecules: Molecules, view: np.ndarray, centre: np.ndarray, scale: float, ghost: bool) -> str:
    """Half bonds in the colour of their atom, far layers first and paler; carbon's hydrogens are left out."""
    seen = (molecules.positions - centre) @ view
    x, y = PANEL / 2 + scale * seen[:, 0], PANEL / 2 - scale * seen[:, 1]
    near = (seen[:, 2] - seen[:, 2].min()) / max(np.ptp(seen[:, 2]), 1e-9)
    lines: dict[tuple[int, str], list[str]] = defaultdict(list)
    for i, j in molecules.bonds[_shown(molecules)]:
        layer = 0 if ghost else min(int(LAYERS * (near[i] + near[j]) / 2), LAYERS - 1)
        middle = f"{(x[i] + x[j]) / 2:.1f} {(y[i] + y[j]) / 2:.1f}"
        for atom in (i, j):
            colour = GHOST if ghost else COLOURS.get(int(molecules.numbers[atom]), OTHER)
            lines[layer, colour].append(f"M{x[atom]:.1f} {y[atom]:.1f}L{middle}")
    paths = []
    for (layer, colour), strokes in sorted(lines.items()):
        depth = 1.0 if ghost else layer / (LAYERS - 1)
        width = 4.5 if ghost else 1.2 + 1.4 * depth
        paths.append(
            f'<path stroke="{_faded(colour, FOG * (1 - depth))}" stroke-width="{width:.1f}" d="{"".join(strokes)}"/>'
        )
    return "\n".join(paths)


def _shown(molecules: Molecules) -> np.ndarray:
    first, second = molecules.numbers[molecules.bonds].T
    return ~(((first == 1) & (second == 6)) | ((first == 6) & (second == 1)))


def _faded(colour: str, amount: float) -> str:
    parts = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(c + (255 - c) * amount):02x}" for c in parts)


def panel(column: int, row: int, inside: str, caption: Sequence[str]) -> str:
    left, top = GAP + column * (PANEL + GAP), GAP + row * (PANEL + CAPTION + GAP)
    texts = "".join(
        f'<text x="{PANEL / 2}" y="{PANEL + 14 + 15 * k}" text-anchor="middle">{html.escape(line)}</text>'
        for k, line in enumerate(caption)
    )
    name = f"clip{row}-{column}"
    return (
        f'<g transform="translate({left},{top})">'
        f'<clipPath id="{name}"><rect width="{PANEL}" height="{PANEL}"/></clipPath>'
        f'<rect width="{PANEL}" height="{PANEL}" fill="#fff" stroke="#ccc"/>'
        f'<g clip-path="url(#{name})" fill="none" stroke-linecap="round">{inside}</g>{texts}</g>'
    )


def figure(task: PackingTask, chosen: Sequence[Found]) -> str:
    """Column 0 the molecule and the experiment, then the samples: generated above, relaxed below."""
    crystal, view = task.crystal, view_of(task.crystal)
    reference = PackingReference(crystal)
    centre = reference.clusters[0].centroids[0].numpy()
    known = around(crystal, centre)
    reach = np.abs((known.positions - centre) @ view[:, :2]).max()
    scale = PANEL / 2 / (reach + 1.0)
    ghost = drawn(known, view, centre, scale, ghost=True)
    symbol = space_group_symbol(task.symmetry.number)
    formula = molecule_svg(".".join(m.smiles for m in task.composition.species), int(PANEL), int(PANEL)) or ""
    formula = formula.replace("<svg ", f'<svg width="{PANEL}" height="{PANEL}" color="#222" ', 1)
    panels = [
        panel(0, 0, formula, [task.name]),
        panel(0, 1, drawn(known, view, centre, scale, ghost=False), ["experiment", symbol]),
    ]
    for k, sample in enumerate(chosen, 1):
        before = reference.compare(sample.start)
        for row, (match, shape) in enumerate(((before, sample.start), (sample.match, sample.relaxed))):
            inside = ghost + "\n" + drawn(laid_onto(match, shape, centre), view, centre, scale, ghost=False)
            panels.append(panel(k, row, inside, captions(sample, match, row == 1)))
    width = GAP + (len(chosen) + 1) * (PANEL + GAP)
    height = GAP + 2 * (PANEL + CAPTION + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="Samples beside the experiment">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def captions(sample: Found, match: PackingMatch, relaxed: bool) -> list[str]:
    found = f"{match.n_matched} of {match.n} molecules"
    if match.is_match:
        found = f"{found}, RMSD {match.rmsd:.2f} Å"
    if not relaxed:
        return [f"start {sample.number}", found]
    starts = "1 start" if sample.hits == 1 else f"{sample.hits} starts"
    return [f"relaxed: {found}", f"{sample.energy:+.1f} kJ/mol, {starts}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cif", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--title", help="what stands under the molecule; the file's name unless given")
    parser.add_argument("--weights", default="")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--shown", type=int, default=3)
    parser.add_argument("--largest", type=int, default=100, help="atoms of the formula unit")
    parser.add_argument("--seed", type=int, default=0)
    add_sampling(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = task_of(options.title or options.cif.stem, read_crystal(options.cif), options.largest)
    found = samples(task, options)
    chosen = found[: options.shown]
    write_atomically(options.output, figure(task, chosen))
    same = sum(f.hits for f in found if f.match.is_match and f.match.rmsd < math.inf)
    print(
        f"{options.samples} starts, {len(found)} different minima; {same} starts came down to the experiment"
    )
    for sample in chosen:
        print("; ".join(captions(sample, sample.match, relaxed=True)))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{error}")
