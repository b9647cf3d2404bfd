"""`nucleate bench`: how fast is this machine?"""

import json
from dataclasses import asdict

from nucleate.cli.options import AsJson, cores
from nucleate.cli.terminal import out, print_rows, progress_bar


def bench(as_json: AsJson = False) -> None:
    """Time small tasks on this machine, beside a known one: is all well, and how long will a search take?

    Example: nucleate bench
    """
    from nucleate.pipeline.bench import bench as run
    from nucleate.pipeline.bench import search_minutes
    from nucleate.pipeline.predict import PredictSettings

    with progress_bar() as tell:
        speeds = run(tell)
    if as_json:
        print(json.dumps([asdict(speed) for speed in speeds]))
        return
    print_rows(
        [
            {
                "task": s.task,
                "per CPU-second": f"{s.per_cpu_second:.0f} {s.unit}",
                "known machine": f"x {s.ratio:.2f}",
            }
            for s in speeds
        ],
        False,
    )
    starts = PredictSettings().n
    minutes = search_minutes(speeds[0], starts, cores())
    out.print(
        f"a search of {starts} starts of aspirin takes about {minutes:.1f} minutes on {cores()} cores",
        style="dim",
    )
