"""Where the package's log goes while a node runs: plain lines to stderr, or above the live view."""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Callable, Iterator
from logging.handlers import QueueHandler, QueueListener

from jobsched.cli.output import clean

__all__ = ["logging_to"]


@contextlib.contextmanager
def logging_to(print_line: Callable[[str], None] | None) -> Iterator[None]:
    """Log by a function that does not wait; without one to stderr, from a thread: the node's loop
    does not wait for a slow reader.
    """
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    stream = logging.StreamHandler()
    stream.setFormatter(_Clean("%(asctime)s %(levelname)s %(message)s"))
    listener = QueueListener(records, stream)
    handler = QueueHandler(records) if print_line is None else _ByFunction(print_line, stream)
    logger = logging.getLogger("jobsched")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        listener.stop()


class _Clean(logging.Formatter):
    """Leaves out what an error message of a job could steer a terminal with."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return clean(super().format(record), lines=True)


class _ByFunction(logging.Handler):
    """Passes each record on as text."""

    def __init__(self, print_line: Callable[[str], None], like: logging.Handler) -> None:
        super().__init__()
        self._print_line = print_line
        self._like = like

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        self._print_line(self._like.format(record))
