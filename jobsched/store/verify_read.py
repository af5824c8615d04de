"""Reading a store row by row to check it: what a check is given, and what it finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from jobsched.codec import BadRecord, unseal
from jobsched.job import JobStatus, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb_layout import CategoryRow, Db, Txn

__all__ = ["RESTORE", "Finding", "Found", "Read", "Seen", "decoded"]

RESTORE = "jobsched restore BACKUP"

Row = TypeVar("Row")

_categories = msgspec.msgpack.Decoder(CategoryRow)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong.

    `kind` is one of structure, damaged, misplaced, orphan, count, counter; `job` the id of the job
    it is about, None for the store's own rows; `mend` the command that mends it.
    """

    kind: str
    text: str
    job: str | None = None
    mend: str = RESTORE


Found = Iterator[Finding]


@dataclass(slots=True)
class Seen:
    """What has been seen over all transactions: the highest numbers in use, and rows counted.

    `rows` counts the rows of the indexes by category number and state, `limited` those that wait at
    limits by category number; `sequence`, `claim` and
    `epoch` are the highest that a status holds.
    """

    sequence: int = 0
    claim: int = 0
    epoch: int = 0
    rows: Counter[tuple[int, State]] = field(default_factory=Counter)
    limited: Counter[int] = field(default_factory=Counter)

    def note(self, status: JobStatus) -> None:
        """Raise the highest numbers to those of a status."""
        self.sequence = max(self.sequence, status.sequence)
        self.claim = max(self.claim, status.claim)
        self.epoch = max(self.epoch, status.worker >> 32)


class Read:
    """One short read transaction. A database that the file does not have reads as empty."""

    def __init__(self, txn: Txn, dbs: Mapping[str, Db], seen: Seen) -> None:
        self.txn = txn
        self.dbs = dbs
        self.seen = seen
        self.numbers = {name: row.number for name, row in self.categories().items()}

    def get(self, database: str, key: bytes) -> bytes | None:
        """Return a row's value."""
        return self.txn.get(key, db=self.dbs[database]) if database in self.dbs else None

    def blob(self, database: str, key: bytes) -> bytes | None:
        """Return a record that may be split."""
        try:
            return layout.get_blob(self.txn, self.dbs[database], key) if database in self.dbs else None
        except OverflowError:  # it says a length that no record has
            return b""

    def rows(self, database: str, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield a database's rows behind a key."""
        if database not in self.dbs:
            return
        cursor = self.txn.cursor(db=self.dbs[database])
        if cursor.set_range(after + b"\0" if after else b"\0"):
            yield from cursor

    def categories(self) -> dict[str, CategoryRow]:
        """Return the categories that can be read."""
        found = {}
        for key, value in self.rows("categories"):
            row = decoded(_categories, value)
            if isinstance(row, CategoryRow):
                found[key.decode(errors="replace")] = row
        return found

    def status(self, job_id: bytes) -> JobStatus | None:
        """Return a job's status, None where it is missing or damaged."""
        data = self.get("statuses", job_id)
        try:
            return None if data is None else layout.decode_status(data)
        except BadRecord:
            return None


# The rows of each database.


def decoded(decoder: msgspec.msgpack.Decoder[Row], data: bytes) -> Row | BadRecord | msgspec.MsgspecError:
    """Return what a sealed record holds, or what is wrong with it."""
    try:
        return decoder.decode(unseal(data))
    except (BadRecord, msgspec.MsgspecError) as error:
        return error
