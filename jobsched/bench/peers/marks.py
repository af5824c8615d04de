"""What every job of the comparison does: note that it has started, in memory that the bench reads.

It is the same function for ours and for all others, so its cost (about a microsecond) is in all
figures alike, and every start is counted, a second one of the same job too.
"""

from __future__ import annotations

import functools
import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["MARKS", "Marks", "Start", "drain_rate", "mark"]

MARKS = "JOBSCHED_BENCH_MARKS"
"""Environment variable: the file of the marks."""

_ROW = 16  # bytes of a job: when it first started (monotonic ns), by which process, how often
_NANOSECONDS = 1e9


def mark(number: int) -> None:
    """Note that a job has started."""
    rows = _opened()
    at = 2 * number
    if not rows[at]:
        rows[at] = time.monotonic_ns()
    rows[at + 1] = (os.getpid() << 32) + (rows[at + 1] & 0xFFFFFFFF) + 1


@functools.cache
def _opened() -> memoryview:
    with Path(os.environ[MARKS]).open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")


class Start(NamedTuple):
    """A job's first start, in monotonic nanoseconds, 0 for none; the last worker; how many starts."""

    at: int
    worker: int
    times: int


class Marks:
    """The marks of so many jobs, as the bench sees them."""

    def __init__(self, file: Path, jobs: int) -> None:
        file.write_bytes(bytes(_ROW * jobs))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 0)
        self._rows = memoryview(self._memory).cast("Q")

    def close(self) -> None:
        """Let go of the file."""
        self._rows.release()
        self._memory.close()

    def started(self, first: int, count: int) -> int:
        """Return how many jobs of a range have started."""
        return count - self._rows[2 * first : 2 * (first + count) : 2].tolist().count(0)

    def workers(self, first: int, count: int) -> int:
        """Return how many workers have started jobs of a range."""
        return len(
            {rest >> 32 for rest in self._rows[2 * first + 1 : 2 * (first + count) : 2].tolist()} - {0}
        )

    def starts(self, first: int, count: int) -> list[Start]:
        """Return the starts of a range of jobs."""
        rows = self._rows[2 * first : 2 * (first + count)].tolist()
        return [
            Start(at, rest >> 32, rest & 0xFFFFFFFF) for at, rest in zip(rows[::2], rows[1::2], strict=True)
        ]


def drain_rate(starts: Sequence[Start]) -> float:
    """Return how many jobs started a second, from when every worker had started one: some take longer
    to get ready than others. Where less than half of the jobs were left then, from the first start.
    """
    ready: dict[int, int] = {}
    for start in starts:
        ready[start.worker] = min(start.at, ready.get(start.worker, start.at))
    since, until = max(ready.values()), max(start.at for start in starts)
    counted = sum(start.at > since for start in starts)
    if counted < len(starts) / 2:
        since, counted = min(start.at for start in starts), len(starts) - 1
    return counted * _NANOSECONDS / max(1, until - since)
