"""A log of turns: the history of a store, which can be checked and replayed.

A turn is data and a store takes the time from it, so the same turns applied to an empty store give
the same jobs, claim numbers and counts again. The file is a row of entries, each a 4-byte length
and a sealed msgpack body; an entry cut off by a crash at its end is no entry.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from jobsched.codec import BadRecord, seal, unseal
from jobsched.report import Decision
from jobsched.schedule import FiringRecord, StoredSchedule
from jobsched.store.base import CategoryStats, JobStore, Page, Query, Recovered, StoredJob, Turn, TurnResult

__all__ = ["Entry", "RecordingStore", "TurnLog", "read_log", "replay"]

_LENGTH = 4


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What was done to a store: a turn applied, or else a recovery with these workers held."""

    turn: Turn | None
    now: int = 0
    held: frozenset[int] = frozenset()


_encode = msgspec.msgpack.Encoder(enc_hook=list).encode  # jobs that are alike
_decode = msgspec.msgpack.Decoder(Entry).decode


class TurnLog:
    """An append-only file of entries. One writer at a time; not for several threads.

    Opening one that a crash has torn cuts the torn entry off. An entry is handed to the system
    when `append` returns: it survives the end of the process, not a power cut.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a+b")
        try:
            self._file.truncate(_whole_length(self._file))
        except BaseException:
            self._file.close()
            raise

    def append(self, entry: Entry) -> None:
        """Write an entry."""
        record = seal(_encode(entry))
        self._file.write(len(record).to_bytes(_LENGTH, "big") + record)
        self._file.flush()

    def close(self) -> None:
        """Close the file. May come twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RecordingStore:
    """A JobStore that logs what another one has done.

    Only what succeeded is logged, after it is durable: a crash between the two loses the last
    entry, and a turn that ended in CommitUnknown is not in the log whether it happened or not.
    """

    def __init__(self, store: JobStore, log: TurnLog) -> None:
        self.store = store
        self.log = log
        self._lock = threading.Lock()  # the log has the order in which the turns were applied

    def apply(self, turn: Turn) -> TurnResult:
        """Apply a turn and log it."""
        with self._lock:
            result = self.store.apply(turn)
            self.log.append(Entry(turn))
            return result

    def recover(self, now: int, held: frozenset[int] = frozenset()) -> Recovered:
        """Begin a node's life and log that."""
        with self._lock:
            recovered = self.store.recover(now, held)
            self.log.append(Entry(None, now, held))
            return recovered

    def in_progress(self) -> dict[int, list[bytes]]:
        """Return the jobs in progress by worker number."""
        return self.store.in_progress()

    def get(self, job_id: bytes) -> StoredJob | None:
        """Return a job, None if there is none of that id."""
        return self.store.get(job_id)

    def resolve(self, part: str) -> list[bytes]:
        """Return the ids that begin or end with some hex digits, two at most."""
        return self.store.resolve(part)

    def find(self, query: Query) -> Page:
        """Return a page of jobs."""
        return self.store.find(query)

    def stats(self) -> dict[str, CategoryStats]:
        """Return the counts per category."""
        return self.store.stats()

    def upcoming(self, until: int, limit: int) -> dict[str, int]:
        """Return per category how many scheduled jobs fall due by an instant."""
        return self.store.upcoming(until, limit)

    def schedule(self, name: str) -> StoredSchedule | None:
        """Return a schedule, None if there is none of that name."""
        return self.store.schedule(name)

    def schedules(self, after: str = "", limit: int = 200) -> list[StoredSchedule]:
        """Return schedules in the order of their names."""
        return self.store.schedules(after, limit)

    def due_schedules(self, now: int, limit: int) -> list[StoredSchedule]:
        """Return the first schedules that are to fire by now."""
        return self.store.due_schedules(now, limit)

    def firings(self, name: str, limit: int = 200, before: int = 0) -> list[FiringRecord]:
        """Return records of a schedule, the latest due time first."""
        return self.store.firings(name, limit, before)

    def decisions(self, limit: int) -> list[Decision]:
        """Return the balancer's last decisions, oldest first."""
        return self.store.decisions(limit)

    def journals(self) -> dict[str, int]:
        """Return up to which number the entries of journals are in the store."""
        return self.store.journals()

    def close(self) -> None:
        """Close the store and the log."""
        self.store.close()
        self.log.close()


def read_log(path: Path) -> Iterator[Entry]:
    """Yield the entries of a log, up to a torn one at its end.

    Raises BadRecord for one that is damaged and has others behind it.
    """
    with path.open("rb") as file:
        for body in _bodies(file):
            try:
                entry = _decode(body)
            except msgspec.MsgspecError as error:
                raise BadRecord(f"{path} holds an entry that is no turn: {error}") from error
            yield entry


def replay(path: Path, store: JobStore) -> int:
    """Do to a store what a log says, in its order; return the number of turns. Raises BadRecord."""
    turns = 0
    for entry in read_log(path):
        if entry.turn is None:
            store.recover(entry.now, entry.held)
        else:
            store.apply(entry.turn)
            turns += 1
    return turns


def _whole_length(file: BinaryIO) -> int:
    """Return how many bytes of a log are whole entries."""
    file.seek(0)
    length = 0
    for _ in _bodies(file):
        length = file.tell()
    return length


def _bodies(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bodies of a log's entries, up to one at the end that is cut off or half written."""
    size = os.fstat(file.fileno()).st_size
    while len(head := file.read(_LENGTH)) == _LENGTH:
        length = int.from_bytes(head, "big")
        record = file.read(length)
        if len(record) < length:
            return
        try:
            body = unseal(record)
        except BadRecord as error:
            if file.tell() == size:
                return
            raise BadRecord(f"{file.name} is damaged before byte {file.tell()}: {error}") from error
        yield body
