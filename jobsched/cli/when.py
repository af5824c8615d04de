"""Instants as people write them on the command line."""

from __future__ import annotations

from datetime import datetime

from jobsched.errors import InvalidOption

__all__ = ["moment"]


def moment(option: str, text: str | None) -> datetime | None:
    """Return the instant that an ISO 8601 text with its offset stands for."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidOption(
            f"{option}: expected a time like 2030-01-31T08:00:00+01:00, got {text!r}"
        ) from None
    if found.tzinfo is None:
        raise InvalidOption(
            f"{option}: {text!r} has no time zone, end it with one like '+01:00', or 'Z' for UTC"
        )
    return found
