"""What the node waits on: sockets, room in them, and a wake-up from signals and other threads."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from typing import Protocol

__all__ = ["Link", "Loop", "Source"]


class Source(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


class Link(Source, Protocol):
    """A socket with what it could not take yet."""

    @property
    def has_unsent(self) -> bool:
        """Whether `flush` has something to send."""
        ...

    def flush(self) -> None:
        """Send what waits, as far as it fits."""
        ...


class Loop:
    """A selector whose sources come with what to do when they can be read.

    `rounds` counts the waits, so that sources can tell what has come to the same turn.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self.watch(self._woken, self._on_wake)

    def watch(self, source: Source, act: Callable[[], None]) -> None:
        """Call `act` whenever a source can be read, or has ended."""
        self._selector.register(source.fileno(), selectors.EVENT_READ, (source, act))

    def forget(self, source: Source) -> None:
        """Watch a source no more. It may be forgotten already."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source.fileno())

    def await_room(self, link: Link) -> None:
        """Flush a link as soon as its socket takes more."""
        with contextlib.suppress(KeyError, ValueError):
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(link.fileno(), both, self._selector.get_key(link.fileno()).data)

    def wait(self, timeout_s: float) -> None:
        """Wait until something arrives or the time is over, and act on all that has arrived."""
        self.rounds += 1
        for key, events in self._selector.select(timeout_s):
            source, act = key.data
            if events & selectors.EVENT_WRITE and self._is_watched(key):
                self._flush(source)
            if events & selectors.EVENT_READ and self._is_watched(key):
                act()

    def _is_watched(self, key: selectors.SelectorKey) -> bool:
        """Whether no earlier act has closed this source, or given its descriptor to another."""
        now = self._selector.get_map().get(key.fd)
        return now is not None and now.data is key.data

    def _flush(self, link: Link) -> None:
        link.flush()
        if not link.has_unsent:
            with contextlib.suppress(KeyError, ValueError):
                data = self._selector.get_key(link.fileno()).data
                self._selector.modify(link.fileno(), selectors.EVENT_READ, data)

    def wake(self) -> None:
        """End a wait, from any thread or signal handler."""
        with contextlib.suppress(OSError):
            self._waker.send(b"w")

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def close(self) -> None:
        """Let go of everything."""
        self._selector.close()
        self._woken.close()
        self._waker.close()
