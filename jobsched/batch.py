"""Dispatches and changes of schedules that are committed together."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jobsched.dispatcher import Dispatcher, Job, PreparedJob, TaskLike
from jobsched.schedule import ScheduleChange
from jobsched.trigger import Once, Trigger

if TYPE_CHECKING:
    from jobsched.schedule_view import ScheduleInfo
    from jobsched.schedules import Schedules

__all__ = ["Batch"]


class Batch:
    """Dispatches and changes of schedules that are committed together. Made by `Dispatcher.batch`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.jobs: list[PreparedJob] = []
        self.changes: list[ScheduleChange] = []

    @cached_property
    def schedules(self) -> Schedules:
        """What `Dispatcher.schedules` is; changes are made when the block ends."""
        from jobsched.schedules import Schedules  # noqa: PLC0415 (so that `import jobsched` is fast)

        return Schedules(self._dispatcher, self.changes.append)

    def dispatch(
        self, task: TaskLike, category: str | None = None, delay: float | timedelta = 0, **options: Any
    ) -> Job:
        """Add a job. It is dispatched when the block ends; takes what `Dispatcher.dispatch` does."""
        job = self._dispatcher.prepare(task, category, delay, **options)
        self.jobs.append(job)
        return Job(self._dispatcher, job.id)

    def schedule_once(
        self, name: str, task: TaskLike, at: datetime, category: str | None = None, **options: Any
    ) -> ScheduleInfo:
        """Add a schedule that fires once, at an aware time. See `Schedules.add`."""
        return self.schedules.add(name, task, Once(at), category, **options)

    def schedule_recurring(
        self, name: str, task: TaskLike, trigger: Trigger | str, category: str | None = None, **options: Any
    ) -> ScheduleInfo:
        """Add a schedule with a trigger, or a cron expression in UTC. See `Schedules.add`."""
        return self.schedules.add(name, task, trigger, category, **options)
