"""The frames between processes: 4 bytes of length, then msgpack of one message.

A client says `Hello` and is told `Welcome`, or `Bye` with the reason. Then it asks, and is
answered by number. A worker is such a client too, over a socket pair and without the greeting; it
receives `Work` and sends `Outcome`s.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from jobsched.errors import WireError
from jobsched.job_id import JobId
from jobsched.report import NodeReport
from jobsched.store.alike import AlikeJobs, records_of
from jobsched.store.base import Claim, NewJob, Outcome, Reply, Request, StoredJob
from jobsched.store.schedule_query import Findings, FiringQuery, ScheduleQuery

__all__ = [
    "MAX_FRAME",
    "VERSION",
    "Answer",
    "Ask",
    "Attach",
    "Attached",
    "Bye",
    "Done",
    "Drop",
    "Filled",
    "Find",
    "Found",
    "FrameReader",
    "FromClient",
    "FromNode",
    "FromWorker",
    "Hello",
    "Listen",
    "Look",
    "Peer",
    "Question",
    "Ready",
    "Seen",
    "Survey",
    "Surveyed",
    "ToWorker",
    "Told",
    "Welcome",
    "Work",
    "ask_frames",
    "frame",
    "peer",
    "unix_address",
]

VERSION = 3
MAX_FRAME = 4 << 20
_FRAME_AIM = 1 << 20  # bytes of records that go into one frame of a long request

_encode = msgspec.msgpack.Encoder().encode


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """First frame of a client."""

    version: int = VERSION


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The node's answer to a greeting."""

    pid: int


class Bye(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The node closes the connection, because of this."""

    kind: str
    reason: str


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A request, or a part of one: parts of a number are joined until one says no `more`. Many jobs that
    are `like` one but for their ids and records stand beside the request: what is the same is sent once.
    """

    number: int
    request: Request
    more: bool = False
    like: NewJob | None = None
    ids: list[JobId] = []
    records: list[bytes] = []

    @property
    def jobs(self) -> Sequence[NewJob]:
        """The jobs of the request. Raises WireError where ids or records are missing."""
        if self.like is None:
            return self.request.jobs
        if self.request.jobs or len(self.ids) != len(self.records):
            raise WireError(f"{len(self.ids):,} ids of jobs with {len(self.records):,} records")
        return AlikeJobs(self.like, self.ids, self.records)


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What became of the request of that number; it is on disk."""

    number: int
    reply: Reply


class Look(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Ask for a job: at once, or when it has ended."""

    number: int
    job: bytes
    ended: bool = False


class Seen(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The job asked for; None if there is none."""

    number: int
    job: StoredJob | None


class Find(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Ask about schedules."""

    number: int
    query: ScheduleQuery | FiringQuery


class Found(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What was found."""

    number: int
    findings: Findings


class Attach(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Ask the node to take in what the journal of that name holds, as it is written."""

    number: int
    journal: str


class Attached(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Where on which board the node and the journal's client meet, and jobs of which tasks and categories
    may go into the journal. Slot -1: not now. `board` is a path that leads to the board with the `token`.
    """

    number: int
    slot: int
    board: str = ""
    token: int = 0
    tasks: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()


class Survey(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Ask how the node is doing."""

    number: int


class Surveyed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """How the node is doing."""

    number: int
    report: NodeReport


class Listen(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Ask for events: the last ones, and with `follow` all from now on. Those of some kinds, categories
    and tasks, where any are named; an event that has no category or task is of none.
    """

    number: int
    follow: bool = False
    kinds: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()


class Told(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Events, as `event.to_frame` has written them; the `last` ones that there will be."""

    number: int
    events: msgspec.Raw
    last: bool = False


class Work(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Jobs for a worker, to run in order, one per token."""

    claims: list[Claim]


class Drop(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Forget the last `count` jobs: their tokens are taken back. Tokens that follow carry the
    `generation`, so a worker that meets one knows that it has to read this first.
    """

    generation: int
    count: int


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The worker is up: its fence is taken and its hooks have run."""

    pid: int


class Filled(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The worker's outbox is filled up to this mark."""

    mark: int


class Done(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """How a run ended, too long for the outbox, where nil stands in its place."""

    outcome: Outcome


Question = Ask | Look | Find
FromClient = Hello | Question | Survey | Listen | Attach
FromNode = Welcome | Bye | Answer | Seen | Found | Surveyed | Told | Attached
FromWorker = Filled | Done | Question | Ready
ToWorker = Work | Drop | Answer | Seen | Found


def frame(message: msgspec.Struct) -> bytes:
    """Return a message as it goes over the wire."""
    body = _encode(message)
    return len(body).to_bytes(4, "big") + body


class FrameReader:
    """Splits a stream of bytes into the bodies of frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived; return the frames that are complete.

        Raises WireError for a frame over `MAX_FRAME`, before any of it is kept.
        """
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        start, end = 0, len(buffer)
        while end - start >= 4:  # noqa: PLR2004 (the length's own size)
            size = int.from_bytes(buffer[start : start + 4], "big")
            if size > MAX_FRAME:
                raise WireError(f"a frame of {size:,} bytes, the limit is {MAX_FRAME:,}")
            if end - start - 4 < size:
                break
            bodies.append(bytes(buffer[start + 4 : start + 4 + size]))
            start += 4 + size
        del buffer[:start]
        return bodies


def ask_frames(number: int, request: Request) -> Iterator[bytes]:
    """Yield the frames of a request, several when it adds many jobs."""
    parts = list(_parts(request.jobs)) or [[]]
    for part in parts[:-1]:
        yield frame(_ask(number, Request(), part, more=True))
    yield frame(_ask(number, request, parts[-1], more=False))


def _ask(number: int, request: Request, jobs: Sequence[NewJob], *, more: bool) -> Ask:
    if isinstance(jobs, AlikeJobs):
        request = msgspec.structs.replace(request, jobs=())
        return Ask(number, request, more, jobs.like, list(jobs.ids), list(jobs.records))
    return Ask(number, msgspec.structs.replace(request, jobs=jobs), more)


def _parts(jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    start = size = 0
    for end, record in enumerate(records_of(jobs), 1):
        size += len(record) + 100
        if size >= _FRAME_AIM:
            yield jobs[start:end]
            start, size = end, 0
    if start < len(jobs):
        yield jobs[start:]


class unix_address:  # noqa: N801 (used as a function: `with unix_address(...) as address`)
    """Give an address for a socket file that fits the 107 bytes which AF_UNIX allows, whatever the
    length of the directory's path: the way leads through the directory's descriptor.
    """

    def __init__(self, directory: Path, name: str = "node.sock") -> None:
        self._directory = directory
        self._name = name

    def __enter__(self) -> str:
        self._handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._handle}/{self._name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


class Peer(NamedTuple):
    """The process at the other end of a unix socket."""

    pid: int
    uid: int


def peer(connection: socket.socket) -> Peer:
    """Return who is at the other end of a unix socket, as the kernel knows it."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return Peer(int.from_bytes(credentials[:4], "little"), int.from_bytes(credentials[4:8], "little"))
