"""Which jobs a query means, in its order: walks over the indexes of one read transaction."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from itertools import islice

from jobsched.job import State
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import Query
from jobsched.store.lmdb_layout import Databases, Db, Txn

__all__ = ["found_rows", "ids_after"]

_PLACE = 10  # bytes of a job's place in its queue
_LIMIT = 16  # bytes of a limit's key


def found_rows(
    txn: Txn, dbs: Databases, query: Query, numbers: Mapping[str, int]
) -> Iterator[tuple[bytes, bytes]]:
    """Yield cursor and id of the jobs that a query may mean, in its order."""
    wanted = [numbers.get(query.category, 0)] if query.category else list(numbers.values())
    if query.state is None:
        return _newest_rows(txn, dbs, query.after)
    if query.state is State.PENDING:
        return _pending_rows(txn, dbs, wanted, query.after)
    if query.state is State.SCHEDULED:
        return _forward(txn, dbs.scheduled, query.after, slice(8, 24))
    if query.state is State.IN_PROGRESS:
        return _running_rows(txn, dbs, query.after)
    return _ended_rows(txn, dbs, query.state, wanted if query.category else None, query.after)


def _newest_rows(txn: Txn, dbs: Databases, after: bytes) -> Iterator[tuple[bytes, bytes]]:
    cursor = txn.cursor(db=dbs.statuses)
    found = cursor.prev() if after and cursor.set_range(after) else cursor.last()
    for job_id in cursor.iterprev(values=False) if found else ():
        yield job_id, job_id


def _pending_rows(
    txn: Txn, dbs: Databases, numbers: Collection[int], after: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """Merge the queues: by priority, then by sequence, the cursor being the key less its category.
    Then those that wait at a limit, whose cursors are longer.
    """

    def queue(number: int) -> Iterator[tuple[bytes, bytes]]:
        prefix = layout.pending_prefix(number)
        cursor = txn.cursor(db=dbs.pending)
        if cursor.set_range(prefix + after + b"\0" if after else prefix):
            for key, job_id in cursor:
                if not key.startswith(prefix):
                    return
                yield key[len(prefix) :], job_id

    if len(after) <= _PLACE:
        yield from heapq.merge(*(queue(number) for number in numbers))
        after = b""
    wanted = {layout.pending_prefix(number) for number in numbers}
    cursor = txn.cursor(db=dbs.limited)
    for key, job_id in cursor if cursor.set_range(after + b"\0" if after else b"\0") else ():
        if key[_LIMIT : _LIMIT + 4] in wanted:
            yield key, job_id


def _forward(txn: Txn, db: Db, after: bytes, part: slice) -> Iterator[tuple[bytes, bytes]]:
    cursor = txn.cursor(db=db)
    if cursor.set_range(after + b"\0" if after else b"\0"):
        for key in cursor.iternext(values=False):
            yield key, key[part]


def _running_rows(txn: Txn, dbs: Databases, after: bytes) -> Iterator[tuple[bytes, bytes]]:
    cursor = txn.cursor(db=dbs.running)
    if cursor.set_range(after + b"\0" if after else b"\0"):
        for key, value in cursor:
            yield key, layout.split_running(value)[0]


def _ended_rows(
    txn: Txn, dbs: Databases, state: State, numbers: list[int] | None, after: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """Newest first: from the end of the state's stretch backwards."""
    wanted = None if numbers is None else {layout.pending_prefix(number) for number in numbers}
    cursor = txn.cursor(db=dbs.ended)
    start = after or bytes((state + 1,))
    found = cursor.prev() if cursor.set_range(start) else cursor.last()
    while found:
        key, category = cursor.item()
        if key[0] != state:
            return
        if wanted is None or category in wanted:
            yield key, layout.split_ended(key)[2]
        found = cursor.prev()


def ids_after(txn: Txn, dbs: Databases, after: bytes, limit: int) -> list[bytes]:
    """Return some ids after one, in their order."""
    cursor = txn.cursor(db=dbs.statuses)
    if not cursor.set_range(after + b"\0"):
        return []
    return list(islice(cursor.iternext(values=False), limit))
