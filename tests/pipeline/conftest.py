"""Small substances for the pipeline's tests, and the program as a user starts it."""

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nucleate import cli
from nucleate.pipeline.composition import read_subject
from nucleate.pipeline.generate import Composition

DATA = Path(__file__).parents[1] / "data"
STAND_INS = Path(__file__).parents[1] / "physics" / "stand_ins.py"


def composition_of(smiles: str) -> Composition:
    return read_subject(smiles).composition


@pytest.fixture(scope="session")
def formamide() -> Composition:
    return composition_of("NC=O")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, output and complaints of the program, run inside this process in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the program prints them its own way

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["nucleate", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return call


def _plain_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started the tests may have turned it off


def start_program(*arguments: str | Path, cwd: Path) -> "subprocess.Popen[str]":
    """The program in a session of its own, so that a signal to the group is what Ctrl-C is in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "nucleate", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_plain_ctrl_c,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def alive_in_session(session: int) -> list[str]:
    """Command lines of the processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append((entry.parent / "cmdline").read_text())
        except OSError:  # it ended while we looked
            continue
    return found
