"""What must hold of each row of a store: one small function per database.

A check gets a row and the read transaction it was read in, so that a job and its rows are seen as
one commit left them, and yields what it finds wrong. Nothing is raised for damage.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

import msgspec

from jobsched.codec import BadRecord, decode_record
from jobsched.job import CANCELLABLE, KEY_BYTES, Attempt, JobStatus, Limit, State
from jobsched.job_id import ID_BYTES, format_id
from jobsched.report import Decision
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb_journals import decode_mark
from jobsched.store.lmdb_layout import CategoryRow, Counters, ResultRow
from jobsched.store.verify_read import RESTORE, Finding, Found, Read, decoded
from jobsched.store.verify_schedules import SCHEDULE_CHECKS
from jobsched.transitions import holds_key

__all__ = ["CHECKS", "check_row", "limits_of"]

CHUNK_KEY = 2
_ATTEMPT_KEY = ID_BYTES + 8


_categories = msgspec.msgpack.Decoder(CategoryRow)
_attempts = msgspec.msgpack.Decoder(Attempt)
_limits = msgspec.msgpack.Decoder(tuple[int, int])
_counters = msgspec.msgpack.Decoder(Counters)
_decisions = msgspec.msgpack.Decoder(Decision)
_results = msgspec.msgpack.Decoder(ResultRow)


def _check_status(read: Read, job_id: bytes, data: bytes) -> Found:
    """Check that a status decodes, stands in the index of its state, and has its record."""
    try:
        status = layout.decode_status(data)
    except BadRecord as error:
        yield _damaged(job_id, "its status", error)
    else:
        read.seen.note(status)
        yield from _check_place(read, job_id, status)
        yield from _check_key(read, job_id, status)
        yield from _check_record(read, job_id, status)


def _check_place(read: Read, job_id: bytes, status: JobStatus) -> Found:
    """Check that the job's row in the index of its state is there and says the same."""
    number = read.numbers.get(status.category)
    if number is None:
        yield _misplaced(job_id, f"its category {status.category!r} is not in the store")
        return
    index, key, value = _place(job_id, status, number)
    found = read.get(index, key)
    if found is None and (waiting := _row_at_limit(read, status, key)) is not None:
        index, found = "limited", waiting
    if found is None:
        yield _misplaced(job_id, f"it is {status.state}, and has no row in {index!r}")
    elif found != value:
        yield _misplaced(job_id, f"its row in {index!r} does not say what its status says")


def _place(job_id: bytes, status: JobStatus, number: int) -> tuple[str, bytes, bytes]:
    """Return the one index row that a job of this status has: database, key and value."""
    prefix = layout.pending_prefix(number)
    match status.state:
        case State.PENDING:
            return "pending", layout.pending_key(number, status.priority, status.sequence), job_id
        case State.SCHEDULED:
            return "scheduled", layout.timed_key(status.due_at, job_id), prefix
        case State.IN_PROGRESS:
            value = layout.running_value(job_id, status.worker, number)
            return "running", layout.running_key(status.claim), value
        case state:
            return "ended", layout.ended_key(state, status.ended_at, job_id), prefix


def _row_at_limit(read: Read, status: JobStatus, key: bytes) -> bytes | None:
    """Return the waiting row of a pending job that has left its queue for one of its limits."""
    limits = limits_of(status) if status.state is State.PENDING else ()
    rows = (read.get("limited", limit.key + key) for limit in limits)
    return next((row for row in rows if row is not None), None)


def _check_key(read: Read, job_id: bytes, status: JobStatus) -> Found:
    """Check that a job has its unique key. One that frees it at its start may come back without it."""
    terms = status.terms
    if terms is None or not holds_key(status) or (terms.frees_at_start and status.claim):
        return
    holder = read.get("unique", terms.unique)
    if holder != job_id:
        who = "no job" if holder is None else f"job {_id(holder)}"
        yield _misplaced(job_id, f"its unique key is held by {who}")


def _check_record(read: Read, job_id: bytes, status: JobStatus) -> Found:
    """Check that the immutable record is there, decodes, and is that of this job."""
    data = read.blob("jobs", job_id)
    if data is None:
        yield _bad_record(job_id, status, "its record is missing")
        return
    try:
        record = decode_record(data)
    except BadRecord as error:
        yield _bad_record(job_id, status, f"its record is unreadable: {error}")
    else:
        if record.id != job_id:
            yield _bad_record(job_id, status, f"its record is that of job {_id(record.id)}")


def _bad_record(job_id: bytes, status: JobStatus, text: str) -> Finding:
    """Say what is wrong with a record: a job that has not started can be taken out of its queue."""
    mend = f"jobsched cancel {format_id(job_id)}" if status.state in CANCELLABLE else RESTORE
    return Finding(kind="damaged", job=format_id(job_id), text=text, mend=mend)


def _check_record_row(read: Read, key: bytes, value: bytes) -> Found:
    """Check that a record has a job, a chunk a record. (Its content is checked with the status.)"""
    yield from _check_blob_row(read, "jobs", ID_BYTES, (key, value))


def _check_result_row(read: Read, key: bytes, value: bytes) -> Found:
    """Check that a result has a job and decodes, and that a chunk has a result."""
    yield from _check_blob_row(read, "results", ID_BYTES, (key, value))
    if len(key) == ID_BYTES:
        row = decoded(_results, read.blob("results", key) or b"")
        if isinstance(row, Exception):
            yield _damaged(key, "its result", row)


def _check_attempt(read: Read, key: bytes, value: bytes) -> Found:
    """Check that an attempt has a job and decodes, and that a chunk has an attempt."""
    yield from _check_blob_row(read, "attempts", _ATTEMPT_KEY, (key, value))
    if len(key) == _ATTEMPT_KEY:
        row = decoded(_attempts, read.blob("attempts", key) or b"")
        claim = int.from_bytes(key[ID_BYTES:], "big")
        read.seen.claim = max(read.seen.claim, claim)
        if isinstance(row, Exception):
            yield _damaged(key[:ID_BYTES], "the record of an attempt", row)
        elif row.claim != claim:
            text = f"the record of an attempt under claim {claim} is that of claim {row.claim}"
            yield _misplaced(key[:ID_BYTES], text)


def _check_blob_row(read: Read, database: str, length: int, row: tuple[bytes, bytes]) -> Found:
    """Check a record that may be split, under a key of a length that begins with its job's id."""
    key, value = row
    job_id = key[:ID_BYTES]
    if len(key) == length:
        if read.get("statuses", job_id) is None:
            yield _orphan(job_id, f"a row in {database!r} is of a job that is not in the store")
        elif _chunks(value) and len(read.blob(database, key) or b"") != int.from_bytes(value[1:5], "big"):
            text = f"its record in {database!r} is not as long as it says"
            yield Finding(kind="damaged", job=format_id(job_id), text=text)
    elif len(key) == length + CHUNK_KEY:
        if int.from_bytes(key[length:], "big") >= _chunks(read.get(database, key[:length]) or b""):
            yield _orphan(job_id, f"a chunk of {len(value)} bytes in {database!r} belongs to nothing")
    else:
        yield _malformed(database, key)


def _chunks(head: bytes) -> int:
    """Return into how many chunks a record is split."""
    return -(-int.from_bytes(head[1:5], "big") // layout.CHUNK) if layout.is_split(head) else 0


def _check_pending(read: Read, key: bytes, value: bytes) -> Found:
    number, _, _ = layout.split_pending(key)
    yield from _check_index_row(read, ("pending", key), value, number, State.PENDING)


def _check_limited(read: Read, key: bytes, value: bytes) -> Found:
    """Check that who waits at a limit is pending, has that limit, and has left its queue."""
    number, _, _ = layout.split_pending(key[KEY_BYTES:])
    read.seen.limited[number] += 1
    place = key[KEY_BYTES:]
    yield from _check_index_row(read, ("limited", place), value, number, State.PENDING)
    status = read.status(value)
    if status is None:
        return  # damaged, or of no job: said already
    if key[:KEY_BYTES] not in [limit.key for limit in limits_of(status)]:
        yield _misplaced(value, "it waits at a limit that is not its own")
    if read.get("pending", place) == value:
        yield _misplaced(value, "it waits at a limit, and in its queue as well")


def limits_of(status: JobStatus) -> Sequence[Limit]:
    """Return the limits that a job runs under."""
    return status.terms.limits if status.terms is not None else ()


def _check_unique(read: Read, key: bytes, value: bytes) -> Found:
    """Check that a unique key is held by a job that asks for it."""
    status = read.status(value)
    if status is None and read.get("statuses", value) is None:
        yield _orphan(value, "a unique key is held by a job that is not in the store")
    elif status is not None and (status.terms is None or status.terms.unique != key or not holds_key(status)):
        yield _misplaced(value, "it holds a unique key that it should not")


def _check_limit(_read: Read, key: bytes, value: bytes) -> Found:
    """Check that a limit decodes. (How many run under it: `verify_sums`.)"""
    if len(key) != KEY_BYTES:
        yield _malformed("limits", key)
        return
    row = decoded(_limits, value)
    if isinstance(row, Exception):
        yield Finding(kind="damaged", text=f"the limit {key.hex()} is unreadable: {row}")
    elif row[0] < 1:
        yield Finding(
            kind="damaged", text=f"the limit {key.hex()} lets {row[0]} jobs run, expected at least 1"
        )


def _check_scheduled(read: Read, key: bytes, value: bytes) -> Found:
    _, job_id = layout.split_scheduled(key)
    number = int.from_bytes(value, "big")
    yield from _check_index_row(read, ("scheduled", key), job_id, number, State.SCHEDULED)


def _check_running(read: Read, key: bytes, value: bytes) -> Found:
    job_id, _, number = layout.split_running(value)
    yield from _check_index_row(read, ("running", key), job_id, number, State.IN_PROGRESS)


def _check_ended(read: Read, key: bytes, value: bytes) -> Found:
    state, _, job_id = layout.split_ended(key)
    number = int.from_bytes(value, "big")
    yield from _check_index_row(read, ("ended", key), job_id, number, state)


def _check_index_row(read: Read, row: tuple[str, bytes], job_id: bytes, number: int, state: State) -> Found:
    """Check that an index row has a job, and is the one row that its status asks for."""
    read.seen.rows[number, state] += 1
    if read.get("statuses", job_id) is None:
        yield _orphan(job_id, f"a row in {row[0]!r} is of a job that is not in the store")
        return
    status = read.status(job_id)
    if status is None:
        return  # damaged: said of the status itself
    wanted = _place(job_id, status, read.numbers.get(status.category, 0))
    if row[1] != wanted[1]:  # keys of two indexes differ, but those of who waits at a limit: the queue's
        yield _misplaced(job_id, f"it is {status.state}, and has a row in {row[0]!r} that is not its own")


def _check_category(read: Read, key: bytes, value: bytes) -> Found:
    """Check that a category decodes, and no other has its number. (Its counts: `verify_sums`.)"""
    name = key.decode(errors="replace")
    row = decoded(_categories, value)
    if isinstance(row, Exception):
        yield Finding(kind="damaged", text=f"the row of category {name!r} is unreadable: {row}")
    elif sum(number == row.number for number in read.numbers.values()) > 1:
        yield Finding(kind="misplaced", text=f"category {name!r} shares its number {row.number} with another")


def _check_decision(_read: Read, key: bytes, value: bytes) -> Found:
    row = decoded(_decisions, value)
    if isinstance(row, Exception):
        number = int.from_bytes(key, "big")
        yield Finding(kind="damaged", text=f"the balancer's decision {number} is unreadable: {row}")


def _check_mark(_: Read, key: bytes, value: bytes) -> Found:
    """Check that it says up to which entry a journal is in the store."""
    if decode_mark(value) < 0:
        yield Finding(kind="damaged", text=f"the mark of journal {key.decode()} is unreadable")


CHECKS: Mapping[str, Callable[[Read, bytes, bytes], Found]] = {
    "categories": _check_category,
    "statuses": _check_status,
    "jobs": _check_record_row,
    "results": _check_result_row,
    "pending": _check_pending,
    "scheduled": _check_scheduled,
    "running": _check_running,
    "ended": _check_ended,
    "limited": _check_limited,
    "attempts": _check_attempt,
    "unique": _check_unique,
    "limits": _check_limit,
    "decisions": _check_decision,
    "journals": _check_mark,
    **SCHEDULE_CHECKS,
}
"""What is checked of a row, by database, in this order."""


def check_row(read: Read, database: str, key: bytes, value: bytes) -> Found:
    """Yield what is wrong with a row."""
    if database == "statuses" and len(key) != ID_BYTES:
        yield _malformed(database, key)
        return
    try:
        yield from CHECKS[database](read, key, value)
    except (struct.error, ValueError):  # a key or a value of another shape, a state that is none
        yield _malformed(database, key)


# What is said.


def _damaged(job_id: bytes, what: str, error: Exception) -> Finding:
    return Finding(kind="damaged", job=_id(job_id), text=f"{what} is unreadable: {error}")


def _misplaced(job_id: bytes, text: str) -> Finding:
    return Finding(kind="misplaced", job=_id(job_id), text=text)


def _orphan(job_id: bytes, text: str) -> Finding:
    return Finding(kind="orphan", job=_id(job_id), text=text)


def _malformed(database: str, key: bytes) -> Finding:
    return Finding(
        kind="damaged", text=f"a row in {database!r} has no key or value of ours: {key[:40].hex()}"
    )


def _id(job_id: bytes) -> str | None:
    return format_id(job_id) if len(job_id) == ID_BYTES else None
