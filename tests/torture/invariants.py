"""What must be true of every store, read from its rows: of an idle one, a running or a broken one.

Each job stands in exactly one index, that of its state; the counts are those of the rows; every
record is readable; nothing belongs to a job that is not there. A database that a store does not
have (yet) is an empty one, and one that is not known here counts for the digest alone.
"""

import dataclasses
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb as engine
import msgspec

from jobsched import transitions as rules
from jobsched.codec import BadRecord, decode_record, unseal
from jobsched.job import JobStatus, State
from jobsched.job_id import ID_BYTES
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb import open_store

_CHUNKED = b"\x02"
_MOST_CHUNKS = 1 << 16
_LIMIT_KEY = 16
_ATTEMPT_KEY = 24

Rows = dict[bytes, bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """All rows of a store, by database."""

    databases: Mapping[str, Rows]

    def rows(self, name: str) -> Rows:
        return self.databases.get(name, {})

    @property
    def digest(self) -> int:
        """A number that two stores share only if all their rows are the same."""
        found = 0
        for name in sorted(self.databases):
            rows = self.databases[name]
            if rows:  # an empty database is as good as none
                found = zlib.crc32(name.encode(), found)
                found = zlib.crc32(b"".join(part for row in rows.items() for part in row), found)
        return found

    def statuses(self) -> dict[bytes, JobStatus | None]:
        """Return the jobs' statuses, None for one that is unreadable."""
        return {job_id: _status(data) for job_id, data in self.rows("statuses").items()}

    def record(self, job_id: bytes) -> bytes | None:
        return _joined(self.rows("jobs"), job_id)


def read_store(path: Path) -> Contents:
    """Read the store in a directory, which may be open in this process."""
    store = open_store(path)
    try:
        return read_environment(store._env)
    finally:
        store.close()


def read_environment(env: engine.Environment) -> Contents:
    """Read an open environment, `LmdbStore._env` for one."""
    with env.begin() as txn:
        names = [bytes(name) for name in txn.cursor().iternext(values=False)]
    handles = {name.decode(): env.open_db(name, create=False) for name in names}
    with env.begin() as txn:
        return Contents({name: dict(txn.cursor(db=handle)) for name, handle in handles.items()})


def problems(contents: Contents) -> list[str]:
    """Say everything that is wrong with a store's rows."""
    return list(_problems(contents))


def _problems(contents: Contents) -> Iterator[str]:
    statuses = contents.statuses()
    readable = {job_id: status for job_id, status in statuses.items() if status is not None}
    yield from (f"{job_id.hex()}: its status is unreadable" for job_id in statuses.keys() - readable.keys())
    categories: dict[str, layout.CategoryRow] = {}
    for name, data in contents.rows("categories").items():
        row = _decoded(data, layout.CategoryRow)
        if row is None:
            yield f"the row of category {name!r} is unreadable"
        else:
            categories[name.decode()] = row
    yield from _index_problems(contents, statuses, categories)
    yield from _count_problems(readable, categories)
    yield from _record_problems(contents, statuses)
    yield from _orphan_problems(contents, statuses)
    yield from _counter_problems(contents, readable)
    yield from _terms_problems(contents, readable, categories)


# Indexes: what each says of a job.


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """A row of an index: the job, and the facts that the row repeats of its status."""

    job: bytes
    facts: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """An index: how its rows read, and the facts that a status would have there."""

    states: frozenset[State]
    listing: Callable[[bytes, bytes], Listing]
    facts: Callable[[JobStatus, int], tuple[Any, ...]]


def _of_pending(key: bytes, value: bytes) -> Listing:
    return Listing(value, layout.split_pending(key))


def _of_scheduled(key: bytes, value: bytes) -> Listing:
    due_at, job_id = layout.split_scheduled(key)
    return Listing(job_id, (due_at, int.from_bytes(value, "big")))


def _of_running(key: bytes, value: bytes) -> Listing:
    job_id, worker, category = layout.split_running(value)
    return Listing(job_id, (int.from_bytes(key, "big"), worker, category))


def _of_ended(key: bytes, value: bytes) -> Listing:
    state, ended_at, job_id = layout.split_ended(key)
    return Listing(job_id, (state, ended_at, int.from_bytes(value, "big")))


def _of_limited(key: bytes, value: bytes) -> Listing:
    return Listing(value, layout.split_pending(key[_LIMIT_KEY:]))


_WAITING_ROAD = frozenset({State.SCHEDULED, State.PENDING, State.IN_PROGRESS})

INDEXES = {
    "pending": Index(
        frozenset({State.PENDING}),
        _of_pending,
        lambda status, number: (number, status.priority, status.sequence),
    ),
    "scheduled": Index(
        frozenset({State.SCHEDULED}), _of_scheduled, lambda status, number: (max(status.due_at, 0), number)
    ),
    "running": Index(
        frozenset({State.IN_PROGRESS}),
        _of_running,
        lambda status, number: (status.claim, status.worker, number),
    ),
    "ended": Index(
        frozenset(State) - _WAITING_ROAD,
        _of_ended,
        lambda status, number: (status.state, max(status.ended_at, 0), number),
    ),
    # Jobs that wait at a concurrency limit: instead of in `pending`.
    "limited": Index(
        frozenset({State.PENDING}),
        _of_limited,
        lambda status, number: (number, status.priority, status.sequence),
    ),
}


def _index_problems(
    contents: Contents,
    statuses: Mapping[bytes, JobStatus | None],
    categories: Mapping[str, layout.CategoryRow],
) -> Iterator[str]:
    listed: Counter[bytes] = Counter()
    for name, index in INDEXES.items():
        for key, value in contents.rows(name).items():
            try:
                listing = index.listing(key, value)
            except (ValueError, struct.error):
                yield f"{name} has a row that is none: {key.hex()}"
                continue
            listed[listing.job] += 1
            if listing.job not in statuses:
                yield f"{name} lists {listing.job.hex()}, which is no job"
                continue
            status = statuses[listing.job]
            if status is None:
                continue
            row = categories.get(status.category)
            wanted = index.facts(status, row.number if row else 0)
            if status.state not in index.states:
                yield f"{listing.job.hex()} is {status.state} and stands in {name}"
            elif listing.facts != wanted:
                yield f"{listing.job.hex()} stands in {name} with {listing.facts}, not {wanted}"
    for job_id, status in statuses.items():
        if listed[job_id] != 1:
            state = "unreadable" if status is None else status.state
            yield f"{job_id.hex()} ({state}) stands in {listed[job_id]} indexes"


def _count_problems(
    statuses: Mapping[bytes, JobStatus], categories: Mapping[str, layout.CategoryRow]
) -> Iterator[str]:
    found: dict[str, Counter[State]] = {name: Counter() for name in categories}
    for status in statuses.values():
        found.setdefault(status.category, Counter())[status.state] += 1
    for name, counter in found.items():
        counts = [counter[state] for state in State]
        row = categories.get(name)
        if row is None:
            yield f"category {name!r} has {sum(counts)} jobs and no row"
        elif list(row.counts) != counts:
            yield f"category {name!r} counts {row.counts}, its jobs are {counts}"
    numbers = [row.number for row in categories.values()]
    if len(set(numbers)) != len(numbers):
        yield f"two categories have one number: {sorted(numbers)}"


def _record_problems(contents: Contents, statuses: Mapping[bytes, object]) -> Iterator[str]:
    for job_id in statuses:
        record = contents.record(job_id)
        if record is None:
            yield f"{job_id.hex()} has no record"
            continue
        try:
            found = decode_record(record)
        except BadRecord as error:
            yield f"the record of {job_id.hex()} is unreadable: {error}"
            continue
        if found.id != job_id:
            yield f"the record of {job_id.hex()} is that of {found.id.hex()}"
    for job_id in contents.rows("results"):
        if len(job_id) == ID_BYTES:
            blob = _joined(contents.rows("results"), job_id)
            if blob is None or _decoded(blob, layout.ResultRow) is None:
                yield f"the result of {job_id.hex()} is unreadable"


def _orphan_problems(contents: Contents, statuses: Mapping[bytes, object]) -> Iterator[str]:
    for name, length in (("jobs", ID_BYTES), ("results", ID_BYTES), ("attempts", _ATTEMPT_KEY)):
        rows = contents.rows(name)
        for key in rows:
            head = rows.get(key[:length], b"")
            if key[:ID_BYTES] not in statuses:
                yield f"{name} has a row of {key[:ID_BYTES].hex()}, which is no job"
            elif len(key) > length and int.from_bytes(key[length:], "big") >= chunks_of(head):
                yield f"{name} has a chunk {key.hex()} that belongs to nothing"


def _counter_problems(contents: Contents, statuses: Mapping[bytes, JobStatus]) -> Iterator[str]:
    data = contents.rows("meta").get(b"counters")
    counters = layout.Counters() if data is None else _decoded(data, layout.Counters)
    if counters is None:
        yield "the counters are unreadable"
        return
    claims = [status.claim for status in statuses.values() if status.claim]
    if max(claims, default=0) > counters.claim:
        yield f"a job has claim {max(claims)}, the last one given is {counters.claim}"
    if len(set(claims)) != len(claims):
        yield "two jobs have one claim number"
    sequences = [status.sequence for status in statuses.values() if status.sequence]
    if max(sequences, default=0) > counters.sequence:
        yield f"a job has place {max(sequences)}, the last one given is {counters.sequence}"
    if len(set(sequences)) != len(sequences):
        yield "two jobs have one place in the queues"


# Unique keys, limits, attempts: not every store has them.


def _terms_problems(
    contents: Contents,
    statuses: Mapping[bytes, JobStatus],
    categories: Mapping[str, layout.CategoryRow],
) -> Iterator[str]:
    terms = {job: status.terms for job, status in statuses.items() if getattr(status, "terms", None)}
    holders = contents.rows("unique")
    for key, job_id in holders.items():
        status = statuses.get(job_id)
        if job_id not in terms or terms[job_id].unique != key or not rules.holds_key(status):
            yield f"the unique key {key.hex()} is held by {job_id.hex()}, which has no right to it"
    running: Counter[bytes] = Counter()
    for job_id, found in terms.items():  # one sent to its queue again may be without its key
        if statuses[job_id].state is State.IN_PROGRESS:
            running.update(limit.key for limit in found.limits)
    for key in contents.rows("limits").keys() | running.keys():
        data = contents.rows("limits").get(key)
        row = data and _decoded(data, tuple[int, int])
        if not row or row[1] != running[key]:
            yield f"the limit {key.hex()} counts {row}, {running[key]} jobs run under it"
    limited = Counter(statuses[job].category for job in contents.rows("limited").values() if job in statuses)
    for name, category in categories.items():
        if getattr(category, "limited", 0) != limited[name]:
            yield f"category {name!r} counts {category.limited} jobs at limits, there are {limited[name]}"


# Records.


def chunks_of(head: bytes) -> int:
    """Return in how many chunks a record is split, by its head row."""
    if not head.startswith(_CHUNKED):
        return 0
    return min(-(-int.from_bytes(head[1:5], "big") // layout.CHUNK), _MOST_CHUNKS)


def _joined(rows: Rows, key: bytes) -> bytes | None:
    head = rows.get(key)
    if head is None or not head.startswith(_CHUNKED):
        return head
    return b"".join(rows.get(key + place.to_bytes(2, "big"), b"") for place in range(chunks_of(head)))


def _status(data: bytes) -> JobStatus | None:
    try:
        return layout.decode_status(data)
    except BadRecord:
        return None


def _decoded(data: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.msgpack.decode(unseal(data), type=kind)
    except (BadRecord, msgspec.MsgspecError):
        return None
