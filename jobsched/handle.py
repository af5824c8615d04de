"""The handle on a dispatched job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jobsched.codec import decode_result
from jobsched.errors import JobCancelled, JobFailed, JobNotFound, ResultNotStored, ResultTimeout
from jobsched.job import State, is_final
from jobsched.job_id import format_id
from jobsched.store.base import StoredJob

if TYPE_CHECKING:
    from jobsched.dispatcher import Dispatcher

__all__ = ["Job"]


class Job(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A handle on a dispatched job."""

    _dispatcher: Dispatcher
    _id: bytes

    @property
    def id(self) -> str:
        """The job's id: a UUIDv7."""
        return format_id(self._id)

    def state(self) -> str:
        """Return the job's state. Raises JobNotFound if it was pruned."""
        return str(self._look(0).status.state)

    def result(self, timeout: float | None = None) -> Any:
        """Wait until the job has ended, and return what the task returned, as plain values.

        `timeout` is in seconds; None waits without end. Raises ResultTimeout, JobFailed,
        JobCancelled, ResultNotStored, JobNotFound, Unavailable.
        """
        job = self._look(timeout)
        state = job.status.state
        if state is State.COMPLETED:
            if job.error is not None:
                raise ResultNotStored(self.id, job.error.cause)
            return None if job.result is None else decode_result(job.result)
        if state is State.CANCELLED:
            raise JobCancelled(self.id)
        if is_final(state):
            cause, traceback = (job.error.cause, job.error.traceback) if job.error else ("", "")
            raise JobFailed(self.id, str(state), cause, traceback)
        raise ResultTimeout(self.id, str(state), timeout or 0.0)

    def cancel(self, timeout: float | None = 0) -> bool:
        """Cancel the job; return whether it is cancelled now.

        One that runs is asked to end: by `current_job().cancelled()`, then an exception, then by
        force. `timeout` is how many seconds to wait for that, None without end.
        """
        state = self._dispatcher.cancel([self.id])[0]
        if state is State.IN_PROGRESS and timeout != 0:
            state = self._look(timeout).status.state
        return state is State.CANCELLED

    def _look(self, timeout: float | None) -> StoredJob:
        job = self._dispatcher.look(self._id, timeout)
        if job is None:
            raise JobNotFound(self.id)
        return job

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)
