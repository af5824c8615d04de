"""What every store does with the dispatches that an outcome carries."""

import pytest
from turns import NOW, add, claim, finish, outcome, status

from jobsched.job import State, Terms
from jobsched.schedule import PutSchedule, Schedule
from jobsched.store.base import Outcome, Request

NIGHTLY = Schedule(name="nightly", task="t:t", category="mail", trigger=["once", NOW])
PUT = PutSchedule(NIGHTLY, NOW + 9, NOW + 9, 0)


@pytest.fixture
def held(store, new_job):
    """The claim of a running job."""
    add(store, new_job())
    [held] = claim(store)
    return held


def carrying(held, **request):
    return outcome(held, carried=Request(**request))


def test_what_an_outcome_carries_is_added_with_it(store, held, new_job):
    job = new_job()
    result = finish(store, carrying(held, jobs=[job], schedules=[PUT]))
    assert store.get(held.job).status.state is State.COMPLETED
    assert status(store, job).state is State.PENDING
    assert (store.schedule("nightly").state.next_at, result.next_fire) == (NOW + 9, NOW + 9)


def test_a_late_outcome_adds_nothing(store, held, new_job):
    job = new_job()
    finish(store, outcome(held))
    late = Outcome(held.job, held.number + 7, State.COMPLETED, NOW, NOW, carried=Request(jobs=[job]))
    assert finish(store, late).lost == [held.number + 7]
    assert store.get(job.id) is None


def test_a_repeated_outcome_adds_nothing_twice(store, held, new_job):
    done = carrying(held, jobs=[new_job()], schedules=[PUT])
    finish(store, done)
    before = store.stats()
    assert finish(store, done).lost == [held.number]
    assert store.stats() == before


KEY = Terms(unique=b"k" * 16)
REFUSED = {
    "a full queue": lambda _new: {"max_pending": {"mail": 0}},
    "a key taken": lambda new: {"jobs": [new(terms=KEY), new(terms=KEY, on_conflict="refuse")]},
    "a schedule changed": lambda _new: {"schedules": [PutSchedule(NIGHTLY, NOW + 9, NOW + 9, 3)]},
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused_fails_the_job_and_none_of_it_is_there(store, held, new_job, why):
    asked = {"jobs": [new_job(terms=KEY)], **REFUSED[why](new_job)}
    finish(store, carrying(held, **asked))
    ended = store.get(held.job)
    assert ended.status.state is State.FAILED
    assert ended.error.cause.startswith("what it dispatched with its completion was refused: ")
    assert ended.result is None
    assert [store.get(job.id) for job in asked["jobs"]] == [None] * len(asked["jobs"])
    assert store.schedule("nightly") is None
