"""Is a store whole? A pure read of a store's directory, or of a copy of one.

First its structure, by a walker in pure Python: a damaged file can abort the process inside LMDB, so
LMDB gets to see it only if that finds nothing. Then every row, in short read transactions, so that a
node may run meanwhile: a job and its rows are read in one of them, and sums that a commit may have
changed under way are counted again in one.
"""

from __future__ import annotations

import contextlib
import mmap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import lmdb.verify
import msgspec

from jobsched.errors import InvalidOption, StoreError, StoreFormatError
from jobsched.job import State
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb_layout import Db
from jobsched.store.verify_read import Finding, Read, Seen
from jobsched.store.verify_rows import CHECKS, check_row
from jobsched.store.verify_sums import check_sums, count_rows

__all__ = ["KEPT_FINDINGS", "Finding", "Findings", "databases", "opened", "structure", "verify"]

KEPT_FINDINGS = 1000
"""How many findings are kept; all are counted."""

NOTE = "backup.json"
"""What lies beside a copy's data.mdb, and never in a live store."""

_READ_S = 0.02  # of one transaction: a long one makes the file grow
_CLOCK_ROWS = 64
_PINNED_TRIES = 3

Progress = Callable[[str, int, int], None]


class Findings(msgspec.Struct, kw_only=True):
    """What `verify` found. `total` may be above the findings kept; `jobs` counts them by state.

    `format` and `store` are None where the structure is broken: then nothing else was read.
    """

    path: str
    bytes: int
    format: int | None = None
    store: str | None = None
    rows: int = 0
    jobs: dict[str, int] = msgspec.field(default_factory=dict)
    total: int = 0
    findings: list[Finding] = msgspec.field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.total

    def add(self, found: Iterator[Finding]) -> None:
        """Take findings in."""
        for finding in found:
            self.total += 1
            if len(self.findings) < KEPT_FINDINGS:
                self.findings.append(finding)


def verify(path: Path, progress: Progress | None = None) -> Findings:
    """Return everything that is wrong with a store, or with a backup of one.

    `path` is a store's directory, a backup's, or a file. `progress` hears the name of a database,
    the rows of it that are done, and how many it has. Not for a process that has the store open.
    Raises InvalidOption where there is none, StoreError where it cannot be read.
    """
    place = _Place.of(path)
    found = Findings(path=str(path), bytes=place.data.stat().st_size)
    problems = _pages(place)
    found.add(Finding(kind="structure", text=problem) for problem in problems)
    if not problems:
        with opened(path) as env:
            _Pass(env, found, progress or _no_progress).run()
    return found


@contextlib.contextmanager
def opened(path: Path) -> Iterator[lmdb.Environment]:
    """Give a store's environment for reading alone: nothing is created in it or migrated.

    Raises InvalidOption where there is none, StoreError where it cannot be read.
    """
    place = _Place.of(path)
    try:
        env = lmdb.open(
            str(place.data.parent if place.is_live else place.data),
            subdir=place.is_live,  # else LMDB takes another lock file than the store's writers do
            readonly=True,
            lock=place.is_live,
            create=False,
            map_size=0,  # what the file says
            max_dbs=64,
            max_readers=1024,
            mode=0o600,
        )
    except (lmdb.Error, OSError, MemoryError) as error:
        raise StoreError(f"cannot open {place.data}: {error}") from error
    try:
        yield env
    except lmdb.LockError as error:  # LMDB knows readers by their pid: two containers may both have it
        hint = "processes of two PID namespaces cannot share a store; share the namespace"
        raise StoreError(f"cannot read {place.data}: {error} ({hint})") from error
    except lmdb.Error as error:
        raise StoreError(f"cannot read {place.data}: {error}") from error
    finally:
        env.close()


@dataclass(frozen=True, slots=True)
class _Place:
    """A data file, and whether others may be writing it: then LMDB's locks are needed."""

    data: Path
    is_live: bool

    @classmethod
    def of(cls, path: Path) -> _Place:
        data = path / "data.mdb" if path.is_dir() else path
        if not data.is_file():
            raise InvalidOption(f"no store at {path}: expected a directory with data.mdb in it")
        is_copy = (data.parent / NOTE).exists()
        has_lock = data.name == "data.mdb" and (path.is_dir() or (data.parent / "lock.mdb").exists())
        return cls(data, has_lock and not is_copy)


# The structure.


def structure(path: Path) -> list[str]:
    """Return what is wrong with the pages of a store's file, without having LMDB read them."""
    return _pages(_Place.of(path))


def _pages(place: _Place) -> list[str]:
    """Return what is wrong with the pages of a file.

    A commit meanwhile may reuse pages that the walk has yet to come to. What it finds then counts
    only if it finds it again while a reader's transaction keeps them.
    """
    before = _metas(place.data)
    problems = _walk(place.data)
    if not problems or not place.is_live or before == _metas(place.data):
        return problems
    for _ in range(_PINNED_TRIES):  # more than one: the file may have grown between two looks at it
        with opened(place.data) as env, env.begin():
            problems = _walk(place.data)
        if not problems:
            break
    return problems


def _metas(data: Path) -> bytes:
    """Return the pages that every commit changes."""
    with data.open("rb") as file:
        return file.read(2 * mmap.PAGESIZE)


def _walk(data: Path) -> list[str]:
    try:
        return list(lmdb.verify.verify(str(data), subdir=False))  # type: ignore[no-untyped-call]
    except lmdb.verify.VerifyError as error:
        return [str(error)]
    except OSError as error:
        raise StoreError(f"cannot read {data}: {error.strerror}") from error


# The rows.


@dataclass(slots=True)
class _Pass:
    """One look at all rows."""

    env: lmdb.Environment
    found: Findings
    progress: Progress
    seen: Seen = field(default_factory=Seen)
    first_commit: int | None = None  # that of the first transaction; a commit shows elsewhere before

    def run(self) -> None:
        """Check the format, every row, and the sums."""
        dbs = databases(self.env)
        if not self._check_format(dbs):
            return
        for database in CHECKS:
            if database in dbs:
                self._check_rows(dbs, database)
        with self.env.begin() as txn:
            read = Read(txn, dbs, self.seen)
            sums = list(check_sums(read, self.seen.rows, self.seen.limited))
            if sums and txn.id() != self.first_commit:
                self.seen.rows, self.seen.limited = count_rows(read)
                sums = list(check_sums(read, self.seen.rows, self.seen.limited))
        self.found.add(iter(sums))
        self.found.jobs = _by_state(self.seen.rows)

    def _check_format(self, dbs: Mapping[str, Db]) -> bool:
        """Note format and id; without a format that we know, no row can be judged."""
        with self.env.begin() as txn:
            meta = dbs.get("meta")
            version = txn.get(b"format", db=meta) if meta is not None else None
            store = txn.get(b"store", db=meta) if meta is not None else None
        self.found.store = store.hex() if store else None
        if version is None or not version.isdigit():
            text = "it says no format" if version is None else f"it says the format {version[:20]!r}"
            self.found.add(iter([Finding(kind="damaged", text=text)]))
            return False
        self.found.format = int(version)
        if int(version) > layout.FORMAT:
            raise StoreFormatError(
                f"the store {self.found.path} has format {int(version)}, this jobsched knows up to"
                f" {layout.FORMAT}: upgrade jobsched"
            )
        return True

    def _check_rows(self, dbs: Mapping[str, Db], database: str) -> None:
        """Check a database, a page of rows a transaction."""
        after: bytes | None = b""
        done = 0
        while after is not None:
            with self.env.begin() as txn:
                self.first_commit = txn.id() if self.first_commit is None else self.first_commit
                total = txn.stat(dbs[database])["entries"]
                after, checked = self._check_page(Read(txn, dbs, self.seen), database, after)
            done += checked
            self.progress(database, done, max(total, done))
        self.found.rows += done

    def _check_page(self, read: Read, database: str, after: bytes) -> tuple[bytes | None, int]:
        """Check the rows behind a key for a short time; return the last key, None at the end."""
        until = time.monotonic() + _READ_S
        number = 0
        for number, (key, value) in enumerate(read.rows(database, after), 1):
            self.found.add(check_row(read, database, key, value))
            if number % _CLOCK_ROWS == 0 and time.monotonic() > until:
                return key, number
        return None, number


def databases(env: lmdb.Environment) -> dict[str, Db]:
    """Open those named databases that are there: what a later format has added reads as empty."""
    dbs = {}
    for name in layout.Databases.__slots__:
        with contextlib.suppress(lmdb.NotFoundError, lmdb.ReadonlyError):
            dbs[name] = env.open_db(name.encode(), create=False)
    return dbs


def _by_state(rows: Counter[tuple[int, State]]) -> dict[str, int]:
    return {str(state): sum(rows[key] for key in rows if key[1] == state) for state in State}


def _no_progress(_database: str, _done: int, _total: int) -> None:
    """Tell nobody."""
