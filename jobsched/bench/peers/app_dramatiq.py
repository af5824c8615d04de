"""Dramatiq, as its users write it."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from jobsched.bench.peers.marks import mark
from jobsched.bench.peers.servers import URL

__all__ = ["broker", "send"]

broker = RedisBroker(url=os.environ[URL])
dramatiq.set_broker(broker)
marked = dramatiq.actor(actor_name="mark")(mark)


def send(number: int) -> None:
    """Enqueue one job."""
    marked.send(number)
