"""The surface that user modules import: `@task`, and `dispatch` on a dispatcher found by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeVar, overload

from jobsched import definition as tasks
from jobsched.dispatcher import Batch, Dispatcher, Job, PreparedJob, TaskLike
from jobsched.errors import InvalidOption
from jobsched.retry import Backoff

__all__ = ["Task", "adispatch", "batch", "default_dispatcher", "dispatch", "dispatch_many", "task"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(tasks.TaskDefinition, Generic[P, R]):
    """A function that jobs can run. Calling it runs the function here and now."""

    function: Callable[P, R]
    given: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        # What functools.update_wrapper does, on a frozen object.
        for attribute in functools.WRAPPER_ASSIGNMENTS:
            with contextlib.suppress(AttributeError):
                object.__setattr__(self, attribute, getattr(self.function, attribute))
        object.__setattr__(self, "__wrapped__", self.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in this process, without a job."""
        return self.function(*args, **kwargs)

    def dispatch(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Dispatch a job with these arguments and the task's own defaults."""
        return default_dispatcher().dispatch(self, args=args, kwargs=kwargs, **dict(self.given))

    async def adispatch(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """`dispatch` from a coroutine."""
        return await default_dispatcher().adispatch(self, args=args, kwargs=kwargs, **dict(self.given))

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> PreparedJob:
        """Check and encode a job for `dispatch_many`."""
        return default_dispatcher().prepare(self, args=args, kwargs=kwargs, **dict(self.given))

    def options(self, **options: Any) -> Task[P, R]:
        """Return the task with options of `dispatch` set: ``send.options(delay=5).dispatch(...)``."""
        return dataclasses.replace(self, given=tuple({**dict(self.given), **options}.items()))


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    category: str | None = None,
    priority: int = 0,
    max_retries: int | None = None,
    timeout: float | timedelta | None = None,
    backoff: Backoff | None = None,
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
    backoff: Backoff | None = None,
    name: str | None = None,
) -> Any:
    """Make a function of a module a task.

    `category` is where its jobs go unless the dispatch says otherwise; `timeout` is in seconds or
    a timedelta; what is left out comes from the category's settings. `name` replaces
    ``module:function``, so that a task can move without losing its jobs.
    Raises InvalidOption for a function that no worker could import, and for wrong values.
    """
    if max_retries is not None and (not isinstance(max_retries, int) or max_retries < 0):
        raise InvalidOption(f"max_retries must be 0 or more, got {max_retries!r}")
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
        raise InvalidOption(f"timeout must be more than 0, got {timeout!r}")

    def define(function: Callable[..., Any]) -> Task[..., Any]:
        made: Task[..., Any] = Task(
            name=name or tasks.name_of(function),
            function=function,
            category=category,
            priority=priority,
            max_retries=max_retries,
            timeout_s=seconds,
            backoff=backoff or Backoff(),
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


def dispatch_many(jobs: Iterable[PreparedJob]) -> list[Job]:
    """Dispatch prepared jobs in one commit, all or none."""
    return default_dispatcher().dispatch_many(jobs)


def batch() -> AbstractContextManager[Batch]:
    """Collect dispatches and commit them together at the end of the block, all or none."""
    return default_dispatcher().batch()
