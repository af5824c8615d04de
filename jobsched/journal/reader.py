"""Reading journals, and making one request of what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from jobsched.journal import file
from jobsched.locks import try_lock
from jobsched.store.base import NewJob, Request
from jobsched.store.journal_marks import Span

__all__ = ["Dispatched", "Reader", "request_of"]

_NEAR = 1024  # bytes from the beginning on, which are read with what follows them

_decode = msgspec.msgpack.Decoder(list[NewJob]).decode


class Dispatched(NamedTuple):
    """An entry of a journal: jobs that were dispatched in one call, `at` a time of the monotonic clock."""

    at: int
    journal: str
    number: int
    jobs: list[NewJob]


class Reader:
    """Reads a journal from behind an entry on, as it is written."""

    def __init__(self, path: Path, after: int) -> None:
        """Open it. Raises OSError; ValueError for what is no journal."""
        self.path = path
        self.name = path.stem
        self._handle = file.open_journal(path)
        self.next = after + 1
        self._key = file.key_of(self.name)
        self._offset = file.START

    def read(self) -> list[Dispatched]:
        """Return the entries that have come. Raises ValueError if the next one is whole and holds no jobs, or
        is not the next one.
        """
        offset = file.START if self._offset <= _NEAR else self._offset
        found = self._found(offset)
        if not found and offset != file.START:  # the client has begun again, as all were in the store
            found = self._found(file.START)
        return found

    def _found(self, offset: int) -> list[Dispatched]:
        found: list[Dispatched] = []
        for entry in file.read_entries(self._handle, self._key, self.next, offset):
            if entry.number != self.next:
                raise ValueError(f"{self.path} goes on with entry {entry.number:,}, not with {self.next:,}")
            try:
                jobs = _decode(entry.body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                if found:
                    break  # it is for the next time
                raise ValueError(f"{self.path} holds what are no jobs: {str(error)[:200]}") from error
            found.append(Dispatched(entry.at, self.name, entry.number, jobs))
            self.next, self._offset = entry.number + 1, entry.end
        return found

    def is_abandoned(self) -> bool:
        """Say whether its client is gone: nothing more will come then."""
        return try_lock(self._handle)

    @property
    def owner(self) -> int:
        """The uid whose file it is."""
        return os.fstat(self._handle).st_uid

    def close(self) -> None:
        """Let go of it."""
        os.close(self._handle)


def request_of(entries: Iterable[Dispatched]) -> Request:
    """Return the request that adds the jobs of entries, in the order of their times. Of each journal they
    must be those that come next.
    """
    jobs: list[NewJob] = []
    spans: dict[str, tuple[int, int]] = {}
    for entry in sorted(entries):
        jobs += entry.jobs
        first, _ = spans.get(entry.journal, (entry.number, 0))
        spans[entry.journal] = first, entry.number
    return Request(jobs=jobs, taken=[Span(name, first, last) for name, (first, last) in spans.items()])
