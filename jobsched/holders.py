"""Who holds a file: found through /proc, as far as other processes can be seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["described", "lockers", "openers", "processes"]

_MAX_COMMAND = 200


def openers(path: Path) -> list[int]:
    """Return the other processes that have a file open."""
    target = str(path.resolve())
    return [pid for pid in processes() if any(_handles(pid, target))]


def lockers(path: Path) -> list[int]:
    """Return the other processes that have a file open and, by it, hold an flock."""
    target = str(path.resolve())
    return [pid for pid in processes() if any(map(_is_locked, _handles(pid, target)))]


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


def _handles(pid: int, target: str) -> Iterator[Path]:
    """Yield a process's descriptors for a file, as their entries below fdinfo."""
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if str(entry.readlink()) == target:
                yield Path(f"/proc/{pid}/fdinfo/{entry.name}")
    except OSError:
        return  # gone, or another user's


def _is_locked(entry: Path) -> bool:
    try:
        return "FLOCK" in entry.read_text(errors="replace")
    except OSError:
        return False
