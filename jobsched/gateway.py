"""The way from outside to a store: through its node where one runs, straight to the file where none
does.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobsched import holders
from jobsched.clock import SystemClock
from jobsched.errors import Unavailable
from jobsched.job import is_final
from jobsched.job_id import ID_BYTES
from jobsched.journal.file import journal_files
from jobsched.journal.intake import take_in
from jobsched.journal.own import OwnJournal
from jobsched.locks import lock_file, try_lock
from jobsched.node_connection import PATIENCE_S, NodeConnection
from jobsched.store.base import Accepted, JobStore, Reply, Request, StoredJob, Turn
from jobsched.store.place import JOURNALS, make_private
from jobsched.store.schedule_query import Findings, FiringQuery, ScheduleQuery, findings

__all__ = ["Gateway"]

_LEAST_PATIENCE_S = 1.0  # with a node that is there and does not answer
_RETRY_S = 0.01
_TURN_S = 0.02  # that other clients may take before ours, before we ask for a node again
_PEEK_S = 0.0005
_POLL_S = 0.05  # reading results from the file while no node runs
_NO_FILE = (0, 0)
_NO_JOB = bytes(ID_BYTES)


class Gateway:
    """The way of a process outside the node to one store. Threads may share it."""

    def __init__(self, directory: Path, *, durable: bool, quota_bytes: int) -> None:
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._durable = durable  # False: the store lives in the node alone, there is no direct way
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._connection: NodeConnection | None = None  # whoever holds the lock
        self._journal = OwnJournal(directory)  # likewise
        self._store: JobStore | None = None
        self._opened_file = _NO_FILE
        self._pid = os.getpid()

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Have requests applied by the node, or by ourselves where no node runs."""
        self._start_afresh_after_fork()
        deadline = time.monotonic() + PATIENCE_S
        with self._lock:
            while True:
                try:
                    return self._by_journal(requests) or self._through_node(requests)
                except (FileNotFoundError, ConnectionRefusedError):
                    replies = self._directly(requests)
                    if replies is not None:
                        return replies
                except TimeoutError as error:
                    self._hang_up()
                    raise Unavailable(f"the node on {self._directory} does not answer") from error
                except (ConnectionError, BlockingIOError):
                    self._hang_up()  # it died, or stopped, or many wait; ask again, with the same ids
                except BaseException:
                    self._hang_up()
                    raise
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"neither a node on {self._directory} nor the store could be reached"
                        f" in {PATIENCE_S:g} s{_held_by(self._directory / 'writers.lock')}"
                    )
                time.sleep(_RETRY_S)

    def _by_journal(self, requests: Sequence[Request]) -> list[Reply] | None:
        """Write requests to a journal of our own; None where the node has to be asked."""
        if self._connection is None or not self._durable:
            return None
        try:
            is_written = self._journal.write(self._connection, requests)
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            raise ConnectionResetError(f"a journal cannot be written: {error}") from error
        return [Accepted()] * len(requests) if is_written else None

    def _through_node(self, requests: Sequence[Request]) -> list[Reply]:
        if self._connection is None:
            self._connection = NodeConnection(self._directory)
        return self._connection.exchange(requests)

    def _directly(self, requests: Sequence[Request]) -> list[Reply] | None:
        """Apply requests as a turn of our own; None while a node holds the store."""
        if not self._durable:
            raise Unavailable(
                f"no node runs on {self._directory}, and a memory: store lives in its node:"
                " start `jobsched run` first"
            )
        with _writing(self._directory) as allowed:
            if not allowed:
                return None
            store, now = self._opened(), self._clock.now()
            no_room = take_in(store, self._directory, now)
            behind = [no_room if request.jobs or request.schedules else None for request in requests]
            kept = [request for request, refused in zip(requests, behind, strict=True) if refused is None]
            replies = iter(store.apply(Turn(now=now, requests=kept)).replies)
            return [refused or next(replies) for refused in behind]

    def _opened(self) -> JobStore:
        """Return the store; opened again if a restore has put another file in its place."""
        if self._store is not None and self._file_id() != self._opened_file:
            self._store.close()
            self._store = None
        if self._store is None:
            from jobsched.store.lmdb import open_store  # noqa: PLC0415 (slow to import; mostly a node runs)

            self._store = open_store(self._directory, self._quota_bytes)
            self._opened_file = self._file_id()
        return self._store

    def _file_id(self) -> tuple[int, int]:
        try:
            info = (self._directory / "data.mdb").stat()
        except FileNotFoundError:
            return _NO_FILE
        return info.st_dev, info.st_ino

    def look(self, job_id: bytes, timeout_s: float | None) -> StoredJob | None:
        """Return a job; with a timeout (None: without end) wait until it has ended."""
        self._start_afresh_after_fork()
        began = time.monotonic()
        deadline = float("inf") if timeout_s is None else began + timeout_s
        patience_s = PATIENCE_S if not timeout_s else min(PATIENCE_S, timeout_s + _LEAST_PATIENCE_S)
        while True:
            rest = deadline - time.monotonic()
            try:
                return self._ask(job_id, timeout_s and max(rest, 0.001), patience_s)
            except TimeoutError as error:
                if timeout_s == 0 or timeout_s is None:
                    raise Unavailable(f"the node on {self._directory} does not answer") from error
                timeout_s, patience_s = 0, _LEAST_PATIENCE_S
            except (FileNotFoundError, ConnectionError, BlockingIOError):
                job, is_known = self._read(job_id)
                if not is_known and time.monotonic() - began < PATIENCE_S:
                    time.sleep(_RETRY_S)
                    continue
                if job is None or is_final(job.status.state) or rest <= 0:
                    return job
                time.sleep(min(_POLL_S, rest))

    def find(self, query: ScheduleQuery | FiringQuery) -> Findings:
        """Return what the store has of schedules."""
        self._start_afresh_after_fork()
        try:
            with contextlib.closing(NodeConnection(self._directory)) as connection:
                return connection.find(query)
        except TimeoutError as error:
            raise Unavailable(f"the node on {self._directory} does not answer") from error
        except (FileNotFoundError, ConnectionError, BlockingIOError):  # none runs, or it has died since
            if not self._durable:
                raise Unavailable(f"no node runs on {self._directory}") from None
            with self._lock:
                if self._file_id() == _NO_FILE:
                    return Findings()  # a look creates no store
                return findings(self._opened(), query)

    def settle(self) -> None:
        """Have all that was accepted be in the store's file, for those who read that themselves.

        Where another client writes meanwhile, it takes in the journals as well.
        """
        if not journal_files(self._directory / JOURNALS):
            return
        try:
            self._ask(_NO_JOB, 0, _LEAST_PATIENCE_S)  # a node answers when all that was written before is in
        except (FileNotFoundError, ConnectionError, BlockingIOError):
            with self._lock:
                self._take_in()
        except TimeoutError as error:
            raise Unavailable(f"the node on {self._directory} does not answer") from error

    def _ask(self, job_id: bytes, timeout_s: float | None, patience_s: float) -> StoredJob | None:
        # A connection of its own: waiting must not stand in the way of dispatches.
        connection = NodeConnection(self._directory, patience_s)
        try:
            return connection.look(job_id, timeout_s)
        finally:
            connection.close()

    def _read(self, job_id: bytes) -> tuple[StoredJob | None, bool]:
        """Return a job from the file, None if it is not there; and whether it is then nowhere else."""
        if not self._durable:
            raise Unavailable(f"no node runs on {self._directory}")
        with self._lock:
            job = self._opened().get(job_id)
            if job is not None or not journal_files(self._directory / JOURNALS):
                return job, True
            is_known = self._take_in()
            return self._opened().get(job_id), is_known

    def _take_in(self) -> bool:
        """Take in what journals hold; False while a node or another client may be at it."""
        with _writing(self._directory) as allowed:
            if allowed:
                take_in(self._opened(), self._directory, self._clock.now())
        return allowed

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._journal.detach()
            self._connection.close()
            self._connection = None

    def _start_afresh_after_fork(self) -> None:
        """Let go of what a fork has copied: a shared connection would mix up the answers."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._connection = None
            self._journal = OwnJournal(self._directory)
            self._store = None

    def close(self) -> None:
        """Hang up and let go of the store."""
        with self._lock:
            self._hang_up()
            self._journal.close()
            if self._store is not None:
                self._store.close()
                self._store = None


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[bool]:
    """Take writers.lock around one transaction; False while a node or another client has it.

    Not a shared side of it: LMDB lets one write at a time anyway, and waits without end for one that
    is stopped.
    """
    make_private(directory)
    with lock_file(directory / "writers.lock") as handle:
        yield _is_taken(handle)


def _is_taken(handle: int) -> bool:
    """Take a lock, unless it is held for longer than another client's commit takes."""
    deadline = time.monotonic() + _TURN_S
    while not try_lock(handle):
        if time.monotonic() > deadline:
            return False
        time.sleep(random.uniform(0, _PEEK_S))  # noqa: S311 (they must not come in step)
    return True


def _held_by(lock: Path) -> str:
    """Return who holds a lock, as the end of a message; nothing when nobody is seen to."""
    who = " and ".join(map(holders.described, holders.lockers(lock)))
    return f": {lock.name} is held by {who}" if who else ""
