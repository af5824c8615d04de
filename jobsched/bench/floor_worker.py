"""A process of the floor: it answers each job at once, in the frames of our wire."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import NoReturn, Self

import msgspec

from jobsched import wire
from jobsched.bench.ground import unheard_interrupts
from jobsched.errors import JobschedError
from jobsched.job import State
from jobsched.store.base import Claim, Outcome

__all__ = ["FloorWorker"]

_HEAD = 4  # a frame's length
_RECEIVE = 1 << 18
_WAIT_S = 30.0

_works = msgspec.msgpack.Decoder(wire.Work)
_dones = msgspec.msgpack.Decoder(wire.Done)


class FloorWorker:
    """A forked process at the other end of a socket pair, as a context; its end is the socket's."""

    def __init__(self) -> None:
        self._socket, far_end = socket.socketpair()
        self._held = 0
        with unheard_interrupts():
            self._pid = os.fork()
            if self._pid == 0:
                self._socket.close()
                _answer_all(far_end)
        far_end.close()
        self._socket.settimeout(_WAIT_S)

    def send(self, claims: Sequence[Claim]) -> None:
        """Hand jobs out. Those before must have been answered: only so can neither end block."""
        if claims:
            self._socket.sendall(wire.frame(wire.Work(list(claims))))
        self._held = len(claims)

    def answers(self) -> list[Outcome]:
        """Wait for the answer to each job that it holds. Raises JobschedError without them in 30 s."""
        found: list[Outcome] = []
        unread = b""
        while len(found) < self._held:
            unread += self._receive()
            start = 0
            while len(unread) - start >= _HEAD:
                end = start + _HEAD + int.from_bytes(unread[start : start + _HEAD], "big")
                if end > len(unread):
                    break
                found.append(_dones.decode(unread[start + _HEAD : end]).outcome)
                start = end
            unread = unread[start:]
        self._held = 0
        return found

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(_RECEIVE)
        except TimeoutError:
            raise JobschedError(f"a process of the floor has not answered within {_WAIT_S:g} s") from None
        if not data:
            raise JobschedError("a process of the floor has died")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        os.waitpid(self._pid, 0)


def _answer_all(connection: socket.socket) -> NoReturn:
    """Be the process: answer until the other end hangs up, and never return to the caller's code."""
    code = 1
    try:
        with connection.makefile("rb") as stream:
            while head := stream.read(_HEAD):
                claims = _works.decode(stream.read(int.from_bytes(head, "big"))).claims
                connection.sendall(b"".join(map(_answer, claims)))
        code = 0
    except ConnectionError:
        code = 0
    finally:
        os._exit(code)


def _answer(claim: Claim) -> bytes:
    started = time.time_ns() // 1000
    outcome = Outcome(claim.job, claim.number, State.COMPLETED, started, time.time_ns() // 1000)
    return wire.frame(wire.Done(outcome))
