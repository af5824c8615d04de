"""Why a store refuses what it is asked, or moves a job on its own: the words are the same in all."""

from __future__ import annotations

import msgspec

from jobsched.job import JobError, State
from jobsched.store.base import NewJob, Outcome, Refused

__all__ = ["key_is_taken", "may_still_run", "queue_is_full", "refused_with", "replaced_by"]


def may_still_run(worker: int) -> JobError:
    """Return why `recover` parks a job whose worker could not be ended."""
    return JobError(f"worker {worker & 0xFFFFFFFF} of an earlier node may still run it")


def replaced_by(job_id: bytes) -> JobError:
    """Return why a job was cancelled whose unique key another one has taken over."""
    return JobError(f"replaced by job {job_id.hex()}")


def key_is_taken(job: NewJob, holder: bytes) -> Refused:
    """Return the refusal of a job whose unique key is taken."""
    return Refused("DuplicateJob", f"job {holder.hex()} of task {job.task!r} has the same unique key")


def queue_is_full(category: str, limit: int, waiting: int) -> Refused:
    """Return the refusal of jobs for which a category has no room."""
    return Refused(
        "QueueFull", f"category {category!r} has {waiting:,} jobs waiting, max_pending is {limit:,}"
    )


def refused_with(outcome: Outcome, reason: str) -> Outcome:
    """Return the outcome of a run whose atomic dispatches were refused: none of it has happened."""
    error = JobError(f"what it dispatched with its completion was refused: {reason}")
    return msgspec.structs.replace(outcome, state=State.FAILED, result=None, error=error, carried=None)
