"""What a task may know of the job that runs it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import msgspec

from jobsched.clock import from_micros
from jobsched.errors import JobschedError
from jobsched.job_id import format_id

__all__ = ["CurrentJob", "NotInJob", "current", "current_job"]


class NotInJob(JobschedError):
    """`current_job()` was called where no job runs."""


class Carrier(Protocol):
    """What keeps requests until the run has completed."""

    def add(self, request: Any) -> None:
        """Keep a request. Raises InvalidOption for too much."""
        ...


class CurrentJob(msgspec.Struct, frozen=True, gc=False):
    """The job that runs here. `attempt` counts from 1; `id` serves to make effects idempotent;
    `deadline` is when its time is up, None without a limit. `schedule` is the name of the schedule
    that has fired it, and `due` the time that it is for; None where it was dispatched.
    """

    _id: bytes
    task: str
    category: str
    attempt: int
    name: str | None
    deadline: datetime | None
    _claim: int
    _asks: Callable[[int], bool]
    _keep: Callable[[str], None]
    _carried: Carrier
    _fired_by: tuple[str, int] | None = None

    @property
    def id(self) -> str:
        """The text form of its id."""
        return format_id(self._id)

    @property
    def schedule(self) -> str | None:
        """The name of the schedule that has fired it."""
        return None if self._fired_by is None else self._fired_by[0]

    @property
    def due(self) -> datetime | None:
        """The due time that it was fired for: aware, in UTC. The last one where several fell together."""
        return None if self._fired_by is None else from_micros(self._fired_by[1])

    def cancelled(self) -> bool:
        """Say whether the job was asked to stop. One that asks now and then is given 2 s to end by
        itself before an exception is raised in it.
        """
        return self._asks(self._claim)

    def log(self, text: str) -> None:
        """Keep a line with the attempt, for `jobsched show`; it is printed nowhere."""
        self._keep(text)

    def carry(self, request: Any) -> None:
        """Have a request applied in the commit that records this run as completed, as `atomic` does."""
        self._carried.add(request)


current: contextvars.ContextVar[CurrentJob] = contextvars.ContextVar("jobsched.current_job")


def current_job() -> CurrentJob:
    """Return the job that runs here. Raises NotInJob outside of one."""
    try:
        return current.get()
    except LookupError:
        raise NotInJob("current_job() was called outside a job") from None
