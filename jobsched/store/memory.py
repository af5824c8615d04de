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
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

import msgspec

from jobsched import job as rules
from jobsched.job import CANCELLABLE, JobError, JobStatus, State, part_of_id
from jobsched.report import Decision
from jobsched.store.base import (
    INTERRUPTED_TOO_OFTEN,
    KEPT_DECISIONS,
    Accepted,
    CategoryStats,
    Claim,
    GiveBack,
    NewJob,
    Outcome,
    Page,
    Query,
    Recovered,
    Reply,
    Request,
    Slot,
    StoredJob,
    Turn,
    TurnResult,
    deal,
    may_still_run,
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

    def stored(self) -> StoredJob:
        """Return a copy that later turns do not change."""
        return StoredJob(
            id=self.id,
            status=msgspec.structs.replace(self.status),
            record=self.record,
            result=self.result,
            error=self.error,
        )


@dataclass(slots=True)
class _Category:
    paused: bool = False
    rows: dict[State | None, list[_Row]] = field(default_factory=lambda: {s: [] for s in (None, *State)})
    """Sorted rows by state; under None one for each job, by id alone."""

    def stats(self) -> CategoryStats:
        return CategoryStats(counts=[len(self.rows[state]) for state in State], paused=self.paused)


class MemoryStore:
    """A JobStore whose life is that of the object. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._jobs: dict[bytes, _Job] = {}
        self._categories: defaultdict[str, _Category] = defaultdict(_Category)
        self._last_sequence = 0
        self._last_claim = 0
        self._epoch = 0
        self._decisions: deque[Decision] = deque(maxlen=KEPT_DECISIONS)

    def apply(self, turn: Turn) -> TurnResult:
        """Apply a turn, in the order that the contract fixes."""
        with self._lock:
            replies = [self._change(request, turn.now) for request in turn.requests]
            lost = [outcome.claim for outcome in turn.outcomes if not self._finish(outcome)]
            lost += [back.claim for back in turn.give_back if not self._give_back(back, turn.now)]
            self._decisions.extend(turn.decisions)
            for request in turn.requests:
                self._add(request.jobs, turn.now)
            released = self._release(turn.release, turn.now)
            claims = self._fill(turn.slots, turn.now)
            return TurnResult(
                replies=replies,
                lost=lost,
                claims=claims,
                released=released,
                next_due=next((row[0] for row in self._rows(State.SCHEDULED)), None),
                stats=self._stats(),
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
            return job.stored() if job else None

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
        for category in request.pause:
            self._categories[category].paused = True
        for category in request.resume:
            self._categories[category].paused = False
        return Accepted(states=states)

    def _cancel(self, job_id: bytes, now: int) -> State | None:
        """Cancel a job that nobody runs, and return its state then."""
        job = self._jobs.get(job_id)
        if job is None:
            return None
        if job.status.state in CANCELLABLE:
            with self._moving(job) as status:
                rules.cancelled(status, now=now)
        return job.status.state

    def _finish(self, outcome: Outcome) -> bool:
        """Record how a run ended; False if that claim does not hold the job any more."""
        job = self._claimed_job(outcome.job, outcome.claim)
        if job is None:
            return False
        job.result = outcome.result
        job.error = outcome.error
        with self._moving(job) as status:
            rules.finished(
                status,
                state=outcome.state,
                started_at=outcome.started_at,
                ended_at=outcome.ended_at,
                due_at=outcome.due_at,
            )
        return True

    def _give_back(self, back: GiveBack, now: int) -> bool:
        """Undo a claim; False if it does not hold the job any more."""
        job = self._claimed_job(back.job, back.claim)
        if job is None:
            return False
        self._put_back(job, now=now, interrupted=back.interrupted)
        return True

    def _add(self, jobs: Sequence[NewJob], now: int) -> None:
        for new in jobs:
            if new.id in self._jobs:
                continue
            status = JobStatus(State.SCHEDULED, new.category, new.priority, due_at=new.due_at)
            job = self._jobs[new.id] = _Job(new.id, status, new.record)
            rows = self._categories[new.category].rows
            insort(rows[None], (new.id,))
            insort(rows[State.SCHEDULED], job.row())
            if new.due_at <= now:
                self._enqueue(job)

    def _release(self, limit: int, now: int) -> int:
        due = list(self._due(now, limit))
        for job in due:
            self._enqueue(job)
        return len(due)

    def _fill(self, slots: Sequence[Slot], now: int) -> list[Claim]:
        """Claim pending jobs for the room at the workers."""
        by_category: dict[str, list[Slot]] = {}
        for slot in slots:
            by_category.setdefault(slot.category, []).append(slot)
        claims: list[Claim] = []
        for name, room in by_category.items():
            category = self._categories.get(name)
            if category is None or category.paused:
                continue
            rows = category.rows[State.PENDING][: sum(max(slot.limit, 0) for slot in room)]
            for row, worker in zip(rows, deal(room), strict=False):
                claims.append(self._claim(self._jobs[row[-1]], worker, now))
        return claims

    def _claim(self, job: _Job, worker: int, now: int) -> Claim:
        self._last_claim += 1
        with self._moving(job) as status:
            rules.claimed(status, claim=self._last_claim, worker=worker, now=now)
        return Claim(self._last_claim, worker, status.attempt, job.id, job.record)

    def _enqueue(self, job: _Job) -> None:
        """Put a job at the end of its queue."""
        self._last_sequence += 1
        with self._moving(job) as status:
            rules.queued(status, sequence=self._last_sequence)

    def _put_back(self, job: _Job, *, now: int, interrupted: bool) -> None:
        """Put a claimed job back to its place, or park it when that came too often."""
        with self._moving(job) as status:
            rules.put_back(status, now=now, interrupted=interrupted)
            if status.state is State.PARKED:
                job.error = INTERRUPTED_TOO_OFTEN

    def _park(self, job: _Job, now: int) -> None:
        """Park a job that its worker may still run."""
        with self._moving(job) as status:
            rules.parked(status, now=now)
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
        yield job.status
        insort(rows[job.status.state], job.row())

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

    def _stats(self) -> dict[str, CategoryStats]:
        return {name: category.stats() for name, category in self._categories.items()}


def _rows_after(after: _Row | None, rows: list[_Row], state: State | None) -> Iterator[_Row]:
    """Yield a list's rows in its state's direction, from its end or from behind a row on."""
    if state in _WAITING:
        start = 0 if after is None else bisect_right(rows, after)
        return map(rows.__getitem__, range(start, len(rows)))
    end = len(rows) if after is None else bisect_left(rows, after)
    return map(rows.__getitem__, range(end - 1, -1, -1))
