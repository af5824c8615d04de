"""The log of record_writes.c: what was written and flushed, and between it what was acknowledged."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

WRITE, SYNC_WRITE, SYNC_WRITE_DONE, FLUSH, TRUNCATE, ALLOCATE, NOTE, NAMED = range(1, 9)

_head = struct.Struct("<IIQQ")
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
    """A write with its data, a flush, a change of length (`offset` is the new one), a note; or that
    the file, whose contents have just been logged, got its name: what was before has left nothing.
    """

    kind: int
    offset: int
    data: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Noted).decode


def note(log: Path, noted: Noted) -> None:
    """Append a note to a log that processes under the recorder may write to at the same time."""
    data = _encode(noted)
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, _head.pack(NOTE, os.getpid(), 0, len(data)) + data)
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
        kind, _pid, offset, length = _head.unpack_from(log, at)
        at += _head.size
        data = log[at : at + length] if kind in _WITH_DATA else b""
        at += len(data)
        yield Entry(kind, offset, data)
