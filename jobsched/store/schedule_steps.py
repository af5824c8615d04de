"""The steps of a turn that deal with schedules, on the rows of any store: they are the same for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from jobsched import schedule as rules
from jobsched.errors import ScheduleChanged, ScheduleExists, ScheduleNotFound
from jobsched.job_id import format_id
from jobsched.schedule import (
    KEPT_FIRINGS,
    FiringKind,
    FiringRecord,
    PutSchedule,
    RemoveSchedule,
    RunSchedule,
    Schedule,
    ScheduleChange,
    ScheduleNews,
    ScheduleState,
    StoredSchedule,
    SwitchSchedule,
)
from jobsched.store.base import Firing, NewJob, Refused

__all__ = ["ScheduleRows", "ScheduleSteps"]

_STEP = 500  # ended schedules that one turn forgets


class ScheduleRows(Protocol):
    """What a store keeps of schedules, within a turn."""

    def find(self, name: str) -> StoredSchedule | None:
        """Return a schedule."""
        ...

    def write(self, new: StoredSchedule, old: StoredSchedule | None) -> None:
        """Put a schedule in the place of an older form of it, and into the order of due times."""
        ...

    def erase(self, old: StoredSchedule) -> None:
        """Forget a schedule and its records."""
        ...

    def ended(self, before: int, limit: int) -> list[StoredSchedule]:
        """Return schedules that ended before a time. Those that a file declares are kept: forgotten, they
        would begin anew at the next start.
        """
        ...

    def is_recorded(self, name: str, due_at: int) -> bool:
        """Say whether there is a record of a due time."""
        ...

    def record(self, name: str, record: FiringRecord) -> None:
        """Keep a record of a due time that has none."""
        ...

    def drop_record(self, name: str, now: int) -> None:
        """Forget a record of a schedule: the last one if it is still to come, as the clock was set back
        since, or else the oldest.
        """
        ...

    def is_unfinished(self, job_id: bytes) -> bool:
        """Say whether a job waits or runs."""
        ...

    def is_known(self, job_id: bytes) -> bool:
        """Say whether there is such a job."""
        ...

    def add_job(self, job: NewJob, now: int) -> bytes | None:
        """Add a job; return the one that stands for it because it holds its unique key."""
        ...


class ScheduleSteps:
    """The schedules' part of one turn. `fired` gathers the records of firings, `changed` what was done to
    schedules.
    """

    def __init__(self, rows: ScheduleRows) -> None:
        self._rows = rows
        self.fired: list[tuple[str, FiringRecord]] = []
        self.changed: list[ScheduleNews] = []

    # Changes.

    def refusal(self, changes: Sequence[ScheduleChange]) -> Refused | None:
        """Return why changes cannot be made, all of them in their order; None if they can."""
        seen: dict[str, StoredSchedule | None] = {}
        for change in changes:
            name = _name_of(change)
            found = seen[name] if name in seen else self._rows.find(name)
            error = _problem(change, found)
            if error is not None:
                return Refused(type(error).__name__, str(error))
            seen[name] = _after(change, found, 0)
        return None

    def change(self, changes: Sequence[ScheduleChange], now: int) -> list[RunSchedule]:
        """Make changes that are not refused, before the jobs of the same request are added; return the
        firings by hand, which are noted after that: but those whose job is there already, as they are
        on record.
        """
        runs: list[RunSchedule] = []
        for change in changes:
            if isinstance(change, RunSchedule):
                if not self._rows.is_known(change.job):
                    runs.append(change)
                continue
            found = self._rows.find(_name_of(change))
            new = _after(change, found, now)
            if new is None:
                if found is not None:
                    self._rows.erase(found)
                    self.changed.append(ScheduleNews(found.schedule.name, "removed"))
            elif new is not found:
                self._rows.write(new, found)
                self.changed.append(_news(change, found))
        return runs

    def note_runs(self, runs: Sequence[RunSchedule], now: int) -> None:
        """Record firings by hand whose jobs were added: none, where another has the unique key."""
        for run in runs:
            found = self._rows.find(run.name)
            if found is not None and self._rows.is_known(run.job):
                self._note_run(run, found, now)

    def _note_run(self, change: RunSchedule, found: StoredSchedule, now: int) -> None:
        state = msgspec.structs.replace(found.state, last_job=change.job)
        due_at = now
        while due_at == state.next_at or self._rows.is_recorded(change.name, due_at):
            due_at += 1
        self._keep(state, change.name, FiringRecord(due_at, due_at, 1, now, FiringKind.BY_HAND, change.job))
        self._rows.write(StoredSchedule(found.schedule, state), found)
        self.changed.append(ScheduleNews(change.name, "run", change.job))

    # Firing.

    def fire(self, firings: Sequence[Firing], now: int) -> None:
        """Do what firings say about schedules that are as their node saw them."""
        for firing in firings:
            found = self._rows.find(firing.name)
            if found is not None and _is_due(firing, found.state):
                self._fire(firing, found, now)

    def _fire(self, firing: Firing, found: StoredSchedule, now: int) -> None:
        schedule = found.schedule
        if firing.trigger is not None:
            schedule = msgspec.structs.replace(schedule, trigger=firing.trigger)
        state = rules.has_fired(found.state, firing.next_at, firing.fire_at, now)
        jobs: dict[bytes, NewJob] = {job.id: job for job in firing.jobs}
        for record in firing.records:
            if self._rows.is_recorded(schedule.name, record.due_at):
                continue  # fired before the clock was set back
            kept = self._run(schedule, state, record, jobs[record.job], now) if record.job else record
            self._keep(state, schedule.name, kept)
            _remember(state, kept, is_anew=firing.trigger is not None)
            self.fired.append((schedule.name, kept))
        named = {record.job for record in firing.records}
        for job in firing.jobs:
            if job.id not in named:  # not of a due time, but about the schedule itself
                self._rows.add_job(job, now)
        if schedule.max_runs and state.runs >= schedule.max_runs and not state.ended_at:
            state.next_at = state.fire_at = 0
            state.ended_at = now
        self._rows.write(StoredSchedule(schedule, state), found)

    def _run(
        self, schedule: Schedule, state: ScheduleState, record: FiringRecord, job: NewJob, now: int
    ) -> FiringRecord:
        """Add the job of a firing, unless it must not run; return the record of what was done."""
        if schedule.overlap == "skip" and state.last_job and self._rows.is_unfinished(state.last_job):
            return _skipped(record, f"job {format_id(state.last_job)} of the firing before has not ended")
        holder = self._rows.add_job(job, now)
        if holder is not None:
            return _skipped(record, f"job {format_id(holder)} has its unique key")
        state.last_job = job.id
        state.runs += 1
        return record

    def _keep(self, state: ScheduleState, name: str, record: FiringRecord) -> None:
        self._rows.record(name, record)
        if state.kept < KEPT_FIRINGS:
            state.kept += 1
        else:
            self._rows.drop_record(name, record.at)

    def forget_ended(self, before: int) -> None:
        """Forget schedules that ended before a time, some at a time."""
        for stored in self._rows.ended(before, _STEP):
            self._rows.erase(stored)


def _name_of(change: ScheduleChange) -> str:
    return change.schedule.name if isinstance(change, PutSchedule) else change.name


def _news(change: ScheduleChange, found: StoredSchedule | None) -> ScheduleNews:
    """Return what a change has done to a schedule that is still there."""
    if isinstance(change, SwitchSchedule):
        return ScheduleNews(change.name, "activated" if change.is_active else "deactivated")
    return ScheduleNews(_name_of(change), "added" if found is None else "changed")


def _problem(change: ScheduleChange, found: StoredSchedule | None) -> Exception | None:
    """Return why a change cannot be made."""
    name = _name_of(change)
    if _is_done(change, found) or rules.is_as_expected(change, found.state if found else None):
        return None
    if found is None:
        return None if isinstance(change, RemoveSchedule) else ScheduleNotFound(name)
    if isinstance(change, PutSchedule) and change.expects == 0:
        return ScheduleExists(name)
    return ScheduleChanged(name)


def _is_done(change: ScheduleChange, found: StoredSchedule | None) -> bool:
    """Say whether a change has been made: its answer got lost."""
    if found is None or not isinstance(change, PutSchedule | SwitchSchedule):
        return False
    state = found.state
    if change.expects is not None and state.revision != change.expects + 1:
        return False
    if isinstance(change, SwitchSchedule):
        return change.expects is not None and state.is_active == change.is_active
    if found.schedule != change.schedule:
        return False
    return change.expects is not None or _is_as_put(change, state)


def _is_as_put(change: PutSchedule, state: ScheduleState) -> bool:
    """Say whether a schedule of this definition waits, or does not, as a change without expectations has
    it; or has fired since.
    """
    if change.is_active not in (None, state.is_active):
        return False
    return not change.next_at or state.next_at > 0 or change.next_at <= state.last_at


def _after(change: ScheduleChange, found: StoredSchedule | None, now: int) -> StoredSchedule | None:
    """Return a schedule after a change; None if it is gone."""
    if _is_done(change, found):
        return found
    if isinstance(change, RemoveSchedule):
        return None
    if isinstance(change, PutSchedule):
        is_new = found is not None and found.schedule.trigger != change.schedule.trigger
        state = rules.put(change, found.state if found else None, now, is_new_trigger=is_new)
        return StoredSchedule(change.schedule, state)
    assert found is not None
    if isinstance(change, SwitchSchedule):
        return StoredSchedule(found.schedule, rules.switched(change, found.state, now))
    return found


def _is_due(firing: Firing, state: ScheduleState) -> bool:
    """Say whether a schedule is as the node saw it that wants it fired."""
    return state.is_active and (state.revision, state.next_at) == (firing.revision, firing.due_at)


def _remember(state: ScheduleState, record: FiringRecord, *, is_anew: bool) -> None:
    """Have a state know what is on record."""
    if record.kind is not FiringKind.NOTED:
        state.last_at = record.until_at
    elif is_anew:
        state.last_at = record.at
    else:
        state.noted = max(state.last_at, state.changed_at)


def _skipped(record: FiringRecord, why: str) -> FiringRecord:
    return msgspec.structs.replace(record, kind=FiringKind.SKIPPED, job=b"", why=why)
