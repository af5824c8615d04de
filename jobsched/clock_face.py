"""What the clock of a zone shows: the times that it leaves out, and those that it shows twice.

A face is a naive datetime. Instants are in UTC, for Python compares two times of the same zone by their
faces, which goes wrong where a clock is set back.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from jobsched.errors import InvalidOption, nearest

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["ClockFace", "clock_face"]

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_MOST_ZONES = 1024
_OF_THE_MACHINE = ("localtime", "posixrules", "posix/", "right/")
"""Files beside the zones: the first two differ between machines, the last counts leap seconds."""


class ClockFace:
    """The clock of a zone. Raises InvalidOption for a zone that this machine does not know."""

    def __init__(self, zone: str) -> None:
        self._zone = _zone(zone)

    def at(self, instant: datetime) -> datetime:
        """Return what the clock shows at an instant."""
        return instant.astimezone(self._zone).replace(tzinfo=None, fold=0)

    def local(self, instant: datetime) -> datetime:
        """Return an instant as an aware time of the zone."""
        return instant.astimezone(self._zone)

    def is_second_time(self, instant: datetime) -> bool:
        """Say whether the clock has shown what it shows at an instant once before."""
        return instant.astimezone(self._zone).fold == 1

    def first(self, face: datetime) -> datetime:
        """Return when the clock shows a time first; for one that it leaves out, the time without the jump."""
        return face.replace(tzinfo=self._zone, fold=0).astimezone(UTC)

    def second(self, face: datetime) -> datetime:
        """Return when the clock shows a time last; for one that it leaves out, an instant before the jump."""
        return face.replace(tzinfo=self._zone, fold=1).astimezone(UTC)

    def is_left_out(self, face: datetime) -> bool:
        """Say whether the clock jumps over a time."""
        return self.second(face) < self.first(face)

    def comes_twice(self, face: datetime) -> bool:
        """Say whether the clock is set back over a time."""
        return self.first(face) < self.second(face)

    def change(self, face: datetime) -> datetime:
        """Return the instant at which the clock leaves out a time, or is set back to show it again."""
        return self._change_between(*sorted((self.first(face), self.second(face))))

    def changes(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the instants after `start`, and up to a day after `end`, at which the clock is changed."""
        low, before = start.replace(microsecond=0), self._offset(start)
        while low < end:
            high = low + _DAY
            after = self._offset(high)
            if after != before:
                yield self._change_between(low, high)
            low, before = high, after

    def end_of_first_time(self, instant: datetime) -> datetime:
        """Return the face at which the clock was set back, for an instant that is a second time."""
        face = self.at(instant)
        return face + (self.change(face) - self.first(face))

    def _change_between(self, low: datetime, high: datetime) -> datetime:
        """Return the second at which the offset changes between two instants."""
        before = self._offset(low)
        while high - low > _SECOND:
            middle = low + (high - low) // _SECOND // 2 * _SECOND
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return high

    def _offset(self, instant: datetime) -> timedelta | None:
        return instant.astimezone(self._zone).utcoffset()


@lru_cache(maxsize=_MOST_ZONES)
def clock_face(zone: str) -> ClockFace:
    """Return the clock of a zone, the same one for the same name. Raises InvalidOption."""
    return ClockFace(zone)


def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, available_timezones  # noqa: PLC0415 (a client that only dispatches goes without)

    try:
        found = None if name.startswith(_OF_THE_MACHINE) else ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        found = None
    if found is None:
        raise InvalidOption(
            f"timezone must be a name like 'Europe/Berlin' that this machine knows, got {name!r}"
            f"{nearest(name, available_timezones())}"
        )
    return found
