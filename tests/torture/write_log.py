"""The log of record_writes.c: what was written and flushed, and between it what was acknowledged."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

WRITE, SYNC_WRITE, SYNC_WRITE_DONE, FLUSH, TRUNCATE, ALLOCATE, NOTE, NAMED, REMOVED, DIRECTORY_FLUSH = range(
    1, 11
)
STORE = "data"
"""The store's file; the others are journals, by their names."""

_head = struct.Struct("<IIQQ40s")
_WITH_DATA = (WRITE, SYNC_WRITE, NOTE)


class Noted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something known to be on disk, noted after it was acknowledged. Ids of jobs.

    `digest` is that of the store's rows: only by who is alone in writing. `started` jobs have been
    claimed, `completed` ones have ended so.
    """

    digest: int | None = None
    accepted: list[bytes] = []
    started: list[bytes] = []
    completed: list[bytes] = []


class Entry(NamedTuple):
    """A write with its data, a flush, a change of length (`offset` is the new one), a note; that the file
    got its name, or lost it, or the directory of journals was flushed. The contents of the store's file have
    just been logged then: what was before has left nothing.
    """

    kind: int
    offset: int
    data: bytes
    file: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Noted).decode


def note(log: Path, noted: Noted) -> None:
    """Append a note to a log that processes under the recorder may write to at the same time."""
    data = _encode(noted)
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, _head.pack(NOTE, os.getpid(), 0, len(data), b"") + data)
    finally:
        os.close(handle)


def noted_in(entry: Entry) -> Noted:
    return _decode(entry.data)


def read_entries(log: Path) -> list[Entry]:
    """Return the entries of a log."""
    return list(_entries(log.read_bytes()))


def _entries(log: bytes) -> Iterator[Entry]:
    at = 0
    while at + _head.size <= len(log):
        kind, _pid, offset, length, name = _head.unpack_from(log, at)
        at += _head.size
        data = log[at : at + length] if kind in _WITH_DATA else b""
        at += len(data)
        yield Entry(kind, offset, data, name.rstrip(b"\0").decode())
