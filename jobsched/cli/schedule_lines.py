"""A schedule as the command line shows it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from jobsched.amount import span
from jobsched.cli.job_history import moment
from jobsched.cli.output import age, clean, plain
from jobsched.clock import to_micros
from jobsched.own_trigger import KnownTimes
from jobsched.redact import hidden
from jobsched.schedule_view import ScheduleInfo
from jobsched.trigger import Cron, Every, Once, Trigger
from jobsched.trigger_explain import DueTime
from jobsched.trigger_text import trigger_text

__all__ = ["cells", "columns", "due_object", "lines", "schedule_object", "short_time"]

_TIME = "%Y-%m-%d %H:%M:%S"

columns = ["trigger", "task", "next", "last", "note"]
"""Of the table that `cells` are for."""


def schedule_object(info: ScheduleInfo) -> dict[str, Any]:
    """Return a schedule as JSON has it."""
    return {
        "name": info.name,
        "task": info.task,
        "category": info.category,
        "trigger": _trigger_object(info.trigger),
        "args": hidden(info.args),
        "kwargs": hidden(info.kwargs),
        "active": info.is_active,
        "next_at": _iso(info.next_at),
        "last_at": _iso(info.last_at),
        "last_job": info.last_job,
        "runs": info.runs,
        "start": _iso(info.start),
        "end": _iso(info.end),
        "max_runs": info.max_runs,
        "jitter_s": info.jitter_s,
        "misfire": info.misfire,
        "most": info.most,
        "grace_s": info.grace_s,
        "overlap": info.overlap,
        "priority": info.priority,
        "label": info.label,
        "max_retries": info.max_retries,
        "timeout_s": info.timeout_s,
        "expires_in_s": info.expires_in_s,
        "source": info.source or None,
        "revision": info.revision,
        "added_at": _iso(info.added_at),
        "changed_at": _iso(info.changed_at),
        "ended_at": _iso(info.ended_at),
    }


def _trigger_object(trigger: Trigger) -> dict[str, Any]:
    match trigger:
        case Cron():
            return {"cron": trigger.expr, "timezone": trigger.timezone, "seconds": trigger.seconds}
        case Every():
            return {"every_s": trigger.step.total_seconds(), "anchor": _iso(trigger.anchor)}
        case Once():
            return {"at": _iso(trigger.at)}
        case KnownTimes():
            return {"own": trigger.kind, "fields": plain(trigger.fields)}
    raise AssertionError(trigger)


def due_object(due: DueTime) -> dict[str, Any]:
    """Return a due time as JSON has it."""
    return {"at": _iso(due.at), "local": due.local, "after_s": due.after_s, "note": due.note or None}


def lines(info: ScheduleInfo, now: int) -> list[tuple[str, str]]:
    """Return everything about a schedule, as people read it: what, and its value."""
    rows = [
        ("name", info.name),
        ("task", info.task),
        ("category", info.category),
        ("trigger", trigger_text(info.trigger)),
        ("state", _note(info) or "active"),
        ("arguments", _call(info)),
        ("next", _moment(info.next_at, now)),
        ("last", _moment(info.last_at, now)),
        ("last job", info.last_job or ""),
        ("runs", f"{info.runs:,}" + (f" of {info.max_runs:,}" if info.max_runs else "")),
        ("start", _moment(info.start, now)),
        ("end", _moment(info.end, now)),
        ("jitter", f"up to {span(info.jitter_s)}" if info.jitter_s else ""),
        ("misfire", info.misfire + (f", {info.most} at most" if info.misfire == "run_all" else "")),
        ("grace", "" if info.grace_s is None else span(info.grace_s)),
        ("overlap", info.overlap),
        ("priority", str(info.priority or "")),
        ("label", info.label or ""),
        ("max retries", "" if info.max_retries is None else str(info.max_retries)),
        ("timeout", "" if info.timeout_s is None else span(info.timeout_s)),
        ("expires in", "" if info.expires_in_s is None else span(info.expires_in_s)),
        ("declared in", info.source),
        ("added", _moment(info.added_at, now)),
        ("changed", _moment(info.changed_at, now)),
        ("ended", _moment(info.ended_at, now)),
    ]
    return [(what, clean(value)) for what, value in rows if value]


def cells(info: ScheduleInfo, now: datetime) -> list[str]:
    """Return a schedule's line in the table, behind its name."""
    return [
        trigger_text(info.trigger),
        info.task,
        "" if info.next_at is None else _until(info.next_at, now),
        "" if info.last_at is None else f"{age((now - info.last_at).total_seconds())} ago",
        _note(info),
    ]


def _note(info: ScheduleInfo) -> str:
    if info.ended_at is not None:
        return "ended"
    return "" if info.is_active else "not active"


def _until(at: datetime, now: datetime) -> str:
    seconds = (at - now).total_seconds()
    return f"in {age(seconds)}" if seconds >= 0 else f"{age(-seconds)} late"


def short_time(at: datetime) -> str:
    """Return an instant in the user's time zone, to the second."""
    return at.astimezone().strftime(_TIME)


def _moment(at: datetime | None, now: int) -> str:
    return "" if at is None else moment(to_micros(at), now)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="microseconds")


def _call(info: ScheduleInfo) -> str:
    args = [json.dumps(plain(hidden(value)), ensure_ascii=False) for value in info.args]
    named = [
        f"{name}={json.dumps(plain(value), ensure_ascii=False)}"
        for name, value in hidden(info.kwargs).items()
    ]
    return ", ".join(args + named)
