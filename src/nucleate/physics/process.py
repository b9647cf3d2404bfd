"""An energy model in a process of its own: a crash, a hang or a conflict of packages stays in there.

    crystal --request--> worker process (`worker.py`, any interpreter) --reply--> Energy

A worker answers one request at a time within a time limit. If it does not, or dies, it is killed with all it
started, the structure gets that as its failure, and the next structure finds a fresh worker.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import TextIOBase
from pathlib import Path
from typing import IO, Any

import torch

from nucleate.crystal.crystal import Crystal
from nucleate.errors import EnergyModelError
from nucleate.physics.energy import Capability, Energy, EnergyModel, ProcessSettings

WORKER = Path(__file__).with_name("worker.py")
QUIET = {"WANDB_MODE": "disabled", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TQDM_DISABLE": "1"}


class WorkerLost(Exception):  # noqa: N818  (an event, and its reason)
    """The process died or was killed; the text is the reason to report for the structure at hand."""


class Worker:
    """One process and the pipe to it. Started when first asked, and again after it was lost."""

    def __init__(self, calculator: dict[str, Any], settings: ProcessSettings) -> None:
        self.calculator, self.settings = calculator, settings
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._complaints: IO[bytes] | None = None
        self._closed = False

    def ask(self, request: dict[str, Any], limit: float | int) -> dict[str, Any]:
        """The reply to a request. Raises WorkerLost after a crash or `limit` seconds."""
        self.start()
        return self._exchange(request, limit, f"timed out after {limit:g} s")

    def close(self) -> None:
        """Kill the process; asking again is refused (a closing model must not start new ones)."""
        self._closed = True
        self._kill()

    def start(self) -> None:
        """Start the process unless it runs. Raises WorkerLost, or EnergyModelError with what is missing."""
        if self._process is None:
            self._launch()
            self._greet()

    def _launch(self) -> None:
        if self._closed:
            raise WorkerLost("stopped")
        environment = {**os.environ, **QUIET}
        for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
            environment[f"{library}_NUM_THREADS"] = str(self.settings.threads)
        if self.settings.python is not None:
            environment.pop("PYTHONPATH", None)  # it belongs to this environment, not to that one
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  closed by _kill
        self._process = subprocess.Popen(
            [str(self.settings.python or sys.executable), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C reaches us only, and the whole group can be killed
        )
        weakref.finalize(self, _kill_if_running, self._process)
        self._replies = queue.Queue()
        threading.Thread(target=_forward, args=(self._process.stdout, self._replies), daemon=True).start()

    def _greet(self) -> None:
        limit = self.settings.start_limit
        hello = self._exchange(self.calculator, limit, f"did not start within {limit:g} s")
        if "failure" in hello:
            self._kill()
            raise EnergyModelError(_start_failure(hello, self.settings))

    def _exchange(self, request: dict[str, Any], limit: float | int, late: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._replies.get(timeout=limit)
        except queue.Empty:
            self._kill()
            raise WorkerLost(late) from None
        except OSError:
            line = None
        except BaseException:  # Ctrl-C: the reply would come at a wrong time, so the process has to go
            self._kill()
            raise
        if line is None:
            raise WorkerLost(self._autopsy())
        return json.loads(line)

    def _autopsy(self) -> str:
        """Bury a dead process and say what it died of."""
        assert self._process is not None
        assert self._complaints is not None
        if self._closed:
            return "stopped"
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None  # it closed its pipe but lives on
        self._complaints.seek(max(0, self._complaints.seek(0, os.SEEK_END) - 2000))
        words = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        self._kill()
        how = "closed its pipe" if code is None else f"exit code {code}" if code >= 0 else _signal_name(-code)
        return f"crashed: {how}" + (f" ({words[-1].strip()[:200]})" if words else "")

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _kill_group(process)
        for pipe in (process.stdin, self._complaints):
            try:
                if pipe is not None:
                    pipe.close()
            except BrokenPipeError:
                continue  # half a request was still in the buffer; nobody is there to read it


class ProcessModel(EnergyModel):
    """An ASE calculator behind `settings.workers` worker processes.

    `calculator` is what `worker.build` takes: {"source": module or .py file, "name": ..., "options": {...}}.
    """

    def __init__(
        self, name: str, capability: Capability, calculator: dict[str, Any], settings: ProcessSettings
    ) -> None:
        self.name, self.capability, self.calculator, self.settings = name, capability, calculator, settings
        self._idle: queue.Queue[Worker] = queue.Queue()
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

        def one(crystal: Crystal) -> dict[str, Any]:
            if refusal := self.capability.refusal(crystal):
                return {"failure": refusal, "seconds": 0.0}
            return self._with_worker(lambda w: w.ask(request_for(verb, crystal, settings), limit))

        try:
            if len(self._workers) == 1:
                return [one(crystal) for crystal in crystals]
            with ThreadPoolExecutor(len(self._workers)) as pool:
                futures = [pool.submit(one, crystal) for crystal in crystals]
                try:
                    return [future.result() for future in futures]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self.close()  # ends the requests that the pool would otherwise wait for
                    raise
        except KeyboardInterrupt:
            self.close()
            raise

    def start(self) -> None:
        if not self._workers:
            self._workers = [Worker(self.calculator, self.settings) for _ in range(self.settings.workers)]
            self._idle = queue.Queue()
            for worker in self._workers:
                self._idle.put(worker)
        try:
            self._workers[0].start()
        except WorkerLost as lost:
            raise EnergyModelError(f"the energy model {self.name!r} could not start: {lost}") from None

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers = []

    def _with_worker(self, ask: Callable[[Worker], dict[str, Any]]) -> dict[str, Any]:
        worker, started = self._idle.get(), time.monotonic()
        try:
            return ask(worker)
        except (WorkerLost, EnergyModelError) as lost:
            return {"failure": str(lost), "seconds": time.monotonic() - started}
        finally:
            self._idle.put(worker)


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


def _forward(pipe: TextIOBase, replies: "queue.Queue[str | None]") -> None:
    """Thread: lines into the queue, None at the end of the pipe."""
    with pipe:
        for line in pipe:
            replies.put(line)
    replies.put(None)


def _kill_group(process: "subprocess.Popen[str]") -> None:
    """Kill a process and, where groups exist, everything it started, even if it has just died itself."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


def _kill_if_running(process: "subprocess.Popen[str]") -> None:
    """For the end of the program, when a process id of long ago may be somebody else's."""
    if process.poll() is None:
        _kill_group(process)


def _signal_name(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"killed by signal {number}"


def _start_failure(hello: dict[str, Any], settings: ProcessSettings) -> str:
    where = f" in {settings.python}" if settings.python is not None else ""
    if hello.get("missing"):
        return (
            f"the energy model could not start: the package {hello['missing']!r} is not installed{where}. "
            "Install it there, or name the interpreter of an environment that has it"
        )
    return f"the energy model could not start{where}: {hello['failure']}"
