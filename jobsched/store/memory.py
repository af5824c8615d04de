"""The job store in memory: the reference model that every other store is compared with.

Everything lives in one dict of jobs, and per category in one sorted list of rows for each state. A
row is a tuple that sorts as its state is read and ends with the job's id. A change takes the job's
row out of one list and puts it into another, so the lengths of the lists are the counts. All under
one lock; nothing outlives the process.
"""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

import msgspec

from jobsched import job as rules
from jobsched.job import (
    CANCELLABLE,
    EXPIRED,
    KEPT_ATTEMPTS,
    RETRYABLE,
    Attempt,
    JobError,
    JobStatus,
    ParkedFor,
    State,
    Terms,
    part_of_id,
)
from jobsched.report import Decision
from jobsched.store.base import (
    KEPT_DECISIONS,
    Accepted,
    CategoryStats,
    Claim,
    Dealer,
    GiveBack,
    NewJob,
    Outcome,
    Page,
    Prune,
    Query,
    Recovered,
    Reply,
    Request,
    Slot,
    StoredJob,
    Turn,
    TurnResult,
    is_over,
    key_is_taken,
    may_still_run,
    queue_is_full,
    replaced_by,
)

__all__ = ["MemoryStore"]

_PAGE_LIMIT = 200
_WAITING = frozenset({State.PENDING, State.SCHEDULED, State.IN_PROGRESS})
"""What is listed oldest first; the rest is listed newest first."""

_Row = tuple[Any, ...]


@dataclass(slots=True)
class _Job:
    id: bytes
    status: JobStatus
    record: bytes
    result: bytes | None = None
    error: JobError | None = None
    attempts: list[Attempt] = field(default_factory=list)

    def row(self) -> _Row:
        """Return the job's row in the list of its state."""
        status = self.status
        match status.state:
            case State.PENDING:
                return -status.priority, status.sequence, self.id
            case State.SCHEDULED:
                return status.due_at, self.id
            case State.IN_PROGRESS:
                return status.claim, self.id
            case _:
                return status.ended_at, self.id

    @property
    def terms(self) -> Terms:
        return self.status.terms or Terms()

    def stored(self, *, attempts: bool = False) -> StoredJob:
        """Return a copy that later turns do not change."""
        return StoredJob(
            id=self.id,
            status=msgspec.structs.replace(self.status),
            record=self.record,
            result=self.result,
            error=self.error,
            attempts=list(self.attempts) if attempts else [],
        )


@dataclass(slots=True)
class _Category:
    paused: bool = False
    resume_at: int = 0
    rows: dict[State | None, list[_Row]] = field(default_factory=lambda: {s: [] for s in (None, *State)})
    """Sorted rows by state; under None one for each job, by id alone."""

    def stats(self, limited: int) -> CategoryStats:
        counts = [len(self.rows[state]) for state in State]
        return CategoryStats(counts, self.paused, limited, self.resume_at)


class MemoryStore:
    """A JobStore whose life is that of the object. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._jobs: dict[bytes, _Job] = {}
        self._categories: defaultdict[str, _Category] = defaultdict(_Category)
        self._last_sequence = 0
        self._last_claim = 0
        self._epoch = 0
        self._keys: dict[bytes, bytes] = {}  # unique key → the job that holds it
        self._most: dict[bytes, int] = {}  # key of a limit → how many may run
        self._running: Counter[bytes] = Counter()  # key of a limit → how many do
        self._decisions: deque[Decision] = deque(maxlen=KEPT_DECISIONS)

    def apply(self, turn: Turn) -> TurnResult:
        """Apply a turn, in the order that the contract fixes."""
        with self._lock:
            self._resume_due(turn.now)
            replies = [self._change(request, turn.now) for request in turn.requests]
            lost = [outcome.claim for outcome in turn.outcomes if not self._finish(outcome)]
            lost += [back.claim for back in turn.give_back if not self._give_back(back, turn.now)]
            self._decisions.extend(turn.decisions)
            pruned = sum(self._prune(order) for order in turn.prune)
            for place, request in enumerate(turn.requests):
                if request.jobs:
                    replies[place] = self._add(request, turn.now)
            released = self._release(turn.release, turn.now)
            claims, blocked = self._fill(turn.slots, turn.now)
            return TurnResult(
                replies=replies,
                lost=lost,
                claims=claims,
                released=released,
                next_due=self._next_due(),
                stats=self._stats(),
                blocked=blocked,
                pruned=pruned,
            )

    def recover(self, now: int, held: frozenset[int] = frozenset()) -> Recovered:
        """Begin a node's life: put back what is in progress, park what `held` workers may still run."""
        with self._lock:
            self._epoch += 1
            interrupted = [self._jobs[row[-1]] for row in self._rows(State.IN_PROGRESS)]
            for job in interrupted:
                if job.status.worker in held:
                    self._park(job, now)
                else:
                    self._put_back(job, now=now, interrupted=True)
            self._most.clear()
            back = sum(job.status.state is State.PENDING for job in interrupted)
            return Recovered(epoch=self._epoch, put_back=back)

    def in_progress(self) -> dict[int, list[bytes]]:
        """Return the jobs in progress by worker number, in the order of their claims."""
        by_worker: dict[int, list[bytes]] = {}
        with self._lock:
            for _claim, job_id in self._rows(State.IN_PROGRESS):
                by_worker.setdefault(self._jobs[job_id].status.worker, []).append(job_id)
        return by_worker

    def get(self, job_id: bytes) -> StoredJob | None:
        """Return a job, None if there is none of that id."""
        with self._lock:
            job = self._jobs.get(job_id)
            return job.stored(attempts=True) if job else None

    def resolve(self, part: str) -> list[bytes]:
        """Return the first two ids that begin or end with some hex digits. Looks at every id.

        Raises ValueError for fewer than 6 digits, or other characters than those and dashes.
        """
        digits = part_of_id(part)
        with self._lock:
            found = (i for i in sorted(self._jobs) if i.hex().startswith(digits) or i.hex().endswith(digits))
            return list(islice(found, 2))

    def find(self, query: Query) -> Page:
        """Return a page of jobs. Its `next` is the last job's row, so moves of others do not shift it."""
        limit = min(query.limit, _PAGE_LIMIT)
        after = msgspec.msgpack.decode(query.after, type=tuple) if query.after else None
        with self._lock:
            rows = list(islice(self._rows(query.state, query.category, after), limit + 1))
            jobs = [self._jobs[row[-1]].stored() for row in rows[:limit]]
        return Page(jobs=jobs, next=msgspec.msgpack.encode(rows[limit - 1]) if len(rows) > limit else None)

    def stats(self) -> dict[str, CategoryStats]:
        """Return the counts of every category that a job or a pause ever named."""
        with self._lock:
            return self._stats()

    def upcoming(self, until: int, limit: int) -> dict[str, int]:
        """Return per category how many of the first `limit` scheduled jobs fall due by an instant."""
        counts: dict[str, int] = {}
        with self._lock:
            for job in self._due(until, limit):
                category = job.status.category
                counts[category] = counts.get(category, 0) + 1
        return counts

    def decisions(self, limit: int) -> list[Decision]:
        """Return the balancer's last decisions, oldest first."""
        with self._lock:
            return list(islice(self._decisions, max(0, len(self._decisions) - limit), None))

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _change(self, request: Request, now: int) -> Reply:
        states = [self._cancel(job_id, now) for job_id in request.cancel]
        states += [self._retry(job_id) for job_id in request.retry]
        states += [self._delete(job_id) for job_id in request.delete]
        for category, resume_at in request.pause.items():
            self._categories[category].paused = True
            self._categories[category].resume_at = resume_at
        for category in request.resume:
            self._resume(self._categories[category])
        return Accepted(states=states)

    def _resume(self, category: _Category) -> None:
        category.paused = False
        category.resume_at = 0

    def _resume_due(self, now: int) -> None:
        for category in self._categories.values():
            if is_over(category.resume_at, now):
                self._resume(category)

    def _cancel(self, job_id: bytes, now: int) -> State | None:
        """Cancel a job that nobody runs, or ask for the end of one that runs; return its state."""
        job = self._jobs.get(job_id)
        if job is None:
            return None
        if job.status.state is State.IN_PROGRESS:
            job.status.cancel_asked = True
        elif job.status.state in CANCELLABLE:
            self._cancel_for(job, None, now)
        return job.status.state

    def _cancel_for(self, job: _Job, why: JobError | None, now: int) -> None:
        with self._moving(job) as status:
            rules.cancelled(status, now=now)
        job.error = why or job.error

    def _retry(self, job_id: bytes) -> State | None:
        job = self._jobs.get(job_id)
        if job is None:
            return None
        if job.status.state in RETRYABLE:
            self._last_sequence += 1
            with self._moving(job) as status:
                rules.retried(status, sequence=self._last_sequence)
            job.result = job.error = None
        return job.status.state

    def _delete(self, job_id: bytes) -> State | None:
        job = self._jobs.get(job_id)
        if job is not None and job.status.state is State.IN_PROGRESS:
            return State.IN_PROGRESS
        if job is not None:
            self._erase(job)
        return None

    def _erase(self, job: _Job) -> None:
        rows = self._categories[job.status.category].rows
        for state in (None, job.status.state):
            row = (job.id,) if state is None else job.row()
            del rows[state][bisect_left(rows[state], row)]
        if self._keys.get(job.terms.unique) == job.id:
            del self._keys[job.terms.unique]
        del self._jobs[job.id]

    def _prune(self, order: Prune) -> int:
        """Delete ended jobs by age and number; return how many."""
        count = len(list(self._rows(order.state)))
        doomed: list[bytes] = []
        for ended_at, job_id in sorted(self._rows(order.state)):
            is_surplus = order.keep is not None and count > order.keep and ended_at < order.settled
            if len(doomed) == order.limit or not (ended_at < order.before or is_surplus):
                break
            count -= 1
            doomed.append(job_id)
        for job_id in doomed:
            self._erase(self._jobs[job_id])
        return len(doomed)

    def _finish(self, outcome: Outcome) -> bool:
        """Record how a run ended; False if that claim does not hold the job any more."""
        job = self._claimed_job(outcome.job, outcome.claim)
        if job is None:
            return False
        if outcome.error is not None or outcome.log:
            status = job.status
            job.attempts.append(
                Attempt(
                    status.attempt, status.claim, status.worker, outcome.started_at, outcome.ended_at,
                    outcome.state, outcome.error, outcome.log,
                )
            )  # fmt: skip
            del job.attempts[:-KEPT_ATTEMPTS]
        with self._moving(job) as status:
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
        job.result = outcome.result
        job.error = why or outcome.error
        if outcome.terms is not None:
            self._note_limits(job)
        return True

    def _give_back(self, back: GiveBack, now: int) -> bool:
        """Undo a claim; False if it does not hold the job any more."""
        job = self._claimed_job(back.job, back.claim)
        if job is None:
            return False
        self._put_back(job, now=now, interrupted=back.interrupted)
        return True

    def _add(self, request: Request, now: int) -> Reply:
        """Add a request's jobs, or none of them."""
        new = [job for job in request.jobs if job.id not in self._jobs]
        for name, limit in request.max_pending.items():
            rows = self._categories[name].rows if name in self._categories else None
            waiting = len(rows[State.PENDING]) + len(rows[State.SCHEDULED]) if rows else 0
            count = sum(job.category == name for job in new)
            if count and waiting + count > limit:
                return queue_is_full(name, limit, waiting)
        keys: dict[bytes, bytes] = {}
        for job in new:
            holder = self._holder(job, keys)
            if holder is not None and job.on_conflict == "refuse":
                return key_is_taken(job, holder)
        kept: dict[int, bytes] = {}
        for place, job in enumerate(request.jobs):
            holder = self._holder(job, {}) if job.id not in self._jobs else None
            if holder is not None and job.on_conflict == "replace":
                old = self._jobs[holder]
                if old.status.state in CANCELLABLE:
                    self._cancel_for(old, replaced_by(job.id), now)
                    holder = None
            if holder is not None:
                kept[place] = holder
            elif job.id not in self._jobs:
                self._add_one(job, now)
        return Accepted(kept=kept)

    def _holder(self, job: NewJob, seen: dict[bytes, bytes]) -> bytes | None:
        """Return the job that holds a new one's unique key, None without; note it in `seen`."""
        if job.terms is None or not job.terms.unique:
            return None
        key = job.terms.unique
        holder = self._keys.get(key) or seen.get(key)
        seen.setdefault(key, job.id)
        return None if holder == job.id else holder

    def _add_one(self, new: NewJob, now: int) -> None:
        status = JobStatus(State.SCHEDULED, new.category, new.priority, due_at=new.due_at, terms=new.terms)
        job = self._jobs[new.id] = _Job(new.id, status, new.record)
        rows = self._categories[new.category].rows
        insort(rows[None], (new.id,))
        insort(rows[State.SCHEDULED], job.row())
        self._note_limits(job)
        self._note_key(job)
        if new.due_at <= now:
            self._enqueue(job)

    def _note_limits(self, job: _Job) -> None:
        """Take a job's limits as the word that counts."""
        for limit in job.terms.limits:
            self._most[limit.key] = limit.most

    def _note_key(self, job: _Job) -> None:
        """Let a job have its unique key, or be without it, as its state asks."""
        key = job.terms.unique
        if rules.holds_key(job.status):
            self._keys.setdefault(key, job.id)
        elif key and self._keys.get(key) == job.id:
            del self._keys[key]

    def _release(self, limit: int, now: int) -> int:
        due = list(self._due(now, limit))
        for job in due:
            self._enqueue(job)
        return len(due)

    def _fill(self, slots: Sequence[Slot], now: int) -> tuple[list[Claim], list[str]]:
        """Claim pending jobs for the room at the workers; return where a job waits for a free one."""
        by_category: dict[str, list[Slot]] = {}
        for slot in slots:
            by_category.setdefault(slot.category, []).append(slot)
        claims: list[Claim] = []
        blocked: list[str] = []
        for name, room in by_category.items():
            category = self._categories.get(name)
            if category is not None and not category.paused:
                dealer = Dealer(room)
                for row in list(category.rows[State.PENDING]):
                    if dealer.is_full:
                        break
                    job = self._jobs[row[-1]]
                    if rules.is_expired(job.status, now=now):
                        self._cancel_for(job, EXPIRED, now)
                    elif not self._is_at_limit(job):
                        worker = dealer.next(alone=job.terms.is_alone)
                        if worker is None:
                            blocked.append(name)
                            break
                        claims.append(self._claim(job, worker, now))
        return claims, blocked

    def _is_at_limit(self, job: _Job) -> bool:
        return any(
            self._running[limit.key] >= self._most.get(limit.key, limit.most) for limit in job.terms.limits
        )

    def _claim(self, job: _Job, worker: int, now: int) -> Claim:
        self._last_claim += 1
        with self._moving(job) as status:
            rules.claimed(status, claim=self._last_claim, worker=worker, now=now)
        has_terms = status.terms is not None
        return Claim(self._last_claim, worker, status.attempt, job.id, job.record, has_terms)

    def _enqueue(self, job: _Job) -> None:
        """Put a job at the end of its queue."""
        self._last_sequence += 1
        with self._moving(job) as status:
            rules.queued(status, sequence=self._last_sequence)

    def _put_back(self, job: _Job, *, now: int, interrupted: bool) -> None:
        """Put a claimed job back to its place, or park it when that came too often."""
        with self._moving(job) as status:
            job.error = rules.put_back(status, now=now, interrupted=interrupted) or job.error

    def _park(self, job: _Job, now: int) -> None:
        """Park a job that its worker may still run."""
        with self._moving(job) as status:
            rules.parked(status, now=now, reason=ParkedFor.HELD)
        job.error = may_still_run(status.worker)

    def _claimed_job(self, job_id: bytes, claim: int) -> _Job | None:
        """Return the job if it is in progress under exactly that claim."""
        job = self._jobs.get(job_id)
        if job and job.status.state is State.IN_PROGRESS and job.status.claim == claim:
            return job
        return None

    @contextmanager
    def _moving(self, job: _Job) -> Iterator[JobStatus]:
        """Take a job's row out, let its status change, and put its row where it belongs then."""
        rows = self._categories[job.status.category].rows
        old = rows[job.status.state]
        del old[bisect_left(old, job.row())]
        if job.status.state is State.IN_PROGRESS:
            self._running.subtract(limit.key for limit in job.terms.limits)
        yield job.status
        insort(rows[job.status.state], job.row())
        for limit in job.terms.limits if job.status.state is State.IN_PROGRESS else ():
            self._running[limit.key] += 1
            self._most.setdefault(limit.key, limit.most)
        self._note_key(job)

    def _rows(
        self, state: State | None, category: str | None = None, after: _Row | None = None
    ) -> Iterator[_Row]:
        """Yield the rows of a state in the order of its list, of one category or merged of all."""
        names = self._categories if category is None else self._categories.keys() & {category}
        lists = [_rows_after(after, self._categories[name].rows[state], state) for name in names]
        return heapq.merge(*lists, reverse=state not in _WAITING)

    def _due(self, until: int, limit: int) -> Iterator[_Job]:
        """Yield the first `limit` scheduled jobs that are due by an instant, in due order."""
        rows = takewhile(lambda row: row[0] <= until, islice(self._rows(State.SCHEDULED), limit))
        return (self._jobs[row[-1]] for row in rows)

    def _next_due(self) -> int | None:
        dues = [row[0] for row in islice(self._rows(State.SCHEDULED), 1)]
        dues += [category.resume_at for category in self._categories.values() if category.resume_at]
        return min(dues, default=None)

    def _stats(self) -> dict[str, CategoryStats]:
        return {
            name: category.stats(
                sum(self._is_at_limit(self._jobs[row[-1]]) for row in category.rows[State.PENDING])
            )
            for name, category in self._categories.items()
        }


def _rows_after(after: _Row | None, rows: list[_Row], state: State | None) -> Iterator[_Row]:
    """Yield a list's rows in its state's direction, from its end or from behind a row on."""
    if state in _WAITING:
        start = 0 if after is None else bisect_right(rows, after)
        return map(rows.__getitem__, range(start, len(rows)))
    end = len(rows) if after is None else bisect_left(rows, after)
    return map(rows.__getitem__, range(end - 1, -1, -1))
