"""How jobs lie in LMDB: the databases, their keys, and the records in them.

    meta        b"format" → number; b"counters" → [sequence, claim, epoch]
    categories  name → [number, paused, counts by state, end of the pause, waiting at limits]
    jobs        id → the immutable record
    statuses    id → the mutable status
    results     id → [result, error] of the last run that left one
    attempts    id · claim → an attempt that failed or wrote something
    unique      hash of a unique key → id of the job that holds it
    limits      key of a limit → [how many may run, how many do]
    limited     key of a limit · the job's key in `pending`, which it has left → id
    pending     category · priority, highest first · sequence → id
    scheduled   due time · id → category
    running     claim → id · worker · category
    ended       state · time · id → category      (parked and quarantined jobs too)
    decisions   number → a decision of the balancer

Those of schedules are in `lmdb_schedules`, that of journals in `lmdb_journals`.

Keys are big-endian, so that byte order is the order wanted. A job stands in exactly one of
pending, limited, scheduled, running and ended. Long records are split: LMDB keeps values over about
2 KB in runs of whole pages, and searching its free list for long runs is what makes large stores
slow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from itertools import islice
from typing import TYPE_CHECKING

import lmdb
import msgspec

from jobsched.codec import BadRecord, seal, unseal
from jobsched.job import KEPT_ATTEMPTS, Attempt, JobError, JobStatus, State
from jobsched.report import Decision
from jobsched.store.base import KEPT_DECISIONS, CategoryStats

__all__ = [
    "CHUNK",
    "FORMAT",
    "Cache",
    "CategoryRow",
    "Counters",
    "Databases",
    "Db",
    "ResultRow",
    "Txn",
    "append_attempt",
    "append_decision",
    "decode_status",
    "drop_attempts",
    "drop_blob",
    "encode_status",
    "ended_key",
    "ended_prefix",
    "get_blob",
    "is_split",
    "pending_key",
    "pending_prefix",
    "put_blob",
    "read_attempts",
    "read_cache",
    "read_categories",
    "read_counters",
    "read_decisions",
    "read_result",
    "running_key",
    "running_value",
    "split_ended",
    "split_pending",
    "split_running",
    "split_scheduled",
    "timed_key",
    "write_category",
    "write_counters",
    "write_result",
]

if TYPE_CHECKING:
    Txn = lmdb.Transaction[bytes]
    Db = lmdb._Database  # noqa: SLF001 (the stubs name it so)
else:
    Txn, Db = lmdb.Transaction, object

FORMAT = 2
CHUNK = 2000
"""Bytes of a record that lie in one value."""

_MOSTCHUNKS = 1 << 16
_MANY = b"\x02"  # first byte of a split record: no seal begins with it

_pending = struct.Struct(">IHQ")
_timed = struct.Struct(">Q16s")
_ended = struct.Struct(">BQ16s")
_running = struct.Struct(">Q")
_running_value = struct.Struct(">16sQI")
_TOP_PRIORITY = 0x7FFF
_ATTEMPT_KEY = 24


@dataclasses.dataclass(frozen=True, slots=True)
class Databases:
    """The handles of the named databases."""

    meta: Db
    categories: Db
    jobs: Db
    statuses: Db
    results: Db
    pending: Db
    scheduled: Db
    running: Db
    ended: Db
    decisions: Db
    attempts: Db
    unique: Db
    limits: Db
    limited: Db
    schedules: Db
    schedule_states: Db
    timetable: Db
    firings: Db
    journals: Db

    @classmethod
    def open(cls, env: lmdb.Environment) -> Databases:
        """Open or create them all: in one transaction, as each waits for a node's commit to end."""
        with env.begin(write=True) as txn:
            return cls(*(env.open_db(name.encode(), txn) for name in cls.__slots__))

    def all(self) -> list[Db]:
        """Return them all."""
        return [getattr(self, name) for name in self.__slots__]


class Counters(msgspec.Struct, array_like=True):
    """The numbers that only grow: the last one given of each."""

    sequence: int = 0
    claim: int = 0
    epoch: int = 0


class CategoryRow(msgspec.Struct, array_like=True):
    """A category's number in keys, and its counts."""

    number: int
    paused: bool
    counts: list[int]
    resume_at: int = 0
    limited: int = 0

    @classmethod
    def new(cls, number: int) -> CategoryRow:
        """Return the row of a category not seen before."""
        return cls(number, False, [0] * len(State))

    def stats(self) -> CategoryStats:
        """Return a copy of what others may see."""
        return CategoryStats(self.counts.copy(), self.paused, self.limited, self.resume_at)


@dataclasses.dataclass(slots=True)
class Cache:
    """What a store that writes remembers of its last commit: its number, the small databases, the
    statuses of the jobs in progress, as far as it has met them, and when the next schedule fires.
    """

    number: int
    counters: Counters
    categories: dict[str, CategoryRow]
    held: dict[bytes, JobStatus]
    next_fire: int | None = None


class ResultRow(msgspec.Struct, array_like=True, frozen=True):
    """What a run left: a result, or why there is none."""

    result: bytes | None = None
    error: JobError | None = None


_encode = msgspec.msgpack.Encoder().encode
_statuses = msgspec.msgpack.Decoder(JobStatus)
_categories = msgspec.msgpack.Decoder(CategoryRow)
_counters = msgspec.msgpack.Decoder(Counters)
_decisions = msgspec.msgpack.Decoder(Decision)
_results = msgspec.msgpack.Decoder(ResultRow)
_attempts = msgspec.msgpack.Decoder(Attempt)


def encode_status(status: JobStatus) -> bytes:
    """Return a status as stored."""
    return seal(_encode(status))


def decode_status(data: bytes) -> JobStatus:
    """Return a stored status. Raises BadRecord."""
    try:
        return _statuses.decode(unseal(data))
    except msgspec.MsgspecError as error:
        raise BadRecord(str(error)) from error


def pending_prefix(category: int) -> bytes:
    """Return what the pending keys of a category begin with."""
    return category.to_bytes(4, "big")


def pending_key(category: int, priority: int, sequence: int) -> bytes:
    """Return the key of a job in its queue."""
    return _pending.pack(category, _TOP_PRIORITY - priority, sequence)


def split_pending(key: bytes) -> tuple[int, int, int]:
    """Return category number, priority and sequence of a pending key."""
    category, inverted, sequence = _pending.unpack(key)
    return category, _TOP_PRIORITY - inverted, sequence


def timed_key(at: int, job_id: bytes) -> bytes:
    """Return what orders jobs by a time."""
    return _timed.pack(max(at, 0), job_id)


def split_scheduled(key: bytes) -> tuple[int, bytes]:
    """Return due time and id of a scheduled key."""
    due_at, job_id = _timed.unpack(key)
    return due_at, job_id


def running_key(claim: int) -> bytes:
    """Return the key of a job in progress."""
    return _running.pack(claim)


def running_value(job_id: bytes, worker: int, category: int) -> bytes:
    """Return what the running index keeps of a job."""
    return _running_value.pack(job_id, worker, category)


def split_running(value: bytes) -> tuple[bytes, int, int]:
    """Return id, worker and category number of a running row."""
    job_id, worker, category = _running_value.unpack(value)
    return job_id, worker, category


def ended_prefix(state: State) -> bytes:
    """Return what the ended keys of a state begin with."""
    return bytes((state,))


def ended_key(state: State, ended_at: int, job_id: bytes) -> bytes:
    """Return the key of a job that waits for nobody."""
    return _ended.pack(state, max(0, ended_at), job_id)


def split_ended(key: bytes) -> tuple[State, int, bytes]:
    """Return state, time and id of an ended key."""
    state, ended_at, job_id = _ended.unpack(key)
    return State(state), ended_at, job_id


def put_blob(txn: Txn, db: Db, key: bytes, blob: bytes) -> None:
    """Write a sealed record under a key that has none, in chunks where it is long."""
    if len(blob) <= CHUNK:
        txn.put(key, blob, db=db)
        return
    txn.put(key, _MANY + len(blob).to_bytes(4, "big"), db=db)
    for place, start in enumerate(range(0, len(blob), CHUNK)):
        txn.put(key + place.to_bytes(2, "big"), blob[start : start + CHUNK], db=db)


def get_blob(txn: Txn, db: Db, key: bytes) -> bytes | None:
    """Return a record written by `put_blob`, None without one; a missing chunk fails its CRC."""
    head = txn.get(key, db=db)
    if head is None or not is_split(head):
        return head
    return b"".join(txn.get(key + place.to_bytes(2, "big"), b"", db=db) for place in range(_chunks(head)))


def drop_blob(txn: Txn, db: Db, key: bytes) -> None:
    """Delete a record written by `put_blob`, if there is one."""
    head = txn.pop(key, db=db)
    if head is None or not is_split(head):
        return
    for place in range(_chunks(head)):
        txn.delete(key + place.to_bytes(2, "big"), db=db)


def is_split(head: bytes) -> bool:
    """Say whether a value is the head of a record in chunks."""
    return head[:1] == _MANY


def _chunks(head: bytes) -> int:
    """Return in how many chunks a record is split. A damaged head may say anything: no more than
    the keys of chunks can count.
    """
    return min(-(-int.from_bytes(head[1:5], "big") // CHUNK), _MOSTCHUNKS)


def read_result(txn: Txn, dbs: Databases, job_id: bytes) -> ResultRow:
    """Return what the job's last run left."""
    blob = get_blob(txn, dbs.results, job_id)
    if blob is None:
        return ResultRow()
    try:
        return _results.decode(unseal(blob))
    except (BadRecord, msgspec.MsgspecError) as error:
        return ResultRow(error=JobError(f"the stored result is unreadable: {error}"))


def write_result(txn: Txn, dbs: Databases, job_id: bytes, row: ResultRow) -> None:
    """Replace what the job's last run left."""
    put_blob(txn, dbs.results, job_id, seal(_encode(row)))


def append_attempt(txn: Txn, dbs: Databases, job_id: bytes, attempt: Attempt) -> None:
    """Keep an attempt of a job, and let go of its oldest over the limit."""
    keys = _attempt_keys(txn, dbs, job_id)
    for key in keys[: max(0, len(keys) + 1 - KEPT_ATTEMPTS)]:
        drop_blob(txn, dbs.attempts, key)
    put_blob(txn, dbs.attempts, job_id + attempt.claim.to_bytes(8, "big"), seal(_encode(attempt)))


def read_attempts(txn: Txn, dbs: Databases, job_id: bytes) -> list[Attempt]:
    """Return the attempts kept of a job, oldest first; those that are damaged are left out."""
    found: list[Attempt] = []
    for key in _attempt_keys(txn, dbs, job_id):
        with contextlib.suppress(BadRecord, msgspec.MsgspecError):
            found.append(_attempts.decode(unseal(get_blob(txn, dbs.attempts, key) or b"")))
    return found


def drop_attempts(txn: Txn, dbs: Databases, job_id: bytes) -> None:
    """Forget the attempts of a job."""
    for key in _attempt_keys(txn, dbs, job_id):
        drop_blob(txn, dbs.attempts, key)


def _attempt_keys(txn: Txn, dbs: Databases, job_id: bytes) -> list[bytes]:
    cursor = txn.cursor(db=dbs.attempts)
    keys: list[bytes] = []
    for key in cursor.iternext(values=False) if cursor.set_range(job_id) else ():
        if not key.startswith(job_id):
            break
        if len(key) == _ATTEMPT_KEY:  # longer ones are chunks
            keys.append(key)
    return keys


def read_counters(txn: Txn, dbs: Databases) -> Counters:
    """Return the counters."""
    data = txn.get(b"counters", db=dbs.meta)
    return Counters() if data is None else _counters.decode(unseal(data))


def write_counters(txn: Txn, dbs: Databases, counters: Counters) -> None:
    """Write the counters."""
    txn.put(b"counters", seal(_encode(counters)), db=dbs.meta)


def read_categories(txn: Txn, dbs: Databases) -> dict[str, CategoryRow]:
    """Return all categories by name."""
    return {
        bytes(key).decode(): _categories.decode(unseal(value)) for key, value in txn.cursor(db=dbs.categories)
    }


def read_cache(txn: Txn, dbs: Databases) -> Cache:
    """Return what a store remembers that has just been opened."""
    return Cache(0, read_counters(txn, dbs), read_categories(txn, dbs), {})


def append_decision(txn: Txn, dbs: Databases, decision: Decision) -> None:
    """Keep a decision, and let go of the oldest over the limit."""
    cursor = txn.cursor(db=dbs.decisions)
    number = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 1
    txn.put(number.to_bytes(8, "big"), seal(_encode(decision)), db=dbs.decisions, append=True)
    if txn.stat(dbs.decisions)["entries"] > KEPT_DECISIONS and cursor.first():
        cursor.delete()


def read_decisions(txn: Txn, dbs: Databases, limit: int) -> list[Decision]:
    """Return the last decisions, oldest first."""
    newest = islice(txn.cursor(db=dbs.decisions).iterprev(keys=False), limit)
    return [_decisions.decode(unseal(value)) for value in newest][::-1]


def write_category(txn: Txn, dbs: Databases, name: str, row: CategoryRow) -> None:
    """Write one category."""
    txn.put(name.encode(), seal(_encode(row)), db=dbs.categories)
