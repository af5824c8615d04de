"""Whether a process has a journal, and when it uses it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from jobsched.journal.writer import Journal, Node
from jobsched.store.base import Request
from jobsched.store.place import JOURNALS

__all__ = ["OwnJournal"]

_OFTEN = 8  # calls of a process: for fewer no journal is worth its making
_WAITS_S = (0.1, 60.0)  # after a node has said that it wants none now, and at most


class OwnJournal:
    """The journal of a process, once it has dispatched often enough. One thread at a time."""

    def __init__(self, place: Path) -> None:
        """Have one beside the store in a directory, when it comes to that."""
        self._folder = place / JOURNALS
        self._calls = 0
        self._again_at = 0.0  # monotonic
        self._wait_s = _WAITS_S[0]
        self._journal: Journal | None = None
        self._node: Node | None = None

    def write(self, node: Node, requests: Sequence[Request]) -> bool:
        """Write requests to the journal, which a node takes in; they are on disk on return. False where the
        node has to be asked, and nothing is written.

        Raises ConnectionError if the node is gone; OSError if nobody knows whether they are written. Ask
        again then: a node that does take them in knows their ids.
        """
        try:
            journal = self._ready(node)
            if journal is None or not journal.takes(requests):
                return False
            return journal.append(requests)
        except ConnectionError:
            self.detach()
            raise
        except BaseException:
            self.close()
            raise

    def _ready(self, node: Node) -> Journal | None:
        if self._node is node and self._journal is not None:
            if not self._journal.is_given_up:
                return self._journal
            self.close()
        self._calls += 1
        if self._calls < _OFTEN or time.monotonic() < self._again_at:
            return None
        self._again_at = time.monotonic() + self._wait_s  # unless all goes well
        self._wait_s = min(2 * self._wait_s, _WAITS_S[1])
        if self._journal is None:
            with contextlib.suppress(OSError):  # no room, or not our directory: there is another way
                if self._folder.parent.stat().st_uid == os.geteuid():
                    self._journal = Journal(self._folder)
        if self._journal is None:
            return None
        if not self._journal.attach(node):
            self.close()  # who knows whether it will ever be wanted; without us nobody would delete it
            return None
        self._node, self._again_at, self._wait_s = node, 0.0, _WAITS_S[0]
        return self._journal

    def detach(self) -> None:
        """Write nothing more until another node is there."""
        self._node = None
        if self._journal is not None:
            self._journal.detach()

    def close(self) -> None:
        """Let go of the journal."""
        self._node = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None
