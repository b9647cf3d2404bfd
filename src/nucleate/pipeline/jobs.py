"""Many jobs in processes of their own: a crash or a hang costs the job at hand, an interruption those under way.

Where a process is killed from outside, as the system does when memory is short, its job is done once more.
"""

import threading
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from nucleate.errors import NucleateError
from nucleate.processes import Worker, WorkerLost

LATE, CRASHED, KILLED, FAILED = "timed out", "crashed", "killed", "failed"


@dataclass(frozen=True)
class Job:
    """A number by which the caller knows it, and what the program is asked."""

    number: int
    request: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The program's reply, or why there is none: `LATE`, `CRASHED`, `KILLED` or `FAILED`, explained in `why`."""

    number: int
    reply: dict[str, Any]
    lost: str = ""
    why: str = ""


def answers(
    program: Path, opening: dict[str, Any], jobs: Iterable[Job], workers: int, limit: float
) -> Generator[Answer, None, None]:
    """Answers in the order in which they are finished, each job at most `limit` seconds in one of `workers` processes.

    `program` is a file as `nucleate.far_end` runs it, `opening` its first request. A process that crashes or exceeds
    the limit is killed with all it started and replaced. Close the iterator (`contextlib.closing`) to end the
    processes; they end by themselves when this one is gone. Raises NucleateError where no process can be started.
    """
    queue, gate = iter(jobs), threading.Lock()
    finished: Queue[Answer | None] = Queue()
    crew = [Worker(program, opening, _refusal) for _ in range(workers)]

    def following() -> Job | None:
        with gate:  # generators cannot be shared by threads
            return next(queue, None)

    def serve(worker: Worker) -> None:
        try:
            while (job := following()) is not None:
                finished.put(_ask(worker, job, limit))
        finally:
            finished.put(None)

    pool = ThreadPoolExecutor(workers)
    try:
        serving = [pool.submit(serve, worker) for worker in crew]
        for _ in serving:
            while (answer := finished.get()) is not None:
                yield answer
        for thread in serving:
            thread.result()  # raises what ended it
    finally:
        for worker in crew:
            worker.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _ask(worker: Worker, job: Job, limit: float, again: bool = True) -> Answer:
    try:
        worker.start()
    except WorkerLost as lost:
        if lost.killed and again:
            return _ask(worker, job, limit, again=False)
        raise NucleateError(
            f"expected a worker process to start, got one that {lost}; see --workers"
        ) from None
    try:
        reply = worker.ask(job.request, limit)
    except WorkerLost as lost:
        if lost.killed and again:
            return _ask(worker, job, limit, again=False)
        if lost.killed:
            why = f"{lost}, twice; fewer --workers leave more memory to each"
            return Answer(job.number, {}, KILLED, why)
        return Answer(job.number, {}, LATE if lost.late else CRASHED, str(lost))
    if "failure" in reply:
        return Answer(job.number, {}, FAILED, reply["failure"])
    return Answer(job.number, reply)


def _refusal(hello: dict[str, Any]) -> NucleateError:
    return NucleateError(f"expected a worker process to start, got {hello['failure']}")
