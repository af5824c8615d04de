"""Where the package's log goes while a node runs: plain lines to stderr."""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
from collections.abc import Iterator
from logging.handlers import QueueHandler, QueueListener
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["logging_to"]

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


@contextlib.contextmanager
def logging_to(console: Console | None) -> Iterator[None]:
    """Log to stderr; above the live view of a console if that and stderr are one terminal.

    A thread does the writing: the node's loop does not wait for a slow reader.
    """
    handler = _Above(console) if console is not None and sys.stderr.isatty() else logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    front, listener = QueueHandler(records), QueueListener(records, handler)
    logger = logging.getLogger("jobsched")
    logger.setLevel(logging.INFO)
    logger.addHandler(front)
    listener.start()
    try:
        yield
    finally:
        logger.removeHandler(front)
        listener.stop()


class _Above(logging.Handler):
    """Prints through the console that draws the live view, which keeps the lines above it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
