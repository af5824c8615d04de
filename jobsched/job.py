"""A job: its immutable record, its mutable status, and what is kept of its runs.

The record is written once, by whoever dispatches. The status is what changes, by the rules of
`transitions`.
"""

from __future__ import annotations

import enum

import msgspec

__all__ = [
    "CANCELLABLE",
    "ENDED",
    "KEPT_ATTEMPTS",
    "KEY_BYTES",
    "MAX_PAYLOAD",
    "NO_TERMS",
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
    "is_final",
]

MAX_PAYLOAD = 1 << 20
"""Bytes that a job's encoded arguments, or its result, may take."""

KEY_BYTES = 16
"""Bytes of the hash that stands for a unique key, or for the key of a limit."""

PRIORITY_LIMIT = 30_000
"""How far a job's priority may be from 0."""

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


_IN_PROGRESS = State.IN_PROGRESS


def is_final(state: State) -> bool:
    """Say whether a job stays in that state unless somebody moves it."""
    return state > _IN_PROGRESS  # all those behind it


class ParkedFor(enum.IntEnum):
    """Why a job is parked. The numbers are on disk: never renumber."""

    NOTHING = 0
    UNKNOWN_TASK = 1
    BAD_ARGUMENTS = 2
    UNREADABLE = 3
    INTERRUPTIONS = 4
    HELD = 5  # a worker that could not be ended may still run it


class JobRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
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
    fired_by: tuple[str, int] | None = None
    """The schedule that fired it, and the due time that it is for."""


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """At most `most` jobs that carry this key run at the same time."""

    key: bytes
    most: int


class Terms(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """On which terms a job runs; most jobs have none.

    `expires_at` is in UTC microseconds, 0 for never. `unique` is the hash of its unique key, empty
    without; with `frees_at_start` the key is free once the job has started. `is_partial` says that
    whoever dispatched the job did not know its task: what the task says is not in them.
    """

    at_most_once: bool = False
    expires_at: int = 0
    unique: bytes = b""
    frees_at_start: bool = False
    limits: tuple[Limit, ...] = ()
    is_partial: bool = False

    def with_task(self, task: Terms) -> Terms:
        """Return these terms together with those that the task has."""
        known = {limit.key for limit in self.limits}
        return Terms(
            at_most_once=self.at_most_once or task.at_most_once,
            expires_at=self.expires_at,
            unique=self.unique,
            frees_at_start=self.frees_at_start,
            limits=(*self.limits, *(limit for limit in task.limits if limit.key not in known)),
        )

    @property
    def is_alone(self) -> bool:
        """Whether such a job is handed out only to a worker that holds nothing else."""
        return self.at_most_once or bool(self.limits)


NO_TERMS = Terms()


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
