"""`compiled`: numba's just-in-time compiler, with a cache that a change of any kernel empties.

numba looks only at the file of the function itself when it decides whether its cache is stale, so a change in a
kernel that another file calls would go unseen. Here the cache folder is named after the sources of all kernels.
"""

import hashlib
import inspect
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from nucleate import __version__


@cache
def cache_directory() -> str:
    """Per user, per version and per content of the kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        if "@compiled" in (text := path.read_text()):
            digest.update(text.encode())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(base / "nucleate" / f"kernels-{__version__}-{digest.hexdigest()[:12]}")


def compiled(function: Callable[..., Any]) -> Any:
    """Compile on first call; cached on disk. Wrappers that runtime type checkers add are taken off first."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = cache_directory()
    try:
        return numba.njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})(
            inspect.unwrap(function)
        )
    finally:
        numba.config.CACHE_DIR = before
