"""Clients that no library of ours would be: `python bad_clients.py KIND STORE SEED COUNT`.

Prints one JSON object when done. A kind that stays prints it at once, and stays until its stdin
ends, or for ever where it stops itself.
"""

import contextlib
import json
import os
import random
import resource
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from jobsched.job_id import new_id
from jobsched.store.base import NewJob, Request
from jobsched.wire import VERSION, Ask, Bye, FrameReader, FromNode, Hello, Look, frame, unix_address

PATIENCE_S = 20.0
STRANGER = 65534  # nobody
HUGE = 3 << 30
BIG_JOB = b"big-job-of-shelf"  # the id of a job with a long record, which never runs
PART_BYTES = 60 << 20  # of one unfinished request: under its own limit

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(FromNode).decode


class Connection:
    """A connection that says what it is told to."""

    def __init__(self, store: Path, *, greeted: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_S)
        self._frames = FrameReader()
        while True:  # the backlog may be full
            with unix_address(store) as address:
                if self.socket.connect_ex(address) == 0:
                    break
        if greeted:
            self.send(Hello())
            assert self.next_message() is not None

    def send(self, message: msgspec.Struct) -> None:
        self.socket.sendall(frame(message))

    def send_body(self, body: bytes) -> None:
        self.socket.sendall(len(body).to_bytes(4, "big") + body)

    def next_message(self) -> Any:
        """Return the next message, None at the end of the stream."""
        for message in self.messages():
            return message
        return None

    def messages(self) -> Iterator[Any]:
        """Yield what the node says, until it hangs up."""
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(1 << 16):
                yield from map(decode, self._frames.feed(data))

    def last_words(self) -> str:
        """Return how the node ended it: the kind of its `Bye`, or that it hung up."""
        said = [message.kind for message in self.messages() if isinstance(message, Bye)]
        return said[-1] if said else "hung up"

    def close(self) -> None:
        self.socket.close()


# Nonsense.


def garbage(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Send random bytes, before a greeting or after it."""
    ends: Counter[str] = Counter()
    for _ in range(count):
        connection = Connection(store, greeted=rng.random() < 0.5)
        with contextlib.suppress(BrokenPipeError):
            connection.socket.sendall(rng.randbytes(rng.choice((1, 3, 4, 5, 100, 70_000))))
            connection.socket.shutdown(socket.SHUT_WR)
        ends[connection.last_words()] += 1
        connection.close()
    return dict(ends)


def huge(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Announce a frame of 3 GB and begin to send it."""
    ends: Counter[str] = Counter()
    for _ in range(count):
        connection = Connection(store)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.socket.sendall(HUGE.to_bytes(4, "big") + bytes(rng.randrange(1 << 18)))
        ends[connection.last_words()] += 1
        connection.close()
    return dict(ends)


def version(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Greet in another version."""
    ends: Counter[str] = Counter()
    for _ in range(count):
        connection = Connection(store, greeted=False)
        connection.send(Hello(version=VERSION + rng.choice((-1, 1, 1000, 1 << 62))))
        ends[connection.last_words()] += 1
        connection.close()
    return dict(ends)


def fuzz(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Send messages that are nearly right. None may add a job that can run."""
    ends: Counter[str] = Counter()
    sent = 0
    while sent < count:
        connection = Connection(store)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(rng.choice((1, 1, 2, 5, 20))):
                connection.send_body(mutated(rng))
                sent += 1
            connection.socket.shutdown(socket.SHUT_WR)
        ends[connection.last_words()] += 1
        connection.close()
    return {"messages": sent, **ends}


def mutated(rng: random.Random) -> bytes:
    """Return the body of a message in which something is wrong, or may be."""
    kind = rng.random()
    if kind < 0.02:
        return b"\x91" * rng.choice((100, 10_000, 1_000_000)) + b"\xc0"  # a list of a list of a list
    if kind < 0.03:
        return b"\x93\xa3Ask\x01\x94\xdd" + (rng.choice((1 << 20, (1 << 32) - 1))).to_bytes(4, "big")
    body = encode(message(rng))
    if kind < 0.1:
        damaged = bytearray(body)
        for _ in range(rng.choice((1, 1, 2, 8))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        return bytes(damaged)
    if kind < 0.15:
        return body[: rng.randrange(len(body))]
    return body


def message(rng: random.Random) -> list[Any]:
    """Return a message in which one of the values is any other, of any type."""
    job = NewJob(new_id(), "tasks:mark", rng.choice(("mail", "shelf")), 0, 0, b"no record")
    ask = plain(Ask(rng.randrange(100), Request(jobs=[job])))
    look = plain(Look(rng.randrange(100), rng.randbytes(16), ended=rng.random() < 0.5))
    whole = rng.choice((ask, ask, ask, look, plain(Hello())))
    request = ask[2]
    target: list[Any] = rng.choice((request[0][0], request, ask)) if whole is ask else whole
    place = rng.randrange(len(target))
    target[place] = alike(rng, target[place]) if rng.random() < 0.8 else anything(rng)
    if rng.random() < 0.05:
        target.append(anything(rng))
    return whole


def plain(whole: msgspec.Struct) -> list[Any]:
    """Return a message as the lists that it is on the wire."""
    lists: list[Any] = msgspec.msgpack.decode(encode(whole))
    return lists


def alike(rng: random.Random, value: Any) -> Any:  # noqa: PLR0911 (one for each type)
    """Return another value of the same type, one at its edges."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((-1, 0, 1, 30_000, 30_001, -30_001, 1 << 31, 1 << 53, (1 << 63) - 1, (1 << 64) - 1))
    if isinstance(value, str):
        return rng.choice(("", "Ask", "Look", "reports", "tasks:", "tasks:mark\0", "é" * 600, "x" * 70_000))
    if isinstance(value, bytes):
        return rng.choice((b"", bytes(16), b"\xff" * 16, bytes(15), rng.randbytes(16), rng.randbytes(3000)))
    if isinstance(value, dict) or value is None:
        return rng.choice(({}, {"": 0}, {"reports": -1}, {"x" * 70_000: 1 << 62}, []))
    if not value:
        return rng.choice(([], [rng.randbytes(16)], [rng.randbytes(16)] * 20_000, ["reports"], [""]))
    return [alike(rng, value[0])] if rng.random() < 0.5 else value * rng.choice((2, 5000))


def anything(rng: random.Random, depth: int = 0) -> Any:
    """Return any value."""
    plain = (
        None, True, -1, 0, -(1 << 63), (1 << 64) - 1, 1 << 62, 30_001, 1.5, float("nan"), float("inf"),
        "", "nowhere", "x" * 70_000, "\0\n\x1b[2J", b"", bytes(15), bytes(16), bytes(17),
        bytes(rng.randrange(300_000)),
        [], [[]], [None] * 1000, [bytes(16)] * rng.choice((1, 1000, 100_001)), {}, {"a": {1: 2}},
        msgspec.msgpack.Ext(5, b"ext"),
    )  # fmt: skip
    if depth < 3 and rng.random() < 0.2:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(5))]
    return rng.choice(plain)


# Too much.


def deaf(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Ask for long answers and read none of them, until the node has enough."""
    dropped = 0
    for _ in range(count):
        connection = Connection(store)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for number in range(200):
                connection.send(Look(number, BIG_JOB))
            connection.socket.recv(1, socket.MSG_PEEK)
        try:
            while connection.socket.recv(1 << 20):
                pass
        except ConnectionResetError:
            pass
        dropped += 1
        connection.close()
    return {"dropped": dropped}


def unfinished(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Begin long requests on several connections and end none."""
    part = frame(
        Ask(1, Request(jobs=[NewJob(bytes(16), "tasks:mark", "shelf", 0, 0, bytes(1 << 20))]), more=True)
    )
    connections = [Connection(store) for _ in range(count)]
    dropped: set[Connection] = set()
    for _ in range(PART_BYTES >> 20):
        for connection in connections:
            if connection not in dropped:
                try:
                    connection.socket.sendall(part)
                except (BrokenPipeError, ConnectionResetError):
                    dropped.add(connection)
    return {"connections": count, "dropped": len(dropped)}


# Those who stay.


def idle(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Connect, and do nothing."""
    connections = [Connection(store) for _ in range(count)]
    return stay({"connected": count}, connections)


def half(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Send a part of a frame, and no more."""
    connections = []
    for _ in range(count):
        connection = Connection(store)
        whole = frame(Ask(1, Request(cancel=[bytes(16)] * rng.choice((1, 1000, 100_000)))))
        connection.socket.sendall(whole[: rng.randrange(1, len(whole))])
        connections.append(connection)
    return stay({"connected": count}, connections)


def watching(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Wait for the end of a job, and stop oneself."""
    connection = Connection(store)
    for number in range(count):
        connection.send(Look(number, BIG_JOB, ended=True))
    return stop({}, [connection])


def halted(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Stop oneself in the midst of a frame."""
    connections = [Connection(store) for _ in range(count)]
    for connection in connections:
        connection.socket.sendall(frame(Ask(1, Request(cancel=[bytes(16)] * 1000)))[:5000])
    return stop({}, connections)


def stay(figures: dict[str, Any], connections: list[Connection]) -> dict[str, Any]:
    print(json.dumps(figures), flush=True)
    sys.stdin.read()
    alive = 0
    for connection in connections:
        connection.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.last_words()
            continue
        alive += 1
    return {"still_connected": alive}


def stop(figures: dict[str, Any], connections: list[Connection]) -> dict[str, Any]:
    print(json.dumps(figures), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return {"went_on_with": len(connections)}


# Strangers.


def stranger(store: Path, rng: random.Random, count: int) -> dict[str, Any]:
    """Connect as another user, for whom the socket was opened by mistake. Needs root."""
    if os.geteuid() != 0:
        return {"skipped": "not root"}
    folder = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    os.setgroups([])
    os.setgid(STRANGER)
    os.setuid(STRANGER)
    turned_away = 0
    for _ in range(count):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(f"/proc/self/fd/{folder}/node.sock")
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(frame(Hello()))
                assert connection.recv(100) == b""
            turned_away += 1
    return {"turned_away": turned_away}


KINDS: dict[str, Callable[[Path, random.Random, int], dict[str, Any]]] = {
    kind.__name__: kind
    for kind in (
        garbage, huge, version, fuzz, deaf, unfinished, idle, half, watching, halted, stranger,
    )
}  # fmt: skip


def main() -> None:
    kind, store, seed, count = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(KINDS[kind](Path(store), random.Random(seed), int(count))), flush=True)


if __name__ == "__main__":
    main()
