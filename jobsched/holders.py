"""Who holds a file: found through /proc, as far as other processes can be seen."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["described", "lockers", "openers", "processes"]

_MAX_COMMAND = 200


def openers(file: Path) -> list[int]:
    """Return the processes that have a file open, this one too if it has."""
    return sorted({pid for pid, _ in _handles((os.getpid(), *processes()), file)})


def lockers(file: Path) -> list[int]:
    """Return the other processes that have a file open and, by it, hold an flock."""
    return sorted({pid for pid, handle in _handles(processes(), file) if _is_locked(handle)})


def described(pid: int) -> str:
    """Return a process in words: its pid, its command, and whether it is stopped."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return f"pid {pid}"
    words = " ".join(command.split())[:_MAX_COMMAND]
    return f"pid {pid} ({words}){', which is stopped' if state in 'Tt' else ''}"


def processes() -> Iterator[int]:
    """Yield the pids of all other processes."""
    me = os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != me:
            yield int(entry.name)


def _handles(pids: Iterable[int], file: Path) -> Iterator[tuple[int, Path]]:
    """Yield the handles that processes have of a file: the pid, and the handle's entry below fdinfo.

    Files are compared by device and inode: a process may know the same file by another path.
    """
    try:
        wanted = file.stat()
    except FileNotFoundError:
        return
    for pid in pids:
        with contextlib.suppress(OSError):  # gone, or another user's
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    if os.path.samestat(entry.stat(), wanted):
                        yield pid, Path(f"/proc/{pid}/fdinfo/{entry.name}")


def _is_locked(handle: Path) -> bool:
    try:
        return "FLOCK" in handle.read_text(errors="replace")
    except OSError:
        return False
