"""`bench latency`: how long a job waits between its dispatch and its start, on an idle node."""

from __future__ import annotations

import time

from jobsched.bench.ground import ended_times, ground, node, wait_ready
from jobsched.bench.tasks import nothing
from jobsched.dispatcher import Dispatcher

__all__ = ["run_latency"]


def run_latency(jobs: int = 200, rate: float = 20.0, workers: int = 2) -> dict[str, float | int]:
    """Dispatch one job at a time, `rate` a second, and measure from the call to the job's start.

    Returns `jobs`, `rate`, `workers`, and `p50_ms`, `p95_ms`, `p99_ms`, `max_ms`.
    """
    with ground(workers) as config:
        dispatcher = Dispatcher(config)
        called: dict[bytes, int] = {}
        with node(config):
            wait_ready(dispatcher)
            began = time.monotonic()
            for number in range(jobs):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                job = dispatcher.prepare(nothing)
                called[job.id] = time.time_ns() // 1000
                dispatcher.dispatch_many([job])
            for job_id in called:
                dispatcher.look(job_id, 30)
        dispatcher.close()
        times = ended_times(config)
    waits = sorted((times[job_id][0] - at) / 1000 for job_id, at in called.items())
    return {
        "jobs": jobs,
        "rate": rate,
        "workers": workers,
        **{f"p{share}_ms": round(_quantile(waits, share / 100), 3) for share in (50, 95, 99)},
        "max_ms": round(waits[-1], 3),
    }


def _quantile(values: list[float], share: float) -> float:
    """Return a quantile of sorted values, by the nearest rank."""
    return values[min(len(values) - 1, int(share * len(values)))]
