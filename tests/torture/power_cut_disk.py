"""What a disk may hold after a power cut: the files' flushed writes, and any part of the others."""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from write_log import (
    ALLOCATE,
    DIRECTORY_FLUSH,
    FLUSH,
    NAMED,
    NOTE,
    REMOVED,
    STORE,
    SYNC_WRITE,
    SYNC_WRITE_DONE,
    TRUNCATE,
    WRITE,
    Entry,
)

SECTOR = 512  # bytes that a disk writes whole or not at all


class Pending(NamedTuple):
    """A write that no flush has followed; without data, a growth of the file to `offset` bytes."""

    offset: int
    data: bytes


class Image(NamedTuple):
    """What is left of the store's file, and of the journals that have a name."""

    store: bytearray
    journals: dict[str, bytearray]


class Disk:
    """All files, as the entries of a log make them."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {STORE: File()}
        self._named: dict[str, bool] = {}  # journals, on the disk
        self._pending: dict[str, bool] = {}  # which have got or lost their names since

    def take(self, entry: Entry) -> None:
        """Do what an entry says."""
        if entry.kind == DIRECTORY_FLUSH:
            self._named |= self._pending
            self._pending.clear()
        elif entry.kind in (NAMED, REMOVED) and entry.file != STORE:
            self._pending[entry.file] = entry.kind == NAMED
        elif entry.kind != NOTE:
            self._files.setdefault(entry.file, File()).take(entry)

    def after_cut(self, way: str, rng: random.Random) -> Image:
        """Return what is left if the power fails now, one of `WAYS`."""
        chance = {"none": 0.0, "all": 1.0}.get(way, 0.5)
        renamed = {name: is_there for name, is_there in self._pending.items() if rng.random() < chance}
        there = [name for name, is_there in (self._named | renamed).items() if is_there]
        store = self._files[STORE].after_cut(way, rng)
        return Image(store, {name: self._files[name].after_cut(way, rng) for name in there})

    @property
    def is_settled(self) -> bool:
        """Whether a cut now can leave one image only."""
        return not self._pending and all(file.is_settled for file in self._files.values())


class File:
    """One file, as the entries of a log make it."""

    def __init__(self) -> None:
        self._durable = bytearray()
        self._pending: list[Pending] = []

    def take(self, entry: Entry) -> None:
        """Do what an entry says."""
        if entry.kind in (WRITE, SYNC_WRITE):
            self._pending.append(Pending(entry.offset, entry.data))
        elif entry.kind == ALLOCATE:
            self._pending.append(Pending(entry.offset, b""))
        elif entry.kind == SYNC_WRITE_DONE:
            _write(self._durable, self._pending.pop())  # it alone: what was before it may still be lost
        elif entry.kind == FLUSH:
            for pending in self._pending:
                _write(self._durable, pending)
            self._pending.clear()
        elif entry.kind == TRUNCATE:
            del self._durable[entry.offset :]

    def after_cut(self, way: str, rng: random.Random) -> bytearray:
        """Return what is left if the power fails now, one of `WAYS`."""
        image = self._durable.copy()
        for part in WAYS[way](self._pending, rng):
            _write(image, part)
        return image

    @property
    def is_settled(self) -> bool:
        """Whether a cut now can leave one image only."""
        return not self._pending


def _none(_pending: list[Pending], _rng: random.Random) -> Iterator[Pending]:
    return iter(())


def _all(pending: list[Pending], _rng: random.Random) -> Iterator[Pending]:
    return iter(pending)


def _prefix(pending: list[Pending], rng: random.Random) -> Iterator[Pending]:
    return iter(pending[: rng.randrange(len(pending) + 1)])


def _last(pending: list[Pending], _rng: random.Random) -> Iterator[Pending]:
    """Only the newest: writes need not reach the disk in their order."""
    return iter(pending[-1:])


def _sectors(pending: list[Pending], rng: random.Random) -> Iterator[Pending]:
    chance = rng.choice((0.05, 0.5, 0.95, rng.random()))
    for part in pending:
        for sector in _split(part):
            if rng.random() < chance:
                yield sector


def _split(part: Pending) -> Iterator[Pending]:
    if not part.data:
        yield part
    start = 0
    while start < len(part.data):
        end = start + SECTOR - (part.offset + start) % SECTOR
        yield Pending(part.offset + start, part.data[start:end])
        start = end


WAYS: dict[str, Callable[[list[Pending], random.Random], Iterator[Pending]]] = {
    "none": _none,
    "all": _all,
    "prefix": _prefix,
    "last": _last,
    "sectors": _sectors,
}


def _write(image: bytearray, part: Pending) -> None:
    end = part.offset + len(part.data)
    if len(image) < end:
        image.extend(bytes(end - len(image)))
    image[part.offset : end] = part.data
