"""What a schedule that is due fires, and when it is due next: pure rules of values and times.

Times are UTC microseconds. All due times up to now are dealt with in one go, so that a machine that
was suspended, a node that was down and a clock that was set forwards are one and the same case.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import islice

import msgspec

from jobsched.clock import MICROSECONDS, from_micros, to_micros
from jobsched.codec import encode_record
from jobsched.job import NO_TERMS, JobRecord, Terms
from jobsched.own_trigger import KnownTimes, TimesUnknown
from jobsched.schedule import FiringKind, FiringRecord, Schedule, StoredSchedule
from jobsched.store.base import Firing, NewJob
from jobsched.terms import Unique, schedule_limit, unique_key
from jobsched.trigger import Every, Trigger
from jobsched.trigger_data import from_data, to_data

__all__ = [
    "DEFAULT_SKIP_GRACE_S",
    "REFILL",
    "fire",
    "fire_time",
    "first_due",
    "job_of",
    "next_due",
    "refills",
    "set_back",
]

DEFAULT_SKIP_GRACE_S = 60.0
"""How late a due time may be with misfire "skip", where no grace is given."""

REFILL = "jobsched.refill:refill"
"""The task that works out more times of a trigger of the user's own."""

_LOOK_AGAIN = 60 * MICROSECONDS  # at a schedule whose next time is not known
_COUNTED = 10_000  # due times that are counted one by one: that takes 0.3 s for a Cron
_SET_BACK = MICROSECONDS  # less than that the clock is set all the time

MakeId = Callable[[], bytes]


def next_due(schedule: Schedule, after: int, trigger: Trigger | None = None) -> int:
    """Return the first due time after an instant, within start and end; 0 without one."""
    trigger = trigger or from_data(schedule.trigger)
    found = trigger.next_after(from_micros(max(after, schedule.start_at - 1)))
    due = 0 if found is None else to_micros(found)
    return 0 if schedule.end_at and due > schedule.end_at else due


def first_due(schedule: Schedule, now: int) -> tuple[int, int]:
    """Return the next due time after now, and that with its jitter; 0 and 0 without one."""
    due = next_due(schedule, now)
    return due, fire_time(schedule, due)


def fire_time(schedule: Schedule, due_at: int) -> int:
    """Return when a due time fires. Its jitter follows from the name and the time, so that it is the
    same whoever asks, and however often.
    """
    if not due_at or not schedule.jitter_s:
        return due_at
    drawn = zlib.crc32(due_at.to_bytes(8, "big"), zlib.crc32(schedule.name.encode())) / (1 << 32)
    return due_at + int(drawn * schedule.jitter_s * MICROSECONDS)


def fire(stored: StoredSchedule, now: int, make_id: MakeId) -> Firing:
    """Return what a schedule that is due fires now, and when it is due next."""
    schedule, state = stored.schedule, stored.state
    trigger = from_data(schedule.trigger)
    if isinstance(trigger, KnownTimes) and state.next_at not in trigger.times:
        raise TimesUnknown(trigger.kind)
    dues, is_counted = _dues(schedule, trigger, state.next_at, now)
    late, timely = _split(dues, now, schedule)
    left = schedule.max_runs - state.runs if schedule.max_runs else len(timely)
    records: list[FiringRecord] = []
    if late:
        why = f"over {_grace_s(schedule):g} s late"
        records.append(_skipped(late, now, why, is_counted=is_counted or bool(timely)))
    if schedule.misfire == "run_all":
        most = min(schedule.most, left)
        if len(timely) > most:
            over = timely[:-most]
            records.append(_skipped(over, now, f"one of more than {most} at once", is_counted=is_counted))
        records += [FiringRecord(due, due, 1, now, FiringKind.FIRED, make_id()) for due in timely[-most:]]
    elif timely:
        records.append(
            FiringRecord(
                timely[0], timely[-1], len(timely), now, FiringKind.FIRED, make_id(), is_counted=is_counted
            )
        )
    try:
        next_at = next_due(schedule, max(now, dues[-1]), trigger)
    except TimesUnknown:
        next_at = now + _LOOK_AGAIN
    return Firing(
        name=schedule.name,
        revision=state.revision,
        due_at=state.next_at,
        records=records,
        jobs=[
            *(job_of(schedule, record.job, now, record.until_at) for record in records if record.job),
            *refills(stored, now, make_id),
        ],
        next_at=next_at,
        fire_at=fire_time(schedule, next_at),
    )


def _dues(schedule: Schedule, trigger: Trigger, first: int, now: int) -> tuple[list[int], bool]:
    """Return the due times from the first one to now, and whether these are all of them: of very many
    the first ones, and the last.
    """
    dues = [first]
    while len(dues) < _COUNTED:
        try:
            due = next_due(schedule, dues[-1], trigger)
        except TimesUnknown:
            return dues, False
        if not due or due > now:
            return dues, True
        dues.append(due)
    return [*dues, *_last_dues(schedule, trigger, dues[-1], now)], False


def _last_dues(schedule: Schedule, trigger: Trigger, after: int, now: int) -> list[int]:
    """Return the last due times up to now, a few of them; none if they are too rare to be found so."""
    reach = MICROSECONDS
    while now - reach > after:
        found = list(islice(_from(schedule, trigger, now - reach, now), _COUNTED))
        if found:
            return found
        reach *= 4
    return []


def _from(schedule: Schedule, trigger: Trigger, after: int, until: int) -> Iterator[int]:
    due = next_due(schedule, after, trigger)
    while due and due <= until:
        yield due
        due = next_due(schedule, due, trigger)


def _grace_s(schedule: Schedule) -> float | None:
    if schedule.grace_s is None and schedule.misfire == "skip":
        return DEFAULT_SKIP_GRACE_S
    return schedule.grace_s


def _split(dues: list[int], now: int, schedule: Schedule) -> tuple[list[int], list[int]]:
    """Return the due times that are too late to be kept, and the others. Jitter makes none late."""
    grace_s = _grace_s(schedule)
    if grace_s is None:
        return [], dues
    oldest = now - int((grace_s + schedule.jitter_s) * MICROSECONDS)
    return [due for due in dues if due < oldest], [due for due in dues if due >= oldest]


def _skipped(dues: list[int], now: int, why: str, *, is_counted: bool) -> FiringRecord:
    return FiringRecord(dues[0], dues[-1], len(dues), now, FiringKind.SKIPPED, why=why, is_counted=is_counted)


def job_of(schedule: Schedule, job_id: bytes, now: int, due_at: int) -> NewJob:
    """Return the job of a firing, as a request carries it."""
    record = JobRecord(
        job_id, schedule.task, schedule.category, schedule.priority, now,
        msgspec.Raw(schedule.args), msgspec.Raw(schedule.kwargs), schedule.label, schedule.max_retries,
        schedule.timeout_s, schedule.by_name, (schedule.name, due_at),
    )  # fmt: skip
    terms = _terms_of(schedule, now)
    return NewJob(
        job_id, schedule.task, schedule.category, schedule.priority, 0, encode_record(record),
        None if terms == NO_TERMS else terms, schedule.on_conflict,
    )  # fmt: skip


def _terms_of(schedule: Schedule, now: int) -> Terms:
    terms = schedule.terms
    if schedule.expires_in_s is not None:
        terms = msgspec.structs.replace(terms, expires_at=now + int(schedule.expires_in_s * MICROSECONDS))
    if schedule.overlap == "queue":  # one at a time, in their order: a limit of one
        terms = msgspec.structs.replace(terms, limits=(*terms.limits, schedule_limit(schedule.name)))
    return terms


def refills(stored: StoredSchedule, now: int, make_id: MakeId) -> list[NewJob]:
    """Return the job that works out more times of a trigger of the user's own, if few are left."""
    trigger = from_data(stored.schedule.trigger)
    if not (isinstance(trigger, KnownTimes) and trigger.needs_more(now)):
        return []
    job_id, name = make_id(), stored.schedule.name
    args = msgspec.Raw(msgspec.msgpack.encode([name]))
    category = stored.schedule.category
    record = JobRecord(job_id, REFILL, category, 0, now, args, msgspec.Raw(b"\x80"))
    terms = Terms(unique=unique_key(REFILL, Unique(key=name), b""))
    return [NewJob(job_id, REFILL, category, 0, 0, encode_record(record), terms)]


def set_back(stored: StoredSchedule, now: int) -> Firing | None:
    """Return what is done about a schedule when the clock was set back behind a due time that is on
    record; None if it was not, or does no harm.

    `Every` counts anew from now on. Others wait for their next due time that is not on record.
    """
    schedule, state = stored.schedule, stored.state
    if not (state.next_at and state.last_at > now + _SET_BACK):
        return None
    trigger = from_data(schedule.trigger)
    why = f"the clock was set back by {(state.last_at - now) / MICROSECONDS:,.0f} s or more: "
    next_at, data = state.next_at, None
    if isinstance(trigger, Every):
        step = int(trigger.step.total_seconds() * MICROSECONDS)
        if state.next_at - now <= step:
            return None
        anew = Every(trigger.interval, anchor=from_micros(now + step))
        next_at, data = next_due(schedule, now, anew), to_data(anew)
        why += "counts anew from here"
    else:
        why += f"waits for {from_micros(next_at).isoformat()}"
    return Firing(
        name=schedule.name,
        revision=state.revision,
        due_at=state.next_at,
        records=[FiringRecord(now, now, 0, now, FiringKind.NOTED, why=why)],
        next_at=next_at,
        fire_at=fire_time(schedule, next_at),
        trigger=data,
    )
