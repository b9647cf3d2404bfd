"""An energy model in a process of its own (`nucleate.processes`), behind any interpreter.

    crystal --request--> worker process (`worker.py`) --reply--> Energy

A structure whose process crashes or takes too long gets that as its failure; the next finds a fresh process.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nucleate.crystal.crystal import Crystal
from nucleate.errors import EnergyModelError
from nucleate.physics.energy import Capability, Energy, EnergyModel, ProcessSettings
from nucleate.processes import Worker, WorkerLost, share

PROGRAM = Path(__file__).with_name("worker.py")
QUIET = {"WANDB_MODE": "disabled", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TQDM_DISABLE": "1"}


class ProcessModel(EnergyModel):
    """An ASE calculator behind `settings.workers` worker processes.

    `calculator` is what `worker.build` takes: {"source": module or .py file, "name": ..., "options": {...}}.
    """

    def __init__(
        self, name: str, capability: Capability, calculator: dict[str, Any], settings: ProcessSettings
    ) -> None:
        self.name, self.capability, self.calculator, self.settings = name, capability, calculator, settings
        self._workers: list[Worker] = []

    def evaluate(self, crystals: Sequence[Crystal], *, gradient: bool = False) -> list[Energy]:
        settings = {"gradient": gradient}
        replies = self.ask_all("evaluate", crystals, settings, self.settings.time_limit)
        return [energy_of(reply, crystal) for reply, crystal in zip(replies, crystals)]

    def ask_all(
        self, verb: str, crystals: Sequence[Crystal], settings: dict[str, Any], limit: float | int
    ) -> list[dict[str, Any]]:
        """One reply a crystal, in order; refusals, crashes and time-outs are replies with a `failure`."""
        self.start()

        def one(worker: Worker, crystal: Crystal) -> dict[str, Any]:
            if refusal := self.capability.refusal(crystal):
                return {"failure": refusal, "seconds": 0.0}
            started = time.monotonic()
            try:
                return worker.ask(request_for(verb, crystal, settings), limit)
            except (WorkerLost, EnergyModelError) as lost:
                return {"failure": str(lost), "seconds": time.monotonic() - started}

        return share(self._workers, crystals, one, self.close)

    def start(self) -> None:
        if not self._workers:
            self._workers = [self._new_worker() for _ in range(self.settings.workers)]
        try:
            self._workers[0].start()
        except WorkerLost as lost:
            raise EnergyModelError(f"the energy model {self.name!r} could not start: {lost}") from None

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers = []

    def _new_worker(self) -> Worker:
        return Worker(
            PROGRAM,
            self.calculator,
            partial(_start_failure, settings=self.settings),
            python=self.settings.python,
            threads=self.settings.threads,
            start_limit=self.settings.start_limit,
            environment=QUIET,
        )


def request_for(verb: str, crystal: Crystal, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "verb": verb,
        "numbers": crystal.numbers.tolist(),
        "positions": crystal.positions.double().tolist(),
        "cell": crystal.lattice.double().tolist(),
        "settings": settings,
    }


def energy_of(reply: dict[str, Any], crystal: Crystal) -> Energy:
    """A worker's reply as an `Energy`, tensors in float64."""
    if "failure" in reply:
        return Energy(failure=reply["failure"], seconds=reply["seconds"])
    forces, stress = reply.get("forces"), reply.get("stress")
    return Energy(
        energy=reply["energy"],
        forces=None if forces is None else torch.tensor(forces, dtype=torch.float64).reshape(len(crystal), 3),
        stress=None if stress is None else torch.tensor(stress, dtype=torch.float64),
        seconds=reply["seconds"],
    )


def _start_failure(hello: dict[str, Any], settings: ProcessSettings) -> EnergyModelError:
    where = f" in {settings.python}" if settings.python is not None else ""
    if hello.get("missing"):
        return EnergyModelError(
            f"the energy model could not start: the package {hello['missing']!r} is not installed{where}. "
            "Install it there, or name the interpreter of an environment that has it"
        )
    return EnergyModelError(f"the energy model could not start{where}: {hello['failure']}")
