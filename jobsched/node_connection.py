"""A client's connection to its node: asks by number, and waits for the answers."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jobsched import wire
from jobsched.errors import WireError, rebuilt
from jobsched.report import NodeReport
from jobsched.store.base import Reply, Request, StoredJob
from jobsched.store.schedule_query import Findings, FiringQuery, ScheduleQuery

if TYPE_CHECKING:
    from jobsched.event import Event

__all__ = ["PATIENCE_S", "NodeConnection"]


PATIENCE_S = 30.0
"""How long a node may take to answer, and how long a request keeps trying to reach one."""


class NodeConnection:
    """A client's connection to the node. One thread at a time.

    Raises ConnectionError (refused, or lost), FileNotFoundError without a socket, WireError and
    its kin when the node refuses to speak.
    """

    def __init__(self, directory: Path, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(patience_s)
        self._frames = wire.FrameReader()
        self._arrived: deque[bytes] = deque()
        self._decoder = msgspec.msgpack.Decoder(wire.FromNode)
        self._number = 0
        self._news = select.poll()
        self._news.register(self._socket, select.POLLIN)
        try:
            with wire.unix_address(directory) as address:
                self._socket.connect(address)
            self._socket.sendall(wire.frame(wire.Hello()))
            self._receive()
        except BaseException:
            self._socket.close()
            raise

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Send requests together and return their replies in order."""
        self._socket.settimeout(PATIENCE_S)
        first = self._number + 1
        for request in requests:
            self._number += 1
            for data in wire.ask_frames(self._number, request):
                self._socket.sendall(data)
        replies: dict[int, Reply] = {}
        while len(replies) < len(requests):
            message = self._receive()
            if isinstance(message, wire.Answer) and message.number >= first:
                replies[message.number] = message.reply
        return [replies[first + place] for place in range(len(requests))]

    def look(self, job_id: bytes, timeout_s: float | None) -> StoredJob | None:
        """Ask for a job. Raises TimeoutError when it has not ended in time."""
        self._number += 1
        number = self._number
        self._socket.settimeout(self._patience_s if timeout_s == 0 else timeout_s)
        self._socket.sendall(wire.frame(wire.Look(number, job_id, ended=timeout_s != 0)))
        while True:
            message = self._receive()
            if isinstance(message, wire.Seen) and message.number == number:
                return message.job

    def find(self, query: ScheduleQuery | FiringQuery) -> Findings:
        """Ask about schedules."""
        self._number += 1
        self._socket.sendall(wire.frame(wire.Find(self._number, query)))
        while True:
            message = self._receive()
            if isinstance(message, wire.Found) and message.number == self._number:
                return message.findings

    def survey(self) -> NodeReport:
        """Ask how the node is doing."""
        self._number += 1
        self._socket.sendall(wire.frame(wire.Survey(self._number)))
        while True:
            message = self._receive()
            if isinstance(message, wire.Surveyed) and message.number == self._number:
                return message.report

    def listen(self, wanted: wire.Listen) -> Iterator[Sequence[Event]]:
        """Yield events as they come, until the node has told the last one. Raises ConnectionError when it
        is gone without that.
        """
        from jobsched.event import from_frame  # noqa: PLC0415 (forty types, and only for this)

        self._socket.sendall(wire.frame(wanted))
        self._socket.settimeout(None if wanted.follow else self._patience_s)
        while True:
            message = self._receive()
            if isinstance(message, wire.Told) and message.number == wanted.number:
                yield from_frame(message.events)
                if message.last:
                    return

    def attach(self, journal: str) -> wire.Attached:
        """Ask the node to take in what the journal of that name holds, from now on."""
        self._number += 1
        self._socket.settimeout(self._patience_s)
        self._socket.sendall(wire.frame(wire.Attach(self._number, journal)))
        while True:
            message = self._receive()
            if isinstance(message, wire.Attached) and message.number == self._number:
                return message

    def is_silent(self) -> bool:
        """Say whether the node is there, and has sent nothing that was not asked for."""
        return not self._arrived and not self._news.poll(0)

    def _receive(self) -> wire.FromNode:
        while not self._arrived:
            data = self._socket.recv(1 << 18)
            if not data:
                raise ConnectionResetError("the node closed the connection")
            self._arrived.extend(self._frames.feed(data))
        try:
            message: wire.FromNode = self._decoder.decode(self._arrived.popleft())
        except msgspec.MsgspecError as error:
            raise WireError(f"the node sent what is no message: {error}") from error
        if isinstance(message, wire.Bye):
            raise rebuilt(message.kind, message.reason)
        return message

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
