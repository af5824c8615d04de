"""A schedule: what it fires and when, what the store knows of it, and the record of each firing.

The definition is written by whoever adds the schedule. The state is what changes; the functions here
are all its changes, used by every store, so that they cannot differ. Times are UTC microseconds.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import msgspec

from jobsched.job import NO_TERMS, PRIORITY_LIMIT, Terms

__all__ = [
    "KEPT_FIRINGS",
    "FiringKind",
    "FiringRecord",
    "Misfire",
    "Overlap",
    "PutSchedule",
    "RemoveSchedule",
    "RunSchedule",
    "Schedule",
    "ScheduleChange",
    "ScheduleNews",
    "ScheduleState",
    "StoredSchedule",
    "SwitchSchedule",
    "has_fired",
    "is_as_expected",
    "is_to_come",
    "name_problem",
    "put",
    "switched",
]

KEPT_FIRINGS = 1000
"""How many firings of a schedule are remembered, the latest."""

_SET_BACK = 1_000_000
"""Clocks are set back by up to so many microseconds all the time."""

_MAX_NAME = 200

Misfire = Literal["run_once", "run_all", "skip"]
"""What becomes of due times that could not be kept: one job for all of them; one each, up to
`Schedule.most`; or none for those that are later than `Schedule.grace_s`.
"""

Overlap = Literal["allow", "skip", "queue"]
"""What becomes of a firing while the job of the one before has not ended: it runs too, it does not
run, or it waits for that end.
"""


class Schedule(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What to fire and when. `trigger` is its plain form.

    `args` and `kwargs` are msgpack. Between `start_at` and `end_at` (0: none) it fires at most
    `max_runs` times (0: no limit), each up to `jitter_s` after its due time. A due time that is over
    `grace_s` late is skipped; None is no limit. `source` is the file that declares it, empty for one
    that was added by a program.
    """

    name: str
    task: str
    category: str
    trigger: list[Any]
    args: bytes = b"\x90"
    kwargs: bytes = b"\x80"
    priority: Annotated[int, msgspec.Meta(ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT)] = 0
    label: str | None = None
    max_retries: int | None = None
    timeout_s: float | None = None
    expires_in_s: float | None = None
    by_name: bool = False
    terms: Terms = NO_TERMS
    on_conflict: Literal["keep", "refuse", "replace"] = "keep"
    start_at: int = 0
    end_at: int = 0
    max_runs: int = 0
    jitter_s: float = 0.0
    misfire: Misfire = "run_once"
    most: int = 100
    grace_s: float | None = None
    overlap: Overlap = "allow"
    source: str = ""


class ScheduleState(msgspec.Struct, array_like=True):
    """What changes of a schedule.

    `next_at` is the due time to come and `fire_at` that with its jitter, both 0 for none. `last_at`
    is the last due time that is on record, `last_job` the job of the last firing that made one,
    `kept` how many records there are. `revision` grows whenever somebody changes the schedule. `noted`
    is the time behind which the clock was set back, where that is on record.
    """

    is_active: bool = True
    next_at: int = 0
    fire_at: int = 0
    runs: int = 0
    last_at: int = 0
    last_job: bytes = b""
    revision: int = 0
    added_at: int = 0
    changed_at: int = 0
    ended_at: int = 0
    kept: int = 0
    noted: int = 0


class StoredSchedule(msgspec.Struct, frozen=True, array_like=True):
    """A schedule as stored."""

    schedule: Schedule
    state: ScheduleState


class FiringKind(enum.IntEnum):
    """What became of a due time. The numbers are on disk: never renumber."""

    FIRED = 0
    SKIPPED = 1
    BY_HAND = 2
    NOTED = 3  # nothing was due: the clock was set

    def __str__(self) -> str:
        return self.name.lower()


class FiringRecord(msgspec.Struct, frozen=True, array_like=True):
    """What became of the due times from `due_at` to `until_at`, `count` in number, decided at `at`:
    the job, or why there is none. `count` is the least number where `is_counted` is false.
    """

    due_at: int
    until_at: int
    count: int
    at: int
    kind: FiringKind
    job: bytes = b""
    why: str = ""
    is_counted: bool = True


class PutSchedule(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Add a schedule, or replace one.

    `expects` is the revision that it has, 0 for one that must be new, None for whichever. A `next_at`
    of None keeps the due time that it has; 0 is none: it has ended.
    """

    schedule: Schedule
    next_at: int | None
    fire_at: int
    expects: int | None = None
    is_active: bool | None = None


class RemoveSchedule(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Forget a schedule and its firings; jobs that it has fired stay."""

    name: str


class SwitchSchedule(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Activate a schedule, from that due time on, or deactivate it."""

    name: str
    is_active: bool
    next_at: int
    fire_at: int
    expects: int | None = None


class RunSchedule(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Record that a job of the same request was fired by hand."""

    name: str
    job: bytes


ScheduleChange = PutSchedule | RemoveSchedule | SwitchSchedule | RunSchedule


def is_to_come(due_at: int, now: int) -> bool:
    """Say whether a due time is ahead of a clock that was set back: by more than it is set all the time."""
    return due_at > now + _SET_BACK


class ScheduleNews(msgspec.Struct, frozen=True, array_like=True):
    """What a change has done to a schedule; `job` is the one that was fired by hand."""

    name: str
    what: Literal["added", "changed", "removed", "activated", "deactivated", "run"]
    job: bytes = b""


def name_problem(name: Any) -> str | None:
    """Say what is wrong with a schedule's name; None if nothing is."""
    if not isinstance(name, str) or not name:
        return f"a schedule's name must be a text like 'nightly', got {name!r}"
    if len(name.encode(errors="replace")) > _MAX_NAME:
        return f"a schedule's name takes at most {_MAX_NAME} bytes, got {len(name)} characters"
    if not name.isprintable() or name != name.strip():
        return f"a schedule's name has neither spaces around it nor control characters, got {name!r}"
    return None


def is_as_expected(change: ScheduleChange, found: ScheduleState | None) -> bool:
    """Say whether a change was made for the schedule that is there now."""
    if found is None:
        return isinstance(change, PutSchedule) and not change.expects
    if isinstance(change, PutSchedule | SwitchSchedule) and change.expects is not None:
        return found.revision == change.expects
    return True


def put(
    change: PutSchedule, found: ScheduleState | None, now: int, *, is_new_trigger: bool = False
) -> ScheduleState:
    """Return the state of a schedule that was added or replaced."""
    state = msgspec.structs.replace(found) if found else ScheduleState(added_at=now)
    if change.is_active is not None:
        state.is_active = change.is_active
    if change.next_at is not None:
        _settle(state, change.next_at, change.fire_at, now)
        if is_new_trigger:
            _begin_anew(state)
    state.revision += 1
    state.changed_at = now
    return state


def switched(change: SwitchSchedule, found: ScheduleState, now: int) -> ScheduleState:
    """Return the state of a schedule that was activated or deactivated."""
    state = msgspec.structs.replace(found, is_active=change.is_active)
    _settle(state, change.next_at, change.fire_at, now)
    _begin_anew(state)
    state.revision += 1
    state.changed_at = now
    return state


def has_fired(found: ScheduleState, next_at: int, fire_at: int, now: int) -> ScheduleState:
    """Return the state of a schedule after a firing, but for what its records say."""
    state = msgspec.structs.replace(found)
    _settle(state, next_at, fire_at, now)
    return state


def _settle(state: ScheduleState, next_at: int, fire_at: int, now: int) -> None:
    state.next_at, state.fire_at = next_at, fire_at
    state.ended_at = now if state.is_active and not next_at else 0


def _begin_anew(state: ScheduleState) -> None:
    """Have nothing on record from the next due time on, as it was before the clock was set back."""
    if state.next_at:
        state.last_at = min(state.last_at, state.next_at - 1)
