"""Do conformers cover those there are? COV and MAT of any method, with RDKit and chance at an equal number of samples.

    python benchmarks/conformers.py REFERENCES [METHOD ...] [--threshold 0.5] [--most 200] [--limit N] [--workers 2]
                                    [--optimise mmff] [--property K] [--mmd] [--redraw] [-o FILE.json]

REFERENCES is a data set of `nucleate data conformers`, with a `--keep` large enough to hold all conformers, or a source
that it imports, such as an SDF file. A METHOD is one of

    etkdg  etkdg+cluster  random-torsions  random-atoms     `nucleate.pipeline.conformer_baselines`
    fast[=WEIGHTS]  ald[=WEIGHTS]  distances[=WEIGHTS]      samplers of `nucleate conform`, with weights of one's own
    any of these followed by +mmff                          then to the next minimum of MMFF94

Without any, the baselines are run. Of each molecule every method is asked for twice as many conformers as there are
references, at most `--most`, and what it does not make counts against it (`nucleate.metrics.conformers`). `--redraw`
draws again where a model's stereo is wrong or atoms clash, as `nucleate conform` does; otherwise wrong stereo stays in
and is counted. `--optimise` puts `+mmff` behind every method. `--property K` compares energies and gaps (GFN2-xTB, as
sampled) of the first K conformers with those of the first K references, `--mmd` distributions of distances.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rdkit.Chem import Descriptors
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from nucleate.crystal.bond_graph import BondGraphs, bond_graph
from nucleate.crystal.molecule import Molecule
from nucleate.data.conformers import ConformerSet, read_conformers
from nucleate.data.packed import data_sets
from nucleate.errors import InputError, NucleateError
from nucleate.files import write_atomically
from nucleate.generative.seeds import generator_of, seed_of
from nucleate.metrics.conformer_evaluation import (
    ConformerScores,
    Row,
    Spread,
    judge_conformers,
    summarise_conformers,
)
from nucleate.metrics.conformers import Properties, property_errors
from nucleate.metrics.csp import plain
from nucleate.metrics.distance_mmd import distance_mmd, heavy_pairs
from nucleate.physics.molecule_energy import gfn2, optimise_mmff
from nucleate.pipeline.conformer_baselines import BASELINES, Baseline

MINIMISED = "+mmff"
SAMPLERS = ("fast", "ald", "distances")
PAIRS = 400_000  # of atoms in one batch of a model
HEAD = (
    "| method | COV-R mean, median | MAT-R mean, median | COV-P mean, median | MAT-P mean, median | wrong stereo "
    "| made | molecules | CPU-s a conformer | calls |\n|" + "---|" * 10
)


@dataclass(frozen=True, eq=False)
class Task:
    """One molecule for one method."""

    method: str
    references: Molecule
    asked: int
    threshold: float
    seed: int
    redraw: bool
    property: int
    mmd: bool


@dataclass(frozen=True, eq=False)
class Done:
    row: Row
    properties: Properties | None
    mmd: tuple[float, float, float] | None


# ---------------------------------------------------------------- methods


@lru_cache
def method_named(name: str, redraw: bool) -> Baseline:
    bare = name.removesuffix(MINIMISED)
    sampler, _, weights = bare.partition("=")
    if bare in BASELINES:
        made = BASELINES[bare]
    elif sampler in SAMPLERS:
        made = learned(sampler, Path(weights) if weights else None, redraw)
    else:
        raise InputError(f"expected a method ({', '.join((*BASELINES, *SAMPLERS))}), got {name!r}")
    return made if bare == name else minimised(made)


def minimised(method: Baseline) -> Baseline:
    def finish(molecule: Molecule, n: int, seed: int) -> Tensor:
        return optimise_mmff(molecule.graph, method(molecule, n, seed)).positions

    return finish


def learned(sampler: str, weights: Path | None, redraw: bool) -> Baseline:
    from nucleate.pipeline.conformer_models import read_conformer_model

    model = read_conformer_model(sampler, weights)

    def raw(molecule: Molecule, n: int, seed: int) -> Tensor:
        one = BondGraphs.from_list([bond_graph(molecule.graph)])
        batch, generator = max(1, PAIRS // len(molecule) ** 2), generator_of(seed, "model")
        sizes = [min(batch, n - first) for first in range(0, n, batch)]
        return torch.cat([model.sample(one.repeated(size), generator) for size in sizes])

    def again(molecule: Molecule, n: int, seed: int) -> Tensor:
        from nucleate.pipeline.learned_conformers import Learned

        return Learned(model)(molecule, n, seed, 600.0).positions

    return again if redraw else raw


@contextmanager
def counted_calls() -> Iterator[Callable[[], int]]:
    """How often a network was called, parts of networks not counted."""
    depth = calls = 0

    def enter(*_: Any) -> None:
        nonlocal depth, calls
        calls += depth == 0
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        yield lambda: calls
    finally:
        for hook in hooks:
            hook.remove()


# ---------------------------------------------------------------- one molecule


def run(task: Task) -> Done:
    torch.set_num_threads(1)
    method = method_named(task.method, task.redraw)
    found, failure, began = None, None, time.process_time()
    with counted_calls() as calls:
        try:
            found = method(task.references, task.asked, task.seed)
        except NucleateError as error:
            failure = f"{getattr(error, 'reason', 'failed')}: {error}"
    row = judge_conformers(
        task.method,
        task.references,
        found,
        task.asked,
        task.threshold,
        failure=failure,
        seconds=time.process_time() - began,
        calls=calls() or None,
    )
    made = task.references.conformers[:0] if found is None else found.double()
    made = made[made.isfinite().flatten(1).all(1)]
    return Done(
        row,
        properties(task.references, made[: task.property]) if task.property else None,
        mmds(task.references, made) if task.mmd else None,
    )


def properties(molecule: Molecule, positions: Float[Tensor, "conformers atoms 3"]) -> Properties:
    unpaired = Descriptors.NumRadicalElectrons(molecule.graph)
    states = [gfn2(molecule.numbers, x, molecule.charge, unpaired) for x in positions]
    energies, gaps = ([getattr(s, name) for s in states] for name in ("energy", "gap"))
    return Properties(torch.tensor(energies).double(), torch.tensor(gaps).double())


def mmds(molecule: Molecule, made: Float[Tensor, "conformers atoms 3"]) -> tuple[float, float, float] | None:
    """None where there is nothing to compare."""
    pairs = heavy_pairs(molecule)
    if not len(made) or len(pairs) < 2:
        return None
    found = distance_mmd(molecule.conformers, made, pairs)
    return float(found.single.mean()), float(found.pair.mean()), found.joint


# ---------------------------------------------------------------- all of them


def line(scores: ConformerScores) -> str:
    def share(x: Spread) -> str:
        return f"{100 * x.mean:.1f}, {100 * x.median:.1f}"

    def length(x: Spread) -> str:
        return f"{x.mean:.3f}, {x.median:.3f}"

    cells = [
        scores.source,
        share(scores.cov_r),
        length(scores.mat_r),
        share(scores.cov_p),
        length(scores.mat_p),
    ]
    made, wrong = scores.conformers, scores.wrong_stereo
    cells += [f"{100 * wrong.value:.1f} %", f"{made.hits}/{made.asked}"]
    cells += [
        f"{scores.molecules.hits}/{scores.molecules.asked}",
        f"{scores.seconds:.4f}",
        f"{scores.calls:.0f}",
    ]
    return "| " + " | ".join(cell.replace("nan", "") for cell in cells) + " |"


def property_line(name: str, made: list[Done], references: list[Properties]) -> str:
    errors = property_errors([d.properties for d in made if d.properties is not None], references)
    numbers = (errors.mean_energy, errors.min_energy, errors.mean_gap, errors.min_gap, errors.max_gap)
    rates = (f"{r.hits}/{r.asked}" for r in (errors.molecules, errors.conformers))
    return "| " + " | ".join((name, *(f"{x:.4f}" for x in numbers), *rates)) + " |"


def mmd_line(name: str, made: list[Done]) -> str:
    known = [d.mmd for d in made if d.mmd is not None]
    spreads = [Spread.of([own[k] for own in known]) for k in range(3)]
    cells = [f"{s.mean:.3f}, {s.median:.3f}" for s in spreads]
    return "| " + " | ".join((name, *cells, f"{len(known)}/{len(made)}")) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("references", type=Path)
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    parser.add_argument("--threshold", type=float, default=0.5, help="Å; 1.25 for drug-like molecules")
    parser.add_argument("--most", type=int, default=200, help="conformers asked for, at most")
    parser.add_argument("--least", type=int, default=1, help="references that a molecule must have")
    parser.add_argument("--limit", type=int, help="molecules")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimise", choices=["mmff"])
    parser.add_argument("--property", type=int, default=0, metavar="K")
    parser.add_argument("--mmd", action="store_true")
    parser.add_argument("--redraw", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    methods = given.methods or [*BASELINES, "etkdg" + MINIMISED]
    if given.optimise:
        methods = list(dict.fromkeys(m.removesuffix(MINIMISED) + MINIMISED for m in methods))
    for name in methods:
        method_named(name, given.redraw)  # says at once what is wrong with it
    sets = [own for own in read_references(given.references) if len(own) >= given.least][: given.limit]
    truths = [replace(own.molecule, name=own.molecule.name or own.molecule.smiles) for own in sets]
    count = sorted(len(t.conformers) for t in truths)
    print(
        f"{len(truths)} molecules, {count[0]} to {count[-1]} references, {sum(count)} in all; threshold "
        f"{given.threshold:g} Å; twice as many conformers asked for, {given.most} at most.\n\n{HEAD}"
    )
    done: dict[str, list[Done]] = {}
    scores: dict[str, ConformerScores] = {}
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        for name in methods:
            tasks = [
                Task(
                    name,
                    truth,
                    min(2 * len(truth.conformers), given.most),
                    given.threshold,
                    seed_of(given.seed, truth.name),
                    given.redraw,
                    given.property,
                    given.mmd,
                )
                for truth in truths
            ]
            done[name] = list(pool.map(run, tasks))
            scores[name] = summarise_conformers([d.row for d in done[name]], name, len(truths))
            print(line(scores[name]), flush=True)
        known = list(pool.map(properties, truths, [t.conformers[: given.property] for t in truths]))
    for name, own in scores.items():
        if own.failures or own.bounded.hits:
            print(
                f"\n{name}: {own.failures or 'no failures'}; RMSDs are upper bounds for {own.bounded.hits} molecules"
            )
    if given.property:
        print(
            "\n| method | mean E | min E | mean gap | min gap | max gap (MAE, eV) | molecules | conformers |"
        )
        print("|" + "---|" * 8)
        print(*(property_line(name, own, known) for name, own in done.items()), sep="\n")
    if given.mmd:
        print("\n| method | MMD^2 single: mean, median | pair | all | molecules |\n|" + "---|" * 5)
        print(*(mmd_line(name, own) for name, own in done.items()), sep="\n")
    if given.output:
        kept = {
            "scores": [
                summarise_conformers([d.row for d in own], name).as_json() for name, own in done.items()
            ],
            "rows": [plain(d.row) for own in done.values() for d in own],
        }
        write_atomically(given.output, json.dumps(kept, indent=1))


def read_references(path: Path) -> list[ConformerSet]:
    """Of a data set, or of a source that can be imported; what cannot be read there is told."""
    if data_sets(path):
        return [own for place in data_sets(path) for own in read_conformers(place)]
    from nucleate.data.conformer_sources import read_source

    found = [given for _, given in read_source(path)]
    sets = [given for given in found if isinstance(given, ConformerSet)]
    print(f"{len(found) - len(sets)} of {len(found)} molecules of {path.name} could not be read.")
    return sets


if __name__ == "__main__":
    main()
