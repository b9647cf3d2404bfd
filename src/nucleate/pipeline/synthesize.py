"""The data factory: molecules -> conformers -> the classical search -> their low-energy crystals, in shards.

Real crystals that may be redistributed are few; the minima of the force field are many, and a generator that knows
them knows how molecules pack. Every molecule is one job; jobs run in processes of their own. A shard is written
after every `shard` molecules with the outcome of each, so an interruption loses at most those under way.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt

from nucleate.data.packed import PackedCrystal, about_shard, shards, to_row, write_shard
from nucleate.errors import InputError, NucleateError
from nucleate.metrics.heavy_molecules import molecule_key
from nucleate.physics.minimise import CLASH
from nucleate.physics.parameters import KJ_PER_MOL
from nucleate.pipeline.composition import read_subject
from nucleate.pipeline.conform import ConformSettings
from nucleate.pipeline.folders import make_folder
from nucleate.pipeline.generate import arms
from nucleate.pipeline.search import SearchResult, search
from nucleate.pipeline.units import SearchSettings

Job = tuple[int, str]  # number and SMILES


class SynthesizeSettings(BaseModel, frozen=True, extra="forbid"):
    """How each molecule is searched and what is kept of it."""

    starts: PositiveInt = 1500
    keep: PositiveInt = 12  # crystals of one molecule at most
    window: PositiveFloat = 12.0  # kJ/mol per formula unit above the lowest
    conformers: PositiveInt = 2
    enantiopure: float = Field(0.2, ge=0, le=1)  # share of molecules searched as one hand
    two_independent: float = Field(0.1, ge=0, le=1)  # share searched with Z' = 2 as well
    largest: PositiveInt = 60  # atoms of a molecule
    time_limit: PositiveFloat = 120.0  # s for one molecule
    shard: PositiveInt = 50  # molecules
    seed: NonNegativeInt = 0
    workers: PositiveInt = 1


@dataclass(frozen=True)
class Synthesized:
    """What became of the molecules asked for; `outcomes` counts "done" and the reasons of the others."""

    folder: Path
    asked: int
    outcomes: Counter[str]
    crystals: int
    interrupted: bool


def synthesize(
    molecules: Sequence[str],
    folder: Path,
    settings: SynthesizeSettings,
    exclude: Iterable[str] = (),
    resume: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Synthesized:
    """Search every SMILES and write the shards of a data set to `folder`.

    Molecules with a key in `exclude` (`molecule_key`) are left out and counted. Raises InputError where the folder
    already holds a data set and `resume` is not set, or one made with other settings.
    """
    make_folder(folder)
    done, crystals = _finished(folder, settings, resume)
    todo = [(i, smiles) for i, smiles in enumerate(molecules) if i not in done]
    outcomes = Counter(done.values())
    shard = _Shard(folder, settings, len(shards(folder)))
    excluded = frozenset(exclude)
    interrupted = False
    tell = progress or (lambda *_: None)
    tell(len(done), len(molecules), f"{crystals} crystals")
    try:
        for number, outcome, rows in _run(todo, settings, excluded):
            outcomes[outcome] += 1
            crystals += len(rows)
            shard.add(number, outcome, rows)
            tell(sum(outcomes.values()), len(molecules), f"{crystals} crystals")
    except KeyboardInterrupt:
        interrupted = True
    shard.flush()
    return Synthesized(folder, len(molecules), outcomes, crystals, interrupted)


def crystals_of(
    smiles: str, number: int, settings: SynthesizeSettings, excluded: frozenset[str]
) -> list[PackedCrystal]:
    """The low-energy crystals of one molecule. Raises NucleateError with the reason why there are none."""
    rng = np.random.default_rng([settings.seed, number])
    subject = read_subject(smiles, ConformSettings(keep=settings.conformers, time_limit=30.0), settings.seed)
    composition = replace(subject.composition, enantiopure=bool(rng.random() < settings.enantiopure))
    size = sum(len(m) * n for m, n in zip(composition.species, composition.counts))
    if size > settings.largest:
        raise InputError(f"expected at most {settings.largest} atoms, got {size}", reason="too large")
    if any(molecule_key(m) in excluded for m in composition.species):
        raise InputError("this molecule is excluded", reason="excluded")
    z_prime = [1.0, 2.0] if rng.random() < settings.two_independent else None
    wanted = arms(composition, z_prime=z_prime)
    found = search(
        composition,
        wanted,
        SearchSettings(n=settings.starts, seed=settings.seed + number, workers=1),
        deadline=time.monotonic() + settings.time_limit,
    )
    return list(_lowest(found, number, settings))


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
) -> Iterable[tuple[int, str, list[dict[str, Any]]]]:
    """Outcomes as they come, in order of completion."""
    if settings.workers == 1:
        for job in jobs:
            yield _work(job, settings, excluded)
        return
    queue = iter(jobs)
    pool = ProcessPoolExecutor(settings.workers, get_context("spawn"), torch.set_num_threads, (1,))
    try:
        running = {
            pool.submit(_work, job, settings, excluded) for job, _ in zip(queue, range(2 * settings.workers))
        }
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
                running |= {pool.submit(_work, job, settings, excluded) for job, _ in zip(queue, range(1))}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _work(
    job: Job, settings: SynthesizeSettings, excluded: frozenset[str]
) -> tuple[int, str, list[dict[str, Any]]]:
    """One molecule; what goes wrong with it is its outcome."""
    number, smiles = job
    try:
        crystals = crystals_of(smiles, number, settings, excluded)
        return number, "done" if crystals else "no sound minimum", [to_row(c) for c in crystals]
    except NucleateError as error:
        return number, getattr(error, "reason", "") or type(error).__name__, []


class _Shard:
    """Rows and outcomes that wait for their file."""

    def __init__(self, folder: Path, settings: SynthesizeSettings, first: int) -> None:
        self.folder, self.settings, self.number = folder, settings, first
        self.rows: list[dict[str, Any]] = []
        self.outcomes: dict[str, str] = {}

    def add(self, number: int, outcome: str, rows: list[dict[str, Any]]) -> None:
        self.outcomes[str(number)] = outcome
        self.rows += rows
        if len(self.outcomes) == self.settings.shard:
            self.flush()

    def flush(self) -> None:
        if not self.outcomes:
            return
        about = {"settings": _identity(self.settings), "outcomes": self.outcomes}
        write_shard(self.rows, self.folder / f"{self.number:05d}.parquet", about)
        self.number, self.rows, self.outcomes = self.number + 1, [], {}


def _identity(settings: SynthesizeSettings) -> dict[str, Any]:
    """What must be the same for shards to belong together."""
    return settings.model_dump(mode="json", exclude={"workers", "shard"})


def _finished(folder: Path, settings: SynthesizeSettings, resume: bool) -> tuple[dict[int, str], int]:
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
        if about["settings"] != _identity(settings):
            raise InputError(
                f"expected shards made with the same settings in {folder}; choose another folder with -o"
            )
        done |= {int(number): outcome for number, outcome in about["outcomes"].items()}
        crystals += pyarrow.parquet.read_metadata(path).num_rows
    return done, crystals
