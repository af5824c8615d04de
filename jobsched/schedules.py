"""Schedules by name: added, changed and looked at from any process, whether a node runs or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from jobsched.clock import from_micros
from jobsched.dispatcher import Dispatcher, Job, TaskLike
from jobsched.due_times import first_due
from jobsched.errors import InvalidOption, ScheduleChanged, ScheduleNotFound
from jobsched.firing import job_of
from jobsched.job_id import new_id
from jobsched.options import checked_at
from jobsched.own_trigger import KnownTimes, known_times
from jobsched.prepared import PreparedJob
from jobsched.schedule import (
    PutSchedule,
    RemoveSchedule,
    RunSchedule,
    Schedule,
    ScheduleChange,
    ScheduleState,
    StoredSchedule,
    SwitchSchedule,
    name_problem,
    put,
)
from jobsched.schedule_options import JOB_OPTIONS, SCHEDULE_OPTIONS, check_options, job_options, with_options
from jobsched.schedule_view import FiringInfo, ScheduleInfo, firing_info, schedule_info
from jobsched.store.base import Request
from jobsched.store.schedule_query import FiringQuery, ScheduleQuery
from jobsched.trigger import Cron, Every, Once, Trigger, anchored
from jobsched.trigger_data import from_data, to_data

__all__ = ["Schedules"]

Infos = list[ScheduleInfo]
Firings = list[FiringInfo]

_TRIES = 10  # at a change that others keep overtaking
_PAGE = 200


class Schedules:
    """The schedules of one store. Made by `Dispatcher.schedules`, and by a batch of its own.

    A change is on disk on return, and takes effect within a second. Raises Unavailable when its outcome
    is unknown.
    """

    def __init__(self, dispatcher: Dispatcher, commit: Callable[[ScheduleChange], object]) -> None:
        self._dispatcher = dispatcher
        self._commit = commit

    # Changes.

    def add(
        self,
        name: str,
        task: TaskLike,
        trigger: Trigger | str,
        category: str | None = None,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        is_active: bool = True,
        replace: bool = False,
        **options: Any,
    ) -> ScheduleInfo:
        """Add a schedule: from now on the task is dispatched at each time of the trigger.

        `trigger` may be a cron expression, in UTC. Options of the jobs are `priority`, `max_retries`,
        `timeout`, `expires_in`, `unique`, `limit`, `at_most_once` and `label`, as `dispatch` takes them.
        Options of the schedule: it fires from `start` to `end` (aware datetimes) at most `max_runs`
        times, each up to `jitter` seconds later. `misfire` says what becomes of due times that could not
        be kept: "run_once", one job for all of them; "run_all", one each, the last `most` of them;
        "skip", none for those more than `grace` seconds late, a minute if it is not said. With the others
        too, a `grace` limits how late a job may come. `overlap` says what happens while the job before
        has not ended: "allow", "skip" the firing, or "queue" the job until then.
        Raises ScheduleExists unless `replace` says to replace one of that name, InvalidOption for
        a trigger that never fires and other wrong values, and what `dispatch` does.
        """
        now = self._now()
        schedule = self._schedule(_checked_name(name), task, trigger, category, args, kwargs, options, now)
        next_at, fire_at = _due(schedule, now)
        change = PutSchedule(schedule, next_at, fire_at, None if replace else 0, is_active)
        if not is_active:
            change = msgspec.structs.replace(change, next_at=0, fire_at=0)
        self._commit(change)
        return schedule_info(StoredSchedule(schedule, put(change, None, now)))

    def update(self, name: str, **changes: Any) -> ScheduleInfo:
        """Change a schedule: what is not named stays as it is.

        Takes what `add` does, with `task`, `trigger`, `category`, `args` and `kwargs` by name. A new
        trigger, start or end counts from now on. Raises ScheduleNotFound, InvalidOption.
        """
        known = {"task", "trigger", "category", "args", "kwargs"} | JOB_OPTIONS | SCHEDULE_OPTIONS
        check_options(changes, known)
        return self._changed(name, lambda stored, now: self._updated(stored, changes, now))

    def activate(self, name: str) -> ScheduleInfo:
        """Let a schedule fire again; what was due meanwhile is not made up for. Raises ScheduleNotFound."""

        def change(stored: StoredSchedule, now: int) -> ScheduleChange | None:
            if stored.state.is_active:
                return None
            next_at, fire_at = first_due(stored.schedule, now)
            return SwitchSchedule(name, True, next_at, fire_at, stored.state.revision)

        return self._changed(name, change)

    def deactivate(self, name: str) -> ScheduleInfo:
        """Let a schedule fire no more until it is activated. Raises ScheduleNotFound."""

        def change(stored: StoredSchedule, now: int) -> ScheduleChange | None:  # noqa: ARG001
            if not stored.state.is_active:
                return None
            return SwitchSchedule(name, False, 0, 0, stored.state.revision)

        return self._changed(name, change)

    def remove(self, name: str) -> None:
        """Forget a schedule and its history; jobs that it has fired stay. Raises ScheduleNotFound."""
        self._stored(name)
        self._commit(RemoveSchedule(name))

    def clear(self) -> int:
        """Forget all schedules, in one commit; return how many."""
        names = [stored.schedule.name for stored in self.stored()]
        self._dispatcher.commit((), [RemoveSchedule(name) for name in names])
        return len(names)

    def run_now(self, name: str) -> Job:
        """Dispatch the job of a schedule at once; its due times stay. Raises ScheduleNotFound."""
        stored = self._stored(name)
        now = self._now()
        job = job_of(stored.schedule, new_id(), now, now)
        request = Request(jobs=[job], schedules=[RunSchedule(name, job.id)], takes_unknown=True)
        return Job(self._dispatcher, self._dispatcher.send(request).kept.get(0, job.id))

    def extend(self, name: str, with_more: Callable[[KnownTimes, int], KnownTimes]) -> ScheduleInfo:
        """Have a schedule know more times of a trigger of the user's own. Raises ScheduleNotFound."""

        def change(stored: StoredSchedule, _now: int) -> ScheduleChange | None:
            known, state = from_data(stored.schedule.trigger), stored.state
            if not isinstance(known, KnownTimes):
                return None
            waits = state.next_at <= state.last_at  # for this
            longer = to_data(with_more(known, state.last_at if waits else state.next_at - 1))
            schedule = msgspec.structs.replace(stored.schedule, trigger=longer)
            if not waits or not state.is_active:
                return PutSchedule(schedule, None, 0, state.revision)
            return PutSchedule(schedule, *first_due(schedule, state.last_at), state.revision)

        return self._changed(name, change)

    # Reading.

    def get(self, name: str) -> ScheduleInfo:
        """Return a schedule. Raises ScheduleNotFound."""
        return schedule_info(self._stored(name))

    def list(self) -> Infos:
        """Return all schedules, in the order of their names."""
        return [schedule_info(stored) for stored in self.stored()]

    def stored(self) -> Iterator[StoredSchedule]:
        """Yield all schedules as they are stored, in the order of their names."""
        after = ""
        while True:
            page = self._dispatcher.find(ScheduleQuery(after=after)).schedules
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].schedule.name

    def history(self, name: str, limit: int = 50) -> Firings:
        """Return the last firings of a schedule, the latest due time first; 1,000 are kept of each.

        Raises ScheduleNotFound.
        """
        self._stored(name)
        found: Firings = []
        before = 0
        while len(found) < limit:
            query = FiringQuery(name, min(_PAGE, limit - len(found)), before)
            page = self._dispatcher.find(query).firings
            found += map(firing_info, page)
            if len(page) < query.limit:
                break
            before = page[-1].due_at
        return found

    # Steps.

    def _now(self) -> int:
        return self._dispatcher.now()

    def _stored(self, name: str) -> StoredSchedule:
        found = self._dispatcher.find(ScheduleQuery(_checked_name(name))).schedules
        if not found:
            page = self._dispatcher.find(ScheduleQuery()).schedules
            raise ScheduleNotFound(name, [stored.schedule.name for stored in page])
        return found[0]

    def _changed(
        self, name: str, change_of: Callable[[StoredSchedule, int], ScheduleChange | None]
    ) -> ScheduleInfo:
        """Change a schedule as it is now; again, if somebody was faster."""
        for attempt in range(_TRIES):
            stored = self._stored(name)
            change = change_of(stored, self._now())
            if change is None:
                return schedule_info(stored)
            try:
                self._commit(change)
            except ScheduleChanged:
                if attempt + 1 == _TRIES:
                    raise
                time.sleep(0.001 * attempt)
                continue
            return schedule_info(_expected(stored, change, self._now()))
        raise ScheduleChanged(name)

    def _schedule(  # noqa: PLR0917 (the whole of `add`)
        self,
        name: str,
        task: TaskLike,
        trigger: Trigger | str,
        category: str | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        now: int,
    ) -> Schedule:
        check_options(options, JOB_OPTIONS | SCHEDULE_OPTIONS)
        prepared = self._dispatcher.prepare(task, category, args=args, kwargs=kwargs, **job_options(options))
        made = Schedule(
            name=name,
            task=prepared.task,
            category=prepared.category,
            trigger=to_data(_checked_trigger(trigger, now, options)),
            **_of_job(prepared),
        )
        return with_options(made, options)

    def _updated(self, stored: StoredSchedule, changes: Mapping[str, Any], now: int) -> ScheduleChange:
        schedule = stored.schedule
        if changes.keys() - SCHEDULE_OPTIONS - {"trigger"}:
            schedule = self._with_job(schedule, changes)
        if "trigger" in changes:
            schedule = msgspec.structs.replace(
                schedule, trigger=to_data(_checked_trigger(changes["trigger"], now, changes))
            )
        schedule = with_options(schedule, changes)
        revision = stored.state.revision
        if not changes.keys() & {"trigger", "start", "end", "jitter", "max_runs"}:
            return PutSchedule(schedule, None, 0, revision)
        if not stored.state.is_active:
            return PutSchedule(schedule, 0, 0, revision)
        return PutSchedule(schedule, *_due(schedule, now), revision)

    def _with_job(self, schedule: Schedule, changes: Mapping[str, Any]) -> Schedule:
        """Return a schedule whose jobs are others. Terms are those that the task has, and those given."""
        own = {
            "priority": schedule.priority,
            "max_retries": schedule.max_retries,
            "timeout": schedule.timeout_s,
            "expires_in": schedule.expires_in_s,
            "label": schedule.label,
        }
        prepared = self._dispatcher.prepare(
            changes.get("task", schedule.task),
            changes.get("category", schedule.category),
            args=changes.get("args", msgspec.msgpack.decode(schedule.args)),
            kwargs=changes.get("kwargs", msgspec.msgpack.decode(schedule.kwargs)),
            **job_options({**own, **changes}),
        )
        return msgspec.structs.replace(
            schedule, task=prepared.task, category=prepared.category, **_of_job(prepared)
        )


def _expected(stored: StoredSchedule, change: ScheduleChange, now: int) -> StoredSchedule:
    """Return what a change makes of a schedule."""
    if isinstance(change, PutSchedule):
        return StoredSchedule(change.schedule, put(change, stored.state, now))
    assert isinstance(change, SwitchSchedule)
    state: ScheduleState = msgspec.structs.replace(
        stored.state, is_active=change.is_active, next_at=change.next_at, revision=stored.state.revision + 1
    )
    return StoredSchedule(stored.schedule, state)


def _due(schedule: Schedule, now: int) -> tuple[int, int]:
    """Return the first due time. Raises InvalidOption where there is none."""
    next_at, fire_at = first_due(schedule, now)
    if not next_at:
        bounds = f" up to {from_micros(schedule.end_at).isoformat()}" if schedule.end_at else ""
        raise InvalidOption(
            f"schedule {schedule.name!r} never fires: {schedule.trigger!r} has no time"
            f" after {from_micros(max(now, schedule.start_at)).isoformat()}{bounds}"
        )
    return next_at, fire_at


def _checked_name(name: Any) -> str:
    if problem := name_problem(name):
        raise InvalidOption(problem)
    assert isinstance(name, str)
    return name


def _checked_trigger(trigger: Trigger | str, now: int, options: Mapping[str, Any]) -> Trigger:
    if isinstance(trigger, str):
        return Cron(trigger)
    if not isinstance(trigger, Trigger):
        raise InvalidOption(f"trigger must be a Cron, an Every, a Once or a cron text, got {trigger!r}")
    if not isinstance(trigger, Cron | Every | Once | KnownTimes):
        return known_times(trigger, max(now, checked_at(options.get("start")) - 1))
    return anchored(trigger, from_micros(now))


def _of_job(job: PreparedJob) -> dict[str, Any]:
    """Return the fields of a schedule that are those of its jobs."""
    draft = job.draft
    return {
        "args": job.args,
        "kwargs": job.kwargs,
        "priority": draft.priority,
        "label": draft.name,
        "max_retries": draft.max_retries,
        "timeout_s": draft.timeout_s,
        "expires_in_s": draft.expires_in_s,
        "by_name": draft.by_name,
        "terms": job.terms,
        "on_conflict": draft.on_conflict,
    }
