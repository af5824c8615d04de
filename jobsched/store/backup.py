"""Backup and restore of an LMDB store.

A backup is a directory with `data.mdb`, a compacted copy of one commit, and `backup.json`, which
says whence it came and what is in it. It is made beside a running node, checked before it gets its
name, and never overwrites anything. A restore changes nothing before the backup has been checked,
and deletes nothing: what was there is moved aside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import lmdb
import msgspec

from jobsched.clock import from_micros
from jobsched.errors import InvalidOption, StoreError
from jobsched.store.hold import held_still, refuse_users
from jobsched.store.place import JOURNALS, make_private, sync_directory
from jobsched.store.verify import NOTE, Findings, opened, structure, verify

__all__ = ["Backup", "Restored", "backup", "free_name", "read_note", "restore", "write_backup"]

_DATA = "data.mdb"
_INCOMING = "restoring.mdb"
_COPY_BYTES = 1 << 20
_NOT_BESIDE = frozenset({errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS})

Progress = Callable[[str, int, int], None]


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What `backup.json` says.

    `at` is ISO 8601 in UTC, `source` the store's directory then, `store` its id, `jobs` the counts by
    state, `bytes` the size of data.mdb, `findings` how many things `verify` found wrong in the copy:
    what is damaged in a store is damaged in its backup too.
    """

    at: str
    source: str
    store: str | None
    format: int | None
    jobs: dict[str, int]
    bytes: int
    findings: int = 0


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore has done. `aside` is where the files before it are, None if there were none."""

    path: str
    aside: str | None
    backup: Backup | None
    jobs: dict[str, int]
    findings: int


def backup(path: Path, target: Path, *, now: int, progress: Progress | None = None) -> Backup:
    """Copy a store, while a node may run on it, to a new directory.

    `now` is in UTC microseconds. Raises InvalidOption if the target exists or its folder does not,
    StoreError if the store cannot be read or the copy not be written: then nothing is left there.
    """
    if problems := structure(path):
        raise StoreError(f"the store {path} is broken, it was not copied: {problems[0]}")
    with opened(path) as env:
        return write_backup(env, path, target, now=now, progress=progress)


def write_backup(
    env: lmdb.Environment, path: Path, target: Path, *, now: int, progress: Progress | None = None
) -> Backup:
    """Copy the store at a path by its open environment. Otherwise like `backup`."""
    target = target.absolute()
    if os.path.lexists(target):
        raise InvalidOption(f"{target} exists: a backup overwrites nothing, name another place")
    if not target.parent.is_dir():
        raise InvalidOption(f"no folder {target.parent} to put the backup in")
    with _writing(target), _scratch(target) as folder:
        _copy(env, folder / _DATA)
        found = verify(folder / _DATA, progress)
        if not found.format:
            raise StoreError(f"the copy of {path} is broken: {found.findings[0].text}")
        note = _note(found, path, now)
        _write_private(folder / NOTE, msgspec.json.format(msgspec.json.encode(note)) + b"\n")
        sync_directory(folder)
        folder.rename(target)
        sync_directory(target.parent)
    return note


def read_note(backup: Path) -> Backup | None:
    """Return what lies beside a backup's data; None where there is nothing, or nothing readable."""
    folder = backup if backup.is_dir() else backup.parent
    try:
        return msgspec.json.decode((folder / NOTE).read_bytes(), type=Backup)
    except (OSError, msgspec.MsgspecError):
        return None


def _note(found: Findings, path: Path, now: int) -> Backup:
    return Backup(
        at=from_micros(now).isoformat(timespec="seconds"),
        source=str(path),
        store=found.store,
        format=found.format,
        jobs=found.jobs,
        bytes=found.bytes,
        findings=found.total,
    )


@contextlib.contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """Give a directory beside the target, for its owner alone; delete it if it is still there at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Say in our words why a place could not be written to."""
    try:
        yield
    except OSError as error:
        raise StoreError(_why(target, error.errno, error.strerror or str(error))) from error
    except lmdb.Error as error:
        raise StoreError(_why(target, getattr(error, "code", None), str(error))) from error


def _why(target: Path, code: int | None, text: str) -> str:
    if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return f"no room for {target}: the disk is full; nothing was left there"
    return f"cannot write {target}: {text}"


def _copy(env: lmdb.Environment, file: Path) -> None:
    """Write a compacted copy of the last commit: no longer than that holds the reader's pages."""
    with _private(file) as handle:
        env.copyfd(handle, compact=True)
        os.fsync(handle)


@contextlib.contextmanager
def _private(file: Path) -> Iterator[int]:
    """Create a file that only its owner can read, whatever the umask."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(handle, 0o600)
        yield handle
    finally:
        os.close(handle)


def _write_private(file: Path, data: bytes) -> None:
    with _private(file) as handle, open(handle, "wb", closefd=False) as out:
        out.write(data)
        out.flush()
        os.fsync(handle)


# The way back.


def restore(
    backup: Path, path: Path, *, now: int, accept_damaged: bool = False, progress: Progress | None = None
) -> Restored:
    """Put a backup in the place of a store, which no process may have open.

    What was there goes to `<store>.before-restore-<time>`, or into the store's directory where nothing
    can be put beside it. Jobs that were running in the backup go back to their place when the next
    node starts. Raises NodeRunning, StoreFormatError for a backup of a newer jobsched, StoreError where
    it is damaged (with `accept_damaged`, only where it cannot be read at all) or the place cannot be
    written: then the store is as it was.
    """
    source = backup / _DATA if backup.is_dir() else backup
    if not source.is_file():
        raise InvalidOption(f"no backup at {backup}: expected a directory with {_DATA} in it")
    if source.resolve() == (path / _DATA).resolve():
        raise InvalidOption(f"{backup} is the store itself")
    make_private(path)
    with held_still(path), _writing(path):
        incoming = path / _INCOMING
        try:
            found = _take_in(source, incoming, accept_damaged=accept_damaged, progress=progress)
            refuse_users(path)  # again: a reader takes no lock, and may have come meanwhile
            aside = _set_aside(path, now)
            (path / "lock.mdb").unlink(missing_ok=True)  # its readers were those of the other file
            incoming.rename(path / _DATA)
            if aside is not None:  # what clients have in their journals belongs to that file
                with contextlib.suppress(FileNotFoundError):
                    (path / JOURNALS).rename(aside / JOURNALS)
                    sync_directory(aside)
        finally:
            incoming.unlink(missing_ok=True)
        sync_directory(path)
        sync_directory(path.parent)
    return Restored(
        path=str(path),
        aside=None if aside is None else str(aside),
        backup=read_note(backup),
        jobs=found.jobs,
        findings=found.total,
    )


def _take_in(source: Path, incoming: Path, *, accept_damaged: bool, progress: Progress | None) -> Findings:
    """Copy a backup beside the store's file and check the copy."""
    incoming.unlink(missing_ok=True)  # of a restore that was killed
    with source.open("rb") as file, _private(incoming) as handle:
        with open(handle, "wb", closefd=False) as out:
            shutil.copyfileobj(file, out, _COPY_BYTES)
        os.fsync(handle)
    found = verify(incoming, progress)
    if found.format is None or (found.total and not accept_damaged):
        more = f" (and {found.total - 1} more findings)" if found.total > 1 else ""
        raise StoreError(f"the backup {source} is damaged: {found.findings[0].text}{more}")
    return found


def _set_aside(path: Path, now: int) -> Path | None:
    """Give the store's file a second name in a directory of its own; return that.

    A link, so that there is no moment without a file: a node would begin an empty store. Beside a
    mount point is another file system, beside a service's directory one that it cannot write: then
    it goes into the store's directory.
    """
    if not (path / _DATA).exists():
        return None
    name = f"before-restore-{from_micros(now):%Y%m%dT%H%M%S}"
    try:
        return _named_twice(path / _DATA, path.with_name(f"{path.name}.{name}"))
    except OSError as error:
        if error.errno not in _NOT_BESIDE:
            raise
        return _named_twice(path / _DATA, path / name)


def _named_twice(file: Path, wanted: Path) -> Path:
    """Give a file a second name in a new directory; return that. Nothing is left if it fails."""
    folder = free_name(wanted)
    folder.mkdir(mode=0o700)
    try:
        (folder / file.name).hardlink_to(file)
    except OSError:
        folder.rmdir()
        raise
    sync_directory(folder)
    sync_directory(folder.parent)
    return folder


def free_name(wanted: Path) -> Path:
    """Return a name that is not taken: what an earlier migration or restore left stays."""
    names = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    return wanted if not os.path.lexists(wanted) else next(one for one in names if not os.path.lexists(one))
