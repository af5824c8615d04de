"""The store contract: a turn is data, applied as one transaction.

A store remembers jobs and categories. It knows no services and reads no clock: `Turn.now` is the
time. Everything that changes it is a `Turn`; reads are short. One contract suite and one model
test hold every store to the words below.

A turn is applied in a fixed order: journals' entries, the requests' changes of what is there, outcomes,
give-backs, pruning, the requests' new jobs and schedules, firings, release of due jobs, claims. No step
needs another's answer, so a turn fits one LMDB transaction, one PostgreSQL pipeline, or a lock around
some dicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol

import msgspec

from jobsched.job import PRIORITY_LIMIT, Attempt, JobError, JobStatus, ParkedFor, State, Terms
from jobsched.job_id import JobId
from jobsched.report import Decision
from jobsched.schedule import FiringRecord, ScheduleChange, ScheduleNews, StoredSchedule
from jobsched.store.journal_marks import Span
from jobsched.store.moves import Move, Watch
from jobsched.store.retention import Prune

__all__ = [
    "KEPT_DECISIONS",
    "Accepted",
    "CategoryStats",
    "Claim",
    "Conflict",
    "Firing",
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
    "is_over",
]


KEPT_DECISIONS = 10_000

Conflict = Literal["keep", "refuse", "replace"]
"""What a dispatch does when its unique key is taken: stand for the job that has it; be refused; or
cancel that job if it waits, and stand for it if it runs.
"""


class NewJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job to add. The fields beside `record` are what the queues need, so that nobody on the
    way has to decode it. `due_at` 0 means at once. What the types are annotated with is checked where
    one is decoded, which takes no time.
    """

    id: JobId
    task: str
    category: str
    priority: Annotated[int, msgspec.Meta(ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT)]
    due_at: Annotated[int, msgspec.Meta(ge=0)]
    record: bytes
    terms: Terms | None = None
    on_conflict: Conflict = "keep"


class Request(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a client asks for: accepted whole, or refused whole. It either adds jobs or changes what
    is there.

    Adding a job whose id is known changes nothing, so a request may be repeated. A pause makes its
    category known; a slot does not. `pause` gives the time at which the category goes on by itself,
    0 for never. Cancelling a running job asks for its end; `retry` sends jobs to their queues again
    that ended without a result, stand beside the road, or wait for their time, unless another job
    has their unique key now; `delete` forgets jobs that do not run. `max_pending` refuses jobs over
    so many that wait in a category; `takes_unknown` lets jobs of unknown tasks in. `schedules`
    are changed in their order, with the jobs: all or none. A change that was made is not made again.
    `taken` says from which entries of journals the jobs come, which their clients have been told are on
    disk: they are added before anything else is done, unless the store has these entries, and refused if
    any are missing between them and those that it has.
    """

    jobs: Sequence[NewJob] = ()
    cancel: Sequence[bytes] = ()
    pause: Mapping[str, int] = {}
    resume: Sequence[str] = ()
    retry: Sequence[bytes] = ()
    delete: Sequence[bytes] = ()
    max_pending: Mapping[str, int] = {}
    takes_unknown: bool = False
    schedules: Sequence[ScheduleChange] = ()
    taken: Sequence[Span] = ()


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The request is on disk. `states` answers `Request.cancel`, `retry` and `delete`, in this order:
    the state that each job has now, None where there is no such job, or no more. `kept` are the ids
    of the jobs that stand for new ones whose unique key was taken, by the place of those in `jobs`.
    """

    states: list[State | None] = []
    kept: dict[int, bytes] = {}


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Nothing of the request happened. `kind` names the error class that the client raises."""

    kind: str
    reason: str


Reply = Accepted | Refused


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a claimed run ended.

    `state` is where the job goes: `completed` (with `result`), `failed`, `cancelled`, `parked` (for
    `parked_for`), `scheduled` (tried again at `due_at`), or `pending`, which means that its worker
    died while running it or, with `terms`, that nothing ran: the job is to be claimed again under
    the terms that its task has. All but the first carry the `error`; the first may, to say why its
    result was not stored. `result` None is the return value None. Both replace what an earlier run
    left. `log` is what the run has written. `unspent` gives the attempt back. `carried` is what a run
    that completed has dispatched for this very commit; if that is refused the job has failed.
    """

    job: bytes
    claim: int
    state: State
    started_at: int
    ended_at: int
    result: bytes | None = None
    error: JobError | None = None
    due_at: int = 0
    log: str = ""
    unspent: bool = False
    parked_for: ParkedFor = ParkedFor.NOTHING
    terms: Terms | None = None
    carried: Request | None = None


class GiveBack(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A claim undone: the job keeps its place. `interrupted` says that its run had begun."""

    job: bytes
    claim: int
    interrupted: bool = False


class Slot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Room at one worker for up to `limit` more jobs of a category; `is_busy` if it holds some."""

    category: str
    worker: int
    limit: int
    is_busy: bool = False


class Claim(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job handed to a worker. `number` only grows, over the life of the store. `has_terms` says
    that the store knows terms of it.
    """

    number: int
    worker: int
    attempt: int
    job: bytes
    record: bytes
    has_terms: bool = False


class Firing(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a node wants done about a schedule that is due: it is done only if the schedule is as the
    node saw it, of that `revision` and due at `due_at`; so no due time fires twice.

    `jobs` are the jobs of the `records`, by id, as requests carry them. `next_at` and `fire_at` are
    the next due time, 0 when there is none any more. `trigger` replaces that of the schedule.
    """

    name: str
    revision: int
    due_at: int
    records: Sequence[FiringRecord]
    jobs: Sequence[NewJob] = ()
    next_at: int
    fire_at: int
    trigger: list[object] | None = None


class Turn(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One transaction's worth of change.

    `decisions` are the balancer's, kept for the record; `release` is how many due jobs may move to
    their queues; `slots` is the room at the workers, filled from the queues in order. A job whose turn
    it is starts, or is passed over while a limit of it is reached, or else is cancelled when expired.
    `firings` are of schedules that are due; a schedule that ended before `forget_ended` is forgotten.
    `begun` are claims by the node itself, with numbers behind the last, of new jobs that the turn takes
    in from journals: they run already. `forget_journals` are those whose files are gone. `watch` says which
    moves the result is to tell of; it changes nothing else.
    """

    now: int
    requests: Sequence[Request] = ()
    outcomes: Sequence[Outcome] = ()
    give_back: Sequence[GiveBack] = ()
    decisions: Sequence[Decision] = ()
    release: int = 0
    slots: Sequence[Slot] = ()
    begun: Sequence[Claim] = ()
    prune: Sequence[Prune] = ()
    firings: Sequence[Firing] = ()
    forget_ended: int = 0
    forget_journals: Sequence[str] = ()
    watch: Watch = Watch.NOTHING


class CategoryStats(msgspec.Struct, array_like=True):
    """Counts of a category's jobs, indexed by State. `limited` of the pending ones wait for others
    to end; a pause ends at `resume_at` (UTC microseconds), 0 for never.
    """

    counts: list[int]
    paused: bool = False
    limited: int = 0
    resume_at: int = 0

    def __getitem__(self, state: State) -> int:
        return self.counts[state]

    @property
    def ready(self) -> int:
        """How many jobs could start now."""
        return 0 if self.paused else self.counts[State.PENDING] - self.limited


class TurnResult(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a turn did.

    `lost` has the claim numbers of outcomes and give-backs that came too late: the job had been claimed
    again, or ended, meanwhile; and of claims begun in vain: there is no such new job. `claims` are those
    begun and made, up to `last_claim`. `next_due` is the time of the earliest scheduled job or end of a
    pause, None without one. `stats` covers all categories. `blocked` are the categories whose next job is
    for a worker that holds nothing else, and found none. `is_full` says that the store lives on the last
    of its room, `is_over` that entries of journals came in for which there was none: new jobs would be
    refused. `next_fire` is when the next schedule is to fire, None without one; `fired` are the records that
    the firings have left, with their schedules' names. `changed` tells what requests have done to
    schedules; `moves` what became of jobs, as far as the turn asks, and `untold` how many are left out.
    """

    replies: list[Reply]
    lost: list[int]
    claims: list[Claim]
    released: int
    next_due: int | None
    stats: dict[str, CategoryStats]
    last_claim: int = 0
    blocked: list[str] = []
    pruned: int = 0
    is_full: bool = False
    is_over: bool = False
    next_fire: int | None = None
    fired: list[tuple[str, FiringRecord]] = []
    changed: list[ScheduleNews] = []
    moves: list[Move] = []
    untold: int = 0


class StoredJob(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A job as stored: `record` is None where it is damaged. `error` is why it did not complete, or
    the last try did not, or its result was not kept; `attempts` are filled in by `get` alone.
    """

    id: bytes
    status: JobStatus
    record: bytes | None
    result: bytes | None = None
    error: JobError | None = None
    attempts: list[Attempt] = []


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs to list, newest first where they ended, in queue order where they wait; those
    that wait at a limit may come after the others.

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

    def schedule(self, name: str) -> StoredSchedule | None:
        """Return a schedule, None if there is none of that name."""
        ...

    def schedules(self, after: str = "", limit: int = 200) -> list[StoredSchedule]:
        """Return up to 200 schedules in the order of their names, from behind one on."""
        ...

    def due_schedules(self, now: int, limit: int) -> list[StoredSchedule]:
        """Return the first schedules that are to fire by now."""
        ...

    def firings(self, name: str, limit: int = 200, before: int = 0) -> list[FiringRecord]:
        """Return up to 200 records of a schedule, the latest due time first, those due before a time."""
        ...

    def decisions(self, limit: int) -> list[Decision]:
        """Return the balancer's last decisions, oldest first. The store keeps 10,000."""
        ...

    def journals(self) -> dict[str, int]:
        """Return up to which number the entries of journals are in the store."""
        ...

    def close(self) -> None:
        """Let go of the store. May come twice."""
        ...


def is_over(resume_at: int, now: int) -> bool:
    """Say whether a pause until some time, 0 for ever, is over."""
    return 0 < resume_at <= now
