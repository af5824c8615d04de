"""One turn in one LMDB write transaction: the steps, in the order of the contract."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jobsched import job as rules
from jobsched.job import EXPIRED, Attempt, JobError, JobStatus, ParkedFor, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import (
    Claim,
    Dealer,
    GiveBack,
    Outcome,
    Prune,
    Reply,
    Slot,
    Turn,
    TurnResult,
    is_over,
    may_still_run,
)
from jobsched.store.lmdb_layout import CategoryRow, ResultRow
from jobsched.store.lmdb_requests import Requests
from jobsched.store.lmdb_rows import Rows

__all__ = ["LmdbTurn"]

_SMALL = 100  # bytes
_NO_ROOM = JobError("there was no room for it: the disk was full")


class LmdbTurn:
    """The steps of a turn on the rows of an open write transaction.

    With `saves` it writes no more than it must: no logs, tracebacks, attempts or results over 100 bytes.
    """

    def __init__(self, rows: Rows, *, saves: bool = False) -> None:
        self._rows = rows
        self._saves = saves
        self._requests = Requests(rows)
        self._lost: list[int] = []
        self._blocked: list[str] = []

    def apply(self, turn: Turn) -> TurnResult:
        """Apply all steps and return what they did."""
        self._resume_due(turn.now)
        replies: list[Reply] = [self._requests.change(request, turn.now) for request in turn.requests]
        for outcome in turn.outcomes:
            self._finish(outcome)
        for claim in turn.give_back:
            self._put_back(claim, turn.now)
        for decision in turn.decisions:
            layout.append_decision(self._rows.txn, self._rows.dbs, decision)
        pruned = sum(self._prune(order) for order in turn.prune)
        for place, request in enumerate(turn.requests):
            if request.jobs:
                replies[place] = self._requests.add(request, turn.now)
        released = self._release(turn.now, turn.release) if turn.release else 0
        claims = self._claim(turn.slots, turn.now) if turn.slots else []
        self._rows.flush()
        return TurnResult(
            replies=replies,
            lost=self._lost,
            claims=claims,
            released=released,
            next_due=self._rows.next_due(),
            stats={name: row.stats() for name, row in self._rows.categories.items()},
            blocked=self._blocked,
            pruned=pruned,
        )

    def recover(self, now: int, held: frozenset[int]) -> int:
        """Take every job out of progress; return how many went back to their place."""
        put_back = 0
        for key, value in list(self._rows.running.scan()):
            job_id, worker, number = layout.split_running(value)
            status = self._rows.status(job_id)
            if status is None:
                self._rows.running.delete(key)
                self._rows.park_unreadable(job_id, number, State.IN_PROGRESS, now)
                continue
            self._rows.unlist(job_id, status)
            if worker in held:
                rules.parked(status, now=now, reason=ParkedFor.HELD)
                why: JobError | None = may_still_run(worker)
            else:
                why = rules.put_back(status, now=now, interrupted=True)
            if why is not None:
                self._rows.leave(job_id, ResultRow(error=why))
            put_back += status.state is State.PENDING
            self._rows.enlist(job_id, status)
        self._rows.limits.reset()
        self._rows.counters.epoch += 1
        self._rows.flush()
        return put_back

    def _resume_due(self, now: int) -> None:
        for name, row in self._rows.categories.items():
            if is_over(row.resume_at, now):
                row.paused, row.resume_at = False, 0
                self._rows.category(name)

    def _finish(self, outcome: Outcome) -> None:
        job_id = outcome.job
        status = self._claimed(job_id, outcome.claim, outcome.ended_at)
        if status is None:
            return
        if self._saves:
            outcome = _reduced(outcome)
        self._rows.unlist(job_id, status)
        had_left = status.attempt > 1 or status.crashes > 0 or status.due_at > 0  # as after a snooze
        if (outcome.error is not None or outcome.log) and not self._saves:
            self._remember(outcome, status)
        why = rules.finished(
            status,
            state=outcome.state,
            started_at=outcome.started_at,
            ended_at=outcome.ended_at,
            due_at=outcome.due_at,
            unspent=outcome.unspent,
            parked_for=outcome.parked_for,
            terms=outcome.terms,
        )
        error = why or outcome.error
        if had_left or outcome.result is not None or error is not None:
            self._rows.leave(job_id, ResultRow(outcome.result, error))
        if outcome.terms is not None:
            self._rows.limits.note(outcome.terms)
        self._rows.enlist(job_id, status)

    def _remember(self, outcome: Outcome, status: JobStatus) -> None:
        """Keep what a run has to tell."""
        attempt = Attempt(
            status.attempt, status.claim, status.worker, outcome.started_at, outcome.ended_at,
            outcome.state, outcome.error, outcome.log,
        )  # fmt: skip
        layout.append_attempt(self._rows.txn, self._rows.dbs, outcome.job, attempt)

    def _put_back(self, claim: GiveBack, now: int) -> None:
        status = self._claimed(claim.job, claim.claim, now)
        if status is None:
            return
        self._rows.unlist(claim.job, status)
        why = rules.put_back(status, now=now, interrupted=claim.interrupted)
        if why is not None:
            self._rows.leave(claim.job, ResultRow(error=why))
        self._rows.enlist(claim.job, status)

    def _prune(self, order: Prune) -> int:
        """Delete ended jobs by age and number, the oldest first; return how many."""
        prefix = layout.ended_prefix(order.state)
        count = sum(row.counts[order.state] for row in self._rows.categories.values())
        cursor = self._rows.ended.scan()
        pruned = 0
        while pruned < order.limit and cursor.set_range(prefix) and cursor.key().startswith(prefix):
            _, ended_at, job_id = layout.split_ended(cursor.key())
            is_surplus = order.keep is not None and count > order.keep and ended_at < order.settled
            if not (ended_at < order.before or is_surplus):
                break
            status = self._rows.status(job_id)
            if status is None:
                number = int.from_bytes(cursor.value(), "big")
                cursor.delete()
                self._rows.park_unreadable(job_id, number, order.state, ended_at)
            else:
                self._rows.erase(job_id, status)
                pruned += 1
            count -= 1
        return pruned

    def _release(self, now: int, limit: int) -> int:
        released = 0
        cursor = self._rows.scheduled.scan()
        while released < limit and cursor.first():
            due_at, job_id = layout.split_scheduled(cursor.key())
            if due_at > now:
                break
            status = self._rows.status(job_id)
            if status is None:
                number = int.from_bytes(cursor.value(), "big")
                cursor.delete()
                self._rows.park_unreadable(job_id, number, State.SCHEDULED, now)
                continue
            self._rows.unlist(job_id, status)
            rules.queued(status, sequence=self._rows.next_sequence())
            self._rows.enlist(job_id, status)
            released += 1
        return released

    def _claim(self, slots: Iterable[Slot], now: int) -> list[Claim]:
        rooms: dict[str, list[Slot]] = {}
        for slot in slots:
            rooms.setdefault(slot.category, []).append(slot)
        claims: list[Claim] = []
        for category, of_category in rooms.items():
            row = self._rows.categories.get(category)
            if row is not None and not row.paused:
                self._claim_from(category, row, of_category, now, claims)
        return claims

    def _claim_from(
        self, category: str, row: CategoryRow, slots: list[Slot], now: int, claims: list[Claim]
    ) -> None:
        prefix = layout.pending_prefix(row.number)
        dealer = Dealer(slots)
        cursor = self._rows.pending.scan()
        found = cursor.set_range(prefix)
        while found and not dealer.is_full:
            key, job_id = cursor.item()
            if not key.startswith(prefix):
                return
            status = self._rows.status(job_id)
            if status is None:
                cursor.delete()
                self._rows.park_unreadable(job_id, row.number, State.PENDING, now)
                continue
            if status.terms is not None and self._holds_up(key, job_id, status, now):
                found = cursor.set_range(prefix)  # others may have come before it
                continue
            worker = dealer.next(alone=status.terms is not None and status.terms.is_alone)
            if worker is None:
                self._blocked.append(category)
                return
            cursor.delete()
            row.counts[State.PENDING] -= 1
            claims.append(self._claim_one(job_id, status, worker, now))

    def _holds_up(self, key: bytes, job_id: bytes, status: JobStatus, now: int) -> bool:
        """Take the next job of a queue out of it, if its terms do not let it start."""
        assert status.terms is not None
        limit = self._rows.limits.reached(status.terms)
        if limit is not None:
            self._rows.txn.delete(key, db=self._rows.dbs.pending)
            self._rows.limits.set_aside(limit, key, job_id, status.terms)
        elif rules.is_expired(status, now=now):
            self._rows.cancel_for(job_id, status, EXPIRED, now)
        else:
            return False
        return True

    def _claim_one(self, job_id: bytes, status: JobStatus, worker: int, now: int) -> Claim:
        """Claim a job whose pending row is gone already."""
        rows = self._rows
        record = rows.record(job_id) or b""  # the worker finds it unreadable
        rows.counters.claim = number = rows.counters.claim + 1
        rules.claimed(status, claim=number, worker=worker, now=now)
        has_terms = status.terms is not None
        if status.terms is not None:
            rows.limits.take(status.terms)
        rows.enlist(job_id, status)
        return Claim(number, worker, status.attempt, job_id, record, has_terms)

    def _claimed(self, job_id: bytes, claim: int, now: int) -> JobStatus | None:
        """Return the status of a job held under that claim; else note the claim as lost."""
        status = self._rows.status(job_id)
        if status is None:
            held = self._rows.running.get(layout.running_key(claim))
            if held is not None and layout.split_running(held)[0] == job_id:
                self._rows.running.delete(layout.running_key(claim))
                self._rows.park_unreadable(job_id, layout.split_running(held)[2], State.IN_PROGRESS, now)
        if status is None or status.claim != claim or status.state is not State.IN_PROGRESS:
            self._lost.append(claim)
            return None
        return status


def _reduced(outcome: Outcome) -> Outcome:
    """Return an outcome that takes little room."""
    error, result = outcome.error, outcome.result
    if error is not None:
        error = JobError(error.cause[:_SMALL])
    if result is not None and len(result) > _SMALL:
        error, result = _NO_ROOM, None
    return msgspec.structs.replace(outcome, log="", result=result, error=error)
