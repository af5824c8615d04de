"""Amounts as people read them."""

from __future__ import annotations

__all__ = ["byte_size", "many", "span"]

_KIB = 1024
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def byte_size(count: float) -> str:
    """Return a number of bytes in its largest unit: ``12.3 MiB``."""
    if count < _KIB:
        return many(int(count), "byte")
    for unit in ("KiB", "MiB"):
        count /= _KIB
        if count < _KIB:
            return f"{count:,.1f} {unit}"
    return f"{count / _KIB:,.1f} GiB"


def many(number: int, what: str) -> str:
    """Return a number of things: ``1 job``, ``2,000 jobs``."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"


def span(seconds: float) -> str:
    """Return a length of time as categories.toml has it: ``1h30m``, ``0.5s``."""
    text, rest = "", seconds
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        text += f"{int(count)}{unit}" if count else ""
    return text + (f"{rest:g}s" if rest or not text else "")
