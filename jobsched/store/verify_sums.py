"""What must hold of all rows of a store together: counts are those of the rows, counters not below
what is in use.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping

import msgspec

from jobsched.codec import seal
from jobsched.job import KEY_BYTES, State
from jobsched.job_id import ID_BYTES
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb_layout import Counters
from jobsched.store.verify_read import Finding, Found, Read, decoded
from jobsched.store.verify_rows import limits_of

__all__ = ["check_sums", "count_rows"]

_limits = msgspec.msgpack.Decoder(tuple[int, int])
_counters = msgspec.msgpack.Decoder(Counters)


def check_sums(read: Read, rows: Mapping[tuple[int, State], int], limited: Mapping[int, int]) -> Found:
    """Check that counts per category and state are those of the rows, counters not below what is used."""
    known = read.categories()
    for name, row in known.items():
        for state in State:
            kept = row.counts[state] if state < len(row.counts) else 0
            found = rows.get((row.number, state), 0)
            if kept != found:
                yield Finding(
                    kind="count", text=f"category {name!r} counts {kept} {state} jobs, its rows are {found}"
                )
        if row.limited != limited.get(row.number, 0):
            text = f"counts {row.limited} jobs that wait at limits, its rows are {limited.get(row.number, 0)}"
            yield Finding(kind="count", text=f"category {name!r} {text}")
    numbers = {row.number for row in known.values()}
    for number in sorted({number for number, _ in rows} - numbers):
        yield Finding(kind="misplaced", text=f"rows of category number {number}, which no category has")
    yield from _check_limits(read)
    yield from _check_counters(read)


def _check_limits(read: Read) -> Found:
    """Check that as many run under each limit as it says. Few run at a time: one transaction does."""
    running: Counter[bytes] = Counter()
    for _, value in read.rows("running"):
        status = read.status(value[:ID_BYTES])
        running.update(limit.key for limit in (limits_of(status) if status is not None else ()))
    for key, value in read.rows("limits"):
        row = decoded(_limits, value)
        found = running.pop(key, 0)
        if len(key) == KEY_BYTES and not isinstance(row, Exception) and row[1] != found:
            text = f"the limit {key.hex()} counts {row[1]} running jobs, it has {found}"
            yield Finding(kind="count", text=text)
    for key, found in running.items():
        yield Finding(kind="count", text=f"the limit {key.hex()} is missing, and has {found} running")


def _check_counters(read: Read) -> Found:
    data = read.get("meta", b"counters")
    counters = decoded(_counters, seal(b"\x90") if data is None else data)
    if isinstance(counters, Exception):
        yield Finding(kind="damaged", text=f"the counters are unreadable: {counters}")
        return
    for what in ("sequence", "claim", "epoch"):
        kept, used = getattr(counters, what), getattr(read.seen, what)
        if kept < used:
            yield Finding(kind="counter", text=f"the counter {what!r} is {kept}, and {used} is in use")


def count_rows(read: Read) -> tuple[Counter[tuple[int, State]], Counter[int]]:
    """Count the rows as `Seen` has them, `rows` and `limited`, all in this transaction."""
    rows: Counter[tuple[int, State]] = Counter()
    limited: Counter[int] = Counter()
    for index in ("pending", "scheduled", "running", "ended", "limited"):
        for key, value in read.rows(index):
            try:
                counted = _counted_as(index, key, value)
            except (struct.error, ValueError):
                continue  # said of the row itself
            rows[counted] += 1
            limited[counted[0]] += index == "limited"
    return rows, limited


def _counted_as(index: str, key: bytes, value: bytes) -> tuple[int, State]:
    match index:
        case "pending":
            return layout.split_pending(key)[0], State.PENDING
        case "limited":
            return layout.split_pending(key[KEY_BYTES:])[0], State.PENDING
        case "scheduled":
            return int.from_bytes(value, "big"), State.SCHEDULED
        case "running":
            return layout.split_running(value)[2], State.IN_PROGRESS
        case _:
            return int.from_bytes(value, "big"), layout.split_ended(key)[0]
