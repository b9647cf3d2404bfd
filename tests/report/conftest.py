"""Result folders for the tests of the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invented_results import invented_rows, invented_run, write_folder


@pytest.fixture
def make_folder(tmp_path) -> Callable[..., Path]:
    """`make_folder(n)`: a folder of n invented crystals; `rows` and `run` replace the invented ones."""

    def make(n: int, rows: list[dict[str, Any]] | None = None, run: dict[str, Any] | None = None) -> Path:
        chosen = invented_rows(n) if rows is None else rows
        return write_folder(tmp_path / f"results-{n}", chosen, invented_run(n) if run is None else run)

    return make
