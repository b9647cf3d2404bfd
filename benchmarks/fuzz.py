"""Hostile files for every reader: a result, or one line that says why not; never a traceback, a hang or a crash.

    python benchmarks/fuzz.py FOLDER_OF_CIF_FILES [-n 200] [--readers CIF,XYZ] [--seed 0] [--keep bad]
    python benchmarks/fuzz.py FOLDER_OF_CIF_FILES --commands

Good files of each format are made from the crystals of the folder, and mutated (`tests/hardening/mutations.py`); input
k of a reader is always the same. Each is read in a worker process within `--limit` seconds and `--memory` GB of
address space. The table says, by reader, how many were read, refused with a reason (InputError or NucleateError), too
late, and how many ended in any other exception, a message of several lines, or the death of the process; `--keep`
gets those files. With `--commands` every command is run on the worst files, as a process (`tests/hardening`).
"""

import argparse
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the tests' tables

from tests.hardening.mutations import hostile  # noqa: E402
from tests.hardening.readers import READERS, good_file  # noqa: E402

from nucleate.errors import InputError, NucleateError  # noqa: E402
from nucleate.processes import Worker, WorkerLost, share  # noqa: E402

GOOD = ("read", "refused")
BAD = ("late", "exception", "unclear", "crash")


# ---------------------------------------------------------------- in the worker


def start(opening: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """For `nucleate.far_end`: the first request has the folder and the limit of memory, every later one an input."""
    import torch

    torch.set_num_threads(1)
    memory = int(opening["memory"] * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    files = crystals(Path(opening["folder"]))
    return {}, lambda request: _try(files, request["reader"], request["seed"])


def _try(files: list[Path], name: str, seed: int) -> dict[str, Any]:
    reader = READERS[name]
    mutation, content, cif = made(files, name, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = reader.write(content, cif, Path(folder))
        outcome, why = judged(lambda: reader.read(path))
    return {"outcome": outcome, "why": why, "mutation": mutation}


def judged(read: Callable[[], object]) -> tuple[str, str]:
    """What became of it, and the reason."""
    try:
        read()
    except NucleateError as error:
        if "\n" in str(error) or not str(error).strip():
            return "unclear", f"{type(error).__name__}: {str(error)!r:.200}"
        return "refused", error.reason if isinstance(error, InputError) else type(error).__name__
    except Exception as error:  # noqa: BLE001  what we are looking for
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if "nucleate" in f.filename and "jaxtyping" not in f.filename]
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno} {own[-1].name}" if own else "?"
        return "exception", f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:120]}"
    return "read", ""


# ---------------------------------------------------------------- inputs


def crystals(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.cif"))
    if not found:
        raise SystemExit(f"expected CIF files in {folder}, found none")
    return found


def made(files: Sequence[Path], name: str, seed: int) -> tuple[str, bytes, Path]:
    """Input number `seed` of a reader: the mutation, the file, and the crystal that the good file was made of."""
    reader = READERS[name]
    for k in range(len(files)):
        cif = files[0 if reader.few else (37 * seed + k) % len(files)]
        try:
            good = good_file(reader.good, cif)
        except InputError:
            continue  # this crystal makes no such file: two kinds of molecules in no cluster of one
        return *hostile(good, reader.kind, seed), cif
    raise SystemExit(f"expected a crystal that makes a good file for {name}, found none")


# ---------------------------------------------------------------- the run


@dataclass
class Tally:
    """What became of the inputs of one reader."""

    outcomes: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    example: dict[str, tuple[int, str]] = field(default_factory=dict)  # why -> seed, mutation
    slowest: float = 0.0


def ask(worker: Worker, item: tuple[str, int], limit: float) -> dict[str, Any]:
    name, seed = item
    try:
        reply = worker.ask({"reader": name, "seed": seed}, limit)
    except WorkerLost as lost:
        reply = {
            "outcome": "late" if lost.late else "crash",
            "why": str(lost),
            "mutation": "?",
            "seconds": limit,
        }
    if "failure" in reply:
        reply |= {"outcome": "crash", "why": reply["failure"], "mutation": "?"}
    return reply | {"reader": name, "seed": seed}


def run(
    folder: Path, names: Sequence[str], n: int, first: int, limit: float, memory: float, workers: int
) -> dict[str, Tally]:
    opening = {"folder": str(folder), "memory": memory}
    crew = [
        Worker(Path(__file__), opening, lambda reply: SystemExit(reply["failure"])) for _ in range(workers)
    ]
    items = [(name, seed) for name in names for seed in range(first, first + n)]

    def stop() -> None:
        for worker in crew:
            worker.close()

    def tell(done: int, total: int) -> None:
        if done % 200 == 0:
            print(f"{done} of {total}", file=sys.stderr, flush=True)

    answers = share(crew, items, partial(ask, limit=limit), stop, tell)
    stop()
    tallies = {name: Tally() for name in names}
    for answer in answers:
        tally = tallies[answer["reader"]]
        tally.outcomes[answer["outcome"]] += 1
        tally.slowest = max(tally.slowest, answer["seconds"])
        if answer["outcome"] in BAD:
            tally.bad[answer["why"]] += 1
            tally.example.setdefault(answer["why"], (answer["seed"], answer["mutation"]))
    return tallies


def show(tallies: dict[str, Tally]) -> None:
    columns = (*GOOD, *BAD)
    print(f"{'reader':28s} {'inputs':>7s} " + " ".join(f"{c:>9s}" for c in columns) + "  slowest s")
    everything: Counter[str] = Counter()
    for name, tally in tallies.items():
        everything += tally.outcomes
        counts = " ".join(f"{tally.outcomes[c]:9d}" for c in columns)
        print(f"{name:28s} {tally.outcomes.total():7d} {counts} {tally.slowest:10.2f}")
    print(f"{'all':28s} {everything.total():7d} " + " ".join(f"{everything[c]:9d}" for c in columns))
    for name, tally in tallies.items():
        for why, count in tally.bad.most_common():
            seed, mutation = tally.example[why]
            print(f"\n{name}, {count} x (input {seed}, {mutation})\n    {why}")


def keep(tallies: dict[str, Tally], files: Sequence[Path], folder: Path) -> None:
    """One file for each way to fail."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tally in tallies.items():
        for seed, _ in tally.example.values():
            _, content, _ = made(files, name, seed)
            (
                folder / f"{name.replace(' ', '_').replace(',', '')}-{seed}-{Path(READERS[name].name).name}"
            ).write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="CIF files to make good files of")
    parser.add_argument("-n", type=int, default=200, help="inputs of each reader")
    parser.add_argument("--readers", default="", help="some of them, with semicolons: " + "; ".join(READERS))
    parser.add_argument("--seed", type=int, default=0, help="number of the first input")
    parser.add_argument("--limit", type=float, default=30.0, help="s for one input")
    parser.add_argument("--memory", type=float, default=6.0, help="GB of address space of a worker")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="folder for inputs that failed")
    parser.add_argument("--commands", action="store_true", help="run the commands instead of the readers")
    given = parser.parse_args()
    if given.commands:
        from tests.hardening.commands import run_commands

        cif = crystals(given.folder)[0]
        raise SystemExit(min(1, run_commands(cif, given.workers, given.readers)))
    names = [name.strip() for name in given.readers.split(";") if name.strip()] or list(READERS)
    began = time.monotonic()
    tallies = run(given.folder, names, given.n, given.seed, given.limit, given.memory, given.workers)
    show(tallies)
    if given.keep is not None:
        keep(tallies, crystals(given.folder), given.keep)
    print(f"\n{time.monotonic() - began:.0f} s")
    raise SystemExit(int(any(tally.bad for tally in tallies.values())))


if __name__ == "__main__":
    main()
