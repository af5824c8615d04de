"""Many new jobs without terms that are due at once, in one LMDB write transaction: the way of most
jobs that are dispatched in bulk, and a quarter faster than one by one.
"""

from __future__ import annotations

from collections import Counter

from jobsched.job import JobStatus, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import NewJob
from jobsched.store.lmdb_rows import Rows

__all__ = ["PlainJobs"]


class PlainJobs:
    """The jobs of one request that need nothing more than a place in a queue; `write` adds them."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._next_sequence = rows.next_sequence
        self._alike: dict[tuple[str, int], tuple[JobStatus, int]] = {}
        self._statuses: list[tuple[bytes, bytes]] = []
        self._records: list[tuple[bytes, bytes]] = []
        self._pending: list[tuple[bytes, bytes]] = []
        self._counts: Counter[str] = Counter()

    def takes(self, job: NewJob) -> bool:
        """Take a job that is plain; its place in the queue is the next one."""
        if job.terms is not None or job.due_at or len(job.record) > layout.CHUNK:
            return False
        job_id, category, kind = job.id, job.category, (job.category, job.priority)
        if kind not in self._alike:
            number = self._rows.category(category).number
            self._alike[kind] = JobStatus(State.PENDING, category, job.priority), number
        status, number = self._alike[kind]
        status.sequence = sequence = self._next_sequence()
        self._statuses.append((job_id, layout.encode_status(status)))
        self._pending.append((layout.pending_key(number, job.priority, sequence), job_id))
        self._records.append((job_id, job.record))
        self._counts[category] += 1
        return True

    def write(self) -> None:
        """Add them all."""
        rows = self._rows
        rows.statuses.put_encoded(self._statuses)
        rows.records.put_all(self._records)
        rows.pending.put_all(self._pending)
        for name, count in self._counts.items():
            rows.count(name, State.PENDING, count)
