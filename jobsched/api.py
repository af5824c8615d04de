"""The surface that user modules import: `@task`, and `dispatch` on a dispatcher found by itself."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeVar, overload

import msgspec

from jobsched import definition as tasks
from jobsched.batch import Batch
from jobsched.bulk import Arguments
from jobsched.dispatcher import Dispatcher, Job, PreparedJob, TaskLike
from jobsched.errors import InvalidOption
from jobsched.options import checked_period, checked_priority, checked_retries
from jobsched.retry import Backoff, RetryRule
from jobsched.terms import ConcurrencyLimit, Unique

__all__ = [
    "Task",
    "adispatch",
    "batch",
    "default_dispatcher",
    "dispatch",
    "dispatch_each",
    "dispatch_many",
    "task",
    "use_dispatcher",
]

P = ParamSpec("P")
R = TypeVar("R")


class Task(tasks.TaskDefinition, Generic[P, R], frozen=True, kw_only=True, dict=True):
    """A function that jobs can run. Calling it runs the function here and now."""

    function: Callable[P, R]
    given: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        # What functools.update_wrapper does, on a frozen object.
        own = self.__dict__
        for attribute in functools.WRAPPER_ASSIGNMENTS:
            with contextlib.suppress(AttributeError):
                own[attribute] = getattr(self.function, attribute)
        own["__wrapped__"] = self.function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in this process, without a job."""
        return self.function(*args, **kwargs)

    def dispatch(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Dispatch a job with these arguments and the task's own defaults."""
        return default_dispatcher().dispatch(self, args=args, kwargs=kwargs, **dict(self.given))

    async def adispatch(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """`dispatch` from a coroutine."""
        return await default_dispatcher().adispatch(self, args=args, kwargs=kwargs, **dict(self.given))

    def dispatch_each(self, arguments: Iterable[Arguments]) -> list[Job]:
        """Dispatch a job for each set of arguments; see `Dispatcher.dispatch_each`."""
        return default_dispatcher().dispatch_each(self, arguments, **dict(self.given))

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> PreparedJob:
        """Check and encode a job for `dispatch_many`."""
        return default_dispatcher().prepare(self, args=args, kwargs=kwargs, **dict(self.given))

    def options(self, **options: Any) -> Task[P, R]:
        """Return the task with options of `dispatch` set: ``send.options(delay=5).dispatch(...)``."""
        return msgspec.structs.replace(self, given=tuple({**dict(self.given), **options}.items()))


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    category: str | None = None,
    priority: int = 0,
    max_retries: int | None = None,
    timeout: float | timedelta | None = None,
    kill_after: float | timedelta | None = None,
    backoff: Backoff | None = None,
    retry_rules: Mapping[type[BaseException], RetryRule] | None = None,
    at_most_once: bool = False,
    expires_in: float | timedelta | None = None,
    unique: Unique | None = None,
    max_running: int | None = None,
    name: str | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    category: str | None = None,
    priority: int = 0,
    max_retries: int | None = None,
    timeout: float | timedelta | None = None,
    kill_after: float | timedelta | None = None,
    backoff: Backoff | None = None,
    retry_rules: Mapping[type[BaseException], RetryRule] | None = None,
    at_most_once: bool = False,
    expires_in: float | timedelta | None = None,
    unique: Unique | None = None,
    max_running: int | None = None,
    name: str | None = None,
) -> Any:
    """Make a function of a module a task.

    `category` is where its jobs go unless the dispatch says otherwise. Times are in seconds or
    timedeltas; what is left out comes from the category's settings. After `timeout` a run is ended
    by an exception, `kill_after` later by force. `retry_rules` say what is different for some kinds
    of errors: ``{ConnectionError: RetryRule(10), ValueError: RetryRule(0)}``. With `at_most_once` a
    run that is cut off has failed, and nothing is tried again. A job that has not started when it
    `expires_in` so long is cancelled. `unique` keeps a second job of the same key away,
    `max_running` limits the runs at the same time. `name` replaces ``module:function``, so that a
    task can move without losing its jobs.
    Raises InvalidOption for a function that no worker could import, and for wrong values.
    """
    if at_most_once and (max_retries or retry_rules):
        raise InvalidOption("at_most_once is never tried again: leave out max_retries and retry_rules")
    if max_running is not None:
        ConcurrencyLimit("checked", max_running)
    if unique is not None and not isinstance(unique, Unique):
        raise InvalidOption(f"unique must be a Unique, got {unique!r}")
    for error, rule in (retry_rules or {}).items():
        if not (isinstance(error, type) and issubclass(error, BaseException) and isinstance(rule, RetryRule)):
            raise InvalidOption(f"retry_rules must map exceptions to RetryRule, got {error!r}: {rule!r}")
        checked_retries(rule.max_retries)

    def define(function: Callable[..., Any]) -> Task[..., Any]:
        made: Task[..., Any] = Task(
            name=name or tasks.name_of(function),
            function=function,
            category=category,
            priority=checked_priority(priority),
            max_retries=checked_retries(max_retries),
            timeout_s=checked_period("timeout", timeout),
            kill_after_s=checked_period("kill_after", kill_after, least=0.0),
            backoff=backoff or Backoff(),
            retry_rules=dict(retry_rules or {}),
            at_most_once=at_most_once,
            expires_in_s=checked_period("expires_in", expires_in),
            unique=unique,
            max_running=max_running,
        )
        tasks.register(made)
        return made

    return define if function is None else define(function)


_default: Dispatcher | None = None
_default_lock = threading.Lock()


def default_dispatcher() -> Dispatcher:
    """Return the dispatcher of JOBSCHED_CONFIG or ``./categories.toml``, made on first use."""
    global _default  # noqa: PLW0603 (the module-level functions stand for one dispatcher)
    if _default is None:
        with _default_lock:
            _default = _default or Dispatcher.from_config()
    return _default


def use_dispatcher(dispatcher: Dispatcher | None) -> Dispatcher | None:
    """Have the module-level functions use a dispatcher, or with None find their own on the next use;
    return the one that they had.
    """
    global _default
    with _default_lock:
        before, _default = _default, dispatcher
    return before


def dispatch(
    task: TaskLike, category: str | None = None, delay: float | timedelta = 0, **options: Any
) -> Job:
    """Put a job on its category's queue; see `Dispatcher.dispatch`."""
    return default_dispatcher().dispatch(task, category, delay, **options)


async def adispatch(
    task: TaskLike, category: str | None = None, delay: float | timedelta = 0, **options: Any
) -> Job:
    """`dispatch` from a coroutine."""
    return await default_dispatcher().adispatch(task, category, delay, **options)


def dispatch_each(
    task: TaskLike,
    arguments: Iterable[Arguments],
    category: str | None = None,
    delay: float | timedelta = 0,
    **options: Any,
) -> list[Job]:
    """Dispatch a job of one task for each set of arguments; see `Dispatcher.dispatch_each`."""
    return default_dispatcher().dispatch_each(task, arguments, category, delay, **options)


def dispatch_many(jobs: Iterable[PreparedJob]) -> list[Job]:
    """Dispatch prepared jobs in one commit, all or none."""
    return default_dispatcher().dispatch_many(jobs)


def batch(*, atomic: bool = False) -> AbstractContextManager[Batch]:
    """Collect dispatches and commit them together at the end of the block, all or none."""
    return default_dispatcher().batch(atomic=atomic)
