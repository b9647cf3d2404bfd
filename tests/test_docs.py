"""The documentation is true: links lead somewhere, commands parse, code and examples run, tables agree with code."""

import doctest
import importlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import nucleate
from nucleate.cli import app
from nucleate.metrics.criteria import CRITERIA
from nucleate.physics.energy import ENERGY_MODELS
from nucleate.physics.parameters import ATOM_VOLUMES, EXP6
from nucleate.pipeline.landscape import COLUMNS
from nucleate.pipeline.predict import Prediction, PredictSettings, predict
from nucleate.pipeline.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS]
BLOCK = re.compile(r"(<!-- ([\w :./]+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
ONE_BY_ONE = """
import json, sys
from nucleate.cli import app
for arguments in json.loads(sys.argv[1]):
    print("\\n$ nucleate", *arguments, flush=True)
    app(arguments, standalone_mode=False)
"""
SMALL = {
    "predict": ["-n", "24", "--workers", "1"],
    "generate": ["-n", "4"],
    "conform": ["-n", "2", "--samples", "8"],
    "crystallize": ["-n", "1"],
    "data import": ["--workers", "1"],
    "free-energy": ["--frames", "100", "--steps", "50"],
}


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """(mark, text) of the fenced blocks of one language; the mark is the HTML comment in front, if any."""
    return [(m[2] or "", m[4]) for m in BLOCK.finditer(page.read_text()) if m[3] == language]


def write_files(page: Path, folder: Path) -> None:
    """The blocks marked `file: NAME` as the files that a reader of the page saves."""
    for block in BLOCK.finditer(page.read_text()):
        if (block[2] or "").startswith("file: "):
            (folder / block[2].removeprefix("file: ")).write_text(block[4])


def commands(text: str) -> list[list[str]]:
    """The nucleate commands of a shell block as argument lists, comments dropped."""
    lines = (shlex.split(line, comments=True) for line in text.splitlines())
    return [words[1:] for words in lines if words and Path(words[0]).name == "nucleate"]


def with_language(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


def name_of(page: Path) -> str:
    return page.name


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    """A prediction of seconds; what it finds is of no interest here."""
    settings = PredictSettings(n=24, space_groups="14,P212121", workers=1, energy="forcefield")
    return predict("NC(N)=O", settings, tmp_path_factory.mktemp("tiny") / "urea", name="urea")


@pytest.fixture
def desk(tmp_path: Path, tiny: Prediction, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder like that of a reader: the test data and a result folder are there."""
    for folder in ("data", "metrics/data"):
        shutil.copytree(ROOT / "tests" / folder, tmp_path / "tests" / folder)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(tiny.folder, tmp_path / "results" / "urea")
    shutil.copytree(tiny.folder, tmp_path / "results" / "aspirin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------ links


def test_every_page_is_reached_from_the_index():
    known = {page.name: page.read_text() for page in DOCS}
    reached, found = set(), {"index.md"}
    while found:
        reached |= found
        links = {target for name in found for target in re.findall(r"\]\((\w+\.md)[)#]", known[name])}
        found = links & set(known) - reached
    assert set(known) - reached == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}; headings: {anchors(path)}"


def anchors(page: Path) -> set[str]:
    """Headings as links call them: lower case, spaces to hyphens, punctuation dropped."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_script_that_is_named_is_there(page: Path):
    named = re.findall(r"\b((?:benchmarks|examples|tests|src)/[\w/.]+\.(?:py|cif|js|md))\b", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_no_page_names_a_place_on_some_machine():
    for page in [*PAGES, *(ROOT / "examples").glob("*.py")]:
        assert not re.search(r"/(?:tmp|work|root)/|localhost|127\.0\.0\.1", page.read_text()), page.name


# ------------------------------------------------------------------ commands


def parse(arguments: list[str]) -> None:
    """Raises click's UsageError where the command, an option or a value is not what the program knows."""
    group: Any = typer.main.get_command(app)
    if arguments[0].startswith("--"):  # of the program itself; some act as soon as they are parsed
        assert arguments[0] in {option for p in group.params for option in p.opts}
        return
    with group.make_context("nucleate", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, list(arguments))
        inner = command.make_context(name, rest, parent=context)
        if hasattr(command, "commands"):  # a group of commands: data
            words = [*inner._protected_args, *inner.args]
            name, command, rest = command.resolve_command(inner, words)
            command.make_context(name, rest, parent=inner)


@pytest.mark.parametrize("page", with_language("sh"), ids=name_of)
def test_every_command_that_is_shown_parses(page: Path):
    shown = [arguments for _, text in blocks(page, "sh") for arguments in commands(text)]
    for arguments in shown:
        parse(arguments)


@pytest.mark.parametrize("wrong", [["predict", "CCO", "--no-such-option"], ["foretell", "CCO"]])
def test_a_command_that_does_not_exist_would_be_noticed(wrong: list[str]):
    with pytest.raises(Exception, match=r"(?i)no such"):
        parse(wrong)


def test_every_command_has_its_section_and_every_option_of_predict_its_row():
    page = (ROOT / "docs" / "command_line.md").read_text()
    group: Any = typer.main.get_command(app)
    assert {name for name in group.commands if f"\n## {name}\n" not in page} == set()
    options = {o for p in group.commands["predict"].params for o in p.opts if o.startswith("--")}
    assert {o for o in options - {"--help"} if f"`{o}`" not in page} == set()


def reduced(arguments: list[str]) -> list[str]:
    """The same command with a few starts in one process; options given later win."""
    return [*arguments, *SMALL.get(" ".join(arguments[:2]), SMALL.get(arguments[0], []))]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(m == "run" for m, _ in blocks(p, "sh"))], ids=name_of
)
def test_marked_commands_run(page: Path, desk: Path):
    """In a fresh process, as for a reader: without the runtime type checks of the tests."""
    write_files(page, desk)
    shutil.rmtree(desk / "results" / "urea")  # the page makes its own
    marked = [text for mark, text in blocks(page, "sh") if mark == "run"]
    lines = [reduced(arguments) for text in marked for arguments in commands(text)]
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, json.dumps(lines)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n$ ") == len(lines)


# ------------------------------------------------------------------ Python


@pytest.fixture
def registries() -> Iterator[None]:
    """What a page adds to them is gone after it."""
    before: list[tuple[dict[str, Any], dict[str, Any]]] = [(r, dict(r)) for r in (SYSTEMS, CRITERIA)]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", with_language("python"), ids=name_of)
def test_python_blocks_run(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch):
    """Blocks of a page share their names, in order; with prompts they are doctests. `not run` says why it is not.

    Those marked `file: NAME.py` are modules that the others import.
    """
    write_files(page, desk)
    monkeypatch.syspath_prepend(desk)
    names: dict[str, Any] = {}
    for mark, text in blocks(page, "python"):
        if mark.startswith(("not run", "file: ")):
            continue
        if ">>>" in text:
            check_doctest(text, names, page.name)
        else:
            exec(compile(text, page.name, "exec"), names)


def check_doctest(text: str, names: dict[str, Any], title: str) -> None:
    example = doctest.DocTestParser().get_doctest(text, names, title, title, 0)
    complaints: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=complaints.append, clear_globs=False)
    names.update(example.globs)
    assert not complaints, "".join(complaints)


def example(name: str) -> Callable[..., None]:
    """The main function of a script; its arguments make it small."""
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]


def test_example_predict_from_smiles(desk: Path, capsys: pytest.CaptureFixture):
    example("predict_from_smiles")(n=24, workers=1, folder=desk / "results" / "again")
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["rank_with_ase", "own_energy_model"])
def test_examples_on_a_result_folder(name: str, desk: Path, capsys: pytest.CaptureFixture):
    for stale in sorted((desk / "results/urea/cif").glob("*.cif"))[2:]:
        stale.unlink()
    example(name)("results/urea/cif")
    assert capsys.readouterr().out.count("kJ/mol") == 2


def test_example_compare_two_crystals(capsys: pytest.CaptureFixture):
    example("compare_two_crystals")()
    assert "of 15 molecules agree" in capsys.readouterr().out


def test_example_your_own_calculator(capsys: pytest.CaptureFixture):
    example("your_own_calculator")()
    assert "converged True" in capsys.readouterr().out


def test_every_example_is_run_here():
    tested = Path(__file__).read_text()
    assert [p.stem for p in (ROOT / "examples").glob("*.py") if f'"{p.stem}"' not in tested] == []


# ------------------------------------------------------------------ tables


def table_after(text: str, heading: str) -> list[list[str]]:
    """Cells of the first table behind a line that starts with `heading`, without its head."""
    lines = text[text.index(heading) :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = [line for line in lines[first:] if line.startswith("|") or not line]
    rows = rows[: rows.index("")] if "" in rows else rows
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_parameters_in_the_docs_are_those_of_the_code():
    page = (ROOT / "docs" / "physics.md").read_text()
    for name, *numbers, _source in table_after(page, "## Energy"):
        assert [float(x) for x in numbers] == pytest.approx(EXP6[name], rel=1e-3), name
    head = page[page.index("## How large") :]
    elements = re.search(r"^\| H \|.*$", head, re.MULTILINE)
    assert elements
    symbols = [cell.strip() for cell in elements[0].strip("|").split("|")]
    volumes = [float(x) for x in table_after(page, "## How large")[0]]
    assert dict(zip(symbols, volumes)) == ATOM_VOLUMES


def test_every_column_and_key_is_documented(tiny: Prediction):
    page = (ROOT / "docs" / "files.md").read_text()
    columns = [row[0].strip("`") for row in table_after(page, "## crystals.parquet")]
    assert columns == COLUMNS.names
    documented = set(re.findall(r"`([\w]+)`", page[page.index("## run.json") :]))
    assert set(tiny.run) - documented == set()
    assert set(tiny.run["molecule"]) | set(tiny.run["counts"]) <= documented
    search = set(re.findall(r"`([\w]+)`", (ROOT / "docs" / "search.md").read_text()))
    assert set(tiny.run["convergence"]) - {"lowest_found_again"} <= search


def test_every_energy_model_is_documented():
    text = "".join(page.read_text() for page in DOCS)
    assert [name for name in ENERGY_MODELS if f"`{name}" not in text] == []


def test_version_and_licence_agree_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert project["version"] == nucleate.__version__
    assert f"\nversion: {nucleate.__version__}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_extras_in_the_readme_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = set(re.findall(r"nucleate\[(\w+)\]", "".join(page.read_text() for page in PAGES)))
    assert named <= set(project["optional-dependencies"])


def test_modules_of_the_registry_import():
    for target in ENERGY_MODELS.values():
        module, factory = target.split(":")
        assert callable(getattr(importlib.import_module(module), factory))
