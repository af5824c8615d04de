"""A client's own journal: what it dispatches is on disk after one flush."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from jobsched import wire
from jobsched.journal import file
from jobsched.journal.board import JournalBoard
from jobsched.store.base import Request

__all__ = ["Journal", "Node"]

_encode = msgspec.msgpack.Encoder().encode
_MOST_JOBS = file.MOST_BYTES >> 6  # in an entry: a job takes more than 64 bytes
_inherited: weakref.WeakSet[Journal] = weakref.WeakSet()


class Node(Protocol):
    """The client's connection to its node."""

    def attach(self, journal: str) -> wire.Attached:
        """Ask the node to take in what the journal of that name holds, from now on."""
        ...

    def is_silent(self) -> bool:
        """Say whether the node is there, and has sent nothing that was not asked for."""
        ...


class Journal:
    """One client's journal. One thread at a time. After an error of `append` it must be closed: nobody
    knows then what its file holds.
    """

    def __init__(self, directory: Path) -> None:
        """Make one in a directory of journals. Raises OSError."""
        self._name, self._handle = file.create(directory)
        self._file = directory / f"{self._name}.journal"
        self._key = file.key_of(self._name)
        self._number = 0
        self._offset = file.START
        self._node: Node | None = None
        self._board: JournalBoard | None = None
        self._slot = -1
        self._tasks: frozenset[str] = frozenset()
        self._categories: frozenset[str] = frozenset()
        _inherited.add(self)

    def attach(self, node: Node) -> bool:
        """Have a node take in what is written from now on; False if it does not want to, or if its board
        cannot be reached from here. Raises ConnectionError when it is gone, TimeoutError.
        """
        self.detach()
        told = node.attach(self._name)
        if told.slot < 0:
            return False
        try:
            self._board = JournalBoard.opened(told.board, told.token)
        except (OSError, ValueError):
            return False  # the node is gone, or in a container of its own
        self._node, self._slot = node, told.slot
        self._tasks, self._categories = told.tasks, told.categories
        self._board.set_written(self._slot, self._number)
        return True

    def detach(self) -> None:
        """Write nothing more until `attach`."""
        self._node = None
        if self._board is not None:
            self._board.close()
            self._board = None

    def takes(self, requests: Sequence[Request]) -> bool:
        """Say whether requests may be written here: only what no node could refuse, and only as long as
        it has not closed the journals.
        """
        board = self._board
        return board is not None and not board.is_closed and all(map(self._is_sure, requests))

    @property
    def is_given_up(self) -> bool:
        """Whether the node wants nothing more of it: another one is needed."""
        return self._board is not None and self._board.is_given_up(self._slot)

    def _is_sure(self, request: Request) -> bool:
        jobs, tasks, categories = request.jobs, self._tasks, self._categories
        if len(jobs) > _MOST_JOBS:
            return False
        for job in jobs:
            if job.task not in tasks or job.category not in categories or job.terms is not None:
                return False
        return bool(jobs) and request == Request(jobs=jobs)

    def append(self, requests: Sequence[Request]) -> bool:
        """Write requests; they are on disk on return. False, and nothing is written, if there is no room.

        Raises ConnectionError if the node has gone. What is written by then is no less on disk, but jobs
        dispatched later may come before it: ask again. Raises OSError.
        """
        node, board = self._node, self._board
        assert node is not None
        assert board is not None
        number, offset = self._number, self._offset
        if board.taken(self._slot) >= number:
            offset = file.START  # all of it is in the store
        entries = b""
        for request in requests:
            body = _encode(list(request.jobs))
            if len(body) > file.MOST_BYTES:
                return False
            number += 1
            entries += file.packed(self._key, number, time.monotonic_ns(), body)
        if offset + len(entries) > file.LENGTH:
            return False
        if not node.is_silent():
            raise ConnectionResetError("the node is gone")
        file.write(self._handle, entries, offset)
        board.set_written(self._slot, number)
        is_rung = board.is_rung_for
        if is_rung:
            board.ring()  # the node wakes up during the flush
        os.fdatasync(self._handle)
        if not is_rung and board.is_rung_for:
            board.ring()  # it may have gone to sleep just then, and not have seen the entry
        self._number, self._offset = number, offset + len(entries)
        if not node.is_silent():  # the next one may have read all journals before we wrote
            raise ConnectionResetError("the node has gone meanwhile")
        return True

    def close(self) -> None:
        """Let go of it: the node deletes the file when all of it is in the store."""
        if not self._number:  # no node may have heard of it
            self._file.unlink(missing_ok=True)
        self.let_go()

    def let_go(self) -> None:
        """Drop the handle and the board, and leave the file as it is."""
        self.detach()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _close_in_child() -> None:
    """Let go of the journals that a fork has copied: they are the parent's, and as good as locked while
    anybody has their handles. Their files are the parent's too, also those it has not written to.
    """
    for journal in list(_inherited):
        journal.let_go()


os.register_at_fork(after_in_child=_close_in_child)
