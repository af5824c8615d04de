"""Jobs that may not run because too many of their kind do: they wait beside their queue.

A limit is a key and how many may run, as the job added last says. A job that is next in its queue
and finds one of its limits reached is moved to the waiting rows of that limit, so that nobody has
to pass over it again; it keeps its place. When a job under the limit ends, the first that waits in
each category is put back to its queue. A job that was put back and does not start after all passes
that on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import msgspec

from jobsched.codec import BadRecord, seal, unseal
from jobsched.job import Limit, Terms
from jobsched.store.lmdb_layout import Databases, Txn

__all__ = ["Limits"]

_KEY = 16  # bytes of a limit's key
_CATEGORY = struct.Struct(">I")
_decode = msgspec.msgpack.Decoder(tuple[int, int]).decode
_encode = msgspec.msgpack.Encoder().encode


class Limits:
    """The limits' part of one turn. `moved` is told of every job that goes to or from the waiting
    rows: the category's number, and +1 or -1.
    """

    def __init__(self, txn: Txn, dbs: Databases, moved: Callable[[int, int], None]) -> None:
        self._txn = txn
        self._dbs = dbs
        self._moved = moved

    def note(self, terms: Terms) -> None:
        """Take a job's limits as the word that counts."""
        for limit in terms.limits:
            most, running = self._read(limit)
            if most != limit.most or not self._is_known(limit.key):
                self._write(limit.key, limit.most, running)
                for _ in range(max(0, min(limit.most, running + self._waiting(limit.key)) - most)):
                    self._wake(limit.key)

    def reached(self, terms: Terms) -> bytes | None:
        """Return the first of a job's limits that is reached, None if it may start.

        The first by its key, for all jobs alike: else two that wait at each other's limit would each
        let the other go on, for ever.
        """
        for limit in sorted(terms.limits, key=lambda limit: limit.key):
            most, running = self._read(limit)
            if running >= most:
                return limit.key
        return None

    def take(self, terms: Terms) -> None:
        """Count a job that starts."""
        for limit in terms.limits:
            most, running = self._read(limit)
            self._write(limit.key, most, running + 1)

    def release(self, terms: Terms) -> None:
        """Discount a job that runs no more, and let others go on."""
        for limit in terms.limits:
            most, running = self._read(limit)
            self._write(limit.key, most, max(0, running - 1))
            self._wake(limit.key)

    def set_aside(self, key: bytes, row: bytes, job_id: bytes, terms: Terms) -> None:
        """Have a job wait at a limit; `row` is its key in the queue, and gone from there."""
        self._txn.put(key + row, job_id, db=self._dbs.limited)
        self._moved(_CATEGORY.unpack_from(row)[0], 1)
        self.pass_on(terms, except_key=key)

    def pass_on(self, terms: Terms, *, except_key: bytes = b"") -> None:
        """Let others go on instead of a job that was next and does not start."""
        for limit in terms.limits:
            if limit.key != except_key:
                self._wake(limit.key)

    def withdraw(self, row: bytes, terms: Terms) -> bool:
        """Forget a job that waits at one of its limits; False if it does not."""
        for limit in terms.limits:
            if self._txn.delete(limit.key + row, db=self._dbs.limited):
                self._moved(_CATEGORY.unpack_from(row)[0], -1)
                return True
        return False

    def reset(self) -> None:
        """Begin a node's life: nothing runs, so nothing waits."""
        self._txn.drop(self._dbs.limits, delete=False)
        for key, job_id in list(self._txn.cursor(db=self._dbs.limited)):
            self._txn.delete(key, db=self._dbs.limited)
            self._to_queue(key[_KEY:], job_id)

    def _wake(self, key: bytes) -> None:
        """Put the first job that waits at a limit in each category back to its queue."""
        cursor = self._txn.cursor(db=self._dbs.limited)
        for row, job_id in list(self._firsts(key)):
            if cursor.set_key(key + row):
                cursor.delete()
                self._to_queue(row, job_id)

    def _firsts(self, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the first waiting row of each category at a limit."""
        cursor = self._txn.cursor(db=self._dbs.limited)
        found = cursor.set_range(key)
        while found and cursor.key().startswith(key):
            row = cursor.key()[_KEY:]
            yield row, cursor.value()
            found = cursor.set_range(key + _CATEGORY.pack(_CATEGORY.unpack_from(row)[0] + 1))

    def _to_queue(self, row: bytes, job_id: bytes) -> None:
        self._txn.put(row, job_id, db=self._dbs.pending)
        self._moved(_CATEGORY.unpack_from(row)[0], -1)

    def _waiting(self, key: bytes) -> int:
        """Return how many jobs wait at a limit, as far as it matters: 1,000 at most."""
        cursor = self._txn.cursor(db=self._dbs.limited)
        count = 0
        if cursor.set_range(key):
            for found in cursor.iternext(values=False):
                if not found.startswith(key) or count == 1000:  # noqa: PLR2004 (the docstring's)
                    break
                count += 1
        return count

    def _is_known(self, key: bytes) -> bool:
        return self._txn.get(key, db=self._dbs.limits) is not None

    def _read(self, limit: Limit) -> tuple[int, int]:
        """Return how many may run under a limit, and how many do."""
        data = self._txn.get(limit.key, db=self._dbs.limits)
        try:
            return (limit.most, 0) if data is None else _decode(unseal(data))
        except (BadRecord, msgspec.MsgspecError):
            return limit.most, 0  # the next node counts anew

    def _write(self, key: bytes, most: int, running: int) -> None:
        self._txn.put(key, seal(_encode((most, running))), db=self._dbs.limits)
