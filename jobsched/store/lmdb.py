"""The embedded job store: one LMDB file, durable at every commit.

Default flags of LMDB: a commit is two flushes, and survives kill -9 and a power cut. One
environment per path and process, closed in forked children, where using it would corrupt it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import lmdb
import msgspec

from jobsched.codec import BadRecord
from jobsched.errors import CommitUnknown, NoRoom, NotCommitted, StoreError
from jobsched.job import JobStatus, State
from jobsched.job_id import part_of_id
from jobsched.report import Decision
from jobsched.schedule import FiringRecord, StoredSchedule
from jobsched.store import lmdb_layout as layout
from jobsched.store import lmdb_schedules as schedules
from jobsched.store.base import (
    CategoryStats,
    Page,
    Query,
    Recovered,
    Refused,
    Reply,
    StoredJob,
    Turn,
    TurnResult,
)
from jobsched.store.lmdb_env import open_environment
from jobsched.store.lmdb_find import found_rows, ids_after
from jobsched.store.lmdb_journals import read_marks
from jobsched.store.lmdb_layout import Cache, Txn
from jobsched.store.lmdb_parts import apply_in_parts
from jobsched.store.lmdb_rows import Rows
from jobsched.store.lmdb_space import (
    DEFAULT_QUOTA,
    Space,
    adds,
    is_out_of_room,
    needed_for,
    needed_for_firings,
    needed_for_outcomes,
    needed_for_schedules,
)
from jobsched.store.lmdb_turn import LmdbTurn
from jobsched.store.place import make_private

__all__ = ["LmdbStore", "open_store"]

_PAGE_ROWS = 2000  # rows that one read may look at: a long read makes the file grow
_PAGE_JOBS = 200
_ID_DIGITS = 32
_ENOUGH = 2  # ids that a part may mean: it is ambiguous then

# One environment per path: LMDB refuses a second one in a process. Threads share it, under the lock.
_open: dict[Path, LmdbStore] = {}
_open_lock = threading.Lock()


def open_store(path: Path, quota_bytes: int = DEFAULT_QUOTA) -> LmdbStore:
    """Return the store in a directory, creating it if there is none. It takes no new jobs when its
    data would pass the quota.

    A store of an older format is migrated. Raises StoreUnsafe for a place that must not be used,
    StoreFormatError for a store that a newer jobsched has written. Opening it again in the same
    process gives the same object; each `open_store` needs its own `close`.
    """
    place = path.resolve()
    with _open_lock:
        store = _open.get(place)
        if store is None:
            store = _open[place] = LmdbStore(place, quota_bytes)
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

    def __init__(self, path: Path, quota_bytes: int) -> None:
        self.path = path
        self._quota_bytes = quota_bytes
        self.users = 0
        make_private(path)
        self.lock = threading.Lock()  # held inside the environment; it guards the cache below too
        self._is_broken = False  # a commit has failed since it was opened
        self._is_over = False  # the turn takes in what there is no room for by the quota
        self._env, self._dbs = open_environment(path)
        self._space = Space(path, self._env, self._dbs, quota_bytes)
        self._cache: Cache | None = None

    def close(self) -> None:
        """Let go of the store; the last user's close closes the file."""
        with _open_lock:
            self.users -= 1
            if self.users > 0 or _open.pop(self.path, None) is None:
                return
            self._close()

    def abandon(self) -> None:
        """Close the environment that a fork inherited."""
        self._close()

    # Writing.

    def apply(self, turn: Turn) -> TurnResult:
        """Apply a turn as one transaction, durable on return."""
        with self.lock:
            refused = self._without_room(turn)
            try:
                return self._apply(turn, refused)
            except NoRoom as error:
                self._space.is_full = True
                adding = [place for place, request in enumerate(turn.requests) if adds(request)]
                return apply_in_parts(self._apply, turn, dict.fromkeys(adding, str(error)))

    def _without_room(self, turn: Turn) -> dict[int, str]:
        """Return the places of the requests for which there is no room, and why; that of the firings is
        behind them all. Journals' entries were accepted: they are let in before all else, and over the quota.
        """
        refused: dict[int, str] = {}
        unfinished = self._unfinished()
        needed = needed_for_outcomes(turn.outcomes)
        if turn.outcomes:
            self._space.refusal(needed, unfinished)  # whether to save
        self._is_over = False
        for place, request in sorted(enumerate(turn.requests), key=lambda entry: not entry[1].taken):
            if adds(request):
                size = needed_for(request.jobs) + needed_for_schedules(request.schedules)
                why = self._space.refusal(needed + size, unfinished)
                if why is None or request.taken:
                    needed += size
                    self._is_over |= why is not None
                else:
                    refused[place] = why
        if turn.firings:
            why = self._space.refusal(needed + needed_for_firings(turn.firings), unfinished)
            if why is not None:
                refused[len(turn.requests)] = why
        return refused

    def _unfinished(self) -> int:
        """Return how many jobs have an outcome still to be written, as far as this process knows."""
        if self._cache is None:
            return 0
        return sum(sum(row.counts[: State.COMPLETED]) for row in self._cache.categories.values())

    def _apply(self, turn: Turn, refused: Mapping[int, str]) -> TurnResult:
        """Apply a turn but for the requests that are refused. Raises NoRoom, and changes nothing."""
        kept = [request for place, request in enumerate(turn.requests) if place not in refused]
        firings = () if len(turn.requests) in refused else turn.firings
        with self._writing() as (txn, cache):
            rows = Rows(txn, self._dbs, cache, turn.watch)
            result = LmdbTurn(rows, saves=self._space.is_full).apply(
                msgspec.structs.replace(turn, requests=kept, firings=firings) if refused else turn
            )
        if not refused and not self._space.is_full and not self._is_over:
            return result
        answers = iter(result.replies)
        replies: list[Reply] = [
            Refused("StoreFull", refused[place]) if place in refused else next(answers)
            for place in range(len(turn.requests))
        ]
        is_full, is_over = self._space.is_full, self._is_over
        return msgspec.structs.replace(result, replies=replies, is_full=is_full, is_over=is_over)

    def recover(self, now: int, held: frozenset[int] = frozenset()) -> Recovered:
        """Begin a node's life: put back what an earlier one left in progress."""
        with self.lock, self._writing() as (txn, cache):
            put_back = LmdbTurn(Rows(txn, self._dbs, cache)).recover(now, held)
            return Recovered(epoch=cache.counters.epoch, put_back=put_back)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[Txn, Cache]]:
        """Give a write transaction and what is known of the store; commit at the end.

        What is known is forgotten only if another process has committed since: a write transaction's
        id is that of the last commit plus one.
        """
        try:
            self._mend()
            txn = self._env.begin(write=True)
        except (lmdb.Error, StoreError) as error:
            raise NotCommitted(f"cannot begin a transaction on {self.path}: {error}") from error
        cache, self._cache = self._cache, None
        try:
            number = txn.id()
            if cache is None or cache.number != number - 1:
                cache = layout.read_cache(txn, self._dbs)
                cache.next_fire = schedules.read_next_fire(txn, self._dbs)
            yield txn, cache
            cache.number = number
        except lmdb.Error as error:
            txn.abort()
            raise self._failure(error) from error
        except BaseException:
            txn.abort()
            raise
        try:
            txn.commit()
        except lmdb.Error as error:
            self._is_broken = True
            if not self._is_committed(number, error):
                raise self._failure(error) from error
        self._cache = cache

    def _failure(self, error: lmdb.Error) -> NotCommitted:
        if isinstance(error, lmdb.MapFullError) or is_out_of_room(error, self.path):
            return NoRoom(f"the store {self.path} is full: {error}")
        return NotCommitted(f"the store {self.path} failed: {error}")

    def _is_committed(self, number: int, failure: lmdb.Error) -> bool:
        """Find out whether a commit that failed has happened after all: nobody else writes meanwhile.

        LMDB writes the data, flushes, and then writes a page that makes it count. If that page was
        all that failed, it may be there: another commit then puts its own page, which says the same,
        beside it. Raises CommitUnknown if not even that succeeds.
        """
        try:
            self._mend()
            if self._env.info()["last_txnid"] < number:
                return False
            with self._env.begin(db=self._dbs.meta, write=True) as txn:
                txn.put(b"reopened", number.to_bytes(8, "big"))
        except (lmdb.Error, StoreError) as error:
            self._is_broken = True
            raise CommitUnknown(f"the store {self.path} failed at a commit: {failure}") from error
        return True

    def _mend(self) -> None:
        """Open the environment again after a failed commit: LMDB refuses everything until then."""
        if self._is_broken:
            self._close()
            self._env, self._dbs = open_environment(self.path)
            self._space = Space(self.path, self._env, self._dbs, self._quota_bytes)
            self._cache = None
            self._is_broken = False

    def _close(self) -> None:
        self._space.close()
        self._env.close()

    # Reading. Each is one short transaction.

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Txn]:
        try:
            with self.lock:
                self._mend()
                with self._env.begin() as txn:
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

    def schedule(self, name: str) -> StoredSchedule | None:
        """Return a schedule, None if there is none of that name."""
        with self._reading() as txn:
            return schedules.read_schedule(txn, self._dbs, name)

    def schedules(self, after: str = "", limit: int = _PAGE_JOBS) -> list[StoredSchedule]:
        """Return schedules in the order of their names."""
        with self._reading() as txn:
            return schedules.read_page(txn, self._dbs, after, min(limit, _PAGE_JOBS))

    def due_schedules(self, now: int, limit: int) -> list[StoredSchedule]:
        """Return the first schedules that are to fire by now."""
        with self._reading() as txn:
            return schedules.read_due(txn, self._dbs, now, limit)

    def firings(self, name: str, limit: int = _PAGE_JOBS, before: int = 0) -> list[FiringRecord]:
        """Return records of a schedule, the latest due time first."""
        with self._reading() as txn:
            return schedules.read_records(txn, self._dbs, name, min(limit, _PAGE_JOBS), before)

    def journals(self) -> dict[str, int]:
        """Return up to which number the entries of journals are in the store."""
        with self._reading() as txn:
            return read_marks(txn, self._dbs)

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
        record = layout.get_blob(txn, self._dbs.jobs, job_id)
        return StoredJob(id=job_id, status=status, record=record, result=left.result, error=left.error)
