"""Work in processes of their own: a crash, a hang or a conflict of packages stays in there.

    request --JSON--> worker process (`far_end.py` with a program, any interpreter) --JSON--> reply

A worker answers one request at a time within a time limit. If it does not, or dies, it is killed with all it
started, the request at hand gets that as its answer, and the next one finds a fresh process.
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
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import TextIOBase
from pathlib import Path
from typing import IO, Any, TypeVar

FAR_END = Path(__file__).with_name("far_end.py")
NOTHING: Mapping[str, str] = {}

W = TypeVar("W")
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class WorkerLost(Exception):  # noqa: N818  (an event, and its reason)
    """The process died or was killed; the text is the reason to report for the request at hand."""

    def __init__(self, reason: str, late: bool = False, killed: bool = False) -> None:
        super().__init__(reason)
        self.late = late  # killed at the time limit
        self.killed = killed  # by somebody else, as the system does where memory is short


class Worker:
    """One process and the pipe to it. Started when first asked, and again after it was lost.

    `program` is the file that `far_end` runs, `opening` the first request to it. A process that answers
    `opening` with a failure is ended, and `refuse` makes the exception to raise from its reply. `python` is
    the interpreter (None: this one), `start_limit` the time (s) that answering `opening` may take.
    """

    def __init__(
        self,
        program: Path,
        opening: dict[str, Any],
        refuse: Callable[[dict[str, Any]], Exception],
        *,
        python: Path | None = None,
        threads: int = 1,
        start_limit: float | int = 300.0,
        environment: Mapping[str, str] = NOTHING,
    ) -> None:
        self.program, self.opening, self.refuse = program, opening, refuse
        self.python, self.threads, self.start_limit = python, threads, start_limit
        self.environment = environment
        self.starts = 0  # processes so far; a new one knows nothing of what the last was told
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._complaints: IO[bytes] | None = None
        self._closed = False
        self._gate = threading.Lock()  # no process may start while another thread closes the worker

    def ask(self, request: dict[str, Any], limit: float | int) -> dict[str, Any]:
        """The reply to a request. Raises WorkerLost after a crash or `limit` seconds."""
        self.start()
        return self._exchange(request, limit, f"timed out after {limit:g} s")

    def close(self) -> None:
        """Kill the process; asking again is refused (an owner that closes must not start new ones)."""
        with self._gate:
            self._closed = True
        self._kill()

    def start(self) -> None:
        """Start the process unless it runs. Raises WorkerLost, or what `refuse` makes of its refusal."""
        if self._process is None:
            self._launch()
            self._greet()

    def _launch(self) -> None:
        environment = {**os.environ, **self.environment}
        for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
            environment[f"{library}_NUM_THREADS"] = str(self.threads)
        if self.python is not None:
            environment.pop("PYTHONPATH", None)  # it belongs to this environment, not to that one
        with self._gate:
            if self._closed:
                raise WorkerLost("stopped")
            self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  closed by _kill
            self._process = process = subprocess.Popen(
                [str(self.python or sys.executable), str(FAR_END), str(self.program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # Ctrl-C reaches us only, and the whole group can be killed
            )
            self.starts += 1
        weakref.finalize(self, _kill_if_running, process)
        self._replies = queue.Queue()
        threading.Thread(target=_forward, args=(process.stdout, self._replies), daemon=True).start()

    def _greet(self) -> None:
        limit = self.start_limit
        hello = self._exchange(self.opening, limit, f"did not start within {limit:g} s")
        if "failure" in hello:
            self._kill()
            raise self.refuse(hello)

    def _exchange(self, request: dict[str, Any], limit: float | int, late: str) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None:
            raise WorkerLost("stopped")  # closed by another thread just now
        message = json.dumps(request) + "\n"
        try:
            process.stdin.write(message)
            process.stdin.flush()
            line = self._replies.get(timeout=limit)
        except queue.Empty:
            self._kill()
            raise WorkerLost(late, late=True) from None
        except (OSError, ValueError):  # the pipe broke, or another thread has closed it
            line = None
        except BaseException:  # Ctrl-C: the reply would come at a wrong time, so the process has to go
            self._kill()
            raise
        if line is None:
            raise self._autopsy()
        return json.loads(line)

    def _autopsy(self) -> WorkerLost:
        """Bury a dead process and say what it died of."""
        process, complaints = self._process, self._complaints
        if self._closed or process is None or complaints is None:
            return WorkerLost("stopped")
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None  # it closed its pipe but lives on
        complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - 2000))
        words = complaints.read().decode("utf-8", "replace").strip().splitlines()
        self._kill()
        how = "closed its pipe" if code is None else f"exit code {code}" if code >= 0 else _signal_name(-code)
        killed = code is not None and -code == getattr(signal, "SIGKILL", None)
        reason = "out of memory?" if killed else words[-1].strip()[:200] if words else ""
        return WorkerLost(f"crashed: {how}" + (f" ({reason})" if reason else ""), killed=killed)

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


def share(
    workers: Sequence[W],
    items: Sequence[Item],
    do: Callable[[W, Item], Answer],
    stop: Callable[[], None],
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """`do(worker, item)` for every item, in order; each worker is busy with one item at a time.

    `progress(done, total)` is called in the caller's thread. Whatever is raised, Ctrl-C included, `stop` is
    called to end what is still being waited for, and it is raised again.
    """
    idle: queue.Queue[W] = queue.Queue()
    for worker in workers:
        idle.put(worker)

    def one(item: Item) -> Answer:
        worker = idle.get()
        try:
            return do(worker, item)
        finally:
            idle.put(worker)

    answers: list[Answer] = []
    try:
        if len(workers) == 1:
            for item in items:
                answers.append(one(item))
                _tell(progress, len(answers), len(items))
            return answers
        with ThreadPoolExecutor(len(workers)) as pool:
            futures = [pool.submit(one, item) for item in items]
            try:
                for future in futures:
                    answers.append(future.result())
                    _tell(progress, len(answers), len(items))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                stop()  # ends the requests that the pool would otherwise wait for
                raise
        return answers
    except BaseException:
        stop()
        raise


def _tell(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


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
