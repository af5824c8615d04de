"""What an app remembers of a test: each job that was dispatched, each run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from jobsched.clock import from_micros
from jobsched.codec import decode_arguments, decode_record, decode_result
from jobsched.dispatcher import Job
from jobsched.store.base import Claim, NewJob, Outcome, StoredJob

__all__ = ["Dispatched", "Run", "dispatched_job", "run_of"]


class Dispatched(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was dispatched, by a program or a schedule. `number` counts from 1.

    `args` and `kwargs` are plain values, as they were sent. It runs from `due` on. `by` is the id of
    the job that dispatched it, `fired_by` the name of the schedule and the due time that it is for.
    """

    number: int
    job: Job
    id: str
    task: str
    category: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    priority: int
    due: datetime
    name: str | None
    by: str | None
    fired_by: tuple[str, datetime] | None

    def __str__(self) -> str:
        return f"{_call(self)} in {self.category!r}, due {self.due.isoformat()}"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job. `state` is where the job was after it, `cause` why it did not complete.

    `number` is that of its dispatch. `result` is None unless it completed.
    """

    number: int
    job: Job
    id: str
    task: str
    category: str
    attempt: int
    started: datetime
    ended: datetime
    state: str
    cause: str | None
    result: Any = None

    def __str__(self) -> str:
        why = f": {self.cause}" if self.cause else ""
        run = f"#{self.number} {self.task} attempt {self.attempt}"
        return f"{run} at {self.started.isoformat()} {self.state}{why}"


def dispatched_job(new: NewJob, job: Job, number: int, at: int, by: str | None) -> Dispatched:
    """Return the record of a new job."""
    record = decode_record(new.record)
    args, kwargs = decode_arguments(record)
    fired_by = record.fired_by
    return Dispatched(
        number=number,
        job=job,
        id=job.id,
        task=record.task,
        category=record.category,
        args=tuple(args),
        kwargs=kwargs,
        priority=record.priority,
        due=from_micros(new.due_at or at),
        name=record.name,
        by=by,
        fired_by=None if fired_by is None else (fired_by[0], from_micros(fired_by[1])),
    )


def run_of(claim: Claim, outcome: Outcome, stored: StoredJob | None, one: Dispatched) -> Run:
    """Return the record of a run, given the job as it is stored after it."""
    error = outcome.error or (stored.error if stored else None)
    return Run(
        number=one.number,
        job=one.job,
        id=one.id,
        task=one.task,
        category=one.category,
        attempt=claim.attempt,
        started=from_micros(outcome.started_at),
        ended=from_micros(outcome.ended_at),
        state=str(stored.status.state if stored else outcome.state),
        cause=error.cause if error else None,
        result=None if outcome.result is None else decode_result(outcome.result),
    )


def _call(one: Dispatched) -> str:
    given = [repr(value) for value in one.args] + [f"{name}={value!r}" for name, value in one.kwargs.items()]
    return f"{one.task}({', '.join(given)})"
