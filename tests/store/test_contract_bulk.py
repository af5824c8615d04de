"""What every store does with many jobs in one request."""

import pytest
from turns import NOW, add, claim, counts, ids, status

from jobsched.job import State, Terms
from jobsched.store.alike import AlikeJobs
from jobsched.store.base import Accepted, Request, Turn
from jobsched.store.memory import MemoryStore

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


@pytest.mark.parametrize("count", [2, MANY])
@pytest.mark.parametrize(
    "what",
    [{}, {"priority": 3}, {"due_at": NOW + 1}, {"argument": "x" * 5000}, {"terms": Terms(at_most_once=True)}],
)
def test_jobs_that_are_alike_are_added_as_if_each_was_named_by_itself(store, new_job, what, count):
    jobs = [new_job(**what) for _ in range(count)]
    alike = Request(jobs=AlikeJobs(jobs[0], ids(jobs), [job.record for job in jobs]))
    repeated = Request(jobs=alike.jobs[1:])
    assert store.apply(Turn(now=NOW, requests=[alike, repeated])).replies == [Accepted(), Accepted()]
    model = MemoryStore()
    add(model, *jobs)
    assert [store.get(job.id) for job in jobs] == [model.get(job.id) for job in jobs]
    assert store.stats() == model.stats()
    assert claim(store, count) == claim(model, count)


def test_too_many_alike_jobs_are_refused_whole(store, new_job):
    jobs = [new_job() for _ in range(MANY)]
    alike = AlikeJobs(jobs[0], ids(jobs), [job.record for job in jobs])
    (reply,) = store.apply(
        Turn(now=NOW, requests=[Request(jobs=alike, max_pending={"mail": MANY - 1})])
    ).replies
    assert reply.kind == "QueueFull"
    assert store.get(jobs[0].id) is None
