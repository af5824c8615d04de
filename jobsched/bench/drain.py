"""`bench drain`: how fast queued no-op jobs go through the pool."""

from __future__ import annotations

import time

from jobsched.bench.ground import ended_times, ground, node
from jobsched.bench.tasks import nothing
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobschedError

__all__ = ["run_drain"]

_BATCH = 10_000


def run_drain(jobs: int = 20_000, workers: int = 2) -> dict[str, float | int]:
    """Queue no-op jobs, start a node, and measure from the first job's start to the last one's end.

    Returns `jobs`, `workers`, `enqueue_jobs_per_s` (10,000 a commit), `jobs_per_s`, `seconds`.
    """
    with ground(workers) as config:
        dispatcher = Dispatcher(config)
        began = time.perf_counter()
        for first in range(0, jobs, _BATCH):
            count = min(_BATCH, jobs - first)
            dispatcher.dispatch_many([dispatcher.prepare(nothing) for _ in range(count)])
        enqueued = time.perf_counter() - began
        dispatcher.close()
        with node(config, "--until-idle") as process:
            process.wait()
        times = ended_times(config).values()
    if len(times) != jobs:
        raise JobschedError(f"{len(times):,} of {jobs:,} jobs completed")
    seconds = (max(end for _, end in times) - min(start for start, _ in times)) / 1e6
    return {
        "jobs": jobs,
        "workers": workers,
        "enqueue_jobs_per_s": round(jobs / enqueued),
        "jobs_per_s": round(jobs / seconds),
        "seconds": round(seconds, 3),
    }
