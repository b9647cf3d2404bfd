"""One run at a time in a place: who holds it, what a killed run leaves, and that every command keeps to it."""

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from nucleate.errors import InputError
from nucleate.files import SUFFIX, scratch_folder, sweep, write_atomically
from nucleate.pipeline.claims import claim_again
from nucleate.pipeline.folders import LOCK, hold_file, hold_folder
from tests.pipeline.conftest import DATA

CIF = str(DATA / "cod_7100858.cif")
HOLDER = """
import sys, time
from pathlib import Path
from nucleate.files import write_atomically
from nucleate.pipeline.folders import hold_folder
with hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_held_folder_says_who_holds_it(tmp_path: Path) -> None:
    with hold_folder(tmp_path):
        about = json.loads((tmp_path / LOCK).read_text())
        assert (about["process"], about["machine"]) == (os.getpid(), platform.node())
        with pytest.raises(InputError) as refused, hold_folder(tmp_path):
            pass
    said = str(refused.value)
    assert f"process {os.getpid()} on {platform.node()}, since {about['since']}" in said
    assert "wait for it, end it, or choose another place with -o" in said
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
    with hold_folder(tmp_path), hold_folder(tmp_path.parent):  # a folder and the one around it are two places
        pass


def test_a_file_is_held_apart_from_its_neighbours(tmp_path: Path) -> None:
    one, other = tmp_path / "täble [1].parquet", tmp_path / "other.parquet"
    with hold_file(one), hold_file(other), pytest.raises(InputError, match="another run"), hold_file(one):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
def test_the_lock_of_a_killed_run_keeps_nobody_out(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(InputError, match=f"process {holder.pid} on "), hold_folder(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    assert json.loads((tmp_path / LOCK).read_text())["process"] == holder.pid
    with hold_folder(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


def test_never_two_at_once_however_often_they_try(tmp_path: Path) -> None:
    """Locks are removed and made again all the time, which must not let two in."""
    inside, worst, entered = 0, 0, 0
    count = threading.Lock()

    def try_often() -> None:
        nonlocal inside, worst, entered
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            try:
                with hold_folder(tmp_path):
                    with count:
                        inside, entered = inside + 1, entered + 1
                        worst = max(worst, inside)
                    time.sleep(0)
                    with count:
                        inside -= 1
            except InputError:
                continue

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1
    assert entered > 10


def test_what_killed_runs_left_half_written_is_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    inner, theirs = tmp_path / "cif", tmp_path / "theirs"
    for folder in (tmp_path, inner, theirs):
        folder.mkdir(exist_ok=True)
        for name in (
            f".1.cif.{gone.pid}.abc{SUFFIX}",
            f".1.cif.{os.getpid()}.abc{SUFFIX}",
            ".mine.part",
            "1.cif",
        ):
            (folder / name).write_text("half")
    (theirs / LOCK).write_text("{}")  # a run of its own
    with hold_folder(tmp_path):
        pass
    kept = {".mine.part", "1.cif", f".1.cif.{os.getpid()}.abc{SUFFIX}"}
    assert {p.name for p in inner.iterdir()} == kept
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == kept
    assert len(list(theirs.iterdir())) == 5


def test_files_that_only_end_alike_are_nobody_s_to_remove(tmp_path: Path) -> None:
    names = {".nucleate", ".notes.nucleate", ".my.own.notes.nucleate"}
    for name in names:
        (tmp_path / name).write_text("mine")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_scratch_folders_of_killed_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f"nucleate-{platform.node()}-{gone.pid}-x", "nucleate-elsewhere-1-x", "nucleate-mine"):
        (tmp_path / name).mkdir()
    with scratch_folder() as own:
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"nucleate-elsewhere-1-x", "nucleate-mine", Path(own).name}
    assert not Path(own).exists()


def test_temporary_files_bear_the_mark_that_sweeping_looks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(Path(a).name), real(a, b)))
    write_atomically(tmp_path / ("long" * 60), "text")
    assert seen[0].startswith(f".{('long' * 10)}.{os.getpid()}.")
    assert seen[0].endswith(SUFFIX)
    assert [p.name for p in tmp_path.iterdir()] == ["long" * 60]


# ------------------------------------------------------------------ what a folder holds


def test_samples_of_another_run_and_of_nobody_are_not_written_over(tmp_path: Path) -> None:
    mark = tmp_path / "generate.json"
    claim_again(mark, {"n": 3, "seed": 0})
    claim_again(mark, {"n": 3, "seed": 0})
    with pytest.raises(InputError, match="other seed"):
        claim_again(mark, {"n": 3, "seed": 1})
    mark.write_text("{")
    with pytest.raises(InputError, match="other run"):
        claim_again(mark, {"n": 3, "seed": 0})
    mark.unlink()
    (tmp_path / "0007.cif").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    with pytest.raises(InputError, match=r"0007\.cif, which would be written over"):
        claim_again(mark, {"n": 3, "seed": 0})
    (tmp_path / "0007.cif").rename(tmp_path / "mine.cif")
    claim_again(mark, {"n": 3, "seed": 0})  # other files are in nobody's way


# ------------------------------------------------------------------ every command

FIELD = ("--energy", "forcefield", "--workers", "1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "predict": ("predict", "CO", "-n", "12", "--generator", "random", *FIELD, "-o", "out"),
    "predict a list": ("predict", "list.smi", "-n", "12", *FIELD, "-o", "out"),
    "generate": ("generate", "CO", "-n", "2", "--space-groups", "14", "-o", "out"),
    "generate crystalflow": ("generate", "crystalflow", "--formula", "NaCl", "-n", "1", "-o", "out"),
    "conform": ("conform", "CO", "-o", "out"),
    "conform to a file": ("conform", "CO", "-o", "out/shapes.sdf"),
    "crystallize": ("crystallize", "CO", "-n", "1", "-o", "out"),
    "relax": ("relax", CIF, "-o", "out"),
    "deduplicate": ("deduplicate", CIF, "-o", "out"),
    "evaluate": ("evaluate", CIF, "--reference", CIF, "-o", "out/table.parquet"),
    "free-energy": ("free-energy", "ice-xi", "--sampler", "own", "--frames", "100", "-o", "out"),
    "data synthesize": ("data", "synthesize", "list.smi", "-o", "out"),
    "data import": ("data", "import", CIF, "-o", "out"),
    "data clusters": ("data", "clusters", CIF, "-o", "out"),
    "data conformers": ("data", "conformers", "list.smi", "-o", "out"),
}


@contextmanager
def held(folder: Path):
    """Whatever a command would hold there."""
    folder.mkdir()
    with hold_folder(folder), hold_file(folder / "table.parquet"), hold_file(folder / "shapes.sdf"):
        yield


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_run_is_refused_in_one_line(
    command: str, program: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "list.smi").write_text("CO methanol\n")
    with held(tmp_path / "out"):
        before = sorted((tmp_path / "out").iterdir())
        code, _, said = program(*COMMANDS[command])
        assert sorted((tmp_path / "out").iterdir()) == before
    assert (code, len(said.splitlines())) == (2, 1), said
    assert f"another run is under way (process {os.getpid()} on {platform.node()}, since " in said
