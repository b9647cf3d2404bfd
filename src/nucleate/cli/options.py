"""Options that several commands share, and how their texts are read. The same thing has the same name everywhere."""

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleate.errors import InputError


def one_of(*values: str, help: str) -> Any:
    """An option with a few known values, which the shell completes. What is allowed is checked by the settings."""
    return typer.Option(help=help, autocompletion=lambda: list(values))


ENERGIES = ("forcefield", "gfn1", "gfn2", "chgnet", "mace", "orb", "uma", "aimnet2")
SHAPES = ("etkdg", "confgf")

Files = Annotated[list[Path], typer.Argument(help="CIF files, or folders that hold some.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same files.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the folder.")]
Budget = Annotated[str | None, typer.Option(help="Time to stop after, as in 90s, 10m, 2h; --resume goes on.")]
Weights = Annotated[
    Path | None, typer.Option(help="What nucleate train wrote; those of the package if not given.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one for each core.")]
Z = Annotated[str | None, typer.Option("--z", help="Formula units in the cell, as in 2,4.")]
SpaceGroups = Annotated[str, typer.Option(help="common, or numbers and symbols: 14,2,P212121.")]
MoleculeName = Annotated[str | None, typer.Option(help="What to call the molecule.")]
MatcherLimit = Annotated[float, typer.Option(help="Seconds for a pair in StructureMatcher.")]
Mirror = Annotated[bool, typer.Option(help="Mirror images count as the same.")]
Heavy = Annotated[bool, typer.Option("--heavy", help="StructureMatcher without hydrogens.")]
EnergyName = Annotated[str, one_of(*ENERGIES, help=f"{', '.join(ENERGIES)} or ase:module:Class.")]
GeneratorName = Annotated[
    str,
    one_of(
        "auto", "random", "molcrystalflow", "mixture",
        help="random, molcrystalflow (learned), mixture, or auto: a mixture where the weights can.",
    ),
]  # fmt: skip


def numbers(text: str | None, option: str, kind: type) -> tuple[Any, ...] | None:
    """`1,2` as a tuple. Raises InputError for anything but numbers separated by commas."""
    if text is None:
        return None
    try:
        found = tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found:
        raise InputError(f"{option}: expected numbers separated by commas, as in 1,2; got {text!r}")
    return found


def names(text: str) -> tuple[str, ...]:
    """`a, b,a` as (a, b)."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def seconds(text: str | None) -> float | None:
    """`90s`, `10m` or `2h` of --budget. Raises InputError for anything else."""
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        value = float(number) * unit
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"--budget: expected a time such as 90s, 10m or 2h; got {text!r}")
    return value


def minutes(text: str | None) -> float | None:
    """The same time in minutes, as trainings count it."""
    limit = seconds(text)
    return None if limit is None else limit / 60


def cores() -> int:
    """Cores this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on every system
        return max(1, os.cpu_count() or 1)


def use_threads(count: int | None = None, processes: int = 1) -> None:
    """For commands with large tensors: so many threads, or what OMP_NUM_THREADS says, or all cores, shared."""
    import torch

    wished = count or int(os.environ.get("OMP_NUM_THREADS") or 0)
    torch.set_num_threads(wished or max(1, cores() // processes))
