"""What a turn has done to single jobs, for those who watch: gathered only as far as it is wanted."""

from __future__ import annotations

import enum
from collections.abc import Callable

import msgspec

from jobsched.job import JobError, JobStatus, State

__all__ = ["Move", "Moves", "Watch"]

_MOST_TROUBLE = 100
_MOST = 10_000


class Watch(enum.IntEnum):
    """Which moves a turn is to tell of: none; runs that went wrong and jobs that were set aside or
    cancelled, the first 100; or all, the first 10,000.
    """

    NOTHING = 0
    TROUBLE = 1
    ALL = 2


class Move(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job that went from a state, None if it is new, to that of its `status`; or was deleted. `cause`
    says why, where the move brought a reason. `record` is empty where it is damaged.
    """

    job: bytes
    was: State | None
    status: JobStatus
    record: bytes
    cause: str = ""
    is_deleted: bool = False


_TROUBLE = frozenset({State.SCHEDULED, State.FAILED, State.CANCELLED, State.PARKED, State.QUARANTINED})
_TOLD = {
    Watch.NOTHING: frozenset[State](),
    Watch.TROUBLE: _TROUBLE,
    Watch.ALL: frozenset(State) - {State.IN_PROGRESS, State.COMPLETED},
}


class Moves:
    """The moves of one turn. Only those to `states` are to be noted: claims and runs that completed
    never are, as result and turn tell of them. `untold` counts what was over the limit.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.states = _TOLD[watch]
        self.made: list[Move] = []
        self.untold = 0

    def note(
        self,
        job_id: bytes,
        was: State | None,
        status: JobStatus,
        record_of: Callable[[bytes], bytes | None],
        why: JobError | None,
    ) -> None:
        """Note that a job has come to the state of its status."""
        if self.watch is Watch.TROUBLE and status.state is State.SCHEDULED and was is not State.IN_PROGRESS:
            return
        self._keep(job_id, was, status, record_of, why.cause if why else "")

    def note_deleted(
        self, job_id: bytes, status: JobStatus, record_of: Callable[[bytes], bytes | None]
    ) -> None:
        """Note that a job is about to be deleted by an operator's word."""
        if self.watch is Watch.ALL:
            self._keep(job_id, status.state, status, record_of, "", is_deleted=True)

    def _keep(
        self,
        job_id: bytes,
        was: State | None,
        status: JobStatus,
        record_of: Callable[[bytes], bytes | None],
        cause: str,
        *,
        is_deleted: bool = False,
    ) -> None:
        if len(self.made) >= (_MOST if self.watch is Watch.ALL else _MOST_TROUBLE):
            self.untold += 1
            return
        copy = msgspec.structs.replace(status)
        self.made.append(Move(job_id, was, copy, record_of(job_id) or b"", cause, is_deleted))
