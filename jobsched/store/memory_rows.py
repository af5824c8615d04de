"""The rows of the job store in memory: each change keeps lists, keys and limits in step.

One dict of jobs, and per category one sorted list of rows for each state. A row is a tuple that
sorts as its state is read and ends with the job's id. A change takes the job's row out of one list
and puts it into another, so the lengths of the lists are the counts.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

import msgspec

from jobsched import transitions as rules
from jobsched.job import Attempt, JobError, JobStatus, State, Terms
from jobsched.store.base import CategoryStats, NewJob, StoredJob
from jobsched.store.moves import Moves, Watch

__all__ = ["CategoryRows", "MemoryJob", "Row", "Rows"]

_WAITING = frozenset({State.PENDING, State.SCHEDULED, State.IN_PROGRESS})
"""What is listed oldest first; the rest is listed newest first."""

Row = tuple[Any, ...]


@dataclass(slots=True)
class MemoryJob:
    """A job; `record`, `result` and `error` as in StoredJob."""

    id: bytes
    status: JobStatus
    record: bytes
    result: bytes | None = None
    error: JobError | None = None
    attempts: list[Attempt] = field(default_factory=list)

    def row(self) -> Row:
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
        """On which terms it runs: empty ones where it has none."""
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
class CategoryRows:
    """A category's lists of jobs, and whether it is paused."""

    paused: bool = False
    resume_at: int = 0
    rows: dict[State | None, list[Row]] = field(default_factory=lambda: {s: [] for s in (None, *State)})
    """Sorted rows by state; under None one for each job, by id alone."""

    def pause(self, resume_at: int) -> None:
        """Give no claims until a time, 0 for ever."""
        self.paused = True
        self.resume_at = resume_at

    def resume(self) -> None:
        """Give claims again."""
        self.paused = False
        self.resume_at = 0

    def stats(self, limited: int) -> CategoryStats:
        """Return the counts, with how many of the pending jobs wait at a limit."""
        counts = [len(self.rows[state]) for state in State]
        return CategoryStats(counts, self.paused, limited, self.resume_at)


class Rows:
    """All that a store in memory holds but decisions and epochs. Whoever calls holds its lock."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, MemoryJob] = {}
        self.categories: defaultdict[str, CategoryRows] = defaultdict(CategoryRows)
        self.moves = Moves(Watch.NOTHING)  # of the turn that is applied
        self.why: JobError | None = None
        self._last_sequence = 0
        self._keys: dict[bytes, bytes] = {}  # unique key → the job that holds it
        self._most: dict[bytes, int] = {}  # key of a limit → how many may run
        self._running: Counter[bytes] = Counter()  # key of a limit → how many do

    # Jobs.

    def claimed_job(self, job_id: bytes, claim: int) -> MemoryJob | None:
        """Return the job if it is in progress under exactly that claim."""
        job = self.jobs.get(job_id)
        if job and job.status.state is State.IN_PROGRESS and job.status.claim == claim:
            return job
        return None

    def add(self, new: NewJob, now: int) -> None:
        """Add a job whose id is new: to the end of its queue if it is due."""
        status = JobStatus(State.SCHEDULED, new.category, new.priority, due_at=new.due_at, terms=new.terms)
        job = self.jobs[new.id] = MemoryJob(new.id, status, new.record)
        rows = self.categories[new.category].rows
        insort(rows[None], (new.id,))
        insort(rows[State.SCHEDULED], job.row())
        self.note_limits(job)
        self._note_key(job)
        if new.due_at <= now:
            with self._moving(job) as status:
                rules.queued(status, sequence=self.next_sequence())
        self._tell(job, None, None)

    def enqueue(self, job: MemoryJob) -> None:
        """Put a job at the end of its queue."""
        with self.moving(job) as status:
            rules.queued(status, sequence=self.next_sequence())

    def next_sequence(self) -> int:
        """Return the next place in the queues."""
        self._last_sequence += 1
        return self._last_sequence

    @contextmanager
    def moving(self, job: MemoryJob) -> Iterator[JobStatus]:
        """Let a job's status change, and tell of it; whoever knows why it moves sets `why` meanwhile."""
        was, self.why = job.status.state, None
        with self._moving(job) as status:
            yield status
        self._tell(job, was, self.why)

    def _tell(self, job: MemoryJob, was: State | None, why: JobError | None) -> None:
        if job.status.state in self.moves.states:
            self.moves.note(job.id, was, job.status, self.record_of, why)

    def record_of(self, job_id: bytes) -> bytes:
        """Return a job's immutable part."""
        return self.jobs[job_id].record

    @contextmanager
    def _moving(self, job: MemoryJob) -> Iterator[JobStatus]:
        """Take a job's row out, let its status change, and put its row where it belongs then."""
        rows = self.categories[job.status.category].rows
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

    def cancel_for(self, job: MemoryJob, why: JobError | None, now: int) -> None:
        """Cancel a job that does not run."""
        with self.moving(job) as status:
            rules.cancelled(status, now=now)
            self.why = why
        job.error = why or job.error

    def erase(self, job: MemoryJob) -> None:
        """Forget a job that does not run."""
        rows = self.categories[job.status.category].rows
        for state in (None, job.status.state):
            row = (job.id,) if state is None else job.row()
            del rows[state][bisect_left(rows[state], row)]
        if self._keys.get(job.terms.unique) == job.id:
            del self._keys[job.terms.unique]
        del self.jobs[job.id]

    # Unique keys.

    def holder(self, job: NewJob, seen: dict[bytes, bytes]) -> bytes | None:
        """Return the job that holds a new one's unique key, None without; note it in `seen`."""
        if job.terms is None or not job.terms.unique:
            return None
        key = job.terms.unique
        holder = self._keys.get(key) or seen.get(key)
        seen.setdefault(key, job.id)
        return None if holder == job.id else holder

    def may_have_key(self, job: MemoryJob) -> bool:
        """Say whether no other job holds this one's unique key."""
        return self._keys.get(job.terms.unique, job.id) == job.id

    def _note_key(self, job: MemoryJob) -> None:
        """Let a job have its unique key, or be without it, as its state asks."""
        key = job.terms.unique
        if rules.holds_key(job.status):
            self._keys.setdefault(key, job.id)
        elif key and self._keys.get(key) == job.id:
            del self._keys[key]

    # Limits.

    def is_at_limit(self, job: MemoryJob) -> bool:
        """Say whether one of a job's limits is reached."""
        return any(
            self._running[limit.key] >= self._most.get(limit.key, limit.most) for limit in job.terms.limits
        )

    def note_limits(self, job: MemoryJob) -> None:
        """Take a job's limits as the word that counts."""
        for limit in job.terms.limits:
            self._most[limit.key] = limit.most

    def forget_limits(self) -> None:
        """Begin a node's life: what earlier jobs said of their limits does not count."""
        self._most.clear()

    # Reading.

    def listed(
        self, state: State | None, category: str | None = None, after: Row | None = None
    ) -> Iterator[Row]:
        """Yield the rows of a state in the order of its list, of one category or merged of all."""
        names = self.categories if category is None else self.categories.keys() & {category}
        lists = [_rows_after(after, self.categories[name].rows[state], state) for name in names]
        return heapq.merge(*lists, reverse=state not in _WAITING)

    def due(self, until: int, limit: int) -> Iterator[MemoryJob]:
        """Yield the first `limit` scheduled jobs that are due by an instant, in due order."""
        rows = takewhile(lambda row: row[0] <= until, islice(self.listed(State.SCHEDULED), limit))
        return (self.jobs[row[-1]] for row in rows)

    def waiting(self, name: str) -> int:
        """Return how many jobs of a category wait for their time or their turn."""
        rows = self.categories[name].rows if name in self.categories else None
        return len(rows[State.PENDING]) + len(rows[State.SCHEDULED]) if rows else 0

    def next_due(self) -> int | None:
        """Return when the next scheduled job is due, or the next pause over."""
        dues = [row[0] for row in islice(self.listed(State.SCHEDULED), 1)]
        dues += [category.resume_at for category in self.categories.values() if category.resume_at]
        return min(dues, default=None)

    def stats(self) -> dict[str, CategoryStats]:
        """Return the counts of every category."""
        return {
            name: category.stats(
                sum(self.is_at_limit(self.jobs[row[-1]]) for row in category.rows[State.PENDING])
            )
            for name, category in self.categories.items()
        }


def _rows_after(after: Row | None, rows: list[Row], state: State | None) -> Iterator[Row]:
    """Yield a list's rows in its state's direction, from its end or from behind a row on."""
    if state in _WAITING:
        start = 0 if after is None else bisect_right(rows, after)
        return map(rows.__getitem__, range(start, len(rows)))
    end = len(rows) if after is None else bisect_left(rows, after)
    return map(rows.__getitem__, range(end - 1, -1, -1))
