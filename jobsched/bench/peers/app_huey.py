"""Huey, as its users write it: on Redis, or on a SQLite file."""

from __future__ import annotations

import os

from huey import RedisHuey, SqliteHuey

from jobsched.bench.peers.marks import mark
from jobsched.bench.peers.servers import URL

__all__ = ["huey", "send"]

_url = os.environ[URL]
huey = (
    RedisHuey("bench", url=_url, results=False)
    if _url.startswith("redis:")
    else SqliteHuey("bench", filename=_url, results=False)
)
marked = huey.task(name="mark")(mark)


def send(number: int) -> None:
    """Enqueue one job."""
    marked(number)
