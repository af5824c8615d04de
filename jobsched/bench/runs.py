"""What the runs of jobs tell, by the times that their workers have noted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jobsched.bench.ground import reading
from jobsched.config import Config
from jobsched.job import State
from jobsched.store.base import Query, StoredJob

__all__ = ["Run", "busy_us", "ended_runs", "gaps_ms", "idle_share"]


class Run(NamedTuple):
    """One run of a job, at the worker of that number; times are UTC microseconds."""

    job: bytes
    category: str
    worker: int
    started_at: int
    ended_at: int


def ended_runs(config: Config) -> list[Run]:
    """Return the last run of each completed job."""
    found: list[Run] = []
    with reading(config) as store:
        query: Query | None = Query(state=State.COMPLETED, limit=200)
        while query is not None:
            page = store.find(query)
            found += [_run(job) for job in page.jobs]
            query = Query(state=State.COMPLETED, limit=200, after=page.next) if page.next else None
    return found


def _run(job: StoredJob) -> Run:
    status = job.status
    return Run(job.id, status.category, status.worker, status.started_at, status.ended_at)


def idle_share(runs: Sequence[Run], workers: int) -> float:
    """Return the share of the workers' time in which no job ran, from the first start to the last:
    as long as jobs waited.
    """
    first = min(run.started_at for run in runs)
    last = max(run.started_at for run in runs)
    busy = sum(min(run.ended_at, last) - run.started_at for run in runs)
    whole = workers * (last - first)
    return 1 - busy / whole if whole else 0.0


def busy_us(runs: Sequence[Run], first: int, last: int) -> int:
    """Return for how long jobs ran between two instants, all workers together; in microseconds."""
    return sum(max(0, min(run.ended_at, last) - max(run.started_at, first)) for run in runs)


def gaps_ms(runs: Iterable[Run], since: int = 0) -> tuple[list[float], list[float]]:
    """Return the milliseconds between two jobs of a worker, from an instant on: where it stays in its
    category, and where it changes it.
    """
    stayed: list[float] = []
    moved: list[float] = []
    last: dict[int, Run] = {}
    for run in sorted(runs, key=lambda run: run.started_at):
        before = last.get(run.worker)
        if before is not None and before.ended_at >= since:
            gaps = stayed if before.category == run.category else moved
            gaps.append((run.started_at - before.ended_at) / 1000)
        last[run.worker] = run
    return stayed, moved
