"""What a schedule that is due fires, and when it is due next: pure rules of values and times.

Times are UTC microseconds. All due times up to now are dealt with in one go, so that a machine that
was suspended, a node that was down and a clock that was set forwards are one and the same case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from jobsched.clock import MICROSECONDS, from_micros, to_micros
from jobsched.codec import encode_record
from jobsched.due_times import DueTimes, fire_time, next_due
from jobsched.job import NO_TERMS, JobRecord, Terms
from jobsched.own_trigger import KnownTimes, TimesUnknown
from jobsched.schedule import FiringKind, FiringRecord, Schedule, StoredSchedule, is_to_come
from jobsched.store.base import Firing, NewJob
from jobsched.terms import Unique, schedule_limit, unique_key
from jobsched.trigger import Every, Trigger
from jobsched.trigger_data import from_data, to_data

__all__ = ["DEFAULT_SKIP_GRACE_S", "REFILL", "fire", "job_of", "put_off", "set_back"]

DEFAULT_SKIP_GRACE_S = 60.0
"""How late a due time may be with misfire "skip", where no grace is given."""

REFILL = "jobsched.refill:refill"
"""The task that works out more times of a trigger of the user's own."""

_LOOK_AGAIN = 60 * MICROSECONDS  # at a schedule whose next time is not known

MakeId = Callable[[], bytes]


def fire(stored: StoredSchedule, now: int, make_id: MakeId) -> Firing:
    """Return what a schedule that is due fires now, and when it is due next. Raises InvalidOption for a
    trigger that this machine cannot understand.
    """
    schedule, state = stored.schedule, stored.state
    trigger = from_data(schedule.trigger)
    left = schedule.max_runs - state.runs if schedule.max_runs else None
    if left is not None and left <= 0:  # it had them before somebody changed it
        return _firing(stored, [], 0, trigger)
    first = state.next_at
    if first <= state.last_at:
        try:
            first = next_due(schedule, state.last_at, trigger)
        except TimesUnknown as error:
            waits = put_off(stored, now, now + _LOOK_AGAIN, str(error))
            return msgspec.structs.replace(waits, jobs=_refills(stored, trigger, now, make_id))
    if not 0 < first <= now:
        return _firing(stored, [], first, trigger)
    until = _until(schedule, trigger, first, now)
    late, timely = _split(schedule, trigger, first, until, now)
    records = [_of_all(late, now, f"over {_grace_s(schedule):g} s late")] if late else []
    if timely and schedule.misfire == "run_all":
        most = schedule.most if left is None else min(schedule.most, left)
        records += _one_each(timely, most, now, make_id)
    elif timely:
        records.append(_of_all(timely, now, job=make_id()))
    refills = _refills(stored, trigger, now, make_id)
    try:
        next_at = timely.following if timely else next_due(schedule, until, trigger)
        return _firing(stored, records, next_at, trigger, refills)
    except TimesUnknown:  # it is due no earlier than it was last, and looked at again
        found = _firing(stored, records, 0, trigger, refills)
        last = records[-1].until_at if records else first
        return msgspec.structs.replace(found, next_at=last, fire_at=now + _LOOK_AGAIN)


def _firing(
    stored: StoredSchedule,
    records: list[FiringRecord],
    next_at: int,
    trigger: Trigger,
    others: Sequence[NewJob] = (),
) -> Firing:
    schedule = stored.schedule
    jobs = [job_of(schedule, record.job, record.at, record.until_at) for record in records if record.job]
    return Firing(
        name=schedule.name,
        revision=stored.state.revision,
        due_at=stored.state.next_at,
        records=records,
        jobs=[*jobs, *others],
        next_at=next_at,
        fire_at=fire_time(schedule, next_at, trigger),
    )


def _until(schedule: Schedule, trigger: Trigger, first: int, now: int) -> int:
    """Return up to when due times are dealt with: to now, but for a last one that its jitter still
    puts off.
    """
    if schedule.jitter_s:
        last = DueTimes(schedule, trigger, first, now).last
        if last > first and fire_time(schedule, last, trigger) > now:
            return last - 1
    return now


def _split(
    schedule: Schedule, trigger: Trigger, first: int, until: int, now: int
) -> tuple[DueTimes, DueTimes]:
    """Return the due times that are too late to be kept, and the others. Jitter makes none late."""
    grace_s = _grace_s(schedule)
    oldest = first if grace_s is None else now - int((grace_s + schedule.jitter_s) * MICROSECONDS)
    late = DueTimes(schedule, trigger, first, min(until, oldest - 1))
    if late:
        try:
            first = late.following
        except TimesUnknown:
            first = 0
    return late, DueTimes(schedule, trigger, first, until)


def _grace_s(schedule: Schedule) -> float | None:
    if schedule.grace_s is None and schedule.misfire == "skip":
        return DEFAULT_SKIP_GRACE_S
    return schedule.grace_s


def _one_each(dues: DueTimes, most: int, now: int, make_id: MakeId) -> list[FiringRecord]:
    """Return a record of a job for each of the last due times, and one of those before that are over."""
    before, fired = dues.end(most)
    records = [FiringRecord(due, due, 1, now, FiringKind.FIRED, make_id()) for due in fired]
    if before:
        over = _of_all(dues, now, f"one of more than {len(fired)} at once")
        count = max(1, over.count - len(fired))
        records.insert(0, msgspec.structs.replace(over, until_at=before, count=count))
    return records


def _of_all(dues: DueTimes, now: int, why: str = "", *, job: bytes = b"") -> FiringRecord:
    """Return the record of due times that are one firing, or none."""
    kind = FiringKind.FIRED if job else FiringKind.SKIPPED
    return FiringRecord(dues.first, dues.last, dues.count(), now, kind, job, why, is_counted=dues.is_counted)


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
    if schedule.by_name and terms != NO_TERMS:
        terms = msgspec.structs.replace(terms, is_partial=True)
    return terms


def _refills(stored: StoredSchedule, trigger: Trigger, now: int, make_id: MakeId) -> list[NewJob]:
    """Return the job that works out more times of a trigger of the user's own, if few are left."""
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
    record, or behind its last change; None if it was not, or does no harm.

    `Every` counts anew from now on. Others wait for their next due time that is not on record.
    """
    schedule, state = stored.schedule, stored.state
    known_at = max(state.last_at, state.changed_at)
    if not state.next_at or not is_to_come(known_at, now):
        return None
    trigger = from_data(schedule.trigger)
    why = f"the clock was set back by {(known_at - now) / MICROSECONDS:,.0f} s or more: "
    if isinstance(trigger, Every):
        return _counted_anew(stored, trigger, known_at, now, why)
    next_at = next_due(schedule, max(now, state.last_at), trigger)
    if next_at == state.next_at and state.noted == known_at:
        return None
    why += f"waits for {from_micros(next_at).isoformat()}"
    return _noted(stored, next_at, trigger, now, why)


def _counted_anew(stored: StoredSchedule, trigger: Every, known_at: int, now: int, why: str) -> Firing | None:
    """Return what has an interval go on, unless it does so anyway, or is to begin later."""
    step = to_micros(from_micros(0) + trigger.step)
    begin = max(stored.schedule.start_at, to_micros(trigger.anchor) if trigger.anchor else 0)
    if stored.state.next_at - now <= step or begin > known_at:
        return None
    anew = Every(trigger.interval, anchor=from_micros(now + step))
    noted = _noted(stored, next_due(stored.schedule, now, anew), anew, now, f"{why}counts anew from here")
    return msgspec.structs.replace(noted, trigger=to_data(anew))


def put_off(stored: StoredSchedule, now: int, until: int, why: str) -> Firing:
    """Return what has a schedule that cannot fire be looked at again later; what is due meanwhile is
    dealt with once it can. It is noted the first time.
    """
    schedule, state = stored.schedule, stored.state
    is_first = state.fire_at <= state.next_at + int(schedule.jitter_s * MICROSECONDS)
    return Firing(
        name=schedule.name,
        revision=state.revision,
        due_at=state.next_at,
        records=[FiringRecord(now, now, 0, now, FiringKind.NOTED, why=why)] if is_first else [],
        next_at=state.next_at,
        fire_at=until,
    )


def _noted(stored: StoredSchedule, next_at: int, trigger: Trigger, now: int, why: str) -> Firing:
    return _firing(stored, [FiringRecord(now, now, 0, now, FiringKind.NOTED, why=why)], next_at, trigger)
