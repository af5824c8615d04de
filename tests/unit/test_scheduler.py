"""The scheduler over a store: nothing stands still, nothing spins."""

import datetime as dt

import pytest

from jobsched import Cron, Every
from jobsched.clock import from_micros, to_micros
from jobsched.due_times import first_due
from jobsched.schedule import FiringKind, PutSchedule, Schedule
from jobsched.scheduler import Scheduler
from jobsched.store.base import Accepted, Request, Turn
from jobsched.store.lmdb import open_store
from jobsched.store.memory import MemoryStore
from jobsched.trigger_data import to_data

START = to_micros(dt.datetime(2026, 6, 1, tzinfo=dt.UTC))
SECOND = 1_000_000
DAY = 86_400 * SECOND


def put(store, name="x", *, at=START, trigger=None, **options):
    """Add a schedule that is due in one second, or by a trigger."""
    data = to_data(trigger or Every(1, anchor=from_micros(at))) if not isinstance(trigger, list) else trigger
    schedule = Schedule(name=name, task="tasks:mark", category="mail", trigger=data, **options)
    due = (at + SECOND, at + SECOND) if isinstance(trigger, list) else first_due(schedule, at)
    [reply] = store.apply(Turn(now=at, requests=[Request(schedules=[PutSchedule(schedule, *due)])])).replies
    assert isinstance(reply, Accepted)


class Clocked:
    """A scheduler that a test turns, with clocks of its own."""

    def __init__(self, store, at=START):
        self.store = store
        self.at = at
        self.now = 100.0
        self.scheduler = Scheduler()
        self.scheduler.open(store)

    def turn(self, seconds=0.0, *, step=0, has_room=True):
        """Let time pass, step the wall clock, turn once; return the firings that were wanted."""
        self.now += seconds
        self.at += int(seconds * SECOND) + step
        firings = self.scheduler.firings(self.store, self.now, self.at)
        if firings:
            turn = Turn(now=self.at, firings=firings)
            result = self.store.apply(turn if has_room else Turn(now=self.at))
            self.scheduler.learn(turn, result, self.now)
        return firings

    def settle(self):
        """Turn until the scheduler would wait; return how many turns that took."""
        for turns in range(100):
            if self.scheduler.timeout_s(self.now, self.at) > 0:
                return turns
            self.turn()
        raise AssertionError("it does not come to rest")


@pytest.fixture(params=["memory", "lmdb"])
def store(request, tmp_path):
    opened = MemoryStore() if request.param == "memory" else open_store(tmp_path / "store")
    yield opened
    opened.close()


def test_it_fires_what_is_due_and_rests(store):
    put(store)
    clocked = Clocked(store)
    clocked.settle()
    clocked.turn(1.0)
    assert [record.kind for record in store.firings("x")] == [FiringKind.FIRED]
    clocked.settle()


def test_a_damaged_schedule_stops_nobody_and_costs_nothing(tmp_path):
    store = open_store(tmp_path / "store")
    put(store, "damaged")
    put(store, "sound", at=START + 10 * SECOND)
    with store._env.begin(write=True) as txn:
        txn.put(b"damaged", b"\x01nonsense", db=store._dbs.schedule_states)
    clocked = Clocked(store)
    clocked.turn(20.0)
    clocked.settle()
    clocked.turn(5.0)
    clocked.settle()
    assert len(store.firings("sound")) == 2
    assert clocked.scheduler.timeout_s(clocked.now, clocked.at) > 0.1
    store.close()


def test_a_trigger_that_is_not_understood_waits_until_it_is(store):
    """As one in a zone of a newer tz database. Its due times are dealt with then, each once."""
    put(store, "odd", trigger=["cron", "* * * * *", "Mars/Olympus", False])
    put(store, "sound")
    clocked = Clocked(store)
    for _ in range(200):
        clocked.turn(1.0)
        clocked.settle()
    assert [record.kind for record in store.firings("odd")] == [FiringKind.NOTED]
    assert store.schedule("odd").state.next_at == START + SECOND
    assert len(store.firings("sound")) >= 200


@pytest.mark.parametrize("start_at", [1 << 57, (1 << 58) - 1])
def test_a_schedule_of_impossible_times_does_not_end_the_node(store, start_at):
    schedule = Schedule(
        name="x", task="tasks:mark", category="mail", trigger=["every", SECOND, START], start_at=start_at
    )
    put_it = PutSchedule(schedule, START, START)
    store.apply(Turn(now=START, requests=[Request(schedules=[put_it])]))
    clocked = Clocked(store)
    clocked.turn(1.0)
    clocked.settle()


def test_a_full_disk_does_not_keep_an_interval_from_going_on_after_the_clock_was_set_back(store):
    put(store, trigger=Every(60, anchor=from_micros(START)))
    clocked = Clocked(store)
    clocked.settle()
    clocked.turn(60.0)
    clocked.turn(0.0, step=DAY)
    clocked.settle()
    assert clocked.turn(1.0, step=-DAY, has_room=False)
    for _ in range(80):
        clocked.turn(1.0)
        clocked.settle()
    assert store.schedule("x").state.last_at < START + DAY
    assert store.schedule("x").state.next_at <= clocked.at + 60 * SECOND


def test_an_hour_set_back_is_noted_once_and_the_history_goes_on(store):
    put(store, "cron", trigger=Cron("* * * * * *", seconds=True))
    put(store, "every")
    clocked = Clocked(store)
    clocked.settle()
    for _ in range(1100):
        clocked.turn(1.0)
    clocked.turn(1.0, step=-3600 * SECOND)
    clocked.settle()
    clocked.turn(2.0)
    for _ in range(3):  # as many restarts
        clocked.scheduler = Scheduler()
        clocked.scheduler.open(store)
        clocked.settle()
    before = clocked.at
    for _ in range(1500):
        clocked.turn(1.0)
    noted = [r for name in ("cron", "every") for r in history(store, name) if r.kind is FiringKind.NOTED]
    assert len(noted) <= 2
    recent = [record.due_at for record in history(store, "every") if before < record.due_at <= clocked.at]
    assert len(recent) >= 950


def history(store, name):
    found, before = [], 0
    while page := store.firings(name, 200, before):
        found += page
        before = page[-1].due_at
    return found
