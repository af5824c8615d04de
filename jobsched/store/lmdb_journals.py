"""The marks of journals in LMDB: name of a journal → the number of its last entry that is in the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from jobsched.codec import BadRecord, seal, unseal
from jobsched.store.journal_marks import Span
from jobsched.store.lmdb_layout import Databases, Txn

__all__ = ["decode_mark", "forget_marks", "marks_of", "read_marks", "write_marks"]

_encode = msgspec.msgpack.Encoder().encode
_mark = msgspec.msgpack.Decoder(int)


def read_marks(txn: Txn, dbs: Databases) -> dict[str, int]:
    """Return the marks of all journals."""
    return {bytes(key).decode(): decode_mark(value) for key, value in txn.cursor(db=dbs.journals)}


def marks_of(txn: Txn, dbs: Databases, spans: Iterable[Span]) -> dict[str, int]:
    """Return the marks of the journals that spans name."""
    found = {span.journal: txn.get(span.journal.encode(), db=dbs.journals) for span in spans}
    return {name: decode_mark(data) for name, data in found.items() if data is not None}


def write_marks(txn: Txn, dbs: Databases, spans: Sequence[Span]) -> None:
    """Note that entries are in the store."""
    for span in spans:
        txn.put(span.journal.encode(), seal(_encode(span.last)), db=dbs.journals)


def forget_marks(txn: Txn, dbs: Databases, journals: Iterable[str]) -> None:
    """Drop the marks of journals whose files are gone."""
    for name in journals:
        txn.delete(name.encode(), db=dbs.journals)


def decode_mark(data: bytes) -> int:
    """Return a stored mark; -1, behind which no entry comes next, where it is damaged: to guess one would
    add jobs again, or leave some out.
    """
    try:
        return _mark.decode(unseal(data))
    except (BadRecord, msgspec.MsgspecError):
        return -1
