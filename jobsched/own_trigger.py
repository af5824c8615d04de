"""Triggers of the user's own in a schedule: their times are worked out ahead, where their code is.

The node runs no user code. So a schedule keeps the next times of such a trigger, worked out by whoever
adds it, and a job of the schedule's category works out more of them while there are some left.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from datetime import datetime
from importlib import import_module
from operator import attrgetter
from typing import Any

import msgspec

from jobsched.clock import from_micros, to_micros
from jobsched.errors import InvalidOption, JobschedError
from jobsched.trigger import Trigger

__all__ = ["AHEAD", "KnownTimes", "TimesUnknown", "known_times", "with_more"]

AHEAD = 100
"""How many times are worked out at a time."""

_LOW = AHEAD // 2


class TimesUnknown(JobschedError):
    """The next time of a trigger of the user's own is not worked out yet."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"the next times of trigger {kind!r} are not known: its code has not run in a worker"
        )


class KnownTimes(msgspec.Struct, frozen=True):
    """The times that are known of a trigger: `kind` is its class as module:name, `fields` what it was made
    of, in plain values. `is_all` says that it has no others.
    """

    kind: str
    fields: dict[str, Any]
    times: tuple[int, ...]
    is_all: bool

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"{self.kind}({fields})"

    def next_after(self, now: datetime) -> datetime | None:
        """Return the first time after one. Raises TimesUnknown behind the last that is known."""
        place = bisect_right(self.times, to_micros(now))
        if place < len(self.times):
            return from_micros(self.times[place])
        if self.is_all:
            return None
        raise TimesUnknown(self.kind)

    def needs_more(self, after: int) -> bool:
        """Say whether few of its times are left after an instant."""
        return not self.is_all and len(self.times) - bisect_right(self.times, after) < _LOW


def known_times(trigger: Trigger, after: int) -> KnownTimes:
    """Return the next times of a trigger. Raises InvalidOption for one that no worker could make again."""
    kind = f"{type(trigger).__module__}:{type(trigger).__qualname__}"
    is_made_of_fields = dataclasses.is_dataclass(trigger) or isinstance(trigger, msgspec.Struct)
    if "<locals>" in kind or kind.startswith("__main__:") or not is_made_of_fields:
        raise InvalidOption(
            "a trigger of your own must be a dataclass or msgspec.Struct of a module that workers import,"
            f" got {trigger!r}"
        )
    try:
        fields = msgspec.to_builtins(trigger, builtin_types=(bytes, datetime))
        msgspec.msgpack.encode(fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidOption(f"the fields of trigger {trigger!r} must be plain values: {error}") from None
    return _worked_out(trigger, kind, fields, after)


def with_more(known: KnownTimes, after: int) -> KnownTimes:
    """Return a trigger with its times after an instant, by its own code.

    Raises InvalidOption where that is not to be had, or raises.
    """
    module, _, name = known.kind.partition(":")
    try:
        trigger = msgspec.convert(known.fields, attrgetter(name)(import_module(module)))
    except (ImportError, AttributeError, msgspec.MsgspecError) as error:
        raise InvalidOption(f"the trigger {known.kind!r} cannot be made again: {error}") from error
    return _worked_out(trigger, known.kind, known.fields, after)


def _worked_out(trigger: Trigger, kind: str, fields: dict[str, Any], after: int) -> KnownTimes:
    times: list[int] = []
    at = after
    while len(times) < AHEAD:
        found = trigger.next_after(from_micros(at))
        if found is None:
            return KnownTimes(kind, fields, tuple(times), True)
        if not isinstance(found, datetime) or found.utcoffset() is None or to_micros(found) <= at:
            raise InvalidOption(
                f"trigger {trigger!r}: next_after({from_micros(at).isoformat()}) must be a later aware"
                f" datetime or None, got {found!r}"
            )
        at = to_micros(found)
        times.append(at)
    return KnownTimes(kind, fields, tuple(times), False)
