"""Ours, as its users write it."""

from __future__ import annotations

from collections.abc import Sequence

from jobsched.api import default_dispatcher, task
from jobsched.bench.peers.marks import mark

__all__ = ["CATEGORY", "marked", "prepare", "release", "send", "send_many"]

CATEGORY = "bench"

marked = task(category=CATEGORY, name="mark")(mark)


def prepare() -> None:
    """Let nothing start while jobs are dispatched."""
    default_dispatcher().pause(CATEGORY)


def release() -> None:
    """Let the jobs start."""
    default_dispatcher().resume(CATEGORY)


def send(number: int) -> None:
    """Dispatch one job."""
    default_dispatcher().dispatch(marked, args=(number,))


def send_many(numbers: Sequence[int]) -> None:
    """Dispatch many in one commit."""
    default_dispatcher().dispatch_each(marked, [(number,) for number in numbers])
