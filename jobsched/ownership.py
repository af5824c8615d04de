"""Owning a store: the locks, the socket and the recovery that a node's life begins with."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jobsched import fence, holders
from jobsched.config import Config
from jobsched.errors import NodeRunning, NotCommitted
from jobsched.journal.intake import take_in
from jobsched.listener import Listener, room_for_clients
from jobsched.locks import lock_file, try_lock
from jobsched.store.base import JobStore
from jobsched.store.lmdb import open_store
from jobsched.store.memory import MemoryStore
from jobsched.store.place import make_private

__all__ = ["Ownership", "StoppedEarly", "own"]

log = logging.getLogger(__name__)

_HANDOVER_S = 1.0
_STEP_S = 0.05
_SAY_EVERY_S = 10.0


class StoppedEarly(Exception):
    """The node was asked to stop before it had the store."""


class Ownership:
    """A store that is this node's alone, and the socket on which it answers."""

    def __init__(self, store: JobStore, listener: Listener, epoch: int) -> None:
        self.store = store
        self.listener = listener
        self._epoch = epoch
        self._workers = 0

    def next_worker(self) -> int:
        """Return a number that no worker of this store has had before."""
        self._workers += 1
        return self._epoch << 32 | self._workers


@contextlib.contextmanager
def own(config: Config, now: int, is_stopping: Callable[[], bool]) -> Iterator[Ownership]:
    """Take a store for a node's life, and put back what an earlier node has left.

    The order matters: node.lock, so that there is one node; then listen, so that clients wait
    instead of writing themselves; then writers.lock, when the last of them is done; only then open.
    `now` is in UTC microseconds. Raises StoppedEarly when `is_stopping` says so while it waits for a
    client, NodeRunning, StoreUnsafe, StoreFormatError.
    """
    place = config.store.path
    make_private(place)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_node_lock(place))
        listener = Listener(place, room_for_clients(config.workers))
        stack.callback(listener.close)
        stack.enter_context(_writers_lock(place, is_stopping))
        store = _open(config)
        stack.callback(store.close)
        swept = fence.sweep(place)
        if swept:
            log.warning("killed %d processes that an earlier node had left", swept)
        held = fence.wait_free(place, {*store.in_progress(), *fence.known(place)})
        recovered = store.recover(now, held)
        if config.store.kind == "lmdb":
            with contextlib.suppress(NotCommitted):  # the node itself waits for room, and goes on
                take_in(store, place, now)
        fence.clear(place)  # only now: a node killed before must find them again
        if recovered.put_back or held:
            log.warning(
                "put %d unfinished jobs back, workers that could not be ended: %d",
                recovered.put_back,
                len(held),
            )
        yield Ownership(store, listener, recovered.epoch)


def _open(config: Config) -> JobStore:
    if config.store.kind == "memory":
        return MemoryStore()
    return open_store(config.store.path, config.quota_bytes)


@contextlib.contextmanager
def _node_lock(place: Path) -> Iterator[None]:
    with lock_file(place / "node.lock") as handle:
        if not _wait(lambda: try_lock(handle), _HANDOVER_S):
            raise NodeRunning(str(place), _holder(place, handle))
        os.ftruncate(handle, 0)
        note = {"pid": os.getpid(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        os.pwrite(handle, json.dumps(note).encode(), 0)
        yield


def _wait(is_done: Callable[[], bool], seconds: float) -> bool:
    """Try for some time: a node that was just killed lets go of its lock a moment later."""
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP_S)
    return True


def _holder(place: Path, handle: int) -> str:
    """Return who has node.lock; what it has noted itself may be an earlier node's."""
    pids = holders.lockers(place / "node.lock")
    try:
        note = json.loads(os.pread(handle, 1000, 0))
        pid, since = int(note["pid"]), str(note["started"])
    except (ValueError, KeyError, TypeError):
        pid, since = 0, ""
    if pid in pids or (pid and not pids):
        return f"{holders.described(pid)}, since {since}"
    return " and ".join(map(holders.described, pids)) or "a process that cannot be seen from here"


@contextlib.contextmanager
def _writers_lock(place: Path, is_stopping: Callable[[], bool]) -> Iterator[None]:
    with lock_file(place / "writers.lock") as handle:
        if not _wait(lambda: try_lock(handle), _STEP_S):
            _outwait_writers(place, handle, is_stopping)
        yield


def _outwait_writers(place: Path, handle: int, is_stopping: Callable[[], bool]) -> None:
    """Wait for clients that write to the store themselves, and say who: one may be stopped in it.

    Their end is not forced. Raises StoppedEarly.
    """
    began = time.monotonic()

    def is_over() -> bool:
        return try_lock(handle) or is_stopping()

    while True:
        writers = " and ".join(map(holders.described, holders.lockers(place / "writers.lock")))
        log.warning(
            "waiting for a client that writes to %s: %s",
            place,
            writers or "a process that cannot be seen from here",
        )
        if _wait(is_over, _SAY_EVERY_S):
            break
    if is_stopping():
        raise StoppedEarly
    log.warning("waited %.1f s for a client that wrote to %s", time.monotonic() - began, place)
