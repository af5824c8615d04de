"""What every store does for an operator and for retention: retry, delete, prune."""

import pytest
from turns import (
    NOW,
    SETTLED,
    add,
    ask,
    cancel,
    claim,
    counts,
    finish,
    give_back,
    ids,
    listed,
    outcome,
    put_into,
    status,
)

from jobsched.job import ParkedFor, State, Terms
from jobsched.job_id import new_id
from jobsched.store.base import Request, Slot, Turn
from jobsched.store.retention import PRUNABLE, Prune

# Retrying by an operator's word


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.PARKED, State.QUARANTINED])
def test_a_retried_job_has_all_its_tries_again_and_nothing_of_its_last_run(store, new_job, state):
    job = put_into(store, new_job, state, terms=Terms(expires_at=NOW + 9))
    other = new_job(str(state))
    add(store, other)
    assert ask(store, retry=[job.id], now=NOW + 99).states == [State.PENDING]
    now, stored = status(store, job), store.get(job.id)
    assert (now.state, now.attempt, now.crashes, now.interruptions, now.ended_at) == (
        State.PENDING,
        0,
        0,
        0,
        0,
    )
    assert (stored.result, stored.error, now.terms) == (None, None, Terms())
    assert now.parked_for is ParkedFor.NOTHING
    assert listed(store, state) == []
    held = claim(store, limit=9, category=str(state), now=NOW + 99)
    assert [(one.job, one.attempt) for one in held] == [(other.id, 1), (job.id, 1)]


def test_a_job_retried_before_its_time_keeps_its_count_of_attempts(store, new_job):
    job = new_job()
    add(store, job)
    finish(store, outcome(claim(store)[0], State.SCHEDULED, due_at=NOW + 99))
    assert ask(store, retry=[job.id]).states == [State.PENDING]
    assert (store.get(job.id).error, status(store, job).attempt) == (None, 1)
    result = store.apply(Turn(now=NOW, slots=[Slot("mail", 1, 1)]))
    assert ([held.attempt for held in result.claims], result.next_due) == ([2], None)


def test_what_waits_runs_or_completed_is_not_retried(store, new_job):
    done = put_into(store, new_job, State.COMPLETED)
    running, waiting = new_job(), new_job()
    add(store, running, waiting)
    claim(store)
    before = [store.get(job.id) for job in (done, running, waiting)]
    states = ask(store, retry=[done.id, running.id, new_id(), waiting.id]).states
    assert states == [State.COMPLETED, State.IN_PROGRESS, None, State.PENDING]
    assert [store.get(job.id) for job in (done, running, waiting)] == before


def test_a_retried_job_forgets_that_it_was_to_be_cancelled(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    cancel(store, job.id)
    give_back(store, held)
    ask(store, retry=[job.id])
    [held] = claim(store)
    finish(store, outcome(held, State.PENDING))
    assert status(store, job).state is State.PENDING


# Deleting


@pytest.mark.parametrize("state", SETTLED)
def test_a_settled_job_is_deleted_with_all_that_is_known_of_it(store, new_job, state):
    job = put_into(store, new_job, state)
    assert ask(store, delete=[job.id]).states == [None]
    assert (store.get(job.id), counts(store, str(state)), listed(store)) == (None, {}, [])
    add(store, job)
    assert (status(store, job).state, store.get(job.id).attempts) == (State.PENDING, [])


@pytest.mark.parametrize("due_at", [0, NOW + 9])
def test_a_job_that_waits_is_deleted(store, new_job, due_at):
    job = new_job(due_at=due_at)
    add(store, job)
    assert ask(store, delete=[job.id]).states == [None]
    result = store.apply(Turn(now=NOW + 9, release=9, slots=[Slot("mail", 1, 9)]))
    assert (result.released, result.claims, result.next_due) == (0, [], None)


def test_a_running_job_is_not_deleted(store, new_job):
    job, waiting = new_job(), new_job()
    add(store, job, waiting)
    [held] = claim(store)
    assert ask(store, delete=[job.id, new_id(), waiting.id]).states == [State.IN_PROGRESS, None, None]
    assert finish(store, outcome(held)).lost == []


def test_the_answers_are_those_to_cancel_then_retry_then_delete(store, new_job):
    waiting, failed, running = new_job(), put_into(store, new_job, State.FAILED), new_job(priority=1)
    add(store, waiting, running)
    claim(store)
    reply = ask(store, delete=[running.id], retry=[failed.id, waiting.id], cancel=[waiting.id])
    assert reply.states == [State.CANCELLED, State.PENDING, State.PENDING, State.IN_PROGRESS]


# Pruning


def prune(store, state, **order):
    order = {"before": 0, "keep": None, "settled": 0, "limit": 99, **order}
    return store.apply(Turn(now=NOW + 99, prune=[Prune(state=state, **order)])).pruned


@pytest.mark.parametrize("state", sorted(PRUNABLE))
def test_what_ended_before_a_time_is_pruned(store, new_job, state):
    jobs = [put_into(store, new_job, state, now=NOW + n) for n in (3, 1, 2)]
    assert prune(store, state, before=NOW + 3) == 2
    assert listed(store) == [jobs[0].id]
    assert counts(store, str(state)) == {state: 1}


def test_of_too_many_the_oldest_are_pruned_but_not_before_they_are_settled(store, new_job):
    jobs = [put_into(store, new_job, State.COMPLETED, now=NOW + n) for n in range(5)]
    assert prune(store, State.COMPLETED, keep=2) == 0
    assert prune(store, State.COMPLETED, keep=2, settled=NOW + 2) == 2
    assert prune(store, State.COMPLETED, keep=2, settled=NOW + 99) == 1
    assert prune(store, State.COMPLETED, keep=2, settled=NOW + 99) == 0
    assert listed(store, State.COMPLETED) == ids([jobs[4], jobs[3]])


def test_no_more_are_pruned_than_the_limit_and_the_oldest_first(store, new_job):
    jobs = [put_into(store, new_job, State.FAILED, now=NOW + n) for n in (2, 0, 3, 1)]
    assert prune(store, State.FAILED, before=NOW + 99, limit=3) == 3
    assert listed(store) == [jobs[2].id]
    assert prune(store, State.FAILED, before=NOW + 99, limit=0) == 0


def test_only_the_state_that_is_named_is_pruned(store, new_job):
    jobs = {state: put_into(store, new_job, state) for state in SETTLED}
    add(store, new_job(), new_job(due_at=NOW + 99))
    orders = [
        Prune(state=state, before=NOW + 1, keep=0, settled=NOW + 1, limit=9) for state in sorted(PRUNABLE)
    ]
    assert store.apply(Turn(now=NOW + 99, prune=orders[:1])).pruned == 1
    assert store.get(jobs[State.COMPLETED].id) is None
    assert store.apply(Turn(now=NOW + 99, prune=orders)).pruned == 2
    assert {status(store, job).state for job in jobs.values() if store.get(job.id)} == {
        State.PARKED,
        State.QUARANTINED,
    }
    assert counts(store) == {State.PENDING: 1, State.SCHEDULED: 1}


def test_a_job_that_ends_in_a_turn_may_be_pruned_in_it_and_added_again(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    order = Prune(state=State.COMPLETED, before=NOW + 9, keep=None, settled=0, limit=1)
    result = store.apply(
        Turn(now=NOW + 9, outcomes=[outcome(held)], prune=[order], requests=[Request(jobs=[job])])
    )
    assert (result.pruned, status(store, job).state, status(store, job).claim) == (1, State.PENDING, 0)
