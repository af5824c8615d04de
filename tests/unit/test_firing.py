"""What a due schedule fires: each due time is covered by exactly one record."""

import datetime as dt
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jobsched import Cron, Every, Once
from jobsched.clock import MICROSECONDS, from_micros, to_micros
from jobsched.firing import fire, fire_time, next_due, set_back
from jobsched.job_id import new_id
from jobsched.schedule import FiringKind, Schedule, ScheduleState, StoredSchedule
from jobsched.trigger_data import from_data, to_data

START = to_micros(
    dt.datetime(2026, 3, 29, 0, 30, tzinfo=dt.UTC)
)  # half an hour before Berlin's clocks change
SECOND = MICROSECONDS
HOUR = 3600 * SECOND
DAY = 24 * HOUR
EVERY_SECOND = Cron("* * * * * *", seconds=True)

triggers = st.sampled_from(
    [
        Every(1, anchor=from_micros(START)),
        Every("7s", anchor=from_micros(START - 3)),
        EVERY_SECOND,
        Cron("*/20 * * * * *", seconds=True),
        Cron("*/5 * * * *", timezone="Europe/Berlin"),
        Cron("15,45 2 * * *", timezone="Europe/Berlin"),
        Cron("0,1,2 30 2,3 * * *", seconds=True, timezone="Europe/Berlin"),
        Cron("7 0-59/3 1,2 29-30 * SUN", seconds=True, timezone="America/New_York"),
        Cron("* * L * *"),
        Once(from_micros(START + 5 * SECOND)),
    ]
)


def waiting(trigger, *, at=START, **options):
    """Return a schedule that was added at a time and has not fired."""
    state = options.pop("state", {})
    schedule = Schedule(name="x", task="tasks:mark", category="mail", trigger=to_data(trigger), **options)
    due = next_due(schedule, at)
    filled = {"next_at": due, "fire_at": fire_time(schedule, due), "added_at": at, "changed_at": at} | state
    return StoredSchedule(schedule, ScheduleState(**filled))


def due_times(schedule, after, until):
    """Return all due times behind one instant and up to another."""
    found = []
    due = next_due(schedule, after)
    while due and due <= until:
        found.append(due)
        due = next_due(schedule, due)
    return found


def times_of(records):
    return [(record.kind, record.due_at, record.until_at, record.count) for record in records]


@settings(max_examples=150, deadline=None)
@given(
    trigger=triggers,
    waited=st.one_of(
        st.integers(1, 30 * SECOND),
        st.integers(1, 1200 * SECOND),
        st.integers(1, 4 * HOUR),
        st.integers(1, 40 * HOUR),
    ),
    misfire=st.sampled_from(["run_once", "run_all", "skip"]),
    most=st.integers(1, 20),
    grace_s=st.none() | st.sampled_from([0.0, 2.0, 45.0, 3000.0]),
    jitter_s=st.sampled_from([0.0, 0.0, 0.4, 30.0]),
    max_runs=st.sampled_from([0, 0, 1, 3]),
    end_in=st.sampled_from([0, 0, 10 * SECOND, HOUR]),
    counted=st.sampled_from([5, 100_000]),
)
def test_each_due_time_is_covered_by_exactly_one_record(
    *, trigger, waited, misfire, most, grace_s, jitter_s, max_runs, end_in, counted
):
    stored = waiting(
        trigger, misfire=misfire, most=most, grace_s=grace_s, jitter_s=jitter_s, max_runs=max_runs,
        end_at=end_in and START + end_in,
    )  # fmt: skip
    schedule, state = stored.schedule, stored.state
    assume(state.next_at)
    now = state.fire_at + waited
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobsched.due_times.COUNTED", counted)
        firing = fire(stored, now, new_id)
    assert not firing.next_at or firing.fire_at > now
    until = firing.next_at - 1 if firing.next_at else now
    rest = due_times(schedule, state.next_at - 1, until)
    for record in firing.records:
        part, rest = rest[: (place := rest.index(record.until_at) + 1)], rest[place:]
        assert part[0] == record.due_at
        assert record.count == len(part) or (record.count < len(part) and not record.is_counted)
    assert rest == []
    kinds = Counter(record.kind for record in firing.records)
    ran = max_runs or 1 << 60
    assert kinds[FiringKind.FIRED] <= (min(most, ran) if misfire == "run_all" else 1)
    assert [job.id for job in firing.jobs] == [record.job for record in firing.records if record.job]
    if misfire == "run_all" and grace_s is None and most < counted:
        fired = [record.due_at for record in firing.records if record.job]
        assert fired == due_times(schedule, state.next_at - 1, until)[-min(most, ran) :]


@pytest.mark.parametrize("trigger", [Every(1, anchor=from_micros(START)), EVERY_SECOND])
def test_a_day_down_runs_the_last_due_times_and_records_all(trigger):
    stored = waiting(trigger, misfire="run_all", most=3)
    now = START + DAY
    records = fire(stored, now, new_id).records
    fired = [record.due_at for record in records if record.kind is FiringKind.FIRED]
    assert fired == [now - 2 * SECOND, now - SECOND, now]
    skipped = records[0]
    assert (skipped.due_at, skipped.until_at) == (stored.state.next_at, now - 3 * SECOND)


def test_the_missed_steps_of_an_interval_are_always_counted():
    [record] = fire(waiting(Every(1, anchor=from_micros(START))), START + 30 * DAY, new_id).records
    assert (record.count, record.is_counted) == (30 * 86_400, True)
    assert record.until_at == START + 30 * DAY


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_the_missed_times_of_a_cron_are_counted_without_going_through_them(zone):
    summer = START + 30 * DAY
    stored = waiting(Cron("* * * * * *", seconds=True, timezone=zone), at=summer)
    [record] = fire(stored, summer + 7 * DAY, new_id).records
    assert (record.count, record.is_counted) == (7 * 86_400, True)


def test_what_is_missed_is_recorded_up_to_the_last_due_time_however_long_ago_that_was():
    january = Cron("* * * * 1 *", seconds=True)
    begin = to_micros(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    [record] = fire(
        waiting(january, at=begin), to_micros(dt.datetime(2026, 12, 1, tzinfo=dt.UTC)), new_id
    ).records
    assert from_micros(record.until_at) == dt.datetime(2026, 1, 31, 23, 59, 59, tzinfo=dt.UTC)


@pytest.mark.parametrize("misfire", ["run_once", "run_all", "skip"])
@pytest.mark.parametrize("runs", [5, 9])
def test_a_schedule_that_has_had_its_runs_fires_no_more_when_it_is_updated(misfire, runs):
    stored = waiting(Every(1, anchor=from_micros(START)), misfire=misfire, max_runs=5, state={"runs": runs})
    firing = fire(stored, START + SECOND, new_id)
    assert not firing.jobs
    assert firing.next_at == 0


@pytest.mark.parametrize("trigger", [Every(1, anchor=from_micros(START)), EVERY_SECOND])
def test_jitter_longer_than_the_interval_costs_no_run(trigger):
    stored = waiting(trigger, jitter_s=30.0)
    for _ in range(50):
        schedule, state = stored.schedule, stored.state
        assert state.next_at <= state.fire_at < state.next_at + SECOND
        firing = fire(stored, state.fire_at, new_id)
        assert times_of(firing.records) == [(FiringKind.FIRED, state.next_at, state.next_at, 1)]
        stored = StoredSchedule(
            schedule, ScheduleState(next_at=firing.next_at, fire_at=firing.fire_at, last_at=state.next_at)
        )


def test_due_times_that_are_on_record_are_not_fired_again():
    """As after the repetition of a change: it brings the due time back that it had at first."""
    stored = waiting(EVERY_SECOND, state={"last_at": START + 3 * SECOND})
    assert stored.state.next_at == START + SECOND
    firing = fire(stored, START + 5 * SECOND, new_id)
    assert times_of(firing.records) == [(FiringKind.FIRED, START + 4 * SECOND, START + 5 * SECOND, 2)]
    firing = fire(stored, START + 2 * SECOND, new_id)
    assert (firing.records, firing.next_at) == ([], START + 4 * SECOND)


# A clock that was set back.


def test_an_interval_goes_on_within_one_step_of_a_clock_that_was_set_back():
    stored = waiting(Every(60, anchor=from_micros(START)), at=START + DAY, state={"last_at": START + DAY})
    firing = set_back(stored, START + 5)
    assert firing.next_at == START + 5 + 60 * SECOND
    assert [record.kind for record in firing.records] == [FiringKind.NOTED]


@pytest.mark.parametrize("trigger", [Every(60, anchor=from_micros(START + DAY)), Cron("* * * * *")])
def test_a_schedule_added_before_the_clock_was_set_back_goes_on_soon(trigger):
    stored = waiting(trigger, at=START + DAY)
    firing = set_back(stored, START)
    assert START < firing.next_at <= START + 60 * SECOND


def test_a_first_time_that_is_meant_to_be_far_away_stays():
    stored = waiting(Every(60, anchor=from_micros(START + 30 * DAY)), at=START + DAY)
    assert set_back(stored, START) is None
    stored = waiting(Every(60, anchor=from_micros(START)), at=START + DAY, start_at=START + 30 * DAY)
    assert set_back(stored, START) is None


def test_a_cron_waits_for_a_due_time_that_is_not_on_record():
    stored = waiting(Cron("* * * * *"), at=START + DAY, state={"last_at": START + DAY})
    firing = set_back(stored, START)
    assert firing.next_at == stored.state.next_at
    assert [record.kind for record in firing.records] == [FiringKind.NOTED]


def test_that_the_clock_was_set_back_is_noted_once():
    stored = waiting(Cron("* * * * *"), at=START + DAY, state={"last_at": START + DAY, "noted": START + DAY})
    assert set_back(stored, START) is None


@given(trigger=triggers)
def test_a_trigger_is_what_it_was(trigger):
    assert from_data(to_data(trigger)) == trigger
