"""One turn in one LMDB write transaction: the steps, in the order of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from jobsched import transitions as rules
from jobsched.job import Attempt, JobError, JobStatus, ParkedFor, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import GiveBack, Outcome, Refused, Reply, Request, Turn, TurnResult, is_over
from jobsched.store.lmdb_claims import Claims
from jobsched.store.lmdb_journals import forget_marks
from jobsched.store.lmdb_layout import ResultRow
from jobsched.store.lmdb_requests import Requests
from jobsched.store.lmdb_rows import Rows
from jobsched.store.lmdb_schedules import LmdbSchedules, read_next_fire
from jobsched.store.reasons import may_still_run, refused_with
from jobsched.store.retention import Prune
from jobsched.store.schedule_steps import ScheduleSteps

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
        self._schedule_rows = LmdbSchedules(rows)
        self._schedules = ScheduleSteps(self._schedule_rows)
        self._requests = Requests(rows, self._schedules)
        self._lost: list[int] = []

    def apply(self, turn: Turn) -> TurnResult:
        """Apply all steps and return what they did."""
        self._resume_due(turn.now)
        entries = {
            place: self._requests.take_in(request, turn.now)
            for place, request in enumerate(turn.requests)
            if request.taken
        }
        replies: list[Reply] = [
            entries.get(place) or self._requests.change(request, turn.now)
            for place, request in enumerate(turn.requests)
        ]
        if turn.forget_journals:
            forget_marks(self._rows.txn, self._rows.dbs, turn.forget_journals)
        for outcome in self._finish_plain(turn.outcomes):
            self._finish(outcome, turn.now)
        for claim in turn.give_back:
            self._put_back(claim, turn.now)
        for decision in turn.decisions:
            layout.append_decision(self._rows.txn, self._rows.dbs, decision)
        pruned = sum(self._prune(order) for order in turn.prune)
        for place, request in enumerate(turn.requests):
            if (request.jobs or request.schedules) and not request.taken:
                replies[place] = self._requests.add(request, turn.now)
        self._schedules.fire(turn.firings, turn.now)
        if turn.forget_ended:
            self._schedules.forget_ended(turn.forget_ended)
        released = self._release(turn.now, turn.release) if turn.release else 0
        claims = Claims(self._rows, turn.now)
        self._lost += claims.begin(turn.begun)
        claims.fill(turn.slots)
        self._rows.flush()
        return TurnResult(
            replies=replies,
            lost=self._lost,
            claims=claims.made,
            released=released,
            next_due=self._rows.next_due(),
            stats={name: row.stats() for name, row in self._rows.categories.items()},
            last_claim=self._rows.counters.claim,
            blocked=claims.blocked,
            pruned=pruned,
            next_fire=self._next_fire(),
            fired=self._schedules.fired,
            changed=self._schedules.changed,
            moves=self._rows.moves.made,
            untold=self._rows.moves.untold,
        )

    def _next_fire(self) -> int | None:
        if self._schedule_rows.is_touched:
            self._rows.cache.next_fire = read_next_fire(self._rows.txn, self._rows.dbs)
        return self._rows.cache.next_fire

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

    def _finish_plain(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Record the runs that completed at the first try, without terms or logs, and yield the others:
        the way of most jobs, and half as long as that of `_finish`.
        """
        rows = self._rows
        held, let_go = rows.statuses.held, rows.statuses.let_go
        completed, nothing, ended_key = State.COMPLETED, ParkedFor.NOTHING, layout.ended_key
        behind = {name: layout.pending_prefix(row.number) for name, row in rows.categories.items()}
        counts = dict.fromkeys(rows.categories, 0)
        ended: list[tuple[bytes, bytes]] = []
        claims: list[int] = []
        for outcome in outcomes:
            job_id = outcome.job
            status = held.get(job_id)
            if (
                status is None
                or status.claim != outcome.claim
                or outcome.state is not completed
                or outcome.error is not None
                or outcome.result is not None
                or outcome.log
                or outcome.carried is not None
                or _may_have_left(status)
            ):
                yield outcome
                continue
            status.state = completed
            status.started_at = outcome.started_at
            status.ended_at = ended_at = outcome.ended_at
            status.parked_for = nothing
            let_go(job_id, status)
            claims.append(outcome.claim)
            ended.append((ended_key(completed, ended_at, job_id), behind[status.category]))
            counts[status.category] += 1
        rows.ended.put_all(sorted(ended))  # workers' runs overlap: else pages are split, and left half empty
        rows.running.delete_all(map(layout.running_key, claims))
        for name, count in counts.items():
            if count:
                rows.count(name, State.IN_PROGRESS, -count)
                rows.count(name, completed, count)

    def _finish(self, outcome: Outcome, now: int) -> None:
        job_id = outcome.job
        status = self._claimed(job_id, outcome.claim, outcome.ended_at)
        if status is None:
            return
        if outcome.carried is not None:
            outcome = self._with_carried(outcome, outcome.carried, now)
        if self._saves:
            outcome = _reduced(outcome)
        self._rows.unlist(job_id, status)
        may_replace = _may_have_left(status)
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
        if may_replace or outcome.result is not None or error is not None:
            self._rows.leave(job_id, ResultRow(outcome.result, error))
        if outcome.terms is not None:
            self._rows.limits.note(outcome.terms)
        self._rows.enlist(job_id, status)

    def _with_carried(self, outcome: Outcome, carried: Request, now: int) -> Outcome:
        """Add what a run has dispatched for its own completion; return the outcome that it has then."""
        reply = Refused("StoreFull", _NO_ROOM.cause) if self._saves else self._requests.add(carried, now)
        return refused_with(outcome, reply.reason) if isinstance(reply, Refused) else outcome

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


def _may_have_left(status: JobStatus) -> bool:
    """Say whether an earlier run of the job may have left an error or a result."""
    return (
        status.attempt > 1
        or status.crashes > 0
        or status.due_at > 0  # as after a snooze
        or status.terms is not None  # as after terms found
    )


def _reduced(outcome: Outcome) -> Outcome:
    """Return an outcome that takes little room."""
    error, result = outcome.error, outcome.result
    if error is not None:
        error = JobError(error.cause[:_SMALL])
    if result is not None and len(result) > _SMALL:
        error, result = _NO_ROOM, None
    return msgspec.structs.replace(outcome, log="", result=result, error=error)
