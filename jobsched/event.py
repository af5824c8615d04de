"""What happens in a node, as frozen values: one type for each transition of a job, a worker, a schedule,
the balancer and the node itself.

All have `kind`, their name in configurations and JSON, and `at`: when the node saw it, in UTC
microseconds, as all fields that end in `_at`; 0 is none. Jobs are named by the text of their id, workers
by their number, as in the node's log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from jobsched.clock import from_micros

__all__ = [
    "EVENTS",
    "KINDS",
    "BalanceDecided",
    "Dropped",
    "Event",
    "JobCancelled",
    "JobCompleted",
    "JobDeleted",
    "JobDispatched",
    "JobEvent",
    "JobExpired",
    "JobFailed",
    "JobGivenBack",
    "JobKept",
    "JobParked",
    "JobQuarantined",
    "JobQueued",
    "JobRetried",
    "JobStarted",
    "JobsPruned",
    "NodeDraining",
    "NodeHeld",
    "NodeReleased",
    "NodeStarted",
    "NodeStopped",
    "ScheduleActivated",
    "ScheduleAdded",
    "ScheduleChanged",
    "ScheduleDeactivated",
    "ScheduleEvent",
    "ScheduleFired",
    "ScheduleNoted",
    "ScheduleRemoved",
    "ScheduleSkipped",
    "StoreFull",
    "StoreHasRoom",
    "WorkerEnded",
    "WorkerEvent",
    "WorkerLent",
    "WorkerMoved",
    "WorkerReady",
    "WorkerStarted",
    "from_frame",
    "plain",
    "to_frame",
]


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="event"):
    """Something that has happened. What has become of jobs and schedules is on disk."""

    at: int

    @property
    def kind(self) -> str:
        """The event's name, like ``job.failed``."""
        return str(self.__struct_config__.tag)


# Jobs.


class JobEvent(Event, frozen=True, kw_only=True, gc=False, tag="job"):
    """Something has become of a job. `task` is empty where the job's record is damaged."""

    job: str
    task: str
    category: str


class JobDispatched(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.dispatched"):
    """A new job is on disk. It waits in its queue, or until it is due."""

    priority: int
    due_at: int


class JobKept(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.kept"):
    """A dispatch has added nothing: this job stands for it, as it has the same unique key."""


class JobQueued(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.queued"):
    """A job went to the end of its queue: it has become due, or an operator has sent it there. `was` is
    its state before.
    """

    was: str


class JobStarted(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.started"):
    """A job was claimed and goes to a worker, which may hold some before it."""

    attempt: int
    worker: int


class JobCompleted(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.completed"):
    """A job is done. It ran from `started_at` to `ended_at`."""

    attempt: int
    worker: int
    started_at: int
    ended_at: int


class JobFailed(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.failed"):
    """A job has failed for good."""

    attempt: int
    worker: int
    cause: str


class JobRetried(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.retried"):
    """A run has failed, crashed or put itself off, and the job runs again at `due_at`; at once, where
    that is 0.
    """

    attempt: int
    worker: int
    due_at: int
    cause: str


class JobCancelled(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.cancelled"):
    """A job was cancelled. `was` is its state before."""

    was: str
    cause: str


class JobExpired(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.expired"):
    """A job was cancelled, as it came too late to start."""


class JobParked(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.parked"):
    """A job was set aside: nobody can run it now. `reason` is a word, `cause` a sentence."""

    reason: str
    cause: str


class JobQuarantined(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.quarantined"):
    """A job has killed its workers too often."""

    crashes: int
    cause: str


class JobGivenBack(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.given_back"):
    """A claim was undone: the job keeps its place. `interrupted` says that its run had begun."""

    interrupted: bool


class JobDeleted(JobEvent, frozen=True, kw_only=True, gc=False, tag="job.deleted"):
    """A job was forgotten by an operator's word. `was` is its state before."""

    was: str


class JobsPruned(Event, frozen=True, kw_only=True, gc=False, tag="jobs.pruned"):
    """Retention has forgotten ended jobs."""

    count: int


# Workers.


class WorkerEvent(Event, frozen=True, kw_only=True, gc=False, tag="worker"):
    """Something has become of a worker. `category` is its home."""

    worker: int
    category: str


class WorkerStarted(WorkerEvent, frozen=True, kw_only=True, gc=False, tag="worker.started"):
    """A worker's process was asked for."""


class WorkerReady(WorkerEvent, frozen=True, kw_only=True, gc=False, tag="worker.ready"):
    """A worker can run jobs."""

    pid: int


class WorkerEnded(WorkerEvent, frozen=True, kw_only=True, gc=False, tag="worker.ended"):
    """A worker is gone: by a signal, or with an exit code, or neither is known. `cause` says it in words,
    and why the node has ended it, if it has; `job` is what it was running.
    """

    signal: str | None
    exit_code: int | None
    cause: str
    job: str | None


class WorkerMoved(WorkerEvent, frozen=True, kw_only=True, gc=False, tag="worker.moved"):
    """A worker has another home now: `category`. It had been `before`."""

    before: str


class WorkerLent(WorkerEvent, frozen=True, kw_only=True, gc=False, tag="worker.lent"):
    """A worker runs jobs of another category, `to`, as its own has none."""

    to: str


# Schedules.


class ScheduleEvent(Event, frozen=True, kw_only=True, gc=False, tag="schedule"):
    """Something has become of a schedule."""

    schedule: str


class ScheduleAdded(ScheduleEvent, frozen=True, kw_only=True, gc=False, tag="schedule.added"):
    """A schedule is new."""


class ScheduleChanged(ScheduleEvent, frozen=True, kw_only=True, gc=False, tag="schedule.changed"):
    """A schedule was replaced."""


class ScheduleRemoved(ScheduleEvent, frozen=True, kw_only=True, gc=False, tag="schedule.removed"):
    """A schedule was forgotten."""


class ScheduleActivated(ScheduleEvent, frozen=True, kw_only=True, gc=False, tag="schedule.activated"):
    """A schedule fires again."""


class ScheduleDeactivated(ScheduleEvent, frozen=True, kw_only=True, gc=False, tag="schedule.deactivated"):
    """A schedule fires no more."""


class ScheduleFired(ScheduleEvent, frozen=True, kw_only=True, gc=False, tag="schedule.fired"):
    """A schedule has dispatched a job for the due times from `due_at` to `until_at`, `count` in number;
    or somebody had it do so.
    """

    job: str
    due_at: int
    until_at: int
    count: int
    by_hand: bool


class ScheduleSkipped(ScheduleEvent, frozen=True, kw_only=True, gc=False, tag="schedule.skipped"):
    """Due times of a schedule have passed without a job."""

    due_at: int
    until_at: int
    count: int
    cause: str


class ScheduleNoted(ScheduleEvent, frozen=True, kw_only=True, gc=False, tag="schedule.noted"):
    """A schedule goes by another time from now on, as the clock was set."""

    cause: str


# The balancer, and the node.


class BalanceDecided(Event, frozen=True, kw_only=True, tag="balance.decided"):
    """The balancer has shared the workers out, as `jobsched balance log` has it."""

    budget: int
    backlog: dict[str, int]
    before: dict[str, int]
    after: dict[str, int]
    reasons: dict[str, str]


class NodeStarted(Event, frozen=True, kw_only=True, gc=False, tag="node.started"):
    """The node serves."""

    pid: int
    workers: int


class NodeDraining(Event, frozen=True, kw_only=True, gc=False, tag="node.draining"):
    """The node starts no more jobs; those that run have so long to end."""

    grace_s: float


class NodeStopped(Event, frozen=True, kw_only=True, gc=False, tag="node.stopped"):
    """The node is done. `put_back` jobs were cut off. It is the last event."""

    put_back: int


class NodeHeld(Event, frozen=True, kw_only=True, gc=False, tag="node.held"):
    """No jobs are started while the machine is this busy."""

    cause: str


class NodeReleased(Event, frozen=True, kw_only=True, gc=False, tag="node.released"):
    """Jobs are started again."""


class StoreFull(Event, frozen=True, kw_only=True, gc=False, tag="store.full"):
    """The store lives on the last of its room: it takes no new jobs."""


class StoreHasRoom(Event, frozen=True, kw_only=True, gc=False, tag="store.has_room"):
    """The store takes new jobs again."""


class Dropped(Event, frozen=True, kw_only=True, gc=False, tag="dropped"):
    """So many events were left out here: whoever listens did not keep up, or they were too many."""

    count: int


EVENTS = (
    JobDispatched | JobKept | JobQueued | JobStarted | JobCompleted | JobFailed | JobRetried | JobCancelled
    | JobExpired | JobParked | JobQuarantined | JobGivenBack | JobDeleted | JobsPruned
    | WorkerStarted | WorkerReady | WorkerEnded | WorkerMoved | WorkerLent
    | ScheduleAdded | ScheduleChanged | ScheduleRemoved | ScheduleActivated | ScheduleDeactivated
    | ScheduleFired | ScheduleSkipped | ScheduleNoted
    | BalanceDecided | NodeStarted | NodeDraining | NodeStopped | NodeHeld | NodeReleased
    | StoreFull | StoreHasRoom | Dropped
)  # fmt: skip
"""All types of events."""

KINDS = tuple(str(event.__struct_config__.tag) for event in EVENTS.__args__)
"""The names of all events."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[EVENTS]).decode


def to_frame(events: Sequence[Event]) -> msgspec.Raw:
    """Return events as they go between processes."""
    return msgspec.Raw(_encode(events))


def from_frame(data: msgspec.Raw) -> Sequence[Event]:
    """Return events that have come from another process. Raises msgspec.MsgspecError for anything else."""
    events: Sequence[Event] = _decode(data)
    return events


def plain(event: Event) -> dict[str, Any]:
    """Return an event as JSON has it: its `kind` first, times as ISO 8601 in UTC, null for none."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    return {name: _time(value) if _is_time(name) else value for name, value in fields.items()}


def _is_time(name: str) -> bool:
    return name == "at" or name.endswith("_at")


def _time(micros: int) -> str | None:
    return from_micros(micros).isoformat(timespec="microseconds") if micros else None
