"""The rows of jobs within one LMDB write transaction: each change keeps status, index and counts in step."""

from __future__ import annotations

from jobsched import transitions as rules
from jobsched.codec import BadRecord
from jobsched.job import JobError, JobStatus, ParkedFor, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb_layout import CategoryRow, Counters, Databases, ResultRow, Txn
from jobsched.store.lmdb_limits import Limits

__all__ = ["Rows"]

_UNREADABLE = JobError("its status in the store is damaged")


class Rows:
    """What the steps of a turn share.

    `counters` and `categories` are the store's copies of two small databases: read before, changed
    here, and written back once, by `flush`. Nothing is kept if the transaction is aborted.
    """

    def __init__(
        self, txn: Txn, dbs: Databases, counters: Counters, categories: dict[str, CategoryRow]
    ) -> None:
        self.txn = txn
        self.dbs = dbs
        self.counters = counters
        self.categories = categories
        self.limits = Limits(txn, dbs, self.count_limited)
        self._touched: set[str] = set()

    def flush(self) -> None:
        """Write back the counters and the categories that changed."""
        layout.write_counters(self.txn, self.dbs, self.counters)
        for name in self._touched:
            layout.write_category(self.txn, self.dbs, name, self.categories[name])
        self._touched.clear()

    def status(self, job_id: bytes) -> JobStatus | None:
        """Return a job's status; None if there is no such job, or its status is damaged."""
        data = self.txn.get(job_id, db=self.dbs.statuses)
        if data is None:
            return None
        try:
            return layout.decode_status(data)
        except BadRecord:
            return None

    def park_unreadable(self, job_id: bytes, number: int, state: State, now: int) -> None:
        """Set a job aside whose status is damaged, and whose row in the index of a state is gone."""
        category = next(name for name, row in self.categories.items() if row.number == number)
        self.category(category).counts[state] -= 1
        self.leave(job_id, ResultRow(error=_UNREADABLE))
        parked = JobStatus(State.PARKED, category, 0, ended_at=now, parked_for=ParkedFor.UNREADABLE)
        self.enlist(job_id, parked)

    def category(self, name: str) -> CategoryRow:
        """Return a category's row, for change."""
        row = self.categories.get(name)
        if row is None:
            row = self.categories[name] = CategoryRow.new(len(self.categories) + 1)
        self._touched.add(name)
        return row

    def next_sequence(self) -> int:
        """Return the next place in the queues."""
        self.counters.sequence += 1
        return self.counters.sequence

    def leave(self, job_id: bytes, row: ResultRow) -> None:
        """Replace what the job's last run left."""
        layout.drop_blob(self.txn, self.dbs.results, job_id)
        if row.result is not None or row.error is not None:
            layout.write_result(self.txn, self.dbs, job_id, row)

    def enlist(self, job_id: bytes, status: JobStatus) -> None:
        """Write a status and its row in the index of its state, and count it."""
        row = self.category(status.category)
        row.counts[status.state] += 1
        txn, dbs = self.txn, self.dbs
        if status.terms is not None:
            self.settle_key(job_id, status)
        txn.put(job_id, layout.encode_status(status), db=dbs.statuses)
        if status.state is State.PENDING:
            txn.put(layout.pending_key(row.number, status.priority, status.sequence), job_id, db=dbs.pending)
        elif status.state is State.SCHEDULED:
            txn.put(
                layout.scheduled_key(status.due_at, job_id),
                layout.pending_prefix(row.number),
                db=dbs.scheduled,
            )
        else:
            key = layout.ended_key(status.state, status.ended_at, job_id)
            txn.put(key, layout.pending_prefix(row.number), db=dbs.ended)

    def unlist(self, job_id: bytes, status: JobStatus) -> None:
        """Delete a job's row in the index of its state, and discount it."""
        row = self.category(status.category)
        row.counts[status.state] -= 1
        txn, dbs = self.txn, self.dbs
        if status.state is State.IN_PROGRESS:
            txn.delete(layout.running_key(status.claim), db=dbs.running)
            if status.terms is not None:
                self.limits.release(status.terms)
        elif status.state is State.PENDING:
            key = layout.pending_key(row.number, status.priority, status.sequence)
            if not txn.delete(key, db=dbs.pending) and status.terms is not None:
                self.limits.withdraw(key, status.terms)
        elif status.state is State.SCHEDULED:
            txn.delete(layout.scheduled_key(status.due_at, job_id), db=dbs.scheduled)
        else:
            txn.delete(layout.ended_key(status.state, status.ended_at, job_id), db=dbs.ended)

    def erase(self, job_id: bytes, status: JobStatus) -> None:
        """Forget a job."""
        self.unlist(job_id, status)
        if status.terms is not None and status.terms.unique:
            self.free_key(job_id, status.terms.unique)
        self.txn.delete(job_id, db=self.dbs.statuses)
        layout.drop_blob(self.txn, self.dbs.jobs, job_id)
        layout.drop_blob(self.txn, self.dbs.results, job_id)
        layout.drop_attempts(self.txn, self.dbs, job_id)

    def settle_key(self, job_id: bytes, status: JobStatus) -> None:
        """Let a job have its unique key, or be without it, as its state asks."""
        if rules.holds_key(status):
            assert status.terms is not None
            self.txn.put(status.terms.unique, job_id, db=self.dbs.unique, overwrite=False)
        elif status.terms is not None and status.terms.unique:
            self.free_key(job_id, status.terms.unique)

    def free_key(self, job_id: bytes, key: bytes) -> None:
        """Free a unique key if the job holds it."""
        if self.holder(key) == job_id:
            self.txn.delete(key, db=self.dbs.unique)

    def holder(self, key: bytes) -> bytes | None:
        """Return the job that holds a unique key."""
        return self.txn.get(key, db=self.dbs.unique)

    def is_known(self, job_id: bytes) -> bool:
        """Say whether there is such a job."""
        return self.txn.get(job_id, db=self.dbs.statuses) is not None

    def count_limited(self, number: int, change: int) -> None:
        """Note that a job went to the waiting rows of a limit, or came from there."""
        name = next(name for name, row in self.categories.items() if row.number == number)
        self.category(name).limited += change

    def next_due(self) -> int | None:
        """Return when the next scheduled job is due, or the next pause over."""
        cursor = self.txn.cursor(db=self.dbs.scheduled)
        dues = [layout.split_scheduled(cursor.key())[0]] if cursor.first() else []
        dues += [row.resume_at for row in self.categories.values() if row.resume_at]
        return min(dues, default=None)

    def cancel_for(self, job_id: bytes, status: JobStatus, why: JobError | None, now: int) -> None:
        """Cancel a job that does not run."""
        self.unlist(job_id, status)
        was_next = status.state is State.PENDING
        rules.cancelled(status, now=now)
        if why is not None:
            self.leave(job_id, ResultRow(error=why))
        self.enlist(job_id, status)
        if was_next and status.terms is not None:
            self.limits.pass_on(status.terms)
