"""RQ, as its users write it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from redis import Redis
from rq import Queue

from jobsched.bench.peers.marks import mark
from jobsched.bench.peers.servers import URL

__all__ = ["send", "send_many"]

_queue = Queue("bench", connection=Redis.from_url(os.environ[URL]))


def send(number: int) -> None:
    """Enqueue one job, whose result is not kept."""
    _queue.enqueue(mark, number, result_ttl=0)


def send_many(numbers: Sequence[int]) -> None:
    """Enqueue many in one pipeline."""
    _queue.enqueue_many([Queue.prepare_data(mark, (number,), result_ttl=0) for number in numbers])
