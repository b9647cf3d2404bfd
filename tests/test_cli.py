"""The program as a user meets it: one-line errors, exit codes, help, JSON, Ctrl-C."""

import json
import os
import re
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nucleate import cli
from nucleate.pipeline.predict import PredictSettings, predict
from tests.pipeline.conftest import STAND_INS, alive_in_session, start_program

DATA = Path(__file__).parent / "data"
SMALL = ("-n", "12", "--space-groups", "14", "--workers", "1", "--energy", "forcefield")
COMMANDS = (
    "predict",
    "conform",
    "generate",
    "relax",
    "rank",
    "deduplicate",
    "match",
    "evaluate",
    "train",
    "crystallize",
    "report",
)
SUB_COMMANDS = ("data synthesize", "data import", "data statistics", "data clusters", "data conformers")

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _keep_warnings() -> Iterator[None]:
    """The program prints warnings its own way; tests go on turning them into errors."""
    shown = warnings.showwarning
    yield
    warnings.showwarning = shown


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Program:
    """Exit code, output and complaints of the program, run inside this process in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["nucleate", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def refused(program: Program) -> Callable[..., str]:
    """The one line that the program says before it leaves with code 2."""

    def call(*arguments: str | Path, code: int = 2) -> str:
        left, out, err = program(*arguments)
        assert left == code, err
        assert out == ""
        assert re.fullmatch(r"nucleate: [^\n]+\n", err), err
        return err

    return call


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("molecule", "says"),
    [
        ("C1CC", "syntax is broken"),
        ("C(C)(C)(C)(C)C", "valence"),
        ("", "got nothing"),
        ("   ", "got nothing"),
        ("hello world", "expected a SMILES"),
        ("missing.cif", "expected a molecule in an existing file"),
        ("missing.pdb", ".cif, .sdf, .mol, .xyz"),
        ("missing.smi", "expected a list in an existing file"),
        ("C[Se]C", "contains Se"),
        ("[Fe]", "contains Fe"),
        ("[Na+].[Cl-]", "contains Na"),
        ("[NH4+]", "neutral formula unit, got charge +1"),
        ("C[CH2]", "radical"),
        ("C*", "dummy atom"),
        ("C" * 50, "at most 120 atoms"),
    ],
)
def test_molecules_that_cannot_be_searched(molecule: str, says: str, refused: Callable[..., str]) -> None:
    assert says in refused("predict", molecule, *SMALL)


URO = DATA / "cod_1100989.cif"


CHAIN = """data_chain
_cell_length_a 2.55
_cell_length_b 7
_cell_length_c 7
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
C1 C 0.00 0.00 0.06 1
C2 C 0.50 0.00 -0.06 1
H1 H 0.00 0.125 0.15 1
H2 H 0.00 -0.125 0.15 1
H3 H 0.50 0.125 -0.15 1
H4 H 0.50 -0.125 -0.15 1
"""
METHANOL = """data_methanol
_cell_length_a 8
_cell_length_b 8
_cell_length_c 8
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
C1 C 0.0000 0.0000 0.0000 1
O1 O 0.1775 0.0000 0.0000 1
H1 H 0.2160 0.1130 0.0000 1
H2 H -0.0450 -0.1280 0.0000 1
H3 H -0.0450 0.0640 0.1110 1
H4 H -0.0450 0.0640 -0.1110 1
"""
BAD_FILES = {
    "empty.cif": ("", "empty file"),
    "blank.cif": ("\n\n", "empty file"),
    "truncated.cif": (METHANOL[: METHANOL.index("loop_") + 12], "CIF"),
    "no_atoms.cif": (METHANOL[: METHANOL.index("loop_")], "atom"),
    "polymeric.cif": (CHAIN, "a network that runs through the crystal"),
    "disordered.cif": (METHANOL.replace("0.1775 0.0000 0.0000 1", "0.1775 0.0000 0.0000 0.6"), "disorder"),
    "bare.cif": (METHANOL[: METHANOL.index("H1 H")], "hydrogen"),
    "overlapping.cif": (
        METHANOL + "C2 C 0.0300 0.0200 0.0000 1\nO2 O 0.2075 0.0200 0.0000 1\n",
        "2 pairs too close",
    ),
    "rubbish.sdf": ("rubbish\n", "records"),
    "rubbish.xyz": ("rubbish\n", "XYZ"),
    "empty.smi": ("# nothing\n", "at least one molecule"),
    "wrong.csv": ("a,b\n1,2\n", "column named 'smiles'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_cannot_be_searched(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    text, says = BAD_FILES[name]
    (tmp_path / name).write_text(text)
    assert says in refused("predict", name, *SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]  # nothing was begun


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("-n 0", "--n: input should be greater than 0, got 0"),
        ("-n -5", "--n"),
        ("-n 100000000", "--n: input should be less than or equal to 1000000"),
        ("-n many", "-n"),
        ("--z 0", "--z: input should be greater than 0, got 0"),
        ("--z two", "--z: expected numbers"),
        ("--z ,", "--z: expected numbers"),
        ("--z 3", "Z = 3"),
        ("--z-prime 3", "--z-prime: expected 0.5, 1 or 2, got 3.0"),
        ("--z-prime nan", "--z-prime: expected 0.5, 1 or 2"),
        ("--seed -1", "--seed"),
        ("--seed 99999999999999999999", "--seed"),
        ("--budget soon", "--budget: expected a time such as 90s"),
        ("--budget 0", "--budget"),
        ("--budget 1e999h", "--budget"),
        ("--keep 0", "--keep: input should be greater than 0"),
        ("--workers 0", "'--workers': Input should be greater than or equal to 1"),
        ("--workers 100000", "--workers: input should be less than or equal to 256"),
        ("--relax-steps -1", "--relax-steps"),
        ("--sequence golden", "--sequence: input should be 'sobol' or 'random', got 'golden'"),
        ("--generator magic", "--generator"),
        ("--space-groups 231", "--space-groups: expected a space-group number from 1 to 230, got 231"),
        ("--space-groups XYZ", "--space-groups: expected a space group by number"),
        ("--space-groups ,", "--space-groups: expected 'common'"),
        ("--energy nonsense", "expected an energy model"),
        ("--energy ase:module", "ase:module:Class"),
        ("--reference missing.cif", "expected a CIF in an existing file, got none at missing.cif"),
        ("--resume", "--resume: expected an earlier search"),
        ("--no-such-option", "No such option: --no-such-option"),
    ],
)
def test_options_that_make_no_sense(
    options: str, says: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert says in refused("predict", "NC=O", *options.split())
    assert list(tmp_path.iterdir()) == []


def test_one_enantiomer_in_a_group_that_mirrors_it(refused: Callable[..., str]) -> None:
    assert "one enantiomer, got P21/c" in refused("predict", "C[C@H](N)C(=O)O", *SMALL)


def test_an_energy_model_whose_package_is_missing(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nucleate.physics.energy._installed", lambda package: False)
    assert "pip install" in refused("predict", "NC=O", "--energy", "gfn2")
    said = refused("predict", "NC=O", "--energy", f"ase:{STAND_INS}:not_there", code=1)
    assert "a_package_that_nobody_has" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "NC=O", *SMALL, "-o", "file/below"),
        ("predict", "NC=O", *SMALL, "-o", "file"),
        ("predict", "list.smi", *SMALL, "-o", "file/below"),
        ("conform", "CCO", "-o", "file/below.sdf"),
        ("generate", "CCO", "-n", "2", "-o", "file/below"),
        ("relax", str(DATA / "cod_1100989.cif"), "-o", "file/below"),
    ],
    ids=lambda a: f"{a[0]} {a[-1]}" if a[1] == "list.smi" or a[0] != "predict" else f"predict one {a[-1]}",
)
def test_folders_that_cannot_be_written(
    arguments: tuple[str, ...], tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "list.smi").write_text("NC=O a\n")
    assert "expected a folder that can be written to" in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("conform", "C1CC"), "SMILES"),
        (("conform", "CCO", "-n", "0"), "--n:"),
        (("conform", "CCO", "--seed", "-1"), "--seed"),
        (("conform", "CCO", "--method", "guess"), "--method"),
        (("conform", "CCO", "--optimise", "dft"), "--optimise"),
        (("conform", "CCO", "--time-limit", "0"), "--time-limit"),
        (("conform", "CCO", "--method", "confgf", "--weights", "missing.safetensors"), "--weights"),
        (("conform", "N[Pt](N)(Cl)Cl"), "metal complexes"),
        (("generate", "CCO", "-n", "0"), "--n"),
        (("relax", "missing.cif"), "missing.cif"),
        (("relax", str(URO), "--max-steps", "0"), "--max-steps"),
        (("relax", str(URO), "--workers", "0"), "--workers"),
        (("relax", str(URO), "--energy", "nonsense"), "energy model"),
        (("rank", str(URO), str(DATA / "cod_7210454.cif")), "one composition"),
        (("deduplicate", "."), "expected predictions, found none"),
        (("deduplicate", str(URO), "--workers", "0"), "--workers"),
        (("match", "missing.cif", str(URO)), "missing.cif"),
        (("match", str(URO), str(URO), "-n", "0"), "-n"),
        (("match", str(URO), str(URO), "--preset", "nonsense"), "strict15"),
        (("match", str(URO), str(URO), "-n", "5", "--angle", "200"), "angle"),
        (("match", str(URO), str(URO), "--angle", "30"), "-n"),
        (("match", str(URO), str(URO), "-n", "5", "--preset", "loose"), "got both"),
        (("match", str(URO), str(URO), "--preset", ""), "got none"),
        (("match", str(URO), str(URO), "--preset", "structurematcher", "--no-mirror"), "--mirror"),
        (("evaluate", "missing", "--reference", str(URO)), "missing"),
        (("evaluate", str(URO), "--reference", "missing.cif"), "missing.cif"),
        (("evaluate", str(URO), "--reference", str(URO), "--criteria", "nonsense"), "--criteria"),
        (("evaluate", str(URO), "--reference", str(URO), "--criteria", ""), "--criteria"),
        (("evaluate", str(URO), "--reference", str(URO), "-o", str(URO)), "files to read"),
        (("evaluate", str(URO), "--reference", str(URO), "-o", str(DATA)), "a folder"),
        (("evaluate", str(URO), "--reference", str(URO), "-o", "/proc/x/y.parquet"), "-o"),
        (("evaluate", str(URO), "--reference", str(URO), "--top", "0"), "--top"),
        (("evaluate", str(URO), "--reference", str(URO), "--format", "nonsense"), "format"),
        (("evaluate", str(URO)), "Missing option"),
        (("report", "."), "crystals.parquet"),
        (("data", "synthesize", "missing.smi", "-o", "out"), "missing.smi"),
        (("data", "synthesize", "missing.smi"), "Missing option"),
        (("data", "import", str(URO), "-o", "out", "--bodies", "0"), "--bodies"),
        (("data", "import", str(URO), "-o", "out", "--splits", "missing.csv"), "missing.csv"),
        (("data", "statistics", "."), "found none"),
        (("data",), "Missing command"),
        (("frobnicate",), "No such command"),
        (("predict",), "Missing argument"),
    ],
    ids=lambda a: " ".join(a).replace(str(DATA), "") if isinstance(a, tuple) else "",
)
def test_other_verbs_refuse_in_one_line_too(
    arguments: tuple[str, ...], says: str, refused: Callable[..., str]
) -> None:
    assert says in refused(*arguments)


# ------------------------------------------------------------------ help, output


@pytest.mark.parametrize("command", [*COMMANDS, *SUB_COMMANDS])
def test_every_command_explains_itself_with_an_example(command: str, program: Program) -> None:
    code, out, err = program(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert f"Example: nucleate {command} " in out
    assert max(map(len, out.splitlines())) <= 100


def test_help_and_version(program: Program) -> None:
    assert program("--version")[:2] == (0, "0.1.0\n")
    for arguments, code in ((("--help",), 0), ((), 2)):
        left, out, _ = program(*arguments)
        assert left == code
        assert all(command in out for command in COMMANDS)


def test_predict_prints_a_table_and_where_the_report_is(program: Program, tmp_path: Path) -> None:
    code, out, err = program("predict", "NC=O", *SMALL, "-o", "out")
    assert (code, err) == (0, "")
    assert "distinct minima from 12 starts" in out
    assert "P21/c" in out
    assert out.rstrip().endswith("report: out/report.html")
    code, out, err = program("predict", "NC=O", *SMALL, "-o", "out", "--json", "--resume")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((tmp_path / "out" / "run.json").read_text())
    assert program("report", "out")[:2] == (0, "out/report.html\n")


def test_conform_prints_a_table_and_where_the_report_is(program: Program, tmp_path: Path) -> None:
    code, out, err = program("conform", "OCCO.O", "-n", "2", "-o", "out")
    assert (code, err) == (0, "")
    assert "3 conformers from" in out
    assert out.rstrip().endswith("report: out/report.html")
    code, out, err = program("conform", "OCCO.O", "-n", "2", "-o", "out", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((tmp_path / "out" / "run.json").read_text())
    assert program("report", "out")[:2] == (0, "out/report.html\n")
    code, out, _ = program("conform", "OCCO", "-n", "1", "-o", "one.sdf")
    assert (code, out.splitlines()[-1]) == (0, "wrote one.sdf")


def test_verbs_print_json(program: Program, tmp_path: Path) -> None:
    code, out, _ = program("generate", "NC=O", "-n", "2", "--space-groups", "14", "-o", "packings", "--json")
    assert (code, len(json.loads(out))) == (0, 2)
    for arguments in (
        ("rank", "packings"),
        ("deduplicate", "packings"),
        ("match", "packings/0001.cif", "packings"),
    ):
        code, out, err = program(*arguments, "--json")
        assert (code, err) == (0, "")
        rows = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        assert len(rows) == 2
        code, out, _ = program(*arguments)
        assert "0001.cif" in out
    code, out, err = program("evaluate", "packings", "--reference", "packings/0001.cif", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert found["predictions"]["scores"]["strict15"]["at"]["1"] == {"hits": 1, "asked": 1}
    assert found["control"]["asked"] == found["predictions"]["asked"] == 2
    assert "random control" in program("evaluate", "packings", "--reference", "packings/0001.cif")[1]
    assert (tmp_path / "evaluation.parquet").exists()
    code, out, _ = program("relax", "packings/0001.cif", "-o", "relaxed", "--json")
    assert (code, json.loads(out)[0]["failure"]) == (0, "")
    assert (tmp_path / "relaxed" / "0001.cif").exists()


def test_data_sets_are_made_and_shown(program: Program) -> None:
    code, out, err = program("data", "import", URO, "-o", "out", "--workers", "1", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["outcomes"] == {"imported": 1}
    code, out, err = program("data", "statistics", "out", "--reference", "out", "--json")
    assert (code, err) == (0, "")
    mine, _, apart = json.loads(out)
    assert mine["space_groups"] == {"14": 1}
    assert apart["apart"]["density"] == 0
    assert "P21/c (14)" in program("data", "statistics", "out")[1]
    assert "--resume" in program("data", "import", URO, "-o", "out")[2]
    assert program("data", "import", URO, "-o", "out", "--resume")[0] == 0


def test_a_list_with_no_good_line_fails(program: Program, tmp_path: Path) -> None:
    (tmp_path / "list.smi").write_text("C1C[nH] a\n[NH4+] b\n")
    code, out, _ = program("predict", "list.smi", *SMALL, "-o", "out")
    assert code == 1
    assert "C1C[nH]" in "".join(out.split())  # brackets are not taken for markup
    assert "syntax is broken" in " ".join(out.split())
    (tmp_path / "list.smi").write_text("C1CC a\nNC=O b\n")
    code, out, _ = program("predict", "list.smi", *SMALL, "-o", "out", "--json")
    assert code == 0
    assert [row["crystals"] > 0 for row in json.loads(out)] == [False, True]


# ------------------------------------------------------------------ Ctrl-C, kill, budget: real processes


def wait_until(true: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


LONG = ("NC(N)=O", "--space-groups", "14,2", "--workers", "2", "--energy", "forcefield", "-o", "out")
LONG += ("--generator", "random", "--keep", "5")  # learned starts are interrupted in test_learned_search.py


def units(folder: Path) -> int:
    return len(list((folder / "out" / "units").glob("0*.safetensors")))


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX")
def test_ctrl_c_and_a_kill_lose_nothing(tmp_path: Path) -> None:
    n = 300
    process = start_program("predict", *LONG, "-n", str(n), cwd=tmp_path)
    wait_until(lambda: units(tmp_path) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(said.splitlines()) == 1, said  # no traceback of any process
    assert said.startswith("interrupted; ")
    assert said.endswith("--resume goes on\n")
    wait_until(lambda: alive_in_session(process.pid) == [], 10)
    cut = json.loads((tmp_path / "out" / "run.json").read_text())
    assert cut["interrupted"]
    assert 0 < cut["counts"]["asked"] < n
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "cif" / "0001.cif").exists()

    before = units(tmp_path)
    process = start_program("predict", *LONG, "-n", str(n), "--resume", cwd=tmp_path)
    wait_until(lambda: units(tmp_path) >= before + 2)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: alive_in_session(process.pid) == [], 20)  # its workers notice

    settings: dict[str, Any] = {"n": n, "space_groups": "14,2", "workers": 1, "energy": "forcefield"}
    settings |= {"generator": "random", "keep": 5}
    finished = predict("NC(N)=O", PredictSettings.model_validate(settings), tmp_path / "out", resume=True)
    at_once = predict("NC(N)=O", PredictSettings.model_validate(settings), tmp_path / "whole")
    assert finished.rows == at_once.rows
    assert finished.run["counts"] == at_once.run["counts"]
    assert not finished.run["interrupted"]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX")
@pytest.mark.slow
def test_ctrl_c_while_workers_start_is_quiet(tmp_path: Path) -> None:
    process = start_program("predict", *LONG, "-n", "5000", cwd=tmp_path)
    wait_until(lambda: any("spawn_main" in line for line in alive_in_session(process.pid)))
    time.sleep(0.5)  # it is importing torch now
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(said.splitlines()) == 1, said
    wait_until(lambda: alive_in_session(process.pid) == [], 20)


def test_a_budget_is_kept(program: Program, tmp_path: Path) -> None:
    program("predict", "NC(N)=O", *SMALL, "-o", "first")  # on a new machine this compiles
    options = "-n 100000 --workers 1 --energy forcefield --budget 4s --keep 10 -o out --json"
    code, out, _ = program("predict", "NC(N)=O", *options.split())
    about = json.loads(out)
    assert code == 0
    assert about["stopped"] == "time"
    assert 0 < about["counts"]["asked"] < 100000


def test_a_failure_stands_in_its_own_column(program: Program, tmp_path: Path) -> None:
    (tmp_path / "z.cif").write_text("data_nothing\n")
    code, out, _ = program("deduplicate", URO, "z.cif")
    assert code == 0
    failed = next(line for line in out.splitlines() if line.startswith("z.cif"))
    head = next(line for line in out.splitlines() if line.startswith("file"))
    assert failed.index("expected") >= head.index("failure")
