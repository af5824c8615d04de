"""What a file declares and what the store has: the changes that make the one like the other.

A pure function of both. A schedule belongs to the file that is its `source`; what it has declared and
does not any more is removed. What has happened at run time stays: whether a schedule is active, unless
the file says so, how often it has run, its history, and from where an `Every` counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from jobsched.amount import span
from jobsched.clock import from_micros
from jobsched.config_values import DeclaredSchedule
from jobsched.due_times import first_due
from jobsched.errors import InvalidOption
from jobsched.redact import hidden
from jobsched.schedule import (
    PutSchedule,
    RemoveSchedule,
    Schedule,
    ScheduleChange,
    ScheduleState,
    StoredSchedule,
)
from jobsched.trigger import Every, anchored
from jobsched.trigger_data import from_data, to_data
from jobsched.trigger_text import trigger_text

__all__ = ["Difference", "FieldChange", "changes", "differences"]

Kind = Literal["added", "changed", "taken over", "removed", "unchanged"]

_TIMING = ("trigger", "start_at", "end_at", "max_runs", "jitter_s")
_FIELDS = {
    "task": "task",
    "category": "category",
    "args": "args",
    "kwargs": "kwargs",
    "start_at": "start",
    "end_at": "end",
    "max_runs": "max_runs",
    "jitter_s": "jitter",
    "misfire": "misfire",
    "most": "most",
    "grace_s": "grace",
    "overlap": "overlap",
    "priority": "priority",
    "label": "label",
    "max_retries": "max_retries",
    "timeout_s": "timeout",
    "expires_in_s": "expires_in",
}
_TERMS = ("by_name", "terms", "on_conflict")


class FieldChange(NamedTuple):
    """A field by its name in the file, and its values as people read them."""

    field: str
    before: str
    after: str


class Difference(NamedTuple):
    """What becomes of a schedule, and the change that does it: None for one that stays as it is."""

    name: str
    kind: Kind
    change: ScheduleChange | None = None
    fields: tuple[FieldChange, ...] = ()
    note: str = ""

    @property
    def title(self) -> str:
        """What becomes of it, and the note."""
        return f"{self.kind} ({self.note})" if self.note else self.kind

    @property
    def steps(self) -> list[str]:
        """The fields, each with its values."""
        return [f"{field}: {before} -> {after}" for field, before, after in self.fields]


def differences(
    declared: Mapping[str, DeclaredSchedule], stored: Iterable[StoredSchedule], source: str, now: int
) -> list[Difference]:
    """Return what becomes of each schedule of a source, in the order of the names.

    `now` is in UTC microseconds: an `Every` that is new counts from it. One that has no time to come,
    like an `at` in the past, is kept as ended and never fires.
    """
    there = {one.schedule.name: one for one in stored}
    gone = [name for name, one in there.items() if one.schedule.source == source and name not in declared]
    found = [_of_declared(one, there.get(name), now) for name, one in declared.items()]
    found += [Difference(name, "removed", RemoveSchedule(name)) for name in gone]
    return sorted(found, key=lambda difference: difference.name)


def changes(found: Iterable[Difference]) -> list[ScheduleChange]:
    """Return the changes to commit."""
    return [difference.change for difference in found if difference.change is not None]


def _of_declared(declared: DeclaredSchedule, stored: StoredSchedule | None, now: int) -> Difference:
    if stored is None:
        return _added(declared, now)
    before, state = stored.schedule, stored.state
    after = _with_anchor(declared.schedule, before, now)
    fields = _fields(before, after)
    is_active = state.is_active if declared.is_active is None else declared.is_active
    if is_active != state.is_active:
        fields.append(FieldChange("active", _plain(state.is_active), _plain(is_active)))
    if before == after and is_active == state.is_active:
        note = "has ended" if state.ended_at else "" if is_active else "not active"
        return Difference(after.name, "unchanged", note=note)
    next_at: int | None = None
    fire_at = 0
    if is_active != state.is_active or any(getattr(before, f) != getattr(after, f) for f in _TIMING):
        next_at, fire_at = _due(after, state, now) if is_active else (0, 0)
    change = PutSchedule(after, next_at, fire_at, state.revision, declared.is_active)
    note = "has no time to come" if next_at == 0 and is_active else ""
    if before.source != after.source:
        owner = f"from {before.source}" if before.source else "from a program"
        return Difference(after.name, "taken over", change, tuple(fields), f"{owner}{note and ', '}{note}")
    return Difference(after.name, "changed", change, tuple(fields), note)


def _added(declared: DeclaredSchedule, now: int) -> Difference:
    schedule = _with_anchor(declared.schedule, None, now)
    if declared.is_active is False:
        return Difference(schedule.name, "added", PutSchedule(schedule, 0, 0, 0, False), note="not active")
    next_at, fire_at = first_due(schedule, now)
    note = f"next {from_micros(next_at).isoformat()}" if next_at else "has no time to come"
    return Difference(schedule.name, "added", PutSchedule(schedule, next_at, fire_at, 0, True), note=note)


def _with_anchor(schedule: Schedule, before: Schedule | None, now: int) -> Schedule:
    """Return a schedule whose `Every` counts from where the stored one does, if its interval is the same."""
    trigger = from_data(schedule.trigger)
    if not isinstance(trigger, Every) or trigger.anchor is not None:
        return schedule
    if before is not None and before.trigger[:2] == schedule.trigger[:2]:
        return msgspec.structs.replace(schedule, trigger=before.trigger)
    return msgspec.structs.replace(schedule, trigger=to_data(anchored(trigger, from_micros(now))))


def _due(schedule: Schedule, state: ScheduleState, now: int) -> tuple[int, int]:
    """Return the next due time; none for one that has run as often as it may."""
    if schedule.max_runs and state.runs >= schedule.max_runs:
        return 0, 0
    return first_due(schedule, now)


def _fields(before: Schedule, after: Schedule) -> list[FieldChange]:
    """Return what differs, by its name in the file."""
    found = []
    if before.trigger != after.trigger:
        found.append(FieldChange("trigger", _trigger(before), _trigger(after)))
    for field, name in _FIELDS.items():
        values = getattr(before, field), getattr(after, field)
        if values[0] != values[1]:
            found.append(FieldChange(name, _shown(field, values[0]), _shown(field, values[1])))
    if any(getattr(before, field) != getattr(after, field) for field in _TERMS):
        found.append(FieldChange("terms", "of the program", "of the task"))
    return found


def _trigger(schedule: Schedule) -> str:
    try:
        trigger = from_data(schedule.trigger)
    except InvalidOption:  # of a zone that is not known any more
        return repr(schedule.trigger)
    return trigger_text(trigger)


def _shown(field: str, value: Any) -> str:
    if isinstance(value, bytes):
        return repr(hidden(msgspec.msgpack.decode(value)))
    if field.endswith("_at"):
        return from_micros(value).isoformat() if value else "none"
    if field.endswith("_s") and value is not None:
        return span(value)
    if field == "max_runs" and not value:
        return "none"
    return _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
