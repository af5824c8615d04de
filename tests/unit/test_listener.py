"""Clients as the node's loop has them: real sockets, driven step by step."""

import contextlib
import logging
import resource
import socket

import msgspec
import pytest

from jobsched import listener as listening
from jobsched import wire
from jobsched.audience import Audience
from jobsched.clock import SystemClock
from jobsched.config import parse_config
from jobsched.journals import Journals
from jobsched.listener import Clients, Listener, room_for_clients
from jobsched.loop import Loop
from jobsched.reception import Reception
from jobsched.store.base import Accepted, NewJob, Request
from jobsched.store.memory import MemoryStore

decode = msgspec.msgpack.Decoder(wire.FromNode).decode


class Peer:
    """The other end of a client's connection; it never waits."""

    def __init__(self, desk: "Desk") -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with wire.unix_address(desk.folder) as address:
            self.socket.connect(address)
        self.socket.setblocking(False)
        self._frames = wire.FrameReader()
        self._desk = desk
        self._told: list[wire.FromNode] = []
        self._is_over = False

    def send(self, *messages: msgspec.Struct) -> "Peer":
        return self.send_bytes(b"".join(map(wire.frame, messages)))

    def send_bytes(self, data: bytes) -> "Peer":
        """Send all, and have the node's loop take it meanwhile."""
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                self._desk.step()
        return self

    def told(self) -> list[wire.FromNode]:
        """Return all that the node has said so far."""
        try:
            while data := self.socket.recv(1 << 16):
                self._told += map(decode, self._frames.feed(data))
            self._is_over = True
        except ConnectionResetError:
            self._is_over = True
        except BlockingIOError:
            pass
        return self._told

    @property
    def is_dropped(self) -> bool:
        self.told()
        return self._is_over


class Desk:
    """A listener, its loop and its reception; `peers` are closed with it."""

    def __init__(self, folder, most_clients: int) -> None:
        self.folder = folder
        self.loop = Loop()
        config = parse_config("tasks = ['m']\n[categories.mail]\n", folder)
        self.reception = Reception(config)
        self.audience = Audience(config, self.loop, SystemClock())
        self.listener = Listener(folder, most_clients)
        journals = Journals(config, self.reception)
        self.clients = Clients(self.listener, self.loop, self.reception, self.audience, journals)
        self.peers: list[Peer] = []

    def connect(self) -> Peer:
        """Connect a client that is greeted."""
        peer = Peer(self).send(wire.Hello())
        self.peers.append(peer)
        self.settle()
        return peer

    def step(self) -> None:
        self.loop.wait(0)

    def settle(self) -> None:
        """Let the loop go on until all that was sent has been heard."""
        for _ in range(30):
            self.step()

    def answer(self) -> int:
        """Answer all that is asked; return how many requests that were."""
        count = len(self.reception.requests())
        self.reception.answer([Accepted()] * count)
        return count

    def gathered(self) -> list[Request]:
        """Return what one turn gathers."""
        self.step()
        requests = self.reception.requests()
        self.reception.answer([Accepted()] * len(requests))
        return requests

    def close(self) -> None:
        self.clients.close()
        self.listener.close()
        self.loop.close()
        for peer in self.peers:
            peer.socket.close()


@pytest.fixture
def make_desk(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(most_clients=100):
            desk = Desk(tmp_path, most_clients)
            stack.callback(desk.close)
            return desk

        yield make


@pytest.fixture
def desk(make_desk):
    return make_desk()


def job(number: int, size: int = 10) -> NewJob:
    return NewJob(number.to_bytes(16, "big"), "m:send", "mail", 0, 0, bytes(size))


def request(number: int, size: int = 10) -> Request:
    return Request(jobs=[job(number, size)])


# How many.


def test_a_newcomer_over_the_limit_takes_the_place_of_who_was_idle_longest(make_desk):
    desk = make_desk(3)
    first, second, third = (desk.connect() for _ in range(3))
    first.send(wire.Ask(1, request(1)))
    desk.settle()
    desk.answer()
    newcomer = desk.connect()
    assert [peer.is_dropped for peer in (first, third, newcomer)] == [False] * 3
    welcome, bye = second.told()
    assert isinstance(welcome, wire.Welcome)
    assert bye.kind == "Unavailable"
    assert "serves 3 clients, and this one was idle longest: connect again" in bye.reason
    assert second.is_dropped
    with pytest.raises(BrokenPipeError):
        second.socket.send(wire.frame(wire.Look(1, bytes(16))))


def test_who_waits_for_something_makes_no_room(make_desk):
    desk = make_desk(3)
    asking, watching, half = (desk.connect() for _ in range(3))
    asking.send(wire.Ask(1, request(1)))
    watching.send(wire.Look(1, job(1).id, ended=True))
    half.send_bytes(b"\0\0\1")
    desk.settle()
    newcomer = desk.connect()
    assert half.is_dropped
    assert [peer.is_dropped for peer in (asking, watching, newcomer)] == [False] * 3
    newcomer.send(wire.Look(1, job(1).id, ended=True))
    desk.settle()
    late = desk.connect()
    assert (late.told(), late.is_dropped) == ([], True)
    desk.answer()
    desk.connect()
    assert asking.is_dropped


def test_who_has_just_asked_is_not_dropped_unheard(make_desk):
    desk = make_desk(1)
    asking = desk.connect()
    desk.peers.append(Peer(desk).send(wire.Hello()))
    asking.send(wire.Ask(1, request(1)))
    desk.settle()
    assert desk.answer() == 1
    assert asking.told()[1:] == [wire.Answer(1, Accepted())]


def test_the_limit_of_clients_is_said_once(make_desk, caplog):
    desk = make_desk(4)
    for _ in range(20):
        desk.connect()
    assert caplog.text.count("4 clients are connected, the most there may be") == 1


@pytest.fixture
def file_limit(monkeypatch):
    """Pretend limits on open files; return those that are set."""
    limits = {}

    def setrlimit(_, pair):
        limits["now"] = pair

    def pretend(soft, hard):
        limits["now"] = soft, hard
        return limits

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    return pretend


@pytest.mark.parametrize(
    ("before", "after", "most"),
    [
        ((1024, 1 << 30), (4096 + 64 + 80, 1 << 30), 4096),
        ((1024, 2048), (2048, 2048), 2048 - 64 - 80),
        ((9000, 9000), (9000, 9000), 4096),
        ((100, 120), (120, 120), 16),
    ],
)
def test_the_limit_on_files_is_raised_as_far_as_needed_or_the_clients_are_fewer(
    file_limit, caplog, before, after, most
):
    limits = file_limit(*before)
    assert room_for_clients(10) == most
    assert limits["now"] == after
    assert (f"at most {most} clients at a time: 10 workers" in caplog.text) == (most < 4096)


# How much.


def test_a_client_that_does_not_read_is_dropped_at_the_limit_and_no_other(desk, monkeypatch, caplog):
    monkeypatch.setattr(listening, "_MAX_UNSENT_TO_ONE", 1 << 20)
    deaf, other = desk.connect(), desk.connect()
    store = MemoryStore()

    def ask_without_end():
        while True:
            deaf.send(*(wire.Look(number, bytes(16)) for number in range(1000)))
            desk.settle()
            desk.reception.settle(store, [])

    with pytest.raises(BrokenPipeError):
        ask_without_end()
    assert "it does not read, 1 MiB wait" in caplog.text
    assert not other.is_dropped


def test_of_all_that_do_not_read_the_one_with_the_most_is_dropped(make_desk, monkeypatch):
    monkeypatch.setattr(listening, "_MAX_UNSENT", 1 << 20)
    desk = make_desk()
    deaf = [desk.connect() for _ in range(3)]
    for client, share in zip(list(desk.clients._connected), (2, 6, 1), strict=True):
        for _ in range(share):
            client.send(wire.Bye("x", "y" * (200 << 10)))
    desk.settle()
    assert [peer.is_dropped for peer in deaf] == [False, True, False]


def test_half_frames_and_unfinished_requests_are_bounded_over_all_clients(make_desk, monkeypatch, caplog):
    monkeypatch.setattr(listening, "_MAX_UNFINISHED", 4 << 20)
    desk = make_desk()
    good, half, most = (desk.connect() for _ in range(3))
    half.send_bytes((3 << 20).to_bytes(4, "big") + bytes(1 << 20))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for number in range(5):
            most.send(wire.Ask(number, request(number, 1 << 20), more=True))
            desk.settle()
    assert most.is_dropped
    assert "4 MiB of requests are unfinished, and 3 MiB of them its own" in caplog.text
    assert not half.is_dropped
    assert desk.reception._parts == {}
    good.send(wire.Ask(1, request(1)))
    assert [asked.jobs for asked in desk.gathered()] == [[job(1)]]


def test_nothing_is_kept_of_an_unfinished_request_whose_client_is_gone(desk):
    for number in range(3):
        peer = desk.connect()
        peer.send(wire.Ask(number, request(number, 1 << 20), more=True))
        desk.settle()
        assert desk.clients._unfinished._total > 1 << 20
        peer.socket.close()
        desk.settle()
        assert desk.clients._unfinished._total == 0


def test_the_head_of_a_huge_frame_is_refused_at_once(desk, caplog):
    peer = desk.connect().send_bytes((3 << 30).to_bytes(4, "big"))
    desk.settle()
    *_, bye = peer.told()
    assert bye.reason == "a frame of 3,221,225,472 bytes, the limit is 4,194,304"
    assert peer.is_dropped
    assert caplog.records[-1].levelno == logging.WARNING


def test_what_is_no_message_is_cited_in_part_alone(desk, caplog):
    peer = desk.connect()
    body = msgspec.msgpack.encode(["A" * 100_000, 1])
    peer.send_bytes(len(body).to_bytes(4, "big") + body)
    desk.settle()
    *_, bye = peer.told()
    assert "a client sent what is no message: Invalid value 'AAA" in bye.reason
    assert len(bye.reason) < 300
    assert len(caplog.text) < 1000


# Who is heard.


def test_a_turn_gathers_no_more_than_its_share_and_the_rest_comes_first_next_time(desk, monkeypatch):
    monkeypatch.setattr(listening, "TURN_BYTES", 100_000)
    peers = [desk.connect() for _ in range(6)]
    for number, peer in enumerate(peers):
        peer.send(wire.Ask(1, request(number, 60_000)))
    found = [desk.gathered() for _ in range(3)]
    assert [len(requests) for requests in found] == [2, 2, 2]
    assert {requests[0].jobs[0].id for requests in found} <= {job(n).id for n in range(6)}
    assert len({request.jobs[0].id for requests in found for request in requests}) == 6
    assert desk.gathered() == []


def test_one_that_asks_for_little_is_heard_in_turn_with_those_that_pour(desk, monkeypatch):
    monkeypatch.setattr(listening, "TURN_BYTES", 100_000)
    pouring = [desk.connect() for _ in range(5)]
    single = desk.connect()
    for number, peer in enumerate(pouring):
        for part in range(3):
            peer.send(wire.Ask(part, request(10 * number + part, 60_000)))
    for round_ in range(5):
        single.send(wire.Ask(round_, request(1000 + round_)))
        waited = 0
        while job(1000 + round_).id not in {r.jobs[0].id for r in desk.gathered()}:
            waited += 1
            assert waited <= len(pouring)


def test_a_long_request_that_is_whole_ends_the_gathering_and_is_not_split(desk, monkeypatch):
    monkeypatch.setattr(listening, "TURN_BYTES", 1 << 20)
    long, *others = (desk.connect() for _ in range(4))
    for part in range(8):
        long.send(wire.Ask(1, request(part, 200_000), more=True))
        desk.settle()
    assert desk.gathered() == []
    long.send(wire.Ask(1, request(8)))
    for number, peer in enumerate(others):
        peer.send(wire.Ask(1, request(100 + number)))
    first, second = desk.gathered(), desk.gathered()
    assert sorted(len(request.jobs) for request in first + second) == [1, 1, 1, 9]
    assert len(first[-1].jobs) == 9  # nobody was heard after it


@pytest.mark.parametrize("asked", [wire.Look(1, bytes(16)), wire.Ask(1, Request(cancel=[bytes(16)] * 20))])
def test_many_small_things_are_enough_for_a_turn_too(desk, monkeypatch, asked):
    monkeypatch.setattr(listening, "TURN_BYTES", 100_000)
    peers = [desk.connect() for _ in range(3)]
    for peer in peers:
        peer.send(*[asked] * 30)
    desk.step()
    assert len(desk.clients._passed_over) == 2
