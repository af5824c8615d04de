"""Job ids: made by the dispatcher, so that repeating a dispatch cannot make a second job."""

from __future__ import annotations

import os
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Annotated

import msgspec

__all__ = ["ID_BYTES", "JobId", "format_id", "new_id", "new_ids", "parse_id", "part_of_id"]

ID_BYTES = 16
JobId = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
"""A job's id, checked where one is decoded."""

_MIN_PART = 6
_STOCK = 128  # randoms that are drawn at a time for single ids, as each draw is a system call
_pack_halves = struct.Struct(">QQ").pack
_VARIANT = bytes(0x80 | byte >> 2 for byte in range(256))  # of RFC 9562, in a byte's two highest bits


class _IdSource:
    """UUIDv7 (RFC 9562): 48 bits of milliseconds, 12 of their fraction, 62 random.

    Ids made by one process only grow, also within a millisecond and when the clock steps back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0  # the time of the last id, in 4,096ths of a millisecond; any thread, under the lock
        self._randoms: list[int] = []  # likewise

    def begin_anew(self) -> None:
        """Begin with a new lock and other randoms, in a forked child; its ids go on from the parent's."""
        self._lock = threading.Lock()
        self._randoms = []

    def next(self) -> bytes:
        stamp = (time.time_ns() << 12) // 1_000_000
        with self._lock:
            if stamp <= self._last:
                stamp = self._last + 1
            self._last = stamp
            if not self._randoms:
                self._randoms = list(_lower_halves(_STOCK))
            random = self._randoms.pop()
        return _pack_halves((stamp >> 12) << 16 | 0x7000 | stamp & 0xFFF, random)

    def next_ones(self, count: int) -> list[bytes]:
        stamp = (time.time_ns() << 12) // 1_000_000
        with self._lock:
            first = max(stamp, self._last + 1)
            self._last = first + count - 1
        return list(map(_pack_halves, _upper_halves(first, count), _lower_halves(count)))


def _upper_halves(first: int, count: int) -> Iterator[int]:
    """Yield the upper halves of ids with stamps from `first` on: those of a millisecond are a range."""
    while count > 0:
        alike = min(count, 0x1000 - (first & 0xFFF))
        half = (first >> 12) << 16 | 0x7000 | first & 0xFFF
        yield from range(half, half + alike)
        first, count = first + alike, count - alike


def _lower_halves(count: int) -> tuple[int, ...]:
    """Draw the random halves of so many ids."""
    drawn = bytearray(os.urandom(8 * count))
    drawn[::8] = drawn[::8].translate(_VARIANT)
    return struct.unpack(f">{count}Q", drawn)


_ids = _IdSource()


def _free_in_child() -> None:
    """Renew what a fork has copied: a lock that a thread may have held which is not here, and randoms
    that only one process may use.
    """
    _ids.begin_anew()


os.register_at_fork(after_in_child=_free_in_child)


def new_id() -> bytes:
    """Return a new job id: a UUIDv7 of 16 bytes."""
    return _ids.next()


def new_ids(count: int) -> list[bytes]:
    """Return so many new job ids, which grow; in a fifth of the time that they take one by one."""
    return _ids.next_ones(count)


def format_id(job_id: bytes) -> str:
    """Return the text form of a job id."""
    digits = job_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_id(text: str) -> bytes:
    """Return the 16 bytes of a job id's text form. Raises ValueError if it is none."""
    return uuid.UUID(text).bytes


def part_of_id(text: str) -> str:
    """Return the digits of a part of an id. Raises ValueError for fewer than 6, or other characters."""
    digits = text.replace("-", "").lower()
    if len(digits) < _MIN_PART or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(f"{text!r} is no part of a job id: 6 or more of its hex digits are needed")
    return digits
