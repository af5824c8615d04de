"""Ours, as its users write it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from jobsched.api import default_dispatcher, task
from jobsched.bench.peers.marks import mark
from jobsched.node_connection import NodeConnection

__all__ = ["CATEGORY", "await_ready", "marked", "prepare", "release", "send", "send_many"]

CATEGORY = "bench"
_START_S = 30.0
_STEP_S = 0.02

marked = task(category=CATEGORY, name="mark")(mark)


def prepare() -> None:
    """Let nothing start while jobs are dispatched."""
    default_dispatcher().pause(CATEGORY)


def await_ready() -> None:
    """Wait until the node has its workers, as the others' servers are up."""
    place = default_dispatcher().config.store.path
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError, FileNotFoundError):
            connection = NodeConnection(place)
            with contextlib.closing(connection):
                if any(report.workers for report in connection.survey().categories.values()):
                    return
        time.sleep(_STEP_S)


def release() -> None:
    """Let the jobs start."""
    default_dispatcher().resume(CATEGORY)


def send(number: int) -> None:
    """Dispatch one job."""
    default_dispatcher().dispatch(marked, args=(number,))


def send_many(numbers: Sequence[int]) -> None:
    """Dispatch many in one commit."""
    default_dispatcher().dispatch_each(marked, [(number,) for number in numbers])
