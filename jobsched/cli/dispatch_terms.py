"""On which terms a dispatched job runs, from the options of a command or the keys of a line."""

from __future__ import annotations

from typing import Literal, cast

from jobsched.errors import InvalidOption
from jobsched.terms import ConcurrencyLimit, Unique

__all__ = ["limit_of", "unique_of"]

_Conflict = Literal["keep", "refuse", "replace"]


def unique_of(key: str | None, on_conflict: str | None, prefix: str = "") -> Unique | None:
    """Return what keeps a second job of the key away; None without a key. `prefix` begins options."""
    if key is None:
        if on_conflict is not None:
            raise InvalidOption(f"{_name(prefix, 'on_conflict')} is for {_name(prefix, 'unique')}: pass both")
        return None
    return Unique(key=key, on_conflict=cast("_Conflict", on_conflict or "keep"))


def limit_of(key: str | None, max_running: int | None, prefix: str = "") -> ConcurrencyLimit | None:
    """Return the limit of a key; None without one."""
    if key is None:
        if max_running is not None:
            raise InvalidOption(
                f"{_name(prefix, 'max_running')} is for {_name(prefix, 'limit_key')}: pass both"
            )
        return None
    return ConcurrencyLimit(key, 1 if max_running is None else max_running)


def _name(prefix: str, key: str) -> str:
    return f"{prefix}{key.replace('_', '-')}" if prefix else key
