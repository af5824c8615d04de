"""Running what is due, up to a time, or until something has happened; never without end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from jobsched.clock import MICROSECONDS, from_micros
from jobsched.errors import InvalidOption, nearest
from jobsched.event import Event
from jobsched.job import is_final
from jobsched.job_id import format_id
from jobsched.store.base import StoredJob
from jobsched.testing.errors import DispatchesForever, NotHappened, WouldWait
from jobsched.testing.local_node import LocalNode
from jobsched.testing.obstacle import obstacle, waiting
from jobsched.testing.record import Run

__all__ = ["happens", "next_event", "run_until", "run_until_ended"]

T = TypeVar("T")

_LIMIT = 10_000


def run_until(node: LocalNode, until: int, limit: int) -> list[Run]:
    """Run everything that falls due up to a time (UTC microseconds), in the order of due times; the
    clock goes along, and stands at that time then. Return the runs.

    Raises DispatchesForever when that takes more steps than the limit.
    """
    begun = len(node.journal.runs)  # a run may have others run inside it
    for _ in range(limit + 1):
        if node.run_next() is None and not _go_on(node, until):
            return node.journal.runs[begun:]
    raise DispatchesForever(_why_endless(node, node.journal.runs[begun:], limit))


def _go_on(node: LocalNode, until: int) -> bool:
    """Let time pass until something is due, or else to the end; say whether there is anything."""
    at = node.next_at()
    goal = until if at is None or at > until else at
    if goal > node.now:
        node.pass_us(goal - node.now)
    return at is not None and at <= until


def happens(node: LocalNode, predicate: Callable[[], T], timeout_us: int, limit: int) -> T:
    """Run what falls due until a predicate holds; return what it gave.

    Raises NotHappened at the end of the time, DispatchesForever.
    """
    until = node.now + timeout_us
    begun = len(node.journal.runs)
    for _ in range(limit + 1):
        found = predicate()
        if found:
            return found
        if node.run_next() is not None:
            continue
        if node.now >= until:
            raise NotHappened(_why_not(node, node.journal.runs[begun:], timeout_us))
        _go_on(node, until)
    raise DispatchesForever(_why_endless(node, node.journal.runs[begun:], limit))


def next_event(node: LocalNode, kind: type[Event], fields: Mapping[str, Any]) -> Callable[[], Event | None]:
    """Return the predicate that an event happens from now on, of a type and with these fields.

    Raises InvalidOption for what is no type of event, or has no such field.
    """
    if not issubclass(kind, Event):
        raise InvalidOption(f"expected a type of event like JobFailed, or a predicate, got {kind!r}")
    for name in fields:
        if name not in kind.__struct_fields__:
            raise InvalidOption(
                f"{kind.__name__} has no field {name!r}{nearest(name, kind.__struct_fields__)}"
            )
    begun = len(node.journal.events)

    def happened() -> Event | None:
        return next((event for event in node.journal.events[begun:] if _is_so(event, kind, fields)), None)

    return happened


def _is_so(event: Event, kind: type[Event], fields: Mapping[str, Any]) -> bool:
    return isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items())


def run_until_ended(node: LocalNode, job_id: bytes, timeout_s: float | None) -> StoredJob | None:
    """Run what falls due until a job has ended, or the timeout is over; return the job.

    Without a timeout no time passes. Raises WouldWait if it does not end then.
    """
    until = node.now + int((timeout_s or 0) * MICROSECONDS)
    begun = len(node.journal.runs)
    for _ in range(_LIMIT + 1):
        node.check()  # whoever waits may be cancelled, or out of time
        job = node.store.get(job_id)
        if job is None or is_final(job.status.state):
            return job
        if node.run_next() is not None:
            continue
        if timeout_s is None:
            raise WouldWait(
                f"waiting for job {format_id(job_id)} would not end: it is {job.status.state},"
                f" {obstacle(node, job)}. Pass a timeout to let time pass, or move the clock"
            )
        if node.now >= until:
            return job
        _go_on(node, until)
    raise DispatchesForever(_why_endless(node, node.journal.runs[begun:], _LIMIT))


def _why_endless(node: LocalNode, runs: Sequence[Run], limit: int) -> str:
    """Name the task that runs on and on, and who dispatches it."""
    if not runs:
        return f"{limit:,} steps of the clock and no job has run: a schedule may fire too often for this"
    task, count = Counter(run.task for run in runs).most_common(1)[0]
    last = next(run for run in reversed(runs) if run.task == task)
    return (
        f"there is no end after {limit:,} steps: task {task!r} ran {count:,} times,"
        f" {_whence(node, last)}. Last: {last}"
    )


def _whence(node: LocalNode, run: Run) -> str:
    """Say why a job ran again."""
    jobs = {one.id: one for one in node.journal.dispatched.values()}
    one = jobs[run.id]
    if run.attempt > 1 or run.state in ("scheduled", "pending"):
        return "the same job tried again and again"
    if one.fired_by is not None:
        return f"fired by schedule {one.fired_by[0]!r}"
    by = jobs.get(one.by or "")
    return "dispatched from outside" if by is None else f"and {by.task!r} keeps dispatching it"


def _why_not(node: LocalNode, runs: Sequence[Run], timeout_us: int) -> str:
    ran = "".join(f"\n  {run}" for run in runs[-10:]) or "\n  none"
    return (
        f"it has not happened in {timeout_us / MICROSECONDS:g} s, up to {from_micros(node.now).isoformat()};"
        f" jobs that wait: {waiting(node)}; the last runs:{ran}"
    )
