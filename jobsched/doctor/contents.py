"""What is in a store: its pages and format, how it grew, who reads it, and jobs that go nowhere."""

from __future__ import annotations

import shlex
import struct
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

import lmdb
import msgspec
import psutil

from jobsched.amount import byte_size, many
from jobsched.clock import MICROSECONDS, from_micros
from jobsched.doctor.finding import Finding, error, fine, warning
from jobsched.errors import JobschedError, StoreError
from jobsched.job import State
from jobsched.job_id import ID_BYTES
from jobsched.journal.file import journal_files
from jobsched.locks import is_locked
from jobsched.store import lmdb_layout as layout
from jobsched.store.hold import NODE
from jobsched.store.lmdb_layout import CategoryRow, Db, Txn
from jobsched.store.place import JOURNALS
from jobsched.store.verify import databases, opened, structure
from jobsched.store.verify_read import Read, Seen

__all__ = [
    "Contents",
    "Reader",
    "judge_clock",
    "judge_format",
    "judge_jobs",
    "judge_journals",
    "judge_overdue",
    "judge_readers",
    "judge_size",
    "judge_stop",
    "look",
    "read_contents",
]

_WALKED = 256 << 20  # bytes whose pages are looked at here: seconds
_GROWN, _LEAST_GROWN = 4, 64 << 20
_LATE = 60 * MICROSECONDS
_AHEAD = 300 * MICROSECONDS
_OLD_COMMITS = 1000
_COUNTED = 1000
_UUID7 = 7
_WAITING = (State.PENDING, State.SCHEDULED, State.IN_PROGRESS)


class Reader(msgspec.Struct, frozen=True):
    """A process with a read transaction open, and how many commits that is behind."""

    pid: int
    behind: int


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What one short read of a store shows. Times are in UTC microseconds, 0 for none.

    `late` counts the jobs due for more than a minute, up to 1000; `newest` is when the newest job's id
    was made; `live` are the bytes in use.
    """

    format: str
    bytes: int
    live: int
    stale_readers: int
    readers: list[Reader]
    categories: dict[str, CategoryRow]
    first_due: int
    late: int
    newest: int

    def count(self, *states: State) -> int:
        """Return how many jobs are in some states."""
        return sum(row.counts[state] for row in self.categories.values() for state in states)


def look(store: Path, configured: Collection[str], now: int) -> Iterator[Finding]:
    """Look into a store. Nothing in it is changed; `now` is in UTC microseconds."""
    data = store / "data.mdb"
    if not data.exists():
        yield fine("store", "nothing was dispatched yet")
        return
    if data.stat().st_size > _WALKED:
        yield fine(
            "pages", f"not looked at, the file has {byte_size(data.stat().st_size)}: jobsched verify does"
        )
    elif problems := structure(store):
        yield error("pages", f"{data} is broken: {problems[0]}", "jobsched restore BACKUP")
        return  # LMDB could abort this process
    yield from judge_journals(store / JOURNALS)
    try:
        found = read_contents(store, now)
    except JobschedError as problem:
        yield error("store", str(problem), "jobsched verify")
        return
    is_running = is_locked(store / NODE)
    yield judge_format(found.format, store)
    yield judge_size(found.bytes, found.live)
    yield from judge_readers(found.stale_readers, found.readers)
    yield from judge_clock(found.newest, now)
    yield from judge_stop(found.count(State.IN_PROGRESS), is_running=is_running, rebooted=_rebooted(store))
    yield from judge_overdue(found.late, found.first_due, now, is_running=is_running)
    yield from judge_jobs(found, configured, is_running=is_running)


def read_contents(store: Path, now: int) -> Contents:
    """Read what there is to judge, in one short transaction. Raises StoreError."""
    with opened(store) as env:
        stale = env.reader_check()
        readers = _readers(env)
        dbs = databases(env)
        if "meta" not in dbs:
            raise StoreError(f"{store} holds no store of ours")
        with env.begin() as txn:
            read = Read(txn, dbs, Seen())
            scheduled = [_due_at(store, key) for key, _ in islice(read.rows("scheduled"), _COUNTED)]
            last = txn.cursor(db=dbs["statuses"]) if "statuses" in dbs else None
            return Contents(
                format=(read.get("meta", b"format") or b"").decode(errors="replace"),
                bytes=(store / "data.mdb").stat().st_size,
                live=sum(_live_bytes(txn, db) for db in dbs.values()),
                stale_readers=stale,
                readers=readers,
                categories=read.categories(),
                first_due=scheduled[0] if scheduled else 0,
                late=sum(due_at < now - _LATE for due_at in scheduled),
                newest=_made_at(last.key()) if last is not None and last.last() else 0,
            )


def _due_at(store: Path, key: bytes) -> int:
    """Return the due time of a row in the index of scheduled jobs. Raises StoreError."""
    try:
        return layout.split_scheduled(key)[0]
    except struct.error:
        text = f"{store}: a row in 'scheduled' has no key of ours: {key[:40].hex()}"
        raise StoreError(text) from None


def _readers(env: lmdb.Environment) -> list[Reader]:
    """Return who reads now. LMDB says it as a table of pid, thread, commit."""
    rows = [line.split() for line in env.readers().splitlines()]
    last = int(env.info()["last_txnid"])
    busy = [row for row in rows if len(row) == 3 and row[0].isdigit() and row[2].isdigit()]  # noqa: PLR2004
    return [Reader(int(pid), last - int(commit)) for pid, _, commit in busy]


def _live_bytes(txn: Txn, db: Db) -> int:
    stat = txn.stat(db)
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return int(pages * stat["psize"])


def _made_at(job_id: bytes) -> int:
    """Return when an id was made, in microseconds; 0 where it does not say."""
    is_dated = len(job_id) == ID_BYTES and job_id[6] >> 4 == _UUID7
    return int.from_bytes(job_id[:6], "big") * 1000 if is_dated else 0


def _rebooted(store: Path) -> bool:
    """Whether the machine was started after the last node was."""
    try:
        return (store / NODE).stat().st_mtime < float(psutil.boot_time())
    except OSError:
        return False


# The rules.


def judge_format(found: str, store: Path) -> Finding:
    """Judge a format: an older one is migrated by whoever opens the store next."""
    if not found.isdigit():
        return error("format", f"{store} says the format {found!r}", "jobsched restore BACKUP")
    if int(found) > layout.FORMAT:
        return error(
            "format", f"format {found}, this jobsched knows up to {layout.FORMAT}", "upgrade jobsched"
        )
    if int(found) < layout.FORMAT:
        text = f"format {found} is migrated to {layout.FORMAT} when a node opens it, after a backup"
        return warning("format", text, f"jobsched backup {shlex.quote(f'{store}.format-{found}')}")
    return fine("format", f"format {found}")


def judge_size(total: int, live: int) -> Finding:
    """Judge a file's size: it never shrinks, so after a flood or a long read it may be mostly empty."""
    text = f"{byte_size(total)}, {byte_size(live)} of it in use"
    if total > max(_GROWN * live, _LEAST_GROWN):
        mend = "stop the node, then: jobsched backup COPY && jobsched restore COPY"
        return warning("size", f"{text}: the rest is used again, and not given back", mend)
    return fine("size", text)


def judge_journals(folder: Path) -> Iterator[Finding]:
    """Judge the journals: a damaged one was set aside, and what it held was accepted and never run."""
    aside = sorted(folder.glob("*.unreadable"))
    for file in aside:
        text = f"{file} is damaged and was set aside: what its client dispatched last may be missing"
        yield error("journals", text, "dispatch that again, then delete the file")
    if not aside:
        yield fine("journals", f"{len(journal_files(folder))} clients have one")


def judge_readers(stale: int, readers: Collection[Reader]) -> Iterator[Finding]:
    """Judge the readers: one that stays keeps every page since then, and the file grows."""
    if stale:
        yield fine("readers", f"{stale} of killed processes, let go of now")
    old = [reader for reader in readers if reader.behind >= _OLD_COMMITS]
    for reader in old:
        text = f"pid {reader.pid} reads a state {reader.behind:,} commits old: the file grows until it ends"
        yield warning("readers", text, f"kill {reader.pid}")
    if not old:
        yield fine("readers", f"{len(readers)} at this moment")


def judge_clock(newest: int, now: int) -> Iterator[Finding]:
    """Judge the clock by the newest job: one that was set back makes jobs wait."""
    if newest > now + _AHEAD:
        text = (
            f"the newest job is of {_time(newest)}, later than now: the clock was set back, or was wrong then"
        )
        yield error("clock", text, "timedatectl set-ntp true")


def judge_stop(running: int, *, is_running: bool, rebooted: bool) -> Iterator[Finding]:
    """Judge jobs in progress without a node: it was killed, or the power was cut."""
    if running and not is_running and rebooted:
        text = f"{many(running, 'job')} in progress when the machine stopped; a node puts them back"
        yield warning("node", text, "jobsched verify, then: jobsched run")
    elif running and not is_running:
        text = f"{many(running, 'job')} in progress when the node was killed; the next one puts them back"
        yield warning("node", text, "jobsched run")


def judge_overdue(late: int, first_due: int, now: int, *, is_running: bool) -> Iterator[Finding]:
    """Judge jobs long due: they leave if a node runs and its clock is right."""
    if not late:
        return
    count = ("at least " if late == _COUNTED else "") + many(late, "scheduled job")
    since = f"due for {(now - first_due) // MICROSECONDS:,} s and longer, the first since {_time(first_due)}"
    if is_running:
        yield error("jobs", f"{count} {since}: the node does not release them", "stop it and start it again")
    else:
        yield warning("jobs", f"{count} {since}", "jobsched run")


def judge_jobs(found: Contents, configured: Collection[str], *, is_running: bool) -> Iterator[Finding]:
    """Judge what waits: jobs that nobody will run unless somebody does something."""
    for name, row in found.categories.items():
        yield from _judge_category(name, row, is_configured=name in configured)
    waiting = found.count(*_WAITING)
    if waiting and not is_running:
        yield warning("jobs", f"waiting, and no node runs: {many(waiting, 'job')}", "jobsched run")
    else:
        yield fine("jobs", f"{many(waiting, 'job')} waiting or running")


def _judge_category(name: str, row: CategoryRow, *, is_configured: bool) -> Iterator[Finding]:
    waiting = sum(row.counts[state] for state in _WAITING)
    option = f"--category {shlex.quote(name)}"
    if waiting and not is_configured:
        text = f"category {name!r} holds {many(waiting, 'job')} and is not configured: they wait"
        yield error("jobs", text, f"add [categories.{name}] to categories.toml")
    elif waiting and row.paused:
        text = f"category {name!r} is paused and holds {many(waiting, 'job')}"
        yield warning("jobs", text, f"jobsched category resume {shlex.quote(name)}")
    for state, why in (
        (State.PARKED, "nobody could run it"),
        (State.QUARANTINED, "its worker died each time"),
    ):
        if row.counts[state]:
            text = f"{state} in {name!r}: {many(row.counts[state], 'job')}, as {why}"
            yield warning("jobs", text, f"jobsched jobs --state {state} {option}")


def _time(micros: int) -> str:
    return from_micros(micros).isoformat(timespec="seconds")
