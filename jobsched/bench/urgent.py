"""`bench urgent`: how long urgent jobs wait while a long queue of others keeps all workers busy."""

from __future__ import annotations

import time
from contextlib import ExitStack

from jobsched.bench.drain import queue_jobs
from jobsched.bench.ground import (
    await_answer,
    await_completed,
    ground,
    node,
    pace,
    reading,
    state_count,
)
from jobsched.bench.report import Tell, silent, waits
from jobsched.bench.runs import busy_us, ended_runs
from jobsched.bench.tasks import nothing
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobschedError
from jobsched.job import State

__all__ = ["run_urgent"]

_CATEGORIES = """\
[categories.urgent]
priority = 10
min_workers = {reserve}

[categories.bench]
"""
_WARM_JOBS = 20  # that have run before the first urgent one
_WAIT_S = 30.0


def run_urgent(
    *,
    jobs: int = 200,
    rate: float = 20.0,
    bulk: int = 20_000,
    sleep_s: float = 0.005,
    workers: int = 4,
    reserve: int = 0,
    tell: Tell = silent,
) -> dict[str, float]:
    """Queue bulk jobs that sleep, start a node, and dispatch `jobs` urgent ones that do nothing,
    `rate` a second, to a category of ten times the priority. `reserve` workers are kept for it.

    Returns `p50_ms`, `p95_ms`, `p99_ms`, `max_ms` from the call of an urgent job to its start, and
    from the first of these calls to the last: `bulk_jobs_per_s`, and `bulk_share`, of the workers'
    time that the urgent ones left, in which bulk jobs ran. Raises JobschedError if those run out.
    """
    with ground(workers, _CATEGORIES.format(reserve=reserve)) as config:
        queue_jobs(config, bulk, sleep_s)
        with node(config) as process:
            await_answer(config, process).close()
            await_completed(config, min(_WARM_JOBS, bulk))
            called = _dispatched(config, jobs, rate, tell)
            with reading(config) as store:
                waiting = state_count(store, State.PENDING)
        runs = ended_runs(config)
    if not waiting:
        raise JobschedError(f"all of {bulk:,} bulk jobs ended before the last urgent one: queue more")
    started = {run.job: run.started_at for run in runs}
    first, last = min(called.values()), max(called.values())
    busy = busy_us([run for run in runs if run.category == "bench"], first, last)
    left = workers * (last - first) - busy_us([run for run in runs if run.category == "urgent"], first, last)
    ended = sum(first <= run.ended_at < last for run in runs if run.category == "bench")
    return {
        **waits([(started[job] - at) / 1000 for job, at in called.items()]),
        "bulk_jobs_per_s": round(ended / max(1, last - first) * 1e6),
        "bulk_share": round(busy / max(1, left), 4),
    }


def _dispatched(config: Config, jobs: int, rate: float, tell: Tell) -> dict[bytes, int]:
    """Dispatch urgent jobs; return when each was, in UTC microseconds, after all have ended."""
    called: dict[bytes, int] = {}
    with ExitStack() as stack:
        dispatcher = Dispatcher(config)
        stack.callback(dispatcher.close)
        for number, _ in zip(range(jobs), pace(rate), strict=False):
            tell("urgent jobs", number, jobs)
            job = dispatcher.prepare(nothing, "urgent")
            called[job.id] = time.time_ns() // 1000
            dispatcher.dispatch_many([job])
        for job_id in called:
            dispatcher.look(job_id, _WAIT_S)
    return called
