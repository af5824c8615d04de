"""Holding a store still: no node runs on it, no client writes to it, no process has it open."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from jobsched.errors import JobschedError, StoreError, rebuilt
from jobsched.holders import openers
from jobsched.locks import lock_file, try_lock

__all__ = ["NODE", "WRITERS", "held_still", "lock_holder", "refuse_users"]

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
    pids = openers(place / "data.mdb")
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


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[bool]:
    """Give whether a lock file could be locked; it is let go at the end."""
    with lock_file(file) as handle:
        deadline = time.monotonic() + _PATIENCE_S
        while not (is_ours := try_lock(handle)) and time.monotonic() < deadline:
            time.sleep(_STEP_S)
        yield is_ours
