"""What every record says of the program: its version, the command, the packages."""

import platform
import shlex
import sys
from importlib.metadata import version
from typing import Any

from nucleate import __version__


def provenance(*packages: str) -> dict[str, Any]:
    """Version, command (empty where another program calls) and versions of the packages named and of Python."""
    called = sys.argv[0].endswith("nucleate")
    return {
        "nucleate": __version__,
        "command": shlex.join(["nucleate", *sys.argv[1:]]) if called else "",
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
    }
