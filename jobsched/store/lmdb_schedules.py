"""The schedules in LMDB: within one write transaction, and as read from it. Their databases:

schedules        name → the definition
schedule_states  name → what changes of it
timetable        0 · time to fire · name, of those that wait; 1 · end · name, of those that ended and
                 that no file declares
firings          name · 0 · due time → what became of it
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from jobsched import transitions as rules
from jobsched.codec import BadRecord, seal, unseal
from jobsched.job import CANCELLABLE, JobStatus, State
from jobsched.schedule import FiringRecord, Schedule, ScheduleState, StoredSchedule, is_to_come
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import NewJob
from jobsched.store.lmdb_layout import Databases, Txn
from jobsched.store.lmdb_rows import Rows
from jobsched.store.reasons import replaced_by

if TYPE_CHECKING:
    import lmdb

__all__ = [
    "LmdbSchedules",
    "firing_prefix",
    "read_due",
    "read_next_fire",
    "read_page",
    "read_records",
    "read_schedule",
    "timetable_key",
]

_WAITS, _ENDED = b"\0", b"\1"
_UNFINISHED = frozenset({State.SCHEDULED, State.PENDING, State.IN_PROGRESS})

_encode = msgspec.msgpack.Encoder().encode
_schedules = msgspec.msgpack.Decoder(Schedule)
_states = msgspec.msgpack.Decoder(ScheduleState)
_records = msgspec.msgpack.Decoder(FiringRecord)


class LmdbSchedules:
    """A `ScheduleRows` of an open write transaction. `is_touched` says that the order of due times is
    not the one that it was.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._txn = rows.txn
        self._dbs = rows.dbs
        self.is_touched = False

    def find(self, name: str) -> StoredSchedule | None:
        """Return a schedule."""
        return read_schedule(self._txn, self._dbs, name)

    def write(self, new: StoredSchedule, old: StoredSchedule | None) -> None:
        """Put a schedule in the place of an older form of it, and into the order of due times."""
        key = new.schedule.name.encode()
        if old is None or old.schedule != new.schedule:
            layout.drop_blob(self._txn, self._dbs.schedules, key)
            layout.put_blob(self._txn, self._dbs.schedules, key, seal(_encode(new.schedule)))
        self._txn.put(key, seal(_encode(new.state)), db=self._dbs.schedule_states)
        before, after = timetable_key(old) if old else None, timetable_key(new)
        if before != after:
            self._unlist(before)
            if after is not None:
                self._txn.put(after, b"", db=self._dbs.timetable)
                self.is_touched = True

    def _unlist(self, key: bytes | None) -> None:
        if key is not None:
            self._txn.delete(key, db=self._dbs.timetable)
            self.is_touched = True

    def erase(self, old: StoredSchedule) -> None:
        """Forget a schedule and its records."""
        key = old.schedule.name.encode()
        layout.drop_blob(self._txn, self._dbs.schedules, key)
        self._txn.delete(key, db=self._dbs.schedule_states)
        self._unlist(timetable_key(old))
        prefix = firing_prefix(old.schedule.name)
        cursor = self._txn.cursor(db=self._dbs.firings)
        while cursor.set_range(prefix) and cursor.key().startswith(prefix):
            cursor.delete()

    def ended(self, before: int, limit: int) -> list[StoredSchedule]:
        """Return schedules that ended before a time, the first to end first."""
        return list(islice(_listed(self._txn, self._dbs, _ENDED, before), limit))

    def is_recorded(self, name: str, due_at: int) -> bool:
        """Say whether there is a record of a due time."""
        return self._txn.get(_firing_key(name, due_at), db=self._dbs.firings) is not None

    def record(self, name: str, record: FiringRecord) -> None:
        """Keep a record of a due time that has none."""
        self._txn.put(_firing_key(name, record.due_at), seal(_encode(record)), db=self._dbs.firings)

    def drop_record(self, name: str, now: int) -> None:
        """Forget the last record of a schedule if it is still to come, or else the oldest."""
        cursor = self._txn.cursor(db=self._dbs.firings)
        prefix = firing_prefix(name)
        if _seek_behind(cursor, name.encode() + b"\1") and cursor.key().startswith(prefix):
            due_at = int.from_bytes(cursor.key()[len(prefix) :], "big")
            if is_to_come(due_at, now) or cursor.set_range(prefix):
                cursor.delete()

    def is_unfinished(self, job_id: bytes) -> bool:
        """Say whether a job waits or runs."""
        status = self._rows.status(job_id)
        return status is not None and status.state in _UNFINISHED

    def is_known(self, job_id: bytes) -> bool:
        """Say whether there is such a job."""
        return self._rows.is_known(job_id)

    def add_job(self, job: NewJob, now: int) -> bytes | None:
        """Add a job; return the one that stands for it because it holds its unique key."""
        holder = None
        if job.terms is not None and job.terms.unique:
            holder = make_way(self._rows, job, job.terms.unique, now)
        if holder is None:
            add_job(self._rows, job, now)
        return holder


def make_way(rows: Rows, job: NewJob, key: bytes, now: int) -> bytes | None:
    """Return the job that stands for a new one whose key is taken; None if it has the key now."""
    holder = rows.holder(key)
    if holder is not None and job.on_conflict == "replace":
        status = rows.status(holder)
        if status is not None and status.state in CANCELLABLE:
            rows.cancel_for(holder, status, replaced_by(job.id), now)
            return None
    return holder


def add_job(rows: Rows, job: NewJob, now: int) -> None:
    """Add a job that is new: to the end of its queue if it is due."""
    rows.add_record(job.id, job.record)
    status = JobStatus(State.PENDING, job.category, job.priority, due_at=job.due_at, terms=job.terms)
    if job.terms is not None:
        rows.limits.note(job.terms)
    if job.due_at > now:
        status.state = State.SCHEDULED
    else:
        rules.queued(status, sequence=rows.next_sequence())
    rows.enlist(job.id, status)


# Keys.


def timetable_key(stored: StoredSchedule) -> bytes | None:
    """Return a schedule's key in the order of times; None if it has none."""
    state = stored.state
    if state.is_active and state.fire_at:
        return _WAITS + state.fire_at.to_bytes(8, "big") + stored.schedule.name.encode()
    if state.ended_at and not stored.schedule.source:  # a file's are kept: forgotten, they would begin anew
        return _ENDED + state.ended_at.to_bytes(8, "big") + stored.schedule.name.encode()
    return None


def firing_prefix(name: str) -> bytes:
    """Return what the keys of a schedule's records begin with."""
    return name.encode() + b"\0"


def _firing_key(name: str, due_at: int) -> bytes:
    return firing_prefix(name) + due_at.to_bytes(8, "big")


# Reading.


def read_schedule(txn: Txn, dbs: Databases, name: str) -> StoredSchedule | None:
    """Return a schedule; None if there is none, or it is damaged."""
    key = name.encode()
    blob, state = layout.get_blob(txn, dbs.schedules, key), txn.get(key, db=dbs.schedule_states)
    if blob is None or state is None:
        return None
    try:
        return StoredSchedule(_schedules.decode(unseal(blob)), _states.decode(unseal(state)))
    except (BadRecord, msgspec.MsgspecError):
        return None


def read_next_fire(txn: Txn, dbs: Databases) -> int | None:
    """Return when the next schedule is to fire."""
    cursor = txn.cursor(db=dbs.timetable)
    if not cursor.set_range(_WAITS) or not cursor.key().startswith(_WAITS):
        return None
    return int.from_bytes(cursor.key()[1:9], "big")


def read_due(txn: Txn, dbs: Databases, now: int, limit: int) -> list[StoredSchedule]:
    """Return the first schedules that are to fire by now."""
    return list(islice(_listed(txn, dbs, _WAITS, now + 1), limit))


def read_page(txn: Txn, dbs: Databases, after: str, limit: int) -> list[StoredSchedule]:
    """Return schedules in the order of their names, from behind one on."""
    cursor = txn.cursor(db=dbs.schedule_states)
    keys = cursor.iternext(values=False) if cursor.set_range(after.encode() + b"\0" * bool(after)) else ()
    found = (read_schedule(txn, dbs, bytes(key).decode()) for key in keys)
    return list(islice((stored for stored in found if stored is not None), limit))


def read_records(txn: Txn, dbs: Databases, name: str, limit: int, before: int) -> list[FiringRecord]:
    """Return records of a schedule, the latest due time first; those that are damaged are left out."""
    prefix = firing_prefix(name)
    end = _firing_key(name, before) if before else name.encode() + b"\1"
    cursor = txn.cursor(db=dbs.firings)
    found: list[FiringRecord] = []
    if not _seek_behind(cursor, end):
        return found
    for key, value in cursor.iterprev():
        if not key.startswith(prefix) or len(found) == limit:
            break
        with contextlib.suppress(BadRecord, msgspec.MsgspecError):
            found.append(_records.decode(unseal(value)))
    return found


def _seek_behind(cursor: lmdb.Cursor[bytes], end: bytes) -> bool:
    """Go to the last key before another; say whether there is one."""
    return bool(cursor.prev() if cursor.set_range(end) else cursor.last())


def _listed(txn: Txn, dbs: Databases, kind: bytes, before: int) -> Iterator[StoredSchedule]:
    """Yield the schedules of a kind whose time is before another, in order."""
    cursor = txn.cursor(db=dbs.timetable)
    for key in cursor.iternext(values=False) if cursor.set_range(kind) else ():
        if not key.startswith(kind) or int.from_bytes(key[1:9], "big") >= before:
            return
        stored = read_schedule(txn, dbs, bytes(key[9:]).decode())
        if stored is not None:
            yield stored
