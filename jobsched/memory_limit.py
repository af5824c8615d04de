"""How much memory a job may take: the kernel's limit for its process, and the worker's own look."""

from __future__ import annotations

import contextlib
import re
import resource
from pathlib import Path

__all__ = ["MemoryLimit", "anonymous_bytes"]

_NEARLY = 0.75  # of the limit, between two jobs: another process takes over
_FIELDS = re.compile(rb"^(VmSwap|VmData|RssAnon):\s+(\d+) kB$", re.MULTILINE)


def _read_status(pid: int | str) -> dict[bytes, int]:
    """Return some fields of /proc/PID/status in bytes; nothing where there is no such process."""
    with contextlib.suppress(OSError):
        found = _FIELDS.findall(Path(f"/proc/{pid}/status").read_bytes())
        return {name: int(kib) << 10 for name, kib in found}
    return {}


def anonymous_bytes(pid: int) -> int:
    """Return the memory that a process holds for itself: mapped files do not count, unlike in its
    resident size. 0 where there is no such process.
    """
    fields = _read_status(pid)
    return fields.get(b"RssAnon", 0) + fields.get(b"VmSwap", 0)


class MemoryLimit:
    """The limit of this process. The category's settings may change it from job to job."""

    def __init__(self) -> None:
        self._limit: int | None = None

    def apply(self, limit: int | None) -> None:
        """Have the kernel refuse memory over a limit in bytes (MemoryError in Python); None: none.

        It counts what is asked for, not what is used, so what the process has asked for and not
        used so far is allowed on top.
        """
        if limit == self._limit:
            return
        self._limit = limit
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = hard
        if limit is not None:
            fields = _read_status("self")
            unused = max(0, fields.get(b"VmData", 0) - fields.get(b"RssAnon", 0))
            soft = limit + unused if hard == resource.RLIM_INFINITY else min(hard, limit + unused)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

    @property
    def is_nearly_reached(self) -> bool:
        """Whether three quarters of the limit are in use."""
        if self._limit is None:
            return False
        fields = _read_status("self")
        return fields.get(b"RssAnon", 0) + fields.get(b"VmSwap", 0) > self._limit * _NEARLY
