"""What a job has been through, and on which terms it runs, as the command line shows it."""

from __future__ import annotations

from typing import Any

from jobsched.amount import byte_size, many
from jobsched.cli.output import age, clean, iso_time, local_time
from jobsched.clock import MICROSECONDS
from jobsched.job import Attempt, Crash, ParkedFor, State
from jobsched.store.base import StoredJob

__all__ = [
    "attempt",
    "attempt_lines",
    "crash",
    "crash_line",
    "moment",
    "parked_for",
    "term_lines",
    "terms",
]

_WORKER = 0xFFFFFFFF  # the part of a worker's number that counts within one life of a node
_KIB = 1024

_REASONS = {
    ParkedFor.UNKNOWN_TASK: "no configured module has its task",
    ParkedFor.BAD_ARGUMENTS: "its arguments do not fit the task",
    ParkedFor.UNREADABLE: "its record cannot be read",
    ParkedFor.INTERRUPTIONS: "it was interrupted too often",
    ParkedFor.HELD: "a worker that could not be ended may still run it",
}


def parked_for(job: StoredJob) -> str | None:
    """Return why a job is parked; None if it is not, or nobody noted why."""
    return _REASONS.get(job.status.parked_for) if job.status.state is State.PARKED else None


def terms(job: StoredJob) -> dict[str, Any] | None:
    """Return the terms of a job as JSON has them; None without. Keys are shown by their hashes."""
    found = job.status.terms
    if found is None:
        return None
    return {
        "at_most_once": found.at_most_once,
        "expires_at": iso_time(found.expires_at),
        "unique": found.unique.hex() or None,
        "unique_until": ("start" if found.frees_at_start else "end") if found.unique else None,
        "limits": [{"key": limit.key.hex(), "max_running": limit.most} for limit in found.limits],
    }


def term_lines(job: StoredJob, now: int) -> list[tuple[str, str]]:
    """Return the terms of a job as people read them: what, and its value, empty where there is none."""
    found = job.status.terms
    if found is None:
        return []
    until = "until it starts" if found.frees_at_start else "until it ends"
    limits = ", ".join(f"{limit.most:,} at once of {limit.key.hex()[:8]}" for limit in found.limits)
    return [
        ("expires", moment(found.expires_at, now)),
        ("unique", f"{found.unique.hex()[:8]}, {until}" if found.unique else ""),
        ("limits", limits),
        ("at most once", "yes" if found.at_most_once else ""),
    ]


def crash(found: Crash | None) -> dict[str, Any] | None:
    """Return how a worker ended, as JSON has it."""
    if found is None:
        return None
    return {
        "signal": found.signal,
        "exit_code": found.exit_code,
        "peak_kib": found.peak_kib,
        "out_of_memory": found.out_of_memory,
    }


def crash_line(found: Crash | None) -> str:
    """Return how a worker ended, in a line; empty without a crash."""
    if found is None:
        return ""
    how = found.signal or f"exit code {found.exit_code}"
    memory = ", out of memory" if found.out_of_memory else ""
    return f"{how}, peak memory {byte_size(found.peak_kib * _KIB)}{memory}"


def attempt(found: Attempt) -> dict[str, Any]:
    """Return a run of a job, as JSON has it."""
    error = found.error
    return {
        "attempt": found.attempt,
        "worker": found.worker & _WORKER,
        "started_at": iso_time(found.started_at),
        "ended_at": iso_time(found.ended_at),
        "seconds": _seconds(found),
        "state": str(found.state),
        "error": error and error.cause,
        "traceback": (error.traceback or None) if error else None,
        "crash": error and crash(error.crash),
        "output": found.log or None,
    }


def attempt_lines(job: StoredJob) -> list[tuple[str, str]]:
    """Return the runs of a job as people read them, then the last one's output.

    The last one's traceback is the job's own.
    """
    if not job.attempts:
        return []
    rows = "\n".join(_attempt_line(found) for found in job.attempts)
    last = job.attempts[-1]
    output = clean(last.log, lines=True).rstrip()
    rows_of_error = clean(last.error.traceback, lines=True).rstrip() if last.error and not job.error else ""
    return [(f"{many(len(job.attempts), 'run')}:", rows), ("traceback", rows_of_error), ("output", output)]


def _attempt_line(found: Attempt) -> str:
    parts = [
        f"  {found.attempt}",
        local_time(found.started_at) if found.started_at else "not started",
        f"{_seconds(found):.3f} s",
        f"worker {found.worker & _WORKER}",
        str(found.state),
    ]
    line = "  ".join(parts)
    return f"{line}\n     {clean(found.error.cause)}" if found.error else line


def _seconds(found: Attempt) -> float:
    """Return how long a run took."""
    return (found.ended_at - found.started_at) / MICROSECONDS if found.started_at else 0.0


def moment(micros: int, now: int) -> str:
    """Return an instant and how far it is from now; nothing for none."""
    if not micros:
        return ""
    seconds = (now - micros) / MICROSECONDS
    relation = f"{age(seconds)} ago" if seconds >= 0 else f"in {age(-seconds)}"
    return f"{local_time(micros)} ({relation})"
