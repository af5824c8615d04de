"""Triggers as plain values, as a store and a wire keep them. Times and intervals are in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from jobsched.errors import InvalidOption
from jobsched.own_trigger import KnownTimes
from jobsched.trigger import Cron, Every, Once, Trigger

__all__ = ["from_data", "to_data"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)


def to_data(trigger: Trigger) -> list[Any]:
    """Return a trigger as a list that msgpack can carry. Raises InvalidOption for a trigger of your own."""
    match trigger:
        case Cron():
            return ["cron", trigger.expr, trigger.timezone, trigger.seconds]
        case Every():
            anchor = None if trigger.anchor is None else (trigger.anchor - _EPOCH) // _INSTANT
            return ["every", trigger.step // _INSTANT, anchor]
        case Once():
            return ["once", (trigger.at - _EPOCH) // _INSTANT]
        case KnownTimes():
            return ["own", trigger.kind, trigger.fields, list(trigger.times), trigger.is_all]
    raise InvalidOption(f"a schedule can keep a Cron, an Every or a Once, got {trigger!r}")


def from_data(data: Sequence[Any]) -> Trigger:
    """Return the trigger that `to_data` made a list of.

    Raises InvalidOption for anything else, and for a zone that this machine does not know. Whether a
    Cron ever fires is not looked for again: that takes as long as all the rest.
    """
    try:
        kind, *values = data
        made = _MAKERS[kind](*values)
    except InvalidOption:  # a ValueError too: of a zone, an expression
        raise
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InvalidOption(
            "a trigger must be ['cron', expression, zone, seconds], ['every', interval, anchor] "
            f"or ['once', time] with times in µs, got {repr(data)[:200]}"
        ) from None
    return made


def _cron(expr: str, timezone: str, seconds: bool) -> Trigger:  # noqa: FBT001 (a value of a list)
    if not isinstance(seconds, bool):
        raise TypeError(seconds)
    return Cron.known(expr, timezone, seconds=seconds)


def _every(interval_us: int, anchor_us: int | None) -> Trigger:
    anchor = None if anchor_us is None else _time(anchor_us)
    return Every(_whole(interval_us) * _INSTANT, anchor=anchor)


def _once(at_us: int) -> Trigger:
    return Once(_time(at_us))


def _time(us: int) -> datetime:
    return _EPOCH + _whole(us) * _INSTANT


def _whole(number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(number)
    return number


def _own(kind: str, fields: dict[str, Any], times: Sequence[int], is_all: bool) -> Trigger:  # noqa: FBT001 (as above)
    if not isinstance(kind, str) or not isinstance(fields, dict) or not isinstance(is_all, bool):
        raise TypeError(kind)
    return KnownTimes(kind, fields, tuple(map(_whole, times)), is_all)


_MAKERS: dict[str, Callable[..., Trigger]] = {"cron": _cron, "every": _every, "once": _once, "own": _own}
