"""What a job prints in the process of a test: printed, and kept with its attempt."""

from __future__ import annotations

import io
from typing import Any

from jobsched.board import Board

__all__ = ["KeptOutput"]


class KeptOutput(io.TextIOBase):
    """A text stream that passes on what is written, and keeps it on a board."""

    def __init__(self, stream: Any, board: Board) -> None:
        # A job inside another one: the outer one's output is its own.
        self.stream: Any = stream.stream if isinstance(stream, KeptOutput) else stream
        self._board = board

    def write(self, text: str) -> int:
        """Write a text."""
        self._board.write(text.encode(errors="backslashreplace"))
        self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered."""
        self.stream.flush()

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def fileno(self) -> int:
        """Return the descriptor behind it."""
        found: int = self.stream.fileno()
        return found

    def isatty(self) -> bool:
        """Say whether somebody sits there."""
        return bool(self.stream.isatty())
