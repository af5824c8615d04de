"""The store contract: a turn is data, applied as one transaction.

A store remembers jobs and categories. It knows no services and reads no clock: `Turn.now` is the
time. Everything that changes it is a `Turn`; reads are short. One contract suite and one model
test hold every store to the words below.

A turn is applied in a fixed order: the requests' cancellations and pauses, outcomes, give-backs,
the requests' new jobs, release of due jobs, claims. No step needs another's answer, so a turn fits
one LMDB transaction, one PostgreSQL pipeline, or a lock around some dicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from jobsched.job import INTERRUPTION_LIMIT, JobError, JobStatus, State
from jobsched.report import Decision

__all__ = [
    "INTERRUPTED_TOO_OFTEN",
    "KEPT_DECISIONS",
    "Accepted",
    "CategoryStats",
    "Claim",
    "GiveBack",
    "JobStore",
    "NewJob",
    "Outcome",
    "Page",
    "Query",
    "Recovered",
    "Refused",
    "Reply",
    "Request",
    "Slot",
    "StoredJob",
    "Turn",
    "TurnResult",
    "deal",
    "may_still_run",
]


KEPT_DECISIONS = 10_000


class NewJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job to add. The fields beside `record` are what the queues need, so that nobody on the
    way has to decode it. `due_at` 0 means at once.
    """

    id: bytes
    task: str
    category: str
    priority: int
    due_at: int
    record: bytes


class Request(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a client asks for: accepted whole, or refused whole.

    Adding a job whose id is known changes nothing, so a request may be repeated. A pause makes its
    category known; a slot does not.
    """

    jobs: Sequence[NewJob] = ()
    cancel: Sequence[bytes] = ()
    pause: Sequence[str] = ()
    resume: Sequence[str] = ()


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The request is on disk. `states` answers `Request.cancel`, in its order: the state that the
    job has now, None where there is no such job.
    """

    states: list[State | None] = []


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Nothing of the request happened. `kind` names the error class that the client raises."""

    kind: str
    reason: str


Reply = Accepted | Refused


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a claimed run ended.

    `state` is where the job goes: `completed` (with `result`), `failed`, `parked`, `scheduled`
    (tried again at `due_at`), or `pending`, which means that its worker died while running it.
    All but the first carry the `error`; the first may, to say why its result was not stored.
    `result` None is the return value None. Both replace what an earlier run left.
    """

    job: bytes
    claim: int
    state: State
    started_at: int
    ended_at: int
    result: bytes | None = None
    error: JobError | None = None
    due_at: int = 0


class GiveBack(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A claim undone: the job keeps its place. `interrupted` says that its run had begun."""

    job: bytes
    claim: int
    interrupted: bool = False


class Slot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Room at one worker for up to `limit` more jobs of a category."""

    category: str
    worker: int
    limit: int


class Claim(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job handed to a worker. `number` only grows, over the life of the store."""

    number: int
    worker: int
    attempt: int
    job: bytes
    record: bytes


class Turn(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One transaction's worth of change.

    `decisions` are the balancer's, kept for the record; `release` is how many due jobs may move to
    their queues; `slots` is the room at the workers, filled from the queues in order.
    """

    now: int
    requests: Sequence[Request] = ()
    outcomes: Sequence[Outcome] = ()
    give_back: Sequence[GiveBack] = ()
    decisions: Sequence[Decision] = ()
    release: int = 0
    slots: Sequence[Slot] = ()


class CategoryStats(msgspec.Struct, array_like=True):
    """Counts of a category's jobs, indexed by State."""

    counts: list[int]
    paused: bool = False

    def __getitem__(self, state: State) -> int:
        return self.counts[state]


class TurnResult(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a turn did.

    `lost` has the claim numbers of outcomes and give-backs that came too late: the job had been
    claimed again, or ended, meanwhile. `next_due` is the time of the earliest
    scheduled job, None without one. `stats` covers all categories.
    """

    replies: list[Reply]
    lost: list[int]
    claims: list[Claim]
    released: int
    next_due: int | None
    stats: dict[str, CategoryStats]


class StoredJob(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A job as stored: `record` is None where it is damaged."""

    id: bytes
    status: JobStatus
    record: bytes | None
    result: bytes | None = None
    error: JobError | None = None


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs to list, newest first where they ended, in queue order where they wait.

    Without a state all jobs are listed by their ids, the newest first.
    `limit` is at most 200: readers copy a page out and end the read before they print. `after` is
    the `Page.next` of the page before.
    """

    state: State | None = None
    category: str | None = None
    limit: int = 50
    after: bytes = b""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some jobs; `next` asks for those after them, None when there are no more.

    A page may hold fewer jobs than the limit, even none, with more to come: a read is bounded in
    rows looked at, not in rows found.
    """

    jobs: list[StoredJob]
    next: bytes | None


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What `recover` did: the node's new epoch, and how many jobs are pending again."""

    epoch: int
    put_back: int


class JobStore(Protocol):
    """What every store does."""

    def apply(self, turn: Turn) -> TurnResult:
        """Apply a turn as one transaction, durable on return.

        Raises NotCommitted (nothing happened) or CommitUnknown (reopen, and repeat requests and
        outcomes: both are recognised by id and claim number).
        """
        ...

    def recover(self, now: int, held: frozenset[int] = frozenset()) -> Recovered:
        """Begin a node's life: put back what an earlier one left in progress.

        `held` are workers that may still run their jobs: those jobs are parked instead.
        """
        ...

    def in_progress(self) -> dict[int, list[bytes]]:
        """Return the jobs in progress by worker number, in the order of their claims."""
        ...

    def get(self, job_id: bytes) -> StoredJob | None:
        """Return a job, None if there is none of that id."""
        ...

    def resolve(self, part: str) -> list[bytes]:
        """Return the first two ids, in their order, that begin or end with 6 or more hex digits.

        Raises ValueError for what is no part of an id.
        """
        ...

    def find(self, query: Query) -> Page:
        """Return a page of jobs."""
        ...

    def stats(self) -> dict[str, CategoryStats]:
        """Return the counts per category, in O(categories)."""
        ...

    def upcoming(self, until: int, limit: int) -> dict[str, int]:
        """Return per category how many scheduled jobs are due by an instant, `limit` in all at most."""
        ...

    def decisions(self, limit: int) -> list[Decision]:
        """Return the balancer's last decisions, oldest first. The store keeps 10,000."""
        ...

    def close(self) -> None:
        """Let go of the store. May come twice."""
        ...


INTERRUPTED_TOO_OFTEN = JobError(f"interrupted {INTERRUPTION_LIMIT} times by stops of its node")
"""Why a job was parked by its last give-back."""


def may_still_run(worker: int) -> JobError:
    """Return why `recover` parks a job whose worker could not be ended."""
    return JobError(f"worker {worker} of an earlier node may still run it")


def deal(slots: Sequence[Slot]) -> Iterator[int]:
    """Yield worker numbers in the order in which they take a category's jobs: one each, in turns,
    until every slot is full.
    """
    rest = [[slot.worker, slot.limit] for slot in slots]
    while rest:
        for room in rest:
            if room[1] > 0:
                yield room[0]
            room[1] -= 1
        rest = [room for room in rest if room[1] > 0]
