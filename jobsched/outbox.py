"""The outcomes of a worker's runs on their way to its node, in memory that both share.

A ring of bytes with one writer and one reader. What the worker has put there outlives it, and costs
no system call; it tells the node now and then how far the outbox is filled, by a mark. The node
believes a mark only after the kernel has carried it over, or at a second look, or once the worker
is dead: on some machines memory may come to be seen in another order than it was written.
"""

from __future__ import annotations

__all__ = ["SIZE", "Outbox"]

_RING = 64 << 10
_HEAD = 8
SIZE = _HEAD + _RING
"""Bytes of shared memory that an outbox takes."""

_BYTES = 48  # bits of a mark that count the bytes: for ever; those above count the things, and wrap
_LOW = (1 << _BYTES) - 1
_THING = 1 << _BYTES
_ALL = (1 << 64) - 1


class Outbox:
    """One end of an outbox; `memory` are its `SIZE` bytes.

    The first word is the mark: how many things, and how many bytes, were ever put there.
    """

    def __init__(self, memory: memoryview) -> None:
        self._word = memory[:_HEAD].cast("Q")  # which makes it one store, never half seen
        self._ring = memory[_HEAD:]
        self._noted = self._taken = 0
        self._put = 0

    def close(self) -> None:
        """Let go of the memory."""
        self._word.release()
        self._ring.release()

    # The worker's end.

    def put(self, thing: bytes) -> int:
        """Put a thing there; return the mark up to which it is filled now. The node's windows for jobs
        ahead bound how much may lie there.
        """
        mark, size = self._put, len(thing)
        place = mark % _RING  # which divides what the upper bits stand for
        end = place + size
        if end <= _RING:
            self._ring[place:end] = thing
        else:
            first = _RING - place
            self._ring[place:] = thing[:first]
            self._ring[: end - _RING] = thing[first:]
        self._put = self._word[0] = mark = (mark + _THING + size) & _ALL
        return mark

    # The node's end.

    def take(self, mark: int) -> tuple[int, bytes]:
        """Take what was put up to a mark; return how many things, and their bytes in order: none where
        it was taken already.
        """
        size = (mark - self._taken) & _LOW
        if not 0 < size <= _RING:
            return 0, b""
        count = (mark - self._taken & _ALL) >> _BYTES
        place = self._taken % _RING
        data = bytes(self._ring[place : place + size])
        data += bytes(self._ring[: size - len(data)])
        self._taken = mark
        return count, data

    @property
    def mark(self) -> int:
        """How far it is filled, to be believed only of a worker that is dead."""
        return self._word[0]

    def note(self) -> int:
        """Return how far it was filled at the last call: that much can be taken."""
        seen, self._noted = self._noted, self._word[0]
        return seen
