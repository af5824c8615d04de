"""What is printed: tables for people, aligned text for pipes, JSON for programs."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jobsched.clock import from_micros
from jobsched.job import State

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "STATE_STYLES",
    "age",
    "clean",
    "console",
    "is_terminal",
    "iso_time",
    "local_time",
    "note",
    "plain",
    "print_json",
    "say",
]

STATE_STYLES = {
    State.SCHEDULED: "blue",
    State.PENDING: "default",
    State.IN_PROGRESS: "cyan",
    State.COMPLETED: "green",
    State.FAILED: "red",
    State.CANCELLED: "dim",
    State.PARKED: "yellow",
    State.QUARANTINED: "bold red",
}
"""How each state looks at a terminal."""

# Control characters, those that turn the direction of text, and lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINES = re.compile(r"[\n\t\u2028\u2029]")


def is_terminal() -> bool:
    """Return whether people look at the output."""
    return sys.stdout.isatty()


def console() -> Console:
    """Return rich's console on stdout."""
    from rich.console import Console  # noqa: PLC0415 (only where it is used: it is slow to import)

    return Console(highlight=False, markup=False, emoji=False)


def clean(text: str, *, lines: bool = False) -> str:
    """Return a text of a job without what could steer a terminal; in one line unless `lines`."""
    return _CONTROL.sub("", text if lines else _LINES.sub(" ", text))


def say(text: str) -> None:
    """Print a line to stdout."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print a line to stderr."""
    sys.stdout.flush()
    sys.stderr.write(f"jobsched: {clean(text, lines=True)}\n")
    sys.stderr.flush()


def print_json(*values: Any) -> None:
    """Print values as JSON, each in one line, and flush: another program may be waiting."""
    for value in values:
        text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
        sys.stdout.write(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """Return a value as JSON has it: bytes as base64, times as ISO 8601, keys as text."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, str | int | float):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    return value.isoformat() if isinstance(value, datetime) else str(value)


def iso_time(micros: int) -> str | None:
    """Return an instant as programs read it: ISO 8601 in UTC; None for 0, which is none."""
    return from_micros(micros).isoformat(timespec="microseconds") if micros else None


def local_time(micros: int) -> str:
    """Return an instant as people read it: in their time zone, with its offset."""
    return from_micros(micros).astimezone().isoformat(" ", "milliseconds")


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def age(seconds: float) -> str:
    """Return a span in its largest unit: ``5s``, ``3h``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"
