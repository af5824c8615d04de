"""What a task may know of the job that runs it."""

from __future__ import annotations

import contextvars
import dataclasses
from collections.abc import Callable
from datetime import datetime

from jobsched.errors import JobschedError

__all__ = ["CurrentJob", "NotInJob", "current", "current_job"]


class NotInJob(JobschedError):
    """`current_job()` was called where no job runs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurrentJob:
    """The job that runs here. `attempt` counts from 1; `id` serves to make effects idempotent;
    `deadline` is when its time is up, None without a limit.
    """

    id: str
    task: str
    category: str
    attempt: int
    name: str | None = None
    deadline: datetime | None = None
    is_cancelled: Callable[[], bool] = dataclasses.field(default=lambda: False, repr=False)
    keep: Callable[[str], None] = dataclasses.field(default=lambda _: None, repr=False)

    def cancelled(self) -> bool:
        """Say whether the job was asked to stop. One that asks now and then is given 2 s to end by
        itself before an exception is raised in it.
        """
        return self.is_cancelled()

    def log(self, text: str) -> None:
        """Keep a line with the attempt, for `jobsched show`; it is printed nowhere."""
        self.keep(text)


current: contextvars.ContextVar[CurrentJob] = contextvars.ContextVar("jobsched.current_job")


def current_job() -> CurrentJob:
    """Return the job that runs here. Raises NotInJob outside of one."""
    try:
        return current.get()
    except LookupError:
        raise NotInJob("current_job() was called outside a job") from None
