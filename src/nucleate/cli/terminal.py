"""What a terminal shows: tables, progress bars with the time left, numbers as people read them."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

errors = Console(stderr=True, markup=False, highlight=False)  # SMILES such as c1cc[nH]c1 are no markup
# a table that is piped is not cut to the width of a terminal that is not there
out = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)


@contextmanager
def progress_bar() -> Iterator[Any]:
    """A function (stage, done, asked, note) that draws bars with the time left on a terminal, and is silent else."""
    if not errors.is_terminal:
        yield lambda *_: None
        return
    columns = (
        TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=errors, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, asked: int, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=asked, note="")
            bars.update(tasks[stage], completed=done, total=asked)
            if note:
                bars.update(tasks[stage], note=note)

        yield tell


def print_rows(rows: list[dict[str, Any]], as_json: bool, last: str = "") -> None:
    if as_json:
        print(json.dumps([{k: finite(v) for k, v in row.items()} for row in rows]))
        return
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row))  # a failure has few of them
        table = Table(*names, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(short(row.get(name)) for name in names))
        out.print(table)
    if last:
        out.print(last)


def finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def share(rate: Any) -> str:
    return f"{rate.hits}/{rate.asked}"


def percent(value: float, measured: int) -> str:
    return f"{100 * value:.1f} % of {measured}" if measured else "unknown"


def show_end(result: Any, output: Path) -> None:
    """What failed, and what must be known to read the numbers; of any evaluation."""
    for reason, count in result.predictions.failures.items():
        out.print(f"failed: {count} x {reason}")
    for warning in result.warnings:
        out.print(f"warning: {warning}")
    out.print(f"wrote {output}")


def leave_if(interrupted: bool, kept: str, nothing: bool = False) -> None:
    """Leave with exit code 1 after Ctrl-C, saying what is kept, or where nothing came of it."""
    if interrupted:
        errors.print(f"interrupted; {kept}, and --resume goes on", style="yellow")
    if interrupted or nothing:
        raise typer.Exit(1)
