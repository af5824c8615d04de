"""The due times of a schedule: the next one, and all those that were missed.

Times are UTC microseconds.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence

from jobsched.clock import MICROSECONDS, from_micros, to_micros
from jobsched.own_trigger import TimesUnknown
from jobsched.schedule import Schedule
from jobsched.trigger import Every, Trigger
from jobsched.trigger_data import from_data

__all__ = ["COUNTED", "DueTimes", "fire_time", "first_due", "next_due"]

COUNTED = 2000
"""Due times that are counted one by one: that takes 0.2 s for a Cron."""


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

    def __init__(self, schedule: Schedule, trigger: Trigger, first: int, until: int) -> None:
        """Find those from the first one on, 0 for none, up to an instant."""
        self._schedule = schedule
        self._trigger = trigger
        self._until = until
        self._next = first  # behind those that are listed
        self._unknown: TimesUnknown | None = None  # what that is
        self._listed: Sequence[int] = self._list(first) if 0 < first <= until else ()
        self.is_counted = not 0 < self._next <= until

    def _list(self, first: int) -> Sequence[int]:
        """Return the first ones, all those of an interval."""
        if isinstance(self._trigger, Every):
            end = min(self._until, self._schedule.end_at or self._until)
            steps = range(first, end + 1, to_micros(from_micros(0) + self._trigger.step))
            self._next = next_due(self._schedule, steps[-1], self._trigger)
            return steps
        listed: list[int] = []
        while 0 < self._next <= self._until and len(listed) < COUNTED:
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
        return self._next if self.is_counted else next_due(self._schedule, self._until, self._trigger)

    def __bool__(self) -> bool:
        return bool(self._listed)

    @property
    def first(self) -> int:
        """The first one, where there is one."""
        return self._listed[0]

    @property
    def last(self) -> int:
        """The last one, where there is one."""
        return self._listed[-1] if self.is_counted else self._previous(self._until + 1)

    def end(self, most: int) -> tuple[int, Sequence[int]]:
        """Return the last ones, so many at most, of those that are not counted up to as many as are; and
        the one before these, 0 without one.
        """
        if self.is_counted:
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
        return len(self._listed)

    def _previous(self, before: int) -> int:
        """Return the last due time before an instant that is behind the first one."""
        first = self._listed[0]
        reach = MICROSECONDS
        while before - reach > first and not self._next_before(before - reach, before):
            reach *= 4
        found = self._next_before(before - reach, before) if before - reach > first else first
        free_from = before  # there is none from here on
        while free_from - found > MICROSECONDS:
            middle = (found + free_from) // 2
            later = self._next_before(middle, before)
            found, free_from = (later, free_from) if later else (found, middle)
        return self._next_before(found, before) or found

    def _next_before(self, after: int, before: int) -> int:
        due = next_due(self._schedule, after, self._trigger)
        return due if due < before else 0
