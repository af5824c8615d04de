"""Where a cron expression means another thing to other schedulers, and what to write instead.

Sources: crontab(5) of Vixie and Debian, the Quartz tutorial on CronTrigger, robfig/cron for Kubernetes'
CronJob, systemd.time(7). The list stands in docs/cron.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from jobsched.cron_fields import KINDS, NICKNAMES, CronFields, FieldKind, field_values
from jobsched.cron_text import CronText
from jobsched.trigger import Cron

__all__ = ["Difference", "clock_changes", "differences"]

Difference = tuple[str, str]
"""A code, and a text that says what differs and what to write instead."""

_HOURS = 24
_COUNTED = 100  # times of the clock's face
_YEAR = timedelta(days=366)
_SECOND = timedelta(seconds=1)
_WEEKDAYS = KINDS["weekday"].names
_STEP = re.compile(r"\*/(\d+)", re.ASCII)
_WEEKDAY_NUMBER = re.compile(r"(?<![#/L\d])\d(?!\d)", re.ASCII)
_SEVERAL_NAMES = re.compile(r"[A-Z]{3}.*[-,]|[-,].*[A-Z]{3}")
_LAST_WEEKDAYS = re.compile(r"L\d(,L\d)*", re.ASCII)
_RESTARTS = {
    "second": "minute",
    "minute": "hour",
    "hour": "day",
    "day": "month",
    "month": "year",
    "weekday": "week",
}
_EVEN = {"second": "s", "minute": "m", "hour": "h", "day": "d", "weekday": "d"}


def differences(cron: Cron) -> Iterator[Difference]:
    """Yield what other schedulers read differently in an expression, whatever the zone."""
    nickname = cron.expr.strip().lower()
    if nickname in NICKNAMES:
        yield "name", f"Quartz does not know {nickname}: write {NICKNAMES[nickname]!r} for it"
        return
    fields = cron.parts()[0].fields
    if cron.seconds:
        text = (
            "the seconds come first, as in Quartz and Spring; Vixie's cron and Kubernetes know none: "
            "write five fields if second 0 will do"
        )
        yield "seconds", text
    yield from _names(fields)
    yield from _two_days(fields)
    yield from _weekday_numbers(fields.weekday)
    yield from _extensions(fields)
    for key, field in fields._asdict().items():
        if found := _STEP.fullmatch(field):
            yield from _uneven_step(key, field, int(found[1]))
    if not fields.follows_real_time and len(field_values(fields.hour, KINDS["hour"])) == _HOURS:
        text = (
            f"hour {fields.hour} is every hour, yet one that the clock shows twice fires once, "
            "as written out: write *"
        )
        yield "all-hours", text


def _names(fields: CronFields) -> Iterator[Difference]:
    for field in (fields.month, fields.weekday):
        if _SEVERAL_NAMES.search(field):
            text = (
                f"crontab(5) promises names one at a time, other crons may refuse {field}: "
                "write numbers for those, or a schedule for each"
            )
            yield "name", text


def _two_days(fields: CronFields) -> Iterator[Difference]:
    both = f"the day of month ({fields.day}) and the day of week ({fields.weekday})"
    if fields.takes_either_day:
        text = (
            f"fires where either of {both} matches, as in Vixie's cron and Kubernetes; systemd wants "
            "both, Quartz takes one alone: write two schedules for either, or let the task look at "
            "the other day"
        )
        yield "either-day", text
    elif not {fields.day, fields.weekday} & {"*", "?", "*/1"}:
        text = (
            f"fires where both {both} match, as in Vixie's cron, since one begins with *; Kubernetes "
            "takes either: write 1-31/2 for */2 to mean either, or let the task look at one of the days"
        )
        yield "star-day", text


def _weekday_numbers(field: str) -> Iterator[Difference]:
    numbers = _WEEKDAY_NUMBER.findall(field)
    if numbers and not _STEP.fullmatch(field):
        first = int(numbers[0])
        there = f"has {_WEEKDAYS[first - 1]} as {first}" if first else "refuses it"
        kubernetes = "; Kubernetes refuses 7" if "7" in numbers else ""
        by_name = _WEEKDAY_NUMBER.sub(lambda found: _WEEKDAYS[int(found[0]) % 7], field)
        text = (
            f"day of week {first} is {_WEEKDAYS[first % 7]}; Quartz counts from 1 for Sunday and {there}"
            f"{kubernetes}: write {by_name}"
        )
        yield "weekday-number", text


def _extensions(fields: CronFields) -> Iterator[Difference]:
    plain = "Vixie's cron and Kubernetes do not know it: for them write"
    look = "and let the task look at the day"
    if "?" in (fields.day, fields.weekday):
        yield "extension", "? is Quartz's, Vixie's cron refuses it: write *"
    if "L" in fields.day.split(","):
        yield "extension", f"L is the last day of the month; {plain} 28-31 {look}"
    if "W" in fields.day:
        yield "extension", f"{fields.day} is the weekday nearest to that day; {plain} all three days {look}"
    if "#" in fields.weekday:
        yield (
            "extension",
            f"{fields.weekday} is in one week of the month; {plain} its seven days, such as 8-14, {look}",
        )
    if _LAST_WEEKDAYS.fullmatch(fields.weekday):
        text = (
            f"{fields.weekday} is the last such day of the month; in Quartz it is "
            f"{_of_quartz(fields.weekday)}, counting from 1 for Sunday; {plain} the day of week {look}"
        )
        yield "extension", text


def _of_quartz(field: str) -> str:
    return ",".join(f"{int(part[1]) % 7 + 1}L" for part in field.split(","))


def _uneven_step(key: str, field: str, step: int) -> Iterator[Difference]:
    kind = KINDS[key]
    if key == "weekday":
        kind = FieldKind(kind.name, 0, 6)
    values = sorted(field_values(field, kind))
    rest = kind.high + 1 - values[-1]
    if len(values) == 1:
        yield "uneven-step", f"{kind.name} {field} never comes to a second value: write {values[0]}"
    elif rest != step:
        even = f"Every('{step}{_EVEN[key]}')" if key in _EVEN else "the months one by one"
        text = (
            f"{kind.name} {field} starts again with each {_RESTARTS[key]}: {values[0]} comes "
            f"{rest} after {values[-1]}, not {step}: write {even} for even steps"
        )
        yield "uneven-step", text


def clock_changes(cron: Cron, now: datetime) -> Iterator[Difference]:
    """Yield what the clock changes of the coming year do to an expression, and do otherwise elsewhere."""
    text, clock = cron.parts()
    if text.fields.hour == "*":
        return  # every hour, as real time goes: there is no other way
    for change in clock.changes(now, now + _YEAR):
        before, after = clock.at(change - _SECOND) + _SECOND, clock.at(change)
        faces = _faces(text, min(before, after), max(before, after))
        if not faces:
            continue
        shown = f"{faces[0]:%H:%M}" + (f" and {len(faces) - 1} more" if len(faces) > 1 else "")
        does = f"leaves out {shown}" if before < after else f"shows {shown} twice"
        if text.fields.follows_real_time:
            becomes = _of_rhythm(text.fields, is_left_out=before < after)
        elif before < after:
            becomes = _made_up_for(text.fields, after, is_one=len(faces) == 1)
        else:
            becomes = _fired_once(text.fields)
        yield "clock-change", f"on {faces[0]:%Y-%m-%d} the clock of {cron.timezone} {does}: {becomes}"


_OUTSIDE = "write an hour at which the clock is not changed, or timezone='UTC'"
_DEBIAN_RHYTHM = "Debian's cron, to which * as minute is a rhythm too,"


def _made_up_for(fields: CronFields, after: datetime, *, is_one: bool) -> str:
    debian = "as in Debian's cron" if is_one else "Debian's cron runs each of them"
    if fields.minute[0] == "*":
        debian = f"{_DEBIAN_RHYTHM} skips it"
    fires = "fires" if is_one else "fires once for all"
    return f"{fires} right after the jump, at {after:%H:%M}; {debian}; Quartz and systemd miss it: {_OUTSIDE}"


def _fired_once(fields: CronFields) -> str:
    debian = f"{_DEBIAN_RHYTHM} fires twice" if fields.minute[0] == "*" else "as in Debian's cron"
    return f"fires the first time only; {debian}; Kubernetes fires twice, Quartz may: {_OUTSIDE}"


def _of_rhythm(fields: CronFields, *, is_left_out: bool) -> str:
    hours = ",".join(map(str, sorted(field_values(fields.hour, KINDS["hour"]))))
    done = "skipped" if is_left_out else "fires both times"
    return f"{done}, since the hour begins with *: write {hours} to fire exactly once, or timezone='UTC'"


def _faces(text: CronText, low: datetime, high: datetime) -> list[datetime]:
    """Return the times of the clock's face that an expression names from one to before another."""
    found: list[datetime] = []
    face = text.next_from(low)
    while face is not None and face < high and len(found) < _COUNTED:
        found.append(face)
        face = text.next_after(face)
    return found
