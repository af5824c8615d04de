"""A job: its id, its immutable record, its mutable status, and the pure rules that move it.

The record is written once, by whoever dispatches. The status is what changes; every change of it
is one of the functions below, used by all stores, so that they cannot differ.
"""

from __future__ import annotations

import enum
import os
import threading
import time
import uuid

import msgspec

__all__ = [
    "CANCELLABLE",
    "CRASH_LIMIT",
    "ENDED",
    "ID_BYTES",
    "INTERRUPTION_LIMIT",
    "MAX_PAYLOAD",
    "PRIORITY_LIMIT",
    "JobError",
    "JobRecord",
    "JobStatus",
    "State",
    "cancelled",
    "claimed",
    "finished",
    "format_id",
    "new_id",
    "parked",
    "parse_id",
    "part_of_id",
    "put_back",
    "queued",
]

MAX_PAYLOAD = 1 << 20
"""Bytes that a job's encoded arguments, or its result, may take."""

ID_BYTES = 16

PRIORITY_LIMIT = 30_000
"""How far a job's priority may be from 0."""

CRASH_LIMIT = 3
"""A job that was running at this many deaths of its worker is quarantined."""

INTERRUPTION_LIMIT = 20
"""A job whose run was cut off this often by stops and crashes of the node is parked."""


class State(enum.IntEnum):
    """Where a job stands. The numbers are on disk: never renumber."""

    SCHEDULED = 0
    PENDING = 1
    IN_PROGRESS = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5
    PARKED = 6
    QUARANTINED = 7

    def __str__(self) -> str:
        return self.name.lower()


ENDED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
"""The states that a job does not leave by itself."""

CANCELLABLE = frozenset({State.SCHEDULED, State.PENDING, State.PARKED})
"""The states in which nobody runs the job and it may be cancelled."""

_MIN_PART = 6


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The immutable part of a job, as its dispatcher wrote it."""

    id: bytes
    task: str
    category: str
    priority: int
    dispatched_at: int
    args: msgspec.Raw
    kwargs: msgspec.Raw
    name: str | None = None
    max_retries: int | None = None


class JobStatus(msgspec.Struct, array_like=True, gc=False):
    """The mutable part of a job. Only the functions of a store's turn change it.

    `sequence` is the job's place in its category's queue, `claim` the number of its last claim,
    `worker` the number of the worker that holds or held it.
    """

    state: State
    category: str
    priority: int
    sequence: int = 0
    due_at: int = 0
    attempt: int = 0
    claim: int = 0
    worker: int = 0
    started_at: int = 0
    ended_at: int = 0
    crashes: int = 0
    interruptions: int = 0


class JobError(msgspec.Struct, frozen=True, array_like=True):
    """Why a run did not complete: one line, and the traceback where there is one."""

    cause: str
    traceback: str = ""


class _IdSource:
    """UUIDv7 (RFC 9562): 48 bits of milliseconds, 12 of their fraction, 62 random.

    Ids made by one process only grow, also within a millisecond and when the clock steps back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0  # the 60-bit time of the last id; any thread, under the lock

    def unlock(self) -> None:
        """Begin with a new lock, in a forked child; its ids go on from the parent's."""
        self._lock = threading.Lock()

    def next(self) -> bytes:
        nanos = time.time_ns()
        millis, rest = divmod(nanos, 1_000_000)
        stamp = (millis << 12) | (rest << 12) // 1_000_000
        with self._lock:
            stamp = self._last = max(stamp, self._last + 1)
        value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62
        return (value | int.from_bytes(os.urandom(8), "big") >> 2).to_bytes(16, "big")


_ids = _IdSource()


def _free_in_child() -> None:
    """Renew the lock: a thread that is not here may have held it at the fork."""
    _ids.unlock()


os.register_at_fork(after_in_child=_free_in_child)


def new_id() -> bytes:
    """Return a new job id: a UUIDv7 of 16 bytes."""
    return _ids.next()


def format_id(job_id: bytes) -> str:
    """Return the text form of a job id."""
    return str(uuid.UUID(bytes=job_id))


def parse_id(text: str) -> bytes:
    """Return the 16 bytes of a job id's text form. Raises ValueError if it is none."""
    return uuid.UUID(text).bytes


def part_of_id(text: str) -> str:
    """Return the digits of a part of an id. Raises ValueError for fewer than 6, or other characters."""
    digits = text.replace("-", "").lower()
    if len(digits) < _MIN_PART or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(f"{text!r} is no part of a job id: 6 or more of its hex digits are needed")
    return digits


def queued(status: JobStatus, *, sequence: int) -> None:
    """Put the job at the end of its queue."""
    status.state = State.PENDING
    status.sequence = sequence


def claimed(status: JobStatus, *, claim: int, worker: int, now: int) -> None:
    """Hand the job out: one more attempt, under a new claim number."""
    status.state = State.IN_PROGRESS
    status.attempt += 1
    status.claim = claim
    status.worker = worker
    status.started_at = now
    status.ended_at = 0


def put_back(status: JobStatus, *, now: int, interrupted: bool) -> None:
    """Undo a claim: the job keeps its place and the attempt is given back.

    `interrupted` says that the run had begun: too many of those park the job.
    """
    status.attempt -= 1
    status.started_at = 0
    status.state = State.PENDING
    status.interruptions += interrupted
    if status.interruptions >= INTERRUPTION_LIMIT:
        parked(status, now=now)


def parked(status: JobStatus, *, now: int) -> None:
    """Set the job aside: nobody can run it now."""
    status.state = State.PARKED
    status.ended_at = now


def cancelled(status: JobStatus, *, now: int) -> None:
    """End the job before it has started."""
    status.state = State.CANCELLED
    status.ended_at = now


def finished(status: JobStatus, *, state: State, started_at: int, ended_at: int, due_at: int) -> None:
    """Note how a run ended. `state` is where the job goes; `due_at` counts if that is `scheduled`.

    `pending` means that its worker died while running it: the place is kept and the attempt given
    back, but three of those quarantine the job.
    """
    status.started_at = started_at
    status.ended_at = ended_at
    status.state = state
    if state is State.SCHEDULED:
        status.due_at = due_at
    elif state is State.PENDING:
        status.attempt -= 1
        status.crashes += 1
        if status.crashes >= CRASH_LIMIT:
            status.state = State.QUARANTINED
