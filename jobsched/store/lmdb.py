"""The embedded job store: one LMDB file, durable at every commit.

Default flags of LMDB: a commit is two flushes, and survives kill -9 and a power cut. One
environment per path and process, closed in forked children, where using it would corrupt it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import lmdb
import msgspec

from jobsched.codec import BadRecord
from jobsched.errors import CommitUnknown, NotCommitted, StoreError, StoreFormatError, StoreUnsafe
from jobsched.job import JobStatus, State, part_of_id
from jobsched.report import Decision
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import (
    CategoryStats,
    Page,
    Query,
    Recovered,
    Refused,
    Reply,
    Request,
    StoredJob,
    Turn,
    TurnResult,
)
from jobsched.store.lmdb_find import found_rows, ids_after
from jobsched.store.lmdb_layout import CategoryRow, Counters, Databases, Txn
from jobsched.store.lmdb_rows import Rows
from jobsched.store.lmdb_turn import LmdbTurn
from jobsched.store.migrate import migrate
from jobsched.store.place import make_private

__all__ = ["LmdbStore", "open_store"]

_MAP_SIZE = 64 << 30  # sparse; never grown at run time
_PAGE_ROWS = 2000  # rows that one read may look at: a long read makes the file grow
_PAGE_JOBS = 200
_ID_DIGITS = 32
_ENOUGH = 2  # ids that a part may mean: it is ambiguous then

# One environment per path: LMDB refuses a second one in a process. Threads share it, under the lock.
_open: dict[Path, LmdbStore] = {}
_open_lock = threading.Lock()


def open_store(path: Path) -> LmdbStore:
    """Return the store in a directory, creating it if there is none.

    A store of an older format is migrated. Raises StoreUnsafe for a place that must not be used,
    StoreFormatError for a store that a newer jobsched has written. Opening it again in the same
    process gives the same object; each `open_store` needs its own `close`.
    """
    place = path.resolve()
    with _open_lock:
        store = _open.get(place)
        if store is None:
            store = _open[place] = LmdbStore(place)
        store.users += 1
        return store


def _hold_for_fork() -> None:
    """Wait until no thread is inside an environment: its locks would stay taken in the child."""
    _open_lock.acquire()
    for store in _open.values():
        store.lock.acquire()


def _release_after_fork() -> None:
    for store in _open.values():
        store.lock.release()
    _open_lock.release()


def _close_in_child() -> None:
    """Drop what a fork inherited: an inherited environment works, and corrupts."""
    for store in _open.values():
        store.abandon()
        store.lock.release()
    _open.clear()
    _open_lock.release()


os.register_at_fork(
    before=_hold_for_fork, after_in_parent=_release_after_fork, after_in_child=_close_in_child
)


class LmdbStore:
    """A `JobStore` in a directory of its own. Made by `open_store`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.users = 0
        make_private(path)
        self.lock = threading.Lock()  # held inside the environment; it guards the cache below too
        self._env, self._dbs = self._open_environment()
        self._cache: tuple[int, Counters, dict[str, CategoryRow]] | None = None

    def _open_environment(self) -> tuple[lmdb.Environment, Databases]:
        fresh = not (self.path / "data.mdb").exists()
        try:
            env = lmdb.open(
                str(self.path), map_size=_MAP_SIZE, max_dbs=16, max_readers=1024, mode=0o700, lib_version=0
            )
        except MemoryError as error:
            raise StoreUnsafe(
                f"cannot map {self.path}: raise the limit on address space (ulimit -v)"
            ) from error
        except lmdb.Error as error:
            raise StoreError(f"cannot open the store {self.path}: {error}") from error
        env.reader_check()
        dbs = Databases.open(env)
        self._check_format(env, dbs)
        if fresh:
            self._sync_directory()
        return env, dbs

    def _check_format(self, env: lmdb.Environment, dbs: Databases) -> None:
        with env.begin(db=dbs.meta) as txn:
            found = txn.get(b"format")
        if found is None:
            with env.begin(db=dbs.meta, write=True) as txn:
                txn.put(b"format", str(layout.FORMAT).encode(), overwrite=False)
                txn.put(b"store", uuid.uuid4().bytes, overwrite=False)
        elif not found.isdigit() or int(found) > layout.FORMAT:
            env.close()
            raise StoreFormatError(
                f"the store {self.path} has format {found.decode(errors='replace')}, this jobsched "
                f"knows up to {layout.FORMAT}: upgrade jobsched"
            )
        elif int(found) < layout.FORMAT:
            try:
                migrate(env, dbs, self.path)
            except BaseException:
                env.close()
                raise

    def _sync_directory(self) -> None:
        """LMDB does not flush the directory entry of the file that it creates."""
        for place in (self.path, self.path.parent):
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def close(self) -> None:
        """Let go of the store; the last user's close closes the file."""
        with _open_lock:
            self.users -= 1
            if self.users > 0 or _open.pop(self.path, None) is None:
                return
            self._env.close()

    def abandon(self) -> None:
        """Close the environment that a fork inherited."""
        self._env.close()

    # Writing.

    def apply(self, turn: Turn) -> TurnResult:
        """Apply a turn as one transaction, durable on return."""
        with self.lock:
            try:
                return self._apply(turn)
            except lmdb.MapFullError:
                return self._apply_without_jobs(turn)

    def _apply(self, turn: Turn) -> TurnResult:
        with self._writing() as (txn, counters, categories):
            return LmdbTurn(Rows(txn, self._dbs, counters, categories)).apply(turn)

    def _apply_without_jobs(self, turn: Turn) -> TurnResult:
        """Refuse the requests that add, as the map is full, and let everything else through."""
        full = Refused("StoreFull", f"the store {self.path} is full")
        kept = [request for request in turn.requests if not request.jobs]
        try:
            result = self._apply(_with_requests(turn, kept))
        except lmdb.MapFullError as error:
            raise NotCommitted(f"the store {self.path} is full") from error
        answers = iter(result.replies)
        replies: list[Reply] = [full if request.jobs else next(answers) for request in turn.requests]
        return TurnResult(
            replies=replies,
            lost=result.lost,
            claims=result.claims,
            released=result.released,
            next_due=result.next_due,
            stats=result.stats,
            blocked=result.blocked,
            pruned=result.pruned,
        )

    def recover(self, now: int, held: frozenset[int] = frozenset()) -> Recovered:
        """Begin a node's life: put back what an earlier one left in progress."""
        with self.lock, self._writing() as (txn, counters, categories):
            put_back = LmdbTurn(Rows(txn, self._dbs, counters, categories)).recover(now, held)
            return Recovered(epoch=counters.epoch, put_back=put_back)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[Txn, Counters, dict[str, CategoryRow]]]:
        """Give a write transaction and the small databases; commit at the end.

        Counters and categories are read again only if another process has committed since: a write
        transaction's id is that of the last commit plus one.
        """
        try:
            txn = self._env.begin(write=True)
        except lmdb.Error as error:
            raise NotCommitted(f"cannot begin a transaction on {self.path}: {error}") from error
        cache, self._cache = self._cache, None
        try:
            if cache is None or cache[0] != txn.id() - 1:
                cache = (0, layout.read_counters(txn, self._dbs), layout.read_categories(txn, self._dbs))
            _, counters, categories = cache
            yield txn, counters, categories
            number = txn.id()
        except lmdb.MapFullError:
            txn.abort()
            raise
        except lmdb.Error as error:
            txn.abort()
            raise NotCommitted(f"the store {self.path} failed: {error}") from error
        except BaseException:
            txn.abort()
            raise
        try:
            txn.commit()
        except lmdb.MapFullError:
            raise
        except lmdb.Error as error:
            raise CommitUnknown(f"the store {self.path} failed at a commit: {error}") from error
        self._cache = (number, counters, categories)

    # Reading. Each is one short transaction.

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Txn]:
        try:
            with self.lock, self._env.begin() as txn:
                yield txn
        except lmdb.Error as error:
            raise StoreError(f"cannot read the store {self.path}: {error}") from error

    def get(self, job_id: bytes) -> StoredJob | None:
        """Return a job, None if there is none of that id."""
        with self._reading() as txn:
            job = self._load(txn, job_id)
            return job and msgspec.structs.replace(job, attempts=layout.read_attempts(txn, self._dbs, job_id))

    def in_progress(self) -> dict[int, list[bytes]]:
        """Return the jobs in progress by worker number."""
        held: dict[int, list[bytes]] = {}
        with self._reading() as txn:
            for _, value in txn.cursor(db=self._dbs.running):
                job_id, worker, _ = layout.split_running(value)
                held.setdefault(worker, []).append(job_id)
        return held

    def stats(self) -> dict[str, CategoryStats]:
        """Return the counts per category."""
        with self._reading() as txn:
            rows = layout.read_categories(txn, self._dbs)
        return {name: row.stats() for name, row in rows.items()}

    def upcoming(self, until: int, limit: int) -> dict[str, int]:
        """Return per category how many scheduled jobs fall due before an instant."""
        counts: dict[int, int] = {}
        with self._reading() as txn:
            for key, value in islice(txn.cursor(db=self._dbs.scheduled), limit):
                if layout.split_scheduled(key)[0] > until:
                    break
                number = int.from_bytes(value, "big")
                counts[number] = counts.get(number, 0) + 1
            names = {row.number: name for name, row in layout.read_categories(txn, self._dbs).items()}
        return {names[number]: count for number, count in counts.items()}

    def decisions(self, limit: int) -> list[Decision]:
        """Return the balancer's last decisions, oldest first."""
        with self._reading() as txn:
            return layout.read_decisions(txn, self._dbs, limit)

    def resolve(self, part: str) -> list[bytes]:
        """Return the ids that begin or end with a text of 6 or more hex digits, two at most."""
        digits = part_of_id(part)
        if len(digits) == _ID_DIGITS:
            whole = bytes.fromhex(digits)
            return [whole] if self.get(whole) else []
        after = b""
        found: list[bytes] = []
        while len(found) < _ENOUGH:
            with self._reading() as txn:  # a new one each time: all keys may be millions
                keys = ids_after(txn, self._dbs, after, 20 * _PAGE_ROWS)
            if not keys:
                break
            after = keys[-1]
            found += [key for key in keys if key.hex().startswith(digits) or key.hex().endswith(digits)]
        return found[:_ENOUGH]

    def find(self, query: Query) -> Page:
        """Return a page of jobs."""
        limit = min(query.limit, _PAGE_JOBS)
        with self._reading() as txn:
            numbers = {name: row.number for name, row in layout.read_categories(txn, self._dbs).items()}
            rows = found_rows(txn, self._dbs, query, numbers)
            jobs: list[StoredJob] = []
            last = b""
            for place, job_id in islice(rows, _PAGE_ROWS):
                last = place
                job = self._load(txn, job_id)
                if job is not None and query.category in (None, job.status.category):
                    jobs.append(job)
                if len(jobs) == limit:
                    break
            more = next(rows, None) is not None
        return Page(jobs=jobs, next=last if more else None)

    def _load(self, txn: Txn, job_id: bytes) -> StoredJob | None:
        data = txn.get(job_id, db=self._dbs.statuses)
        if data is None:
            return None
        try:
            status = layout.decode_status(data)
        except BadRecord:
            status = JobStatus(State.PARKED, "", 0)
        left = layout.read_result(txn, self._dbs, job_id)
        return StoredJob(
            id=job_id,
            status=status,
            record=layout.get_blob(txn, self._dbs.jobs, job_id),
            result=left.result,
            error=left.error,
        )


def _with_requests(turn: Turn, requests: list[Request]) -> Turn:
    return msgspec.structs.replace(turn, requests=requests)
