"""The options of a schedule and of its jobs, checked: each error names the option, its value and what
was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, get_args

import msgspec

from jobsched.errors import InvalidOption, nearest
from jobsched.options import checked_at, checked_period
from jobsched.schedule import Misfire, Overlap, Schedule

__all__ = ["JOB_OPTIONS", "SCHEDULE_OPTIONS", "check_options", "job_options", "with_options"]

_LIMIT = 1_000_000

JOB_OPTIONS = frozenset(
    {"priority", "max_retries", "timeout", "expires_in", "unique", "limit", "at_most_once", "label"}
)
"""What is said of the jobs of a schedule, as `dispatch` takes it but for `label`, which is its `name`."""


def check_options(options: Mapping[str, Any], known: frozenset[str] | set[str]) -> None:
    """Raise InvalidOption for an option that is none of these."""
    for option in options:
        if option not in known:
            raise InvalidOption(f"unknown option {option!r}{nearest(option, known)}")


def job_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that are of the jobs, as `Dispatcher.prepare` takes them."""
    given = {name: value for name, value in options.items() if name in JOB_OPTIONS}
    if "label" in given:
        given["name"] = given.pop("label")
    return given


def with_options(schedule: Schedule, options: Mapping[str, Any]) -> Schedule:
    """Return a schedule with its own options, checked."""
    checked: dict[str, Any] = {}
    for option in options.keys() & SCHEDULE_OPTIONS:
        field, value = _OPTIONS[option](option, options[option])
        checked[field] = value
    made: Schedule = msgspec.structs.replace(schedule, **checked)
    if made.start_at and made.end_at and made.start_at > made.end_at:
        raise InvalidOption(f"schedule {made.name!r}: start is behind end")
    return made


def _moment(option: str, value: Any) -> tuple[str, int]:
    try:
        return f"{option}_at", checked_at(value)
    except InvalidOption:
        raise InvalidOption(f"{option} must be an aware datetime, got {value!r}") from None


def _whole(option: str, value: Any) -> tuple[str, int]:
    if value is None and option == "max_runs":
        return option, 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LIMIT:
        raise InvalidOption(f"{option} must be a whole number from 1 to {_LIMIT:,}, got {value!r}")
    return option, value


def _period(option: str, value: float | timedelta | None) -> tuple[str, float | None]:
    none = None if option == "grace" else 0.0
    return f"{option}_s", none if value is None else checked_period(option, value, least=0.0)


def _choice(option: str, value: Any) -> tuple[str, str]:
    choices = get_args(Misfire if option == "misfire" else Overlap)
    if value not in choices:
        raise InvalidOption(f"{option} must be one of {', '.join(choices)}, got {value!r}")
    return option, value


_OPTIONS: dict[str, Callable[[str, Any], tuple[str, Any]]] = {
    "start": _moment,
    "end": _moment,
    "max_runs": _whole,
    "most": _whole,
    "jitter": _period,
    "grace": _period,
    "misfire": _choice,
    "overlap": _choice,
}

SCHEDULE_OPTIONS = frozenset(_OPTIONS)
"""What is said of the schedule itself."""
