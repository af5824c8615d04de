"""The keeper: forgets what has ended long ago, and lets parked jobs go on once they can run."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from jobsched.clock import MICROSECONDS
from jobsched.codec import BadRecord, decode_record
from jobsched.config import RetentionConfig
from jobsched.job import ParkedFor, State
from jobsched.store.base import JobStore, Query, Request, StoredJob
from jobsched.store.retention import Prune

__all__ = ["SETTLED_S", "Keeper"]

log = logging.getLogger(__name__)

SETTLED_S = 600.0
"""What ended less long ago is kept in any case: a client may still repeat its dispatch."""

_EVERY_S = 30.0
_AGAIN_S = 0.01
_AGAIN_FULL_S = 1.0
_SETTLED_FULL_S = 60.0
_STEP = 500  # jobs deleted in one turn
_PAGE = 200


class Keeper:
    """Belongs to the node's loop."""

    def __init__(self, retention: RetentionConfig) -> None:
        self._keep = retention.keep
        self._ages_s = {
            State.COMPLETED: retention.completed_s,
            State.FAILED: retention.failed_s,
            State.CANCELLED: retention.cancelled_s,
        }
        self.is_full = False
        self._prune_at = 0.0  # monotonic
        self._parked_after: bytes | None = None  # where to go on looking at parked jobs
        self._released_after: bytes | None = None  # where the page began that the next turn releases

    def timeout_s(self, now: float, *, starts: bool = True) -> float:
        """Return the seconds until there is something to do; parked jobs are let go where jobs may start."""
        return 0.0 if self.is_looking and starts else max(0.0, self._prune_at - now)

    # Retention.

    def prune(self, now: float, at: int) -> list[Prune]:
        """Return what the next turn is to delete, if it is time."""
        if now < self._prune_at:
            return []
        if self.is_full:
            self._prune_at = now + _AGAIN_FULL_S
            return [_for_room(State.COMPLETED, at), _for_room(State.CANCELLED, at)]
        self._prune_at = now + _EVERY_S
        settled = at - int(SETTLED_S * MICROSECONDS)
        return [
            Prune(
                state=state,
                before=0 if age_s is None else min(settled, at - int(age_s * MICROSECONDS)),
                keep=self._keep,
                settled=settled,
                limit=_STEP,
            )
            for state, age_s in self._ages_s.items()
        ]

    def learn(self, count: int, now: float, *, is_full: bool) -> None:
        """Learn how many a turn has deleted: where that were many, there may be more; and whether the
        store is short of room: then it forgets what completed or was cancelled a minute ago.
        """
        if is_full and not self.is_full:
            log.warning("the disk is full: jobs that have completed are forgotten a minute later")
            self._prune_at = 0.0
        self.is_full = is_full
        self._released_after = None
        if count >= _STEP:
            self._prune_at = now + _AGAIN_S

    def ended_before(self, at: int) -> int:
        """Return before which time schedules must have ended to be forgotten, 0 for none: as long ago as
        jobs that completed.
        """
        age_s = self._ages_s[State.COMPLETED]
        return 0 if age_s is None else at - int(max(age_s, SETTLED_S) * MICROSECONDS)

    # Parked jobs.

    @property
    def is_looking(self) -> bool:
        """Whether there are parked jobs that it has not looked at."""
        return self._parked_after is not None

    def look_at_parked(self) -> None:
        """Begin to look for parked jobs that can run now: the modules were loaded."""
        self._parked_after = b""

    def look_again(self) -> None:
        """Go back to the page whose release was not committed."""
        if self._released_after is not None:
            self._parked_after = self._released_after

    def release(self, store: JobStore, tasks: Collection[str], requests: Iterable[Request]) -> Request | None:
        """Return the release of those on the next page of parked jobs that may run now; not of those
        that the same turn is to cancel, as an operator's retry would bring these back.
        """
        if self._parked_after is None:
            return None
        page = store.find(Query(state=State.PARKED, limit=_PAGE, after=self._parked_after))
        ending = {job_id for request in requests for job_id in request.cancel}
        ready = [job.id for job in page.jobs if job.id not in ending and _may_run(job, tasks)]
        self._released_after = self._parked_after if ready else None
        self._parked_after = page.next
        return Request(retry=ready) if ready else None


def _for_room(state: State, at: int) -> Prune:
    before = at - int(_SETTLED_FULL_S * MICROSECONDS)
    return Prune(state=state, before=before, keep=None, settled=0, limit=_STEP)


def _may_run(job: StoredJob, tasks: Collection[str]) -> bool:
    """Say whether the reason for which a job was parked may be gone."""
    if job.record is None or job.status.parked_for not in (ParkedFor.UNKNOWN_TASK, ParkedFor.BAD_ARGUMENTS):
        return False
    try:
        return decode_record(job.record).task in tasks
    except BadRecord:
        return False
