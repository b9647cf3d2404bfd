"""Files that are either whole or not there."""

import os
import tempfile
from pathlib import Path

from nucleate.errors import NucleateError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary file beside `path`, then rename: readers see the old file or the new one.

    Makes the folder where there is none. Raises NucleateError where the place cannot be written to.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise NucleateError(
            f"expected a writable place, got {path} ({error.strerror or error}); choose another folder with -o"
        ) from error
