"""The README's numbers are what benchmarks/claims.toml and the printed outputs say, and every script is as named."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def book() -> ModuleType:
    spec = importlib.util.spec_from_file_location("claims", ROOT / "benchmarks" / "claims.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    __import__("sys").modules["claims"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_readme_says_what_was_measured(book: ModuleType):
    readme = (ROOT / "README.md").read_text()
    assert book.with_table(readme) == readme, "run: python benchmarks/claims.py --readme"
    assert len(book.claims()) == readme.count("|\n", readme.index(book.BEGIN), readme.index(book.END)) - 2


def test_every_command_names_a_script_options_that_it_has_and_files_that_are_there(book: ModuleType):
    shared = (ROOT / "benchmarks" / "packing_tasks.py").read_text()  # options of several
    for claim in book.claims():
        for line in claim.run:
            script, *words = line.split()
            text = (ROOT / "benchmarks" / script).read_text() + (shared if script.startswith("pack_") else "")
            assert [w for w in words if w.startswith("--") and f'"{w}"' not in text] == [], claim.name
            named = re.findall(r"\b(?:src|tests)/[\w/.]+", line)
            assert [path for path in named if not (ROOT / path).is_file()] == [], claim.name
        assert set(re.findall(r"{(\w+)}", " ".join(claim.run))) <= {*book.DATA, "out"}
        assert bool(claim.run) == (claim.minutes > 0), claim.name


def test_what_a_script_prints_is_kept_and_read(
    book: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(book, "PRINTED", tmp_path)
    claim = book.Claim(
        "list", "what", "{first} min", run=("claims.py",), figures=(("first", r"clashes .*?(\d+) min"),)
    )
    assert book.run(claim, {})
    kept = claim.printed.read_text()
    assert kept.startswith("$ python benchmarks/claims.py\n")
    assert re.search(r"\d+ CPU-seconds, \d+ s; commit \w+", kept)
    assert claim.text() == f"{next(c for c in book.claims() if c.name == 'clashes').minutes} min"
    with pytest.raises(ValueError, match=r"list\.txt: expected 'nowhere'"):
        replace(claim, figures=(("first", "nowhere"),)).text()
    failing = replace(claim, name="broken", run=("claims.py no-such-claim",))
    assert not book.run(failing, {})
    assert not failing.printed.exists()
