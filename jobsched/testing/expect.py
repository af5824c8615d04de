"""What a test expects of an app: assertions whose messages say what there was instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from jobsched.clock import from_micros
from jobsched.codec import decode_result, encode_result
from jobsched.dispatcher import Dispatcher, Job
from jobsched.errors import ScheduleNotFound
from jobsched.job import State
from jobsched.job_id import parse_id
from jobsched.testing.clock import micros_of
from jobsched.testing.local_node import LocalNode
from jobsched.testing.obstacle import obstacle
from jobsched.testing.record import Dispatched

__all__ = ["expect_completed", "expect_dispatched", "expect_scheduled", "is_like"]

_SHOWN = 20


def is_like(
    one: Dispatched,
    task: str | None,
    category: str | None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> bool:
    """Say whether a job is of a task and category, with these arguments; None is any."""
    return (
        (task is None or one.task == task)
        and (category is None or one.category == category)
        and (args is None or list(one.args) == _plain(list(args)))
        and (kwargs is None or one.kwargs == _plain(dict(kwargs)))
    )


def _plain(value: Any) -> Any:
    """Return a value as it arrives: a date, say, as text."""
    return decode_result(encode_result(value))


def expect_dispatched(
    jobs: Collection[Dispatched],
    times: int | None,
    task: str,
    *,
    category: str | None,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
) -> list[Dispatched]:
    """Return the jobs that are like that. Raises AssertionError unless there are so many, or any."""
    found = [one for one in jobs if is_like(one, task, category, args, kwargs)]
    if found if times is None else len(found) == times:
        return found
    wanted = f"task {task!r}"
    wanted += "" if category is None else f" in {category!r}"
    wanted += "" if args is None else f" with args={tuple(args)!r}"
    wanted += "" if kwargs is None else f" {'with' if args is None else 'and'} kwargs={dict(kwargs)!r}"
    often = "at least once" if times is None else "not at all" if times == 0 else _times(times)
    raise AssertionError(
        f"expected {wanted} to be dispatched {often}, got {_times(len(found))}{_listed(jobs)}"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _listed(jobs: Collection[Dispatched]) -> str:
    if not jobs:
        return "; nothing was dispatched"
    lines = [f"\n  {one.number}. {one}" for one in list(jobs)[-_SHOWN:]]
    more = f"\n  … and {len(jobs) - _SHOWN} before these" if len(jobs) > _SHOWN else ""
    return f"; dispatched were:{more}{''.join(lines)}"


def expect_completed(node: LocalNode, job: Job | str) -> None:
    """Raise AssertionError unless a job has completed: with its state and why."""
    job_id = job if isinstance(job, str) else job.id
    stored = node.store.get(parse_id(job_id))
    if stored is None:
        raise AssertionError(f"expected job {job_id} to have completed, there is no such job")
    state = stored.status.state
    if state is State.COMPLETED:
        return
    one = node.journal.dispatched.get(stored.id)
    message = f"expected job {job_id} ({one or 'unknown'}) to have completed, it is {state}"
    if state in (State.PENDING, State.SCHEDULED):
        is_next = state is State.PENDING and node.has_ready
        message += ": drain() runs it" if is_next else f": {obstacle(node, stored)}"
    if stored.error is not None:
        message += f"\n{(stored.error.traceback or stored.error.cause).rstrip()}"
    raise AssertionError(message)


def expect_scheduled(jobs: Dispatcher, name: str, next_at: datetime | None, task: str | None) -> None:
    """Raise AssertionError unless there is an active schedule of that name, due at that time."""
    try:
        found = jobs.schedules.get(name)
    except ScheduleNotFound as error:
        raise AssertionError(f"expected a schedule {name!r}: {error}") from None
    if task is not None and found.task != task:
        raise AssertionError(f"expected schedule {name!r} to fire {task!r}, it fires {found.task!r}")
    if not found.is_active:
        raise AssertionError(f"expected schedule {name!r} to be active, it is not")
    if found.next_at is None:
        raise AssertionError(f"expected schedule {name!r} to fire again, it has ended at {found.ended_at}")
    if next_at is not None and found.next_at != from_micros(micros_of(next_at)):
        raise AssertionError(
            f"expected schedule {name!r} to be due at {next_at.isoformat()},"
            f" it is due at {found.next_at.astimezone(next_at.tzinfo).isoformat()}"
        )
