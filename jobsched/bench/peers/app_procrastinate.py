"""Procrastinate, as its users write it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from procrastinate import App, PsycopgConnector

from jobsched.bench.peers.marks import mark
from jobsched.bench.peers.servers import URL

__all__ = ["app", "prepare", "send", "send_many"]

app = App(connector=PsycopgConnector(conninfo=os.environ[URL]))


async def _marked(number: int) -> None:
    mark(number)


marked = app.task(name="mark", queue="bench")(_marked)


def prepare() -> None:
    """Make the tables."""
    with app.open():
        app.schema_manager.apply_schema()


def send(number: int) -> None:
    """Enqueue one job."""
    _open()
    marked.defer(number=number)


def send_many(numbers: Sequence[int]) -> None:
    """Enqueue many in one statement."""
    _open()
    marked.batch_defer(*({"number": number} for number in numbers))


_is_open: list[bool] = []  # this process alone; the client's calls come from one thread


def _open() -> None:
    if not _is_open:
        app.open()
        _is_open.append(True)
