"""The data factory: molecules -> conformers -> the classical search -> their low-energy crystals, in shards.

Real crystals that may be redistributed are few; the minima of the force field are many, and a generator that knows
them knows how molecules pack. Every molecule is one job (`jobs`). The shard at hand is written again after every
molecule, so whatever ends the run, Ctrl-C or a kill, costs the molecules under way and no more.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt

from nucleate.crystal.io import read_stoichiometry
from nucleate.crystal.molecule import Molecule
from nucleate.data.packed import PackedCrystal, about_shard, read_keys, shards, write_shard
from nucleate.errors import InputError
from nucleate.metrics.heavy_molecules import molecule_key
from nucleate.physics.minimise import CLASH
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.composition import read_subject
from nucleate.pipeline.conform import ConformSettings
from nucleate.pipeline.folders import hold_folder, make_folder
from nucleate.pipeline.generate import arms
from nucleate.pipeline.jobs import Answer, Job, answers
from nucleate.pipeline.molecule_lists import Given
from nucleate.pipeline.search import SearchResult, search
from nucleate.pipeline.units import SearchSettings

PROGRAM = Path(__file__).with_name("synthesize_worker.py")
GRACE = 300.0  # s beyond the time limit, for conformers, the first compilation and the batch under way
DONE, NOTHING = "done", "no sound minimum"


class SynthesizeSettings(BaseModel, frozen=True, extra="forbid"):
    """How each molecule is searched and what is kept of it."""

    starts: PositiveInt = 1500
    keep: PositiveInt = 12  # crystals of one molecule at most
    window: PositiveFloat = 12.0  # kJ/mol per formula unit above the lowest
    conformers: PositiveInt = 2
    enantiopure: float = Field(0.2, ge=0, le=1)  # share of molecules searched as one hand
    two_independent: float = Field(0.1, ge=0, le=1)  # share searched with Z' = 2 as well
    largest: PositiveInt = 60  # atoms of a formula unit
    time_limit: PositiveFloat = 120.0  # s for one molecule
    shard: PositiveInt = 50  # molecules
    seed: NonNegativeInt = 0
    workers: PositiveInt = Field(1, le=256)


@dataclass(frozen=True)
class Synthesized:
    """What became of the molecules asked for; `outcomes` counts `DONE` and the reasons of the others."""

    folder: Path
    asked: int
    outcomes: Counter[str]
    crystals: int
    interrupted: bool


def synthesize(
    molecules: Sequence[Given],
    folder: Path,
    settings: SynthesizeSettings,
    exclude: Iterable[str] = (),
    resume: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Synthesized:
    """Search every SMILES and write the shards of a data set to `folder`.

    Molecules with a key in `exclude` are left out and counted; Ctrl-C ends the run early. Raises InputError where the
    folder already holds a data set and `resume` is not set, or one of other settings, of other molecules or of
    excluded ones, or where another run is under way there, and NucleateError where no process can be started.
    """
    with hold_folder(make_folder(folder)):
        return _synthesize(
            molecules, folder, settings, frozenset(exclude), resume, progress or (lambda *_: None)
        )


def _synthesize(
    molecules: Sequence[Given],
    folder: Path,
    settings: SynthesizeSettings,
    excluded: frozenset[str],
    resume: bool,
    tell: Callable[[int, int, str], None],
) -> Synthesized:
    """Take up the molecules that are not done yet."""
    done, crystals = _finished(folder, molecules, settings, excluded, resume)
    shard = _Shard(folder, settings)
    interrupted = False

    def record(number: int, outcome: str, rows: Sequence[dict[str, Any]], why: str) -> None:
        nonlocal crystals
        shard.add(number, molecules[number], outcome, rows, why)
        done[number] = outcome
        crystals += len(rows)
        tell(len(done), len(molecules), f"{crystals} crystals")

    try:
        tell(len(done), len(molecules), f"{crystals} crystals")
        todo = [(i, given) for i, given in enumerate(molecules) if i not in done]
        for number, given in todo:
            if isinstance(given, InputError):
                record(number, given.reason, [], str(given))
        jobs = [Job(i, {"number": i, "smiles": given}) for i, given in todo if isinstance(given, str)]
        with closing(_run(jobs, settings, excluded)) as finished:
            for answer in finished:
                record(*_outcome(answer))
    except KeyboardInterrupt:
        interrupted = True
        shard.write()  # where it was interrupted while doing so
    return Synthesized(folder, len(molecules), Counter(done.values()), crystals, interrupted)


def crystals_of(
    smiles: str, number: int, settings: SynthesizeSettings, excluded: frozenset[str] = frozenset()
) -> list[PackedCrystal]:
    """The low-energy crystals of one molecule, lowest first; `number` is its place in the data set and in the seed.

    Raises NucleateError with the reason why there are none.
    """
    _refuse(read_stoichiometry(smiles), settings, excluded)
    rng = np.random.default_rng([settings.seed, number])
    subject = read_subject(smiles, ConformSettings(keep=settings.conformers, time_limit=30.0), settings.seed)
    composition = replace(subject.composition, enantiopure=bool(rng.random() < settings.enantiopure))
    z_prime = [1.0, 2.0] if rng.random() < settings.two_independent else None
    wanted = arms(composition, z_prime=z_prime)
    found = search(
        composition,
        wanted,
        SearchSettings(n=settings.starts, seed=settings.seed + number, workers=1),
        deadline=time.monotonic() + settings.time_limit,
    )
    return list(_lowest(found, number, settings))


def _refuse(
    given: Sequence[tuple[Molecule, int]], settings: SynthesizeSettings, excluded: frozenset[str]
) -> None:
    """Before any work is done on them."""
    size = sum(len(molecule) * n for molecule, n in given) // gcd(*(n for _, n in given))
    if size > settings.largest:
        raise InputError(f"expected at most {settings.largest} atoms, got {size}", reason="too large")
    if any(molecule_key(molecule) in excluded for molecule, _ in given):
        raise InputError("expected a molecule that is not excluded", reason="excluded")


def _lowest(found: SearchResult, number: int, settings: SynthesizeSettings) -> Iterable[PackedCrystal]:
    minima = found.minima
    sound = [i for i in range(len(minima)) if minima.contact[i] >= CLASH]
    for place, i in enumerate(sound[: settings.keep]):
        above = (minima.energy[i] - minima.energy[sound[0]]) / KJ_PER_MOL
        if above > settings.window:
            return
        yield PackedCrystal(
            packing=minima.packing(i),
            id=f"{number}-{place}",
            source="synthetic",
            energy=float(minima.energy[i] / KJ_PER_MOL),
            above=float(above),
            hits=int(minima.hits[i]),
        )


# ---------------------------------------------------------------- processes and shards


def _run(
    jobs: Sequence[Job], settings: SynthesizeSettings, excluded: frozenset[str]
) -> Generator[Answer, None, None]:
    """Answers of the worker processes, as they come."""
    opening = {"settings": settings.model_dump(mode="json"), "excluded": sorted(excluded)}
    return answers(PROGRAM, opening, jobs, settings.workers, settings.time_limit + GRACE)


def _outcome(answer: Answer) -> tuple[int, str, list[dict[str, Any]], str]:
    if answer.lost:
        return answer.number, answer.lost, [], answer.why
    return answer.number, answer.reply["outcome"], answer.reply["rows"], answer.reply["why"]


class _Shard:
    """The file that is being filled; the next one is begun when it holds enough molecules."""

    def __init__(self, folder: Path, settings: SynthesizeSettings) -> None:
        self.folder, self.settings = folder, settings
        self._begin()

    def _begin(self) -> None:
        taken = [int(path.stem) for path in shards(self.folder) if path.stem.isdigit()]
        self.path = self.folder / f"{max(taken, default=-1) + 1:05d}.parquet"
        self.rows: dict[int, Sequence[dict[str, Any]]] = {}
        self.outcomes: dict[int, str] = {}
        self.smiles: dict[int, str] = {}
        self.why: dict[int, str] = {}

    def add(self, number: int, given: Given, outcome: str, rows: Sequence[dict[str, Any]], why: str) -> None:
        """Take the outcome of a molecule and write the file again."""
        self.outcomes[number], self.rows[number] = outcome, rows
        if isinstance(given, str):
            self.smiles[number] = given
        if why:
            self.why[number] = why
        self.write()
        if len(self.outcomes) >= self.settings.shard:
            self._begin()

    def write(self) -> None:
        if not self.outcomes:
            return
        numbers = sorted(self.outcomes)
        about = {"settings": _identity(self.settings)} | {
            name: {str(i): table[i] for i in numbers if i in table}
            for name, table in (("outcomes", self.outcomes), ("smiles", self.smiles), ("why", self.why))
        }
        write_shard([row for i in numbers for row in self.rows.get(i, ())], self.path, about)


def _identity(settings: SynthesizeSettings) -> dict[str, Any]:
    """What must be the same for shards to belong together."""
    return settings.model_dump(mode="json", exclude={"workers", "shard"})


def _finished(
    folder: Path,
    molecules: Sequence[Given],
    settings: SynthesizeSettings,
    excluded: frozenset[str],
    resume: bool,
) -> tuple[dict[int, str], int]:
    """Outcomes of earlier runs by number, and how many crystals they made."""
    files = shards(folder)
    if files and not resume:
        raise InputError(
            f"expected an empty folder, got {folder} with {len(files)} shards; --resume goes on with them"
        )
    done: dict[int, str] = {}
    crystals = 0
    for path in files:
        about = about_shard(path)
        if about.get("settings") != _identity(settings):
            raise InputError(
                f"expected shards made with the same settings, got {path}; choose another folder with -o"
            )
        _refuse_others(path, about.get("smiles", {}), molecules)
        done |= {int(i): outcome for i, outcome in about["outcomes"].items() if int(i) < len(molecules)}
        crystals += pyarrow.parquet.read_metadata(path).num_rows
    if files and (held := excluded & {part for key in read_keys(folder) for part in key.split(".")}):
        raise InputError(
            f"expected no crystals of excluded molecules, got some of {min(held)} in {folder}; choose another with -o"
        )
    return done, crystals


def _refuse_others(path: Path, before: Mapping[str, str], molecules: Sequence[Given]) -> None:
    """Numbers mean the same molecules only as long as the list is the same, or has grown at its end."""
    for i, smiles in before.items():
        if int(i) < len(molecules) and molecules[int(i)] != smiles:
            raise InputError(
                f"expected the molecules that {path} was made of, got {molecules[int(i)]} as number {i} instead of "
                f"{smiles}; give the same list, -n and --seed, or choose another folder with -o"
            )
