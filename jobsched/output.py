"""What jobs write to stdout and stderr: passed on, and kept on the worker's board."""

from __future__ import annotations

import contextlib
import io
import sys

from jobsched.board import Board

__all__ = ["capture", "flush", "keep_on"]

_board: Board | None = None  # the worker's, once there is one; read by every thread that writes


class _Kept(io.FileIO):
    """A descriptor whose output goes to the board too. What it does not take, as on a full disk, is
    left out: a job does not fail because the node's log cannot be written.
    """

    def write(self, data: object, /) -> int:
        """Write as much as the descriptor takes; the board sees the same, or all when it fails."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        try:
            count = super().write(view)
        except OSError:
            count = None
        if count is None:
            count = len(view)
        if _board is not None:
            _board.write(view[:count])
        return count


def capture() -> None:
    """Replace stdout and stderr, before the user's modules take hold of them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            handle = stream.fileno()
            stream.flush()
            kept = io.TextIOWrapper(
                io.BufferedWriter(_Kept(handle, "w", closefd=False)),
                encoding=stream.encoding, errors="backslashreplace", line_buffering=True,
            )  # fmt: skip
            setattr(sys, name, kept)


def keep_on(board: Board) -> None:
    """Keep what is written from now on."""
    global _board  # noqa: PLW0603 (a fact of the process, like its stdout)
    _board = board


def flush() -> None:
    """Pass on what is buffered."""
    for stream in (sys.stdout, sys.stderr):
        try:  # (contextlib's suppress would take longer than all the rest)
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
