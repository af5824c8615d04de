"""Time as an argument: the one place that reads a clock.

Instants are UTC microseconds since 1970 (`int`); durations are seconds (`float`).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["MICROSECONDS", "Clock", "SystemClock", "from_micros", "to_micros"]

MICROSECONDS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What services ask for the time."""

    def now(self) -> int:
        """Return the wall clock, in UTC microseconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow, for measuring durations and deadlines."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> int:
        """Return the wall clock, in UTC microseconds."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()


def to_micros(moment: datetime) -> int:
    """Return an aware datetime as UTC microseconds.

    Raises ValueError for a naive one: its instant would depend on the machine that reads it.
    """
    if moment.tzinfo is None:
        msg = f"{moment!r} has no time zone; pass an aware datetime"
        raise ValueError(msg)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Return UTC microseconds as an aware datetime."""
    return _EPOCH + timedelta(microseconds=micros)
