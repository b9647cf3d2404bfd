"""`nucleate generate crystalflow` as a user meets it."""

# ruff: noqa: F811  (fixtures are imported, and asked for by their names)

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nucleate.cli.generate_inorganic import conditions
from nucleate.crystal.sites import sites_from_cif
from nucleate.errors import InputError
from tests.pipeline.conftest import start_program
from tests.pipeline.tiny_crystalflow import write_tiny_crystalflow
from tests.test_cli import Program, _keep_warnings, program, refused  # noqa: F401

TITANIA = ("generate", "crystalflow", "--formula", "TiO2", "--formula-units", "2", "--steps", "2")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_crystalflow(
        tmp_path_factory.mktemp("weights") / "csp.safetensors", conditions=("pressure", "gap")
    )


def test_from_a_formula_to_files(program: Program, weights: Path, tmp_path: Path) -> None:
    code, out, err = program(*TITANIA, "-n", "3", "--weights", weights, "-o", "out", "--seed", "4")
    assert (code, err) == (0, "")
    assert "3 of 3 built" in out
    assert "wrote out/cif" in out
    files = sorted((tmp_path / "out" / "cif").iterdir())
    assert [sites_from_cif(file).composition for file in files] == [{8: 4, 22: 2}] * 3
    more = ("-n", "25", "--weights", weights, "-o", "out", "--seed", "4", "--resume")
    code, out, err = program(*TITANIA, *more)
    assert (code, err) == (0, "")
    assert "and 5 more in out/samples.parquet" in out
    code, out, err = program(*TITANIA, *more, "--json")
    assert json.loads(out) == json.loads((tmp_path / "out" / "run.json").read_text())
    assert json.loads(out)["counts"]["asked"] == 25


def test_conditions_are_repeatable(program: Program, weights: Path) -> None:
    told = ("--condition", "pressure=15", "--condition", "gap=12.5", "--guidance", "2")
    code, out, err = program(*TITANIA, "-n", "1", "--weights", weights, *told, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["settings"]["condition"] == {"pressure": 15.0, "gap": 12.5}


@pytest.mark.parametrize(
    "given", ["pressure", "pressure=", "=5", "pressure=high", "pressure=nan", "pressure=inf"]
)
def test_conditions_are_names_and_numbers(given: str) -> None:
    assert conditions(["a=1e2", "b = -3"]) == {"a": 100.0, "b": -3.0}
    with pytest.raises(InputError, match="NAME=VALUE"):
        conditions([given])
    with pytest.raises(InputError, match="a twice"):
        conditions(["a=1", "a=2"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--formula tio2", "such as TiO2"),
        ("--formula XxO2", "got Xx"),
        ("--formula Ti0.5O", "whole numbers"),
        ("--formula RbCl", "have learnt, got Rb"),
        ("--formula Cm", "have learnt, got Cm"),
        ("--formula TiO2 --formula-units 0", "--formula-units: input should be greater than 0"),
        ("--formula TiO2 --formula-units 1000", "at most 200 atoms in the cell, got 3000"),
        ("--formula TiO2 -n 0", "--n"),
        ("--formula TiO2 --steps 0", "--steps"),
        ("--formula TiO2 --condition volume=5", "--condition: expected properties out of pressure, gap"),
        ("--formula TiO2 --condition volume", "NAME=VALUE"),
        ("--formula TiO2 --guidance 2", "--guidance"),
        ("--formula TiO2 --relax nonsense", "expected an energy model"),
        ("--formula TiO2 --relax forcefield", "without molecules"),
        ("--formula TiO2 --resume", "--resume: expected earlier samples"),
        ("--formula TiO2 --formula-list a.csv", "got both"),
        ("--formula-list a.csv", "found none at a.csv"),
        ("", "expected a formula such as TiO2"),
        ("--formula TiO2 --z 2", "No such option: --z"),
        ("TiO2", "unexpected extra argument"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    options: str, says: str, refused: Callable[..., str], weights: Path, tmp_path: Path
) -> None:
    assert says in refused("generate", "crystalflow", *options.split(), "--weights", weights)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_there_or_others(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "found none at missing" in refused(*TITANIA, "--weights", "missing")
    (tmp_path / "rubbish").write_text("rubbish")
    assert "damaged" in refused(*TITANIA, "--weights", "rubbish")
    if "no weights" in (said := refused("generate", "crystalflow", "--formula", "TiO2", "-n", "0")):
        assert "nucleate train crystalflow" in said


def test_molecules_are_still_generated(program: Program, refused: Callable[..., str]) -> None:
    assert "--formula-units" in refused("generate", "CCO", "--formula-units", "2")
    code, out, err = program("generate", "NC=O", "-n", "1", "--space-groups", "14")
    assert (code, err) == (0, "")
    code, out, err = program("generate", "--help")
    assert "nucleate generate crystalflow --help" in " ".join(out.split())


def test_help_has_examples(program: Program) -> None:
    code, out, err = program("generate", "crystalflow", "--help")
    assert (code, err) == (0, "")
    assert "Example: nucleate generate crystalflow --formula TiO2 --formula-units 2 -n 20" in " ".join(
        out.split()
    )
    assert max(map(len, out.splitlines())) <= 100


def test_ctrl_c_ends_it_at_once_with_usable_files(weights: Path, tmp_path: Path) -> None:
    run = start_program(*TITANIA, "-n", "20000", "--weights", weights, "-o", "out", cwd=tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "out" / "cif" / "0002.cif").exists() and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert run.returncode == 1, out + err
    assert "--resume goes on" in err
    assert "Traceback" not in err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["interrupted"]
    assert 1 <= record["counts"]["built"] < 20000
    assert not list((tmp_path / "out").rglob(".*.cif.*"))
