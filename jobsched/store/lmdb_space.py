"""Room for new jobs: the quota, and a reserve on the disk that keeps a full store workable.

LMDB copies pages on write, so even an outcome or a deletion needs some. Bytes behind the end of the
data are therefore claimed from the disk ahead of time; new jobs are refused when that is not to be
had any more, and what was accepted finishes out of the reserve.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import lmdb

from jobsched.schedule import PutSchedule, ScheduleChange
from jobsched.store.alike import records_of
from jobsched.store.base import Firing, NewJob, Outcome, Request
from jobsched.store.lmdb_layout import Databases

__all__ = [
    "DEFAULT_QUOTA",
    "Space",
    "adds",
    "is_out_of_room",
    "needed_for",
    "needed_for_firings",
    "needed_for_outcomes",
    "needed_for_schedules",
]

DEFAULT_QUOTA = 4 << 30
_RESERVE = 16 << 20
_RESERVE_PART = 10  # of the file system, at most one in so many
_STEP = 4 << 20
_PER_JOB = 700  # bytes of rows and half-filled pages beside a job's record, its outcome included
_PER_RECORD = 300  # of a firing
_PER_OUTCOME = 320  # of which so many are needed when it ends, with a small result or an error
_NEARLY_FULL = 1 << 20
_OUT_OF_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Space:
    """The room of one store. Under the store's lock.

    `is_full` says that the disk did not give the reserve when it was last asked for.
    """

    def __init__(self, path: Path, env: lmdb.Environment, dbs: Databases, quota: int) -> None:
        self._path = path
        self._env = env
        self._dbs = dbs
        self._quota = quota
        self._file = os.open(path / "data.mdb", os.O_RDWR | os.O_CLOEXEC)
        disk = os.fstatvfs(self._file)
        self._reserve = min(_RESERVE, disk.f_blocks * disk.f_frsize // _RESERVE_PART)
        self.is_full = False

    def close(self) -> None:
        """Let go of the file. May come twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def refusal(self, needed: int, unfinished: int) -> str | None:
        """Return why there is no room for so many bytes more, None if there is; beside the outcomes
        of so many jobs that are not finished.
        """
        reserve = self._reserve + unfinished * _PER_OUTCOME
        page: int = self._env.stat()["psize"]
        used = (self._env.info()["last_pgno"] + 1) * page
        if used + needed <= self._quota and self._has(used + needed + reserve):
            self.is_full = False
            return None
        live = self._live(page)  # free pages in between count too
        self.is_full = not self._has(live + needed + reserve)
        if self.is_full:
            return f"the disk of {self._path} is full: free some room, or `jobsched prune`"
        if live + needed > self._quota:
            return (
                f"the store {self._path} holds {live >> 20:,} MiB, its quota is {self._quota >> 20:,} MiB: "
                "`jobsched prune`, or raise quota"
            )
        return None

    def _has(self, size: int) -> bool:
        """Say whether the file has so many bytes on the disk; have it grow if not."""
        allocated = os.fstat(self._file).st_size
        if size <= allocated:
            return True
        for end in (size + _STEP, size):
            try:
                os.posix_fallocate(self._file, allocated, end - allocated)
            except OSError as error:
                if error.errno not in _OUT_OF_ROOM:
                    return True  # a file system that cannot: LMDB will say when it is full
            else:
                return True
        return False

    def _live(self, page: int) -> int:
        """Return the bytes of the pages in use."""
        with self._env.begin() as txn:
            stats = [self._env.stat(), *(txn.stat(db) for db in self._dbs.all())]
        return sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats) * page


def adds(request: Request) -> bool:
    """Say whether a request takes room that only new things take."""
    return bool(request.jobs) or any(isinstance(change, PutSchedule) for change in request.schedules)


def needed_for(jobs: Sequence[NewJob]) -> int:
    """Return about how many bytes new jobs take."""
    return sum(map(len, records_of(jobs))) * 5 // 4 + len(jobs) * _PER_JOB


def needed_for_schedules(changes: Sequence[ScheduleChange]) -> int:
    """Return about how many bytes changes of schedules take."""
    puts = [change.schedule for change in changes if isinstance(change, PutSchedule)]
    return sum(len(put.args) + len(put.kwargs) for put in puts) * 5 // 4 + len(puts) * _PER_JOB


def needed_for_firings(firings: Sequence[Firing]) -> int:
    """Return about how many bytes firings take, with their jobs."""
    records = sum(len(firing.records) for firing in firings)
    return sum(needed_for(firing.jobs) for firing in firings) + records * _PER_RECORD


def needed_for_outcomes(outcomes: Sequence[Outcome]) -> int:
    """Return about how many bytes outcomes take beyond what was kept for them."""
    size = 0
    for outcome in outcomes:
        if outcome.result is not None:
            size += len(outcome.result)
        if outcome.carried is not None:
            size += needed_for(outcome.carried.jobs) + needed_for_schedules(outcome.carried.schedules)
        if outcome.error is not None or outcome.log:
            traceback = outcome.error.traceback if outcome.error else ""
            size += 2 * len(traceback) + len(outcome.log) + _PER_JOB
    return size * 3 // 2


def is_out_of_room(error: lmdb.Error, path: Path) -> bool:
    """Say whether LMDB failed for want of room: it does not always say so."""
    if getattr(error, "code", 0) in _OUT_OF_ROOM:
        return True
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize < _NEARLY_FULL
