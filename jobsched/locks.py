"""Locks on files: flock(2), held through an open handle and gone with it, however its process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["is_locked", "lock_file", "try_lock"]


@contextlib.contextmanager
def lock_file(file: Path) -> Iterator[int]:
    """Give a handle of a lock file, made where it is missing; a lock taken by it is let go at the end."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Lock a file for ourselves alone, without waiting; False while another handle has it locked."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(file: Path) -> bool:
    """Say whether somebody holds a lock file now. It is not made; one that cannot be opened is free."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)
