"""A disk that fills up or cannot be written to: one line that says what to do, and everything finished stays."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from nucleate.errors import NucleateError
from nucleate.files import write_atomically
from nucleate.generative.checkpoint import read_tensors
from nucleate.generative.training import CHECKPOINT
from nucleate.generative.training_log import CsvLog
from nucleate.pipeline.folders import hold_folder, make_folder
from nucleate.pipeline.systems import SYSTEMS
from nucleate.pipeline.train import WEIGHTS, train
from tests.pipeline.conftest import DATA

resource = pytest.importorskip("resource")  # POSIX
Program = Callable[..., tuple[int, str, str]]
URO = str(DATA / "cod_1100989.cif")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system writes no longer files, as where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN  # Python gets an OSError instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class FullDisk:
    """`os.replace`, by which every file gets its name, that finds the disk full after some files."""

    def __init__(self, files: int, number: int = errno.ENOSPC) -> None:
        self.left, self.number, self.real = files, number, os.replace

    def __call__(self, source: Any, target: Any) -> None:
        if self.left <= 0:
            raise OSError(self.number, os.strerror(self.number))
        self.left -= 1
        self.real(source, target)


def hidden(folder: Path) -> list[Path]:
    """Temporary files and locks."""
    return [path for path in folder.rglob(".*") if path.is_file()]


# ------------------------------------------------------------------ one file


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    with (
        files_of_at_most(1000),
        pytest.raises(NucleateError, match=r"room on the disk .*free some space.*--resume"),
    ):
        write_atomically(path, "x" * 2000)
    assert path.read_text() == "old"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "make it writable"),
        (errno.EACCES, "make it writable"),
        (errno.EIO, "make it writable"),
    ],
    ids=errno.errorcode.get,
)
def test_the_message_says_what_to_do(
    number: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", FullDisk(0, number))
    with pytest.raises(NucleateError) as error:
        write_atomically(tmp_path / "a.txt", "new")
    assert says in str(error.value)
    assert os.strerror(number) in str(error.value)
    assert "What is finished is kept" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_does_not_fit_goes_on_where_it_was_whole(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv")
    for step in range(3):
        log.add({"step": step, "loss": 0.5})
    with (
        files_of_at_most((tmp_path / "log.csv").stat().st_size + 3),
        pytest.raises(NucleateError, match="room on the disk"),
    ):
        log.add({"step": 3, "loss": 0.25})
    CsvLog(tmp_path / "log.csv", 2).add({"step": 3, "loss": 0.25})
    assert (tmp_path / "log.csv").read_text().split() == ["step,loss", "0,0.5", "1,0.5", "2,0.5", "3,0.25"]


def test_a_full_disk_does_not_keep_a_folder_from_being_held(tmp_path: Path) -> None:
    taken = pytest.raises(NucleateError, match=r"another run is under way \(another process\)")
    with files_of_at_most(0), hold_folder(tmp_path), taken, hold_folder(tmp_path):
        pass  # who holds it could not be written; that it is held is known all the same
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ commands

COMMANDS = {
    "predict": (("predict", "CO", "-n", "60", "--space-groups", "14", "--generator", "random", "--workers", "1",
                 "--energy", "forcefield"), 3, True),
    "generate": (("generate", "CO", "-n", "6", "--space-groups", "14"), 3, False),
    "conform": (("conform", "CC(N)=O", "-n", "2"), 1, False),
    "relax": (("relax", URO, "--max-steps", "2"), 0, False),
    "deduplicate": (("deduplicate", URO), 0, False),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_ends_a_command_in_one_line_and_it_goes_on_afterwards(
    name: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, files, resumes = COMMANDS[name]
    out = tmp_path / "mit Leerzeichen" / "-ä"
    with monkeypatch.context() as full:
        full.setattr(os, "replace", FullDisk(files))
        code, _, said = program(*arguments, "-o", out)
    assert (code, len(said.splitlines())) == (1, 1), said
    assert "expected room on the disk for" in said
    assert "free some space and run it again" in said
    assert hidden(out) == []
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(kept) == files
    code, _, said = program(*arguments, "-o", out, *(["--resume"] if resumes else []))
    assert (code, said) == (0, "")
    assert len([path for path in out.rglob("*") if path.is_file()]) > files
    for path, before in kept.items():
        if path.suffix in (".cif", ".safetensors"):  # finished work is taken up, or made again alike
            assert path.read_bytes() == before


def test_a_training_goes_on_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "toy", "tests.generative.toy:SYSTEM")
    settings = tmp_path / "own.toml"
    settings.write_text("[training]\nsteps = 20\ncheckpoint_minutes = 1e-6\ntensorboard = false\n")
    train("toy", tmp_path, tmp_path / "whole", settings=settings)
    with monkeypatch.context() as full:
        full.setattr(os, "replace", FullDisk(9))
        with pytest.raises(NucleateError, match=r"room on the disk for .*checkpoint"):
            train("toy", tmp_path, tmp_path / "cut", settings=settings)
    assert 0 < read_tensors(tmp_path / "cut" / CHECKPOINT)[1]["standing"]["step"] < 20
    assert hidden(tmp_path / "cut") == []
    assert train("toy", tmp_path, tmp_path / "cut", settings=settings, resume=True).card["step"] == 20
    one, other = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that is mounted to be read; root may write wherever modes forbid it."""
    out = make_folder(tmp_path / "read-only")
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda p, mode: not (Path(p) == out and mode & os.W_OK) and real(p, mode)
    )
    for arguments in (("conform", "CO"), ("generate", "CO", "-n", "1"), ("data", "import", URO)):
        code, _, said = program(*arguments, "-o", out)
        assert (code, len(said.splitlines())) == (2, 1)
        assert "expected a folder that can be written to" in said
    assert list(out.iterdir()) == []


def test_an_output_may_begin_with_a_dash(program: Program, tmp_path: Path) -> None:
    assert program("conform", "CO", "-o", "-x.sdf")[0] == 0
    assert program("conform", "CO", "--output=--y")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"-x.sdf", "--y"}
