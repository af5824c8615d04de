"""The node's end of a connection: frames in and out of a socket that never blocks the loop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

from jobsched import wire
from jobsched.errors import WireError

__all__ = ["FramedSocket"]

_RECEIVE = 1 << 18
_RECEIVE_FIRST = 1 << 16  # where little is expected: memory for more is fetched from the system each time
_HEAD = 4  # a frame's length
_MAX_REASON = 200

M = TypeVar("M")


class FramedSocket(Generic[M]):
    """A socket that brings messages of the types `kinds`, and keeps what it cannot send yet.

    `peer` names the other end in errors; `blocked` is told when something waits for the socket to
    take more: `flush` it then. `received` counts all bytes that came, `half_received` those of a
    frame that is not complete yet. Belongs to the node's loop.
    """

    def __init__(
        self, connection: socket.socket, peer: str, kinds: Any, blocked: Callable[[Any], None]
    ) -> None:
        self._peer = peer
        self._socket = connection
        self._socket.setblocking(False)
        self._blocked = blocked
        self._frames = wire.FrameReader()
        self._decode = msgspec.msgpack.Decoder(kinds).decode
        self._unsent = bytearray()
        self._most = _RECEIVE_FIRST
        self.received = 0
        self.half_received = 0

    def fileno(self) -> int:
        """Return the socket's descriptor, for a selector."""
        return self._socket.fileno()

    def arrived(self) -> Iterator[M]:
        """Yield the messages of one read. Raises ConnectionResetError at the end of the stream,
        WireError for what is no message.
        """
        try:
            data = self._socket.recv(self._most)
        except BlockingIOError:
            return
        self._most = _RECEIVE if len(data) == self._most else _RECEIVE_FIRST
        if not data:
            raise ConnectionResetError
        yield from self._messages(data)

    def remaining(self) -> Iterator[M]:
        """Yield all that a peer had sent before it died. Raises WireError for what is no message."""
        with contextlib.suppress(OSError):
            while data := self._socket.recv(_RECEIVE):
                yield from self._messages(data)

    def _messages(self, data: bytes) -> Iterator[M]:
        self.received += len(data)
        self.half_received += len(data)
        for body in self._frames.feed(data):
            self.half_received -= _HEAD + len(body)
            try:
                yield self._decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                why = str(error)[:_MAX_REASON]  # it may cite all that was sent
                raise WireError(f"{self._peer} sent what is no message: {why}") from error

    def send(self, message: msgspec.Struct) -> None:
        """Send a message; what does not fit now is sent by `flush`."""
        self._unsent += wire.frame(message)
        self.flush()
        if self._unsent:
            self._blocked(self)

    def flush(self) -> None:
        """Send what waits, as far as it fits."""
        try:
            while self._unsent:
                sent = self._socket.send(memoryview(self._unsent)[:_RECEIVE])
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # the other end is gone; the next read, or its exit, says so

    @property
    def has_unsent(self) -> bool:
        """Whether `flush` has to be called when the socket can take more."""
        return bool(self._unsent)

    @property
    def unsent(self) -> int:
        """How many bytes wait for the socket to take them."""
        return len(self._unsent)

    def has_arrived(self) -> bool:
        """Say whether there is something to read."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def stop_reading(self) -> None:
        """Take no more: the other end can send nothing from here on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def abandon(self) -> None:
        """Send nothing more and drop what waits: both ends see the end of the stream."""
        self._unsent.clear()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
