"""How long a request may be: it is accepted whole or not at all, in one turn."""

from __future__ import annotations

from jobsched.errors import InvalidOption
from jobsched.store.alike import records_of
from jobsched.store.base import Request

__all__ = ["MAX_REQUEST_BYTES", "MAX_REQUEST_JOBS", "check_size"]

MAX_REQUEST_JOBS = 100_000
MAX_REQUEST_BYTES = 64 << 20


def check_size(request: Request) -> None:
    """Raise InvalidOption for a request over 100,000 jobs or 64 MiB: it is accepted whole or not."""
    jobs = request.jobs
    size = sum(map(len, records_of(jobs)))
    others = len(request.cancel), len(request.retry), len(request.delete), len(request.schedules)
    count = max(len(jobs), *others)
    if count > MAX_REQUEST_JOBS or size > MAX_REQUEST_BYTES:
        raise InvalidOption(
            f"one call takes up to {MAX_REQUEST_JOBS:,} jobs or {MAX_REQUEST_BYTES >> 20} MiB, "
            f"got {count:,} jobs and {size:,} bytes: use several"
        )
