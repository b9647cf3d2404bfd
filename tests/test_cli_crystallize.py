"""`nucleate crystallize` as a user meets it."""

# ruff: noqa: F811  (fixtures are imported, and asked for by their names)

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.conftest import start_program
from tests.pipeline.tiny_crystallization import write_tiny_crystallization
from tests.test_cli import Program, _keep_warnings, program, refused  # noqa: F401

FORMAMIDE = ("crystallize", "NC=O", "--steps", "2", "--molecules", "5")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_crystallization(tmp_path_factory.mktemp("weights") / "rigid.safetensors")


def test_from_a_molecule_to_files_and_a_report(program: Program, weights: Path, tmp_path: Path) -> None:
    code, out, err = program(*FORMAMIDE, "-n", "2", "--weights", weights, "-o", "out", "--seed", "4")
    assert (code, err) == (0, "")
    assert "2 of 2 made" in out
    assert "best first: energy" in out
    assert "report: out/report.html" in out
    assert sorted(p.name for p in (tmp_path / "out" / "cluster").iterdir()) == ["0001.xyz", "0002.xyz"]
    more = ("-n", "3", "--weights", weights, "-o", "out", "--seed", "4", "--resume", "--json")
    code, out, err = program(*FORMAMIDE, *more)
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((tmp_path / "out" / "run.json").read_text())
    assert json.loads(out)["counts"]["made"] == 3
    (tmp_path / "out" / "report.html").unlink()
    assert program("report", "out")[:2] == (0, "out/report.html\n")
    code, out, err = program(
        "crystallize", "out/loose.xyz", "-n", "1", "--weights", weights, "--no-cell", "--relax"
    )
    assert (code, err) == (0, "")
    assert (tmp_path / "results" / "loose-cluster" / "cluster" / "0001.xyz").is_file()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("none.xyz", "existing file"),
        ("CCO.O", "one kind of molecule"),
        ("NC=O -n 0", "--n: input should be greater than 0"),
        ("NC=O --molecules 1", "--molecules"),
        ("NC=O --steps 0", "--steps"),
        ("NC=O --resume", "--resume: expected earlier samples"),
        ("NC=O --no-such-option", "No such option"),
        ("", "Missing argument"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    options: str, says: str, refused: Callable[..., str], weights: Path, tmp_path: Path
) -> None:
    assert says in refused("crystallize", *options.split(), "--weights", weights)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_there_or_others(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "nucleate train crystallization" in refused(*FORMAMIDE, "--weights", "missing")
    (tmp_path / "rubbish").write_text("rubbish")
    assert "damaged" in refused(*FORMAMIDE, "--weights", "rubbish")


def test_help_has_examples(program: Program) -> None:
    code, out, err = program("crystallize", "--help")
    assert (code, err) == (0, "")
    assert "Example: nucleate crystallize aspirin/loose.xyz -n 10 -o ordered" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 100


def test_what_a_batch_system_sends_ends_it_with_usable_files(weights: Path, tmp_path: Path) -> None:
    """SIGTERM is as Ctrl-C."""
    run = start_program(*FORMAMIDE, "-n", "5000", "--weights", weights, "-o", "out", cwd=tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "out" / "cluster" / "0002.xyz").exists() and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGTERM)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 1, out + err
    assert "--resume goes on" in err
    assert "Traceback" not in err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["interrupted"]
    assert 1 <= record["counts"]["made"] < 5000
    assert (tmp_path / "out" / "report.html").is_file()
    assert not list((tmp_path / "out").rglob(".*.xyz.*"))
