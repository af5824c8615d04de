"""The board of a node's journals: memory that it shares with the clients that have one.

Each word has one writer. The node says whether it wants to be rung for, whether journals are closed, and
of each journal how far it is in the store; each client says how far its own is written, and rings by a
byte in the node's pipe. Nothing here has to survive: what counts after a crash is in the files.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from pathlib import Path

__all__ = ["SLOTS", "JournalBoard"]

SLOTS = 64
"""How many journals a node serves at the same time."""

_TOKEN, _BELL, _PIPE, _CLOSED, _FIRST = range(5)
_SIZE = mmap.PAGESIZE
_GIVEN_UP = 2**64 - 1


class JournalBoard:
    """One end of a board: the node makes it, clients open it by what the node tells of it.

    It is no file on a disk: where a disk is full, a write to memory that stands for one may kill the process.
    """

    def __init__(self, handle: int) -> None:
        """Attach to a board's descriptor, which stays the caller's."""
        self._memory = mmap.mmap(handle, _SIZE)
        self._words = memoryview(self._memory).cast("Q")  # which makes each one store, never half seen
        self.path = f"/proc/{os.getpid()}/fd/{handle}"
        self._bell = -1
        self._is_ringing = False
        self._handles: list[int] = []

    @classmethod
    def new(cls) -> JournalBoard:
        """Return a new board. Raises OSError."""
        with contextlib.ExitStack() as stack:
            handle = os.memfd_create("jobsched-journals", os.MFD_CLOEXEC)
            stack.callback(os.close, handle)
            os.ftruncate(handle, _SIZE)
            board = cls(handle)
            bell, far_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            stack.pop_all()
        board._bell = bell
        board._handles = [handle, bell, far_end]  # kept open: clients find them by their numbers
        board._words[_PIPE] = bell
        board._words[_TOKEN] = int.from_bytes(os.urandom(8), "big")
        return board

    @classmethod
    def opened(cls, path: str, token: int) -> JournalBoard:
        """Return a client's end of the board that has a token. Raises OSError; ValueError where there is
        another thing, as when the node's processes have other numbers here.
        """
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(handle).st_size != _SIZE:
                raise ValueError(f"{path} is no board of journals")
            board = cls(handle)
        finally:
            os.close(handle)
        try:
            board._know(path, token)
        except BaseException:
            board.close()
            raise
        return board

    def _know(self, path: str, token: int) -> None:
        """Make sure that it is the right board, and open its pipe: as a reader too, so that no signal comes
        from it when the node is gone.
        """
        if self.token != token:
            raise ValueError(f"{path} is the board of another node")
        pipe = f"{Path(path).parent}/{self._words[_PIPE]}"
        self._bell = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._handles = [self._bell]
        if not stat.S_ISFIFO(os.fstat(self._bell).st_mode):
            raise ValueError(f"{pipe} is no pipe of a node")

    @property
    def token(self) -> int:
        """A random number by which a client knows the board."""
        return self._words[_TOKEN]

    @property
    def is_rung_for(self) -> bool:
        """Whether the node sleeps, and wants to be told of a new entry."""
        return bool(self._words[_BELL])

    @is_rung_for.setter
    def is_rung_for(self, value: bool) -> None:
        self._words[_BELL] = value

    def ring(self) -> None:
        """Wake the node."""
        with contextlib.suppress(BlockingIOError):  # so many rings wait already
            os.write(self._bell, b"\0")

    def fileno(self) -> int:
        """Return the descriptor that can be read when somebody has rung."""
        return self._bell

    def hear(self) -> None:
        """Note that somebody has rung."""
        self._is_ringing = True

    def silence(self) -> None:
        """Take the rings that were heard."""
        if self._is_ringing:
            self._is_ringing = False
            with contextlib.suppress(BlockingIOError):
                os.read(self._bell, 4096)

    @property
    def is_closed(self) -> bool:
        """Whether clients are to ask the node instead: it stops, or has no room."""
        return bool(self._words[_CLOSED])

    @is_closed.setter
    def is_closed(self, value: bool) -> None:
        self._words[_CLOSED] = value

    def written(self, slot: int) -> int:
        """Return the number of a journal's last entry."""
        return self._words[_FIRST + 2 * slot]

    def set_written(self, slot: int, number: int) -> None:
        """Tell the number of one's last entry."""
        self._words[_FIRST + 2 * slot] = number

    def taken(self, slot: int) -> int:
        """Return up to which number a journal is in the store."""
        return self._words[_FIRST + 2 * slot + 1]

    def set_taken(self, slot: int, number: int) -> None:
        """Tell up to which number a journal is in the store."""
        self._words[_FIRST + 2 * slot + 1] = number

    def give_up(self, slot: int) -> None:
        """Tell a client to write to its journal no more."""
        self.set_taken(slot, _GIVEN_UP)

    def is_given_up(self, slot: int) -> bool:
        """Say whether a journal's client is to write to it no more."""
        return self.taken(slot) == _GIVEN_UP

    def close(self) -> None:
        """Let go of it."""
        self._words.release()
        self._memory.close()
        for handle in self._handles:
            os.close(handle)
        self._handles, self._bell = [], -1  # the number may be another file's soon
