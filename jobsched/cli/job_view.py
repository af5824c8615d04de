"""A stored job as the command line shows it."""

from __future__ import annotations

from typing import Any

from jobsched.cli.job_history import (
    attempt,
    attempt_lines,
    crash,
    crash_line,
    moment,
    parked_for,
    term_lines,
    terms,
)
from jobsched.cli.output import age, clean, iso_time
from jobsched.clock import MICROSECONDS
from jobsched.codec import BadRecord, decode_arguments, decode_record, decode_result
from jobsched.job import ENDED, JobRecord, State
from jobsched.job_id import format_id
from jobsched.redact import hidden
from jobsched.store.base import StoredJob

__all__ = ["details", "lines", "summary", "when"]


def summary(job: StoredJob) -> dict[str, Any]:
    """Return what a list says of a job, as JSON has it."""
    record, status = _record(job), job.status
    return {
        "id": format_id(job.id),
        "task": record and record.task,
        "category": status.category or (record and record.category),
        "state": str(status.state),
        "attempt": status.attempt,
        "priority": status.priority,
        "name": record and record.name,
        "error": job.error and job.error.cause,
        "dispatched_at": record and iso_time(record.dispatched_at),
        "due_at": iso_time(status.due_at),
        "started_at": iso_time(status.started_at),
        "ended_at": iso_time(status.ended_at),
        "crashes": status.crashes,
        "interruptions": status.interruptions,
    }


def details(job: StoredJob) -> dict[str, Any]:
    """Return everything that is known of a job, as JSON has it."""
    record = _record(job)
    args, kwargs = _arguments(record)
    return {
        **summary(job),
        "args": args,
        "kwargs": kwargs,
        "max_retries": record and record.max_retries,
        "timeout_s": record and record.timeout_s,
        "cancel_asked": job.status.cancel_asked,
        "parked_for": parked_for(job),
        "terms": terms(job),
        "crash": job.error and crash(job.error.crash),
        "schedule": record and record.fired_by and record.fired_by[0],
        "schedule_due_at": record and record.fired_by and iso_time(record.fired_by[1]),
        "attempts": [attempt(found) for found in job.attempts],
        "result": None if job.result is None else decode_result(job.result),
        "traceback": (job.error and job.error.traceback) or None,
    }


def lines(job: StoredJob, now: int) -> list[tuple[str, str]]:
    """Return everything that is known of a job, as people read it: what, and its value."""
    record, status = _record(job), job.status
    rows = [
        ("id", format_id(job.id)),
        ("task", clean(record.task) if record else "unreadable: its record is damaged"),
        ("category", clean(status.category)),
        ("state", str(status.state) + (", cancel asked for" if status.cancel_asked else "")),
        ("parked for", parked_for(job) or ""),
        ("name", clean(record.name) if record and record.name else ""),
        ("arguments", _call(record) if record else ""),
        ("attempt", str(status.attempt)),
        ("max retries", "" if not record or record.max_retries is None else str(record.max_retries)),
        ("timeout", f"{record.timeout_s:g} s" if record and record.timeout_s is not None else ""),
        ("priority", str(status.priority)),
        ("crashes", str(status.crashes or "")),
        ("interruptions", str(status.interruptions or "")),
        *term_lines(job, now),
        ("schedule", _fired_by(record, now) if record else ""),
        ("dispatched", moment(record.dispatched_at, now) if record else ""),
        ("due", moment(status.due_at, now)),
        ("started", moment(status.started_at, now)),
        ("ended", moment(status.ended_at, now) + _took(job)),
    ]
    if status.state is State.COMPLETED and not job.error:
        result = None if job.result is None else decode_result(job.result)
        rows.append(("result", clean(repr(result))))
    if job.error:
        rows.append(("error", clean(job.error.cause)))
        rows.append(("crash", crash_line(job.error.crash)))
        rows.append(("traceback", clean(job.error.traceback, lines=True).rstrip()))
    rows += attempt_lines(job)
    return [(what, value) for what, value in rows if value]


def when(job: StoredJob, now: int) -> str:
    """Return how long a job has been in its state, or in what time it is due."""
    status = job.status
    if status.state is State.SCHEDULED:
        return f"in {age((status.due_at - now) / MICROSECONDS)}"
    record = _record(job)
    since = record.dispatched_at if record else 0
    if status.state is State.IN_PROGRESS:
        since = status.started_at
    elif status.state in ENDED:
        since = status.ended_at or since
    return age((now - since) / MICROSECONDS) if since else ""


def _record(job: StoredJob) -> JobRecord | None:
    """Return the immutable part of a job; None where it is damaged."""
    try:
        return decode_record(job.record) if job.record else None
    except BadRecord:
        return None


def _arguments(record: JobRecord | None) -> tuple[Any, Any]:
    """Return a job's arguments with its secrets hidden; None for each where they cannot be read."""
    try:
        args, kwargs = decode_arguments(record) if record else (None, None)
    except BadRecord:
        return None, None
    return hidden(args), hidden(kwargs)


def _call(record: JobRecord) -> str:
    args, kwargs = _arguments(record)
    if args is None:
        return "unreadable"
    parts = [repr(value) for value in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
    return clean(", ".join(parts)) or "none"


def _fired_by(record: JobRecord, now: int) -> str:
    """Return which schedule has fired a job, and for when."""
    if record.fired_by is None:
        return ""
    name, due_at = record.fired_by
    return f"{clean(name)}, due {moment(due_at, now)}"


def _took(job: StoredJob) -> str:
    started, ended = job.status.started_at, job.status.ended_at
    return f", after {(ended - started) / MICROSECONDS:.3f} s" if started and ended else ""
