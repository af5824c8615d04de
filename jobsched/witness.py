"""What a turn has done, as events: nothing is said that is not on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jobsched.codec import BadRecord, decode_record
from jobsched.event import (
    BalanceDecided,
    Event,
    JobCancelled,
    JobCompleted,
    JobDeleted,
    JobDispatched,
    JobExpired,
    JobFailed,
    JobGivenBack,
    JobKept,
    JobParked,
    JobQuarantined,
    JobQueued,
    JobRetried,
    JobsPruned,
    JobStarted,
    ScheduleActivated,
    ScheduleAdded,
    ScheduleChanged,
    ScheduleDeactivated,
    ScheduleFired,
    ScheduleNoted,
    ScheduleRemoved,
    ScheduleSkipped,
    StoreFull,
    StoreHasRoom,
)
from jobsched.job import State
from jobsched.job_id import format_id
from jobsched.schedule import FiringKind, FiringRecord, ScheduleNews
from jobsched.store.base import Accepted, StoredJob, Turn, TurnResult
from jobsched.store.moves import Move, Watch
from jobsched.transitions import EXPIRED

__all__ = ["Witness"]

_WORKER = 0xFFFFFFFF  # the part of a worker's number that logs show
_MOST_CAUSE = 1000
_CHANGES = {
    "added": ScheduleAdded,
    "changed": ScheduleChanged,
    "removed": ScheduleRemoved,
    "activated": ScheduleActivated,
    "deactivated": ScheduleDeactivated,
}


class _Run(NamedTuple):
    """A job that was claimed: what its end does not say again."""

    task: str
    category: str
    attempt: int
    worker: int


class Witness:
    """Turns what was applied into events. Belongs to the node's loop.

    `job_of` reads a job that was claimed before anybody watched.
    """

    def __init__(self, job_of: Callable[[bytes], StoredJob | None]) -> None:
        self._job_of = job_of
        self._runs: dict[bytes, _Run] = {}  # as many as there are jobs in progress
        self._is_full = False

    def events(self, turn: Turn, result: TurnResult) -> Iterator[Event]:
        """Yield what a turn has done: to schedules, by the balancer, by retention, and to jobs, as far as
        the turn was watched.
        """
        at = turn.now
        if result.is_full is not self._is_full:
            self._is_full = result.is_full
            yield StoreFull(at=at) if result.is_full else StoreHasRoom(at=at)
        for news in result.changed:
            yield _changed(at, news)
        for decision in turn.decisions:
            yield BalanceDecided(
                at=decision.at,
                budget=decision.budget,
                backlog=decision.backlog,
                before=decision.before,
                after=decision.after,
                reasons=decision.reasons,
            )
        if turn.watch is Watch.ALL:
            yield from self._completed(turn, result)
            yield from _kept(turn, result)
        else:
            self._runs.clear()
        if result.moves:
            yield from self._moved(turn, result)
        for name, record in result.fired:
            yield _fired(at, name, record)
        if result.pruned:
            yield JobsPruned(at=at, count=result.pruned)
        if turn.watch is Watch.ALL:
            yield from self._started(turn, result)
        if result.untold:
            self._runs.clear()  # ends of some may be among what is not told

    def _completed(self, turn: Turn, result: TurnResult) -> Iterator[Event]:
        lost = frozenset(result.lost)
        for outcome in turn.outcomes:
            if outcome.state is State.COMPLETED and outcome.claim not in lost:
                run = self._runs.pop(outcome.job, None) or self._earlier(outcome.job)
                yield JobCompleted(
                    at=turn.now,
                    job=format_id(outcome.job),
                    task=run.task,
                    category=run.category,
                    attempt=run.attempt,
                    worker=run.worker,
                    started_at=outcome.started_at,
                    ended_at=outcome.ended_at,
                )

    def _earlier(self, job_id: bytes) -> _Run:
        """Return a run that began before anybody watched."""
        job = self._job_of(job_id)
        if job is None:
            return _Run("", "", 0, 0)
        status = job.status
        return _Run(_task(job.record), status.category, status.attempt, status.worker & _WORKER)

    def _started(self, turn: Turn, result: TurnResult) -> Iterator[Event]:
        categories = {slot.worker: slot.category for slot in turn.slots}
        for claim in result.claims:
            worker = claim.worker & _WORKER
            run = _Run(_task(claim.record), categories[claim.worker], claim.attempt, worker)
            self._runs[claim.job] = run
            yield JobStarted(
                at=turn.now,
                job=format_id(claim.job),
                task=run.task,
                category=run.category,
                attempt=run.attempt,
                worker=worker,
            )

    def _moved(self, turn: Turn, result: TurnResult) -> Iterator[Event]:
        crashed = {o.claim: _cause(o.error.cause) for o in turn.outcomes if o.error and o.terms is None}
        cut_off = {back.claim for back in turn.give_back if back.interrupted}
        for move in result.moves:
            if move.was is State.IN_PROGRESS:
                self._runs.pop(move.job, None)
            yield _event(turn.now, move, crashed, interrupted=move.status.claim in cut_off)


def _event(at: int, move: Move, crashed: Mapping[int, str], *, interrupted: bool) -> Event:
    """Return what has become of a job that was neither claimed nor completed."""
    status = move.status
    about: dict[str, Any] = {
        "at": at,
        "job": format_id(move.job),
        "task": _task(move.record),
        "category": status.category,
    }
    if move.is_deleted:
        return JobDeleted(**about, was=str(move.was))
    if move.was is None:
        due_at = status.due_at if status.state is State.SCHEDULED else 0
        return JobDispatched(**about, priority=status.priority, due_at=due_at)
    if status.state is not State.PENDING:
        return _SET_ASIDE[status.state](move, about)
    if move.was is not State.IN_PROGRESS:
        return JobQueued(**about, was=str(move.was))
    if status.claim in crashed:
        return JobRetried(**about, **_run(move), due_at=0, cause=crashed[status.claim])
    return JobGivenBack(**about, interrupted=interrupted)


def _failed(move: Move, about: dict[str, Any]) -> Event:
    return JobFailed(**about, **_run(move), cause=_cause(move.cause))


def _retried(move: Move, about: dict[str, Any]) -> Event:
    return JobRetried(**about, **_run(move), due_at=move.status.due_at, cause=_cause(move.cause))


def _cancelled(move: Move, about: dict[str, Any]) -> Event:
    if move.cause == EXPIRED.cause:
        return JobExpired(**about)
    return JobCancelled(**about, was=str(move.was), cause=_cause(move.cause))


def _parked(move: Move, about: dict[str, Any]) -> Event:
    return JobParked(**about, reason=move.status.parked_for.name.lower(), cause=_cause(move.cause))


def _quarantined(move: Move, about: dict[str, Any]) -> Event:
    return JobQuarantined(**about, crashes=move.status.crashes, cause=_cause(move.cause))


_SET_ASIDE = {
    State.SCHEDULED: _retried,
    State.FAILED: _failed,
    State.CANCELLED: _cancelled,
    State.PARKED: _parked,
    State.QUARANTINED: _quarantined,
}


def _run(move: Move) -> dict[str, Any]:
    return {"attempt": move.status.attempt, "worker": move.status.worker & _WORKER}


def _kept(turn: Turn, result: TurnResult) -> Iterator[Event]:
    for request, reply in zip(turn.requests, result.replies, strict=True):
        for place, holder in reply.kept.items() if isinstance(reply, Accepted) else ():
            new = request.jobs[place]
            yield JobKept(at=turn.now, job=format_id(holder), task=new.task, category=new.category)


def _changed(at: int, news: ScheduleNews) -> Event:
    if news.what == "run":
        return ScheduleFired(
            at=at,
            schedule=news.name,
            job=format_id(news.job),
            due_at=at,
            until_at=at,
            count=1,
            by_hand=True,
        )
    return _CHANGES[news.what](at=at, schedule=news.name)


def _fired(at: int, name: str, record: FiringRecord) -> Event:
    span: dict[str, Any] = {"due_at": record.due_at, "until_at": record.until_at, "count": record.count}
    if record.kind is FiringKind.NOTED:
        return ScheduleNoted(at=at, schedule=name, cause=_cause(record.why))
    if record.kind is FiringKind.SKIPPED:
        return ScheduleSkipped(at=at, schedule=name, **span, cause=_cause(record.why))
    return ScheduleFired(at=at, schedule=name, job=format_id(record.job), **span, by_hand=False)


def _task(record: bytes | None) -> str:
    """Return the task of a job, empty where its record is damaged."""
    try:
        return decode_record(record).task if record else ""
    except BadRecord:
        return ""


def _cause(text: str) -> str:
    return text if len(text) <= _MOST_CAUSE else f"{text[: _MOST_CAUSE - 1]}…"
