"""run.json: what was asked, what happened to every start, what must be known to do it again."""

from typing import Any

from pydantic import BaseModel

from nucleate.physics.minimise import CLASH
from nucleate.pipeline.composition import Subject
from nucleate.pipeline.convergence import convergence
from nucleate.pipeline.generate import Composition
from nucleate.pipeline.landscape import Candidate
from nucleate.pipeline.learned import LearnedGenerator
from nucleate.pipeline.provenance import provenance
from nucleate.pipeline.search import SearchResult

LOST = ("without a sound cell", "collapsed in the press", "collapsed in minimisation", "not converged")


def describe(
    source: str,
    subject: Subject,
    settings: BaseModel,
    seed: int,
    result: SearchResult,
    candidates: list[Candidate],
    failures: dict[str, int],
) -> dict[str, Any]:
    """run.json: what was asked, what happened to every start, and what must be known to do it again."""
    minima = result.minima
    clashing = int(minima.hits[minima.contact < CLASH].sum())
    per_molecule = minima.energy / result.composition.molecules
    estimate = convergence(per_molecule, minima.hits, minima.random_hits)
    lost = {reason: result.counts.get(reason, 0) for reason in LOST} | {"clash": clashing}
    return {
        **provenance("torch", "numpy", "numba", "rdkit", "gemmi", "moyopy"),
        "molecule": _molecule(source, subject, result.composition),
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "counts": _counts(result, clashing) | {"handed_over": len(candidates)},
        "failures": {k: v for k, v in {**lost, **failures}.items() if v},
        "space_groups": _space_groups(result, candidates),
        "convergence": {
            **estimate.__dict__,
            "lowest_found_again": estimate.lowest_found,
            "text": estimate.text,
        },
        "stopped": result.stopped,
        "interrupted": result.stopped == "user",
        "notes": subject.notes,
    }


def _molecule(source: str, subject: Subject, composition: Composition) -> dict[str, Any]:
    pairs = list(zip(composition.species, composition.counts))
    return {
        "name": subject.name,
        "smiles": subject.smiles,
        "formula": ".".join(m.formula for m in composition.species),
        "n_atoms": sum(n * len(m) for m, n in pairs),
        "species": [
            {"smiles": m.smiles, "formula": m.formula, "count": n, "conformers": len(m.conformers)}
            for m, n in pairs
        ],
        "source": source,
    }


def _counts(result: SearchResult, clashing: int) -> dict[str, int]:
    """Starts from the first to the last stage; a start that collapsed or clashes was still asked for."""
    counts = result.counts
    asked = counts.get("asked", 0)
    return {
        "asked": asked,
        "generated": counts.get("generated", 0),
        "clash_free": asked - sum(counts.get(reason, 0) for reason in LOST[:3]) - clashing,
        "within_window": counts.get("within the energy window", 0),
        "merged": counts.get("merged", 0),
        "converged": counts.get("minima", 0) - counts.get("not converged", 0),
        "distinct": len(result.minima),
    }


def generator_record(result: SearchResult, generator: LearnedGenerator) -> dict[str, Any]:
    """The weights, what they were asked for, and starts and distinct minima of each kind of start."""
    kinds: dict[str, dict[str, int]] = {}
    for unit in result.units:
        row = kinds.setdefault(unit.unit.kind, {"starts": 0, "minima": 0})
        row["starts"] += unit.unit.count
    for kind in result.minima.kind.tolist():
        kinds[kind]["minima"] += 1
    learned = [unit for unit in result.units if unit.unit.kind == "learned"]
    return {
        "name": generator.name,
        "weights": str(generator.weights),
        "digest": generator.digest,
        "sampling": generator.settings.model_dump(mode="json"),
        "drawn": sum(unit.counts["drawn"] for unit in learned),
        "sampling_seconds": sum(unit.seconds["generate"] for unit in learned),
        "kinds": kinds,
    }


def refusal_notes(result: SearchResult, generator: LearnedGenerator) -> list[str]:
    """Which groups were searched with random starts alone, and why."""
    refused = generator.refusals(result.composition, result.arms)
    if [len(arms) for arms in refused.values()] == [len(result.arms)]:
        return [f"Random starts alone: {reason}." for reason in refused]
    return [f"Random starts alone for {', '.join(arms)}: {reason}." for reason, arms in refused.items()]


def _space_groups(result: SearchResult, candidates: list[Candidate]) -> dict[str, dict[str, Any]]:
    """Starts by the group searched, distinct crystals by the group found (a subgroup's start may end higher)."""
    table: dict[str, dict[str, Any]] = {}
    for unit in result.units:
        group = result.arms[unit.unit.arm].group
        row = table.setdefault(str(group.number), {"symbol": group.symbol, "starts": 0, "distinct": 0})
        row["starts"] += unit.unit.count
    for c in candidates:
        row = table.setdefault(str(c.space_group), {"symbol": c.symbol, "starts": 0, "distinct": 0})
        row["distinct"] += 1
    return table
