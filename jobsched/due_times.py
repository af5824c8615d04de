"""The due times of a schedule: the next one, and all those that were missed.

Times are UTC microseconds.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence
from functools import cached_property

from jobsched.clock import MICROSECONDS, from_micros, to_micros
from jobsched.own_trigger import TimesUnknown
from jobsched.schedule import Schedule
from jobsched.trigger import Cron, Every, Trigger, count_of
from jobsched.trigger_data import from_data

__all__ = ["COUNTED", "DueTimes", "fire_time", "first_due", "next_due"]

COUNTED = 2000
"""Due times that are gone through one by one: that takes 0.2 s for a Cron."""

_FEW = 8  # that are gone through before it is worth while to count the rest otherwise


def next_due(schedule: Schedule, after: int, trigger: Trigger | None = None) -> int:
    """Return the first due time after an instant, within start and end; 0 without one."""
    trigger = trigger or from_data(schedule.trigger)
    found = trigger.next_after(from_micros(max(after, schedule.start_at - 1)))
    due = 0 if found is None else to_micros(found)
    return 0 if schedule.end_at and due > schedule.end_at else due


def first_due(schedule: Schedule, now: int) -> tuple[int, int]:
    """Return the next due time after now, and that with its jitter; 0 and 0 without one."""
    due = next_due(schedule, now)
    return due, fire_time(schedule, due)


def fire_time(schedule: Schedule, due_at: int, trigger: Trigger | None = None) -> int:
    """Return when a due time fires: before the next one is due, or that would be missed.

    Its jitter follows from the name and the time, so that it is the same whoever asks, and however often.
    """
    if not due_at or not schedule.jitter_s:
        return due_at
    following = 0
    with contextlib.suppress(TimesUnknown):
        following = next_due(schedule, due_at, trigger)
    longest = schedule.jitter_s * MICROSECONDS
    if following:
        longest = min(longest, following - due_at)
    drawn = zlib.crc32(due_at.to_bytes(8, "big"), zlib.crc32(schedule.name.encode())) / (1 << 32)
    return due_at + int(drawn * longest)


class DueTimes:
    """The due times of a schedule within a stretch of time: how many, the last ones, and the next."""

    def __init__(
        self, schedule: Schedule, trigger: Trigger, first: int, until: int, *, are_listed: bool = False
    ) -> None:
        """Find those from the first one on, 0 for none, up to an instant. They had better be listed where
        more than the last one is wanted.
        """
        self._schedule = schedule
        self._trigger = trigger
        self._until = until
        self._next = first  # behind those that are listed
        self._unknown: TimesUnknown | None = None  # what that is
        self._listed: Sequence[int] = self._list(first, are_listed) if 0 < first <= until else ()
        self._count: int | None = None if self._has_more else len(self._listed)
        if self._has_more and isinstance(trigger, Cron) and not are_listed:
            self._count = count_of(trigger, from_micros(first), from_micros(self.last))
            if self._count is None:
                self._listed = self._extend([*self._listed], COUNTED)
                self._count = None if self._has_more else len(self._listed)

    @property
    def _has_more(self) -> bool:
        return 0 < self._next <= self._until

    @property
    def is_counted(self) -> bool:
        """Whether it is known how many there are."""
        return self._count is not None

    def _list(self, first: int, are_listed: bool) -> Sequence[int]:  # noqa: FBT001
        """Return the first ones, all those of an interval."""
        if isinstance(self._trigger, Every):
            end = min(self._until, self._schedule.end_at or self._until)
            steps = range(first, end + 1, to_micros(from_micros(0) + self._trigger.step))
            self._next = next_due(self._schedule, steps[-1], self._trigger)
            return steps
        can_count = isinstance(self._trigger, Cron) and not are_listed
        return self._extend([], min(_FEW, COUNTED) if can_count else COUNTED)

    def _extend(self, listed: list[int], most: int) -> list[int]:
        while self._has_more and len(listed) < most:
            listed.append(self._next)
            try:
                self._next = next_due(self._schedule, self._next, self._trigger)
            except TimesUnknown as error:
                self._next, self._unknown = 0, error
        return listed

    @property
    def following(self) -> int:
        """The first one behind the stretch, 0 without one. Raises TimesUnknown."""
        if self._unknown is not None:
            raise self._unknown
        return next_due(self._schedule, self._until, self._trigger) if self._has_more else self._next

    def __bool__(self) -> bool:
        return bool(self._listed)

    @property
    def first(self) -> int:
        """The first one, where there is one."""
        return self._listed[0]

    @cached_property
    def last(self) -> int:
        """The last one, where there is one."""
        return self._previous(self._until + 1) if self._has_more else self._listed[-1]

    def end(self, most: int) -> tuple[int, Sequence[int]]:
        """Return the last ones, so many at most, of those that are not listed up to as many as are; and
        the one before these, 0 without one.
        """
        if not self._has_more:
            place = len(self._listed) - most
            return (self._listed[place - 1], self._listed[place:]) if place > 0 else (0, self._listed)
        found: list[int] = []
        before = self._until + 1
        while len(found) <= min(most, COUNTED) and before > self.first:
            before = self._previous(before)
            found.append(before)
        *fired, before = found
        return before, fired[::-1]

    def count(self) -> int:
        """Return how many there are; at least how many, where they are not counted."""
        return len(self._listed) if self._count is None else self._count

    def _previous(self, before: int) -> int:
        """Return the last due time before an instant that is behind the first one.

        Mostly it is as far from there as the first two are from each other.
        """
        first, *others = self._listed[:2]
        reach = others[0] - first if others else MICROSECONDS
        found = 0
        while not found and before - reach > first:
            found = self._next_before(before - reach, before)
            reach *= 4
        found = found or first
        free_from = before  # there is none from here on
        while later := self._next_before(found, before):
            middle = (later + free_from) // 2
            found = self._next_before(middle, before) or later
            free_from = free_from if found > middle else middle + 1
        return found

    def _next_before(self, after: int, before: int) -> int:
        due = next_due(self._schedule, after, self._trigger)
        return due if due < before else 0
