"""Cron expressions over the face of a clock: naive local times, with no zone and no changes of it."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
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

    def comes(self) -> bool:
        """Say whether there is such a time at all: February 30 never comes."""
        return self.fields.comes_each_month or self.next_after(_FIRST) is not None


@lru_cache(maxsize=_CACHED)
def cron_text(text: str, *, seconds: bool = False) -> CronText:
    """Return a checked expression, the same one for the same text. Raises InvalidOption."""
    return CronText(text, seconds=seconds)
