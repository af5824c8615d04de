from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import local_tasks as tasks
import pytest
from local_world import CATEGORIES, START

from jobsched import Cron, Every, InvalidOption, Once, dispatch
from jobsched.event import JobCompleted, JobEvent, JobFailed, JobRetried, ScheduleFired
from jobsched.testing import DispatchesForever, LocalApp, NotHappened

MINUTE = timedelta(minutes=1)


def minutes(runs):
    """When runs started, in minutes from the start."""
    return [(run.started - START) / MINUTE for run in runs]


# The clock.


def test_the_clock_stands_until_it_is_moved(app):
    assert app.clock.now == START
    assert app.clock.advance("1h30m") == START + timedelta(minutes=90)
    app.clock.advance(60)
    app.clock.advance(timedelta(seconds=0.5))
    assert app.clock.now == START + timedelta(minutes=91, seconds=0.5)
    app.clock.set(datetime(2025, 12, 31, 23, 59, tzinfo=ZoneInfo("Europe/Berlin")))
    assert app.clock.now == datetime(2025, 12, 31, 22, 59, tzinfo=UTC)


def test_what_is_no_time_is_refused(app):
    with pytest.raises(InvalidOption, match=r"negative.*to set the clock back, use clock.set"):
        app.clock.advance(-5)
    with pytest.raises(InvalidOption, match="is not a duration"):
        app.clock.advance("soon")
    with pytest.raises(InvalidOption, match="expected an aware datetime"):
        app.clock.set(datetime(2026, 1, 1))  # noqa: DTZ001 (naive on purpose)
    with pytest.raises(InvalidOption, match="expected an aware datetime"):
        app.run_due(datetime(2026, 1, 1))  # noqa: DTZ001 (naive on purpose)


def test_the_clock_begins_now_without_a_start():
    before = datetime.now(UTC).replace(microsecond=0)
    with LocalApp(categories=CATEGORIES) as app:
        assert before <= app.clock.now <= datetime.now(UTC)


def test_moving_the_clock_runs_nothing_by_itself(app):
    dispatch(tasks.note, delay=60, args=("a",))
    app.clock.advance("2h")
    assert tasks.done == []
    app.drain()
    assert tasks.done == ["a"]


# Delays, retries, expiry, rates.


def test_delayed_jobs_run_in_the_order_of_their_due_times(app):
    for what, delay in [("c", 180), ("a", 60), ("b", 120)]:
        dispatch(tasks.note, delay=delay, args=(what,))
    dispatch(tasks.note, at=START + 4 * MINUTE, args=("d",))
    assert app.drain() == []
    assert minutes(app.run_due("2m")) == [1, 2]
    assert minutes(app.run_due(START + 4 * MINUTE)) == [3, 4]
    assert tasks.done == ["a", "b", "c", "d"]
    assert app.clock.now == START + 4 * MINUTE


def test_retries_wait_for_their_back_off(app):
    job = tasks.fail.dispatch()
    runs = app.run_due("1h")
    assert [(run.attempt, run.state) for run in runs] == [(1, "scheduled"), (2, "scheduled"), (3, "failed")]
    waits = [(after.started - before.ended).total_seconds() for before, after in pairwise(runs)]
    assert 5 <= waits[0] <= 15  # 10 s, give or take half
    assert 10 <= waits[1] <= 30
    assert job.state() == "failed"


def test_the_jitter_of_retries_follows_from_the_seed():
    def starts(seed):
        with LocalApp(categories=CATEGORIES, start=START, seed=seed) as app:
            app.dispatcher.dispatch(tasks.fail)
            return [run.started for run in app.run_due("1h")]

    assert starts(1) == starts(1)
    assert starts(1) != starts(2)


@pytest.mark.parametrize(
    ("how", "states", "seconds"),
    [
        ("retry", ["scheduled", "scheduled", "scheduled", "failed"], [0, 30, 60, 90]),
        ("snooze", ["scheduled", "scheduled", "completed"], [0, 60, 120]),
        ("discard", ["cancelled"], [0]),
        ("rule", ["failed"], [0]),
        ("second try", ["scheduled", "completed"], [0, 1]),
    ],
)
def test_what_a_job_raises_says_what_becomes_of_it(app, how, states, seconds):
    job = tasks.end_as.dispatch(how)
    runs = app.run_due("1h")
    assert [run.state for run in runs] == states
    assert [(run.started - START).total_seconds() for run in runs] == seconds
    if how == "snooze":
        assert job.result() == 1, "a snooze spends no attempt"


def test_a_job_that_comes_too_late_has_expired(app):
    late, timely = (dispatch(tasks.note, args=(what,), expires_in=60) for what in ("late", "timely"))
    app.dispatcher.pause("mail", 120)
    dispatch(tasks.note, "reports", args=("other",), expires_in=60)
    app.run_due("3m")
    assert (tasks.done, late.state(), timely.state()) == (["other"], "cancelled", "cancelled")


def test_the_rate_of_a_category_spreads_its_jobs(app):
    for what in "abc":
        tasks.paced.dispatch(what)
    assert len(app.drain()) == 1
    runs = app.run_due("5m")
    assert [round(minute) for minute in minutes(runs)] == [1, 2]
    assert len(tasks.done) == 3


# Time limits.


def test_a_job_that_takes_longer_than_its_limit_times_out(app, monkeypatch):
    monkeypatch.setattr(tasks, "go_on", lambda: app.clock.advance("1h"))
    job = tasks.take_time.dispatch()
    (first,) = app.drain()
    assert (first.state, first.cause) == ("scheduled", "jobsched.verdict.JobTimeout: timed out after 10 s")
    assert (first.ended - first.started).total_seconds() == 10, "no longer than that"
    monkeypatch.setattr(tasks, "go_on", lambda: app.clock.advance(9.999))
    assert job.result(timeout=60) == "in time"
    assert tasks.done == ["ended", "ended"]


def test_an_async_job_that_takes_longer_is_cancelled(app, monkeypatch):
    monkeypatch.setattr(tasks, "go_on", lambda: app.clock.advance("1h"))
    tasks.take_time_in_a_loop.dispatch()
    (run,) = app.drain()
    assert (run.state, run.cause) == ("failed", "jobsched.verdict.JobTimeout: timed out after 10 s")
    assert tasks.done == ["cancelled"]


def test_waiting_for_another_job_takes_time(app):
    job = dispatch(tasks.wait_for_note, args=(100, 200), timeout=50)
    (run,) = app.drain()
    assert (job.state(), run.cause) == ("failed", "jobsched.verdict.JobTimeout: timed out after 50 s")
    assert app.clock.now == START + timedelta(seconds=50)


def test_a_job_that_waits_for_a_long_one_is_out_of_time_then(app, monkeypatch):
    monkeypatch.setattr(tasks, "go_on", lambda: app.clock.advance(60))
    dispatch(tasks.wait_for, args=(f"{tasks.__name__}:go_on_for_long",), timeout=50)
    inner, outer = app.drain()
    assert (inner.state, outer.state) == ("completed", "failed")
    assert outer.cause == "jobsched.verdict.JobTimeout: timed out after 50 s"
    assert tasks.done == []


# Schedules.


def test_each_due_time_of_a_schedule_fires_on_its_own(app):
    app.dispatcher.schedules.add("often", tasks.note, Every(10 * MINUTE), args=("often",))
    app.dispatcher.schedules.add("hourly", tasks.note, Cron("15 * * * *"), args=("hourly",))
    app.dispatcher.schedule_once("once", tasks.note, START + 25 * MINUTE, args=("once",))
    runs = app.run_due("40m")
    assert minutes(runs) == [10, 15, 20, 25, 30, 40]
    assert tasks.done == ["often", "hourly", "often", "once", "often", "often"]
    assert [one.fired_by for one in app.dispatched()][:2] == [
        ("often", START + 10 * MINUTE),
        ("hourly", START + 15 * MINUTE),
    ]
    app.assert_scheduled("often", next_at=START + 50 * MINUTE)
    assert [info.count for info in app.dispatcher.schedules.history("often")] == [1, 1, 1, 1]


def test_what_was_due_while_the_clock_jumped_is_a_misfire(app):
    schedules = app.dispatcher.schedules
    schedules.add("one", tasks.note, Every(MINUTE), args=("one",))
    schedules.add("all", tasks.note, Every(MINUTE), args=("all",), misfire="run_all")
    schedules.add("none", tasks.note, Every(MINUTE), args=("none",), misfire="skip", grace=30)
    app.clock.advance("3m30s")
    app.drain()
    assert sorted(tasks.done) == ["all", "all", "all", "none", "one"]
    assert [(info.kind, info.count) for info in schedules.history("one")] == [("fired", 3)]


def test_a_firing_is_skipped_while_the_one_before_has_not_ended(app):
    app.dispatcher.schedules.add("s", tasks.note, Every(MINUTE), args=("s",), overlap="skip")
    app.dispatcher.pause("mail", 150)
    assert minutes(app.run_due("4m")) == [2.5, 3, 4]
    kinds = [info.kind for info in app.dispatcher.schedules.history("s")]
    assert kinds == ["fired", "fired", "skipped", "fired"]


def test_a_clock_that_is_set_back_fires_no_due_time_again(app):
    schedules = app.dispatcher.schedules
    schedules.add("cron", tasks.note, Cron("*/10 * * * *"), args=("cron",))
    schedules.add("every", tasks.note, Every(10 * MINUTE), args=("every",))
    assert minutes(app.run_due("30m")) == [10, 10, 20, 20, 30, 30]
    app.clock.set(START + 5 * MINUTE)
    runs = app.run_due(START + 50 * MINUTE)
    crons = [one.fired_by[1] for one in app.dispatched() if one.args == ("cron",)]
    assert crons == [START + n * MINUTE for n in (10, 20, 30, 40, 50)]
    assert minutes(run for run in runs if run.result == "every")[0] == 15
    assert "noted" in [info.kind for info in schedules.history("every")]


def test_a_clock_that_is_set_forwards_makes_jobs_due(app):
    dispatch(tasks.note, delay=3600, args=("a",))
    app.clock.set(START + timedelta(hours=2))
    assert len(app.drain()) == 1


def test_schedules_that_fire_without_end_are_bounded(app):
    app.dispatcher.schedules.add("s", tasks.note, Every(timedelta(seconds=1)), args=("s",))
    with pytest.raises(
        DispatchesForever, match=r"100 steps: task .*note' ran 50 times, fired by schedule 's'"
    ):
        app.run_due("1d", limit=100)


def test_a_month_of_nights_takes_no_month(app):
    app.dispatcher.schedules.add(
        "nightly", tasks.note, Cron("30 2 * * *", timezone="Europe/Berlin"), args=("x",)
    )
    runs = app.run_due("31d")
    assert len(runs) == 31
    berlin = ZoneInfo("Europe/Berlin")
    times = {run.started.astimezone(berlin).strftime("%H:%M") for run in runs}
    assert times == {"02:30", "03:00"}, "in the night in which there is no half past two, right after it"


def test_a_schedule_fires_once_by_once(app):
    app.dispatcher.schedules.add("s", tasks.note, Once(START + MINUTE), args=("s",))
    app.run_due("1h")
    assert tasks.done == ["s"]


# Waiting.


def test_waiting_for_something_runs_until_it_holds(app):
    app.dispatcher.schedules.add("s", tasks.note, Every(MINUTE), args=("s",))
    assert app.wait_for(lambda: len(tasks.done) == 3 and "third", timeout="1h") == "third"
    assert app.clock.now == START + 3 * MINUTE


def test_waiting_in_vain_says_what_ran_and_what_waits(app):
    dispatch(tasks.note, delay=30, args=("a",))
    dispatch(tasks.note, "reports", delay=3600, args=("b",))
    with pytest.raises(
        NotHappened, match=r"(?s)in 60 s.*wait: reports: 1;.*note attempt 1 at .*09:00:30.* completed"
    ):
        app.wait_for(lambda: False)
    assert app.clock.now == START + MINUTE


def test_waiting_for_an_event_returns_it(app):
    first, second = tasks.end_as.dispatch("rule"), tasks.fail.dispatch()
    event = app.wait_for(JobFailed, "1h", job=second)
    assert (event.job, event.task, event.attempt) == (second.id, "local_tasks:fail", 3)
    assert first.state() == "failed"
    assert [type(event) for event in app.events if isinstance(event, JobRetried | JobFailed)] == [
        JobFailed, JobRetried, JobRetried, JobFailed,
    ]  # fmt: skip
    app.dispatcher.schedules.add("s", tasks.note, Every(MINUTE), args=("s",))
    assert app.wait_for(ScheduleFired, schedule="s").job == app.dispatched(tasks.note)[0].id
    assert app.wait_for(JobCompleted, task=tasks.note).category == "mail"
    with pytest.raises(NotHappened):
        app.wait_for(JobFailed, "1s", task=tasks.fail)  # those are of the past


def test_what_is_no_event_is_not_waited_for(app):
    with pytest.raises(InvalidOption, match="JobEvent has no field 'jab', did you mean 'job'"):
        app.wait_for(JobEvent, jab="x")
    with pytest.raises(InvalidOption, match="expected a type of event"):
        app.wait_for(int)
    with pytest.raises(InvalidOption, match="task: fields go with a type of event"):
        app.wait_for(lambda: True, task="x")
