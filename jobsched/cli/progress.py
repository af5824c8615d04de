"""One line that says how far a long command is, at a terminal, once it takes a while."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

__all__ = ["Progress"]

_SILENT_S = 0.5
_EVERY_S = 0.1
_ERASE = "\r\x1b[K"


class Progress:
    """A context whose object is called with what is done now, and how much of it."""

    def __init__(self, *, quiet: bool = False, doing: str = "checking") -> None:
        self._doing = doing
        self._next = time.monotonic() + _SILENT_S
        self._is_on = sys.stderr.isatty() and not quiet
        self._is_shown = False

    def __call__(self, what: str, done: int, total: int | None = None) -> None:
        """Show how far it is, ten times a second at most. The total may not be known."""
        now = time.monotonic()
        if self._is_on and now >= self._next:
            self._next, self._is_shown = now + _EVERY_S, True
            of = "" if total is None else f" of {total:,}"
            sys.stderr.write(f"{_ERASE}{self._doing} {what}: {done:,}{of} ")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            sys.stderr.write(_ERASE)
            sys.stderr.flush()
