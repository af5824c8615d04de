"""`bench drain`: how fast queued jobs go through the pool."""

from __future__ import annotations

import contextlib
import subprocess
import time
from itertools import repeat

import psutil

from jobsched.bench.floor import BULK, run_floor
from jobsched.bench.ground import children_cpu_s, ground, node, reading, state_count, wait_for_end
from jobsched.bench.report import Tell, silent, waits
from jobsched.bench.runs import ended_runs, gaps_ms, idle_share
from jobsched.bench.tasks import nothing, rest
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobschedError
from jobsched.job import State

__all__ = ["queue_jobs", "run_drain"]

_KNOCK_S = 0.005


def run_drain(
    jobs: int = 20_000, workers: int = 2, sleep_s: float = 0.0, *, floor: bool = False, tell: Tell = silent
) -> dict[str, float | int]:
    """Queue jobs, start a node, and measure from the first job's start to the last one's end.

    Returns `enqueue_jobs_per_s` (10,000 a commit), `jobs_per_s`, `seconds`. Where jobs take time, also
    `idle_share`: of the workers' time, in which none ran though some waited; and `gap_p50_ms` to
    `gap_max_ms` between two jobs of a worker. With the `floor` it is measured right after:
    `floor_jobs_per_s`, and `of_floor`, our share of it; and `cpu_us` and `floor_cpu_us`, the processor
    time for a job in all processes, which a loaded machine changes less. What a node takes to start is
    not counted.
    """
    with ground(workers) as config:
        began = time.perf_counter()
        queue_jobs(config, jobs, sleep_s, tell)
        enqueued = time.perf_counter() - began
        cpu_us = _drained(config, jobs, tell)
        runs = ended_runs(config)
    if len(runs) != jobs:
        raise JobschedError(f"{len(runs):,} of {jobs:,} jobs completed")
    seconds = (max(run.ended_at for run in runs) - min(run.started_at for run in runs)) / 1e6
    rate = jobs / seconds
    figures = {
        "enqueue_jobs_per_s": round(jobs / enqueued),
        "jobs_per_s": round(rate),
        "seconds": round(seconds, 3),
    }
    if sleep_s:
        figures["idle_share"] = round(idle_share(runs, workers), 4)
        figures |= waits(gaps_ms(runs)[0], "gap_")
    if floor:
        least = run_floor(jobs, workers)
        figures |= {
            "floor_jobs_per_s": least["jobs_per_s"],
            "of_floor": round(rate / least["jobs_per_s"], 3),
            "cpu_us": round(cpu_us, 1),
            "floor_cpu_us": least["cpu_us"],
        }
    return figures


def _drained(config: Config, jobs: int, tell: Tell) -> float:
    """Run a node until it is idle; return the processor time for a job, of it and its workers together,
    in microseconds, from when the first ones have ended.
    """
    before = children_cpu_s()
    with node(config, "--until-idle") as process:
        completed, started_s = _begun(config, process)
        wait_for_end(process, config, tell, jobs)
    return (children_cpu_s() - before - started_s) / max(1, jobs - completed) * 1e6


def _begun(config: Config, process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait until jobs have ended; return how many, and the processor time taken so far."""
    with reading(config) as store, contextlib.suppress(psutil.NoSuchProcess):
        while process.poll() is None:
            if completed := state_count(store, State.COMPLETED):
                own = psutil.Process(process.pid)
                times = [part.cpu_times() for part in (own, *own.children(recursive=True))]
                return completed, sum(part.user + part.system for part in times)
            time.sleep(_KNOCK_S)
    return 0, 0.0


def queue_jobs(config: Config, count: int, sleep_s: float = 0.0, tell: Tell = silent) -> None:
    """Queue jobs that do nothing, or sleep, 10,000 a commit."""
    task, arguments = (rest, (sleep_s,)) if sleep_s else (nothing, ())
    dispatcher = Dispatcher(config)
    for first in range(0, count, BULK):
        tell("jobs queued", first, count)
        dispatcher.dispatch_each(task, repeat(arguments, min(BULK, count - first)))
    dispatcher.close()
