"""`bench latency`: how long a job waits between its dispatch and its start, on an idle node."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context, resource_tracker

import lmdb

from jobsched.bench.floor_store import commit_ms
from jobsched.bench.ground import ground, node, pace, unheard_interrupts, wait_ready
from jobsched.bench.report import Tell, silent, waits
from jobsched.bench.runs import ended_runs
from jobsched.bench.tasks import nothing
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher

__all__ = ["run_latency"]

_RIVALS = 3  # us, the bare commit, the executor
_WAIT_S = 30.0


def run_latency(
    jobs: int = 200, rate: float = 20.0, workers: int = 2, *, tell: Tell = silent
) -> dict[str, float | int]:
    """Dispatch one job at a time, `rate` a second, and measure from the call to the job's start.

    Between two of them come a bare LMDB commit in the same place, and a call by a
    `ProcessPoolExecutor`, which keeps nothing. All three have the same rate, because a disk that
    idles between two flushes is slower than one that does not.

    Returns `p50_ms`, `p95_ms`, `p99_ms`, `max_ms`; the same with `commit_` and `executor_` in front;
    and `p50_in_commits`, ours as a multiple of the bare commit's.
    """
    with ground(workers) as config:
        called, commits, submits = _measured(config, jobs, rate, workers, tell)
        started = {run.job: run.started_at for run in ended_runs(config)}
    ours = waits([(started[job] - at) / 1000 for job, at in called.items()])
    bare = waits(commits, "commit_")
    in_commits = ours["p50_ms"] / bare["commit_p50_ms"]
    return {**ours, **bare, **waits(submits, "executor_"), "p50_in_commits": round(in_commits, 2)}


def _measured(
    config: Config, jobs: int, rate: float, workers: int, tell: Tell
) -> tuple[dict[bytes, int], list[float], list[float]]:
    """Return when each job was dispatched (UTC microseconds), and the milliseconds that each commit
    took and each call by the executor.
    """
    called: dict[bytes, int] = {}
    commits: list[float] = []
    submits: list[float] = []
    with ExitStack() as stack:
        dispatcher = Dispatcher(config)
        stack.callback(dispatcher.close)
        executor = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn")))
        resource_tracker.ensure_running()  # when it starts it lets interrupts through again
        with unheard_interrupts():
            _submit_ms(executor)  # its process is up
        stack.enter_context(node(config))
        wait_ready(dispatcher)
        env = stack.enter_context(lmdb.open(str(config.directory / "bare"), lib_version=0))
        ticks = pace(rate * _RIVALS)
        for number in range(jobs):
            tell("jobs", number, jobs)
            next(ticks)
            job = dispatcher.prepare(nothing)
            called[job.id] = time.time_ns() // 1000
            dispatcher.dispatch_many([job])
            next(ticks)
            commits.append(commit_ms(env, number))
            next(ticks)
            submits.append(_submit_ms(executor))
        for job_id in called:
            dispatcher.look(job_id, _WAIT_S)
    return called, commits, submits


def _submit_ms(executor: ProcessPoolExecutor) -> float:
    """Return how long a call waits until it starts in a process of the executor."""
    called = time.time_ns()
    return (executor.submit(time.time_ns).result(_WAIT_S) - called) / 1e6
