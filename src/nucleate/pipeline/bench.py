"""How fast is this machine? The work of five commands on small tasks, beside a known machine.

    task --once, to compile and load--> --again, timed--> units per CPU-second, ratio to the known machine

The claims of the README have scripts of their own in the repository (`make bench`). This is for users: is the
installation sound, and how long will a search take?
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from rdkit import Chem

from nucleate.crystal.molecule import Molecule
from nucleate.crystal.packing import Packings
from nucleate.metrics.packing import PackingReference
from nucleate.physics.forcefield import ForceField
from nucleate.physics.minimise import PRESS, ROUGH, TIGHT, minimise
from nucleate.pipeline.conform import conform
from nucleate.pipeline.ensemble import EnsembleSettings, ensemble
from nucleate.pipeline.generate import Arm, Composition, arms, random_packings

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
STARTS, SHORTLIST = 100, 20  # one start in five is minimised tightly, as in a search
COMPARISONS, CONFORMERS, SAMPLES = 50, 10, 20


@dataclass(frozen=True)
class Task:
    """Something to time. `known` is what one core of an AMD EPYC server does in a CPU-second."""

    name: str
    unit: str
    work: Callable[[], int]  # does it, and says how many units it did
    known: float


@dataclass(frozen=True)
class Speed:
    """Units of a task per CPU-second of this process, and over those of the known machine."""

    task: str
    unit: str
    per_cpu_second: float
    ratio: float


def bench(progress: Callable[[str, int, int, str], None] = lambda *_: None) -> list[Speed]:
    """Time every task, after doing it once unmeasured. About half a minute; a minute more where kernels compile."""
    speeds = []
    for done, task in enumerate(TASKS):
        progress("bench", done, len(TASKS), task.name)
        task.work()
        before = time.process_time()
        units = task.work()
        rate = units / (time.process_time() - before)
        speeds.append(Speed(task.name, task.unit, rate, rate / task.known))
    progress("bench", len(TASKS), len(TASKS), "")
    return speeds


def search_minutes(speed: Speed, starts: int, cores: int) -> float:
    """What a search of so many starts of aspirin takes, by the speed of its task."""
    return starts / speed.per_cpu_second / cores / 60


# ------------------------------------------------------------------ tasks


@cache
def aspirin() -> tuple[Composition, Arm, ForceField]:
    """In P2_1/c, with its conformers and its force field."""
    graph = Chem.AddHs(Chem.MolFromSmiles(ASPIRIN))
    found = conform(Molecule(graph, torch.zeros(0, graph.GetNumAtoms(), 3), ASPIRIN))
    composition = Composition((found.molecule,), (1,), (found.energies,), False)
    return composition, arms(composition, "P21/c")[0], ForceField.for_molecules(composition.species)


def search() -> int:
    """From random packings through the press and both minimisations."""
    composition, arm, field = aspirin()
    pressed = minimise(random_packings(composition, arm, 0, STARTS, 0), field, PRESS).packings
    rough = minimise(pressed, field, ROUGH)
    minimise(rough.packings[rough.energy.argsort()[:SHORTLIST]], field, TIGHT)
    return STARTS


@cache
def packings() -> Packings:
    composition, arm, field = aspirin()
    return minimise(random_packings(composition, arm, 0, 2, 0), field, PRESS).packings


def match() -> int:
    """Of a crystal with itself."""
    reference = PackingReference(packings().crystal(0))
    for _ in range(COMPARISONS):
        reference.compare(packings().crystal(0))
    return COMPARISONS


def conformers() -> int:
    """By ETKDG, minimised in MMFF94, duplicates left out."""
    molecule = aspirin()[0].species[0]
    ensemble(molecule, EnsembleSettings(n=CONFORMERS, samples=CONFORMERS))
    return CONFORMERS


def learned_packings() -> int:
    """By the weights of the package."""
    from nucleate.pipeline.learned import LearnedGenerator

    composition, arm, _ = aspirin()
    return len(LearnedGenerator().packings(composition, arm, 0, SAMPLES, 0))


TASKS = (
    Task("search (aspirin, P21/c)", "starts", search, 180.0),
    Task("comparison of packings", "pairs", match, 350.0),
    Task("conformers (aspirin)", "shapes", conformers, 110.0),
    Task("learned packings (aspirin)", "samples", learned_packings, 80.0),
)
