"""What clients ask for, in one LMDB write transaction: new jobs, and changes of what is there."""

from __future__ import annotations

from collections.abc import Sequence

from jobsched import transitions as rules
from jobsched.job import CANCELLABLE, RETRYABLE, JobStatus, State
from jobsched.store.alike import ids_of, with_terms
from jobsched.store.base import Accepted, NewJob, Refused, Reply, Request
from jobsched.store.journal_marks import are_known, gap
from jobsched.store.lmdb_journals import marks_of, write_marks
from jobsched.store.lmdb_layout import ResultRow
from jobsched.store.lmdb_plain import add_plain, are_plain
from jobsched.store.lmdb_rows import Rows
from jobsched.store.lmdb_schedules import add_job, make_way
from jobsched.store.moves import Watch
from jobsched.store.reasons import key_is_taken, queue_is_full
from jobsched.store.schedule_steps import ScheduleSteps

__all__ = ["Requests"]

_MANY = 16  # jobs in a request: fewer may be claimed in the same turn, and need not be read again then


class Requests:
    """The requests' part of one turn."""

    def __init__(self, rows: Rows, schedules: ScheduleSteps) -> None:
        self._rows = rows
        self._schedules = schedules

    def change(self, request: Request, now: int) -> Accepted:
        """Cancel, retry, delete, pause and resume as asked."""
        states = [self._cancel(job_id, now) for job_id in request.cancel]
        states += [self._retry(job_id) for job_id in request.retry]
        states += [self._delete(job_id) for job_id in request.delete]
        for name, resume_at in request.pause.items():
            row = self._rows.category(name)
            row.paused, row.resume_at = True, resume_at
        for name in request.resume:
            row = self._rows.category(name)
            row.paused, row.resume_at = False, 0
        return Accepted(states)

    def _cancel(self, job_id: bytes, now: int) -> State | None:
        status = self._rows.status(job_id)
        if status is None:
            return None
        if status.state is State.IN_PROGRESS and not status.cancel_asked:
            status.cancel_asked = True
            self._rows.statuses.put(job_id, status)
        elif status.state in CANCELLABLE:
            self._rows.cancel_for(job_id, status, None, now)
        return status.state

    def _retry(self, job_id: bytes) -> State | None:
        status = self._rows.status(job_id)
        if status is None or status.state not in RETRYABLE or self._has_rival(job_id, status):
            return None if status is None else status.state
        self._rows.unlist(job_id, status)
        rules.retried(status, sequence=self._rows.next_sequence())
        self._rows.leave(job_id, ResultRow())
        self._rows.enlist(job_id, status)
        return status.state

    def _has_rival(self, job_id: bytes, status: JobStatus) -> bool:
        """Say whether another job has the unique key that this one would need."""
        if status.terms is None or not status.terms.unique:
            return False
        return self._rows.holder(status.terms.unique) not in (None, job_id)

    def _delete(self, job_id: bytes) -> State | None:
        status = self._rows.status(job_id)
        if status is None or status.state is State.IN_PROGRESS:
            return None if status is None else status.state
        was_next = status.state is State.PENDING
        self._rows.moves.note_deleted(job_id, status, self._rows.record)
        self._rows.erase(job_id, status)
        if was_next and status.terms is not None:
            self._rows.limits.pass_on(status.terms)
        return None

    def take_in(self, request: Request, now: int) -> Reply:
        """Add the jobs of journals' entries, if these come next."""
        txn, dbs = self._rows.txn, self._rows.dbs
        marks = marks_of(txn, dbs, request.taken)
        if are_known(request.taken, marks):
            return Accepted()
        if (why := gap(request.taken, marks)) is not None:
            return Refused("StoreError", why)
        reply = self.add(request, now)
        if isinstance(reply, Accepted):
            write_marks(txn, dbs, request.taken)
        return reply

    def add(self, request: Request, now: int) -> Reply:
        """Add a request's jobs and change schedules, or do nothing."""
        refused = self._refusal(request) or self._schedules.refusal(request.schedules)
        if refused is not None:
            return refused
        runs = self._schedules.change(request.schedules, now)
        kept = {} if self._add_plain(request.jobs) else self._add_each(request.jobs, now)
        self._schedules.note_runs(runs, now)
        return Accepted(kept=kept)

    def _add_plain(self, jobs: Sequence[NewJob]) -> bool:
        """Add many jobs that are plain and new; do nothing if they are not that, or told of one by one."""
        if len(jobs) < _MANY or self._rows.moves.watch is Watch.ALL or not are_plain(jobs):
            return False
        job_ids = ids_of(jobs)
        if len(set(job_ids)) < len(job_ids) or self._rows.known(job_ids):
            return False
        add_plain(self._rows, jobs, job_ids)
        return True

    def _add_each(self, jobs: Sequence[NewJob], now: int) -> dict[int, bytes]:
        """Add jobs; return those that stand for some of them, by the place of these."""
        kept: dict[int, bytes] = {}
        known = self._rows.known(ids_of(jobs))
        for place, job in enumerate(jobs):
            if job.id in known:
                continue  # the repetition of a dispatch whose answer got lost
            if job.terms is not None and job.terms.unique:
                holder = make_way(self._rows, job, job.terms.unique, now)
                if holder is not None:
                    kept[place] = holder
                    continue
            known.add(job.id)
            add_job(self._rows, job, now)
        return kept

    def _refusal(self, request: Request) -> Refused | None:
        """Return why a request's jobs cannot be added, all of them; None if they can."""
        for name, limit in request.max_pending.items():
            row = self._rows.categories.get(name)
            waiting = row.counts[State.PENDING] + row.counts[State.SCHEDULED] if row else 0
            if waiting + len(request.jobs) > limit:
                count = sum(job.category == name and not self._rows.is_known(job.id) for job in request.jobs)
                if count and waiting + count > limit:
                    return queue_is_full(name, limit, waiting)
        keys: dict[bytes, bytes] = {}
        for job in with_terms(request.jobs):
            if job.terms is not None and job.terms.unique and not self._rows.is_known(job.id):
                holder = self._rows.holder(job.terms.unique) or keys.get(job.terms.unique)
                if holder not in (None, job.id) and job.on_conflict == "refuse":
                    assert holder is not None
                    return key_is_taken(job, holder)
                keys.setdefault(job.terms.unique, job.id)
        return None
