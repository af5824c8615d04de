"""Is a store sound? Its pages, its records, its indexes, and its counts."""

from collections import Counter
from pathlib import Path

from lmdb.verify import VerifyError, verify

from jobsched.codec import BadRecord, decode_record
from jobsched.job import State
from jobsched.job_id import format_id
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb import LmdbStore, open_store


def structural_problems(path: Path) -> list[str]:
    """Return what is wrong with a store that nobody has open."""
    return [*_pages(path), *_rows(path)]


def _pages(path: Path) -> list[str]:
    """Have LMDB's own verifier walk the file. It reads data.mdb and leaves lock.mdb alone."""
    try:
        return [f"lmdb verify: {problem}" for problem in verify(str(path))]
    except VerifyError as error:
        return [f"lmdb verify: {error}"]


def _rows(path: Path) -> list[str]:
    """Check that each job stands in the one index of its state, and nothing else does."""
    store = open_store(path)
    assert isinstance(store, LmdbStore)
    try:
        with store._reading() as txn:  # long, but nobody writes
            return _compared(txn, store._dbs)
    finally:
        store.close()


def _compared(txn: layout.Txn, dbs: layout.Databases) -> list[str]:
    problems: list[str] = []
    categories = layout.read_categories(txn, dbs)
    counts: Counter[tuple[str, State]] = Counter()
    for job_id, data in txn.cursor(db=dbs.statuses):
        try:
            status = layout.decode_status(data)
            record = decode_record(layout.get_blob(txn, dbs.jobs, job_id) or b"")
        except BadRecord as error:
            problems.append(f"job {format_id(job_id)} is damaged: {error}")
            continue
        counts[status.category, status.state] += 1
        if not _is_listed(txn, dbs, job_id, status, categories[status.category].number):
            problems.append(f"job {format_id(job_id)} is {status.state} and not in that index")
        if record.id != job_id or record.category != status.category:
            problems.append(f"job {format_id(job_id)} has the record of another")
    for name, row in categories.items():
        problems += [
            f"category {name} counts {row.counts[state]} {state}, and has {counts[name, state]}"
            for state in State
            if row.counts[state] != counts[name, state]
        ]
    return [*problems, *_surplus(txn, dbs, counts)]


def _is_listed(
    txn: layout.Txn, dbs: layout.Databases, job_id: bytes, status: layout.JobStatus, number: int
) -> bool:
    if status.state is State.PENDING:
        key = layout.pending_key(number, status.priority, status.sequence)
        return txn.get(key, db=dbs.pending) == job_id
    if status.state is State.SCHEDULED:
        return txn.get(layout.timed_key(status.due_at, job_id), db=dbs.scheduled) is not None
    if status.state is State.IN_PROGRESS:
        value = txn.get(layout.running_key(status.claim), db=dbs.running)
        return value is not None and layout.split_running(value)[0] == job_id
    return txn.get(layout.ended_key(status.state, status.ended_at, job_id), db=dbs.ended) is not None


def _surplus(txn: layout.Txn, dbs: layout.Databases, counts: Counter[tuple[str, State]]) -> list[str]:
    """Return the indexes that have more rows than there are jobs in their states."""
    totals: Counter[State] = Counter()
    for (_, state), count in counts.items():
        totals[state] += count
    indexes = {
        "pending": (dbs.pending, totals[State.PENDING]),
        "scheduled": (dbs.scheduled, totals[State.SCHEDULED]),
        "running": (dbs.running, totals[State.IN_PROGRESS]),
        "ended": (dbs.ended, sum(count for state, count in totals.items() if state > State.IN_PROGRESS)),
    }
    return [
        f"index {name} has {rows} rows for {jobs} jobs"
        for name, (db, jobs) in indexes.items()
        if (rows := txn.stat(db)["entries"]) != jobs
    ]
