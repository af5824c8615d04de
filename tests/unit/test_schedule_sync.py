from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from jobsched.clock import MICROSECONDS, to_micros
from jobsched.config import parse_config
from jobsched.schedule import PutSchedule, RemoveSchedule, ScheduleState, StoredSchedule, put
from jobsched.schedule_sync import changes, differences
from jobsched.trigger import Every
from jobsched.trigger_data import from_data

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
NOW = to_micros(START)
LATER = NOW + 3_000 * MICROSECONDS
FILE = "categories.toml"
NIGHTLY = """
[schedules.nightly]
task = "shop:rebuild"
category = "mail"
cron = "30 2 * * *"
"""
OFTEN = """
[schedules.often]
task = "shop:look"
category = "mail"
every = "5m"
"""


def declared(text):
    return parse_config(f'tasks = ["shop"]\n[categories.mail]\n{text}', Path("/srv")).schedules


def found(text, stored=(), now=NOW):
    return {one.name: one for one in differences(declared(text), stored, FILE, now)}


def applied(text, stored=(), now=NOW):
    """What the store has after the changes."""
    there = {one.schedule.name: one for one in stored}
    for change in changes(differences(declared(text), there.values(), FILE, now)):
        if isinstance(change, RemoveSchedule):
            del there[change.name]
        else:
            assert isinstance(change, PutSchedule)
            before = there.get(change.schedule.name)
            assert change.expects == (before.state.revision if before else 0)
            state = put(change, before.state if before else None, now)
            there[change.schedule.name] = StoredSchedule(change.schedule, state)
    return list(there.values())


def only(stored):
    [one] = stored
    return one


def with_state(stored, **fields):
    return StoredSchedule(stored.schedule, msgspec.structs.replace(stored.state, **fields))


def test_a_new_schedule_is_added_with_its_next_due_time():
    one = found(NIGHTLY)["nightly"]
    assert (one.kind, one.note) == ("added", "next 2026-11-02T02:30:00+00:00")
    stored = only(applied(NIGHTLY))
    assert stored.state.is_active
    assert stored.state.next_at == to_micros(datetime(2026, 11, 2, 2, 30, tzinfo=UTC))
    assert stored.schedule.source == FILE


def test_what_is_declared_as_it_is_stored_changes_nothing():
    stored = applied(NIGHTLY + OFTEN)
    again = differences(declared(NIGHTLY + OFTEN), stored, FILE, LATER)
    assert [one.kind for one in again] == ["unchanged", "unchanged"]
    assert changes(again) == []


def test_an_every_keeps_its_anchor_while_its_interval_is_the_same():
    stored = applied(OFTEN)
    anchor = from_data(only(stored).schedule.trigger).anchor
    assert anchor == START
    with_args = only(applied(OFTEN + "args = [1]", stored, LATER))
    assert from_data(with_args.schedule.trigger) == Every("5m", anchor=START)
    assert with_args.state.next_at == only(stored).state.next_at
    slower = only(applied(OFTEN.replace("5m", "10m"), stored, LATER))
    assert from_data(slower.schedule.trigger) == Every("10m", anchor=START + timedelta(seconds=3000))


def test_a_change_is_told_field_by_field():
    stored = applied(NIGHTLY)
    text = (
        NIGHTLY.replace("30 2", "0 3")
        + 'timezone = "Europe/Berlin"\njitter = "5m"\nend = 2030-01-01T00:00:00Z\n'
    )
    one = found(text + "kwargs = {password = 'x', n = 1}", stored)["nightly"]
    assert (one.kind, one.steps) == (
        "changed",
        [
            "trigger: 30 2 * * * -> 0 3 * * * Europe/Berlin",
            "kwargs: {} -> {'password': '***', 'n': 1}",
            "end: none -> 2030-01-01T00:00:00+00:00",
            "jitter: 0s -> 5m",
        ],
    )


def test_a_change_of_the_jobs_alone_keeps_the_due_time():
    stored = [with_state(only(applied(NIGHTLY)), next_at=NOW - 5, fire_at=NOW - 5)]  # the node was down
    assert only(applied(NIGHTLY + "args = [1]", stored)).state.next_at == NOW - 5
    moved = only(applied(NIGHTLY.replace("30 2", "0 3"), stored))
    assert moved.state.next_at == to_micros(datetime(2026, 11, 2, 3, tzinfo=UTC))


def test_what_is_declared_no_more_is_removed():
    stored = applied(NIGHTLY + OFTEN)
    assert found(OFTEN, stored)["nightly"].kind == "removed"
    assert only(applied(OFTEN, stored)).schedule.name == "often"


def test_schedules_of_others_stay():
    of_program = StoredSchedule(
        msgspec.structs.replace(declared(OFTEN)["often"].schedule, source=""), ScheduleState(revision=4)
    )
    of_file = StoredSchedule(
        msgspec.structs.replace(declared(NIGHTLY)["nightly"].schedule, source="x.toml"),
        ScheduleState(revision=1),
    )
    assert found("", [of_program, of_file]) == {}


def test_a_schedule_of_a_program_is_taken_over_with_a_notice():
    stored = only(applied(NIGHTLY))
    program = StoredSchedule(
        msgspec.structs.replace(stored.schedule, source="", by_name=False), with_state(stored, runs=3).state
    )
    one = found(NIGHTLY, [program])["nightly"]
    assert (one.title, one.steps) == ("taken over (from a program)", ["terms: of the program -> of the task"])
    after = only(applied(NIGHTLY, [program]))
    assert (after.schedule.source, after.state.runs) == (FILE, 3)
    assert after.state.next_at == stored.state.next_at


def test_what_was_switched_at_run_time_stays_so_unless_the_file_says():
    stored = [with_state(only(applied(NIGHTLY)), is_active=False, next_at=0, fire_at=0)]
    assert found(NIGHTLY, stored)["nightly"].title == "unchanged (not active)"
    moved = only(applied(NIGHTLY.replace("30 2", "0 3"), stored))
    assert (moved.state.is_active, moved.state.next_at, moved.state.ended_at) == (False, 0, 0)
    on = only(applied(NIGHTLY + "active = true", stored))
    assert on.state.is_active
    assert on.state.next_at > NOW
    off = only(applied(NIGHTLY + "active = false", [on]))
    assert (off.state.is_active, off.state.next_at, off.state.ended_at) == (False, 0, 0)
    assert found(NIGHTLY + "active = false", [off])["nightly"].change is None


def test_a_new_schedule_may_begin_inactive():
    stored = only(applied(NIGHTLY + "active = false"))
    assert (stored.state.is_active, stored.state.next_at, stored.state.ended_at) == (False, 0, 0)


def test_a_time_in_the_past_is_stored_as_ended():
    text = '[schedules.past]\ntask = "a:b"\ncategory = "mail"\nat = 2020-01-01T00:00:00Z'
    assert found(text)["past"].title == "added (has no time to come)"
    stored = only(applied(text))
    assert (stored.state.next_at, stored.state.fire_at, stored.state.ended_at) == (0, 0, NOW)
    assert found(text, [stored])["past"].title == "unchanged (has ended)"


def test_one_that_has_run_as_often_as_it_may_begins_anew_only_with_more_runs():
    text = OFTEN + "max_runs = {}"
    stored = [with_state(only(applied(text.format(3))), runs=3, next_at=0, fire_at=0, ended_at=NOW)]
    assert found(text.format(3), stored)["often"].change is None
    other = text.replace("5m", "6m")
    assert only(applied(other.format(3), stored, LATER)).state.ended_at == LATER
    more = only(applied(other.format(4), stored, LATER))
    assert (more.state.ended_at, more.state.next_at > LATER) == (0, True)
