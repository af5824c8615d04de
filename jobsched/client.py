"""A connected process as its node sees it, and how much is kept for all of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import msgspec

from jobsched import wire
from jobsched.errors import JobschedError, WireError, WireVersionError
from jobsched.framed import FramedSocket
from jobsched.store.alike import records_of

__all__ = ["Client", "Tally"]

_OBJECT_BYTES = 300  # what a job, a part or a question takes in memory, beside its record
_LOOK_BYTES = 4096  # a job is read and sent for it
_LISTEN_BYTES = 1 << 20  # all the last events are
_ANSWERS = wire.Answer | wire.Seen | wire.Found | wire.Surveyed | wire.Attached

Asked = wire.Question | wire.Survey | wire.Listen | wire.Attach


class Client(FramedSocket[wire.FromClient]):
    """A connected process. Belongs to the node's loop.

    `weight` is how much work the last `receive` has brought for the turn, in bytes: what was read, the
    earlier parts of requests that it made whole, and something for each thing asked for, however
    small. `is_cut` says that nothing more is to be heard.
    """

    def __init__(self, connection: socket.socket, blocked: Callable[[Client], None]) -> None:
        super().__init__(connection, "a client", wire.FromClient, blocked)
        self.pid = wire.peer(connection).pid
        self.weight = 0
        self.is_cut = False
        self._is_greeted = False
        self._questions = 0  # asked whole, and not yet answered
        self._parts: dict[int, int] = {}  # number of an unfinished request → bytes

    def receive(self) -> list[Asked]:
        """Return what the client has asked. Raises ConnectionResetError when it has hung up,
        WireError when it sends anything but our protocol.
        """
        asked: list[Asked] = []
        before, self.weight = self.received, 0
        for message in self.arrived():
            if isinstance(message, wire.Hello):
                self._greet(message)
            elif not self._is_greeted:
                raise WireError("the first frame must be a greeting")
            else:
                self._note(message)
                asked.append(message)
        self.weight += self.received - before
        return asked

    def _greet(self, hello: wire.Hello) -> None:
        if hello.version != wire.VERSION:
            raise WireVersionError(hello.version, wire.VERSION)
        self._is_greeted = True
        self.send(wire.Welcome(os.getpid()))

    def _note(self, message: Asked) -> None:
        if isinstance(message, wire.Ask) and message.more:
            jobs = message.jobs
            size = sum(map(len, records_of(jobs))) + (len(jobs) + 1) * _OBJECT_BYTES
            self._parts[message.number] = self._parts.get(message.number, 0) + size
            return
        self._questions += 1
        if isinstance(message, wire.Ask):
            request = message.request
            self.weight += self._parts.pop(message.number, 0)
            lists = (message.jobs, request.cancel, request.retry, request.delete, request.schedules)
            self.weight += sum(map(len, lists)) * _OBJECT_BYTES
        else:
            self.weight += _LISTEN_BYTES if isinstance(message, wire.Listen) else _LOOK_BYTES

    def send(self, message: msgspec.Struct) -> None:
        """Send a message; what does not fit now is sent by `flush`."""
        is_answer = isinstance(message, _ANSWERS)
        if is_answer or (isinstance(message, wire.Told) and message.last):
            self._questions -= 1
        super().send(message)

    @property
    def unfinished(self) -> int:
        """How many bytes are kept of what it has begun to ask, and of what it waits for."""
        return self.half_received + sum(self._parts.values()) + self._questions * _OBJECT_BYTES

    @property
    def is_idle(self) -> bool:
        """Whether it waits for nothing: no answer, no job's end, nothing unsent, nothing unread."""
        return not self._questions and not self.has_unsent and not self.has_arrived()

    def refuse(self, error: JobschedError) -> None:
        """Tell the client why it is dropped."""
        self.send(wire.Bye(type(error).__name__, str(error)))

    def retire(self, error: JobschedError) -> None:
        """Let an idle client go, and tell it why.

        What it sends from here on fails at its end, so that it connects again; if it has sent
        something in this very moment, it is not told: to be cut off says "ask again".
        """
        self.stop_reading()
        if not self.has_arrived():
            self.refuse(error)

    def cut(self) -> None:
        """Have no more of it, from within a `send`: the loop hears its end next."""
        self.is_cut = True
        self.abandon()


class Tally:
    """What is kept in memory for clients, by `size_of`: `limit` bytes in all.

    Sizes are noted when they may have grown, and counted anew only when the limit seems passed.
    """

    def __init__(self, limit: int, size_of: Callable[[Client], int]) -> None:
        self._limit = limit
        self._size_of = size_of
        self._sizes: dict[Client, int] = {}
        self._total = 0

    def offender(self, client: Client) -> Client | None:
        """Note what a client has now; return the one with the most if there is too much in all."""
        self._note(client)
        if self._total <= self._limit:
            return None
        for other in list(self._sizes):
            self._note(other)
        return max(self._sizes, key=self._sizes.__getitem__) if self._total > self._limit else None

    def _note(self, client: Client) -> None:
        self.forget(client)
        size = self._size_of(client)
        if size:
            self._sizes[client] = size
            self._total += size

    def forget(self, client: Client) -> None:
        """Count a client no more."""
        self._total -= self._sizes.pop(client, 0)
