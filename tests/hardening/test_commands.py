"""Commands on the worst files: one line and an exit code; where a list has one bad file, the others' results are there.

All commands on all of them, as processes: benchmarks/fuzz.py --commands.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nucleate.cli import main
from tests.hardening.commands import COMMANDS, Ended, bad_file, quarrel
from tests.hardening.strategies import CRYSTALS

Program = Callable[..., Ended]
WORST = {
    "predict CIF": "operations",
    "predict list": "nothing",
    "conform": "pipe",
    "generate --weights": "header_length",
    "relax": "many_operations",
    "rank": "occupancies",
    "match": "atoms_in_one_place",
    "evaluate, parquet": "columns_lost",
    "report, run.json": "nested",
    "train --settings": "tables",
    "train --data": "cells_replaced",
    "data statistics": "folder",
    "free-energy": "loop",
}


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Program]:
    """The program inside this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    shown = warnings.showwarning

    def call(*arguments: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["nucleate", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return Ended(int(left.value.code or 0), printed.out, printed.err)

    yield call
    warnings.showwarning = shown  # the program prints warnings its own way


@pytest.mark.parametrize("name", WORST)
def test_the_worst_file_is_one_line_and_an_exit_code(name: str, program: Program, tmp_path: Path) -> None:
    command = next(c for c in COMMANDS if c.name == name)
    path = bad_file(command, WORST[name], CRYSTALS[0], tmp_path / "bad")
    ended = program(*command.arguments(path))
    assert ended.code in (1, 2)
    assert not quarrel(ended)


def test_a_traceback_silence_and_chatter_are_told() -> None:
    assert "traceback" in quarrel(Ended(1, "", "Traceback (most recent call last):\nValueError: x\n"))
    assert "lines" in quarrel(Ended(2, "", "one\ntwo\n"))
    assert "lines" in quarrel(Ended(2, "", ""))
    assert "exit code" in quarrel(Ended(-11, "", ""))
    assert "not done" in quarrel(Ended(None, "", ""))
    assert not quarrel(Ended(2, "", "expected a CIF, got none\n"))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Two good files and a bad one between them."""
    folder = tmp_path / "three"
    folder.mkdir()
    shutil.copy(CRYSTALS[0], folder / "a.cif")
    (folder / "b.cif").write_bytes(b"data_x\n_cell_length_a \xff\x00 'never ends")
    shutil.copy(CRYSTALS[0], folder / "c.cif")
    return folder


def test_a_bad_file_does_not_stop_the_others_from_being_relaxed(program: Program, three: Path) -> None:
    ended = program("relax", three, "-o", "relaxed", "--max-steps", "2", "--json")
    rows = {Path(row["file"]).stem: row for row in json.loads(ended.output)}
    assert sorted(path.stem for path in Path("relaxed").glob("*.cif")) == ["a", "c"]
    assert rows["b"]["failure"]
    assert rows["a"]["energy_kj_mol"] == pytest.approx(rows["c"]["energy_kj_mol"])


def test_a_bad_file_does_not_stop_the_others_from_being_compared(program: Program, three: Path) -> None:
    grouped = json.loads(program("deduplicate", three, "-o", "distinct", "--workers", "1", "--json").output)
    assert [path.name for path in Path("distinct").glob("*.cif")] == ["a.cif"]
    assert [bool(row["failure"]) for row in grouped] == [False, False, True]
    matched = json.loads(program("match", three / "a.cif", three, "--json").output)
    assert {Path(row["file"]).stem: row["same"] for row in matched} == {"a": True, "b": False, "c": True}
    ranked = json.loads(program("rank", three, "--json").output)
    assert {Path(row["file"]).stem: bool(row["failure"]) for row in ranked} == {
        "a": False,
        "b": True,
        "c": False,
    }


def test_a_bad_file_is_a_sample_that_was_asked_for(program: Program, three: Path) -> None:
    ended = program("evaluate", three, "--reference", CRYSTALS[0], "-o", "judged.parquet", "--controls", "2")
    assert ended.code == 0
    assert "unreadable" in ended.output
    assert Path("judged.parquet").is_file()
