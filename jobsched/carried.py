"""What a job dispatches together with its own completion."""

from __future__ import annotations

from jobsched.errors import InvalidOption
from jobsched.schedule import PutSchedule
from jobsched.store.base import Request

__all__ = ["MOST_BYTES", "Carried"]

MOST_BYTES = 2 << 20
"""How much that may be: it goes to the node in the frame of the outcome."""

_BESIDE = 300  # bytes of a job or of a change beside the payload


class Carried:
    """The requests of one run, kept until it has completed. Any thread of the job may add to them."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._requests)

    def add(self, request: Request) -> None:
        """Keep a request. Raises InvalidOption where that makes them over 2 MiB: it is not kept then."""
        size = self._size + _size(request)
        if size > MOST_BYTES:
            raise InvalidOption(
                f"a job dispatches up to {MOST_BYTES >> 20} MiB with its completion, this makes"
                f" {size:,} bytes: leave out atomic, or dispatch one job that dispatches the others"
            )
        self._size = size
        self._requests.append(request)

    def joined(self) -> Request:
        """Return all of them as one."""
        limits = [request.max_pending.items() for request in self._requests]
        return Request(
            jobs=[job for request in self._requests for job in request.jobs],
            max_pending={name: most for items in limits for name, most in items},
            takes_unknown=any(request.takes_unknown for request in self._requests),
            schedules=[change for request in self._requests for change in request.schedules],
        )


def _size(request: Request) -> int:
    puts = [change.schedule for change in request.schedules if isinstance(change, PutSchedule)]
    size = sum(len(job.record) for job in request.jobs) + sum(len(put.args) + len(put.kwargs) for put in puts)
    return size + (len(request.jobs) + len(request.schedules)) * _BESIDE
