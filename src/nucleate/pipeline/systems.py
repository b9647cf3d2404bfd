"""Systems that can be trained, by name: the five of the package, or `module:NAME` of anybody's own.

A system is imported when it is asked for, so that its name can be shown before PyTorch is there.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING

from nucleate.errors import InputError

if TYPE_CHECKING:
    from nucleate.generative.system import System

SYSTEMS: dict[str, str] = {  # name: "module:NAME of a System"
    "confgf": "nucleate.models.conformer_training:SYSTEM",
    "crystalflow": "nucleate.models.crystalflow_training:SYSTEM",
    "crystallization": "nucleate.models.crystallization_training:SYSTEM",
    "molcrystalflow": "nucleate.models.molcrystalflow_training:SYSTEM",
    "rigid_body_flow": "nucleate.models.rigid_body_flow_training:SYSTEM",
}


def system_named(name: str) -> "System":
    """Of `SYSTEMS`, or NAME of a module that Python finds, also in the current folder.

    Raises InputError for a name that is not known, a module that cannot be imported, and what is no System.
    """
    from nucleate.generative.system import System

    if name not in SYSTEMS and ":" not in name:
        known = ", ".join(sorted(SYSTEMS))
        raise InputError(
            f"expected a system to train ({known}, or module:NAME of your own), got {name!r}",
            reason="unknown system",
        )
    module, _, attribute = SYSTEMS.get(name, name).partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the program is not started as a script of this folder
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"expected a System at {name}, got none: {error}", reason="unknown system"
        ) from error
    if not isinstance(found, System):
        raise InputError(f"expected a System at {name}, got {type(found).__name__}", reason="unknown system")
    return found
