"""What a look found: good or bad, in one sentence, and what to do about it."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Finding", "Level", "error", "fine", "warning"]

Level = Literal["ok", "warn", "error"]


class Finding(msgspec.Struct, frozen=True):
    """`area` is what was looked at; `mend` is a command, or what to change, empty where all is well."""

    level: Level
    area: str
    what: str
    mend: str = ""


def fine(area: str, what: str) -> Finding:
    """Return that all is well."""
    return Finding("ok", area, what)


def warning(area: str, what: str, mend: str) -> Finding:
    """Return what will hurt later, or may be meant so."""
    return Finding("warn", area, what, mend)


def error(area: str, what: str, mend: str) -> Finding:
    """Return what keeps jobs from running, or puts them at risk."""
    return Finding("error", area, what, mend)
