"""Fences: what keeps two runs of one job apart.

Each worker holds an flock on a file of its own, whose number is never used again and is part of
its claims. The lock dies with the process, so a job of a dead node goes back to its queue only when
the fence of the worker that ran it is free: no ages, no leases.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from jobsched.holders import openers, processes
from jobsched.locks import try_lock

__all__ = ["MARKER", "clear", "holders", "is_held", "known", "marked", "sweep", "take", "wait_free"]

MARKER = "JOBSCHED_WORKERS_OF"
"""Environment variable of the preloader and all that comes from it: the store's directory."""

_PATIENCE_S = 2.0
_STEP_S = 0.002


def _file(directory: Path, worker: int) -> Path:
    return directory / "fences" / str(worker)


def take(directory: Path, worker: int) -> int:
    """Take a worker's fence, in the worker; it is held until the process is gone."""
    handle = os.open(_file(directory, worker), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def is_held(directory: Path, worker: int) -> bool:
    """Say whether a worker may still be alive."""
    try:
        handle = os.open(_file(directory, worker), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)


def holders(directory: Path, worker: int) -> list[int]:
    """Return the other processes that have a worker's fence open, as far as they can be seen."""
    return [pid for pid in openers(_file(directory, worker)) if pid != os.getpid()]


def wait_free(directory: Path, workers: Iterable[int]) -> frozenset[int]:
    """Wait until fences are free, killing who holds them; return those still held after 2 s."""
    held = {worker for worker in workers if is_held(directory, worker)}
    deadline = time.monotonic() + _PATIENCE_S
    while held and time.monotonic() < deadline:
        for worker in held:
            _kill(holders(directory, worker))
        time.sleep(_STEP_S)
        held = {worker for worker in held if is_held(directory, worker)}
    return frozenset(held)


def known(directory: Path) -> list[int]:
    """Return the workers that have left a fence: one may run a job of which the store does not know."""
    with contextlib.suppress(FileNotFoundError):
        return [int(file.name) for file in (directory / "fences").iterdir() if file.name.isdecimal()]
    return []


def clear(directory: Path) -> None:
    """Make the folder of fences, and delete what earlier nodes left in it."""
    folder = directory / "fences"
    folder.mkdir(mode=0o700, exist_ok=True)
    for file in folder.iterdir():
        file.unlink(missing_ok=True)


def marked(directory: Path) -> str:
    """Return the marker's value for a store: the same however its path is spelled."""
    return os.path.realpath(directory)


def sweep(directory: Path) -> int:
    """Kill what a node that was itself killed has left of this store's workers; return how many.

    They are known by the marker in their environment. Waits until they are gone, 2 s at most.
    """
    mark = f"{MARKER}={marked(directory)}".encode()
    spared = set(_ancestry())

    def left() -> list[int]:
        return [pid for pid in processes() if pid not in spared and mark in _environment(pid)]

    found = left()
    _kill(found)
    _wait(lambda: not left())
    return len(found)


def _wait(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_done() and time.monotonic() < deadline:
        time.sleep(_STEP_S)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _ancestry() -> Iterator[int]:
    """Yield this process and those that started it."""
    pid = os.getpid()
    while pid > 0:
        yield pid
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        pid = int(fields[1])


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []  # gone, or another user's; a zombie's is empty
