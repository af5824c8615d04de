"""The options of a dispatch, checked one by one: each error names the option, its value, and what was
expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from jobsched import definition as tasks
from jobsched.clock import to_micros
from jobsched.errors import ArgumentError, InvalidOption, nearest
from jobsched.job import PRIORITY_LIMIT
from jobsched.job_id import parse_id

__all__ = [
    "checked_args",
    "checked_at",
    "checked_category",
    "checked_delay",
    "checked_id",
    "checked_kwargs",
    "checked_name",
    "checked_period",
    "checked_priority",
    "checked_retries",
    "checked_task_name",
]

_MAX_DELAY_S = 50 * 366 * 86_400.0
_MAX_LABEL = 200
_RETRY_LIMIT = 1_000_000  # as in categories.toml


def checked_args(args: Any) -> Sequence[Any]:
    """Return positional arguments. Raises ArgumentError for what is no sequence of them."""
    if type(args) is tuple or type(args) is list:
        return args
    if isinstance(args, str | bytes) or not isinstance(args, Sequence):
        raise ArgumentError(f"args must be a tuple or list of positional arguments, got {args!r}")
    return args if isinstance(args, list | tuple) else tuple(args)


def checked_kwargs(kwargs: Any) -> Mapping[str, Any]:
    """Return keyword arguments. Raises ArgumentError for what has no names."""
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise ArgumentError(f"kwargs must be a dict of arguments by name, got {kwargs!r}")
    return kwargs


def checked_category(name: Any) -> str:
    """Return a category's name. Raises InvalidOption for what is none, like a delay in its place."""
    if not isinstance(name, str):
        raise InvalidOption(f"category must be a name, got {name!r}")
    return name


def checked_task_name(name: str) -> str:
    """Return a task's name. Raises InvalidOption unless it reads module:function."""
    module, _, qualname = name.partition(":")
    if (
        not module
        or not qualname
        or any(not part.isidentifier() for part in f"{module}.{qualname}".split("."))
    ):
        raise InvalidOption(
            f"expected a task's name as module:function, got {name!r}{nearest(name, tasks.known())}"
        )
    return name


def checked_id(text: str) -> bytes:
    """Return the bytes of an id. Raises InvalidOption."""
    try:
        return parse_id(text)
    except (ValueError, AttributeError, TypeError):
        raise InvalidOption(f"id must be a UUID, got {text!r}") from None


def checked_delay(delay: float | timedelta, at: datetime | None) -> float:
    """Return a delay in seconds. Raises InvalidOption."""
    if type(delay) is int and delay == 0:
        return 0.0
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:  # noqa: PLR0124 (nan)
        raise InvalidOption(f"delay must be seconds or a timedelta, got {delay!r}")
    if seconds < 0:
        raise InvalidOption(f"delay must not be negative, got {delay!r}")
    if seconds > _MAX_DELAY_S:
        raise InvalidOption(f"delay must be at most 50 years, got {delay!r}")
    if seconds and at is not None:
        raise InvalidOption("pass delay or at, not both")
    return float(seconds)


def checked_at(at: datetime | None) -> int:
    """Return a time in UTC microseconds, 0 without. Raises InvalidOption for a naive one."""
    if at is None:
        return 0
    if not isinstance(at, datetime):
        raise InvalidOption(f"at must be an aware datetime, got {at!r}")
    try:
        return max(to_micros(at), 1)
    except ValueError as error:
        raise InvalidOption(f"at: {error}") from None


def checked_period(option: str, period: float | timedelta | None, least: float = 0.001) -> float | None:
    """Return a length of time in seconds. Raises InvalidOption."""
    if period is None:
        return None
    seconds = period.total_seconds() if isinstance(period, timedelta) else period
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidOption(f"{option} must be seconds or a timedelta, got {period!r}")
    if not least <= seconds <= _MAX_DELAY_S:
        raise InvalidOption(f"{option} must be from {least:g} s to 50 years, got {period!r}")
    return float(seconds)


def checked_priority(priority: int) -> int:
    """Return a priority within a category. Raises InvalidOption."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > PRIORITY_LIMIT:
        raise InvalidOption(
            f"priority must be a whole number from -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}, got {priority!r}"
        )
    return priority


def checked_retries(count: int | None) -> int | None:
    """Return a number of retries. Raises InvalidOption."""
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _RETRY_LIMIT:
        raise InvalidOption(f"max_retries must be a whole number from 0 to {_RETRY_LIMIT:,}, got {count!r}")
    return count


def checked_name(name: str | None) -> str | None:
    """Return a job's label. Raises InvalidOption."""
    if name is None:
        return None
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_LABEL or not _is_text(name):
        raise InvalidOption(f"name must be 1 to {_MAX_LABEL} characters, got {name!r}")
    return name


def _is_text(name: str) -> bool:
    """Whether it can be stored: half a surrogate pair cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
