"""What every store does with schedules: changes, firings, and the repetition of either."""

import msgspec
import pytest
from turns import NOW, ask, claim

from jobsched.job import State, Terms
from jobsched.schedule import (
    FiringKind,
    FiringRecord,
    PutSchedule,
    RemoveSchedule,
    RunSchedule,
    Schedule,
    SwitchSchedule,
)
from jobsched.store.base import Accepted, Firing, Refused, Request, Turn

SECOND = 1_000_000
NIGHTLY = Schedule(name="nightly", task="tasks:mark", category="mail", trigger=["every", SECOND, NOW])


def put(store, schedule=NIGHTLY, *, due=NOW + SECOND, now=NOW, **options):
    return ask(store, schedules=[PutSchedule(schedule, due, due, **options)], now=now)


def firing(store, job, *, name="nightly", now=None, records=None, **changes):
    """Return the firing of what is due, with a job for it."""
    state = store.schedule(name).state
    due = state.next_at
    record = FiringRecord(due, due, 1, now or due, FiringKind.FIRED, job.id)
    made = Firing(
        name=name,
        revision=state.revision,
        due_at=due,
        records=[record] if records is None else records,
        jobs=[job],
        next_at=due + SECOND,
        fire_at=due + SECOND,
    )
    return msgspec.structs.replace(made, **changes)


def fire(store, *firings, now=NOW + SECOND):
    return store.apply(Turn(now=now, firings=firings))


def seen(store, name="nightly"):
    """Return all that can be seen of a schedule, and of the jobs."""
    return store.schedule(name), store.firings(name), store.stats()


CHANGES = {
    "added": [PutSchedule(NIGHTLY, NOW + 9, NOW + 9, 0)],
    "put": [PutSchedule(NIGHTLY, NOW + 9, NOW + 9)],
    "put inactive": [PutSchedule(NIGHTLY, 0, 0, None, False)],
    "put and removed": [PutSchedule(NIGHTLY, NOW + 9, NOW + 9), RemoveSchedule("nightly")],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_repetition_of_a_request_changes_nothing(store, changes):
    assert isinstance(ask(store, schedules=changes), Accepted)
    before = seen(store)
    assert isinstance(ask(store, schedules=changes, now=NOW + 5), Accepted)
    assert seen(store) == before


def test_a_replacement_repeated_after_it_has_fired_brings_no_old_due_time_back(store, new_job):
    put(store)
    fire(store, firing(store, new_job()))
    before = seen(store)
    put(store, now=NOW + 2 * SECOND)
    assert seen(store) == before


def test_a_firing_is_not_repeated(store, new_job):
    put(store)
    due = firing(store, new_job())
    fire(store, due)
    before = seen(store)
    assert fire(store, due).fired == []
    assert fire(store, msgspec.structs.replace(due, due_at=NOW + 2 * SECOND, revision=7)).fired == []
    assert seen(store) == before


@pytest.mark.parametrize(
    "change",
    [
        PutSchedule(NIGHTLY, NOW, NOW, 0),
        PutSchedule(msgspec.structs.replace(NIGHTLY, most=9), NOW, NOW, 3),
        SwitchSchedule("nightly", False, 0, 0, 3),
    ],
)
def test_a_change_that_somebody_has_overtaken_is_refused_whole(store, new_job, change):
    put(store)
    put(store, msgspec.structs.replace(NIGHTLY, most=5), expects=1)
    before = seen(store)
    assert isinstance(ask(store, jobs=[new_job()], schedules=[change]), Refused)
    assert seen(store) == before


def run(job):
    return Request(jobs=[job], schedules=[RunSchedule("nightly", job.id)], takes_unknown=True)


def test_a_firing_by_hand_is_on_record_once(store, new_job):
    put(store)
    job = new_job()
    for now in (NOW, NOW + 1):
        store.apply(Turn(now=now, requests=[run(job)]))
    [record] = store.firings("nightly")
    assert (record.kind, record.job) == (FiringKind.BY_HAND, job.id)
    assert store.schedule("nightly").state.last_job == job.id


@pytest.mark.parametrize("times", [1, 2])
def test_a_firing_by_hand_whose_key_is_taken_is_none(store, new_job, times):
    put(store)
    unique = Terms(unique=b"u" * 16)
    holder = new_job(terms=unique)
    ask(store, jobs=[holder])
    job = new_job(terms=unique)
    for _ in range(times):
        [reply] = store.apply(Turn(now=NOW, requests=[run(job)])).replies
        assert reply.kept == {0: holder.id}
    assert store.firings("nightly") == []
    assert store.schedule("nightly").state.last_job == b""


def test_a_firing_by_hand_at_a_due_time_does_not_take_its_place(store, new_job):
    put(store)
    store.apply(Turn(now=NOW + SECOND, requests=[run(new_job())]))
    fired = fire(store, firing(store, new_job()))
    assert [record.kind for _, record in fired.fired] == [FiringKind.FIRED]


def test_a_firing_is_skipped_while_the_job_before_has_not_ended(store, new_job):
    put(store, msgspec.structs.replace(NIGHTLY, overlap="skip"))
    first, second = new_job(), new_job()
    fire(store, firing(store, first))
    fire(store, firing(store, second), now=NOW + 2 * SECOND)
    assert [(r.kind, r.job) for r in store.firings("nightly")] == [
        (FiringKind.SKIPPED, b""),
        (FiringKind.FIRED, first.id),
    ]
    assert store.get(second.id) is None


def test_a_firing_whose_key_is_taken_is_skipped(store, new_job):
    put(store)
    unique = Terms(unique=b"u" * 16)
    ask(store, jobs=[new_job(terms=unique)])
    fire(store, firing(store, new_job(terms=unique)))
    [record] = store.firings("nightly")
    assert (record.kind, store.schedule("nightly").state.runs) == (FiringKind.SKIPPED, 0)


def test_a_schedule_ends_with_its_last_run_and_is_forgotten_later(store, new_job):
    put(store, msgspec.structs.replace(NIGHTLY, max_runs=1))
    job = new_job()
    result = fire(store, firing(store, job))
    assert result.next_fire is None
    assert store.schedule("nightly").state.ended_at == NOW + SECOND
    store.apply(Turn(now=NOW + 2 * SECOND, forget_ended=NOW + SECOND))
    assert store.schedule("nightly") is not None
    store.apply(Turn(now=NOW + 2 * SECOND, forget_ended=NOW + SECOND + 1))
    assert (store.schedule("nightly"), store.firings("nightly")) == (None, [])
    assert store.get(job.id).status.state is State.PENDING


def test_an_ended_schedule_that_a_file_declares_is_kept_until_it_is_not_any_more(store, new_job):
    """Forgotten, it would begin anew at the next start."""
    declared = msgspec.structs.replace(NIGHTLY, max_runs=1, source="categories.toml")
    put(store, declared)
    fire(store, firing(store, new_job()))
    late = NOW + 100 * SECOND
    store.apply(Turn(now=late, forget_ended=late))
    assert store.schedule("nightly").state.ended_at == NOW + SECOND
    ask(store, schedules=[PutSchedule(msgspec.structs.replace(declared, source=""), None, 0)], now=late)
    store.apply(Turn(now=late, forget_ended=late))
    assert store.schedule("nightly") is None


NAMES = ["nightly", "nightly 2", "nightly\u00e9", "nightlye\u0301", "n" * 200, "ü" * 100, "0", "~"]


def test_names_are_told_apart_by_their_bytes(store, new_job):
    """Also those that look alike, or begin alike."""
    for name in NAMES:
        put(store, msgspec.structs.replace(NIGHTLY, name=name))
    assert [one.schedule.name for one in store.schedules()] == sorted(NAMES, key=str.encode)
    jobs = {name: new_job() for name in NAMES}
    fire(store, *(firing(store, jobs[name], name=name) for name in NAMES))
    for name in NAMES:
        assert [record.job for record in store.firings(name)] == [jobs[name].id]
    ask(store, schedules=[RemoveSchedule(NAMES[2])])
    left = [name for name in NAMES if store.firings(name)]
    assert left == [name for name in NAMES if name != NAMES[2]]


def test_jobs_and_schedules_of_a_request_are_added_together_or_not_at_all(store, new_job):
    put(store)
    many = [PutSchedule(msgspec.structs.replace(NIGHTLY, name=f"s{n}"), NOW, NOW, 0) for n in range(3)]
    taken = PutSchedule(msgspec.structs.replace(NIGHTLY, most=7), NOW, NOW, 0)
    assert ask(store, jobs=[new_job()], schedules=[*many, taken]).kind == "ScheduleExists"
    assert [s.schedule.name for s in store.schedules()] == ["nightly"]
    assert claim(store) == []
    assert isinstance(ask(store, jobs=[new_job()], schedules=many), Accepted)
    assert len(store.schedules()) == 4
    assert len(claim(store)) == 1


def test_a_change_of_what_is_not_there_is_refused(store):
    for change in (
        SwitchSchedule("no", False, 0, 0, 0),
        SwitchSchedule("no", True, 5, 5),
        RunSchedule("no", b"x" * 16),
    ):
        assert ask(store, schedules=[change]).kind == "ScheduleNotFound"
    assert put(store, expects=3).kind == "ScheduleNotFound"
    assert isinstance(ask(store, schedules=[RemoveSchedule("no")]), Accepted)
