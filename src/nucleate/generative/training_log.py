"""What a training says of itself: CSV tables always, TensorBoard event files where the package is installed."""

import csv
import importlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nucleate.files import explained, write_atomically

Number = float | int | Tensor


class CsvLog:
    """A table with one row a step. A name that was never seen before becomes a new column.

    `last_step` is that of the checkpoint that training goes on from: later rows, and half a row that a killed
    process left, are dropped, since they will be written again.
    """

    def __init__(self, path: Path, last_step: int = -1) -> None:
        self.path = path
        self.columns: list[str] = []
        rows = [row for row in self._read() if _step_of(row) <= last_step]
        self._rewrite(rows)

    def add(self, row: Mapping[str, float | int]) -> None:
        new = [name for name in row if name not in self.columns]
        if new:
            rows = self._read()
            self.columns += new
            self._rewrite(rows)
        with explained(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            table = csv.DictReader(file)
            rows = [row for row in table if None not in row and None not in row.values()]
            self.columns = list(table.fieldnames or [])
        return rows

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="")
        if self.columns:
            writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue())


class Events:
    """TensorBoard event files in a folder, or nothing where the package is missing or not wanted."""

    def __init__(self, folder: Path, last_step: int, wanted: bool) -> None:
        self._writer: Any = None
        if wanted and importlib.util.find_spec("tensorboard") is not None:
            module = importlib.import_module("torch.utils.tensorboard")
            self._writer = module.SummaryWriter(str(folder), purge_step=last_step + 1)

    def add(self, prefix: str, row: Mapping[str, float | int]) -> None:
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(f"{prefix}/{name}", value, int(row["step"]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Means:
    """Running means of named numbers; tensors stay on their device until they are asked for."""

    def __init__(
        self, sums: Mapping[str, float] | None = None, counts: Mapping[str, int] | None = None
    ) -> None:
        self._sums: dict[str, Number] = dict(sums or {})
        self._counts: dict[str, int] = dict(counts or {})

    def add(self, numbers: Mapping[str, Number]) -> None:
        for name, value in numbers.items():
            number = value.detach().double() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums.get(name, 0.0) + number
            self._counts[name] = self._counts.get(name, 0) + 1

    def sums(self) -> dict[str, float]:
        """Plain numbers, which a checkpoint keeps together with `counts`."""
        return {name: float(value) for name, value in self._sums.items()}

    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def take(self) -> dict[str, float]:
        """The means since the last time, and start again."""
        means = {name: value / self._counts[name] for name, value in self.sums().items()}
        self._sums, self._counts = {}, {}
        return means


def _step_of(row: Mapping[str, Any]) -> float | int:
    try:
        return int(row["step"])
    except (KeyError, TypeError, ValueError):
        return torch.inf  # not a whole row
