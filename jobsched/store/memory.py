"""The job store in memory: the reference model that every other store is compared with.

All under one lock; nothing outlives the process.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice

import msgspec

from jobsched import transitions as rules
from jobsched.job import CANCELLABLE, KEPT_ATTEMPTS, RETRYABLE, Attempt, ParkedFor, State
from jobsched.job_id import part_of_id
from jobsched.report import Decision
from jobsched.schedule import FiringRecord, StoredSchedule
from jobsched.store.base import (
    KEPT_DECISIONS,
    Accepted,
    CategoryStats,
    GiveBack,
    Outcome,
    Page,
    Query,
    Recovered,
    Refused,
    Reply,
    Request,
    StoredJob,
    Turn,
    TurnResult,
    is_over,
)
from jobsched.store.journal_marks import are_known, gap
from jobsched.store.memory_claims import Claims
from jobsched.store.memory_rows import MemoryJob, Rows
from jobsched.store.memory_schedules import MemorySchedules
from jobsched.store.moves import Moves
from jobsched.store.reasons import key_is_taken, may_still_run, queue_is_full, refused_with
from jobsched.store.retention import Prune
from jobsched.store.schedule_steps import ScheduleSteps

__all__ = ["MemoryStore"]

_PAGE_LIMIT = 200


class MemoryStore:
    """A JobStore whose life is that of the object. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._rows = Rows()
        self._schedules = MemorySchedules(self._rows)
        self._claims = Claims(self._rows)
        self._epoch = 0
        self._decisions: deque[Decision] = deque(maxlen=KEPT_DECISIONS)
        self._marks: dict[str, int] = {}  # of journals

    def apply(self, turn: Turn) -> TurnResult:
        """Apply a turn, in the order that the contract fixes."""
        with self._lock:
            self._rows.moves = Moves(turn.watch)
            self._resume_due(turn.now)
            steps = ScheduleSteps(self._schedules)
            entries = {
                place: self._take_in(request, steps, turn.now)
                for place, request in enumerate(turn.requests)
                if request.taken
            }
            replies = [
                entries.get(place) or self._change(request, turn.now)
                for place, request in enumerate(turn.requests)
            ]
            for journal in turn.forget_journals:
                self._marks.pop(journal, None)
            lost = [outcome.claim for outcome in turn.outcomes if not self._finish(outcome, steps, turn.now)]
            lost += [back.claim for back in turn.give_back if not self._give_back(back, turn.now)]
            self._decisions.extend(turn.decisions)
            pruned = sum(self._prune(order) for order in turn.prune)
            for place, request in enumerate(turn.requests):
                if (request.jobs or request.schedules) and not request.taken:
                    replies[place] = self._add(request, steps, turn.now)
            steps.fire(turn.firings, turn.now)
            if turn.forget_ended:
                steps.forget_ended(turn.forget_ended)
            released = self._release(turn.release, turn.now)
            begun, in_vain = self._claims.begin(turn.begun, turn.now)
            claims, blocked = self._claims.fill(turn.slots, turn.now)
            return TurnResult(
                replies=replies,
                lost=lost + in_vain,
                claims=begun + claims,
                released=released,
                next_due=self._rows.next_due(),
                stats=self._rows.stats(),
                last_claim=self._claims.last,
                blocked=blocked,
                pruned=pruned,
                next_fire=self._schedules.next_fire(),
                fired=steps.fired,
                changed=steps.changed,
                moves=self._rows.moves.made,
                untold=self._rows.moves.untold,
            )

    def recover(self, now: int, held: frozenset[int] = frozenset()) -> Recovered:
        """Begin a node's life: put back what is in progress, park what `held` workers may still run."""
        with self._lock:
            self._epoch += 1
            interrupted = [self._rows.jobs[row[-1]] for row in self._rows.listed(State.IN_PROGRESS)]
            for job in interrupted:
                if job.status.worker in held:
                    self._park(job, now)
                else:
                    self._put_back(job, now=now, interrupted=True)
            self._rows.forget_limits()
            back = sum(job.status.state is State.PENDING for job in interrupted)
            return Recovered(epoch=self._epoch, put_back=back)

    def in_progress(self) -> dict[int, list[bytes]]:
        """Return the jobs in progress by worker number, in the order of their claims."""
        by_worker: dict[int, list[bytes]] = {}
        with self._lock:
            for _claim, job_id in self._rows.listed(State.IN_PROGRESS):
                by_worker.setdefault(self._rows.jobs[job_id].status.worker, []).append(job_id)
        return by_worker

    def get(self, job_id: bytes) -> StoredJob | None:
        """Return a job, None if there is none of that id."""
        with self._lock:
            job = self._rows.jobs.get(job_id)
            return job.stored(attempts=True) if job else None

    def resolve(self, part: str) -> list[bytes]:
        """Return the first two ids that begin or end with some hex digits. Looks at every id.

        Raises ValueError for fewer than 6 digits, or other characters than those and dashes.
        """
        digits = part_of_id(part)
        with self._lock:
            found = (
                i for i in sorted(self._rows.jobs) if i.hex().startswith(digits) or i.hex().endswith(digits)
            )
            return list(islice(found, 2))

    def find(self, query: Query) -> Page:
        """Return a page of jobs. Its `next` is the last job's row, so moves of others do not shift it."""
        limit = min(query.limit, _PAGE_LIMIT)
        after = msgspec.msgpack.decode(query.after, type=tuple) if query.after else None
        with self._lock:
            rows = list(islice(self._rows.listed(query.state, query.category, after), limit + 1))
            jobs = [self._rows.jobs[row[-1]].stored() for row in rows[:limit]]
        return Page(jobs=jobs, next=msgspec.msgpack.encode(rows[limit - 1]) if len(rows) > limit else None)

    def stats(self) -> dict[str, CategoryStats]:
        """Return the counts of every category that a job or a pause ever named."""
        with self._lock:
            return self._rows.stats()

    def upcoming(self, until: int, limit: int) -> dict[str, int]:
        """Return per category how many of the first `limit` scheduled jobs fall due by an instant."""
        counts: dict[str, int] = {}
        with self._lock:
            for job in self._rows.due(until, limit):
                category = job.status.category
                counts[category] = counts.get(category, 0) + 1
        return counts

    def schedule(self, name: str) -> StoredSchedule | None:
        """Return a schedule, None if there is none of that name."""
        with self._lock:
            return self._schedules.get(name)

    def schedules(self, after: str = "", limit: int = _PAGE_LIMIT) -> list[StoredSchedule]:
        """Return schedules in the order of their names."""
        with self._lock:
            return self._schedules.page(after, min(limit, _PAGE_LIMIT))

    def due_schedules(self, now: int, limit: int) -> list[StoredSchedule]:
        """Return the first schedules that are to fire by now."""
        with self._lock:
            return self._schedules.due(now, limit)

    def firings(self, name: str, limit: int = _PAGE_LIMIT, before: int = 0) -> list[FiringRecord]:
        """Return records of a schedule, the latest due time first."""
        with self._lock:
            return self._schedules.records(name, min(limit, _PAGE_LIMIT), before)

    def decisions(self, limit: int) -> list[Decision]:
        """Return the balancer's last decisions, oldest first."""
        with self._lock:
            return list(islice(self._decisions, max(0, len(self._decisions) - limit), None))

    def journals(self) -> dict[str, int]:
        """Return up to which number the entries of journals are in the store."""
        with self._lock:
            return self._marks.copy()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _change(self, request: Request, now: int) -> Reply:
        states = [self._cancel(job_id, now) for job_id in request.cancel]
        states += [self._retry(job_id) for job_id in request.retry]
        states += [self._delete(job_id) for job_id in request.delete]
        for category, resume_at in request.pause.items():
            self._rows.categories[category].pause(resume_at)
        for category in request.resume:
            self._rows.categories[category].resume()
        return Accepted(states=states)

    def _resume_due(self, now: int) -> None:
        for category in self._rows.categories.values():
            if is_over(category.resume_at, now):
                category.resume()

    def _cancel(self, job_id: bytes, now: int) -> State | None:
        """Cancel a job that nobody runs, or ask for the end of one that runs; return its state."""
        job = self._rows.jobs.get(job_id)
        if job is None:
            return None
        if job.status.state is State.IN_PROGRESS:
            job.status.cancel_asked = True
        elif job.status.state in CANCELLABLE:
            self._rows.cancel_for(job, None, now)
        return job.status.state

    def _retry(self, job_id: bytes) -> State | None:
        job = self._rows.jobs.get(job_id)
        if job is None:
            return None
        if job.status.state in RETRYABLE and self._rows.may_have_key(job):
            with self._rows.moving(job) as status:
                rules.retried(status, sequence=self._rows.next_sequence())
            job.result = job.error = None
        return job.status.state

    def _delete(self, job_id: bytes) -> State | None:
        job = self._rows.jobs.get(job_id)
        if job is not None and job.status.state is State.IN_PROGRESS:
            return State.IN_PROGRESS
        if job is not None:
            self._rows.moves.note_deleted(job_id, job.status, self._rows.record_of)
            self._rows.erase(job)
        return None

    def _prune(self, order: Prune) -> int:
        """Delete ended jobs by age and number; return how many."""
        count = len(list(self._rows.listed(order.state)))
        doomed: list[bytes] = []
        for ended_at, job_id in sorted(self._rows.listed(order.state)):
            is_surplus = order.keep is not None and count > order.keep and ended_at < order.settled
            if len(doomed) == order.limit or not (ended_at < order.before or is_surplus):
                break
            count -= 1
            doomed.append(job_id)
        for job_id in doomed:
            self._rows.erase(self._rows.jobs[job_id])
        return len(doomed)

    def _finish(self, outcome: Outcome, steps: ScheduleSteps, now: int) -> bool:
        """Record how a run ended; False if that claim does not hold the job any more."""
        job = self._rows.claimed_job(outcome.job, outcome.claim)
        if job is None:
            return False
        if outcome.carried is not None:
            reply = self._add(outcome.carried, steps, now)
            outcome = refused_with(outcome, reply.reason) if isinstance(reply, Refused) else outcome
        if outcome.error is not None or outcome.log:
            status = job.status
            job.attempts.append(
                Attempt(
                    status.attempt, status.claim, status.worker, outcome.started_at, outcome.ended_at,
                    outcome.state, outcome.error, outcome.log,
                )
            )  # fmt: skip
            del job.attempts[:-KEPT_ATTEMPTS]
        with self._rows.moving(job) as status:
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
            why = self._rows.why = why or outcome.error
        job.result = outcome.result
        job.error = why
        if outcome.terms is not None:
            self._rows.note_limits(job)
        return True

    def _give_back(self, back: GiveBack, now: int) -> bool:
        """Undo a claim; False if it does not hold the job any more."""
        job = self._rows.claimed_job(back.job, back.claim)
        if job is None:
            return False
        self._put_back(job, now=now, interrupted=back.interrupted)
        return True

    def _take_in(self, request: Request, steps: ScheduleSteps, now: int) -> Reply:
        """Add the jobs of journals' entries, if these come next."""
        if are_known(request.taken, self._marks):
            return Accepted()
        if (why := gap(request.taken, self._marks)) is not None:
            return Refused("StoreError", why)
        reply = self._add(request, steps, now)
        if isinstance(reply, Accepted):
            self._marks.update({span.journal: span.last for span in request.taken})
        return reply

    def _add(self, request: Request, steps: ScheduleSteps, now: int) -> Reply:
        """Add a request's jobs and change schedules, or do nothing."""
        new = [job for job in request.jobs if job.id not in self._rows.jobs]
        for name, limit in request.max_pending.items():
            waiting = self._rows.waiting(name)
            count = sum(job.category == name for job in new)
            if count and waiting + count > limit:
                return queue_is_full(name, limit, waiting)
        keys: dict[bytes, bytes] = {}
        for job in new:
            holder = self._rows.holder(job, keys)
            if holder is not None and job.on_conflict == "refuse":
                return key_is_taken(job, holder)
        refused = steps.refusal(request.schedules)
        if refused is not None:
            return refused
        runs = steps.change(request.schedules, now)
        kept: dict[int, bytes] = {}
        for place, job in enumerate(request.jobs):
            holder = None if job.id in self._rows.jobs else self._schedules.add_job(job, now)
            if holder is not None:
                kept[place] = holder
        steps.note_runs(runs, now)
        return Accepted(kept=kept)

    def _release(self, limit: int, now: int) -> int:
        due = list(self._rows.due(now, limit))
        for job in due:
            self._rows.enqueue(job)
        return len(due)

    def _put_back(self, job: MemoryJob, *, now: int, interrupted: bool) -> None:
        """Put a claimed job back to its place, or park it when that came too often."""
        with self._rows.moving(job) as status:
            why = self._rows.why = rules.put_back(status, now=now, interrupted=interrupted)
        job.error = why or job.error

    def _park(self, job: MemoryJob, now: int) -> None:
        """Park a job that its worker may still run."""
        with self._rows.moving(job) as status:
            rules.parked(status, now=now, reason=ParkedFor.HELD)
        job.error = may_still_run(status.worker)
