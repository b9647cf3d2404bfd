"""Processes that run units of a search, and end when they should.

A *job* is what one process does at a time: a unit, or some learned units, whose starts come from the same calls of the
network (each has a price of its own, and many units have few starts).
"""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from nucleate.crystal.packing import Packings
from nucleate.errors import NucleateError
from nucleate.pipeline.learned import LearnedGenerator
from nucleate.pipeline.units import Clock, Unit, UnitResult, run_unit

Job = tuple[Unit, ...]


def jobs_of(units: list[Unit], size: int) -> list[Job]:
    """Units in turn; learned ones join the last job of their kind while that holds at most `size` starts."""
    jobs: list[list[Unit]] = []
    learned: list[Unit] = []  # the job that is still open
    for unit in units:
        if unit.kind == "learned" and learned and sum(u.count for u in learned) + unit.count <= size:
            learned.append(unit)
            continue
        jobs.append([unit])
        if unit.kind == "learned":
            learned = jobs[-1]
    return [tuple(job) for job in jobs]


def run_job(context: tuple[Any, ...], job: Job, parents: Packings | None) -> Iterator[UnitResult]:
    """Results of the units of one job in turn; each bears its share of what sampling took."""
    composition, arms, field, settings, generator = context
    if job[0].kind != "learned":
        for unit in job:
            yield run_unit(composition, arms[unit.arm], field, settings, unit, parents)
        return
    assert isinstance(generator, LearnedGenerator), "a learned unit needs a generator"
    clock = Clock()
    wanted = [(arms[unit.arm], unit.first, unit.count) for unit in job]
    sampled = generator.batch(composition, wanted, settings.seed, settings.sequence)
    clock.lap("sample")
    each = clock.seconds["sample"] / sum(unit.count for unit in job)
    for unit, starts in zip(job, sampled):
        result = run_unit(composition, arms[unit.arm], field, settings, unit, None, starts)
        spent = result.seconds["generate"] + each * unit.count
        yield replace(result, seconds=result.seconds | {"generate": spent})


class Workers:
    """Processes that run jobs; one worker means this process itself.

    What goes to and fro is pickled here: left to multiprocessing, tensors would travel as open files, which a process
    that ends in between leaves hanging. Every process holds the far end of a pipe, the lifeline: when ours is closed,
    or we are gone, it ends at once.
    """

    def __init__(self, count: int, context: tuple[Any, ...]) -> None:
        self.count, self.context = count, context
        self.pool: ProcessPoolExecutor | None = None
        self.lifeline: Connection | None = None

    def __enter__(self) -> "Workers":
        if self.count > 1:
            spawn = multiprocessing.get_context("spawn")
            far_end, self.lifeline = spawn.Pipe(duplex=False)
            self.pool = ProcessPoolExecutor(
                self.count, spawn, _start_worker, (far_end, pickle.dumps(self.context))
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.stop()

    def stop(self) -> None:
        """End the processes without waiting for their units."""
        if self.lifeline is not None:
            self.lifeline.close()

    def run(
        self, jobs: list[Job], parents: Callable[[Unit], Packings | None], deadline: float | None
    ) -> Iterator[UnitResult]:
        """Results as they come; after the deadline running jobs are awaited and no more are begun."""

        def late() -> bool:
            return deadline is not None and time.monotonic() > deadline

        queue = iter(jobs)
        if self.pool is None:
            for job in queue:
                if late():
                    return
                yield from run_job(self.context, job, parents(job[0]))
            return
        running: set[Future[bytes]] = set()
        exhausted = False
        while True:
            while not exhausted and not late() and len(running) < self.count + 1:
                following = next(queue, None)
                if following is None:
                    exhausted = True
                else:
                    with _ctrl_c_held_back():  # a new process inherits this, so it never dies of Ctrl-C
                        running.add(
                            self.pool.submit(_run_in_worker, pickle.dumps((following, parents(following[0]))))
                        )
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            try:
                for future in done:
                    yield from pickle.loads(future.result())  # noqa: S301  our own worker wrote it
            except BrokenProcessPool:
                raise NucleateError(
                    "a worker process died (out of memory?). Finished units are kept: go on with --resume, with fewer "
                    "--workers if memory is short."
                ) from None


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Ctrl-C waits until the block is done (where signals can be blocked at all)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_WORKER_CONTEXT: dict[str, Any] = {}


def _start_worker(lifeline: Connection, context: bytes) -> None:
    """Each process works on one thread, leaves Ctrl-C to its parent and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    torch.set_num_threads(1)
    _WORKER_CONTEXT["context"] = pickle.loads(context)  # noqa: S301  our own parent wrote it


def _end_with(lifeline: Connection) -> None:
    """Thread: nothing is ever sent, so reading returns when the other end is closed."""
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(1)


def _run_in_worker(packed: bytes) -> bytes:
    job, parents = pickle.loads(packed)  # noqa: S301  our own parent wrote it
    return pickle.dumps(list(run_job(_WORKER_CONTEXT["context"], job, parents)))
