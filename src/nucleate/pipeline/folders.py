"""Folders that results go to, each held by one run at a time.

    hold_folder --.lock (flock: process, machine, since when)--> this run writes --> .lock removed

The system lets go of a lock however its process ends, so the file that a killed run leaves keeps nobody out.
"""

import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from nucleate.errors import InputError
from nucleate.files import explained, sweep

try:
    import fcntl
except ImportError:  # not on every system; folders are not held there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


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
    """Keep other runs out of a folder, and remove what killed ones left half-written in it and its sub-folders.

    Raises InputError where another run is under way there. A sub-folder with a lock of its own is another run's.
    """
    with _held(folder / LOCK, folder):
        sweep(folder)
        for inner in folder.iterdir():
            if inner.is_dir() and not (inner / LOCK).exists():
                sweep(inner)
        yield


@contextmanager
def hold_file(path: Path) -> Iterator[None]:
    """The same for a single file of results, whose folder others may write to."""
    with _held(path.with_name(f".{path.name}{LOCK}"), path):
        sweep(path.parent, path.name)
        yield


@contextmanager
def _held(mark: Path, what: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    with explained(mark):
        file = _locked(mark, what)
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)  # while it is still locked: whoever opened it before looks for it again
        file.close()


def _locked(mark: Path, what: Path) -> IO[bytes]:
    """The lock file, ours, with who we are. Raises InputError where another process has it."""
    while True:
        file = mark.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                raise InputError(_taken(file, what)) from None
        except OSError:  # a file system without locks; one run at a time is then up to the user
            pass
        if _is_at(mark, file):
            break
        file.close()  # the run before removed it between our two steps
    about = {"process": os.getpid(), "machine": platform.node()}
    about["since"] = datetime.now(UTC).isoformat(timespec="seconds")
    with suppress(OSError):  # a full disk: it is held all the same
        file.truncate(0)
        file.write(json.dumps(about).encode() + b"\n")
    return file


def _is_at(mark: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), mark.stat())
    except FileNotFoundError:
        return False


def _taken(file: IO[bytes], what: Path) -> str:
    """Who is at work there, as far as the lock file says."""
    file.seek(0)
    try:
        about = json.loads(file.read())
        who = f"process {about['process']} on {about['machine']}, since {about['since']}"
    except (ValueError, KeyError, TypeError):  # it has only just begun
        who = "another process"
    return (
        f"expected a place that nothing writes to, got {what} where another run is under way ({who}); wait for it, end "
        "it, or choose another place with -o"
    )


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
