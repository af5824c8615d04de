"""What a task may know of the job that runs it."""

from __future__ import annotations

import contextvars
import dataclasses

from jobsched.errors import JobschedError

__all__ = ["CurrentJob", "NotInJob", "current", "current_job"]


class NotInJob(JobschedError):
    """`current_job()` was called where no job runs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurrentJob:
    """The job that runs here. `attempt` counts from 1; `id` serves to make effects idempotent."""

    id: str
    task: str
    category: str
    attempt: int
    name: str | None = None


current: contextvars.ContextVar[CurrentJob] = contextvars.ContextVar("jobsched.current_job")


def current_job() -> CurrentJob:
    """Return the job that runs here. Raises NotInJob outside of one."""
    try:
        return current.get()
    except LookupError:
        raise NotInJob("current_job() was called outside a job") from None
