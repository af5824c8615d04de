"""What every store does with many jobs in one request."""

import pytest
from turns import NOW, add, claim, counts, ids, status

from jobsched.job import State
from jobsched.store.base import Accepted, Request, Turn

MANY = 300
MIXTURES = {
    "alike": lambda _: {},
    "kinds": lambda place: {"category": ("mail", "reports")[place % 2], "priority": place % 3 - 1},
    "some later": lambda place: {"due_at": NOW + 1 if place % 50 == 7 else 0},
    "some large": lambda place: {"argument": "x" * 5000 if place % 50 == 7 else 0},
}


@pytest.fixture(params=list(MIXTURES))
def jobs(request, new_job):
    return [new_job(**MIXTURES[request.param](place)) for place in range(MANY)]


def test_many_jobs_have_their_places_in_the_order_of_their_dispatch(store, jobs):
    add(store, *jobs)
    queued = [job for job in jobs if not job.due_at]
    for category in ("mail", "reports"):
        own = [job for job in queued if job.category == category]
        own.sort(key=lambda job: -job.priority)
        assert [held.job for held in claim(store, MANY, category=category)] == ids(own)
    assert [status(store, job).sequence for job in queued] == list(range(1, len(queued) + 1))
    assert [store.get(job.id).record for job in jobs] == [job.record for job in jobs]


def test_a_repeated_request_of_many_adds_only_what_is_new(store, jobs):
    add(store, *jobs[: MANY // 2])
    twice = Request(jobs=[*jobs, *jobs[:20]])
    assert store.apply(Turn(now=NOW, requests=[twice, twice])).replies == [Accepted(), Accepted()]
    places = [status(store, job).sequence for job in jobs if not job.due_at]
    assert places == list(range(1, len(places) + 1))
    found = [status(store, job).state for job in jobs]
    assert [sum(row.counts) for row in store.stats().values()] == [
        sum(job.category == name for job in jobs) for name in store.stats()
    ]
    assert set(found) <= {State.PENDING, State.SCHEDULED}


def test_places_go_on_behind_many(store, new_job):
    for place in (1, MANY + 2):
        single, many = new_job(), [new_job() for _ in range(MANY)]
        add(store, single)
        add(store, *many)
        assert status(store, single).sequence == place
        assert status(store, many[-1]).sequence == place + MANY
    assert counts(store) == {State.PENDING: 2 * MANY + 2}
