"""What is odd about schedules: each finding says what to write instead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from jobsched.cron_dialects import clock_changes, differences
from jobsched.cron_fields import KINDS, CronFields, field_values
from jobsched.trigger import Cron, Every, Trigger, anchored, in_utc, plain_seconds

__all__ = ["Finding", "lint"]

_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_YEAR = timedelta(days=366)
_STEADY = 300  # firings a day: more often than every five minutes, jitter would even out nothing
_MINUTES_TOLD = 3
_NAMES_TOLD = 3
_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FIFTH = "5"


class Finding(NamedTuple):
    """What is odd about a schedule; the name is "" for what several have in common."""

    name: str
    code: str
    text: str


def lint(
    schedules: Iterable[tuple[str, Trigger, Mapping[str, Any]]], *, now: datetime, many: int = 10
) -> list[Finding]:
    """Return what is odd about schedules, each given as name, trigger and its other options.

    Of the options `jitter` counts: a schedule that has it is no part of a crowd. `many` schedules that
    fire in the same minute are one. Raises InvalidOption for a naive time.
    """
    now = in_utc("now", now)
    crowd = _Crowd(now)
    findings = []
    for name, given, options in schedules:
        trigger = anchored(given, now)
        findings += [Finding(name, code, text) for code, text in _of_one(trigger, now)]
        if not options.get("jitter"):
            crowd.add(name, trigger)
    return findings + list(crowd.findings(many))


def _of_one(trigger: Trigger, now: datetime) -> Iterator[tuple[str, str]]:
    first = trigger.next_after(now)
    if first is None:
        yield "never", "never fires again: remove it, or give it a time to come"
    else:
        yield from _rare(trigger, first)
    if isinstance(trigger, Every) and trigger.step < _MINUTE:
        seconds = f"{plain_seconds(trigger.step)}"
        yield (
            "sub-minute",
            f"fires every {seconds} s, a job each: write a minute or more, or loop within one job",
        )
    if isinstance(trigger, Cron):
        yield from _of_cron(trigger, now)


def _of_cron(cron: Cron, now: datetime) -> Iterator[tuple[str, str]]:
    fields = cron.parts()[0].fields
    times = len(field_values(fields.second, KINDS["second"]))
    if times > 1:
        text = f"fires {times} times in a minute, a job each: write one second, or loop within one job"
        yield "sub-minute", text
    yield from _missing_days(fields)
    yield from differences(cron)
    yield from clock_changes(cron, now)


def _missing_days(fields: CronFields) -> Iterator[tuple[str, str]]:
    """Yield days that some of the months do not have."""
    day = min(field_values(fields.day, KINDS["day"]), default=1)
    shorter = [month for month in field_values(fields.month, KINDS["month"]) if _LONGEST[month] < day]
    if shorter and not fields.takes_either_day and "L" not in fields.day:
        yield "missing-days", f"not every month has a day {day}: write L for the last day of the month"
    for part in fields.weekday.split(","):
        weekday, _, week = part.partition("#")
        if week == _FIFTH:
            last = weekday if weekday.isdigit() else KINDS["weekday"].names.index(weekday)
            yield (
                "missing-days",
                f"not every month has {part}: write L{last} for the last {weekday} of the month",
            )


def _rare(trigger: Trigger, first: datetime) -> Iterator[tuple[str, str]]:
    second = trigger.next_after(first)
    if second is not None and second - first > _YEAR:
        text = f"fires on {first:%Y-%m-%d}, then not before {second:%Y-%m-%d}"
        yield "rare", f"{text}: write a day that each year has, or a Once if one time is meant"


class _Crowd:
    """Who fires in which minute of the coming day."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._names: dict[datetime, list[str]] = defaultdict(list)
        self._minutes: dict[Trigger, list[datetime]] = {}

    def add(self, name: str, trigger: Trigger) -> None:
        for minute in self._of(trigger):
            self._names[minute].append(name)

    def _of(self, trigger: Trigger) -> list[datetime]:
        try:
            if trigger not in self._minutes:
                self._minutes[trigger] = self._computed(trigger)
            return self._minutes[trigger]
        except TypeError:  # one of the user's that has no hash
            return self._computed(trigger)

    def _computed(self, trigger: Trigger) -> list[datetime]:
        found: list[datetime] = []
        at = trigger.next_after(self._now)
        for _ in range(_STEADY):
            if at is None or at > self._now + _DAY:
                return list(dict.fromkeys(found))
            found.append(in_utc("next_after", at).replace(second=0, microsecond=0))
            at = trigger.next_after(at)
        return []

    def findings(self, many: int) -> Iterator[Finding]:
        """Yield the fullest minutes."""
        full = [minute for minute, names in self._names.items() if len(names) >= many]
        for minute in sorted(full, key=lambda one: (-len(self._names[one]), one))[:_MINUTES_TOLD]:
            names = self._names[minute]
            told = ", ".join(names[:_NAMES_TOLD])
            more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
            text = f"{len(names)} schedules fire at {minute:%Y-%m-%d %H:%M} UTC ({told}{more})"
            yield Finding("", "crowd", f"{text}: give them jitter, or other minutes")
