"""What must hold of each row of schedules: a definition, a state, a place in the order of times, and as
many records as the state says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from jobsched.schedule import FiringRecord, Schedule, ScheduleState, StoredSchedule
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb_schedules import firing_prefix, timetable_key
from jobsched.store.verify_read import Finding, Found, Read, decoded

__all__ = ["SCHEDULE_CHECKS"]

_CHUNK_KEY = 2
_AT = 8

_schedules = msgspec.msgpack.Decoder(Schedule)
_states = msgspec.msgpack.Decoder(ScheduleState)
_records = msgspec.msgpack.Decoder(FiringRecord)


def _check_schedule(read: Read, key: bytes, _value: bytes) -> Found:
    """Check that a definition decodes, is of that name and has a state; that a chunk has a definition."""
    if b"\0" in key:
        head = read.get("schedules", key[:-_CHUNK_KEY]) or b""
        chunks = -(-int.from_bytes(head[1:5], "big") // layout.CHUNK) if layout.is_split(head) else 0
        if int.from_bytes(key[-_CHUNK_KEY:], "big") >= chunks:
            yield Finding(kind="orphan", text="a chunk in 'schedules' belongs to nothing")
        return
    name = key.decode()
    schedule = decoded(_schedules, read.blob("schedules", key) or b"")
    if isinstance(schedule, Exception):
        yield Finding(kind="damaged", text=f"the schedule {name!r} is unreadable: {schedule}")
    elif schedule.name != name:
        yield Finding(kind="misplaced", text=f"under the name {name!r} is the schedule {schedule.name!r}")
    if read.get("schedule_states", key) is None:
        yield Finding(kind="misplaced", text=f"the schedule {name!r} has no state")


def _check_state(read: Read, key: bytes, value: bytes) -> Found:
    """Check that a state decodes, has a definition, and stands where its times say."""
    name = key.decode()
    if read.get("schedules", key) is None:
        yield Finding(kind="orphan", text=f"the state of a schedule {name!r} that is not in the store")
        return
    state = decoded(_states, value)
    if isinstance(state, Exception):
        yield Finding(kind="damaged", text=f"the state of schedule {name!r} is unreadable: {state}")
        return
    place = timetable_key(StoredSchedule(_named(name), state))
    if place is not None and read.get("timetable", place) is None:
        yield Finding(
            kind="misplaced", text=f"the schedule {name!r} has no row in 'timetable': it never fires"
        )
    found = _count_records(read, name)
    if found != state.kept:
        text = f"the schedule {name!r} counts {state.kept} firings, its rows are {found}"
        yield Finding(kind="count", text=text)


def _check_place(read: Read, key: bytes, _value: bytes) -> Found:
    """Check that a row in the order of times is that of a schedule."""
    name = key[1 + _AT :]
    value = read.get("schedule_states", name)
    if value is None:
        text = f"a row in 'timetable' is of a schedule {name.decode()!r} that is not in the store"
        yield Finding(kind="orphan", text=text)
        return
    state = decoded(_states, value)
    if not isinstance(state, Exception) and timetable_key(_stored(name, state)) != key:
        text = f"the schedule {name.decode()!r} has a row in 'timetable' that is not its own"
        yield Finding(kind="misplaced", text=text)


def _check_firing(read: Read, key: bytes, value: bytes) -> Found:
    """Check that the record of a firing decodes, is of that due time, and has a schedule."""
    name, due_at = key[: -_AT - 1], int.from_bytes(key[-_AT:], "big")
    if read.get("schedule_states", name) is None:
        text = f"a firing of a schedule {name.decode()!r} that is not in the store"
        yield Finding(kind="orphan", text=text)
    record = decoded(_records, value)
    if isinstance(record, Exception):
        text = f"the record of a firing of schedule {name.decode()!r} is unreadable: {record}"
        yield Finding(kind="damaged", text=text)
    elif record.due_at != due_at:
        text = f"the record of a firing of schedule {name.decode()!r} is that of another due time"
        yield Finding(kind="misplaced", text=text)


def _count_records(read: Read, name: str) -> int:
    """Count the rows of a schedule's firings: 1,000 at most."""
    prefix = firing_prefix(name)
    count = 0
    for key, _ in read.rows("firings", prefix[:-1]):
        if not key.startswith(prefix):
            break
        count += 1
    return count


def _stored(name: bytes, state: ScheduleState) -> StoredSchedule:
    return StoredSchedule(_named(name.decode()), state)


def _named(name: str) -> Schedule:
    """Return a definition that says no more than a name."""
    return Schedule(name=name, task="", category="", trigger=[])


SCHEDULE_CHECKS: Mapping[str, Callable[[Read, bytes, bytes], Found]] = {
    "schedules": _check_schedule,
    "schedule_states": _check_state,
    "timetable": _check_place,
    "firings": _check_firing,
}
"""What is checked of a row, by database."""
