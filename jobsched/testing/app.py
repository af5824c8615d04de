"""An app for tests: dispatcher, store, node and clock in the process of the test."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from jobsched import api
from jobsched.clock import MICROSECONDS, SystemClock
from jobsched.definition import TaskDefinition, definition_of
from jobsched.dispatcher import Dispatcher, Job, TaskLike
from jobsched.errors import InvalidOption

if TYPE_CHECKING:
    from jobsched.config import Config
    from jobsched.event import Event
    from jobsched.store.base import JobStore
    from jobsched.testing.clock import JumpingClock
    from jobsched.testing.faults import FaultKind, Faults
    from jobsched.testing.record import Dispatched, Run
    from jobsched.testing.settings import Categories

__all__ = ["LocalApp"]

T = TypeVar("T")
E = TypeVar("E", bound="Event")

_DRAIN_LIMIT = 1000
_LIMIT = 10_000


class LocalApp:
    """Everything of jobsched but processes: jobs run one at a time, where the test runs, when it says so.

    `config` is a categories.toml, found as usual without; or `categories` are named, with their settings
    if they have any, and `workers` and modules of `tasks` if need be. `store` is "memory", or "lmdb" in a
    temporary folder. The clock stands at `start`, the present second without. `seed` is that of the
    retries' jitter. Close it, or use it as a context manager. Belongs to the thread that made it, but
    for dispatches.

    `dispatcher` dispatches to it, `clock` is its clock.
    """

    dispatcher: Dispatcher
    clock: JumpingClock

    def __init__(
        self,
        config: Config | str | os.PathLike[str] | None = None,
        *,
        categories: Categories | None = None,
        tasks: Sequence[str] = (),
        workers: int | None = None,
        store: Literal["memory", "lmdb"] = "memory",
        start: datetime | None = None,
        seed: int = 0,
    ) -> None:
        from jobsched.testing.clock import JumpingClock, StandingClock  # noqa: PLC0415 (the plugin loads fast)
        from jobsched.testing.local_transport import LocalTransport  # noqa: PLC0415
        from jobsched.testing.settings import config_of, load_tasks  # noqa: PLC0415

        self.config = config_of(config, categories, tasks, workers)
        self._kind = _checked_store(store)
        self._start = start
        self._seed = seed
        self._stack = contextlib.ExitStack()
        folder = load_tasks(self.config)
        if folder is not None:
            self._stack.callback(_leave_path, folder)
        self._standing = StandingClock(self._begin())
        self._transport = LocalTransport()
        self.dispatcher = Dispatcher(self.config, transport=self._transport, clock=self._standing)
        self.clock = JumpingClock(self._standing, self._pass_us)
        self._open()

    def _pass_us(self, micros: int) -> None:
        self._node.pass_us(micros)

    def _begin(self) -> int:
        """Return when the clock begins, in UTC microseconds."""
        from jobsched.testing.clock import micros_of  # noqa: PLC0415 (the plugin loads fast)

        if self._start is not None:
            return micros_of(self._start)
        return SystemClock().now() // MICROSECONDS * MICROSECONDS

    def _open(self) -> None:
        """Begin with nothing."""
        import random  # noqa: PLC0415 (the plugin loads fast)

        from jobsched.testing.local_node import LocalNode  # noqa: PLC0415

        self._opened = contextlib.ExitStack()
        store = self._new_store()
        rng = random.Random(self._seed)  # noqa: S311 (spreads retries, repeatably)
        self._node = LocalNode(self.config, store, self._standing, rng, self.dispatcher)
        self._transport.node = self._node
        self._opened.callback(self._node.close)

    def _new_store(self) -> JobStore:
        if self._kind == "memory":
            from jobsched.store.memory import MemoryStore  # noqa: PLC0415 (the plugin loads fast)

            return MemoryStore()
        import tempfile  # noqa: PLC0415 (as above)

        from jobsched.store.lmdb import open_store  # noqa: PLC0415

        folder = self._opened.enter_context(tempfile.TemporaryDirectory(prefix="jobsched-"))
        return open_store(Path(folder) / "store", self.config.quota_bytes)

    # Life.

    @contextlib.contextmanager
    def installed(self) -> Iterator[LocalApp]:
        """Have `dispatch`, `task.dispatch` and the other module-level functions use this app meanwhile, as
        they do in its jobs in any case.
        """
        before = api.use_dispatcher(self.dispatcher)
        try:
            yield self
        finally:
            api.use_dispatcher(before)

    def reset(self) -> None:
        """Forget everything: jobs, schedules, runs, faults; the clock is back at its start."""
        self._opened.close()
        self._standing.reset(self._begin())
        self._open()

    def restart(self) -> None:
        """Kill the node and start another one, as `kill -9` and a new `jobsched run` do."""
        self._node.start()

    def close(self) -> None:
        """Let go of everything. May come twice."""
        self._opened.close()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Running.

    def drain(self, *, limit: int = _DRAIN_LIMIT) -> list[Run]:
        """Run all that is due now, until nothing is left; return the runs. No time passes.

        Raises DispatchesForever after so many runs; it names the task that keeps dispatching.
        """
        from jobsched.testing.waiting import run_until  # noqa: PLC0415 (the plugin loads fast)

        return run_until(self._node, self._node.now, limit)

    def run_due(
        self, until: datetime | str | float | timedelta | None = None, *, limit: int = _LIMIT
    ) -> list[Run]:
        """Run everything that falls due up to a time, at once, in the order of due times; return the runs.

        `until` is an aware datetime, or how long from now; now without. The clock goes along, so that each
        due time of a schedule fires on its own, and stands at `until` then. To see what becomes of due
        times that were missed, `advance` the clock and `drain`. Raises DispatchesForever after so many
        runs.
        """
        from jobsched.testing.clock import micros_of, seconds_of  # noqa: PLC0415 (the plugin loads fast)
        from jobsched.testing.waiting import run_until  # noqa: PLC0415

        if isinstance(until, datetime):
            until_at = micros_of(until)
        else:
            until_at = self._node.now + round(seconds_of(0 if until is None else until) * MICROSECONDS)
        return run_until(self._node, until_at, limit)

    @overload
    def wait_for(
        self, what: type[E], timeout: str | float | timedelta = 60, *, limit: int = _LIMIT, **fields: Any
    ) -> E: ...
    @overload
    def wait_for(
        self, what: Callable[[], T], timeout: str | float | timedelta = 60, *, limit: int = _LIMIT
    ) -> T: ...
    def wait_for(
        self,
        what: Callable[[], Any] | type[Event],
        timeout: str | float | timedelta = 60,
        *,
        limit: int = _LIMIT,
        **fields: Any,
    ) -> Any:
        """Run what falls due until something happens: an event of a type from `jobsched.event`, with
        these fields if any are named (`job` and `task` may be those themselves), or what makes a predicate
        hold. Return the event, or what the predicate gave. Time passes as in `run_due`, up to the timeout.

        Raises NotHappened, which says what ran and what still waits.
        """
        from jobsched.testing.clock import seconds_of  # noqa: PLC0415 (the plugin loads fast)
        from jobsched.testing.waiting import happens, next_event  # noqa: PLC0415

        if isinstance(what, type):
            what = next_event(self._node, what, {name: _plain(value) for name, value in fields.items()})
        elif fields:
            raise InvalidOption(f"{', '.join(fields)}: fields go with a type of event, not with a predicate")
        return happens(self._node, what, round(seconds_of(timeout) * MICROSECONDS), limit)

    def faults(
        self,
        seed: int | None = None,
        *,
        plan: Mapping[FaultKind, Collection[int]] | None = None,
        **rates: float,
    ) -> Faults:
        """Have faults strike from now on; a seed of its own without. Later ones replace these.

        `rates` are probabilities by kind, `plan` says at which of its points (from 1) a kind strikes. The
        kinds: worker_before_run, worker_after_run, node_before_commit, node_after_commit, store_full,
        answer_lost, clock_step.
        """
        from jobsched.testing.faults import Faults  # noqa: PLC0415 (the plugin loads fast)

        self._node.faults = Faults(seed, plan=plan, **rates)
        return self._node.faults

    # What has happened.

    @property
    def runs(self) -> list[Run]:
        """All runs so far, in their order."""
        return list(self._node.journal.runs)

    @property
    def events(self) -> list[Event]:
        """All events so far, in their order: what a hook of a node would have been told."""
        return list(self._node.journal.events)

    def dispatched(self, task: TaskLike | None = None, category: str | None = None) -> list[Dispatched]:
        """Return the jobs that were dispatched, also by schedules and in jobs: all, or those of a task
        or category, in their order.
        """
        from jobsched.testing.expect import is_like  # noqa: PLC0415 (the plugin loads fast)

        name = None if task is None else _name_of(task)
        return [one for one in self._node.journal.dispatched.values() if is_like(one, name, category)]

    def assert_dispatched(
        self,
        task: TaskLike,
        *,
        times: int | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        category: str | None = None,
    ) -> list[Dispatched]:
        """Check that a task was dispatched: so many times, or at least once; with these positional and
        keyword arguments, in that category, where they are said. Return those jobs.
        """
        from jobsched.testing.expect import expect_dispatched  # noqa: PLC0415 (the plugin loads fast)

        return expect_dispatched(
            self.dispatched(), times, _name_of(task), category=category, args=args, kwargs=kwargs
        )

    def assert_not_dispatched(
        self,
        task: TaskLike,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        category: str | None = None,
    ) -> None:
        """Check that a task was not dispatched, or not so."""
        self.assert_dispatched(task, times=0, args=args, kwargs=kwargs, category=category)

    def assert_completed(self, job: Job | str) -> None:
        """Check that a job has completed; the message has its error and traceback where it has not."""
        from jobsched.testing.expect import expect_completed  # noqa: PLC0415 (the plugin loads fast)

        expect_completed(self._node, job)

    def assert_scheduled(
        self, name: str, *, next_at: datetime | None = None, task: TaskLike | None = None
    ) -> None:
        """Check that there is an active schedule of that name: due at that time, of that task."""
        from jobsched.testing.expect import expect_scheduled  # noqa: PLC0415 (the plugin loads fast)

        expect_scheduled(self.dispatcher, name, next_at, None if task is None else _name_of(task))


def _plain(value: Any) -> Any:
    """Return a field of an event: of a job its id, of a task its name."""
    if isinstance(value, Job):
        return value.id
    return _name_of(value) if callable(value) else value


def _name_of(task: TaskLike) -> str:
    """Return a task's name. Raises InvalidOption for a function that is no task."""
    while isinstance(task, functools.partial):
        task = task.func
    if isinstance(task, str | TaskDefinition):
        return task if isinstance(task, str) else task.name
    return definition_of(task).name


def _checked_store(kind: Any) -> Literal["memory", "lmdb"]:
    if kind not in ("memory", "lmdb"):
        raise InvalidOption(f"store must be 'memory' or 'lmdb', got {kind!r}")
    return "lmdb" if kind == "lmdb" else "memory"


def _leave_path(folder: str) -> None:
    with contextlib.suppress(ValueError):
        sys.path.remove(folder)
