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
    "EXPIRED",
    "ID_BYTES",
    "INTERRUPTION_LIMIT",
    "KEPT_ATTEMPTS",
    "KEY_BYTES",
    "MAX_PAYLOAD",
    "PRIORITY_LIMIT",
    "RETRYABLE",
    "Attempt",
    "Crash",
    "JobError",
    "JobRecord",
    "JobStatus",
    "Limit",
    "ParkedFor",
    "State",
    "Terms",
    "cancelled",
    "claimed",
    "finished",
    "format_id",
    "holds_key",
    "is_expired",
    "new_id",
    "parked",
    "parse_id",
    "part_of_id",
    "put_back",
    "queued",
    "retried",
]

MAX_PAYLOAD = 1 << 20
"""Bytes that a job's encoded arguments, or its result, may take."""

ID_BYTES = 16

KEY_BYTES = 16
"""Bytes of the hash that stands for a unique key, or for the key of a limit."""

PRIORITY_LIMIT = 30_000
"""How far a job's priority may be from 0."""

CRASH_LIMIT = 3
"""A job that was running at this many deaths of its worker is quarantined."""

INTERRUPTION_LIMIT = 20
"""A job whose run was cut off this often by stops and crashes of the node is parked."""

KEPT_ATTEMPTS = 20
"""How many of a job's attempts are remembered, the latest."""


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

CANCELLABLE = frozenset({State.SCHEDULED, State.PENDING, State.PARKED, State.QUARANTINED})
"""The states in which nobody runs the job and it is cancelled at once."""

RETRYABLE = frozenset({State.SCHEDULED, State.FAILED, State.CANCELLED, State.PARKED, State.QUARANTINED})
"""The states from which an operator may send a job to its queue again."""

_KEY_STATES = frozenset({State.SCHEDULED, State.PENDING, State.PARKED})


class ParkedFor(enum.IntEnum):
    """Why a job is parked. The numbers are on disk: never renumber."""

    NOTHING = 0
    UNKNOWN_TASK = 1
    BAD_ARGUMENTS = 2
    UNREADABLE = 3
    INTERRUPTIONS = 4
    HELD = 5  # a worker that could not be ended may still run it


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
    timeout_s: float | None = None
    by_name: bool = False
    """Its dispatcher did not know the task: what the task says of its terms is not in them."""


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """At most `most` jobs that carry this key run at the same time."""

    key: bytes
    most: int


class Terms(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """On which terms a job runs; most jobs have none.

    `expires_at` is in UTC microseconds, 0 for never. `unique` is the hash of its unique key, empty
    without; with `frees_at_start` the key is free once the job has started.
    """

    at_most_once: bool = False
    expires_at: int = 0
    unique: bytes = b""
    frees_at_start: bool = False
    limits: tuple[Limit, ...] = ()

    @property
    def is_alone(self) -> bool:
        """Whether such a job is handed out only to a worker that holds nothing else."""
        return self.at_most_once or bool(self.limits)


class JobStatus(msgspec.Struct, array_like=True, gc=False):
    """The mutable part of a job. Only the functions of a store's turn change it.

    `sequence` is the job's place in its category's queue, `claim` the number of its last claim,
    `worker` the number of the worker that holds or held it. `cancel_asked` says that a running job
    is to be cancelled.
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
    cancel_asked: bool = False
    parked_for: ParkedFor = ParkedFor.NOTHING
    terms: Terms | None = None


class Crash(msgspec.Struct, frozen=True, array_like=True):
    """How a worker ended that was running a job: its signal or else its exit code, its peak memory
    in KiB (that of the modules it was forked with included), and whether memory had run out.
    """

    signal: str | None
    exit_code: int | None
    peak_kib: int
    out_of_memory: bool


class JobError(msgspec.Struct, frozen=True, array_like=True):
    """Why a run did not complete: one line, the traceback where there is one, how its worker died
    if it did.
    """

    cause: str
    traceback: str = ""
    crash: Crash | None = None


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One run of a job that failed, or wrote something: when, where, why, and its last output.

    `state` is where the run was to send the job; times are UTC microseconds.
    """

    attempt: int
    claim: int
    worker: int
    started_at: int
    ended_at: int
    state: State
    error: JobError | None = None
    log: str = ""


_INTERRUPTED_TOO_OFTEN = JobError(f"interrupted {INTERRUPTION_LIMIT} times by stops of its node")
_CUT_OFF = JobError("interrupted: its node stopped or died meanwhile, and it is to run at most once")
_CANCELLED_UNSTARTED = JobError("cancelled: before it had started")
_CANCELLED_CUT_OFF = JobError("cancelled: while it ran, by the end of its node or worker")
_CANCELLED_UNTRIED = JobError("cancelled: instead of being tried again")
EXPIRED = JobError("expired: it had not started in time")
"""Why a job was cancelled that came too late to start."""


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
    digits = job_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


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


def put_back(status: JobStatus, *, now: int, interrupted: bool) -> JobError | None:
    """Undo a claim: the job keeps its place and the attempt is given back.

    `interrupted` says that the run had begun: too many of those park the job, and one that is to
    run at most once has failed. Returns why the job did not go back to its place, None if it did.
    """
    if status.cancel_asked:
        cancelled(status, now=now)
        return _CANCELLED_CUT_OFF if interrupted else _CANCELLED_UNSTARTED
    status.interruptions += interrupted
    if interrupted and status.terms is not None and status.terms.at_most_once:
        status.state = State.FAILED
        status.ended_at = now
        return _CUT_OFF
    status.attempt -= 1
    status.started_at = 0
    status.state = State.PENDING
    if status.interruptions >= INTERRUPTION_LIMIT:
        parked(status, now=now, reason=ParkedFor.INTERRUPTIONS)
        return _INTERRUPTED_TOO_OFTEN
    return None


def parked(status: JobStatus, *, now: int, reason: ParkedFor) -> None:
    """Set the job aside: nobody can run it now."""
    status.state = State.PARKED
    status.parked_for = reason
    status.ended_at = now


def cancelled(status: JobStatus, *, now: int) -> None:
    """End the job for good, without a result."""
    status.state = State.CANCELLED
    status.ended_at = now


def is_expired(status: JobStatus, *, now: int) -> bool:
    """Say whether it is too late for the job to start."""
    return status.terms is not None and 0 < status.terms.expires_at <= now


def retried(status: JobStatus, *, sequence: int) -> None:
    """Send a job to the end of its queue by an operator's word: with all its retries, whatever its
    crashes and its expiry were. One that only waits for its time keeps its count of attempts.
    """
    if status.state is not State.SCHEDULED:
        status.attempt = 0
    status.crashes = status.interruptions = status.ended_at = 0
    status.cancel_asked = False
    status.parked_for = ParkedFor.NOTHING
    if status.terms is not None and status.terms.expires_at:
        status.terms = msgspec.structs.replace(status.terms, expires_at=0)
    queued(status, sequence=sequence)


def finished(
    status: JobStatus,
    *,
    state: State,
    started_at: int,
    ended_at: int,
    due_at: int = 0,
    unspent: bool = False,
    parked_for: ParkedFor = ParkedFor.NOTHING,
    terms: Terms | None = None,
) -> JobError | None:
    """Note how a run ended. `state` is where the job goes; `due_at` counts if that is `scheduled`.

    `pending` means that its worker died while running it: the place is kept and the attempt given
    back, but three of those quarantine the job. With `terms` it means that nothing ran: the worker
    found that the task has these terms, and the job is to be claimed again under them. `unspent`
    gives the attempt back. A job whose cancellation was asked for is not tried again, nor is one
    that is to run at most once. Returns why the job went elsewhere than `state` says, None if not.
    """
    status.started_at = started_at
    status.ended_at = ended_at
    status.state = state
    status.parked_for = parked_for
    status.attempt -= unspent
    is_once = status.terms is not None and status.terms.at_most_once
    if is_once and state is State.SCHEDULED and not unspent:
        status.state = State.FAILED
    if terms is not None:
        status.terms = terms
    elif state is State.PENDING:
        status.crashes += 1
        if is_once:
            status.state = State.FAILED
            return None
        status.attempt -= 1
        if status.crashes >= CRASH_LIMIT:
            status.state = State.QUARANTINED
    status.due_at = due_at if status.state is State.SCHEDULED else status.due_at
    if status.cancel_asked and status.state in CANCELLABLE:
        status.state = State.CANCELLED
        if terms is not None:
            return _CANCELLED_UNSTARTED
        return _CANCELLED_CUT_OFF if state is State.PENDING else _CANCELLED_UNTRIED
    return None


def holds_key(status: JobStatus) -> bool:
    """Say whether the job keeps its unique key from others in the state that it is in."""
    terms = status.terms
    if terms is None or not terms.unique:
        return False
    return status.state in _KEY_STATES or (status.state is State.IN_PROGRESS and not terms.frees_at_start)
