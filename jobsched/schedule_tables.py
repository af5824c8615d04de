"""The [schedules.NAME] tables of categories.toml, and of files of their own: read as schedules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, get_args

import msgspec

from jobsched.clock import to_micros
from jobsched.clock_face import clock_face
from jobsched.codec import encode_arguments
from jobsched.config_keys import Key, duration, read_table, show, typed, whole
from jobsched.config_values import DeclaredSchedule
from jobsched.errors import InvalidOption, JobschedError, UnknownCategory
from jobsched.job import PRIORITY_LIMIT
from jobsched.schedule import Misfire, Overlap, Schedule, name_problem
from jobsched.toml_places import KeyPath, Problems, dotted
from jobsched.trigger import Cron, Every, Once, Trigger
from jobsched.trigger_data import to_data

__all__ = ["SCHEDULE_KEYS", "read_schedules"]

_LONG_S = 50 * 366 * 86_400.0
_MANY = 1_000_000
_TRIGGERS = ("cron", "every", "at")
_OF_CRON = ("timezone", "seconds")
_REQUIRED = {
    "task": "name the task to dispatch, like task = 'shop.tasks:send'",
    "category": "name the category of its jobs",
}
_TASK = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _task(value: Any) -> str:
    if not isinstance(value, str) or not _TASK.fullmatch(value):
        raise ValueError(f"expected a task's name like 'shop.tasks:send', got {show(value)}")
    return value


def _moment(value: Any) -> datetime:
    """Return an aware time: as TOML has it, or as a text."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, datetime):
        problem = f"expected a time like 2030-01-31T08:00:00+01:00, got {_shown(value)}"
        raise ValueError(problem)  # noqa: TRY004 (what a reader raises)
    if found.tzinfo is None:
        raise ValueError(f"{found.isoformat()} has no time zone, end it with one like +01:00, or Z for UTC")
    return found


def _shown(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else show(value)


def _micros(value: Any) -> int:
    return max(to_micros(_moment(value)), 1)


def _choice(values: tuple[str, ...]) -> Callable[[Any], str]:
    """Return the reader of one of some words."""

    def read(value: Any) -> str:
        if value not in values:
            raise ValueError(
                f"expected {', '.join(map(repr, values[:-1]))} or {values[-1]!r}, got {show(value)}"
            )
        found: str = value
        return found

    return read


def _period(low: float, expected: str) -> Callable[[Any], float]:
    return duration(low, _LONG_S, expected)


_text = typed(str, "a text")
_flag = typed(bool, "true or false")
_priority = typed(
    Annotated[int, msgspec.Meta(ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT)],
    f"a whole number from -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}",
)
_some = _period(0.001, "a duration from 1ms on")
_any = _period(0, "a duration")

SCHEDULE_KEYS = {
    "task": Key("task", _task),
    "category": Key("category", _text),
    "cron": Key("cron", _text),
    "every": Key("every", _period(1, "a duration from 1s on")),
    "at": Key("at", _moment),
    "timezone": Key("timezone", _text),
    "seconds": Key("seconds", _flag),
    "args": Key("args", typed(list[Any], "an array of arguments")),
    "kwargs": Key("kwargs", typed(dict[str, Any], "a table of arguments by name")),
    "start": Key("start_at", _micros),
    "end": Key("end_at", _micros),
    "max_runs": Key("max_runs", whole(1, _MANY)),
    "jitter": Key("jitter_s", _any),
    "misfire": Key("misfire", _choice(get_args(Misfire))),
    "most": Key("most", whole(1, _MANY)),
    "grace": Key("grace_s", _any),
    "overlap": Key("overlap", _choice(get_args(Overlap))),
    "priority": Key("priority", _priority),
    "max_retries": Key("max_retries", whole(0, _MANY)),
    "timeout": Key("timeout_s", _some),
    "expires_in": Key("expires_in_s", _some),
    "active": Key("is_active", _flag),
}


def read_schedules(
    report: Problems, tables: Any, categories: Mapping[str, Any], source: str
) -> dict[str, DeclaredSchedule]:
    """Return the schedules of a file; what is wrong with them goes to the report.

    `categories` are those that jobs can be put in. The tasks are not looked at: whoever reads this
    imports no code of the user's. So a schedule names its category, too.
    """
    if not isinstance(tables, dict):
        report.about(("schedules",), f"expected tables like [schedules.nightly], got {show(tables)}")
        return {}
    found = {name: _read_one(report, name, table, categories, source) for name, table in tables.items()}
    return {name: declared for name, declared in found.items() if declared is not None}


def _read_one(
    report: Problems, name: str, table: Any, categories: Mapping[str, Any], source: str
) -> DeclaredSchedule | None:
    """Return a schedule; None where its table does not say enough to make one."""
    path = ("schedules", name)
    if problem := name_problem(name):
        report.say(path, problem)
    fields = read_table(report, path, table, SCHEDULE_KEYS)
    if not isinstance(table, dict) or _is_of_dotted_names(table):
        return None
    _check_job(report, path, table, fields, categories)
    trigger = _trigger(report, path, table, fields)
    arguments = _arguments(report, path, fields)
    start, end = fields.get("start_at", 0), fields.get("end_at", 0)
    if start and end and start > end:
        report.about((*path, "end"), "is before start")
    is_active = fields.pop("is_active", None)
    if trigger is None or arguments is None or "task" not in fields or "category" not in fields:
        return None
    made = Schedule(
        name=name,
        trigger=to_data(trigger),
        args=arguments[0],
        kwargs=arguments[1],
        by_name=True,  # the first claim asks the task for its terms
        source=source,
        **fields,
    )
    return DeclaredSchedule(made, is_active)


def _is_of_dotted_names(table: dict[str, Any]) -> bool:
    """Say whether a table is [schedules.a.b], which has been reported: what it lacks is nothing more."""
    return bool(table) and all(isinstance(value, dict) for value in table.values())


def _check_job(
    report: Problems,
    path: KeyPath,
    table: dict[str, Any],
    fields: dict[str, Any],
    categories: Mapping[str, Any],
) -> None:
    for key, hint in _REQUIRED.items():
        if key not in table:
            report.say(path, f"{dotted((*path, key))}: missing; {hint}")
    category = fields.get("category")
    if category is not None and category not in categories:
        report.about((*path, "category"), str(UnknownCategory(category, categories)))


def _trigger(
    report: Problems, path: KeyPath, table: dict[str, Any], fields: dict[str, Any]
) -> Trigger | None:
    """Return the trigger, taken out of the fields; None where it is reported what is wrong."""
    given = [key for key in _TRIGGERS if key in table]
    cron, every, at = (fields.pop(key, None) for key in _TRIGGERS)
    timezone, seconds = fields.pop("timezone", None), fields.pop("seconds", False)
    if len(given) != 1:
        which = f"got {' and '.join(given)}" if given else "got none of them"
        report.about(path, f"expected one of cron, every and at, {which}")
        return None
    for key in _OF_CRON:
        if key in table and given != ["cron"]:
            report.about((*path, key), f"goes with cron, not with {given[0]}")
    if cron is not None:
        return _cron(report, path, cron, "UTC" if timezone is None else timezone, seconds=seconds)
    if every is not None:
        return Every(every)
    return None if at is None else Once(at)


def _cron(report: Problems, path: KeyPath, cron: str, timezone: str, *, seconds: bool) -> Cron | None:
    """Return a cron trigger; what is wrong is said of the zone and of the expression apart."""
    found = None
    try:
        found = Cron(cron, seconds=seconds)
    except InvalidOption as error:
        report.about((*path, "cron"), str(error))
    try:
        clock_face(timezone)
    except InvalidOption as error:
        report.about((*path, "timezone"), str(error))
        return None
    return found and Cron.known(cron, timezone, seconds=seconds)


def _arguments(report: Problems, path: KeyPath, fields: dict[str, Any]) -> tuple[bytes, bytes] | None:
    """Return the arguments as they are kept, taken out of the fields."""
    args, kwargs = fields.pop("args", []), fields.pop("kwargs", {})
    try:
        return encode_arguments(fields.get("task", "?"), args, kwargs)
    except JobschedError as error:
        report.about((*path, "args" if args else "kwargs"), str(error))
        return None
