"""The schedules of the job store in memory."""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice

import msgspec

from jobsched.job import CANCELLABLE, State
from jobsched.schedule import FiringRecord, StoredSchedule, is_to_come
from jobsched.store.base import NewJob
from jobsched.store.memory_rows import Rows
from jobsched.store.reasons import replaced_by

__all__ = ["MemorySchedules"]

_UNFINISHED = frozenset({State.SCHEDULED, State.PENDING, State.IN_PROGRESS})


class MemorySchedules:
    """A `ScheduleRows`. Whoever calls holds the store's lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._schedules: dict[str, StoredSchedule] = {}
        self._records: dict[str, dict[int, FiringRecord]] = {}

    # Within a turn.

    def find(self, name: str) -> StoredSchedule | None:
        """Return a schedule."""
        return self._schedules.get(name)

    def write(self, new: StoredSchedule, old: StoredSchedule | None) -> None:  # noqa: ARG002 (the contract's form)
        """Put a schedule in the place of an older form of it."""
        self._schedules[new.schedule.name] = new

    def erase(self, old: StoredSchedule) -> None:
        """Forget a schedule and its records."""
        del self._schedules[old.schedule.name]
        self._records.pop(old.schedule.name, None)

    def ended(self, before: int, limit: int) -> list[StoredSchedule]:
        """Return schedules that ended before a time and that no file declares, the first to end first."""
        ended = [s for s in self._schedules.values() if not s.schedule.source]
        found = [s for s in ended if 0 < s.state.ended_at < before]
        return sorted(found, key=lambda s: (s.state.ended_at, s.schedule.name))[:limit]

    def is_recorded(self, name: str, due_at: int) -> bool:
        """Say whether there is a record of a due time."""
        return due_at in self._records.get(name, ())

    def record(self, name: str, record: FiringRecord) -> None:
        """Keep a record of a due time that has none."""
        self._records.setdefault(name, {})[record.due_at] = record

    def drop_record(self, name: str, now: int) -> None:
        """Forget the last record of a schedule if it is still to come, or else the oldest."""
        last = max(self._records[name])
        del self._records[name][last if is_to_come(last, now) else min(self._records[name])]

    def is_unfinished(self, job_id: bytes) -> bool:
        """Say whether a job waits or runs."""
        job = self._rows.jobs.get(job_id)
        return job is not None and job.status.state in _UNFINISHED

    def is_known(self, job_id: bytes) -> bool:
        """Say whether there is such a job."""
        return job_id in self._rows.jobs

    def add_job(self, job: NewJob, now: int) -> bytes | None:
        """Add a job; return the one that stands for it because it holds its unique key."""
        holder = self._rows.holder(job, {})
        if holder is not None and job.on_conflict == "replace":
            old = self._rows.jobs[holder]
            if old.status.state in CANCELLABLE:
                self._rows.cancel_for(old, replaced_by(job.id), now)
                holder = None
        if holder is None:
            self._rows.add(job, now)
        return holder

    # Reading.

    def next_fire(self) -> int | None:
        """Return when the next schedule is to fire."""
        return min((s.state.fire_at for s in self._schedules.values() if _waits(s)), default=None)

    def due(self, now: int, limit: int) -> list[StoredSchedule]:
        """Return the first schedules that are to fire by now."""
        found = [s for s in self._schedules.values() if _waits(s) and s.state.fire_at <= now]
        return [_copy(s) for s in sorted(found, key=lambda s: (s.state.fire_at, s.schedule.name))[:limit]]

    def get(self, name: str) -> StoredSchedule | None:
        """Return a copy of a schedule."""
        found = self._schedules.get(name)
        return found and _copy(found)

    def page(self, after: str, limit: int) -> list[StoredSchedule]:
        """Return schedules in the order of their names as UTF-8."""
        names = sorted(self._schedules, key=str.encode)
        start = bisect_left(names, after.encode() + b"\0", key=str.encode) if after else 0
        return [_copy(self._schedules[name]) for name in islice(names, start, start + limit)]

    def records(self, name: str, limit: int, before: int) -> list[FiringRecord]:
        """Return records of a schedule, the latest due time first."""
        found = self._records.get(name, {})
        dues = sorted((due for due in found if not before or due < before), reverse=True)
        return [found[due] for due in dues[:limit]]


def _waits(stored: StoredSchedule) -> bool:
    return stored.state.is_active and stored.state.fire_at > 0


def _copy(stored: StoredSchedule) -> StoredSchedule:
    return StoredSchedule(stored.schedule, msgspec.structs.replace(stored.state))
