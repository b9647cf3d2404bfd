"""Every command on the worst files: exit code 1 or 2 and one line, or 0 where the file is a counted failure.

command x worst files of its format --a process--> code, output, complaints --`quarrel`--> nothing,
or what is wrong
"""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.hardening.mutations import hostile
from tests.hardening.readers import READERS, good_file

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["tests.hardening.readers", "nucleate.cli.program", "nucleate.pipeline.predict", "nucleate.pipeline.free_energy",
     "nucleate.pipeline.crystallize", "nucleate.pipeline.generate_inorganic"]
)  # fmt: skip
LIMIT = 180  # s for one process
QUICK = ("-n", "4", "--workers", "1", "--energy", "forcefield", "--space-groups", "14")
OF_CIF = (
    "nothing", "noise", "blanks", "other_encoding", "truncated", "cell_lengths", "operations", "elements",
    "atoms_in_one_place",
    "hydrogens_lost", "occupancies", "many_operations", "huge_cell",
)  # fmt: skip
OF_TEXT = (
    "nothing",
    "noise",
    "blanks",
    "other_encoding",
    "truncated",
    "numbers_replaced",
    "words_replaced",
    "zeros_between",
    "packed",
)
OF_TABLE = (
    "nothing",
    "noise",
    "truncated",
    "flipped",
    "columns_retyped",
    "columns_lost",
    "cells_replaced",
    "rows_lost",
)
OF_TENSORS = (
    "nothing",
    "noise",
    "truncated",
    "header_length",
    "header_changed",
    "shapes_changed",
    "said_changed",
    "tensors_lost",
)
SPECIAL = ("missing", "folder", "loop", "pipe")


@dataclass(frozen=True)
class Command:
    """`arguments` of the path of a file that `reader` of `READERS` would read."""

    name: str
    reader: str
    mutations: tuple[str, ...]
    arguments: Callable[[Path], Sequence[str | Path]]


COMMANDS: tuple[Command, ...] = (
    Command("predict CIF", "CIF", OF_CIF, lambda p: ["predict", p, *QUICK]),
    Command("predict SDF", "SDF", OF_TEXT, lambda p: ["predict", p, *QUICK]),
    Command("predict XYZ", "XYZ", (*OF_TEXT, "counts"), lambda p: ["predict", p, *QUICK]),
    Command("predict list", "list .csv", OF_TEXT, lambda p: ["predict", p, *QUICK]),
    Command("predict --reference", "CIF", OF_CIF[:6], lambda p: ["predict", "NC(N)=O", "--reference", p, *QUICK]),
    Command("predict --weights", "weights", OF_TENSORS, lambda p: ["predict", "NC(N)=O", "--weights", p,
    "--generator", "molcrystalflow", *QUICK]),
    Command("conform", "SDF", OF_TEXT, lambda p: ["conform", p, "-n", "2"]),
    Command("generate", "CIF", OF_CIF[:8], lambda p: ["generate", p, "-n", "1", "--space-groups", "14"]),
    Command("generate --formula-list", "list of formulas", OF_TEXT, lambda p: ["generate", "crystalflow",
    "--formula-list", p, "-n", "1", "--steps", "1"]),
    Command("generate --weights", "weights", OF_TENSORS[:4], lambda p: ["generate", "crystalflow", "--formula",
    "TiO2", "--weights", p]),
    Command("relax", "CIF", OF_CIF, lambda p: ["relax", p, "-o", "relaxed"]),
    Command("rank", "CIF", OF_CIF, lambda p: ["rank", p]),
    Command("deduplicate", "CIF", OF_CIF, lambda p: ["deduplicate", p, "--workers", "1"]),
    Command("match", "CIF", OF_CIF, lambda p: ["match", p, p]),
    Command("evaluate", "CIF", OF_CIF[:6], lambda p: ["evaluate", p, "--reference", p]),
    Command("evaluate, parquet", "crystals.parquet", OF_TABLE, lambda p: ["evaluate", p, "--reference", p]),
    Command("evaluate --inorganic", "table of crystals", OF_TABLE, lambda p: ["evaluate", p, "--reference", p,
    "--inorganic"]),
    Command("crystallize", "XYZ of a cluster", (*OF_TEXT, "counts"), lambda p: ["crystallize", p, "-n", "1",
    "--no-cell"]),
    Command("crystallize, CIF", "CIF", OF_CIF[:6], lambda p: ["crystallize", p, "-n", "1", "--no-cell"]),
    Command("report", "report, crystals.parquet", OF_TABLE, lambda p: ["report", p.parent]),
    Command("report, run.json", "report, run.json", (*OF_TEXT[:5], "values", "nested"), lambda p: ["report",
    p.parent]),
    Command("train --settings", "settings", (*OF_TEXT[:6], "tables"), lambda p: ["train", "molcrystalflow",
    "--data", p.parent, "--settings", p]),
    Command("train --data", "data set of crystals", OF_TABLE, lambda p: ["train", "molcrystalflow", "--data",
    p.parent]),
    Command("train --from", "weights", OF_TENSORS[:5], lambda p: ["train", "molcrystalflow", "--data", p.parent,
    "--from", p]),
    Command("data import", "CIF", OF_CIF[:8], lambda p: ["data", "import", p, "--workers", "1", "-o", "imported"]),
    Command("data synthesize", "list .csv", OF_TEXT[:6], lambda p: ["data", "synthesize", p, "-n", "1", "--starts",
    "2", "--workers", "1", "-o", "made"]),
    Command("data clusters", "CIF", OF_CIF[:5], lambda p: ["data", "clusters", p, "-o", "made"]),
    Command("data conformers, SDF", "SDF of conformers", OF_TEXT, lambda p: ["data", "conformers", p, "-o", "made"]),
    Command("data conformers, pickle", "pickle of conformers", ("nothing", "noise", "truncated", "pickled",
    "pickle_sizes"), lambda p: ["data", "conformers", p, "-o", "made"]),
    Command("data statistics", "data set of crystals", OF_TABLE, lambda p: ["data", "statistics", p.parent]),
    Command("free-energy", "CIF", OF_CIF, lambda p: ["free-energy", p, "--method", "harmonic", "--frames", "4",
    "--sampler", "own"]),
    Command("free-energy --weights", "weights", OF_TENSORS[:4], lambda p: ["free-energy", "ice-xi", "--weights", p,
    "--frames", "4", "--sampler", "own"]),
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int | None  # None: it was late
    output: str
    complaints: str
    seconds: float = 0.0


def quarrel(ended: Ended) -> str:
    """What is wrong with the way a command ended; nothing where nothing is."""
    if ended.code is None:
        return f"not done after {LIMIT} s"
    for text in (ended.output, ended.complaints):
        if "Traceback" in text:
            return f"traceback: {text.strip().splitlines()[-1][:200]}"
    if ended.code not in (0, 1, 2):
        return f"exit code {ended.code}"
    lines = [
        line for line in ended.complaints.splitlines() if line.strip() and not line.startswith("warning:")
    ]
    if ended.code and len(lines) != 1:
        # a table of failures says it all
        return (
            "" if not lines and ended.output.strip() else f"{len(lines)} lines: {' / '.join(lines)[:300]!r}"
        )
    return f"complaints of a success: {lines[0][:200]}" if lines and not ended.code else ""


def bad_file(command: Command, mutation: str, cif: Path, folder: Path, seed: int = 1) -> Path:
    """The file, with its neighbours, in a folder of its own."""
    reader = READERS[command.reader]
    good = good_file(reader.good, cif)
    if mutation not in SPECIAL:
        return reader.write(hostile(good, reader.kind, seed, mutation)[1], cif, folder)
    path = reader.write(good, cif, folder)
    path.unlink()
    if mutation == "folder":
        path.mkdir()
    elif mutation == "loop":
        path.symlink_to(path.name)
    elif mutation == "pipe":
        os.mkfifo(path)
    return path


def run(arguments: Sequence[str | Path], folder: Path, limit: float = LIMIT) -> Ended:
    """The program as a process in a folder, forked from one that has imported everything."""
    began = time.monotonic()
    said = [folder / ".output", folder / ".complaints"]
    process = PROCESSES.Process(target=_program, args=(list(map(str, arguments)), folder, *said))
    process.start()
    process.join(limit)
    code = process.exitcode
    process.kill()
    process.join()
    texts = [path.read_text(errors="replace") if path.exists() else "" for path in said]
    return Ended(code, *texts, time.monotonic() - began)


def _program(arguments: list[str], folder: Path, output: Path, complaints: Path) -> None:
    os.chdir(folder)
    for number, path in ((0, Path(os.devnull)), (1, output), (2, complaints)):
        mode = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(path, mode), number)
    sys.argv = ["nucleate", *arguments]
    from nucleate.cli.program import main

    main()


def _cases() -> Iterator[tuple[Command, str]]:
    for command in COMMANDS:
        for mutation in (*command.mutations, *SPECIAL):
            yield command, mutation


def run_commands(cif: Path, workers: int, only: str = "") -> int:
    """All of it; prints a line for each command and what went wrong. Returns how many did."""

    def one(case: tuple[Command, str]) -> tuple[str, str, Ended]:
        command, mutation = case
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            path = bad_file(command, mutation, cif, folder / "bad")
            return command.name, mutation, run(command.arguments(path), folder)

    cases = [case for case in _cases() if only in case[0].name]
    with ThreadPoolExecutor(workers) as pool:
        ended = []
        for case, end in zip(cases, pool.map(one, cases)):
            print(f"{case[0].name}, {case[1]}: {end[2].code}", file=sys.stderr, flush=True)
            ended.append(end)
    print(
        f"{'command':28s} {'files':>6s} {'done':>6s} {'code 2':>6s} {'code 1':>6s} {'wrong':>6s}  slowest s"
    )
    for name in dict.fromkeys(name for name, _, _ in ended):
        own = [end for n, _, end in ended if n == name]
        counts = [sum(end.code == code for end in own) for code in (0, 2, 1)]
        wrong = sum(bool(quarrel(end)) for end in own)
        columns = " ".join(f"{n:6d}" for n in (len(own), *counts, wrong))
        print(f"{name:28s} {columns} {max(end.seconds for end in own):10.1f}")
    bad = [(name, mutation, quarrel(end)) for name, mutation, end in ended if quarrel(end)]
    for name, mutation, why in bad:
        print(f"\n{name}, {mutation}\n    {why}")
    return len(bad)
