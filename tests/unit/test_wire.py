import os
import socket
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched import wire
from jobsched.config import parse_config
from jobsched.errors import InvalidOption, WireError
from jobsched.reception import Reception
from jobsched.request_size import MAX_REQUEST_JOBS, check_size
from jobsched.store.alike import AlikeJobs
from jobsched.store.base import Accepted, Claim, NewJob, Refused, Request, StoredJob

decode_ask = msgspec.msgpack.Decoder(wire.FromClient).decode


def new_jobs(count: int, size: int) -> list[NewJob]:
    return [NewJob(n.to_bytes(16, "big"), "m:send", "mail", 0, 0, bytes(size)) for n in range(count)]


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def asks(request: Request) -> list[wire.Ask]:
    """What arrives at the other end."""
    reader = wire.FrameReader()
    return [decode_ask(body) for data in wire.ask_frames(7, request) for body in reader.feed(data)]


# Frames.


def test_a_frame_is_four_bytes_of_length_and_the_message():
    data = wire.frame(wire.Hello())
    assert data == framed(msgspec.msgpack.encode(wire.Hello()))
    assert decode_ask(data[4:]) == wire.Hello(wire.VERSION)


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        (wire.Hello(3), wire.FromClient),
        (wire.Look(1, b"i" * 16, ended=True), wire.FromClient),
        (wire.Ask(1, Request(cancel=[b"i" * 16], pause={"mail": 0}, resume=["reports"])), wire.FromClient),
        (wire.Ask(1, Request(jobs=new_jobs(2, 3)), more=True), wire.FromWorker),
        (wire.Welcome(1), wire.FromNode),
        (wire.Bye("WireError", "reason"), wire.FromNode),
        (wire.Answer(1, Accepted([None])), wire.FromNode),
        (wire.Answer(1, Refused("StoreFull", "reason")), wire.ToWorker),
        (wire.Seen(1, None), wire.FromNode),
        (wire.Work([Claim(1, 2, 3, b"i" * 16, b"record")]), wire.ToWorker),
        (wire.Drop(255, 3), wire.ToWorker),
        (wire.Ready(5), wire.FromWorker),
    ],
)
def test_every_message_arrives_as_it_was_sent(message, kinds):
    (body,) = wire.FrameReader().feed(wire.frame(message))
    arrived = msgspec.msgpack.decode(body, type=kinds)
    assert type(arrived) is type(message)
    assert wire.frame(arrived) == wire.frame(message)


def test_frames_are_found_byte_by_byte():
    bodies = [b"", b"a", b"bc" * 200]
    reader = wire.FrameReader()
    found = [body for byte in b"".join(map(framed, bodies)) for body in reader.feed(bytes((byte,)))]
    assert found == bodies


@settings(max_examples=60, deadline=None)
@given(bodies=st.lists(st.binary(max_size=40), max_size=6), data=st.data())
def test_frames_are_found_however_the_stream_is_split(bodies, data):
    stream = b"".join(map(framed, bodies))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    reader = wire.FrameReader()
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert [body for piece in pieces for body in reader.feed(piece)] == bodies


def test_a_frame_of_the_limit_passes_and_a_longer_one_is_refused_by_its_head():
    whole = bytes(wire.MAX_FRAME)
    assert wire.FrameReader().feed(framed(whole)) == [whole]
    with pytest.raises(WireError, match="a frame of 4,194,305 bytes, the limit is 4,194,304"):
        wire.FrameReader().feed((wire.MAX_FRAME + 1).to_bytes(4, "big"))


def test_a_long_frame_behind_a_good_one_is_refused():
    with pytest.raises(WireError, match="the limit is"):
        wire.FrameReader().feed(framed(b"good") + b"\xff\xff\xff\xff")


# Requests in parts.


@pytest.mark.parametrize(
    ("count", "size"),
    [(0, 0), (1, 100), (1, 1 << 20), (7, 900_000), (20_000, 100), (3, (1 << 20) - 100)],
)
def test_a_request_travels_in_frames_within_the_limit(count, size):
    request = Request(jobs=new_jobs(count, size), cancel=[b"c" * 16], pause={"mail": 0}, resume=["reports"])
    frames = list(wire.ask_frames(7, request))
    assert all(len(data) <= wire.MAX_FRAME for data in frames)
    parts = asks(request)
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert {part.number for part in parts} == {7}
    assert [job for part in parts for job in part.request.jobs] == request.jobs
    *first, last = (part.request for part in parts)
    assert not any(request.cancel or request.pause or request.resume for request in first)
    assert (last.cancel, last.pause, last.resume) == (request.cancel, request.pause, request.resume)


@pytest.mark.parametrize(("count", "size", "parts"), [(7, 900_000, 4), (20_000, 100, 4), (1, 10, 1)])
def test_the_parts_of_a_request_are_joined_by_the_reception(tmp_path, count, size, parts):
    reception = Reception(parse_config("tasks = ['m']\n[categories.mail]\n", tmp_path))
    request = Request(jobs=new_jobs(count, size), cancel=[b"c" * 16])
    arriving = asks(request)
    assert len(arriving) == parts
    for part in arriving:
        assert reception.requests() == []
        reception.take(None, part)
    (joined,) = reception.requests()
    assert (list(joined.jobs), joined.cancel) == (request.jobs, request.cancel)


@pytest.mark.parametrize(("count", "size", "parts"), [(7, 900_000, 4), (20_000, 100, 4), (1, 10, 1)])
def test_of_jobs_that_are_alike_the_rest_is_sent_once_a_frame(tmp_path, count, size, parts):
    reception = Reception(parse_config("tasks = ['m']\n[categories.mail]\n", tmp_path))
    jobs = new_jobs(count, size)
    alike = AlikeJobs(jobs[0], [job.id for job in jobs], [job.record for job in jobs])
    arriving = asks(Request(jobs=alike, cancel=[b"c" * 16]))
    assert len(arriving) == parts
    assert all(len(part.jobs) and not part.request.jobs for part in arriving)
    for part in arriving:
        reception.take(None, part)
    assert reception.arriving() == {"mail": count}
    (joined,) = reception.requests()
    assert isinstance(joined.jobs, AlikeJobs)
    assert (list(joined.jobs), joined.cancel) == (jobs, [b"c" * 16])


@pytest.mark.parametrize(
    ("single", "ids", "records"), [(0, 2, 1), (0, 0, 1), (1, 1, 1), (0, MAX_REQUEST_JOBS + 1, None)]
)
def test_jobs_that_are_alike_come_whole_or_are_no_message(tmp_path, single, ids, records):
    reception = Reception(parse_config("tasks = ['m']\n[categories.mail]\n", tmp_path))
    (like,) = new_jobs(1, 0)
    records = ids if records is None else records
    ask = wire.Ask(1, Request(jobs=[like] * single), False, like, [like.id] * ids, [b""] * records)
    with pytest.raises(WireError):
        reception.take(None, ask)


def test_the_limits_of_a_request_are_said():
    job = new_jobs(1, 100)[0]
    check_size(Request(jobs=[job] * MAX_REQUEST_JOBS, cancel=[b""] * MAX_REQUEST_JOBS))
    large = NewJob(job.id, job.task, job.category, 0, 0, bytes(1 << 20))
    check_size(Request(jobs=[large] * 64))
    for request, told in [
        (Request(jobs=[job] * 100_001), "got 100,001 jobs and 10,000,100 bytes"),
        (Request(cancel=[b""] * 100_001), "got 100,001 jobs and 0 bytes"),
        (Request(jobs=[large] * 65), "got 65 jobs and 68,157,440 bytes"),
    ]:
        with pytest.raises(InvalidOption, match=f"up to 100,000 jobs or 64 MiB, {told}"):
            check_size(request)


def test_the_largest_list_of_cancellations_fits_one_frame():
    request = Request(cancel=[b"c" * 16] * MAX_REQUEST_JOBS)
    (data,) = wire.ask_frames(1, request)
    assert len(data) <= wire.MAX_FRAME


def test_the_largest_job_that_can_be_asked_for_fits_one_frame():
    job = StoredJob(id=b"i" * 16, status=None, record=bytes((1 << 20) + 4096), result=bytes(1 << 20))
    assert len(wire.frame(wire.Seen(1, job))) + (256 << 10) <= wire.MAX_FRAME


# Sockets.


def test_a_socket_in_a_folder_with_a_very_long_path_can_be_reached(tmp_path):
    folder = tmp_path / ("d" * 120) / ("e" * 120)
    folder.mkdir(parents=True)
    before = set(Path("/proc/self/fd").iterdir())
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with wire.unix_address(folder) as address:
            listener.bind(address)
        listener.listen()
        with wire.unix_address(folder) as address:
            client.connect(address)
        accepted, _ = listener.accept()
        with accepted:
            assert wire.peer(accepted) == wire.peer(client) == (os.getpid(), os.geteuid())
    assert (folder / "node.sock").is_socket()
    assert len(set(Path("/proc/self/fd").iterdir())) == len(before)


def test_a_folder_that_is_not_there_has_no_address(tmp_path):
    with pytest.raises(FileNotFoundError), wire.unix_address(tmp_path / "nowhere"):
        pass
