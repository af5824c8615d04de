"""What a worker's end says, in words."""

from __future__ import annotations

import os
import signal

from jobsched.job import JobError, State
from jobsched.preloader import Exited
from jobsched.store.base import Outcome
from jobsched.worker_link import Held

__all__ = ["cause_of_death", "crash_outcome"]


def cause_of_death(exited: Exited) -> str:
    """Return how a worker ended: by which signal, or with which code."""
    if os.WIFSIGNALED(exited.status):
        number = os.WTERMSIG(exited.status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"killed by {name}"
    code = os.waitstatus_to_exitcode(exited.status)
    return f"left with exit code {code}"


def crash_outcome(held: Held, exited: Exited, started_at: int, now: int) -> Outcome:
    """Return the outcome of the job that a worker was running when it died.

    Also after exit code 0: only a result says that a job is done.
    """
    error = JobError(f"its worker was {cause_of_death(exited)} while it ran")
    if not os.WIFSIGNALED(exited.status):
        error = JobError(f"its worker {cause_of_death(exited)} while it ran")
    return Outcome(held.job, held.claim, State.PENDING, started_at, now, None, error)
