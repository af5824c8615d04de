"""Celery, as its users write it."""

from __future__ import annotations

import os

from celery import Celery

from jobsched.bench.peers.marks import mark
from jobsched.bench.peers.servers import URL

__all__ = ["app", "send"]

app = Celery("bench", broker=os.environ[URL])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,  # else a job is gone with its worker
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
marked = app.task(name="mark")(mark)


def send(number: int) -> None:
    """Enqueue one job."""
    marked.delay(number)
