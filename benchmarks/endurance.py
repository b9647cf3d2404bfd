"""What happens to long commands when they are killed: nothing is lost, and the files are those of a run left alone.

    python benchmarks/endurance.py                       # all commands, killed in three ways
    python benchmarks/endurance.py --only predict --trials 5 --kills 8
    python benchmarks/endurance.py --disk                # on a disk that fills up instead (Linux, root)
    python benchmarks/endurance.py --threads             # 1, 2 and 4 threads and workers instead

Each command runs once undisturbed. Then, `--trials` times in each way, it is started, killed with SIGKILL after a
random part of that time, and started again with --resume, until it has been killed `--kills` times and may finish:

    group    the program and all it started
    parent   the program alone; its workers have to notice and end
    worker   one of its workers; the program has to go on, or to say so and end

The files of the folder are then compared with those of the undisturbed run: the same names (nothing half-written, no
locks), tables row by row, tensors bit by bit, JSON without its times. Printed for each command and way: kills, starts,
processes that outlived their parent by 20 s, hangs, and files that differ.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
CIFS = ROOT / "tests" / "data"
MOLECULES = "NC=O formamide\nNC(N)=O urea\nCC(=O)O acetic\nCO methanol\nCC#N acetonitrile\nOCCO glycol\n"
HELD_OUT = "CC(C)=O acetone\n"  # in the split that is validated on
WAYS = ("group", "parent", "worker")
PATIENCE, HANG = 20.0, 300.0  # s, for orphans to end, and for a program to do so
# what may differ between two runs of the same thing, by name
VOLATILE = {
    "started", "timings", "wall_seconds", "cpu_seconds", "search_cpu_seconds", "sampling_seconds", "seconds", "command",
    "threads",
}  # fmt: skip
TRAINING = """
[training]
steps = {steps}
warm_up = 5
log_every = 5
validate_every = {every}
checkpoint_minutes = 0.01
tensorboard = false

[model]
{model}
"""
SMALL_NETWORKS = {
    "crystalflow": "width = 16\nlayers = 1\npair_width = 8",
    "molcrystalflow": "width = 16\nlayers = 1\nbatch = 4\nvalidate_on = 2\nsteps = 1",
    "crystallization": "width = 8\nlayers = 1\nbasis = 4\nbatch = 2\nvalidate_on = 2\nsteps = 2",
    "confgf": 'method = "flow"\nwidth = 16\nlayers = 1\npair_width = 8\nbatch = 4',
    "rigid_body_flow": "target = 200.0\nheld = 0.2\nbatch = 8",
}


@dataclass(frozen=True)
class Task:
    """A command; what it writes is `out` in the folder where it runs."""

    name: str
    arguments: tuple[str, ...]
    resumes: bool = True  # or writes the same files when it is run again

    def command(self, again: bool) -> list[str]:
        more = ["--resume"] if again and self.resumes else []
        return [sys.executable, "-m", "nucleate", *self.arguments, *more]


@dataclass
class Tally:
    """What became of the trials of one command and way."""

    kills: int = 0
    starts: int = 0
    orphans: int = 0
    hangs: int = 0
    different: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # by programs that ended badly without being killed


# ------------------------------------------------------------------ what is run


def tasks(inputs: Path) -> dict[str, Task]:
    """By name; `inputs` is where `make_inputs` put its files."""
    cifs = [str(CIFS / f"cod_{n}.cif") for n in (1100989, 7100858, 7210454)]
    listed = str(inputs / "list.smi")
    found = [
        Task("predict", ("predict", "NC(N)=O", "--name", "urea", "-n", "400", "--space-groups", "14,2", "--workers",
                         "2", "--energy", "forcefield", "-o", "out")),
        Task("predict a list", ("predict", str(inputs / "two.smi"), "-n", "100", "--space-groups", "14", "--workers",
                                "2", "--energy", "forcefield", "-o", "out")),
        Task("generate", ("generate", "c1ccccc1", "-n", "150", "--space-groups", "14,61", "-o", "out"), resumes=False),
        Task("generate crystalflow", ("generate", "crystalflow", "--formula", "NaCl", "--formula-units", "2", "-n",
                                      "20", "--steps", "20", "-o", "out")),
        Task("conform", ("conform", "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O", "-n", "10", "-o", "out"), resumes=False),
        Task("crystallize", ("crystallize", "NC(N)=O", "-n", "6", "--steps", "4", "-o", "out")),
        Task("data synthesize", ("data", "synthesize", listed, "--starts", "60", "--workers", "2", "-o", "out")),
        Task("data import", ("data", "import", str(CIFS), "--workers", "2", "-o", "out")),
        Task("data conformers", ("data", "conformers", listed, "--workers", "2", "-o", "out")),
        Task("evaluate", ("evaluate", str(inputs / "packings"), "--reference", cifs[1], "--controls", "20", "-o",
                          "out/table.parquet")),
        Task("deduplicate", ("deduplicate", str(inputs / "packings"), "--workers", "2", "-o", "out"), resumes=False),
        Task("relax", ("relax", *cifs, "-o", "out"), resumes=False),
        Task("free-energy", ("free-energy", "ice-xi", "--sampler", "own", "--method", "harmonic", "--frames", "160",
                             "--t-target", "200", "-o", "out")),
    ]  # fmt: skip
    found += [
        Task(f"train {name}", ("train", name, "--data", str(inputs / data), "--settings",
                               str(inputs / f"{name}.toml"), "-o", "out", "--threads", "1"))
        for name, data in (
            ("crystalflow", "inorganic.csv"), ("molcrystalflow", "crystals"), ("crystallization", "clusters"),
            ("confgf", "conformers"), ("rigid_body_flow", "ice/frames/250.000K.safetensors"),
        )
    ]  # fmt: skip
    return {task.name: task for task in found}


def make_inputs(inputs: Path) -> None:
    """Small data for all commands, made by the program itself."""
    inputs.mkdir(parents=True, exist_ok=True)
    (inputs / "list.smi").write_text(MOLECULES)
    (inputs / "seven.smi").write_text(MOLECULES + HELD_OUT)
    (inputs / "two.smi").write_text("\n".join(MOLECULES.split("\n")[:2]) + "\n")
    more = str(inputs / "seven.smi")
    wanted = {
        "compiled": (
            "predict",
            "CO",
            "-n",
            "24",
            "--space-groups",
            "14",
            "--workers",
            "1",
            "--energy",
            "forcefield",
        ),
        "packings": ("generate", "NC(N)=O", "-n", "40", "--space-groups", "14"),
        "crystals": ("data", "synthesize", more, "--starts", "60", "--workers", "2"),
        "conformers": ("data", "conformers", more, "--workers", "2"),
        "clusters": ("data", "clusters", str(inputs / "crystals")),
        "ice": ("free-energy", "ice-xi", "--sampler", "own", "--method", "fep", "--frames", "100"),
    }
    for name, arguments in wanted.items():
        if not (inputs / name).exists():
            run_once([sys.executable, "-m", "nucleate", *arguments, "-o", str(inputs / name)], inputs)
    for name, model in SMALL_NETWORKS.items():
        steps = 40 if name == "rigid_body_flow" else 200
        (inputs / f"{name}.toml").write_text(TRAINING.format(steps=steps, every=steps // 4, model=model))
    write_salts(inputs / "inorganic.csv")


def write_salts(path: Path) -> None:
    """A table of simple salts, some of them strained."""
    from ase.build import bulk
    from ase.io import write

    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["material_id", "cif"])
        for k, (salt, length) in enumerate(
            (("NaCl", 5.64), ("KCl", 6.29), ("LiF", 4.03), ("MgO", 4.21), ("CaO", 4.81), ("NaF", 4.63))
        ):
            for strain in (0.98, 1.0, 1.02):
                text = io.BytesIO()
                write(text, bulk(salt, "rocksalt", strain * length), format="cif")
                table.writerow([f"{k}-{strain}", text.getvalue().decode()])


def run_once(command: list[str], where: Path, **environment: str) -> float:
    """Undisturbed, and it must succeed; wall seconds."""
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=where, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return time.monotonic() - began


# ------------------------------------------------------------------ killing


def trial(
    task: Task, where: Path, way: str, kills: int, usual: float, chance: random.Random, tally: Tally
) -> float:
    """Kill it at random and start it again until it has finished; how long its last start took (s)."""
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    again, left = False, kills
    while True:
        mark, began = uuid.uuid4().hex, time.monotonic()
        tally.starts += 1
        with (where.parent / "said").open("w+") as said:
            process = subprocess.Popen(
                task.command(again), cwd=where, env={**os.environ, "ENDURANCE": mark}, stdout=subprocess.DEVNULL,
                stderr=said, start_new_session=True,
            )  # fmt: skip
            killed = left > 0 and struck(process, mark, way, chance.uniform(0.15, 0.95) * usual, chance)
            tally.kills += killed
            left -= killed
            try:
                code = process.wait(HANG)
            except subprocess.TimeoutExpired:
                tally.hangs += 1
                process.kill()
                code = process.wait()
            tally.orphans += len(orphans(mark))
            said.seek(0)
            words = said.read().strip()
        if code == 0:
            return time.monotonic() - began
        if "leave --resume out" in words.lower():  # killed before it began to write
            again = False
            continue
        if code > 0:
            tally.said.append(words[-300:])
        if code == 2:
            return usual  # it will not go on; the files tell
        again = True


def struck(
    process: "subprocess.Popen[bytes]", mark: str, way: str, delay: float, chance: random.Random
) -> bool:
    """Kill after the delay; false where the program was done before, or had no worker to kill."""
    try:
        process.wait(delay)
        return False
    except subprocess.TimeoutExpired:
        pass
    others = [pid for pid in marked(mark) if pid != process.pid]
    chosen = {"group": [process.pid, *others], "parent": [process.pid], "worker": others}[way]
    if way == "worker":
        chosen = [chance.choice(others)] if others else []
    for pid in chosen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return bool(chosen)


def marked(mark: str) -> Iterator[int]:
    """Processes that still run and were started by one start of the program, by what is in their environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"ENDURANCE={mark}".encode() in (entry / "environ").read_bytes() and not is_dead(entry):
                yield int(entry.name)
        except OSError:
            continue


def is_dead(entry: Path) -> bool:
    return (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"


def orphans(mark: str) -> list[int]:
    """Processes that are still there after `PATIENCE`; they are then ended."""
    deadline = time.monotonic() + PATIENCE
    while (left := list(marked(mark))) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


# ------------------------------------------------------------------ comparing


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a folder by name, as what must be the same in another run; shards of a data set count as one."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".parquet" and path.stem.isdigit():
            name = str(path.parent.relative_to(folder) / "*.parquet")
            found[name] = sorted([*found.get(name, []), *plain(path)], key=repr)
        else:
            found[name] = plain(path)
    return found


def plain(path: Path) -> Any:
    """A file without what tells one run from another."""
    if path.suffix == ".parquet":
        return [without_times(row) for row in pyarrow.parquet.read_table(path).to_pylist()]
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    if path.suffix == ".safetensors":
        return {name: digest(tensor) for name, tensor in load_file(path).items()}
    if path.suffix == ".csv":
        return [without_times(row) for row in csv.DictReader(io.StringIO(path.read_text()))]
    if path.suffix == ".html":
        return "a report"  # of the files beside it, with their times
    return without_command(path.read_text())


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [without_times(inner) for inner in value]
    return without_command(value) if isinstance(value, str) else value


def without_command(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if "--resume" not in line and "nucleate " not in line)


def digest(tensor: torch.Tensor) -> str:
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(data).hexdigest()}"


def differences(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Files that are in one folder only or differ."""
    return [
        name for name in sorted({*one, *two}) if name not in one or name not in two or one[name] != two[name]
    ]


def endure(task: Task, work: Path, trials: int, kills: int, ways: tuple[str, ...], seed: int) -> None:
    whole = work / task.name.replace(" ", "-")
    shutil.rmtree(whole, ignore_errors=True)
    (whole / "whole").mkdir(parents=True)
    usual = run_once(task.command(False), whole / "whole")
    expected = contents(whole / "whole" / "out")
    for way in ways:
        if way == "worker" and "--workers" not in task.arguments:
            continue
        tally, chance = Tally(), random.Random(f"{seed} {task.name} {way}")
        for number in range(trials):
            where = whole / f"{way}-{number}"
            before = tally.kills
            for _ in range(4):  # where it ended before it was struck it is faster than we thought
                took = trial(task, where, way, kills, usual, chance, tally)
                if tally.kills > before:
                    break
                usual = min(usual, took)
            tally.different += [f"{where.name}/{n}" for n in differences(expected, contents(where / "out"))]
        print(
            f"{task.name:22s} {way:7s} {trials:3d} trials {tally.kills:3d} kills {tally.starts:3d} starts "
            f"{tally.orphans:2d} orphans {tally.hangs:2d} hangs {len(tally.different):3d} of {trials * len(expected)} "
            f"files differ; undisturbed {usual:.0f} s",
            flush=True,
        )
        for text in dict.fromkeys([*tally.different[:8], *tally.said]):
            print(f"    {text}", flush=True)


# ------------------------------------------------------------------ full disks


def fill_up(task: Task, work: Path) -> None:
    """On a disk of 0.6 times the room that is needed; then, with more room, to the end; then on one to be read only."""
    whole = work / task.name.replace(" ", "-") / "whole"
    if not (whole / "out").exists():
        whole.mkdir(parents=True, exist_ok=True)
        run_once(task.command(False), whole)
    expected, disk = contents(whole / "out"), work / "disk"
    disk.mkdir(exist_ok=True)
    needed = sum(4096 * -(-path.stat().st_size // 4096) for path in whole.rglob("*") if path.is_file())
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={max(8192, int(0.6 * needed))}", "tmpfs", disk], check=True
    )
    try:
        full = subprocess.run(task.command(False), cwd=disk, capture_output=True, text=True)
        left = [path.name for path in disk.rglob(".*") if path.is_file()]
        subprocess.run(["mount", "-o", f"remount,size={4 * needed + 2**20}", disk], check=True)
        after = subprocess.run(task.command(True), cwd=disk, capture_output=True, text=True)
        different = differences(expected, contents(disk / "out"))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        barred = subprocess.run(task.command(True), cwd=disk, capture_output=True, text=True)
    finally:
        subprocess.run(["umount", disk], check=True)
    print(
        f"{task.name:22s} full: exit code {full.returncode}, {len(full.stderr.splitlines())} line, {len(left)} hidden "
        f"files left; with room again: exit code {after.returncode}, {len(different)} of {len(expected)} files differ; "
        f"read-only: exit code {barred.returncode}, {len(barred.stderr.splitlines())} line",
        flush=True,
    )
    for text in (full.stderr[-400:], *left, after.stderr[-300:], *different[:5], barred.stderr[-300:]):
        if text:
            print(f"    {text.strip()}", flush=True)


# ------------------------------------------------------------------ threads and workers

NUMBERS = (1, 2, 4)
THREADED = (
    "predict", "generate", "conform", "generate crystalflow", "crystallize", "data synthesize", "data conformers",
    "deduplicate", "evaluate", "free-energy", "train crystalflow", "train molcrystalflow", "train crystallization",
    "train confgf", "train rigid_body_flow",
)  # fmt: skip


def with_number(task: Task, option: str, number: int) -> Task:
    """The same with `--workers` or `--threads` of its own."""
    at = task.arguments.index(option) + 1
    return Task(task.name, (*task.arguments[:at], str(number), *task.arguments[at + 1 :]), task.resumes)


def compare_threads(task: Task, work: Path) -> None:
    """One thread and worker against others: files that differ, and by how much their numbers do at most."""
    option = next((o for o in ("--workers", "--threads") if o in task.arguments), None)
    cases = [("threads", n, task if option != "--threads" else with_number(task, option, n)) for n in NUMBERS]
    if option == "--workers":
        cases = [(kind, n, with_number(some, option, 1)) for kind, n, some in cases]
        cases += [("workers", n, with_number(task, option, n)) for n in NUMBERS[1:]]
    first = work / f"{task.name.replace(' ', '-')}-threads-1"
    for kind, number, some in cases:
        where = work / f"{task.name.replace(' ', '-')}-{kind}-{number}"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        took = run_once(some.command(False), where, OMP_NUM_THREADS=str(number if kind == "threads" else 1))
        one, two = contents(first / "out"), contents(where / "out")
        gaps = {name: gap(first / "out" / name, where / "out" / name) for name in differences(one, two)}
        worst = max(gaps.values(), default=0.0)
        said = ", ".join(f"{name} {value:.1e}" for name, value in list(gaps.items())[:4])
        print(
            f"{task.name:22s} {number} {kind}: {len(gaps)} of {len(one)} files differ, numbers by {worst:.1e} at most "
            f"({took:.0f} s){': ' if said else ''}{said}",
            flush=True,
        )


def gap(one: Path, two: Path) -> float:
    """The largest difference of numbers over the largest of their tensor or column; infinite for others."""
    if not (one.exists() and two.exists()):
        return float("inf")
    if one.suffix == ".safetensors":
        a, b = load_file(one), load_file(two)
        if any(name not in b or a[name].shape != b[name].shape for name in a):
            return float("inf")
        return max(relative(a[name].double().flatten(), b[name].double().flatten()) for name in a)
    a, b = columns(plain(one)), columns(plain(two))
    if a.keys() != b.keys() or any(len(a[k]) != len(b[k]) for k in a):
        return float("inf")
    return max((relative(torch.tensor(a[k]), torch.tensor(b[k])) for k in a), default=0.0)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    if not len(a):
        return 0.0
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))


def columns(value: Any, name: str = "") -> dict[str, list[float]]:
    """All numbers in a table, a record or a text, under the names of their columns."""
    found: dict[str, list[float]] = {}
    if isinstance(value, str):
        for line in value.split("\n"):
            for k, word in enumerate(line.split()):
                try:
                    found.setdefault(f"{name} {k}", []).append(float(word))
                except ValueError:
                    continue
        return found
    if isinstance(value, bool) or value is None:
        return found
    if isinstance(value, int | float):
        return {name: [float(value)]}
    parts = value.items() if isinstance(value, dict) else [(name, inner) for inner in value]
    for key, inner in parts:
        for inner_name, numbers in columns(
            inner, f"{name}/{key}" if isinstance(value, dict) else name
        ).items():
            found.setdefault(inner_name, []).extend(numbers)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", help="a command by its name here, repeatable")
    parser.add_argument("--trials", type=int, default=2, help="of each command and way")
    parser.add_argument("--kills", type=int, default=3, help="in each trial")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--disk", action="store_true", help="fill a small disk (tmpfs) instead")
    parser.add_argument("--threads", action="store_true", help="compare 1, 2 and 4 threads and workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "nucleate-endurance")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    make_inputs(given.work / "inputs")
    known = tasks(given.work / "inputs")
    for name in given.only or (THREADED if given.threads else known):
        if given.threads:
            compare_threads(known[name], given.work)
            continue
        if given.disk:
            fill_up(known[name], given.work)
            continue
        endure(known[name], given.work, given.trials, given.kills, tuple(given.ways.split(",")), given.seed)


if __name__ == "__main__":
    main()
