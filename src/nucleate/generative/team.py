"""The processes that train together: all they do is add vectors. Lightning Fabric starts and connects them."""

import importlib
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from nucleate.errors import InputError, NucleateError

PATIENCE = timedelta(hours=2)  # for the others, while the first process validates


@runtime_checkable
class Team(Protocol):
    """`size` processes; this one is number `rank`, and the first writes the files."""

    rank: int
    size: int
    device: torch.device

    def add(self, vector: Tensor) -> None:
        """Replace the vector by the sum of those of all processes."""


class Alone:
    """A team of one, on the GPU if there is one (or where `device` says)."""

    rank, size = 0, 1

    def __init__(self, device: str = "auto") -> None:
        self.device = device_named(device)

    def add(self, vector: Tensor) -> None:
        """The sum over one process is the vector itself."""


class FabricTeam:
    """Several processes on this machine, one for each GPU, or on CPU cores where there is none.

    Starts the other processes, which run the same command from its beginning; on clusters that start them
    themselves (SLURM, torchrun) it joins them. Raises InputError where lightning-fabric is not installed.
    """

    def __init__(self, size: int, device: str = "auto") -> None:
        try:
            fabric: Any = importlib.import_module("lightning_fabric")
        except ImportError:
            raise InputError(
                f"expected lightning-fabric for {size} processes, found none; pip install 'nucleate[train]'",
                reason="missing package",
            ) from None
        kind = device_named(device).type
        if kind == "cuda" and torch.cuda.device_count() < size:
            found = torch.cuda.device_count()
            raise InputError(f"expected a GPU for each of {size} processes, found {found}; ask for fewer")
        strategy = fabric.strategies.DDPStrategy(timeout=PATIENCE)
        self._fabric = fabric.Fabric(accelerator=kind, devices=size, strategy=strategy)
        self._fabric.launch()
        self.rank, self.size = self._fabric.global_rank, self._fabric.world_size
        self.device = self._fabric.device

    def add(self, vector: Tensor) -> None:
        try:
            vector.copy_(self._fabric.all_reduce(vector, reduce_op="sum"))
        except RuntimeError as error:  # the connection to a process that is gone
            why = str(error).strip().splitlines()[0][:200]
            raise NucleateError(
                f"expected {self.size} processes that train together, lost one (killed? {why}). Go on with --resume "
                "from the last checkpoint, with fewer --processes if memory is short."
            ) from None


def device_named(name: str) -> torch.device:
    """`cpu`, `cuda`, or `auto`: the GPU if torch can use one. Raises InputError for others, and for no GPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu" or (name == "cuda" and torch.cuda.is_available()):
        return torch.device(name)
    found = "no GPU that torch can use" if name == "cuda" else repr(name)
    raise InputError(f"--device: expected auto, cpu or cuda, got {found}", reason="no such device")
