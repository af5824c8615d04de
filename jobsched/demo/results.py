"""What the demo's jobs have left in the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from jobsched.clock import MICROSECONDS
from jobsched.codec import decode_arguments, decode_record, decode_result
from jobsched.job import State
from jobsched.store.base import JobStore, Query, StoredJob

__all__ = ["CategoryFigures", "Ended", "figures", "read_jobs"]

_PAGE = 200


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A job of the demo, when the node has stopped. Its waits and runs are in seconds."""

    category: str
    path: str
    state: State
    wait_s: float
    run_s: float
    result: Any
    cause: str


class CategoryFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A category's jobs in figures; times in seconds."""

    jobs: int
    completed: int
    failed: int
    wait_mean_s: float
    wait_p95_s: float
    run_mean_s: float
    run_max_s: float


def read_jobs(store: JobStore) -> list[Ended]:
    """Return every job of the store, in the order of dispatch."""
    return [_ended(job) for page in _pages(store) for job in page]


def figures(jobs: Iterable[Ended]) -> CategoryFigures:
    """Return the figures of some jobs."""
    jobs = list(jobs)
    waits = sorted(job.wait_s for job in jobs)
    runs = [job.run_s for job in jobs]
    return CategoryFigures(
        jobs=len(jobs),
        completed=sum(job.state is State.COMPLETED for job in jobs),
        failed=sum(job.state is State.FAILED for job in jobs),
        wait_mean_s=_mean(waits),
        wait_p95_s=waits[len(waits) * 95 // 100] if waits else 0.0,
        run_mean_s=_mean(runs),
        run_max_s=max(runs, default=0.0),
    )


def _pages(store: JobStore) -> Iterator[list[StoredJob]]:
    after: bytes | None = b""
    while after is not None:
        page = store.find(Query(limit=_PAGE, after=after))
        yield page.jobs
        after = page.next


def _ended(job: StoredJob) -> Ended:
    assert job.record is not None
    record, status = decode_record(job.record), job.status
    args, _ = decode_arguments(record)
    return Ended(
        category=record.category,
        path=args[0],
        state=status.state,
        wait_s=max(0, status.started_at - record.dispatched_at) / MICROSECONDS,
        run_s=max(0, status.ended_at - status.started_at) / MICROSECONDS,
        result=None if job.result is None else decode_result(job.result),
        cause=job.error.cause if job.error else "",
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
