"""When to fire: an aware time goes in, the next one after it comes out, in UTC.

Every trigger has `next_after`; whoever has one can be a trigger. Real time counts. Where a zone's clocks
are changed, `Cron` follows the rule of Debian's cron: a job that has an hour ("30 2") fires exactly once
for each time of the clock's face, right after the jump for those that the clock leaves out (several of
them together), the first time only for those that come twice. A job with a rhythm, whose hour begins
with ``*``, follows real time: what is left out is skipped, what comes twice fires twice.
Source: crontab(5) and cron(8) of Debian, "daylight saving time and other time changes".
"""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec
from msgspec.structs import force_setattr

from jobsched.errors import InvalidOption

if TYPE_CHECKING:
    from jobsched.clock_face import ClockFace
    from jobsched.cron_text import CronText

__all__ = ["Cron", "Every", "Once", "Trigger", "anchored", "count_of"]

_LEAST = timedelta(seconds=1)
_DAY = timedelta(days=1)
_EARLIEST = datetime(1, 1, 3, tzinfo=UTC)  # every zone has a local time from here on
_LATEST = datetime.max.replace(tzinfo=UTC)


@runtime_checkable
class Trigger(Protocol):
    """What says when to fire next."""

    def next_after(self, now: datetime) -> datetime | None:
        """Return the first time after an aware one, None if there is none."""
        ...


class Once(msgspec.Struct, frozen=True):
    """Fires once, at an aware time. Raises InvalidOption for a naive one."""

    at: datetime

    def __post_init__(self) -> None:
        force_setattr(self, "at", in_utc("at", self.at))

    def __repr__(self) -> str:
        return f"Once({self.at.isoformat()!r})"

    def next_after(self, now: datetime) -> datetime | None:
        """Return the time while it is to come."""
        return self.at if self.at > in_utc("now", now) else None


class Every(msgspec.Struct, frozen=True):
    """Fires in steps of real time counted from an anchor, so that it cannot drift.

    `interval` is in seconds, a text like ``"5m"``, or a timedelta, from one second on. The first time is
    the anchor itself, an aware time; without one, whoever adds the schedule fixes it with `anchored`.
    Raises InvalidOption.
    """

    interval: float | str | timedelta
    anchor: datetime | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "interval", _interval(self.interval))
        force_setattr(self, "anchor", None if self.anchor is None else in_utc("anchor", self.anchor))

    def __repr__(self) -> str:
        anchor = "" if self.anchor is None else f", anchor={self.anchor.isoformat()!r}"
        return f"Every({plain_seconds(self.step)}{anchor})"

    @property
    def step(self) -> timedelta:
        """The interval as a timedelta."""
        assert isinstance(self.interval, timedelta)
        return self.interval

    def next_after(self, now: datetime) -> datetime | None:
        """Return the first step after a time; before the anchor it is the anchor.

        Raises InvalidOption if there is no anchor.
        """
        if self.anchor is None:
            raise InvalidOption(f"{self!r} has no anchor to count from: anchored(trigger, now) gives it one")
        steps = max(0, (in_utc("now", now) - self.anchor) // self.step + 1)
        try:
            return self.anchor + steps * self.step
        except OverflowError:  # past the year 9999
            return None


class Cron(msgspec.Struct, frozen=True):
    """Fires when the clock of a zone shows what an expression says.

    `timezone` is a name like ``"Europe/Berlin"``. `seconds` takes expressions of six fields, the seconds
    first. Raises InvalidOption for an expression or a zone that is none, an expression that may mean two
    things, or one that never comes.
    """

    expr: str
    timezone: str = "UTC"
    seconds: bool = False

    def __post_init__(self) -> None:
        if not self.parts()[0].comes():
            raise InvalidOption(f"cron {self.expr!r} never fires: there is no such day")

    @staticmethod
    def known(expr: str, timezone: str, *, seconds: bool) -> Cron:
        """Return one that was checked when it was kept: whether it ever fires is not looked for again."""
        cron = copy(_any_cron())  # a copy is not checked
        for name, value in (("expr", expr), ("timezone", timezone), ("seconds", seconds)):
            force_setattr(cron, name, value)
        cron.parts()
        return cron

    def parts(self) -> tuple[CronText, ClockFace]:
        """Return the expression and the clock that it is about. Raises InvalidOption."""
        from jobsched.clock_face import clock_face  # noqa: PLC0415 (who only dispatches does without)
        from jobsched.cron_text import cron_text  # noqa: PLC0415

        for name, value in (("a cron expression", self.expr), ("timezone", self.timezone)):
            if not isinstance(value, str):
                raise InvalidOption(f"{name} must be a text, got {value!r}")
        return cron_text(self.expr, seconds=bool(self.seconds)), clock_face(self.timezone)

    def __repr__(self) -> str:
        zone = "" if self.timezone == "UTC" else f", timezone={self.timezone!r}"
        return f"Cron({self.expr!r}{zone}{', seconds=True' if self.seconds else ''})"

    def next_after(self, now: datetime) -> datetime | None:
        """Return the first time after one, None if there is none within 50 years."""
        text, clock = self.parts()
        follow = _next_of_rhythm if text.fields.follows_real_time else _next_of_hour
        try:
            return follow(text, clock, max(in_utc("now", now), _EARLIEST))
        except OverflowError:  # past the year 9999
            return None


@cache
def _any_cron() -> Cron:
    return Cron("* * * * *")


def count_of(trigger: Cron, first: datetime, last: datetime) -> int | None:
    """Return how many times there are from one to another, both included; None where that is not found
    without going through them, as the clock is changed in between or they are over a year apart.
    """
    text, clock = trigger.parts()
    if next(clock.changes(first - _DAY, last + _DAY), None) is not None:
        return None
    return text.count(clock.at(first), clock.at(last))


def anchored(trigger: Trigger, now: datetime) -> Trigger:
    """Return a trigger that counts from now if it has nothing to count from, any other as it is."""
    if isinstance(trigger, Every) and trigger.anchor is None:
        return Every(trigger.interval, anchor=now)
    return trigger


def _next_of_hour(text: CronText, clock: ClockFace, now: datetime) -> datetime | None:
    """Find the next time of the clock's face: each counts once, when shown first or jumped over."""
    if clock.is_second_time(now):
        found = text.next_from(clock.end_of_first_time(now))
    else:
        found = text.next_after(clock.at(now))
    if found is None:
        return None
    return clock.change(found) if clock.is_left_out(found) else clock.first(found)


def _next_of_rhythm(text: CronText, clock: ClockFace, now: datetime) -> datetime | None:
    """Find what the clock shows, whenever it shows it."""
    face = clock.at(now)
    found = text.next_after(face)
    if clock.comes_twice(face) and not clock.is_second_time(now):
        change = clock.change(face)
        if found is None or clock.first(found) >= change:
            found = text.next_from(clock.at(change))
    while found is not None and clock.is_left_out(found):
        found = text.next_from(clock.at(clock.change(found)))
    if found is None:
        return None
    at = clock.first(found)
    return at if at > now else clock.second(found)


def plain_seconds(duration: timedelta) -> str:
    """Return seconds without a fraction that is none."""
    return str(duration.total_seconds()).removesuffix(".0")


def in_utc(option: str, moment: datetime) -> datetime:
    """Return an aware time in UTC, as near as a datetime can be to it. Raises InvalidOption for others."""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidOption(f"{option} must be an aware datetime, got {moment!r}")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return _EARLIEST if moment.year == 1 else _LATEST


def _interval(interval: float | str | timedelta) -> timedelta:
    from jobsched.duration import parse_duration  # noqa: PLC0415 (so that `import jobsched` is fast)

    try:
        step = interval if isinstance(interval, timedelta) else timedelta(seconds=parse_duration(interval))
    except (ValueError, OverflowError) as error:
        raise InvalidOption(f"interval: {error}") from None
    if step < _LEAST:
        raise InvalidOption(f"interval must be a second or more, got {interval!r}")
    return step
