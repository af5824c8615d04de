"""A clock that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from jobsched.clock import MICROSECONDS, from_micros, to_micros
from jobsched.duration import parse_duration
from jobsched.errors import InvalidOption

__all__ = ["JumpingClock", "StandingClock", "micros_of", "seconds_of"]


class StandingClock:
    """The `Clock` of an app: the time of the wall, and the seconds that have passed."""

    def __init__(self, start: int) -> None:
        self.reset(start)

    def reset(self, start: int) -> None:
        """Begin anew at an instant, in UTC microseconds."""
        self._wall = start
        self._passed_us = 0
        self.steps = 0  # how often the wall clock was set

    def now(self) -> int:
        """Return the wall clock, in UTC microseconds."""
        return self._wall

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self._passed_us / MICROSECONDS

    def pass_us(self, micros: int) -> None:
        """Let microseconds pass."""
        self._wall += micros
        self._passed_us += micros

    def step_to(self, wall: int) -> None:
        """Set the wall clock, as an operator does: no time passes."""
        self._wall = wall
        self.steps += 1


class JumpingClock:
    """What a test has of the clock. Jobs that fall due do not run by that: `run_due` and `drain` run them."""

    def __init__(self, standing: StandingClock, pass_us: Callable[[int], None]) -> None:
        self._standing = standing
        self._pass_us = pass_us

    @property
    def now(self) -> datetime:
        """The time, in UTC."""
        return from_micros(self._standing.now())

    def advance(self, by: str | float | timedelta) -> datetime:
        """Let time pass: seconds, a timedelta, or a text like "1h30m"; return the time then.

        In a job it says that the job takes so long: once its time limit is reached, JobTimeout is raised
        from here (in an `async def`, it is cancelled). Raises InvalidOption for a negative time.
        """
        self._pass_us(round(seconds_of(by) * MICROSECONDS))
        return self.now

    def set(self, moment: datetime) -> None:
        """Set the wall clock, forwards or back, as an operator or NTP does. No time passes by that:
        schedules and due times see it, time limits and rates do not.

        Raises InvalidOption for a datetime without a time zone.
        """
        self._standing.step_to(micros_of(moment))

    def __repr__(self) -> str:
        return f"<clock at {self.now.isoformat()}>"


def seconds_of(time: str | float | timedelta) -> float:
    """Return a length of time in seconds. Raises InvalidOption for what is none, or negative."""
    try:
        return parse_duration(time.total_seconds() if isinstance(time, timedelta) else time)
    except (ValueError, TypeError) as error:
        raise InvalidOption(f"{error}; to set the clock back, use clock.set(...)") from None


def micros_of(moment: datetime) -> int:
    """Return an aware datetime in UTC microseconds. Raises InvalidOption for another one."""
    try:
        return to_micros(moment)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidOption(f"expected an aware datetime, got {moment!r}: {error}") from None
