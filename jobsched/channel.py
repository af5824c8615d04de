"""The worker's end of its socket pair: jobs in, outcomes out, and the dispatches of its jobs."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import cast

import msgspec

from jobsched import wire
from jobsched.errors import Unavailable
from jobsched.store.base import Claim, Reply, Request, StoredJob
from jobsched.store.schedule_query import Findings, FiringQuery, ScheduleQuery

__all__ = ["Channel"]

_RECEIVE = 1 << 16


class Channel:
    """A `Transport` for the job that runs, and the way in which the worker gets its jobs.

    Any thread of a job may use it. One at a time sends; one at a time reads, for itself and for the
    others that wait, and hands the reading on when it has what it waits for.

    `claims` are the jobs to run, in order; `generation` is that of the last `Drop`. Both belong to
    the reading thread.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._frames = wire.FrameReader()
        self._decode = msgspec.msgpack.Decoder(wire.ToWorker).decode
        self._sending = threading.Lock()
        self._state = threading.Condition()  # guards the next four
        self._number = 0
        self._awaited: set[int] = set()  # an answer that comes too late is not kept
        self._answers: dict[int, Reply | StoredJob | Findings | None] = {}
        self._reader = 0  # the thread that reads
        # Whether an exception now would tear a frame: each written by whoever sends, or reads.
        self._sends_frame = False
        self._takes_frame = False
        self.claims: deque[Claim] = deque()
        self.generation = 0

    def is_behind(self, generation: int) -> bool:
        """Whether a `Drop` that was sent before a token of that generation is still to be read.

        It may be ahead: a `Drop` that came after the token was taken does not concern its job.
        """
        return 0 < (generation - self.generation) % 256 < 128  # noqa: PLR2004 (half the circle)

    @property
    def is_in_frame(self) -> bool:
        """Whether an exception raised by a signal now could tear a frame."""
        return self._sends_frame or self._takes_frame

    def send(self, message: msgspec.Struct) -> None:
        """Send a message. Raises ConnectionError when the node is gone."""
        self._send([wire.frame(message)])

    def _send(self, frames: Sequence[bytes]) -> None:
        with self._sending:
            self._sends_frame = True
            try:
                for data in frames:
                    self._socket.sendall(data)
            finally:
                self._sends_frame = False

    def next_claim(self, generation: int) -> Claim:
        """Wait for the job that a token of a generation is worth, and take it; a thread that an earlier
        job has left may be reading. Raises ConnectionError when the node is gone.
        """
        while self.is_behind(generation) or not self.claims:
            with self._state:
                if not self.is_behind(generation) and self.claims:
                    break
                if not self._may_read(None):
                    continue
            self._read(None)
        return self.claims.popleft()

    def receive(self) -> None:
        """Wait for what comes next, and sort it. Raises ConnectionError when the node is gone."""
        while not self._takes():
            self._socket.recv(1, socket.MSG_PEEK)  # the wait, in which a job's time may run out

    def _takes(self) -> bool:
        """Sort what has come; False if nothing has."""
        self._takes_frame = True
        try:
            data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            if not data:
                raise ConnectionResetError("the node is gone")
            for body in self._frames.feed(data):
                self._sort(self._decode(body))
        except BlockingIOError:
            return False
        finally:
            self._takes_frame = False
        return True

    def _sort(self, message: wire.ToWorker) -> None:
        if isinstance(message, wire.Work):
            self.claims.extend(message.claims)
        elif isinstance(message, wire.Drop):
            for _ in range(message.count):
                self.claims.pop()
            self.generation = message.generation
        elif message.number in self._awaited:
            self._answers[message.number] = _content(message)

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Have requests applied by the node."""
        numbers = [self._next_number() for _ in requests]
        frames = [
            data
            for number, request in zip(numbers, requests, strict=True)
            for data in wire.ask_frames(number, request)
        ]
        self._send(frames)
        return [cast("Reply", self._await(number, None)) for number in numbers]

    def look(self, job_id: bytes, timeout_s: float | None) -> StoredJob | None:
        """Ask the node for a job; with a timeout, wait until it has ended."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if timeout_s != 0:
            with contextlib.suppress(TimeoutError):
                return self._look(job_id, deadline, ended=True)
        return self._look(job_id, None, ended=False)

    def find(self, query: ScheduleQuery | FiringQuery) -> Findings:
        """Ask the node about schedules."""
        number = self._next_number()
        self.send(wire.Find(number, query))
        return cast("Findings", self._await(number, None))

    def _look(self, job_id: bytes, deadline: float | None, *, ended: bool) -> StoredJob | None:
        number = self._next_number()
        self.send(wire.Look(number, job_id, ended=ended))
        return cast("StoredJob | None", self._await(number, deadline))

    def _next_number(self) -> int:
        with self._state:
            self._number += 1
            self._awaited.add(self._number)
            return self._number

    def _await(self, number: int, deadline: float | None) -> Reply | StoredJob | Findings | None:
        """Return the answer of a number; read for it where no other thread does."""
        try:
            while True:
                rest = None if deadline is None else deadline - time.monotonic()
                with self._state:
                    if number in self._answers:
                        return self._answers.pop(number)
                    if rest is not None and rest <= 0:
                        raise TimeoutError
                    if not self._may_read(rest):
                        continue
                self._read(rest)
        except ConnectionError as error:
            raise Unavailable("the node is gone") from error
        finally:
            self._awaited.discard(number)

    def _may_read(self, rest: float | None) -> bool:
        """Have this thread read, or wait while another one does. One that was interrupted just before it
        read may still stand as the reader.
        """
        if self._reader not in (0, threading.get_ident()):
            self._state.wait(rest)
            return False
        self._reader = threading.get_ident()
        return True

    def _read(self, rest: float | None) -> None:
        try:
            if rest is None or select.select([self._socket], [], [], rest)[0]:
                self.receive()
        finally:
            with self._state:
                self._reader = 0
                self._state.notify_all()


def _content(message: wire.Answer | wire.Seen | wire.Found) -> Reply | StoredJob | Findings | None:
    if isinstance(message, wire.Answer):
        return message.reply
    return message.job if isinstance(message, wire.Seen) else message.findings
