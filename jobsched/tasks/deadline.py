"""A limit on all that a request does together: a socket's own timeout begins anew at each read."""

from __future__ import annotations

import io
import socket
import time
from typing import Any

__all__ = ["Deadline", "TimedSocket"]


class Deadline:
    """A moment so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def rest_s(self) -> float:
        """Return the seconds that are left. Raises TimeoutError when there are none."""
        rest = self._at - time.monotonic()
        if rest <= 0:
            raise TimeoutError
        return rest


class TimedSocket(io.RawIOBase):
    """A connected socket all of whose reads and writes together end in time, with TimeoutError. It is
    what `http.client.HTTPResponse` needs of one; whoever made the socket closes it.
    """

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._socket = connected
        self._deadline = deadline

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.settimeout(self._deadline.rest_s())
        self._socket.sendall(data)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, waiting for the first byte."""
        self._socket.settimeout(self._deadline.rest_s())
        return self._socket.recv_into(buffer)

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        """Return it as the file to read an answer from."""
        return io.BufferedReader(self)
