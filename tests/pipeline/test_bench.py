"""`nucleate bench`: every task does its work, and its speed is told."""

import pytest

from nucleate.pipeline import bench as verb


def test_every_task_is_done_twice_and_timed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verb, "STARTS", 4)
    monkeypatch.setattr(verb, "SHORTLIST", 1)
    for name in ("COMPARISONS", "CONFORMERS", "SAMPLES"):
        monkeypatch.setattr(verb, name, 2)
    told: list[tuple[str, int, int, str]] = []
    speeds = verb.bench(lambda *state: told.append(state))
    assert [s.task for s in speeds] == [task.name for task in verb.TASKS]
    assert all(s.per_cpu_second > 0 and s.ratio > 0 for s in speeds)
    assert told[-1] == ("bench", len(verb.TASKS), len(verb.TASKS), "")


def test_how_long_a_search_takes():
    speed = verb.Speed("search", "starts", 100.0, 1.0)
    assert verb.search_minutes(speed, 6000, 2) == pytest.approx(0.5)
