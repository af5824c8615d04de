"""`bench floor`: what no scheduler could avoid between a queue on disk and two processes.

The store's own rows, written and deleted by the fastest calls that LMDB has, with every commit
flushed, and the frames of our wire to forked processes that answer each job. Nothing in between: no
status is read or encoded, nothing is checked or counted, nobody asks whose turn it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from jobsched.bench.floor_store import FloorStore
from jobsched.bench.floor_worker import FloorWorker
from jobsched.bench.ground import children_cpu_s, ground
from jobsched.bench.report import Tell, silent
from jobsched.bench.tasks import nothing
from jobsched.clock import SystemClock
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobschedError
from jobsched.prepared import new_job
from jobsched.store.base import Outcome

__all__ = ["BATCH", "BULK", "fill_floor", "run_floor"]

BATCH = 256
"""Jobs that one worker holds at most, as in the node."""

BULK = 10_000
"""Jobs in a commit of a bulk dispatch."""


def run_floor(
    jobs: int = 20_000, workers: int = 2, batch: int = BATCH, *, tell: Tell = silent
) -> dict[str, float | int]:
    """Write no-op jobs, then take them through the processes, `batch` at a time for each.

    Returns `enqueue_jobs_per_s` (10,000 a commit), `jobs_per_s` from the first claim to the last commit,
    `seconds`, `commits`, and `commit_seconds`: how much of that time they took; `cpu_us`, the processor
    time for a job in all processes.
    """
    cpu_s = -children_cpu_s()
    with ground(workers) as config, ExitStack() as stack:
        crew = [stack.enter_context(FloorWorker()) for _ in range(workers)]  # forked before LMDB is open
        store = stack.enter_context(FloorStore(config.directory / "floor"))
        enqueued = fill_floor(store, config, jobs)
        store.commits, store.commit_s = 0, 0.0
        began, own_s = time.perf_counter(), time.process_time()
        _drain(store, crew, batch, lambda ended: tell("jobs", ended, jobs))
        seconds = time.perf_counter() - began
        cpu_s += time.process_time() - own_s
        ended = store.ended
    cpu_s += children_cpu_s()
    if ended != jobs:
        raise JobschedError(f"the floor has ended {ended:,} of {jobs:,} jobs")
    return {
        "enqueue_jobs_per_s": round(jobs / enqueued),
        "jobs_per_s": round(jobs / seconds),
        "seconds": round(seconds, 3),
        "commits": store.commits,
        "commit_seconds": round(store.commit_s, 3),
        "cpu_us": round(cpu_s / jobs * 1e6, 1),
    }


def fill_floor(store: FloorStore, config: Config, jobs: int) -> float:
    """Queue no-op jobs, 10,000 a commit; return the seconds that it took, their encoding not counted."""
    dispatcher, now = Dispatcher(config), SystemClock().now()
    prepared = [new_job(dispatcher.prepare(nothing), now) for _ in range(jobs)]
    began = time.perf_counter()
    for first in range(0, jobs, BULK):
        store.add(prepared[first : first + BULK])
    return time.perf_counter() - began


def _drain(store: FloorStore, crew: Sequence[FloorWorker], batch: int, tell: Callable[[int], None]) -> None:
    """Have all workers answer, and end those jobs in the commit that claims the next ones."""
    answers: list[list[Outcome]] = []
    ended = 0
    while True:
        tell(ended)
        claims = store.turn(answers, len(crew), batch)
        if not any(claims):
            return
        for worker, share in zip(crew, claims, strict=True):
            worker.send(share)
        answers = [worker.answers() for worker in crew]
        ended += sum(map(len, answers))
