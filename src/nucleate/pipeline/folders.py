"""Folders that results go to."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nucleate.errors import InputError

try:
    import fcntl
except ImportError:  # not on every system; folders are not held there
    fcntl = None  # type: ignore[assignment]


def make_folder(folder: Path) -> Path:
    """Make the folder and its parents. Raises InputError where it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(_refusal(folder, error.strerror or str(error))) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(_refusal(folder, "no permission to write"))
    return folder


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the system lets go of it however this process ends.

    Raises InputError where another run is under way there.
    """
    if fcntl is None:
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"expected a folder that nothing writes to, got {folder} where another run is under way; wait for it "
                "or choose another with -o"
            ) from None
        yield


def _refusal(folder: Path, why: str) -> str:
    return f"expected a folder that can be written to, got {folder} ({why}). Choose another with -o."


def distinct_names(wanted: Iterable[str]) -> list[str]:
    """The names in order; one that was taken before (upper and lower case alike) gets -2, -3, ..."""
    taken: set[str] = set()
    names = []
    for name in wanted:
        choice, k = name, 1
        while choice.lower() in taken:
            k += 1
            choice = f"{name}-{k}"
        taken.add(choice.lower())
        names.append(choice)
    return names
