"""How requests reach the store: through the node where one runs, straight to the file where none
does, through the node's own socket pair inside a worker.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from jobsched import holders, wire
from jobsched.clock import SystemClock
from jobsched.errors import Unavailable, WireError, rebuilt
from jobsched.job import ENDED, State
from jobsched.store.base import JobStore, Reply, Request, StoredJob, Turn
from jobsched.store.lmdb import open_store
from jobsched.store.lmdb_space import DEFAULT_QUOTA
from jobsched.store.place import make_private

__all__ = [
    "Courier",
    "Gateway",
    "NodeConnection",
    "Transport",
    "is_final",
    "set_worker_transport",
    "transport_for",
]

PATIENCE_S = 30.0
"""How long a request keeps trying before it is `Unavailable`."""

_LEAST_PATIENCE_S = 1.0  # with a node that is there and does not answer
_RETRY_S = 0.01
_TURN_S = 0.02  # that other clients may take before ours, before we ask for a node again
_PEEK_S = 0.0005
_POLL_S = 0.05  # reading results from the file while no node runs


class Transport(Protocol):
    """What a dispatcher needs of the way to the store."""

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Have requests applied, each whole or not at all; they are on disk on return.

        Raises Unavailable when their outcome is unknown.
        """
        ...

    def look(self, job_id: bytes, timeout_s: float | None) -> StoredJob | None:
        """Return a job: at once when the timeout is 0, else when it has ended or time is up."""
        ...


def is_final(state: State) -> bool:
    """Say whether a job in that state goes on by itself."""
    return state in ENDED or state in (State.PARKED, State.QUARANTINED)


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


class Gateway:
    """The way of a process outside the node to one store. Threads may share it."""

    def __init__(self, directory: Path, *, durable: bool, quota_bytes: int = DEFAULT_QUOTA) -> None:
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._durable = durable  # False: the store lives in the node alone, there is no direct way
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._connection: NodeConnection | None = None  # whoever holds the lock
        self._store: JobStore | None = None
        self._opened_file = (0, 0)
        self._pid = os.getpid()

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Have requests applied by the node, or by ourselves where no node runs."""
        self._start_afresh_after_fork()
        deadline = time.monotonic() + PATIENCE_S
        with self._lock:
            while True:
                try:
                    return self._through_node(requests)
                except (FileNotFoundError, ConnectionRefusedError):
                    replies = self._directly(requests)
                    if replies is not None:
                        return replies
                except TimeoutError as error:
                    self._hang_up()
                    raise Unavailable(f"the node on {self._directory} does not answer") from error
                except (ConnectionError, BlockingIOError):
                    self._hang_up()  # it died, or stopped, or many wait; ask again, with the same ids
                except BaseException:
                    self._hang_up()
                    raise
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"neither a node on {self._directory} nor the store could be reached"
                        f" in {PATIENCE_S:g} s{_held_by(self._directory / 'writers.lock')}"
                    )
                time.sleep(_RETRY_S)

    def _through_node(self, requests: Sequence[Request]) -> list[Reply]:
        if self._connection is None:
            self._connection = NodeConnection(self._directory)
        return self._connection.exchange(requests)

    def _directly(self, requests: Sequence[Request]) -> list[Reply] | None:
        """Apply requests as a turn of our own; None while a node holds the store."""
        if not self._durable:
            raise Unavailable(
                f"no node runs on {self._directory}, and a memory: store lives in its node:"
                " start `jobsched run` first"
            )
        with _writing(self._directory) as allowed:
            if not allowed:
                return None
            store = self._opened()
            return store.apply(Turn(now=self._clock.now(), requests=requests)).replies

    def _opened(self) -> JobStore:
        """Return the store; opened again if a restore has put another file in its place."""
        if self._store is not None and self._file_id() != self._opened_file:
            self._store.close()
            self._store = None
        if self._store is None:
            self._store = open_store(self._directory, self._quota_bytes)
            self._opened_file = self._file_id()
        return self._store

    def _file_id(self) -> tuple[int, int]:
        try:
            info = (self._directory / "data.mdb").stat()
        except FileNotFoundError:
            return 0, 0
        return info.st_dev, info.st_ino

    def look(self, job_id: bytes, timeout_s: float | None) -> StoredJob | None:
        """Return a job; with a timeout (None: without end) wait until it has ended."""
        self._start_afresh_after_fork()
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        patience_s = PATIENCE_S if not timeout_s else min(PATIENCE_S, timeout_s + _LEAST_PATIENCE_S)
        while True:
            rest = deadline - time.monotonic()
            try:
                return self._ask(job_id, timeout_s and max(rest, 0.001), patience_s)
            except TimeoutError as error:
                if timeout_s == 0 or timeout_s is None:
                    raise Unavailable(f"the node on {self._directory} does not answer") from error
                timeout_s, patience_s = 0, _LEAST_PATIENCE_S
            except (FileNotFoundError, ConnectionError, BlockingIOError):
                job = self._read(job_id)
                if job is None or is_final(job.status.state) or rest <= 0:
                    return job
                time.sleep(min(_POLL_S, rest))

    def _ask(self, job_id: bytes, timeout_s: float | None, patience_s: float) -> StoredJob | None:
        # A connection of its own: waiting must not stand in the way of dispatches.
        connection = NodeConnection(self._directory, patience_s)
        try:
            return connection.look(job_id, timeout_s)
        finally:
            connection.close()

    def _read(self, job_id: bytes) -> StoredJob | None:
        if not self._durable:
            raise Unavailable(f"no node runs on {self._directory}")
        with self._lock:
            return self._opened().get(job_id)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _start_afresh_after_fork(self) -> None:
        """Let go of what a fork has copied: a shared connection would mix up the answers."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._connection = None
            self._store = None

    def close(self) -> None:
        """Hang up and let go of the store."""
        with self._lock:
            self._hang_up()
            if self._store is not None:
                self._store.close()
                self._store = None


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[bool]:
    """Take writers.lock around one transaction; False while a node or another client has it.

    Not a shared side of it: LMDB lets one write at a time anyway, and waits without end for one that
    is stopped.
    """
    make_private(directory)
    handle = os.open(directory / "writers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _is_taken(handle)
    finally:
        os.close(handle)


def _is_taken(handle: int) -> bool:
    """Take an flock, unless it is held for longer than another client's commit takes."""
    deadline = time.monotonic() + _TURN_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(random.uniform(0, _PEEK_S))  # noqa: S311 (they must not come in step)
        else:
            return True


def _held_by(lock: Path) -> str:
    """Return who holds a lock, as the end of a message; nothing when nobody is seen to."""
    who = " and ".join(map(holders.described, holders.lockers(lock)))
    return f": {lock.name} is held by {who}" if who else ""


class _Parcel:
    """A request on its way, and the thread that waits for its reply."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.reply: Reply | None = None
        self.error: BaseException | None = None
        self.wake = threading.Lock()
        self.wake.acquire()

    @property
    def arrived(self) -> bool:
        return self.reply is not None or self.error is not None


class Courier:
    """Carries the requests of many threads together, so that they share commits.

    The first thread to come leads: it takes everything that has gathered, exchanges it in one go,
    and hands the lead to one of those who came meanwhile. No thread of its own, no added delay.
    """

    def __init__(self, exchange: Callable[[Sequence[Request]], list[Reply]]) -> None:
        self._exchange = exchange
        self._lock = threading.Lock()
        self._waiting: list[_Parcel] = []  # any thread, under the lock
        self._leader: _Parcel | None = None  # likewise: who leads, or was woken to lead

    def call(self, request: Request) -> Reply:
        """Have one request applied; it is on disk on return."""
        parcel = _Parcel(request)
        try:
            with self._lock:
                self._waiting.append(parcel)
                self._leader = self._leader or parcel
                leads = self._leader is parcel
            if not leads:
                parcel.wake.acquire()
            if not parcel.arrived:
                self._lead()
        finally:  # an interrupted thread must not take the lead with it
            with self._lock:
                if parcel in self._waiting:
                    self._waiting.remove(parcel)
                if self._leader is parcel:
                    self._bequeath()
        if parcel.error is not None:
            raise parcel.error
        assert parcel.reply is not None
        return parcel.reply

    def _bequeath(self) -> None:
        """Wake the next one to lead, if anybody waits. Under the lock."""
        self._leader = self._waiting[0] if self._waiting else None
        if self._leader is not None:
            self._leader.wake.release()

    def _lead(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        try:
            for parcel, reply in zip(batch, self._exchange([p.request for p in batch]), strict=True):
                parcel.reply = reply
        except Exception as error:  # noqa: BLE001 (each thread raises it as its own)
            for parcel in batch:
                parcel.error = error
        except BaseException:
            # Interrupted: the next leader sends the others' requests again, which is harmless.
            with self._lock:
                self._waiting[:0] = batch
            raise
        for parcel in batch:
            parcel.wake.release()


# Set once by a worker process: there the node's socket pair is the only way. Read by every thread.
_worker_transport: Transport | None = None


def set_worker_transport(transport: Transport) -> None:
    """Make every dispatcher of this process use the worker's own way to the node."""
    global _worker_transport  # noqa: PLW0603 (a fact of the process, like its pid)
    _worker_transport = transport


def _forget_worker_transport() -> None:
    """In a child that a job has forked: the worker's socket pair is not its own."""
    global _worker_transport  # noqa: PLW0603 (as above)
    _worker_transport = None


os.register_at_fork(after_in_child=_forget_worker_transport)


def transport_for(directory: Path, *, durable: bool, quota_bytes: int) -> Transport:
    """Return the way to a store from this process."""
    return _worker_transport or Gateway(directory, durable=durable, quota_bytes=quota_bytes)
