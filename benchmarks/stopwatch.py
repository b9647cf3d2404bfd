"""What the benchmarks of speed share. Not a program."""

import time
from collections.abc import Callable
from statistics import median


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """The median over repeats, after one that does not count."""
    spent = []
    for _ in range(repeats + 1):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return median(spent[1:])
