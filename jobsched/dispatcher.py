"""The client side: jobs in, handles out."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobsched import definition as tasks
from jobsched.built_in import off
from jobsched.bulk import Arguments, new_jobs
from jobsched.clock import MICROSECONDS, Clock, SystemClock
from jobsched.context import current
from jobsched.courier import Courier
from jobsched.draft import draft
from jobsched.errors import InvalidOption, UnknownTask, rebuilt
from jobsched.handle import Job
from jobsched.job import State
from jobsched.job_id import new_id
from jobsched.named import TaskLike
from jobsched.options import checked_args, checked_id, checked_kwargs
from jobsched.prepared import PreparedJob, new_job
from jobsched.request_size import check_size
from jobsched.schedule import ScheduleChange
from jobsched.store.alike import ids_of, kinds
from jobsched.store.base import Accepted, NewJob, Refused, Request, StoredJob
from jobsched.store.schedule_query import Findings, FiringQuery, ScheduleQuery
from jobsched.terms import ConcurrencyLimit, Unique
from jobsched.trigger import Once, Trigger

if TYPE_CHECKING:
    from jobsched.batch import Batch
    from jobsched.config import Config
    from jobsched.schedule_view import ScheduleInfo
    from jobsched.schedules import Schedules
    from jobsched.transport import Transport

__all__ = ["Dispatcher", "Job", "PreparedJob", "TaskLike"]


class Dispatcher:
    """Puts jobs on the queues of one store. Threads may share it, forked children too.

    A call returns when the job is on disk. The node writes it where one runs; where none does, the
    calling process does so itself, and a node started later runs it.
    """

    def __init__(
        self, config: Config, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> None:
        self.config = config
        self._off = off(config.tasks)
        self._clock = clock or SystemClock()
        self._given = transport
        self._connect()

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Dispatcher:
        """Return the dispatcher of a categories.toml: the one named, else JOBSCHED_CONFIG, else
        ``./categories.toml``. Raises ConfigError with every problem of the file.
        """
        from jobsched.config import find_config, load_config  # noqa: PLC0415 (so that `import jobsched` is fast)

        return cls(load_config(find_config(path)))

    def _connect(self) -> None:
        from jobsched.transport import transport_for  # noqa: PLC0415 (so that `import jobsched` is fast)

        self._pid = os.getpid()
        store = self.config.store
        self._transport = self._given or transport_for(
            store.path, durable=store.kind == "lmdb", quota_bytes=self.config.quota_bytes
        )
        self._courier = Courier(self._transport.exchange)

    # Dispatching.

    def dispatch(
        self,
        task: TaskLike,
        category: str | None = None,
        delay: float | timedelta = 0,
        *,
        at: datetime | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        priority: int | None = None,
        max_retries: int | None = None,
        timeout: float | timedelta | None = None,
        expires_in: float | timedelta | None = None,
        unique: str | Unique | None = None,
        limit: ConcurrencyLimit | None = None,
        at_most_once: bool | None = None,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 (the glossary's word)
        atomic: bool = False,
    ) -> Job:
        """Put a job on its category's queue; return when it is on disk.

        `task` is a task, a `functools.partial` of one, or its name ``module:function``. `delay` is
        in seconds or a timedelta, `at` an aware datetime: the job waits until then. `priority`
        orders jobs within a category, higher first. `timeout` limits a run, `expires_in` the time
        until it starts. `unique` is a key, or more of it, `limit` a key of which only so many jobs
        run at once. Dispatching the same `id` again is no second job. With `atomic` the job that runs
        here dispatches it together with its own completion, in one commit; if it does not complete it
        has dispatched nothing. Raises UnknownTask, UnknownCategory, ArgumentError, InvalidOption,
        PayloadTooLarge, DuplicateJob, QueueFull, StoreFull, and Unavailable when the outcome is
        unknown: repeat with the same `id` then.
        """
        job = self.prepare(
            task, category, delay, at=at, args=args, kwargs=kwargs, priority=priority,
            max_retries=max_retries, timeout=timeout, expires_in=expires_in, unique=unique, limit=limit,
            at_most_once=at_most_once, name=name, id=id,
        )  # fmt: skip
        return self.commit([job], (), atomic=atomic)[0]

    async def adispatch(
        self, task: TaskLike, category: str | None = None, delay: float | timedelta = 0, **options: Any
    ) -> Job:
        """`dispatch` from a coroutine: the event loop goes on meanwhile."""
        import asyncio  # noqa: PLC0415 (half of the time that `import jobsched` would take)

        atomic = options.pop("atomic", False)
        job = self.prepare(task, category, delay, **options)
        return (await asyncio.to_thread(self.dispatch_many, [job], atomic=atomic))[0]

    def prepare(
        self,
        task: TaskLike,
        category: str | None = None,
        delay: float | timedelta = 0,
        *,
        at: datetime | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        priority: int | None = None,
        max_retries: int | None = None,
        timeout: float | timedelta | None = None,
        expires_in: float | timedelta | None = None,
        unique: str | Unique | None = None,
        limit: ConcurrencyLimit | None = None,
        at_most_once: bool | None = None,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 (the glossary's word)
    ) -> PreparedJob:
        """Check and encode a job without dispatching it. Takes and raises what `dispatch` does."""
        args, kwargs = checked_args(args), checked_kwargs(kwargs)
        if isinstance(task, functools.partial):
            args, kwargs = (*task.args, *args), {**task.keywords, **kwargs}
            task = task.func
        made = draft(
            self.config, task, category, delay, at, priority, max_retries, timeout, expires_in, unique, limit,
            at_most_once, name,
        )  # fmt: skip
        packed = made.packed(args, kwargs)
        job_id = new_id() if id is None else checked_id(id)
        return PreparedJob(job_id, made, *packed, made.terms(*packed))

    def dispatch_many(
        self, jobs: Iterable[PreparedJob], *, allow_unknown: bool = False, atomic: bool = False
    ) -> list[Job]:
        """Dispatch prepared jobs in one commit: all of them or, with an error, none.

        Up to 100,000 jobs or 64 MiB. `allow_unknown` takes jobs of tasks that the node does not
        know: they are parked until one does. Raises what `dispatch` does.
        """
        return self.commit(list(jobs), (), allow_unknown=allow_unknown, atomic=atomic)

    def dispatch_each(
        self,
        task: TaskLike,
        arguments: Iterable[Arguments],
        category: str | None = None,
        delay: float | timedelta = 0,
        *,
        at: datetime | None = None,
        priority: int | None = None,
        max_retries: int | None = None,
        timeout: float | timedelta | None = None,
        expires_in: float | timedelta | None = None,
        unique: str | Unique | None = None,
        limit: ConcurrencyLimit | None = None,
        at_most_once: bool | None = None,
        name: str | None = None,
        allow_unknown: bool = False,
        atomic: bool = False,
    ) -> list[Job]:
        """Dispatch a job of one task for each set of arguments: a tuple or list of those by position, or a
        dict of those by name. The fastest way to dispatch many.

        The options are those of `dispatch`, for all of the jobs. Up to 100,000 jobs and 64 MiB are one
        commit: all of them or, with an error, none. More take several, one after the other; an error then
        says how many jobs had been dispatched before. Raises what `dispatch_many` does.
        """
        args: Sequence[Any] = ()
        kwargs: Mapping[str, Any] = {}
        if isinstance(task, functools.partial):
            args, kwargs = task.args, task.keywords
            task = task.func
        made = draft(
            self.config, task, category, delay, at, priority, max_retries, timeout, expires_in, unique, limit,
            at_most_once, name,
        )  # fmt: skip
        handles: list[Job] = []
        try:
            for jobs in new_jobs(made, arguments, self._clock.now(), args, kwargs):
                handles += self._commit(jobs, (), allow_unknown=allow_unknown, atomic=atomic)
        except Exception as error:
            if handles:
                error.add_note(f"{len(handles):,} jobs had been dispatched before")
            raise
        return handles

    def commit(
        self,
        jobs: Sequence[PreparedJob],
        schedules: Sequence[ScheduleChange],
        *,
        allow_unknown: bool = False,
        atomic: bool = False,
    ) -> list[Job]:
        """Dispatch prepared jobs and change schedules in one commit: all or nothing; with `atomic` in that
        which completes the job that runs here.
        """
        now = self._clock.now()
        new = [new_job(job, now) for job in jobs]
        return self._commit(new, schedules, allow_unknown=allow_unknown, atomic=atomic)

    def _commit(
        self,
        jobs: Sequence[NewJob],
        schedules: Sequence[ScheduleChange],
        *,
        allow_unknown: bool,
        atomic: bool,
    ) -> list[Job]:
        if not jobs and not schedules:
            return []
        if not allow_unknown:
            self._refuse_off({job.task for job in kinds(jobs)})
        categories = {job.category for job in kinds(jobs)}
        limits = {name: self.config.categories[name].max_pending for name in categories}
        request = Request(
            jobs=jobs,
            max_pending={name: limit for name, limit in limits.items() if limit is not None},
            takes_unknown=allow_unknown,
            schedules=schedules,
        )
        kept = (self._carried(request) if atomic else self.send(request)).kept
        if not kept:
            return [Job(self, job_id) for job_id in ids_of(jobs)]
        return [Job(self, kept.get(place, job_id)) for place, job_id in enumerate(ids_of(jobs))]

    def _carried(self, request: Request) -> Accepted:
        """Leave a request to the completion of the job that runs here. Raises InvalidOption where none
        does.
        """
        job = current.get(None)
        if job is None:
            raise InvalidOption("atomic is for a job that runs: here is none to complete")
        for task in {new.task for new in kinds(request.jobs)}:
            tasks.find(task)
        job.carry(request)
        return Accepted()

    @contextmanager
    def batch(self, *, atomic: bool = False) -> Iterator[Batch]:
        """Collect dispatches and changes of schedules, and commit them together at the end of the
        block: all or none. With `atomic` they are committed with the completion of the job that runs
        here.

        An exception in the block does nothing of it.
        """
        from jobsched.batch import Batch  # noqa: PLC0415 (it knows this module)

        batch = Batch(self)
        yield batch
        self.commit(batch.jobs, batch.changes, atomic=atomic)

    # Schedules.

    @functools.cached_property
    def schedules(self) -> Schedules:
        """The schedules: `add`, `update`, `remove`, `activate`, `deactivate`, `list`, `get`, `clear`,
        `run_now`, `history`.
        """
        from jobsched.schedules import Schedules  # noqa: PLC0415 (so that `import jobsched` is fast)

        return Schedules(self, lambda change: self.commit((), [change]))

    def schedule_once(
        self, name: str, task: TaskLike, at: datetime, category: str | None = None, **options: Any
    ) -> ScheduleInfo:
        """Fire a task once, at an aware time, by the name of a schedule. See `Schedules.add`."""
        return self.schedules.add(name, task, Once(at), category, **options)

    def schedule_recurring(
        self, name: str, task: TaskLike, trigger: Trigger | str, category: str | None = None, **options: Any
    ) -> ScheduleInfo:
        """Fire a task by a trigger, or a cron expression in UTC. See `Schedules.add`."""
        return self.schedules.add(name, task, trigger, category, **options)

    def find(self, query: ScheduleQuery | FiringQuery) -> Findings:
        """Return what the store has of schedules."""
        self._reconnect_after_fork()
        return self._transport.find(query)

    # What has been dispatched.

    def job(self, job_id: str) -> Job:
        """Return the handle of a job by its id. Raises InvalidOption if it is none."""
        return Job(self, checked_id(job_id))

    def look(self, job_id: bytes, timeout: float | None = 0) -> StoredJob | None:
        """Return a job as stored: at once, or when it has ended or the timeout (seconds) is over."""
        self._reconnect_after_fork()
        return self._transport.look(job_id, timeout)

    def cancel(self, job_ids: Sequence[str]) -> list[State | None]:
        """Cancel jobs, in one commit; return the state that each has now, None where there is none.

        Running ones are still in progress then, and on their way to an end.
        """
        return self.send(Request(cancel=[checked_id(job_id) for job_id in job_ids])).states

    def retry(self, job_ids: Sequence[str]) -> list[State | None]:
        """Send jobs to the end of their queues that failed, were cancelled, parked or quarantined,
        or wait for their time: with all their retries. Returns the state that each has now.
        """
        return self.send(Request(retry=[checked_id(job_id) for job_id in job_ids])).states

    def delete(self, job_ids: Sequence[str]) -> list[State | None]:
        """Forget jobs that do not run. Returns None for each that is gone, else its state."""
        return self.send(Request(delete=[checked_id(job_id) for job_id in job_ids])).states

    def pause(self, category: str, seconds: float | None = None) -> None:
        """Let no more jobs of a category start, for so many seconds or until it is resumed; running
        ones go on. It outlasts restarts.
        """
        self.config.category(category)
        until = 0 if seconds is None else self._clock.now() + int(seconds * MICROSECONDS)
        self.send(Request(pause={category: until}))

    def resume(self, category: str) -> None:
        """Let jobs of a category start again."""
        self.config.category(category)
        self.send(Request(resume=[category]))

    def now(self) -> int:
        """Return the time, in UTC microseconds."""
        return self._clock.now()

    def close(self) -> None:
        """Hang up and let go of the store. Handles made here cannot be used any more."""
        close = getattr(self._transport, "close", None)
        if close is not None:
            close()

    def send(self, request: Request) -> Accepted:
        """Have a request applied whole. Raises what its refusal says."""
        check_size(request)
        self._reconnect_after_fork()
        reply = self._courier.call(request)
        if isinstance(reply, Refused):
            raise rebuilt(reply.kind, reply.reason)
        return reply

    def _refuse_off(self, names: set[str]) -> None:
        """Raise UnknownTask for a built-in task that the configuration does not list: where no node runs
        nobody else would.
        """
        for name in names & self._off:
            raise UnknownTask(name)

    def _reconnect_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._connect()
