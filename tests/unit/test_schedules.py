"""Schedules by name, as programs add, change and look at them; no node runs."""

import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from jobsched import Cron, Every, Once, task
from jobsched.clock import from_micros
from jobsched.codec import decode_arguments, decode_record
from jobsched.config import parse_config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import (
    ArgumentError,
    InvalidOption,
    QueueFull,
    ScheduleChanged,
    ScheduleExists,
    ScheduleNotFound,
    UnknownCategory,
)
from jobsched.job_id import parse_id
from jobsched.store.base import Query
from jobsched.store.lmdb import open_store
from jobsched.terms import Unique

NOW = 1_750_000_000_000_000
HERE = from_micros(NOW)
SEND = f"{__name__}:send"
CONFIG = "tasks = ['shop.tasks']\n[categories.mail]\n[categories.reports]\nmax_pending = 2\n"


class MovedClock:
    """A clock that is where it was put."""

    at = NOW

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return 0.0


@task(category="mail")
def send(to: str = "", *, subject: str = "") -> str:
    return to + subject


@pytest.fixture
def clock():
    return MovedClock()


@pytest.fixture
def jobs(tmp_path, clock):
    made = Dispatcher(parse_config(CONFIG, tmp_path), clock=clock)
    made._transport._clock = clock  # it writes to the store itself
    yield made
    made.close()


@pytest.fixture
def stored(tmp_path, jobs):
    """A function that returns the records of all jobs in the store."""

    def read():
        store = open_store(tmp_path / ".jobsched")
        found = [decode_record(job.record) for job in store.find(Query(limit=200)).jobs]
        store.close()
        return found

    return read


def test_what_is_added_can_be_looked_at(jobs):
    added = jobs.schedules.add(
        "nightly", send, Cron("30 2 * * *", "Europe/Berlin"), args=("a@b.c",), kwargs={"subject": "x"},
        end=HERE + timedelta(days=9), max_runs=5, jitter=2.5, misfire="skip", grace=30, overlap="queue",
    )  # fmt: skip
    found = jobs.schedules.get("nightly")
    assert found == added
    assert (found.task, found.category, found.trigger) == (
        SEND, "mail", Cron("30 2 * * *", timezone="Europe/Berlin"),
    )  # fmt: skip
    assert (found.args, found.kwargs) == (["a@b.c"], {"subject": "x"})
    assert (found.max_runs, found.jitter_s, found.misfire, found.grace_s, found.overlap) == (
        5, 2.5, "skip", 30.0, "queue",
    )  # fmt: skip
    assert (found.is_active, found.runs, found.last_job, found.ended_at) == (True, 0, None, None)
    assert found.next_at == datetime(2025, 6, 16, 0, 30, tzinfo=UTC)
    assert (found.added_at, found.end, found.start) == (HERE, HERE + timedelta(days=9), None)


def test_an_interval_counts_from_when_it_was_added(jobs, clock):
    assert jobs.schedules.add("beat", send, Every("1m")).next_at == HERE + timedelta(minutes=1)
    clock.at += 90_000_000
    assert jobs.schedules.get("beat").trigger == Every(60, anchor=HERE)


def test_a_text_is_a_cron_expression(jobs):
    assert jobs.schedule_recurring("daily", send, "@daily").trigger == Cron("@daily")
    assert jobs.schedule_once("once", send, HERE + timedelta(hours=1)).next_at == HERE + timedelta(hours=1)


def test_all_are_listed_by_name_however_many(jobs):
    with jobs.batch() as batch:
        for number in range(450):
            batch.schedule_once(f"{number:04}", send, HERE + timedelta(days=1))
    assert [schedule.name for schedule in jobs.schedules.list()] == [f"{number:04}" for number in range(450)]
    assert jobs.schedules.clear() == 450
    assert jobs.schedules.list() == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": ""}, "a schedule's name must be a text like 'nightly', got ''"),
        ({"name": " x"}, "neither spaces around it nor control characters"),
        ({"name": "x" * 201}, "takes at most 200 bytes"),
        ({"trigger": 5}, "trigger must be a Cron, an Every, a Once or a cron text, got 5"),
        ({"trigger": "30 2 * *"}, "expected 5 fields, got 4"),
        ({"trigger": Once(HERE)}, "schedule 'nightly' never fires"),
        ({"trigger": Every(60), "end": HERE + timedelta(seconds=30)}, "never fires"),
        ({"start": HERE + timedelta(days=2), "end": HERE + timedelta(days=1)}, "start is behind end"),
        ({"start": HERE.replace(tzinfo=None)}, "start must be an aware datetime"),
        ({"max_runs": 0}, "max_runs must be a whole number from 1 to 1,000,000, got 0"),
        ({"most": 1.5}, "most must be a whole number from 1 to 1,000,000, got 1.5"),
        ({"jitter": -1}, "jitter must be from 0 s to 50 years, got -1"),
        ({"misfire": "never"}, "misfire must be one of run_once, run_all, skip, got 'never'"),
        ({"overlap": "no"}, "overlap must be one of allow, skip, queue, got 'no'"),
        ({"overlpa": "skip"}, "unknown option 'overlpa', did you mean 'overlap'?"),
    ],
)
def test_bad_input_is_refused_and_named(jobs, given, message):
    options = {"name": "nightly", "task": send, "trigger": Every(60), **given}
    with pytest.raises(InvalidOption) as raised:
        jobs.schedules.add(**options)
    assert message in str(raised.value)
    assert jobs.schedules.list() == []


def test_what_dispatch_refuses_a_schedule_refuses(jobs):
    with pytest.raises(ArgumentError):
        jobs.schedules.add("bad", send, Every(60), args=(1, 2, 3))
    with pytest.raises(UnknownCategory):
        jobs.schedules.add("bad", send, Every(60), "mial")


def test_a_name_is_taken_once(jobs):
    jobs.schedules.add("nightly", send, Every(60))
    with pytest.raises(ScheduleExists, match="a schedule 'nightly' is there already"):
        jobs.schedules.add("nightly", send, Every(90))
    assert jobs.schedules.add("nightly", send, Every(90), replace=True).trigger == Every(90, anchor=HERE)
    assert jobs.schedules.get("nightly").revision == 2


@pytest.mark.parametrize("verb", ["get", "remove", "activate", "deactivate", "run_now", "history", "update"])
def test_what_is_not_there_is_said_with_the_nearest_name(jobs, verb):
    jobs.schedules.add("nightly", send, Every(60))
    with pytest.raises(ScheduleNotFound, match="no schedule 'nightyl', did you mean 'nightly'"):
        getattr(jobs.schedules, verb)("nightyl")


def test_an_update_changes_what_it_names_and_nothing_else(jobs, clock):
    before = jobs.schedules.add(
        "nightly", send, Every(60), args=("a",), max_retries=3, overlap="skip", unique="key"
    )
    clock.at += 30_000_000
    after = jobs.schedules.update("nightly", misfire="run_all")
    same = {"misfire": "run_all", "revision": 2, "changed_at": from_micros(clock.at)}
    assert after == msgspec.structs.replace(before, **same)
    assert jobs.schedules.get("nightly") == after
    moved = jobs.schedules.update("nightly", trigger=Every(10), args=("b",))
    assert (moved.args, moved.next_at) == (["b"], from_micros(clock.at) + timedelta(seconds=10))
    assert (moved.overlap, moved.revision) == ("skip", 3)


def test_an_update_of_what_is_not_active_leaves_it_so(jobs):
    jobs.schedules.add("nightly", send, Every(60), is_active=False)
    assert jobs.schedules.update("nightly", trigger=Every(10)).next_at is None
    assert jobs.schedules.activate("nightly").next_at == HERE + timedelta(seconds=10)
    assert jobs.schedules.deactivate("nightly").next_at is None
    assert jobs.schedules.deactivate("nightly").revision == 4  # that was no change


def test_what_was_due_while_it_was_not_active_is_not_made_up_for(jobs, clock):
    jobs.schedules.add("nightly", send, Every(60))
    jobs.schedules.deactivate("nightly")
    clock.at += 3600_000_000
    assert jobs.schedules.activate("nightly").next_at == HERE + timedelta(seconds=3660)


def test_run_now_dispatches_its_job_and_is_on_record(jobs, stored):
    jobs.schedules.add("nightly", send, Every(60), args=("now",), label="by schedule")
    job = jobs.schedules.run_now("nightly")
    [record] = stored()
    assert (record.id, record.name, decode_arguments(record)[0]) == (parse_id(job.id), "by schedule", ["now"])
    assert record.fired_by == ("nightly", NOW)
    [firing] = jobs.schedules.history("nightly")
    assert (firing.kind, firing.job_id, firing.due) == ("by_hand", job.id, HERE)
    assert jobs.schedules.get("nightly").next_at == HERE + timedelta(seconds=60)


def test_run_now_of_a_unique_job_returns_the_one_that_has_the_key(jobs, stored):
    jobs.schedules.add("nightly", send, Every(60), unique=Unique(key="one"))
    first = jobs.schedules.run_now("nightly")
    assert jobs.schedules.run_now("nightly") == first
    assert len(stored()) == 1


def test_a_batch_is_all_or_nothing(jobs, stored):
    def fill():
        with jobs.batch() as batch:
            batch.schedule_once("once", send, HERE + timedelta(days=1))
            batch.schedules.add("nightly", send, "@daily")
            for _ in range(3):  # the category takes two
                batch.dispatch(send, "reports")

    with pytest.raises(QueueFull):
        fill()
    assert (jobs.schedules.list(), stored()) == ([], [])

    def broken():
        with jobs.batch() as batch:
            batch.schedule_recurring("nightly", send, "@daily")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert jobs.schedules.list() == []


def test_a_batch_that_was_overtaken_changes_nothing(jobs, stored):
    jobs.schedules.add("nightly", send, Every(60))

    def overtaken():
        with jobs.batch() as batch:
            batch.dispatch(send)
            batch.schedules.update("nightly", overlap="skip")
            jobs.schedules.update("nightly", overlap="queue")

    with pytest.raises(ScheduleChanged, match="'nightly' was changed or removed meanwhile"):
        overtaken()
    assert stored() == []
    assert jobs.schedules.get("nightly").overlap == "queue"


def test_many_at_once_change_one_schedule(jobs):
    jobs.schedules.add("nightly", send, Every(60))
    threads = [
        threading.Thread(target=jobs.schedules.update, args=("nightly",), kwargs={"most": number + 1})
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert jobs.schedules.get("nightly").revision == 9
