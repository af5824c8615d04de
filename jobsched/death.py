"""What a worker's end says, in words and as the outcome of the job that it was running."""

from __future__ import annotations

import os
import signal
from typing import Protocol

from jobsched.board import Board
from jobsched.job import Crash, JobError, State
from jobsched.preloader import Exited
from jobsched.redact import redact
from jobsched.store.base import Outcome
from jobsched.worker_link import Doom, Held

__all__ = ["Mortal", "cause_of_death", "crash_outcome", "exit_of", "is_bystander"]


class Mortal(Protocol):
    """What is looked at of a worker that has died: its board, and what it was killed for, if it was."""

    board: Board
    doom: Doom | None


def cause_of_death(exited: Exited) -> str:
    """Return how a worker ended: by which signal, or with which code."""
    crash = _crash(exited, out_of_memory=False)
    if crash.signal is not None:
        return f"killed by {crash.signal}" + (" for want of memory" if exited.out_of_memory else "")
    return f"left with exit code {crash.exit_code}"


def exit_of(exited: Exited) -> tuple[str | None, int | None]:
    """Return the signal by which a worker ended, or its exit code."""
    crash = _crash(exited, out_of_memory=False)
    return crash.signal, crash.exit_code


def crash_outcome(held: Held, worker: Mortal, exited: Exited, started_at: int, now: int) -> Outcome:
    """Return the outcome of the job that a worker was running when it died, or was killed for it.

    Also after exit code 0: only a result says that a job is done.
    """
    log = redact(worker.board.output()) if worker.board.has_output else ""
    doom = worker.doom
    if doom is not None:
        crash = _crash(exited, out_of_memory=True) if doom.out_of_memory else None
        due_at = now + doom.retry_after_us if doom.state is State.SCHEDULED else 0
        error = JobError(doom.cause, redact(worker.board.fault()), crash)
        return Outcome(held.job, held.claim, doom.state, started_at, now, None, error, due_at, log)
    verb = "was killed" if os.WIFSIGNALED(exited.status) else "left"
    cause = cause_of_death(exited).replace("killed", verb, 1).replace("left", verb, 1)
    crash = _crash(exited, out_of_memory=exited.out_of_memory)
    error = JobError(f"its worker {cause} while it ran", redact(worker.board.fault()), crash)
    return Outcome(held.job, held.claim, State.PENDING, started_at, now, None, error, log=log)


def is_bystander(held: Held, doom: Doom | None, *, stopping: bool) -> bool:
    """Say whether the job that a killed worker ran is not the one it was killed for: at a stop, or
    because the job before it ended just as the signal came.
    """
    return stopping if doom is None else doom.claim != held.claim


def _crash(exited: Exited, *, out_of_memory: bool) -> Crash:
    if not os.WIFSIGNALED(exited.status):
        return Crash(None, os.waitstatus_to_exitcode(exited.status), exited.peak_kib, out_of_memory)
    number = os.WTERMSIG(exited.status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return Crash(name, None, exited.peak_kib, out_of_memory)
