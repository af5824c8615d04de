"""The rows of jobs within one LMDB write transaction: each change keeps status, index and counts in step."""

from __future__ import annotations

from collections.abc import Sequence

from jobsched import transitions as rules
from jobsched.codec import BadRecord
from jobsched.job import JobError, JobStatus, ParkedFor, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb_layout import Cache, CategoryRow, Databases, ResultRow, Txn
from jobsched.store.lmdb_limits import Limits
from jobsched.store.lmdb_table import Statuses, Table
from jobsched.store.moves import Moves, Watch

__all__ = ["Rows"]

_UNREADABLE = JobError("its status in the store is damaged")


class Rows:
    """What the steps of a turn share.

    `counters`, `categories` and the statuses of `held` jobs are the store's copies: read before,
    changed here, and written back once, by `flush`. Nothing is kept if the transaction is aborted.
    `moves` are told to whoever watches: of jobs that change their list one by one.
    """

    def __init__(self, txn: Txn, dbs: Databases, cache: Cache, watch: Watch = Watch.NOTHING) -> None:
        self.txn = txn
        self.dbs = dbs
        self.cache = cache
        self.counters = cache.counters
        self.categories = cache.categories
        self.statuses = Statuses(txn, dbs.statuses, cache.held)
        self.records = Table(txn, dbs.jobs)
        self.pending = Table(txn, dbs.pending)
        self.scheduled = Table(txn, dbs.scheduled)
        self.running = Table(txn, dbs.running)
        self.ended = Table(txn, dbs.ended)
        self.limits = Limits(txn, dbs, self.count_limited)
        self.moves = Moves(watch)
        self._was: State | None = None  # of the job that is not listed now
        self._why: JobError | None = None  # likewise
        self._touched: set[str] = set()

    def flush(self) -> None:
        """Write all that was gathered, the counters, and the categories that changed."""
        for table in (self.statuses, self.records, self.pending, self.scheduled, self.running, self.ended):
            table.write()
        layout.write_counters(self.txn, self.dbs, self.counters)
        for name in self._touched:
            layout.write_category(self.txn, self.dbs, name, self.categories[name])
        self._touched.clear()

    def status(self, job_id: bytes) -> JobStatus | None:
        """Return a job's status; None if there is no such job, or its status is damaged."""
        try:
            return self.statuses.get(job_id)
        except BadRecord:
            return None

    def park_unreadable(self, job_id: bytes, number: int, state: State, now: int) -> None:
        """Set a job aside whose status is damaged, and whose row in the index of a state is gone."""
        self._was = state
        category = next(name for name, row in self.categories.items() if row.number == number)
        self.category(category).counts[state] -= 1
        for key, holder in list(self.txn.cursor(db=self.dbs.unique)):
            if holder == job_id:  # which key it had, its status does not say any more
                self.txn.delete(key, db=self.dbs.unique)
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

    def count(self, name: str, state: State, change: int) -> None:
        """Count jobs that come to a state, or go from it."""
        self.category(name).counts[state] += change

    def next_sequence(self) -> int:
        """Return the next place in the queues."""
        return self.next_sequences(1)

    def next_sequences(self, count: int) -> int:
        """Return the first of the next places in the queues."""
        self.counters.sequence += count
        return self.counters.sequence - count + 1

    def record(self, job_id: bytes) -> bytes | None:
        """Return a job's immutable part."""
        record = self.records.get(job_id)
        if record is None or not layout.is_split(record):
            return record
        return layout.get_blob(self.txn, self.dbs.jobs, job_id)

    def whole_records(self, job_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the immutable parts of some jobs, of those that are there and not split."""
        found = self.records.get_all(job_ids)
        return {job_id: record for job_id, record in found if not layout.is_split(record)}

    def add_record(self, job_id: bytes, record: bytes) -> None:
        """Write a job's immutable part."""
        if len(record) <= layout.CHUNK:
            self.records.put(job_id, record)
        else:
            layout.put_blob(self.txn, self.dbs.jobs, job_id, record)

    def leave(self, job_id: bytes, row: ResultRow) -> None:
        """Replace what the job's last run left."""
        self._why = row.error
        layout.drop_blob(self.txn, self.dbs.results, job_id)
        if row.result is not None or row.error is not None:
            layout.write_result(self.txn, self.dbs, job_id, row)

    def enlist(self, job_id: bytes, status: JobStatus) -> None:
        """Write a status and its row in the index of its state, and count it."""
        row = self.category(status.category)
        row.counts[status.state] += 1
        if status.terms is not None:
            self.settle_key(job_id, status)
        self.statuses.put(job_id, status)
        if status.state is State.PENDING:
            self.pending.put(layout.pending_key(row.number, status.priority, status.sequence), job_id)
        elif status.state is State.SCHEDULED:
            self.scheduled.put(layout.timed_key(status.due_at, job_id), layout.pending_prefix(row.number))
        elif status.state is State.IN_PROGRESS:
            self.running.put(
                layout.running_key(status.claim), layout.running_value(job_id, status.worker, row.number)
            )
        else:
            key = layout.ended_key(status.state, status.ended_at, job_id)
            self.ended.put(key, layout.pending_prefix(row.number))
        if status.state in self.moves.states:
            self.moves.note(job_id, self._was, status, self.record, self._why)
        self._was = self._why = None

    def unlist(self, job_id: bytes, status: JobStatus) -> None:
        """Delete a job's row in the index of its state, and discount it."""
        row = self.category(status.category)
        row.counts[status.state] -= 1
        self._was = status.state
        if status.state is State.IN_PROGRESS:
            self.running.delete(layout.running_key(status.claim))
            if status.terms is not None:
                self.limits.release(status.terms)
        elif status.state is State.PENDING:
            key = layout.pending_key(row.number, status.priority, status.sequence)
            if not self.pending.delete(key) and status.terms is not None:
                self.limits.withdraw(key, status.terms)
        elif status.state is State.SCHEDULED:
            self.scheduled.delete(layout.timed_key(status.due_at, job_id))
        else:
            self.ended.delete(layout.ended_key(status.state, status.ended_at, job_id))

    def erase(self, job_id: bytes, status: JobStatus) -> None:
        """Forget a job."""
        self.unlist(job_id, status)
        if status.terms is not None and status.terms.unique:
            self.free_key(job_id, status.terms.unique)
        self.statuses.delete(job_id)
        self.records.write()
        layout.drop_blob(self.txn, self.dbs.jobs, job_id)
        layout.drop_blob(self.txn, self.dbs.results, job_id)
        layout.drop_attempts(self.txn, self.dbs, job_id)
        self._was = None

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

    def known(self, job_ids: Sequence[bytes]) -> set[bytes]:
        """Return those of some ids that jobs have."""
        return self.statuses.among(job_ids)

    def is_known(self, job_id: bytes) -> bool:
        """Say whether there is such a job."""
        return job_id in self.statuses

    def count_limited(self, number: int, change: int) -> None:
        """Note that a job went to the waiting rows of a limit, or came from there."""
        name = next(name for name, row in self.categories.items() if row.number == number)
        self.category(name).limited += change

    def next_due(self) -> int | None:
        """Return when the next scheduled job is due, or the next pause over."""
        cursor = self.scheduled.scan()
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
