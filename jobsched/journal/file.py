"""The file of a journal: entries one behind the other, each with a number, a time and a checksum.

Its client writes the next entry behind the last one, or at the beginning again once all of them are in the
store. So the entries from the beginning on have consecutive numbers, and what follows them is older or
torn. The file has its full length on disk before it is used: an append changes nothing but its own bytes,
and needs no room. The checksums begin with the journal's name, which nobody can guess: else the arguments
of a job could hold what looks like an entry, where older entries lie behind the last one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobsched.locks import try_lock
from jobsched.store.place import sync_directory

__all__ = [
    "LENGTH",
    "MOST_BYTES",
    "START",
    "Entry",
    "create",
    "journal_files",
    "key_of",
    "open_journal",
    "packed",
    "read_entries",
    "write",
]

LENGTH = 256 << 10
MOST_BYTES = 64 << 10
"""Bytes of what one entry holds."""

_CHUNK = 16 << 10
_MAGIC = b"jobsched journal 1\n"
START = 64
"""Where the first entry is."""

_HEAD = struct.Struct("<QQII")  # number, time, bytes, checksum of the rest
_CHECKED = struct.Struct("<QQI")


class Entry(NamedTuple):
    """What was appended in one call. `at` is in nanoseconds of the machine's monotonic clock, `end` is
    where the next one is.
    """

    number: int
    at: int
    body: bytes
    end: int


def key_of(name: str) -> int:
    """Return what the checksums of a journal of that name begin with."""
    return zlib.crc32(name.encode())


def packed(key: int, number: int, at: int, body: bytes) -> bytes:
    """Return an entry as it is in the file."""
    size = len(body)
    checksum = zlib.crc32(body, zlib.crc32(_CHECKED.pack(number, at, size), key))
    return _HEAD.pack(number, at, size, checksum) + body


def write(handle: int, data: bytes, offset: int) -> None:
    """Write all of something. Raises OSError, also if a limit or the disk has taken only a part of it."""
    if os.pwrite(handle, data, offset) != len(data):
        raise OSError(errno.ENOSPC, "a journal was written in part")


def read_entries(handle: int, key: int, number: int, offset: int = START) -> Iterator[Entry]:
    """Yield the entries from a number on that lie one behind the other from an offset on, up to where one
    is missing, or not whole. From the beginning on, earlier ones are passed over.

    At another offset the first one must be that of the number: a later one means that the client has gone
    back to the beginning, and its next entries have come to lie here.
    """
    data, at = b"", 0
    expected = 0 if offset == START else number
    while True:
        entry = _entry(data, at, expected, key)
        if isinstance(entry, Entry):
            at, expected = entry.end, entry.number + 1
            if entry.number >= number:
                yield Entry(entry.number, entry.at, entry.body, offset + entry.end)
        elif entry and (more := os.pread(handle, max(_CHUNK, entry), offset + len(data))):
            data += more
        else:
            return


def _entry(data: bytes, at: int, expected: int, key: int) -> Entry | int:
    """Return the entry at a place in what was read; or else how many bytes more that takes, 0 where there
    is none. If a number is expected, it is that one.
    """
    body = at + _HEAD.size
    if body > len(data):
        return body - len(data)
    number, time, size, checksum = _HEAD.unpack_from(data, at)
    if not number or number != (expected or number) or size > MOST_BYTES:
        return 0
    end: int = body + size
    if end > len(data):
        return end - len(data)
    content = data[body:end]
    if zlib.crc32(content, zlib.crc32(data[at : at + _CHECKED.size], key)) != checksum:
        return 0
    return Entry(number, time, content, end)


def create(directory: Path) -> tuple[str, int]:
    """Make a journal in a directory of them; return its name and a handle, which has it locked for as long
    as its client lives. Raises OSError.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    name = uuid.uuid4().hex
    making = directory / f"{name}.new"
    handle = os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try_lock(handle)  # nobody else knows it yet
        write(handle, _MAGIC.ljust(LENGTH, b"\0"), 0)  # not only reserved: no flush has to note it
        os.fsync(handle)
        making.rename(directory / f"{name}.journal")
        for place in (directory, directory.parent):
            sync_directory(place)
    except BaseException:
        os.close(handle)
        for file in (making, directory / f"{name}.journal"):
            file.unlink(missing_ok=True)
        raise
    return name, handle


def open_journal(file: Path) -> int:
    """Return a handle for reading a journal. Raises OSError; ValueError for what is none."""
    handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, handle)
        if os.pread(handle, len(_MAGIC), 0) != _MAGIC:
            raise ValueError(f"{file} is no journal that this jobsched can read")
        stack.pop_all()
    return handle


def journal_files(directory: Path) -> list[Path]:
    """Return the journals in a directory of them, which need not be there."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(file for file in directory.iterdir() if file.suffix == ".journal")
    return []
