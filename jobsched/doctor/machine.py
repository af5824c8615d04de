"""What the machine has left: room on the disk, memory, and the right time."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from jobsched.amount import byte_size
from jobsched.clock import from_micros
from jobsched.doctor.finding import Finding, error, fine, warning

__all__ = ["available_memory", "judge_clock", "judge_disk", "judge_inodes", "judge_memory", "look"]

_MIB = 1 << 20
_LEAST_DISK, _LOW_DISK = 32 * _MIB, 512 * _MIB
_LEAST_INODES = 1000
_LEAST_MEMORY, _LOW_MEMORY = 64 * _MIB, 256 * _MIB
_WRITTEN = 1_767_225_600_000_000  # 2026-01-01: no clock was right before this was written
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)


def look(store: Path, now: int) -> Iterator[Finding]:
    """Look at the disk of a store, memory and clock. `now` is in UTC microseconds."""
    place = next(path for path in (store, *store.parents) if path.exists())
    found = os.statvfs(place)
    yield judge_disk(found.f_bavail * found.f_frsize, place)
    yield judge_inodes(found.f_favail if found.f_files else None, place)
    yield judge_memory(available_memory())
    yield judge_clock(now, is_synchronised=_is_synchronised())


def judge_disk(free: int, place: Path) -> Finding:
    """Judge the bytes free: a full disk takes no more jobs."""
    text = f"{byte_size(free)} free at {place}"
    if free < _LEAST_DISK:
        return error("disk", f"{text}: no room to write", "free some space")
    if free < _LOW_DISK:
        return warning("disk", text, "free some space")
    return fine("disk", text)


def judge_inodes(free: int | None, place: Path) -> Finding:
    """Judge the inodes free; None: the file system has no fixed number of them."""
    if free is not None and free < _LEAST_INODES:
        return error("disk", f"{free} inodes free at {place}", "delete some files")
    return fine("disk", "inodes are enough" if free is None else f"{free:,} inodes free")


def available_memory() -> int:
    """Return the bytes that processes here may still take: the machine's, or the control group's."""
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no control group, or no limit in it
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        free = min(free, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    return max(0, free)


def judge_memory(free: int) -> Finding:
    """Judge the bytes available: where memory ends, the kernel kills workers."""
    text = f"{byte_size(free)} of memory available"
    if free < _LEAST_MEMORY:
        return error("memory", f"{text}: the kernel will kill workers", "lower workers in categories.toml")
    if free < _LOW_MEMORY:
        return warning("memory", text, "lower workers in categories.toml")
    return fine("memory", text)


def _is_synchronised() -> bool | None:
    """Return whether the kernel says that something keeps its clock right; None if it does not say."""
    with contextlib.suppress(OSError, AttributeError):
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # zero modes: only asks
        return None if state < 0 else bool(state != _UNSYNCHRONISED)
    return None


def judge_clock(now: int, *, is_synchronised: bool | None) -> Finding:
    """Judge the wall clock: delays and schedules go by it."""
    text = f"it is {from_micros(now).isoformat(timespec='seconds')}"
    if now < _WRITTEN:
        return error("clock", f"{text}: the clock is wrong", "timedatectl set-ntp true")
    if is_synchronised is False:
        return warning("clock", f"{text}; nothing keeps the clock right", "timedatectl set-ntp true")
    return fine("clock", text)
