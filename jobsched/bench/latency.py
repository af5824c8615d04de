"""`bench latency`: how long a job waits between its dispatch and its start, on an idle node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import lmdb

from jobsched.bench.ground import ended_times, ground, node, wait_ready
from jobsched.bench.tasks import nothing
from jobsched.dispatcher import Dispatcher

__all__ = ["run_latency"]


def run_latency(jobs: int = 200, rate: float = 20.0, workers: int = 2) -> dict[str, float | int]:
    """Dispatch one job at a time, `rate` a second, and measure from the call to the job's start.

    Returns `jobs`, `rate`, `workers`, `p50_ms`, `p95_ms`, `p99_ms`, `max_ms`, and `commit_p50_ms`:
    what a bare LMDB commit takes at the same rate in the same place, which is the floor. (A disk
    that idles between two flushes is slower than one that does not.)
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
        commits = sorted(_commits(config.directory / "floor", jobs, rate))
    waits = sorted((times[job_id][0] - at) / 1000 for job_id, at in called.items())
    return {
        "jobs": jobs,
        "rate": rate,
        "workers": workers,
        **{f"p{share}_ms": round(_quantile(waits, share / 100), 3) for share in (50, 95, 99)},
        "max_ms": round(waits[-1], 3),
        "commit_p50_ms": round(_quantile(commits, 0.5), 3),
    }


def _commits(place: Path, count: int, rate: float) -> Iterator[float]:
    """Yield how long bare commits take, in milliseconds."""
    with lmdb.open(str(place), map_size=1 << 24, lib_version=0) as env:
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            start = time.perf_counter()
            with env.begin(write=True) as txn:
                txn.put(number.to_bytes(8, "big"), bytes(300))
            yield (time.perf_counter() - start) * 1000


def _quantile(values: list[float], share: float) -> float:
    """Return a quantile of sorted values, by the nearest rank."""
    return values[min(len(values) - 1, int(share * len(values)))]
