"""Holding a store still: no node runs on it, no client writes to it, no process has it open."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from jobsched.errors import JobschedError, StoreError, rebuilt

__all__ = ["held_still", "is_locked", "lock_holder", "refuse_users", "users"]

NODE, WRITERS = "node.lock", "writers.lock"

_PATIENCE_S = 1.0  # as for a node: one that was just killed lets go a moment later
_STEP_S = 0.02


@contextlib.contextmanager
def held_still(place: Path) -> Iterator[None]:
    """Keep everybody from a store, in the order in which a node takes its locks.

    Raises NodeRunning, and StoreError where a client writes, or any process has the file open: it
    would go on with a file that is no longer the store's.
    """
    with _locked(place / NODE) as no_node:
        if not no_node:
            raise _node_runs(place)
        with _locked(place / WRITERS) as no_writer:
            if not no_writer:
                raise StoreError(f"a client writes to {place}: try again when it is done")
            refuse_users(place)
            yield


def refuse_users(place: Path) -> None:
    """Raise StoreError if any process that can be seen has the store open."""
    pids = users(place / "data.mdb")
    if pids:
        listed = ", ".join(map(str, pids))
        raise StoreError(f"{place} is open in other processes (pid {listed}): stop them first")


def _node_runs(place: Path) -> JobschedError:
    return rebuilt(
        "NodeRunning", f"a node runs on {place} ({lock_holder(place) or 'pid unknown'}): stop it first"
    )


def lock_holder(place: Path) -> str | None:
    """Return what the last node to take node.lock has noted there: ``pid 7, since …``."""
    try:
        note = json.loads((place / NODE).read_bytes()[:1000])
        return f"pid {note['pid']}, since {note['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_locked(file: Path) -> bool:
    """Say whether somebody holds a lock file now. It is not created."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def users(file: Path) -> list[int]:
    """Return the processes that have a file open, as far as they can be seen."""
    try:
        info = file.stat()
    except FileNotFoundError:
        return []
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sorted(pid for pid in pids if (info.st_dev, info.st_ino) in _open_files(pid))


def _open_files(pid: int) -> set[tuple[int, int]]:
    found = set()
    with contextlib.suppress(OSError):  # gone, or another user's
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                info = entry.stat()
                found.add((info.st_dev, info.st_ino))
    return found


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[bool]:
    """Give whether a lock file could be locked; it is let go at the end."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not (is_ours := _try_lock(handle)) and time.monotonic() < deadline:
            time.sleep(_STEP_S)
        yield is_ours
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
