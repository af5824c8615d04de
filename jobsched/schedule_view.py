"""Schedules and firings as programs see them: times are aware datetimes in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from jobsched.clock import MICROSECONDS, from_micros
from jobsched.job_id import format_id
from jobsched.schedule import FiringRecord, Misfire, Overlap, StoredSchedule
from jobsched.trigger import Trigger
from jobsched.trigger_data import from_data

__all__ = ["FiringInfo", "ScheduleInfo", "firing_info", "schedule_info"]


class ScheduleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule. `next_at` is None when it is not active, or has ended at `ended_at`. `runs` counts the
    firings that made a job, `last_job` is the id of the last of these. `args` and `kwargs` are plain.
    `source` is the file that declares it, "" for one that a program has added.
    """

    name: str
    task: str
    category: str
    trigger: Trigger
    args: list[Any]
    kwargs: dict[str, Any]
    priority: int
    label: str | None
    max_retries: int | None
    timeout_s: float | None
    expires_in_s: float | None
    is_active: bool
    next_at: datetime | None
    runs: int
    last_at: datetime | None
    last_job: str | None
    start: datetime | None
    end: datetime | None
    max_runs: int | None
    jitter_s: float
    misfire: Misfire
    most: int
    grace_s: float | None
    overlap: Overlap
    source: str
    revision: int
    added_at: datetime | None
    changed_at: datetime | None
    ended_at: datetime | None


class FiringInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What became of `count` due times, from `due` to `until`: `kind` is "fired", "skipped", "by_hand",
    or "noted" where nothing was due. `lateness_s` is how long after `due` that was decided. `count` is
    the least number where `is_counted` is false.
    """

    due: datetime
    until: datetime
    count: int
    is_counted: bool
    at: datetime
    lateness_s: float
    kind: str
    job_id: str | None
    why: str


def schedule_info(stored: StoredSchedule) -> ScheduleInfo:
    """Return a stored schedule as programs see it."""
    schedule, state = stored.schedule, stored.state
    return ScheduleInfo(
        name=schedule.name,
        task=schedule.task,
        category=schedule.category,
        trigger=from_data(schedule.trigger),
        args=msgspec.msgpack.decode(schedule.args),
        kwargs=msgspec.msgpack.decode(schedule.kwargs),
        priority=schedule.priority,
        label=schedule.label,
        max_retries=schedule.max_retries,
        timeout_s=schedule.timeout_s,
        expires_in_s=schedule.expires_in_s,
        is_active=state.is_active,
        next_at=_time(state.next_at) if state.is_active else None,
        runs=state.runs,
        last_at=_time(state.last_at),
        last_job=format_id(state.last_job) if state.last_job else None,
        start=_time(schedule.start_at),
        end=_time(schedule.end_at),
        max_runs=schedule.max_runs or None,
        jitter_s=schedule.jitter_s,
        misfire=schedule.misfire,
        most=schedule.most,
        grace_s=schedule.grace_s,
        overlap=schedule.overlap,
        source=schedule.source,
        revision=state.revision,
        added_at=_time(state.added_at),
        changed_at=_time(state.changed_at),
        ended_at=_time(state.ended_at),
    )


def firing_info(record: FiringRecord) -> FiringInfo:
    """Return a record as programs see it."""
    return FiringInfo(
        due=from_micros(record.due_at),
        until=from_micros(record.until_at),
        count=record.count,
        is_counted=record.is_counted,
        at=from_micros(record.at),
        lateness_s=(record.at - record.due_at) / MICROSECONDS,
        kind=str(record.kind),
        job_id=format_id(record.job) if record.job else None,
        why=record.why,
    )


def _time(micros: int) -> datetime | None:
    return from_micros(micros) if micros else None
