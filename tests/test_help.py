"""Help is quick and true: nothing heavy is imported for it, shells complete it, and its examples run.

Those of `LONG` do not run here: tutorials train and find a free energy, `pipeline/test_bench.py` times. The free energy
of a CIF takes minutes, so nothing runs it whole: `pipeline/test_rigid_crystal.py` tests its parts.
"""

import gzip
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import typer

from nucleate.cli import app
from nucleate.cli.evaluate_inorganic import evaluate_inorganic
from nucleate.cli.generate_inorganic import generate_crystalflow
from nucleate.crystal.sites_cif import sites_cif_text
from tests.pipeline.tiny_crystalflow import learnt, write_tiny_crystalflow
from tests.test_docs import parse

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "rdkit", "numba", "scipy", "ase", "gemmi", "pyarrow")
SMALL = {  # what makes an example one of seconds; options given later win
    "predict": ("-n", "12", "--space-groups", "14", "--workers", "1", "--energy", "forcefield"),
    "conform": ("-n", "2", "--samples", "4"),
    "generate": ("-n", "2"),
    "generate crystalflow": ("-n", "1", "--steps", "2"),
    "relax": ("--max-steps", "2", "--workers", "1"),
    "deduplicate": ("--workers", "1"),
    "evaluate": ("--controls", "1", "--workers", "1"),
    "crystallize": ("-n", "1", "--steps", "1", "--no-cell"),
    "data synthesize": ("-n", "1", "--starts", "60", "--workers", "1"),
    "data import": ("--workers", "1"),
    "data conformers": ("-n", "1", "--workers", "1"),
}
LONG = {"free-energy", "bench", "train"}  # tutorials and tests of their own run them
EXTRAS = {"gfn1": "tblite", "gfn2": "tblite", "chgnet": "chgnet"}


def verbs() -> dict[str, Any]:
    """Every command by its words, those of groups too."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {n}": c for n, c in inner.items()}
    return found


def examples() -> list[str]:
    helps = [command.help for command in verbs().values()]
    helps += [generate_crystalflow.__doc__, evaluate_inorganic.__doc__]
    return [line for text in helps for line in re.findall(r"Example: (nucleate .+)", text)]


def python(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


# ------------------------------------------------------------------ quick


def test_help_imports_nothing_heavy():
    """Of every command, in one fresh process: PyTorch alone takes longer than the half second that help may."""
    code = """if True:
        import sys
        from nucleate.cli import app
        for words in (["--help"], *(line.split() for line in sys.argv[1].splitlines())):
            app([*words, "--help"], standalone_mode=False)
        print(sorted(sys.modules))
    """
    printed = python(code, "\n".join([*verbs(), "generate crystalflow", "evaluate --inorganic"]))
    assert printed.count("Usage: ") == len(verbs()) + 3
    loaded = printed.splitlines()[-1]
    assert [name for name in HEAVY if f"'{name}'" in loaded] == []


def test_the_shell_completes_commands_options_and_values():
    def completed(words: str) -> set[str]:
        lines = python(
            "from nucleate.cli import app; app(prog_name='nucleate')",
            _NUCLEATE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1),
        )  # fmt: skip
        return set(lines.split())

    assert {"free-energy", "generate", "guide"} <= completed("nucleate ")
    assert completed("nucleate predict --bud") == {"--budget"}
    assert completed("nucleate predict CCO --energy gf") == {"gfn1", "gfn2"}
    assert "--splits" in completed("nucleate data import --spl")


# ------------------------------------------------------------------ alike


def test_the_same_thing_has_the_same_name_and_help():
    """Counts are -n and --n, folders -o and --output; what is shared says the same in each command."""
    alike = ("seed", "resume", "as_json", "workers", "z", "space_groups", "mirror", "heavy", "generator")
    said: dict[str, set[str]] = {}
    for command in verbs().values():
        for option in command.params:
            said.setdefault(option.name, set()).add(f"{sorted(option.opts)} {getattr(option, 'help', '')}")
    assert {name: len(said[name]) for name in alike} == dict.fromkeys(alike, 1)
    assert {text.partition("]")[0] for text in said["output"]} == {"['--output', '-o'"}
    for name, command in verbs().items():
        counts = [o for o in command.params if o.param_type_name == "option" and "-n" in o.opts]
        assert all("--n" in o.opts for o in counts), name


# ------------------------------------------------------------------ true


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the examples name, each as small as can be."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "cod_cif").mkdir()
    for name in ("cod_7100858.cif", "cod_2100840.cif"):
        shutil.copy(ROOT / "tests" / "data" / name, folder / "cod_cif")
    for name in ("qm9.csv.gz", "test.csv"):
        text = "smiles\nNC=O\nCO\n" if name != "test.csv" else "smiles\nCCO\n"
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    write_tiny_crystalflow(folder / "dng.safetensors", "dng", ("band_gap",))
    cifs = [sites_cif_text(sites, "known") for sites in learnt()[:2]]
    known = [{"material_id": f"mp-{k}", "formula": "TiO2", "cif": cif} for k, cif in enumerate(cifs)]
    for name in ("mp20_test.parquet", "test.parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(known), folder / name)
    generated = [{"target": row["material_id"], "cif": row["cif"]} for row in known]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(generated), folder / "generated")
    return folder


RUN = """if True:
    import json, shutil, sys
    from nucleate.cli import app
    for arguments in json.loads(sys.argv[1]):
        print("$", *arguments, flush=True)
        if app(arguments, standalone_mode=False):
            sys.exit(f"failed: {arguments}")
        if arguments[0] == "predict":
            shutil.copy("results/aspirin/cif/0001.cif", "experiment.cif")
"""


def test_the_examples_of_the_help_run(desk: Path):
    """In a fresh process, as for a reader: without the runtime type checks of the tests."""
    lines = [shlex.split(line.partition(" > ")[0])[1:] for line in examples()]
    missing = {name for name, package in EXTRAS.items() if importlib.util.find_spec(package) is None}
    lines = [arguments for arguments in lines if not missing & {*arguments} and not LONG & {*arguments}]
    small = [[*line, *SMALL.get(" ".join(line[:2]), SMALL.get(line[0], ()))] for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(small)], cwd=desk, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n$ ") + 1 == len(lines) > 15


# ------------------------------------------------------------------ the guide


def test_the_guide_knows_every_command_and_none_that_is_not_there():
    """Options that it names parse; `predict --resume` and its like are prose."""
    page = files("nucleate").joinpath("guide.md").read_text(encoding="utf-8")
    shown = [shlex.split(line)[1:] for line in re.findall(r"`(nucleate [^`]+)`", page)]
    for arguments in shown:
        if "COMMAND" not in arguments:
            parse(arguments)
    named = {" ".join(arguments) for arguments in shown}
    untold = {
        "data synthesize",
        "data clusters",
        "data conformers",
        "data statistics",
        "report",
        "bench",
        "guide",
    }
    assert [
        name for name in verbs() if name not in untold and not any(n.startswith(name) for n in named)
    ] == []


def test_the_guide_is_printed(capsys: pytest.CaptureFixture[str]):
    app(["guide"], standalone_mode=False)
    assert capsys.readouterr().out == files("nucleate").joinpath("guide.md").read_text(encoding="utf-8")
