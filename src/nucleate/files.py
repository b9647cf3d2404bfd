"""Files that are either whole or not there.

    content --temporary file beside it, `.NAME.PID.xxxxxxxx.nucleate`--> rename --> path

A process that is killed in between leaves its temporary file; `sweep` removes those whose process is gone.
"""

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nucleate.errors import NucleateError

SUFFIX = ".nucleate"  # of temporary files
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the disk, one's share of it, or one's largest file


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary file beside `path`, then rename: readers see the old file or the new one.

    Makes the folder where there is none. Raises NucleateError where the place cannot be written to or is full; what
    was there stays.
    """
    data = content.encode() if isinstance(content, str) else content
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        start = f".{path.name[:40]}.{os.getpid()}."
        handle, temporary = tempfile.mkstemp(SUFFIX, start, path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What the system says of a file that cannot be written becomes a NucleateError that says what to do."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in FULL:
            raise NucleateError(
                f"expected room on the disk for {path}, got none ({why}). What is finished is kept: free some space "
                "and run it again, with --resume where the command has it, or choose another disk with -o"
            ) from error
        raise NucleateError(
            f"expected a writable place, got {path} ({why}). What is finished is kept: make it writable and run it "
            "again, with --resume where the command has it, or choose another folder with -o"
        ) from error


def sweep(folder: Path, name: str = "") -> None:
    """Remove the temporary files of processes that are gone; only those of one file, where its name is given."""
    for left in folder.iterdir():
        if not (left.name.startswith(f".{name[:40]}") and left.name.endswith(SUFFIX)):
            continue
        pid = left.name.removesuffix(SUFFIX).rpartition(".")[0].rpartition(".")[2]
        if pid.isdigit() and not is_running(int(pid)):  # whoever has no number is not ours
            with suppress(OSError):  # another may have done it
                left.unlink()


def scratch_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for things that only this run needs; those of runs on this machine that were killed are removed."""
    start = f"nucleate-{platform.node()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{start}*"):
        pid = left.name.removeprefix(start).split("-")[0]
        if pid.isdigit() and not is_running(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{start}{os.getpid()}-")


def is_running(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
