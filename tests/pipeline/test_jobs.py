"""Jobs in processes: what one job does to itself is no other's business, and no process outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from nucleate.errors import NucleateError
from nucleate.pipeline.jobs import CRASHED, FAILED, KILLED, LATE, Answer, Job, answers

PROGRAM = Path(__file__).with_name("stand_in_jobs.py")


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def run(wishes: Sequence[str], workers: int = 2, limit: float = 30.0) -> dict[int, Answer]:
    jobs = [Job(i, {"smiles": wish}) for i, wish in enumerate(wishes)]
    with closing(answers(PROGRAM, {}, jobs, workers, limit)) as found:
        return {answer.number: answer for answer in found}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_loss_costs_its_own_job_only(workers: int) -> None:
    found = run(["", "CRASH", "", "FAIL", "HANG", "", ""], workers, limit=1.5)
    assert [found[i].lost for i in range(7)] == ["", CRASHED, "", FAILED, LATE, "", ""]
    assert "exit code 7" in found[1].why
    assert "no idea" in found[3].why
    assert found[6].reply["outcome"] == "done"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
def test_a_job_that_was_killed_from_outside_is_done_once_more(tmp_path: Path) -> None:
    found = run(["", f"KILL {tmp_path / 'mark'}", "KILL", ""])
    assert [found[i].lost for i in range(4)] == ["", "", KILLED, ""]
    assert found[1].reply["outcome"] == "done"
    assert (
        found[2].why
        == "crashed: killed by SIGKILL (out of memory?), twice; fewer --workers leave more memory to each"
    )


def test_no_jobs_no_answers() -> None:
    assert run([]) == {}


def test_a_program_that_cannot_start_ends_everything() -> None:
    with pytest.raises(NucleateError, match="not today"):
        list(answers(PROGRAM, {"refuse": True}, [Job(0, {})], 1, 5.0))


def test_closing_ends_the_processes_at_once() -> None:
    started = time.monotonic()
    jobs = [Job(i, {"smiles": wish}) for i, wish in enumerate(["", "HANG", "HANG"])]
    with closing(answers(PROGRAM, {}, jobs, 2, 300.0)) as found:
        pid = next(found).reply["pid"]
        assert alive(pid)
    assert time.monotonic() - started < 20
    assert not alive(pid)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_processes_do_not_outlive_their_parent(how: signal.Signals, tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from nucleate.pipeline.jobs import Job, answers\n"
        f"jobs = [Job(i, {{'smiles': s}}) for i, s in enumerate(['', 'HANG', 'HANG'])]\n"
        f"for answer in answers(Path({str(PROGRAM)!r}), {{}}, jobs, 2, 300.0):\n"
        "    print(answer.reply['pid'], flush=True)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    os.kill(parent.pid, how)
    parent.communicate(timeout=10)
    wait_until(lambda: not alive(pid), 10)
