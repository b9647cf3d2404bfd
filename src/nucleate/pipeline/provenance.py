"""What every record says of the program: its version, the command, the packages."""

import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nucleate import __version__


def provenance(*packages: str) -> dict[str, Any]:
    """Version, command (empty where another program calls) and versions of the packages named and of Python."""
    program = Path(sys.argv[0])  # the command, or the package where it is run with python -m
    called = (program.parent.name if program.stem == "__main__" else program.stem) == "nucleate"
    return {
        "nucleate": __version__,
        "command": shlex.join(["nucleate", *sys.argv[1:]]) if called else "",
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
    }
