"""A named database within one LMDB write transaction, whose writes are gathered.

Reads see what was put before. A cursor of its own takes half the time that the transaction's methods
take, and writing many rows in one call a third; and a row that is put and taken away again in the
same turn is never written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import lmdb

from jobsched.codec import BadRecord
from jobsched.job import JobStatus, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb_layout import Db, Txn

__all__ = ["Statuses", "Table"]

if TYPE_CHECKING:
    Cursor = lmdb.Cursor[bytes]
else:
    Cursor = lmdb.Cursor

_IN_PROGRESS = State.IN_PROGRESS  # to look up a member of an enum takes as long as to pack a key


class Table:
    """The rows of one database. `write` puts the gathered ones; whoever moves a cursor over the
    database gets it from `scan`, which does that first.
    """

    def __init__(self, txn: Txn, db: Db) -> None:
        self._txn = txn
        self._db = db
        self._cursor: Cursor = txn.cursor(db=db)
        self._puts: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None without one."""
        value = self._puts.get(key)
        return self._cursor.get(key) if value is None else value

    def get_all(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """Return those of some rows that are there, read in one call."""
        self.write()
        return self._cursor.getmulti(keys)

    def put(self, key: bytes, value: bytes) -> None:
        """Have a row written."""
        self._puts[key] = value

    def put_all(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Write rows now."""
        self._cursor.putmulti(rows)

    def delete(self, key: bytes) -> bool:
        """Delete a row; say whether there was one."""
        was_put = self._puts.pop(key, None) is not None
        return self._cursor.pop(key) is not None or was_put

    def delete_all(self, keys: Iterable[bytes]) -> None:
        """Delete rows that are there, faster where they lie side by side."""
        self.write()
        cursor = self._cursor
        for key in sorted(keys):
            if cursor.key() == key or cursor.set_key(key):
                cursor.delete()  # and comes to the next one

    def write(self) -> None:
        """Write what was gathered."""
        if self._puts:
            self._cursor.putmulti(self._puts.items())
            self._puts = {}

    def scan(self) -> Cursor:
        """Return a new cursor, before which all is written."""
        self.write()
        return self._txn.cursor(db=self._db)


class Statuses:
    """The statuses of jobs, as objects.

    `held` are those of all jobs in progress, kept from turn to turn: a run's end needs its status
    again. It is right as long as nobody else writes.
    """

    def __init__(self, txn: Txn, db: Db, held: dict[bytes, JobStatus]) -> None:
        self._cursor: Cursor = txn.cursor(db=db)
        self.held = held
        self._puts: dict[bytes, JobStatus] = {}

    def get(self, job_id: bytes) -> JobStatus | None:
        """Return a status, None without one. To change it, `put` it. Raises BadRecord."""
        status = self._puts.get(job_id) or self.held.get(job_id)
        if status is not None:
            return status
        data = self._cursor.get(job_id)
        return None if data is None else layout.decode_status(data)

    def __contains__(self, job_id: bytes) -> bool:
        return job_id in self._puts or self._cursor.set_key(job_id)

    def among(self, job_ids: Sequence[bytes]) -> set[bytes]:
        """Return those of some ids that have a status."""
        found = {key for key, _ in self._cursor.getmulti(job_ids)}
        found.update(self._puts.keys() & job_ids if self._puts else ())
        return found

    def put_encoded(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Write the statuses of jobs that have none yet, as stored."""
        self._cursor.putmulti(rows)

    def plain(self, job_ids: Sequence[bytes]) -> list[JobStatus]:
        """Return the statuses of some jobs that do not run, up to the first that has terms, or is
        missing or damaged.
        """
        found = dict(self._cursor.getmulti(job_ids))
        statuses: list[JobStatus] = []
        for job_id in job_ids:
            status = self._puts.get(job_id)
            if status is None:
                try:
                    status = layout.decode_status(found[job_id])
                except (KeyError, BadRecord):
                    break
            if status.terms is not None:
                break
            statuses.append(status)
        return statuses

    def hold(self, job_ids: Sequence[bytes], statuses: Sequence[JobStatus]) -> None:
        """Have the statuses of jobs written that are in progress from now on."""
        rows = dict(zip(job_ids, statuses, strict=True))
        self._puts.update(rows)
        self.held.update(rows)

    def let_go(self, job_id: bytes, status: JobStatus) -> None:
        """Have the status of a job written that was held."""
        self._puts[job_id] = status
        del self.held[job_id]

    def put(self, job_id: bytes, status: JobStatus) -> None:
        """Have a status written."""
        self._puts[job_id] = status
        if status.state is _IN_PROGRESS:
            self.held[job_id] = status
        else:
            self.held.pop(job_id, None)

    def delete(self, job_id: bytes) -> None:
        """Forget a status."""
        self._puts.pop(job_id, None)
        self.held.pop(job_id, None)
        self._cursor.pop(job_id)

    def write(self) -> None:
        """Write what was gathered."""
        if self._puts:
            encode = layout.encode_status
            self._cursor.putmulti([(job_id, encode(status)) for job_id, status in self._puts.items()])
            self._puts = {}
