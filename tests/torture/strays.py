"""Processes that must not outlive what started them, known by pid and start time."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from nodes import POLL_S, Node, Project


class Stray(NamedTuple):
    """A process; the start time, in clock ticks since boot, tells it from a later one of its pid."""

    label: str
    pid: int
    started: int

    @classmethod
    def seen(cls, label: str, pid: int) -> "Stray | None":
        """Return a living process, None if it is gone already."""
        fields = _stat(pid)
        return cls(label, pid, int(fields[19])) if fields else None

    @property
    def is_alive(self) -> bool:
        fields = _stat(self.pid)
        return bool(fields) and fields[0] not in "ZX" and int(fields[19]) == self.started

    def kill(self) -> bool:
        """Kill it by force, unless it is gone; return whether it was there."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.is_alive:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    return True
            finally:
                os.close(handle)
        return False


def bred(project: Project) -> list[Stray]:
    """Return what the jobs `breed` have started, by the labels of those."""
    file = project.folder / "bred"
    lines = file.read_text().splitlines() if file.exists() else []
    return [Stray(label, int(pid), int(started)) for label, pid, started in map(str.split, lines)]


def crew(node: Node) -> list[Stray]:
    """Return a node's preloader and workers."""
    preloader = node.preloader()
    pids = [*node.workers(), *([preloader.pid] if preloader else [])]
    return [stray for pid in pids if (stray := Stray.seen("crew", pid))]


def zombies(parents: Iterable[int]) -> list[Stray]:
    """Return the children of some processes that have ended and were not reaped."""
    found = []
    wanted = set(parents)
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else []
        if fields and fields[0] == "Z" and int(fields[1]) in wanted:
            found.append(Stray("zombie", int(entry.name), int(fields[19])))
    return found


def seconds_until(condition: Callable[[], bool], limit_s: float) -> float | None:
    """Return how long it took until a condition held, None if it did not in time."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit_s:
            return None
        time.sleep(POLL_S)
    return time.monotonic() - began


def _stat(pid: int) -> list[str]:
    """Return the fields of a process from its state on, none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
