"""Sizes as people write them: ``"512MiB"``, ``"1.5GB"``, or plain bytes."""

from __future__ import annotations

import re
from decimal import Decimal

__all__ = ["parse_size"]

_BYTES = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def parse_size(value: str | int) -> int:
    """Return a size in bytes.

    A whole number is bytes already. A text is one number with a unit: B, KB, MB and GB count in
    thousands, KiB, MiB and GiB in 1024s, and so do K, M and G alone, as systemd and Docker read
    them. A part of a byte is dropped. Raises ValueError for anything else.
    """
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a size like '512MiB' or a whole number of bytes, got {value!r}")  # noqa: TRY004 (one error for every bad size)
    if value < 0:
        raise ValueError(f"a size must not be negative, got {_shorten(repr(value))}")
    return value


def _from_text(text: str) -> int:
    """Return the bytes that a text stands for."""
    stripped = text.strip()
    match = _SIZE.fullmatch(stripped)
    if match is None:
        raise ValueError(
            f"{_shorten(repr(text))} is not a size, expected one like '512MiB', '4GiB' or '500MB'"
        )
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"{_shorten(repr(text))} has no unit, write '{_shorten(stripped)}B' for bytes")
    if unit not in _BYTES:
        raise ValueError(
            f"{_shorten(repr(text))} has the unknown unit {_shorten(repr(unit))}{_meant(unit)}, "
            f"known: {', '.join(_BYTES)}"
        )
    return int(Decimal(number) * _BYTES[unit])


def _meant(unit: str) -> str:
    """Say which unit differs from a wrong one in its case alone."""
    near = {known.lower(): known for known in _BYTES}.get(unit.lower())
    return f" (did you mean {near!r}?)" if near else ""


def _shorten(text: str, limit: int = 60) -> str:
    """Return a text cut to a length that fits a message."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
