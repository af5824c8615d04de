import logging

import pytest

from jobsched import event as events
from jobsched import wire
from jobsched.audience import Audience
from jobsched.clock import SystemClock
from jobsched.config import parse_config
from jobsched.errors import WireError
from jobsched.loop import Loop
from jobsched.store.base import NewJob, Request, Turn
from jobsched.store.memory import MemoryStore
from jobsched.store.moves import Watch

FRAME = 500


class Ear:
    """One that listens; what it is told waits until `take`."""

    def __init__(self) -> None:
        self.waiting: list[wire.Told] = []
        self.unsent = 0
        self.most = 0

    def send(self, message):
        self.waiting.append(message)
        self.unsent += len(wire.frame(message))
        self.most = max(self.most, self.unsent)

    def take(self):
        """Take all that waits; return the events."""
        taken, self.waiting, self.unsent = self.waiting, [], 0
        return [event for told in taken for event in events.from_frame(told.events)]

    @property
    def has_unsent(self) -> bool:
        return False  # so that a farewell does not wait

    def fileno(self) -> int:
        return -1

    def flush(self) -> None:
        pass


class Hall:
    """An audience, with what it is told of."""

    def __init__(self, folder, hook=None) -> None:
        self.loop = Loop()
        config = parse_config("tasks = ['m']\n[categories.mail]\n", folder)
        self.audience = Audience(config, self.loop, SystemClock(), hook)
        self.audience.open(MemoryStore())

    def listen(self, **wanted) -> Ear:
        ear = Ear()
        self.audience.join(ear, wire.Listen(1, **{"follow": True} | wanted))
        return ear

    def tell(self, count=1, kind=events.WorkerReady, **fields):
        """Have something happen so many times."""
        for number in range(count):
            self.audience.note(kind, **{"worker": number, "category": "mail", "pid": 1} | fields)
        self.audience.step(0.0)


@pytest.fixture
def hall(tmp_path):
    made: list[Hall] = []

    def make(hook=None):
        made.append(Hall(tmp_path, hook))
        return made[-1]

    yield make
    for one in made:
        one.loop.close()


def test_each_listener_is_told_what_it_wants(hall):
    it = hall()
    every, mail, other, some = (
        it.listen(),
        it.listen(categories={"mail"}),
        it.listen(categories={"reports"}),
        it.listen(kinds={"dropped", "worker.ended"}),
    )
    it.tell(2)
    assert [event.worker for event in every.take()] == [0, 1]
    assert len(mail.take()) == 2
    assert other.take() == some.take() == []


def test_many_events_come_in_frames_that_are_not_too_long(hall):
    it = hall()
    ear = it.listen()
    it.tell(1200)
    assert [len(events.from_frame(told.events)) for told in ear.waiting] == [FRAME, FRAME, 200]
    assert all(len(wire.frame(told)) < wire.MAX_FRAME for told in ear.waiting)


def test_a_slow_listener_is_bounded_and_is_told_how_many_it_has_missed(hall):
    it = hall()
    slow, quick = it.listen(), it.listen()
    count = 0
    for _ in range(60):
        it.tell(FRAME)
        count += len(quick.take())
    assert count == 60 * FRAME
    assert slow.most < 2 << 20
    heard = slow.take()
    assert [event.worker for event in heard[:FRAME]] == list(range(FRAME))
    it.tell(1, worker=77)
    dropped, after = slow.take()
    assert dropped == events.Dropped(at=dropped.at, count=60 * FRAME - len(heard))
    assert after.worker == 77


def test_who_missed_something_is_told_also_if_nothing_follows(hall):
    it = hall()
    ear = it.listen()
    for _ in range(60):
        it.tell(FRAME)
    heard = ear.take()
    it.audience.step(0.0)
    assert [event.kind for event in ear.take()] == ["dropped"]
    assert heard


def test_there_are_not_too_many_that_listen(hall):
    it = hall()
    ears = [it.listen() for _ in range(64)]
    with pytest.raises(WireError, match="64 listen to this node already"):
        it.listen()
    it.listen(follow=False)
    it.audience.leave(ears[0])
    it.listen()
    with pytest.raises(WireError, match="over 1,000 names"):
        it.listen(follow=False, tasks={str(number) for number in range(1001)})


def test_who_has_left_is_told_nothing(hall):
    it = hall()
    ear = it.listen()
    it.audience.leave(ear)
    it.tell()
    assert ear.waiting == []


def test_single_jobs_are_watched_only_while_somebody_listens(hall):
    it = hall()
    assert it.audience.watch is Watch.TROUBLE
    ear = it.listen()
    assert it.audience.watch is Watch.ALL
    it.audience.leave(ear)
    assert it.audience.watch is Watch.TROUBLE
    assert hall(print).audience.watch is Watch.ALL


def test_the_last_events_are_those_that_are_rare(hall):
    it = hall()
    it.tell(1100)
    it.tell(5, kind=events.WorkerLent, to="reports")
    ear = it.listen(follow=False)
    assert ear.waiting[-1].last
    assert [event.worker for event in ear.take()] == list(range(100, 1100))
    assert it.audience.watch is Watch.TROUBLE  # it does not listen any more


def test_a_hook_gets_every_event_and_what_it_raises_is_logged(hall, caplog):
    heard = []

    def hook(event):
        heard.append(event)
        raise ValueError(event.worker)

    it = hall(hook)
    with caplog.at_level(logging.ERROR):
        it.tell(2)
    assert [event.worker for event in heard] == [0, 1]
    assert len(caplog.records) == 2
    assert "hook failed" in caplog.records[0].getMessage()


def test_events_that_a_turn_left_out_are_told_as_dropped(hall, monkeypatch, tmp_path):
    monkeypatch.setattr("jobsched.store.moves._MOST", 2)
    it = hall()
    ear = it.listen()
    store = MemoryStore()
    store.apply(Turn(now=1, requests=[Request(pause={"mail": 0})]))
    jobs = [new_job(number) for number in range(5)]
    turn = Turn(now=2, requests=[Request(jobs=jobs)], watch=it.audience.watch)
    it.audience.see(turn, store.apply(turn))
    it.audience.step(0.0)
    told = ear.take()
    assert [event.kind for event in told] == ["job.dispatched", "job.dispatched", "dropped"]
    assert told[-1].count == 3


def test_the_end_is_told_to_all_that_listen_whatever_they_want(hall):
    it = hall()
    every, few = it.listen(), it.listen(kinds={"job.failed"})
    it.audience.end(3)
    assert few.waiting[-1].last
    assert every.waiting[-1].last
    assert [(event.kind, event.put_back) for event in every.take()] == [("node.stopped", 3)]
    assert few.take() == []


def new_job(number):
    return NewJob(number.to_bytes(16, "big"), "m:t", "mail", 0, 0, b"record")


def test_the_end_is_the_last_thing_told_also_to_those_who_have_missed_something(hall):
    told = hall()
    slow = told.listen()
    told.tell(50_000)
    assert slow.waiting[-1].last is False
    told.audience.end(put_back=0)
    last = [event.kind for event in slow.take()][-2:]
    assert last == ["dropped", "node.stopped"]
