"""The pure rules that move a job from state to state.

Every change of a job's status is one of these functions, used by all stores, so that they cannot
differ. They change the status in place; times are UTC microseconds.
"""

from __future__ import annotations

import msgspec

from jobsched.job import CANCELLABLE, JobError, JobStatus, ParkedFor, State, Terms

__all__ = [
    "CRASH_LIMIT",
    "EXPIRED",
    "INTERRUPTION_LIMIT",
    "cancelled",
    "claimed",
    "finished",
    "holds_key",
    "is_expired",
    "is_new",
    "parked",
    "put_back",
    "queued",
    "retried",
]

CRASH_LIMIT = 3
"""A job that was running at this many deaths of its worker is quarantined."""

INTERRUPTION_LIMIT = 20
"""A job whose run was cut off this often by stops and crashes of the node is parked."""

_INTERRUPTED_TOO_OFTEN = JobError(f"interrupted {INTERRUPTION_LIMIT} times by stops of its node")
_CUT_OFF = JobError("interrupted: its node stopped or died meanwhile, and it is to run at most once")
_CANCELLED_UNSTARTED = JobError("cancelled: before it had started")
_CANCELLED_CUT_OFF = JobError("cancelled: while it ran, by the end of its node or worker")
_CANCELLED_UNTRIED = JobError("cancelled: instead of being tried again")
EXPIRED = JobError("expired: it had not started in time")
"""Why a job was cancelled that came too late to start."""

_IN_PROGRESS = State.IN_PROGRESS  # to look it up takes as long as all that `claimed` does
_KEY_STATES = frozenset({State.SCHEDULED, State.PENDING, State.PARKED})


def queued(status: JobStatus, *, sequence: int) -> None:
    """Put the job at the end of its queue."""
    status.state = State.PENDING
    status.sequence = sequence


def is_new(status: JobStatus) -> bool:
    """Say whether a job waits in its queue that was never claimed, and that nothing keeps from starting."""
    return status.state is State.PENDING and not status.claim and status.terms is None


def claimed(status: JobStatus, *, claim: int, worker: int, now: int) -> None:
    """Hand the job out: one more attempt, under a new claim number."""
    status.state = _IN_PROGRESS
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
        status.terms = terms if status.terms is None else status.terms.with_task(terms)
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
