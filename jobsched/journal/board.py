"""The board of a node's journals: memory that it shares with the clients that have one.

Each word has one writer. The node says whether it wants to be rung for, whether journals are closed, and
of each journal how far it is in the store; each client says how far its own is written. Nothing here has
to survive: what counts after a crash is in the files.
"""

from __future__ import annotations

import mmap
import os
import uuid
from pathlib import Path

__all__ = ["SLOTS", "JournalBoard"]

SLOTS = 64
"""How many journals a node serves at the same time."""

_BELL, _CLOSED, _FIRST = 0, 1, 2
_SIZE = mmap.PAGESIZE
_GIVEN_UP = 2**64 - 1


class JournalBoard:
    """One end of a board: the node makes it, clients open it by its name."""

    def __init__(self, file: Path) -> None:
        self.file = file
        handle = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(handle).st_size != _SIZE:
                raise ValueError(f"{file} is no board of journals")
            self._memory = mmap.mmap(handle, _SIZE)
        finally:
            os.close(handle)
        self._words = memoryview(self._memory).cast("Q")  # which makes each one store, never half seen

    @classmethod
    def new(cls, directory: Path) -> JournalBoard:
        """Return a new board in a directory of journals; those that killed nodes have left are deleted."""
        for old in directory.glob("*.board"):
            old.unlink(missing_ok=True)
        file = directory / f"{uuid.uuid4().hex}.board"
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, bytes(_SIZE), 0)
        finally:
            os.close(handle)
        return cls(file)

    @property
    def is_rung_for(self) -> bool:
        """Whether the node sleeps, and wants to be told of a new entry."""
        return bool(self._words[_BELL])

    @is_rung_for.setter
    def is_rung_for(self, value: bool) -> None:
        self._words[_BELL] = value

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
