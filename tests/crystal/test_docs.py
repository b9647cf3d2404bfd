"""The example of docs/crystal.md runs as it stands there."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (ROOT / "docs" / "crystal.md").read_text().split("```python\n")[1].split("```")[0]
    script = tmp_path / "example.py"
    script.write_text(code)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(script))
    assert "C7H6O2" in capsys.readouterr().out
