"""What an energy model is: crystals in, eV out, and an honest record of what it can do.

    crystals --evaluate--> [Energy]        one for each crystal asked, failures included, with a reason
    name     --energy_model--> EnergyModel the registry below; packages are imported only when asked for

Energies are per cell (eV), forces eV/Å, stress eV/Å^3 with the sign of dE/dε / V (positive: the cell wants to
shrink), as in ASE.
"""

import importlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Float
from rdkit import Chem
from torch import Tensor

from nucleate.crystal.crystal import Crystal
from nucleate.errors import InputError

# name -> "module:factory"; a factory takes (name, options, ProcessSettings) and returns an EnergyModel.
ENERGY_MODELS: dict[str, str] = {
    "forcefield": "nucleate.physics.forcefield_model:forcefield",
    "gfn1": "nucleate.physics.xtb:gfn",
    "gfn2": "nucleate.physics.xtb:gfn",
    "chgnet": "nucleate.physics.chgnet:chgnet",
    "d3": "nucleate.physics.chgnet:d3",
    "ase": "nucleate.physics.ase_model:ase_model",
    "mace": "nucleate.physics.adapters:adapter",
    "orb": "nucleate.physics.adapters:adapter",
    "uma": "nucleate.physics.adapters:adapter",
    "aimnet2": "nucleate.physics.adapters:adapter",
}


@dataclass(frozen=True, eq=False)
class Energy:
    """The answer for one crystal: numbers, or the reason why there are none."""

    energy: float | None = None  # eV per cell
    forces: Float[Tensor, "atoms 3"] | None = None  # eV/Å
    stress: Float[Tensor, "3 3"] | None = None  # eV/Å^3; None also where the model has none
    failure: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.failure is None


@dataclass(frozen=True)
class Capability:
    """What a model can do, and what one must know before trusting or publishing it."""

    elements: frozenset[int] | None  # atomic numbers; None: not known, the model itself will object
    ions: bool  # charged species in a neutral cell (salts, zwitterions) are described as such
    stress: bool
    deterministic: bool
    licence: str  # of code and weights
    citation: str
    notes: str = ""

    def refusal(self, crystal: Crystal) -> str | None:
        """Why this crystal cannot be evaluated, in one line; None if nothing speaks against it."""
        if crystal.charges is not None and (charge := int(crystal.charges.sum())):
            return (
                f"expected a neutral cell, but the formal charges add up to {charge:+d}: the energy of a "
                "charged periodic cell is not defined. Add the counter-ions"
            )
        unknown = set(crystal.numbers.tolist()) - self.elements if self.elements is not None else set()
        if unknown:
            symbols = ", ".join(Chem.GetPeriodicTable().GetElementSymbol(z) for z in sorted(unknown))
            return f"no parameters for {symbols}. Choose an energy model that knows these elements"
        return None


@dataclass(frozen=True)
class ProcessSettings:
    """How a model that lives in a process of its own is run."""

    python: Path | None = None  # of another environment; it needs numpy, ase and the model's package
    time_limit: float | int = 60.0  # s for one energy of one structure
    start_limit: float | int = 300.0  # s to import the package and load the weights
    threads: int = 1
    workers: int = 1  # processes

    def __post_init__(self) -> None:
        if min(self.time_limit, self.start_limit) <= 0 or min(self.threads, self.workers) < 1:
            raise InputError(
                f"expected positive time limits and at least one thread and worker, got time_limit="
                f"{self.time_limit}, start_limit={self.start_limit}, threads={self.threads}, "
                f"workers={self.workers}"
            )
        if self.python is not None and not self.python.is_file():
            raise InputError(
                f"expected the path of a Python interpreter, got {self.python}, which is not a file. "
                "It looks like /path/to/environment/bin/python"
            )


Model = TypeVar("Model", bound="EnergyModel")


class EnergyModel(ABC):
    """Energies of crystals. Implementations keep their input unchanged and answer in the order asked."""

    name: str
    capability: Capability

    @abstractmethod
    def evaluate(self, crystals: Sequence[Crystal], *, gradient: bool = False) -> list[Energy]:
        """Energies, with `gradient` also forces and (where the model has it) stress.

        A structure that crashes, hangs or is refused gives an `Energy` with a `failure`; it never raises and
        never costs the others their results. Raises EnergyModelError only where nothing can be evaluated at
        all (the package is missing, the weights cannot be loaded).
        """

    def start(self) -> None:  # noqa: B027  (most in-process models need nothing)
        """Make sure that the model can run at all, before work is put into its input.

        Raises EnergyModelError where the package is missing, or the weights cannot be loaded.
        """

    def close(self) -> None:  # noqa: B027  (most in-process models hold nothing)
        """Let go of processes and memory. Safe to call twice; evaluating again afterwards starts afresh."""

    def __enter__(self: Model) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def energy_model(
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    process: ProcessSettings = ProcessSettings(),
) -> EnergyModel:
    """An energy model by name: a key of `ENERGY_MODELS`, or `ase:module:Class` for any ASE calculator.

    `options` go to the model; they may also be written as JSON behind the name, as a command line has to:
    `chgnet:{"dispersion": false}`, `ase:ase.calculators.lj:LennardJones:{"sigma": 3.4}`.

    Raises InputError for an unknown name, unreadable options, or a package that is not installed.
    """
    bare, behind = _split_options(name)
    key = bare.split(":")[0]
    if key not in ENERGY_MODELS:
        known = ", ".join(sorted(set(ENERGY_MODELS) - {"ase"}))
        raise InputError(
            f"expected an energy model ({known}, or ase:module:Class), got {name!r}",
            reason="unknown energy model",
        )
    module, factory = ENERGY_MODELS[key].split(":")
    return getattr(importlib.import_module(module), factory)(bare, {**(options or {}), **behind}, process)


def _split_options(name: str) -> tuple[str, dict[str, Any]]:
    bare, brace, rest = name.partition(":{")
    if not brace:
        return name, {}
    try:
        return bare, json.loads("{" + rest)
    except json.JSONDecodeError as error:
        example = f'{bare}:{{"key": 1}}'
        raise InputError(
            f"expected the options of an energy model as JSON, such as {example}, got {{{rest} ({error})"
        ) from None


@dataclass(frozen=True)
class Requirement:
    """A package that a model needs, and what to type to get it."""

    package: str  # import name
    install: str  # what follows `pip install`
    also: tuple[str, ...] = field(default=())

    def check(self, name: str, process: ProcessSettings) -> None:
        """Raises InputError where a package is missing here; another interpreter answers for itself."""
        if process.python is not None:
            return
        missing = [p for p in (self.package, *self.also) if not _installed(p)]
        if missing:
            raise InputError(
                f"energy model {name!r} needs the package {missing[0]!r}, which is not installed here. "
                f"Type: pip install {self.install} (or name the interpreter of an environment that has it)",
                reason="missing package",
            )


def _installed(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None
