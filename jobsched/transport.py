"""Which way requests take to the store from this process: through a gateway, or, inside a worker,
through the node's own socket pair.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from jobsched.gateway import Gateway
from jobsched.store.base import Reply, Request, StoredJob
from jobsched.store.schedule_query import Findings, FiringQuery, ScheduleQuery

__all__ = ["Transport", "set_worker_transport", "transport_for"]


class Transport(Protocol):
    """What a dispatcher needs of the way to the store."""

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Have requests applied, each whole or not at all; they are on disk on return.

        Raises Unavailable when their outcome is unknown.
        """
        ...

    def look(self, job_id: bytes, timeout_s: float | None) -> StoredJob | None:
        """Return a job: at once when the timeout is 0, else when it has ended or time is up."""
        ...

    def find(self, query: ScheduleQuery | FiringQuery) -> Findings:
        """Return what the store has of schedules."""
        ...


# Set once by a worker process: there the node's socket pair is the only way. Read by every thread.
_worker_transport: Transport | None = None


def set_worker_transport(transport: Transport) -> None:
    """Make every dispatcher of this process use the worker's own way to the node."""
    global _worker_transport  # noqa: PLW0603 (a fact of the process, like its pid)
    _worker_transport = transport


def _forget_worker_transport() -> None:
    """In a child that a job has forked: the worker's socket pair is not its own."""
    global _worker_transport  # noqa: PLW0603 (as above)
    _worker_transport = None


os.register_at_fork(after_in_child=_forget_worker_transport)


def transport_for(directory: Path, *, durable: bool, quota_bytes: int) -> Transport:
    """Return the way to a store from this process."""
    return _worker_transport or Gateway(directory, durable=durable, quota_bytes=quota_bytes)
