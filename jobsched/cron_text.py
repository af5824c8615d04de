"""Cron expressions over the face of a clock: naive local times, with no zone and no changes of it."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from jobsched.cron_fields import CronFields, parse_fields

if TYPE_CHECKING:
    from croniter import croniter

__all__ = ["CronText", "cron_text"]

_YEARS = 50  # February 29 comes on a given day of the week after 40 at most
_CACHED = 1024  # expressions: some 5 kB each
_FIRST = datetime(2000, 1, 1)  # noqa: DTZ001 (any: naive local time is what this is about)
_SECOND = timedelta(seconds=1)
_YEAR = 366  # days
_DAY = 86_400  # seconds


class CronText:
    """A checked expression. Raises InvalidOption for what is none or may mean two things."""

    def __init__(self, text: str, *, seconds: bool = False) -> None:
        self.fields: CronFields = parse_fields(text, seconds=seconds)
        self._has_seconds = self.fields.second != "0"

    @cached_property
    def _iterator(self) -> croniter:
        from croniter import croniter  # noqa: PLC0415 (a client that only dispatches goes without)

        second, *others = self.fields
        text = " ".join([*others, second] if self._has_seconds else others)  # it has the seconds last
        return croniter(
            text,
            _FIRST,
            datetime,
            day_or=self.fields.takes_either_day,
            max_years_between_matches=_YEARS,
        )

    def next_after(self, face: datetime) -> datetime | None:
        """Return the first time on the clock's face after one, None if there is none within 50 years."""
        iterator = copy.copy(self._iterator)  # it keeps its place, and threads share this object
        try:
            iterator.set_current(face.replace(microsecond=0), force=True)
            found: datetime = iterator.get_next()
        except (ValueError, OverflowError):  # none; or past the year 9999
            return None
        return found

    def next_from(self, face: datetime) -> datetime | None:
        """Return the first time on the clock's face from one on, which is a whole second."""
        return self.next_after(face - _SECOND)

    def count(self, start: datetime, end: datetime) -> int | None:
        """Return how many times there are on the clock's face from one to another, both included, without
        going through them; None for those that are over a year apart.
        """
        days = (end.date() - start.date()).days + 1
        if days > _YEAR:
            return None
        at = [start.date() + timedelta(days=day) for day in range(days)]
        fit = [day for day in at if self._is_on(day)]
        found = len(fit) * self._earlier(_DAY)
        if at[0] in fit:
            found -= self._earlier(_second_of(start))
        if at[-1] in fit:
            found -= self._earlier(_DAY) - self._earlier(_second_of(end) + 1)
        return found

    def _is_on(self, day: date) -> bool:
        if self._is_daily:
            return True
        found = self.next_from(datetime.combine(day, time()))
        return found is not None and found.date() == day

    @cached_property
    def _is_daily(self) -> bool:
        return all(field == ["*"] for field in self._iterator.expanded[2:5])

    def _earlier(self, second: int) -> int:
        """Return how many times of a day come before a second of it."""
        hours, minutes, seconds = self._times
        hour, minute = second // 3600, second // 60 % 60
        found = bisect_left(hours, hour) * len(minutes) * len(seconds)
        if hour in hours:
            found += bisect_left(minutes, minute) * len(seconds)
            if minute in minutes:
                found += bisect_left(seconds, second % 60)
        return found

    @cached_property
    def _times(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Hours, minutes and seconds."""
        minutes, hours, *others = self._iterator.expanded
        return _all(hours, 24), _all(minutes, 60), _all(others[3], 60) if self._has_seconds else [0]

    def comes(self) -> bool:
        """Say whether there is such a time at all: February 30 never comes."""
        return self.fields.comes_each_month or self.next_after(_FIRST) is not None


def _all(field: Sequence[int | str], count: int) -> Sequence[int]:
    return range(count) if field == ["*"] else sorted({int(value) for value in field})


def _second_of(face: datetime) -> int:
    return (face.hour * 60 + face.minute) * 60 + face.second


@lru_cache(maxsize=_CACHED)
def cron_text(text: str, *, seconds: bool = False) -> CronText:
    """Return a checked expression, the same one for the same text. Raises InvalidOption."""
    return CronText(text, seconds=seconds)
