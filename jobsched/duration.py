"""Durations as people write them: ``"30s"``, ``"1h30m"``, or plain seconds."""

from __future__ import annotations

import math
import re
from decimal import Decimal

__all__ = ["parse_duration"]

_SECONDS = {
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(r"\s*".join(f"(?:{_NUMBER}{unit})?" for unit in _SECONDS))
_BARE_NUMBER = re.compile(_NUMBER)


def parse_duration(value: str | float) -> float:
    """Return a duration in seconds.

    A number is seconds already. A text is one or more numbers with the units d, h, m, s and ms,
    each at most once and the largest first. Raises ValueError for anything else, and for a
    duration that is negative or not finite.
    """
    seconds = _from_text(value) if isinstance(value, str) else _from_number(value)
    if seconds < 0:
        raise ValueError(f"a duration must not be negative, got {_shorten(repr(value))}")
    if not math.isfinite(seconds):
        raise ValueError(f"a duration must be finite, got {_shorten(repr(value))}")
    return seconds


def _from_text(text: str) -> float:
    """Return the seconds that a text stands for."""
    stripped = text.strip()
    match = _DURATION.fullmatch(stripped)
    if not stripped or match is None:
        raise ValueError(_explain(text, stripped))
    numbers = zip(match.groups(), _SECONDS.values(), strict=True)
    return float(sum(Decimal(number) * unit for number, unit in numbers if number))


def _explain(text: str, stripped: str) -> str:
    """Say why a text is not a duration."""
    if _BARE_NUMBER.fullmatch(stripped):
        return f"{_shorten(repr(text))} has no unit, write '{_shorten(stripped)}s' for seconds"
    return f"{_shorten(repr(text))} is not a duration, expected one like '30s', '500ms', '10m' or '1h30m'"


def _from_number(value: object) -> float:
    """Return a number of seconds as a float; a bool is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a duration like '30s' or a number of seconds, got {value!r}")  # noqa: TRY004 (one error for every bad duration)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _shorten(text: str, limit: int = 60) -> str:
    """Return a text cut to a length that fits a message."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
