"""How often jobs of a category may start: ``"100/m"``, and the bucket that keeps to it."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable

import msgspec

from jobsched.duration import parse_duration

__all__ = ["Bucket", "Rate", "parse_rate"]

_MOST = 100_000_000
_LEAST_S, _LONGEST_S = 0.001, 365 * 86_400.0
_RATE = re.compile(r"([0-9]{1,10})\s*/\s*(\S.*)", re.DOTALL)
_UNITS = ("s", "m", "h", "d")
_PARTS = 256


class Rate(msgspec.Struct, frozen=True):
    """At most `count` starts within any `per_s` seconds."""

    count: int
    per_s: float

    def __str__(self) -> str:
        return f"{self.count} per {self.per_s:g} s"


def parse_rate(text: str) -> Rate:
    """Return the rate that a text stands for.

    A whole number of starts from 1 to 100 million, a slash, and s, m, h, d or a duration from 1ms
    to 365d: ``"100/m"``, ``"5/30s"``. Raises ValueError for anything else.
    """
    match = _RATE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f"{_shorten(repr(text))} is not a rate, expected one like '100/m', '5/s' or '10/30s'"
        )
    count, per = int(match[1]), match[2]
    if not 1 <= count <= _MOST:
        raise ValueError(f"a rate allows from 1 to {_MOST} starts, got {_shorten(repr(text))}")
    per_s = parse_duration(f"1{per}" if per in _UNITS else per)
    if not _LEAST_S <= per_s <= _LONGEST_S:
        raise ValueError(f"a rate is over a duration from 1ms to 365d, got {_shorten(repr(text))}")
    return Rate(count, per_s)


class _Taken(msgspec.Struct):
    """Tokens that come back together at `until`; the first was taken at `since`."""

    count: int
    since: float
    until: float


class Bucket:
    """The starts that a rate allows, now and next. Belongs to one thread.

    What holds exactly: whoever takes no more than `room` takes at most `count` within any
    half-open window of `per_s` seconds in the bucket's life. A token bucket lets pass up to twice
    that. So a token comes back `per_s` after it was taken, never earlier, and at most 1/256 of
    `per_s` later than that: takes closer together than that come back as one, which bounds the
    memory at some hundred entries whatever the count.

    A new bucket holds one token; the others come evenly over the first `per_s`. It cannot know the
    starts before its program's restart, and a full one would let pass the double at each. Where
    they are known, `earlier` has their times, and the windows across the restart hold too.

    All times are monotonic seconds.
    """

    def __init__(self, rate: Rate, earlier: Iterable[float] | None = None) -> None:
        self._rate = rate
        self._taken: deque[_Taken] = deque()  # in the order of their return
        self._out = 0  # the sum of their counts
        self._is_begun = earlier is not None
        for at in sorted(earlier or ()):
            self._note(1, at)

    def room(self, now: float) -> int:
        """Return how many may start now."""
        if not self._is_begun:
            self._begin(now)
        while self._taken and self._taken[0].until <= now:
            self._out -= self._taken.popleft().count
        return max(0, self._rate.count - self._out)

    def take(self, count: int, now: float) -> None:
        """Note that jobs have started. More than there was room for are noted too: they did start."""
        self.room(now)
        if count > 0:
            self._note(count, now)

    def wait_s(self, now: float) -> float:
        """Return the seconds until one more may start; 0 when one may now."""
        if self.room(now):
            return 0.0
        out = self._out
        for taken in self._taken:
            out -= taken.count
            if out < self._rate.count:
                return taken.until - now
        raise AssertionError("all tokens came back and yet none is there")

    def _begin(self, now: float) -> None:
        """Withhold all tokens but one, each until its turn in the first `per_s`."""
        self._is_begun = True
        withheld = self._rate.count - 1
        parts = min(withheld, _PARTS - 1)
        for part in range(1, parts + 1):
            count = withheld * part // parts - withheld * (part - 1) // parts
            self._taken.append(_Taken(count, -math.inf, now + self._rate.per_s * part / (parts + 1)))
        self._out = withheld

    def _note(self, count: int, at: float) -> None:
        """Hold back tokens that were taken, until `per_s` from now."""
        until = at + self._rate.per_s
        last = self._taken[-1] if self._taken else None
        if last is not None and at - last.since < self._rate.per_s / _PARTS:
            last.count += count
            last.until = max(last.until, until)
        else:
            self._taken.append(_Taken(count, at, until))
        self._out += count


def _shorten(text: str, limit: int = 60) -> str:
    """Return a text cut to a length that fits a message."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
