"""One turn in one LMDB write transaction: the steps, in the order of the contract."""

from __future__ import annotations

from collections.abc import Iterable

from jobsched import job as rules
from jobsched.codec import BadRecord
from jobsched.job import CANCELLABLE, JobError, JobStatus, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import (
    INTERRUPTED_TOO_OFTEN,
    Accepted,
    CategoryStats,
    Claim,
    GiveBack,
    NewJob,
    Outcome,
    Reply,
    Request,
    Slot,
    Turn,
    TurnResult,
    deal,
    may_still_run,
)
from jobsched.store.lmdb_layout import CategoryRow, Counters, Databases, ResultRow, Txn

__all__ = ["LmdbTurn"]

_UNREADABLE = JobError("its status in the store is damaged")


class LmdbTurn:
    """The steps of a turn on an open write transaction.

    `counters` and `categories` are the store's copies of two small databases: read before, changed
    here, and written back once, by `flush`. Nothing is kept if the transaction is aborted.
    """

    def __init__(
        self,
        txn: Txn,
        dbs: Databases,
        counters: Counters,
        categories: dict[str, CategoryRow],
    ) -> None:
        self._txn = txn
        self._dbs = dbs
        self._counters = counters
        self._categories = categories
        self._touched: set[str] = set()
        self._lost: list[int] = []

    def apply(self, turn: Turn) -> TurnResult:
        """Apply all steps and return what they did."""
        replies: list[Reply] = [self._change(request, turn.now) for request in turn.requests]
        for outcome in turn.outcomes:
            self._finish(outcome)
        for claim in turn.give_back:
            self._put_back(claim, turn.now)
        for decision in turn.decisions:
            layout.append_decision(self._txn, self._dbs, decision)
        for request in turn.requests:
            self._add(request.jobs, turn.now)
        released = self._release(turn.now, turn.release) if turn.release else 0
        claims = self._claim(turn.slots, turn.now) if turn.slots else []
        self.flush()
        return TurnResult(
            replies=replies,
            lost=self._lost,
            claims=claims,
            released=released,
            next_due=self._next_due(),
            stats={
                name: CategoryStats(row.counts.copy(), row.paused) for name, row in self._categories.items()
            },
        )

    def recover(self, now: int, held: frozenset[int]) -> int:
        """Take every job out of progress; return how many went back to their place."""
        put_back = 0
        for key, value in list(self._txn.cursor(db=self._dbs.running)):
            job_id, worker, number = layout.split_running(value)
            status = self._status(job_id)
            if status is None:
                self._txn.delete(key, db=self._dbs.running)
                self._park_unreadable(job_id, number, State.IN_PROGRESS, now)
                continue
            self._unlist(job_id, status)
            if worker in held:
                rules.parked(status, now=now)
                self._leave(job_id, ResultRow(error=may_still_run(worker)))
            else:
                rules.put_back(status, now=now, interrupted=True)
                if status.state is State.PARKED:
                    self._leave(job_id, ResultRow(error=INTERRUPTED_TOO_OFTEN))
            put_back += status.state is State.PENDING
            self._enlist(job_id, status)
        self._counters.epoch += 1
        self.flush()
        return put_back

    def flush(self) -> None:
        """Write back the counters and the categories that changed."""
        layout.write_counters(self._txn, self._dbs, self._counters)
        for name in self._touched:
            layout.write_category(self._txn, self._dbs, name, self._categories[name])
        self._touched.clear()

    # The steps, in order.

    def _change(self, request: Request, now: int) -> Accepted:
        states = [self._cancel(job_id, now) for job_id in request.cancel]
        for name in request.pause:
            self._category(name).paused = True
        for name in request.resume:
            self._category(name).paused = False
        return Accepted(states)

    def _cancel(self, job_id: bytes, now: int) -> State | None:
        status = self._status(job_id)
        if status is None or status.state not in CANCELLABLE:
            return None if status is None else status.state
        self._unlist(job_id, status)
        rules.cancelled(status, now=now)
        self._enlist(job_id, status)
        return status.state

    def _finish(self, outcome: Outcome) -> None:
        job_id = outcome.job
        status = self._claimed(job_id, outcome.claim, outcome.ended_at)
        if status is None:
            return
        self._unlist(job_id, status)
        rules.finished(
            status,
            state=outcome.state,
            started_at=outcome.started_at,
            ended_at=outcome.ended_at,
            due_at=outcome.due_at,
        )
        if outcome.result is not None or outcome.error is not None or status.attempt > 1 or status.crashes:
            self._leave(job_id, ResultRow(outcome.result, outcome.error))
        self._enlist(job_id, status)

    def _put_back(self, claim: GiveBack, now: int) -> None:
        status = self._claimed(claim.job, claim.claim, now)
        if status is None:
            return
        self._unlist(claim.job, status)
        rules.put_back(status, now=now, interrupted=claim.interrupted)
        if status.state is State.PARKED:
            self._leave(claim.job, ResultRow(error=INTERRUPTED_TOO_OFTEN))
        self._enlist(claim.job, status)

    def _add(self, jobs: Iterable[NewJob], now: int) -> None:
        for job in jobs:
            if self._txn.get(job.id, db=self._dbs.statuses) is not None:
                continue  # the repetition of a dispatch whose answer got lost
            layout.put_blob(self._txn, self._dbs.jobs, job.id, job.record)
            status = JobStatus(State.PENDING, job.category, job.priority, due_at=job.due_at)
            if job.due_at > now:
                status.state = State.SCHEDULED
            else:
                rules.queued(status, sequence=self._next_sequence())
            self._enlist(job.id, status)

    def _release(self, now: int, limit: int) -> int:
        released = 0
        cursor = self._txn.cursor(db=self._dbs.scheduled)
        while released < limit and cursor.first():
            due_at, job_id = layout.split_scheduled(cursor.key())
            if due_at > now:
                break
            status = self._status(job_id)
            if status is None:
                number = int.from_bytes(cursor.value(), "big")
                cursor.delete()
                self._park_unreadable(job_id, number, State.SCHEDULED, now)
                continue
            self._unlist(job_id, status)
            rules.queued(status, sequence=self._next_sequence())
            self._enlist(job_id, status)
            released += 1
        return released

    def _claim(self, slots: Iterable[Slot], now: int) -> list[Claim]:
        rooms: dict[str, list[Slot]] = {}
        for slot in slots:
            rooms.setdefault(slot.category, []).append(slot)
        claims: list[Claim] = []
        for category, of_category in rooms.items():
            row = self._categories.get(category)
            if row is not None and not row.paused:
                self._claim_from(category, row, of_category, now, claims)
        return claims

    def _claim_from(
        self, category: str, row: CategoryRow, slots: list[Slot], now: int, claims: list[Claim]
    ) -> None:
        prefix = layout.pending_prefix(row.number)
        cursor = self._txn.cursor(db=self._dbs.pending)
        if not cursor.set_range(prefix):
            return
        for worker in deal(slots):
            claim = None
            while claim is None:
                key, job_id = cursor.item()
                if not key.startswith(prefix):
                    return
                cursor.delete()
                claim = self._claim_one(category, row, job_id, worker, now)
            claims.append(claim)

    def _claim_one(
        self, category: str, row: CategoryRow, job_id: bytes, worker: int, now: int
    ) -> Claim | None:
        """Claim a job whose pending row is gone already; None parks it as unreadable."""
        txn, dbs = self._txn, self._dbs
        status = self._status(job_id)
        if status is None:
            self._park_unreadable(job_id, row.number, State.PENDING, now)
            return None
        record = layout.get_blob(txn, dbs.jobs, job_id) or b""  # the worker finds it unreadable
        row.counts[State.PENDING] -= 1
        self._touched.add(category)
        self._counters.claim = number = self._counters.claim + 1
        rules.claimed(status, claim=number, worker=worker, now=now)
        row.counts[State.IN_PROGRESS] += 1
        txn.put(job_id, layout.encode_status(status), db=dbs.statuses)
        txn.put(
            layout.running_key(number),
            layout.running_value(job_id, worker, row.number),
            db=dbs.running,
            append=True,
        )
        return Claim(number, worker, status.attempt, job_id, record)

    # What the steps share.

    def _status(self, job_id: bytes) -> JobStatus | None:
        data = self._txn.get(job_id, db=self._dbs.statuses)
        if data is None:
            return None
        try:
            return layout.decode_status(data)
        except BadRecord:
            return None

    def _park_unreadable(self, job_id: bytes, number: int, state: State, now: int) -> None:
        """Set a job aside whose status is damaged, and whose row in the index of a state is gone."""
        category = next(name for name, row in self._categories.items() if row.number == number)
        self._category(category).counts[state] -= 1
        self._leave(job_id, ResultRow(error=_UNREADABLE))
        self._enlist(job_id, JobStatus(State.PARKED, category, 0, ended_at=now))

    def _claimed(self, job_id: bytes, claim: int, now: int) -> JobStatus | None:
        """Return the status of a job held under that claim; else note the claim as lost."""
        status = self._status(job_id)
        if status is None:
            held = self._txn.get(layout.running_key(claim), db=self._dbs.running)
            if held is not None and layout.split_running(held)[0] == job_id:
                self._txn.delete(layout.running_key(claim), db=self._dbs.running)
                self._park_unreadable(job_id, layout.split_running(held)[2], State.IN_PROGRESS, now)
        if status is None or status.claim != claim or status.state is not State.IN_PROGRESS:
            self._lost.append(claim)
            return None
        return status

    def _category(self, name: str) -> CategoryRow:
        """Return a category's row, for change."""
        row = self._categories.get(name)
        if row is None:
            row = self._categories[name] = CategoryRow.new(len(self._categories) + 1)
        self._touched.add(name)
        return row

    def _next_sequence(self) -> int:
        self._counters.sequence += 1
        return self._counters.sequence

    def _leave(self, job_id: bytes, row: ResultRow) -> None:
        """Replace what the job's last run left."""
        layout.drop_blob(self._txn, self._dbs.results, job_id)
        if row.result is not None or row.error is not None:
            layout.write_result(self._txn, self._dbs, job_id, row)

    def _enlist(self, job_id: bytes, status: JobStatus) -> None:
        """Write a status and its row in the index of its state, and count it."""
        row = self._category(status.category)
        row.counts[status.state] += 1
        txn, dbs = self._txn, self._dbs
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

    def _unlist(self, job_id: bytes, status: JobStatus) -> None:
        """Delete a job's row in the index of its state, and discount it."""
        row = self._category(status.category)
        row.counts[status.state] -= 1
        txn, dbs = self._txn, self._dbs
        if status.state is State.IN_PROGRESS:
            txn.delete(layout.running_key(status.claim), db=dbs.running)
        elif status.state is State.PENDING:
            txn.delete(layout.pending_key(row.number, status.priority, status.sequence), db=dbs.pending)
        elif status.state is State.SCHEDULED:
            txn.delete(layout.scheduled_key(status.due_at, job_id), db=dbs.scheduled)
        else:
            txn.delete(layout.ended_key(status.state, status.ended_at, job_id), db=dbs.ended)

    def _next_due(self) -> int | None:
        cursor = self._txn.cursor(db=self._dbs.scheduled)
        return layout.split_scheduled(cursor.key())[0] if cursor.first() else None
