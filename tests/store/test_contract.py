"""What every store does, one behaviour a test."""

import threading
from itertools import pairwise

import pytest
from turns import (
    BROKEN,
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
    pages,
    put_into,
    status,
)

from jobsched.codec import decode_record
from jobsched.job import KEPT_ATTEMPTS, Attempt, JobError, ParkedFor, State
from jobsched.job_id import format_id, new_id
from jobsched.report import Decision
from jobsched.store.base import KEPT_DECISIONS, Accepted, GiveBack, Outcome, Query, Request, Slot, Turn
from jobsched.store.reasons import may_still_run
from jobsched.transitions import CRASH_LIMIT, INTERRUPTION_LIMIT

INTERRUPTED_TOO_OFTEN = JobError("interrupted 20 times by stops of its node")
CUT_OFF = JobError("cancelled: while it ran, by the end of its node or worker")


# Adding


def test_a_job_that_is_due_at_once_is_pending(store, new_job):
    job = new_job()
    result = add(store, job)
    assert result.replies == [Accepted([])]
    assert (result.claims, result.lost, result.released, result.next_due) == ([], [], 0, None)
    assert result.stats["mail"][State.PENDING] == 1
    stored = store.get(job.id)
    assert (stored.status.state, stored.status.sequence, stored.status.attempt) == (State.PENDING, 1, 0)
    assert decode_record(stored.record).id == job.id
    assert (stored.result, stored.error) == (None, None)


def test_a_job_that_is_not_due_is_scheduled_and_has_no_place_yet(store, new_job):
    later, now_due = new_job(due_at=NOW + 1), new_job(due_at=NOW)
    result = add(store, later, now_due)
    assert result.next_due == NOW + 1
    assert (status(store, later).state, status(store, later).sequence) == (State.SCHEDULED, 0)
    assert (status(store, now_due).state, status(store, now_due).sequence) == (State.PENDING, 1)


def test_adding_a_known_id_changes_nothing_and_is_accepted(store, new_job):
    job = new_job()
    add(store, job)
    again = new_job(category="other", priority=9, job_id=job.id, argument=1)
    result = add(store, again)
    assert result.replies == [Accepted([])]
    assert result.stats.keys() == {"mail"}
    assert store.get(job.id).record == job.record
    assert counts(store) == {State.PENDING: 1}


def test_an_id_twice_in_one_turn_is_one_job(store, new_job):
    job, other = new_job(), new_job()
    result = store.apply(Turn(now=NOW, requests=[Request(jobs=[job, job]), Request(jobs=[job, other])]))
    assert result.replies == [Accepted([]), Accepted([])]
    assert counts(store) == {State.PENDING: 2}
    assert (status(store, job).sequence, status(store, other).sequence) == (1, 2)


def test_a_repeated_dispatch_does_not_revive_an_ended_job(store, new_job):
    job = new_job()
    add(store, job)
    finish(store, outcome(claim(store)[0]))
    add(store, job)
    assert status(store, job).state is State.COMPLETED
    assert counts(store) == {State.COMPLETED: 1}


def test_a_large_record_comes_back_whole(store, new_job):
    jobs = [new_job(argument="x" * size) for size in (100, 2_000, 5_000, 200_000)]
    add(store, *jobs)
    assert [store.get(job.id).record for job in jobs] == [job.record for job in jobs]
    assert [held.record for held in claim(store, limit=9)] == [job.record for job in jobs]


def test_an_unknown_id_has_no_job(store):
    assert store.get(new_id()) is None


def test_what_get_returns_is_not_changed_by_later_turns(store, new_job):
    job = new_job()
    add(store, job)
    before = store.get(job.id)
    claim(store)
    assert before.status.state is State.PENDING


# Claiming


def test_jobs_are_claimed_in_the_order_of_their_dispatch(store, new_job):
    jobs = [new_job() for _ in range(5)]
    add(store, *jobs[:3])
    add(store, *jobs[3:], now=NOW - 99)
    assert [held.job for held in claim(store, limit=9)] == ids(jobs)


def test_a_higher_priority_is_claimed_first(store, new_job):
    low, high, middle, negative = (new_job(priority=p) for p in (0, 1000, 5, -7))
    add(store, low, high, middle, negative)
    assert [held.job for held in claim(store, limit=9)] == ids([high, middle, low, negative])


def test_a_claim_carries_what_its_worker_needs(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store, worker=7, now=NOW + 1)
    assert (held.number, held.worker, held.attempt, held.job) == (1, 7, 1, job.id)
    assert held.record == job.record
    now = status(store, job)
    assert (now.state, now.claim, now.worker, now.attempt) == (State.IN_PROGRESS, 1, 7, 1)
    assert (now.started_at, now.ended_at) == (NOW + 1, 0)


def test_workers_take_a_category_in_turns(store, new_job):
    jobs = [new_job() for _ in range(6)]
    add(store, *jobs)
    slots = [Slot("mail", 1, 3), Slot("mail", 2, 1), Slot("mail", 3, 0), Slot("mail", 4, 9)]
    claims = store.apply(Turn(now=NOW, slots=slots)).claims
    assert [held.worker for held in claims] == [1, 2, 4, 1, 4, 1]
    assert [held.job for held in claims] == ids(jobs)


def test_categories_are_served_in_the_order_of_their_first_slot(store, new_job):
    add(store, *(new_job(category) for category in ("a", "b", "a", "b")))
    slots = [Slot("b", 1, 1), Slot("a", 2, 9), Slot("none", 3, 1), Slot("b", 4, 1)]
    result = store.apply(Turn(now=NOW, slots=slots))
    assert [held.worker for held in result.claims] == [1, 4, 2, 2]
    assert [held.number for held in result.claims] == [1, 2, 3, 4]
    assert "none" not in result.stats


def test_a_job_is_added_and_claimed_in_one_turn(store, new_job):
    job = new_job()
    turn = Turn(now=NOW, requests=[Request(jobs=[job])], slots=[Slot("mail", 1, 1)])
    result = store.apply(turn)
    assert [held.job for held in result.claims] == [job.id]
    assert result.stats["mail"][State.IN_PROGRESS] == 1


def test_claim_numbers_only_grow(store, new_job):
    add(store, new_job())
    numbers = []
    for _ in range(3):
        [held] = claim(store)
        numbers.append(held.number)
        store.apply(Turn(now=NOW, give_back=[GiveBack(held.job, held.number)]))
    assert numbers == [1, 2, 3]


def test_a_paused_category_gives_no_claims_until_it_is_resumed(store, new_job):
    add(store, new_job(), new_job("other"))
    store.apply(Turn(now=NOW, requests=[Request(pause={"mail": 0})]))
    assert store.stats()["mail"].paused
    assert not store.stats()["other"].paused
    assert claim(store) == []
    assert len(claim(store, category="other")) == 1
    store.apply(Turn(now=NOW, requests=[Request(resume=["mail"])]))
    assert len(claim(store)) == 1


def test_a_paused_category_still_takes_jobs_outcomes_and_due_jobs(store, new_job):
    job, later = new_job(), new_job(due_at=NOW + 1)
    add(store, job, later)
    [held] = claim(store)
    store.apply(Turn(now=NOW, requests=[Request(pause={"mail": 0})]))
    result = store.apply(
        Turn(now=NOW + 1, requests=[Request(jobs=[new_job()])], outcomes=[outcome(held)], release=9)
    )
    assert (result.lost, result.released) == ([], 1)
    assert counts(store) == {State.COMPLETED: 1, State.PENDING: 2}


def test_a_pause_makes_its_category_known(store):
    result = store.apply(Turn(now=NOW, requests=[Request(pause={"a": 0}), Request(resume=["b"])]))
    assert {name: found.paused for name, found in result.stats.items()} == {"a": True, "b": False}
    assert result.stats["a"].counts == [0] * len(State)


def test_a_category_paused_and_resumed_in_one_turn_gives_claims(store, new_job):
    add(store, new_job())
    requests = [Request(pause={"mail": 0}), Request(pause={"mail": 0}, resume=["mail"])]
    assert len(store.apply(Turn(now=NOW, requests=requests, slots=[Slot("mail", 1, 1)])).claims) == 1


def test_a_pause_until_a_time_ends_by_itself(store, new_job):
    add(store, new_job(), new_job("other", due_at=NOW + 50))
    result = store.apply(Turn(now=NOW, requests=[Request(pause={"mail": NOW + 20})]))
    assert (result.next_due, result.stats["mail"].resume_at) == (NOW + 20, NOW + 20)
    assert claim(store, now=NOW + 19) == []
    result = store.apply(Turn(now=NOW + 20, slots=[Slot("mail", 1, 1)]))
    assert (len(result.claims), result.next_due) == (1, NOW + 50)
    assert (result.stats["mail"].paused, result.stats["mail"].resume_at) == (False, 0)


def test_the_last_pause_counts_and_a_resume_ends_any(store, new_job):
    add(store, new_job(), new_job())
    ask(store, pause={"mail": NOW + 20})
    ask(store, pause={"mail": 0})
    assert claim(store, now=NOW + 99) == []
    result = store.apply(Turn(now=NOW + 99, requests=[Request(pause={"mail": NOW + 200})]))
    assert result.next_due == NOW + 200
    result = store.apply(Turn(now=NOW + 99, requests=[Request(resume=["mail"])], slots=[Slot("mail", 1, 9)]))
    assert (len(result.claims), result.next_due) == (2, None)


def test_nothing_of_a_paused_category_is_ready(store, new_job):
    add(store, new_job())
    assert store.stats()["mail"].ready == 1
    ask(store, pause={"mail": 0})
    assert store.stats()["mail"].ready == 0


# Finishing


def test_a_completed_job_keeps_its_result_and_times(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    assert finish(store, outcome(held, ended_at=NOW + 7)).lost == []
    stored = store.get(job.id)
    assert (stored.status.state, stored.status.attempt) == (State.COMPLETED, 1)
    assert (stored.status.started_at, stored.status.ended_at) == (NOW + 5, NOW + 7)
    assert (stored.result, stored.error) == (b"\x2a", None)


@pytest.mark.parametrize("error", [None, JobError("the return value takes 2 MiB")])
def test_a_job_that_returned_nothing_or_nothing_storable_completes_without_a_result(store, new_job, error):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    finish(store, outcome(held, State.SCHEDULED, due_at=NOW))
    [held] = store.apply(Turn(now=NOW, release=1, slots=[Slot("mail", 1, 1)])).claims
    finish(store, Outcome(job.id, held.number, State.COMPLETED, NOW, NOW, None, error))
    stored = store.get(job.id)
    assert (stored.status.state, stored.result, stored.error) == (State.COMPLETED, None, error)


@pytest.mark.parametrize("state", [State.FAILED, State.PARKED])
def test_a_job_that_did_not_complete_keeps_its_error(store, new_job, state):
    job = new_job()
    add(store, job)
    finish(store, outcome(claim(store)[0], state))
    stored = store.get(job.id)
    assert (stored.status.state, stored.result, stored.error) == (state, None, BROKEN)
    assert counts(store) == {state: 1}


def test_a_retry_waits_until_it_is_due_and_then_queues_at_the_end(store, new_job):
    first, second = new_job(), new_job()
    add(store, first, second)
    [held] = claim(store)
    result = finish(store, outcome(held, State.SCHEDULED, due_at=NOW + 60))
    assert result.next_due == NOW + 60
    assert store.get(first.id).error == BROKEN
    assert status(store, first).due_at == NOW + 60
    result = store.apply(Turn(now=NOW + 60, release=9, slots=[Slot("mail", 1, 9)]))
    assert [(held.job, held.attempt) for held in result.claims] == [(second.id, 1), (first.id, 2)]


def test_a_retry_that_is_due_at_once_may_be_released_in_the_same_turn(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    assert finish(store, outcome(held, State.SCHEDULED, due_at=NOW)).released == 0
    assert status(store, job).state is State.SCHEDULED
    store.apply(Turn(now=NOW, release=1))
    [held] = claim(store)
    again = outcome(held, State.SCHEDULED, due_at=NOW)
    result = store.apply(Turn(now=NOW, outcomes=[again], release=1, slots=[Slot("mail", 1, 1)]))
    assert [held.attempt for held in result.claims] == [3]


def test_only_a_retry_changes_when_a_job_was_due(store, new_job):
    job = new_job(due_at=NOW)
    add(store, job)
    finish(store, outcome(claim(store)[0]))
    assert status(store, job).due_at == NOW


def test_completion_clears_an_earlier_error(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    finish(store, outcome(held, State.SCHEDULED, due_at=NOW))
    [held] = store.apply(Turn(now=NOW, release=1, slots=[Slot("mail", 1, 1)])).claims
    assert store.get(job.id).error == BROKEN
    finish(store, outcome(held))
    assert store.get(job.id).error is None


def test_a_crashed_job_keeps_its_place_and_spends_no_attempt(store, new_job):
    first, second = new_job(), new_job()
    add(store, first, second)
    [held] = claim(store)
    finish(store, outcome(held, State.PENDING))
    now = status(store, first)
    assert (now.state, now.attempt, now.crashes, now.sequence) == (State.PENDING, 0, 1, 1)
    assert store.get(first.id).error == BROKEN
    assert [held.job for held in claim(store, limit=2)] == ids([first, second])


def test_a_job_that_crashes_too_often_is_quarantined(store, new_job):
    job = new_job()
    add(store, job)
    for _ in range(CRASH_LIMIT):
        [held] = claim(store)
        finish(store, outcome(held, State.PENDING))
    assert (status(store, job).state, status(store, job).crashes) == (State.QUARANTINED, CRASH_LIMIT)
    assert status(store, job).ended_at == NOW + 5
    assert store.get(job.id).error == BROKEN
    assert claim(store) == []


def test_a_late_outcome_is_lost(store, new_job):
    job = new_job()
    add(store, job)
    [old] = claim(store)
    store.apply(Turn(now=NOW, give_back=[GiveBack(job.id, old.number)]))
    assert finish(store, outcome(old)).lost == [old.number]
    [new] = claim(store)
    assert finish(store, outcome(old)).lost == [old.number]
    assert (status(store, job).state, status(store, job).claim) == (State.IN_PROGRESS, new.number)
    assert finish(store, outcome(new)).lost == []
    assert store.get(job.id).result == b"\x2a"


def test_an_outcome_of_an_unknown_job_is_lost(store):
    assert finish(store, Outcome(new_id(), 12, State.COMPLETED, NOW, NOW, b"\x01")).lost == [12]
    assert store.stats() == {}


def test_only_the_first_of_two_outcomes_counts(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    assert finish(store, outcome(held), outcome(held, State.FAILED)).lost == [held.number]
    assert status(store, job).state is State.COMPLETED


def test_lost_claims_are_named_in_order_outcomes_first(store):
    outcomes = [Outcome(new_id(), number, State.FAILED, NOW, NOW, None, BROKEN) for number in (5, 3)]
    backs = [GiveBack(new_id(), number) for number in (4, 1)]
    assert store.apply(Turn(now=NOW, outcomes=outcomes, give_back=backs)).lost == [5, 3, 4, 1]


# Giving back


def test_a_job_given_back_keeps_its_place_and_spends_no_attempt(store, new_job):
    first, second = new_job(), new_job()
    add(store, first, second)
    [held] = claim(store)
    result = store.apply(Turn(now=NOW, give_back=[GiveBack(held.job, held.number)]))
    assert result.lost == []
    now = status(store, first)
    assert (now.state, now.attempt, now.interruptions, now.sequence) == (State.PENDING, 0, 0, 1)
    assert (now.started_at, now.ended_at) == (0, 0)
    assert [held.job for held in claim(store, limit=2)] == ids([first, second])


def test_a_job_given_back_may_be_claimed_in_the_same_turn(store, new_job):
    add(store, new_job())
    [held] = claim(store)
    turn = Turn(now=NOW, give_back=[GiveBack(held.job, held.number)], slots=[Slot("mail", 2, 1)])
    [again] = store.apply(turn).claims
    assert (again.job, again.number, again.worker, again.attempt) == (held.job, 2, 2, 1)


def test_too_many_interruptions_park_a_job(store, new_job):
    job = new_job()
    add(store, job)
    for _ in range(INTERRUPTION_LIMIT):
        assert status(store, job).state is State.PENDING
        [held] = claim(store)
        store.apply(Turn(now=NOW + 9, give_back=[GiveBack(job.id, held.number, interrupted=True)]))
    assert (status(store, job).state, status(store, job).ended_at) == (State.PARKED, NOW + 9)
    assert store.get(job.id).error == INTERRUPTED_TOO_OFTEN
    assert listed(store, State.PARKED) == [job.id]


# Cancelling


@pytest.mark.parametrize("due_at", [0, NOW + 1])
def test_a_job_that_waits_is_cancelled(store, new_job, due_at):
    job = new_job(due_at=due_at)
    add(store, job)
    assert cancel(store, job.id, now=NOW + 3) == [State.CANCELLED]
    assert (status(store, job).state, status(store, job).ended_at) == (State.CANCELLED, NOW + 3)
    result = store.apply(Turn(now=NOW + 9, release=9, slots=[Slot("mail", 1, 9)]))
    assert (result.released, result.claims, result.next_due) == (0, [], None)


@pytest.mark.parametrize("state", [State.PARKED, State.QUARANTINED])
def test_a_job_set_aside_is_cancelled(store, new_job, state):
    job = put_into(store, new_job, state)
    assert cancel(store, job.id) == [State.CANCELLED]
    assert listed(store, state) == []
    assert listed(store, State.CANCELLED) == [job.id]


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.CANCELLED])
def test_an_ended_job_is_not_cancelled(store, new_job, state):
    job = put_into(store, new_job, state)
    before = store.get(job.id)
    assert cancel(store, job.id, now=NOW + 99) == [state]
    assert store.get(job.id) == before


def test_a_running_job_is_not_cancelled(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    assert cancel(store, job.id) == [State.IN_PROGRESS]
    assert finish(store, outcome(held)).lost == []
    assert status(store, job).state is State.COMPLETED


def test_cancel_answers_for_each_id_in_order(store, new_job):
    job, other = new_job(), new_job()
    add(store, job, other)
    claim(store)
    states = cancel(store, other.id, new_id(), job.id, other.id)
    assert states == [State.CANCELLED, None, State.IN_PROGRESS, State.CANCELLED]


def test_a_cancel_does_not_reach_the_jobs_of_its_own_turn(store, new_job):
    job = new_job()
    requests = [Request(jobs=[job]), Request(cancel=[job.id])]
    assert store.apply(Turn(now=NOW, requests=requests)).replies == [Accepted(), Accepted([None])]
    assert status(store, job).state is State.PENDING


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (give_back, "cancelled: before it had started"),
        (lambda store, held: give_back(store, held, interrupted=True), CUT_OFF.cause),
        (lambda store, held: finish(store, outcome(held, State.PENDING)), CUT_OFF.cause),
        (
            lambda store, held: finish(store, outcome(held, State.SCHEDULED)),
            "cancelled: instead of being tried again",
        ),
        (
            lambda store, held: finish(store, outcome(held, State.PARKED)),
            "cancelled: instead of being tried again",
        ),
        (lambda store, held: finish(store, outcome(held, State.CANCELLED)), BROKEN.cause),
        (lambda store, _held: store.recover(NOW), CUT_OFF.cause),
    ],
    ids=["given back", "interrupted", "crashed", "to be retried", "to be parked", "cancelled", "recovered"],
)
def test_a_running_job_that_is_to_be_cancelled_does_not_run_again(store, new_job, end, cause):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    assert cancel(store, job.id) == [State.IN_PROGRESS]
    assert status(store, job).cancel_asked
    end(store, held)
    assert store.get(job.id).error.cause == cause
    assert counts(store) == {State.CANCELLED: 1}
    assert listed(store, State.CANCELLED) == [job.id]
    assert claim(store) == []


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED])
def test_a_job_that_ends_before_its_cancellation_reaches_it_ends_as_it_does(store, new_job, state):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    cancel(store, job.id)
    finish(store, outcome(held, state))
    assert status(store, job).state is state


def test_a_cancellation_and_the_crash_that_it_meets_in_one_turn_end_the_job(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    turn = Turn(
        now=NOW,
        requests=[Request(cancel=[job.id])],
        outcomes=[outcome(held, State.PENDING)],
        slots=[Slot("mail", 1, 1)],
    )
    result = store.apply(turn)
    assert (result.replies, result.claims) == ([Accepted([State.IN_PROGRESS])], [])
    assert (status(store, job).state, store.get(job.id).error) == (State.CANCELLED, CUT_OFF)


# Releasing


def test_due_jobs_are_released_in_due_order_and_queue_behind_what_is_there(store, new_job):
    late, soon, never = (new_job(due_at=due) for due in (NOW + 20, NOW + 10, NOW + 31))
    add(store, late, soon, never)
    present = new_job()
    add(store, present, now=NOW + 1)
    result = store.apply(Turn(now=NOW + 30, release=9, slots=[Slot("mail", 1, 9)]))
    assert (result.released, result.next_due) == (2, NOW + 31)
    assert [held.job for held in result.claims] == ids([present, soon, late])


def test_jobs_due_at_the_same_time_are_released_by_id(store, new_job):
    jobs = sorted((new_job(due_at=NOW + 1) for _ in range(4)), key=lambda job: job.id)
    add(store, *reversed(jobs))
    store.apply(Turn(now=NOW + 1, release=9))
    assert [held.job for held in claim(store, limit=9)] == ids(jobs)


def test_no_more_jobs_are_released_than_asked_for(store, new_job):
    jobs = [new_job(("a", "b")[n % 2], due_at=NOW + 9 - n) for n in range(5)]
    add(store, *jobs)
    result = store.apply(Turn(now=NOW + 99, release=3))
    assert (result.released, result.next_due) == (3, NOW + 8)
    assert listed(store, State.PENDING) == ids(reversed(jobs[2:]))
    assert store.apply(Turn(now=NOW + 99)).released == 0


def test_nothing_is_released_when_the_clock_steps_back(store, new_job):
    add(store, new_job(due_at=NOW + 5))
    assert store.apply(Turn(now=NOW - 99, release=9)).released == 0
    assert store.apply(Turn(now=NOW + 4, release=9)).released == 0
    assert store.apply(Turn(now=NOW + 5, release=9)).released == 1


def test_upcoming_counts_what_falls_due_by_category(store, new_job):
    add(store, *(new_job(c, due_at=NOW + due) for c, due in (("a", 1), ("b", 2), ("a", 3), ("b", 4))))
    assert store.upcoming(NOW + 3, 100) == {"a": 2, "b": 1}
    assert store.upcoming(NOW + 99, 2) == {"a": 1, "b": 1}
    assert store.upcoming(NOW, 100) == {}


# Remembering attempts


def spend(store, job, number, **rest):
    """Have a job fail and be tried again at once."""
    [held] = store.apply(Turn(now=NOW + number, release=1, slots=[Slot("mail", number, 1)])).claims
    error = JobError(f"failed: {number}")
    end = Outcome(
        job.id, held.number, State.SCHEDULED, NOW + number, NOW + number, None, error, NOW + number, **rest
    )
    finish(store, end)
    return held


def test_the_latest_attempts_are_kept_oldest_first(store, new_job):
    job = new_job()
    add(store, job)
    total = KEPT_ATTEMPTS + 3
    for number in range(1, total + 1):
        spend(store, job, number, log=f"log {number}")
    kept = store.get(job.id).attempts
    expected = [
        Attempt(n, n, n, NOW + n, NOW + n, State.SCHEDULED, JobError(f"failed: {n}"), f"log {n}")
        for n in range(total - KEPT_ATTEMPTS + 1, total + 1)
    ]
    assert kept == expected


def test_attempts_with_long_logs_come_back_whole_and_of_each_job_its_own(store, new_job):
    jobs = [new_job(job_id=bytes(15) + bytes([n])) for n in (1, 2)]
    logs = ["x" * (16 << 10), "ü" * (8 << 10), "", "y" * 5000]
    for job in jobs:
        add(store, job)
        for number, log in enumerate(logs, 1):
            spend(store, job, number, log=log + job.id.hex())
        cancel(store, job.id)
    for job in jobs:
        assert [one.log for one in store.get(job.id).attempts] == [log + job.id.hex() for log in logs]
    ask(store, delete=[jobs[0].id])
    assert len(store.get(jobs[1].id).attempts) == len(logs)


@pytest.mark.parametrize(("error", "log", "count"), [(None, "", 0), (None, "a line", 1), (BROKEN, "", 1)])
def test_a_run_that_failed_or_wrote_something_is_remembered(store, new_job, error, log, count):
    job = new_job()
    add(store, job)
    [held] = claim(store, worker=7)
    finish(store, Outcome(job.id, held.number, State.COMPLETED, NOW, NOW + 1, b"\x2a", error, log=log))
    expected = [Attempt(1, held.number, 7, NOW, NOW + 1, State.COMPLETED, error, log)]
    assert store.get(job.id).attempts == expected[:count]
    assert store.find(Query(state=State.COMPLETED)).jobs[0].attempts == []


def test_a_retry_keeps_the_attempts_of_before(store, new_job):
    job = put_into(store, new_job, State.FAILED)
    ask(store, retry=[job.id])
    [held] = claim(store, category="failed")
    finish(store, outcome(held, State.FAILED))
    assert [(one.attempt, one.claim) for one in store.get(job.id).attempts] == [(1, 1), (1, 2)]


def test_an_unspent_attempt_may_be_repeated_for_ever(store, new_job):
    job = new_job()
    add(store, job)
    assert [spend(store, job, number, unspent=True).attempt for number in range(1, 6)] == [1] * 5
    assert [one.claim for one in store.get(job.id).attempts] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("reason", [ParkedFor.UNKNOWN_TASK, ParkedFor.BAD_ARGUMENTS, ParkedFor.UNREADABLE])
def test_a_parked_job_says_why(store, new_job, reason):
    job = new_job()
    add(store, job)
    finish(store, outcome(claim(store)[0], State.PARKED, parked_for=reason, unspent=True))
    assert (status(store, job).parked_for, status(store, job).attempt) == (reason, 0)
    ask(store, retry=[job.id])
    assert status(store, job).parked_for is ParkedFor.NOTHING


# Counting


def test_stats_count_every_state(store, new_job):
    for state in SETTLED:
        put_into(store, new_job, state)
    add(store, new_job(), new_job(due_at=NOW + 99), new_job())
    claim(store)
    assert counts(store) == {State.SCHEDULED: 1, State.PENDING: 1, State.IN_PROGRESS: 1}
    assert [counts(store, str(state)) for state in SETTLED] == [{state: 1} for state in SETTLED]


def test_the_stats_of_a_result_are_those_of_the_store_and_stay(store, new_job):
    result = add(store, new_job())
    assert result.stats == store.stats()
    claim(store)
    assert result.stats["mail"][State.PENDING] == 1


# Recovering


def test_recover_puts_back_what_was_in_progress(store, new_job):
    jobs = [new_job() for _ in range(3)]
    add(store, *jobs)
    old = claim(store, limit=2)
    recovered = store.recover(NOW)
    assert (recovered.epoch, recovered.put_back) == (1, 2)
    assert store.in_progress() == {}
    now = status(store, jobs[0])
    assert (now.state, now.attempt, now.interruptions) == (State.PENDING, 0, 1)
    assert (now.started_at, now.ended_at) == (0, 0)
    new = claim(store, limit=9)
    assert [held.job for held in new] == ids(jobs)
    assert [held.number for held in new] == [3, 4, 5]
    assert finish(store, outcome(old[0])).lost == [1]


def test_every_recover_begins_a_new_epoch(store):
    assert [store.recover(NOW).epoch for _ in range(3)] == [1, 2, 3]


def test_recover_parks_what_may_still_run(store, new_job):
    held_job, free_job = new_job(), new_job()
    add(store, held_job, free_job)
    claim(store, worker=7)
    claim(store, worker=8)
    assert store.recover(NOW + 3, frozenset({7, 99})).put_back == 1
    stored = store.get(held_job.id)
    assert (stored.status.state, stored.status.ended_at) == (State.PARKED, NOW + 3)
    assert stored.error == may_still_run(7)
    assert listed(store, State.PARKED) == [held_job.id]
    assert [held.job for held in claim(store, limit=9)] == [free_job.id]


def test_too_many_recoveries_park_a_job(store, new_job):
    job = new_job()
    add(store, job)
    for turn in range(INTERRUPTION_LIMIT):
        claim(store, now=NOW + turn)
        recovered = store.recover(NOW + turn)
    assert recovered.put_back == 0
    stored = store.get(job.id)
    assert (stored.status.state, stored.error) == (State.PARKED, INTERRUPTED_TOO_OFTEN)
    assert stored.status.ended_at == NOW + INTERRUPTION_LIMIT - 1


def test_in_progress_lists_each_workers_jobs_by_claim(store, new_job):
    jobs = [new_job(priority=-n) for n in range(4)]
    add(store, *jobs)
    store.apply(Turn(now=NOW, slots=[Slot("mail", 2, 2), Slot("mail", 1, 2)]))
    assert store.in_progress() == {2: ids(jobs[0::2]), 1: ids(jobs[1::2])}


# Keeping decisions


def decision(at):
    counts = {"mail": at, "ünï": 1}
    reasons = {"mail": "weight 1 of 2", "ünï": "its minimum"}
    return Decision(
        at=at, budget=8, backlog=counts, before={}, after=counts, ideal={"mail": 0.5}, reasons=reasons
    )


def test_the_balancers_last_decisions_are_kept_oldest_first(store):
    assert store.decisions(9) == []
    for first in (1, 3):
        store.apply(Turn(now=NOW, decisions=[decision(first), decision(first + 1)]))
    assert store.decisions(9) == [decision(at) for at in (1, 2, 3, 4)]
    assert store.decisions(2) == [decision(3), decision(4)]
    assert store.decisions(0) == []


def test_the_oldest_decisions_are_let_go_of(store):
    for first in range(0, KEPT_DECISIONS + 20, 1000):
        store.apply(Turn(now=NOW, decisions=[decision(first + n) for n in range(1000)]))
    kept = store.decisions(2 * KEPT_DECISIONS)
    assert [one.at for one in kept] == list(range(1000, KEPT_DECISIONS + 1000))


# Finding


def test_pending_jobs_are_found_in_the_order_of_their_claim(store, new_job):
    add(store, *(new_job(category, priority=p) for category, p in (("a", 0), ("b", 2), ("a", 2), ("b", -1))))
    found = [store.get(i).status for i in listed(store, State.PENDING)]
    assert [(one.priority, one.sequence) for one in found] == [(2, 2), (2, 3), (0, 1), (-1, 4)]


def test_scheduled_jobs_are_found_by_due_time_then_id(store, new_job):
    jobs = [new_job(("a", "b")[n % 2], due_at=NOW + 1 + n // 2) for n in range(4)]
    add(store, *reversed(jobs))
    assert listed(store, State.SCHEDULED) == ids(jobs)
    assert listed(store, State.SCHEDULED, "b") == ids(jobs[1::2])


def test_jobs_in_progress_are_found_by_claim(store, new_job):
    jobs = [new_job(("a", "b")[n % 2]) for n in range(4)]
    add(store, *jobs)
    claim(store, 9, category="b")
    claim(store, 9, category="a")
    assert listed(store, State.IN_PROGRESS) == ids([jobs[1], jobs[3], jobs[0], jobs[2]])


@pytest.mark.parametrize("state", SETTLED)
def test_settled_jobs_are_found_newest_first(store, new_job, state):
    times = [NOW + 2, NOW + 9, NOW + 2, NOW + 5]
    jobs = [put_into(store, new_job, state, now=time) for time in times]
    newest = sorted(jobs, key=lambda job: (status(store, job).ended_at, job.id), reverse=True)
    assert listed(store, state) == ids(newest)
    assert listed(store, state, str(state), limit=1) == ids(newest)
    assert listed(store, state, "other") == []


def test_without_a_state_all_jobs_are_found_newest_first(store, new_job):
    jobs = [new_job(("a", "b")[n % 2], due_at=n % 3 and NOW + 1) for n in range(7)]
    add(store, *reversed(jobs))
    claim(store, category="a")
    assert listed(store, limit=2) == ids(jobs[::-1])
    assert listed(store, category="b", limit=2) == ids(jobs[1::2][::-1])
    assert listed(store, category="none") == []


def test_a_page_holds_no_more_than_asked_for_and_200_at_most(store, new_job):
    add(store, *(new_job() for _ in range(450)))
    for state in (None, State.PENDING):
        found = pages(store, Query(state=state, limit=1000))
        assert [len(page) for page in found if page] == [200, 200, 50]
        assert sum(len(page) for page in pages(store, Query(state=state, limit=7))) == 450


def test_pages_neither_repeat_nor_skip_jobs_that_stay_while_others_move(store, new_job):
    jobs = [new_job() for _ in range(12)]
    add(store, *jobs)
    first = store.find(Query(state=State.PENDING, limit=5))
    cancel(store, *ids(jobs[:4]), jobs[4].id, jobs[7].id)
    add(store, new_job(priority=9))
    rest = store.find(Query(state=State.PENDING, limit=50, after=first.next))
    assert ids(first.jobs) == ids(jobs[:5])
    assert ids(rest.jobs) == ids(jobs[5:7] + jobs[8:])
    assert rest.next is None


def test_a_store_with_no_jobs_finds_none(store):
    for state in (None, *State):
        assert store.find(Query(state=state)).jobs == []
        assert store.find(Query(state=state)).next is None


# Resolving


def test_a_job_is_resolved_by_either_end_of_its_id(store, new_job):
    job, other = (new_job(job_id=bytes.fromhex(i)) for i in ("0123456789ab" + "c0" * 10, "fe" * 16))
    add(store, job, other)
    for part in ("012345", "01234567", "012345678", "0123456789ABC0C0", "0c0c0c0", format_id(job.id)):
        assert store.resolve(part) == [job.id], part
    assert store.resolve(format_id(other.id)[:-3].upper()) == [other.id]
    assert store.resolve("456789") == []
    assert store.resolve("0" * 33) == []


def test_an_ambiguous_part_gives_the_first_two_ids(store, new_job):
    found = [new_job(job_id=bytes.fromhex(f"abcdef{n:02x}" + "00" * 12)) for n in range(3)]
    ending = new_job(job_id=bytes.fromhex("00" * 13 + "abcdef"))
    add(store, *reversed(found), ending)
    assert store.resolve("abcdef") == [ending.id, found[0].id]
    assert store.resolve("abcdef02") == [found[2].id]


@pytest.mark.parametrize("part", ["", "01234", "0-1-2-3-4-", "01234g", "0x01234567", " 0123456", "０123456"])  # noqa: RUF001
def test_what_is_no_part_of_an_id_is_refused(store, part):
    with pytest.raises(ValueError, match="hex digits"):
        store.resolve(part)


# Lasting


def test_a_reopened_store_remembers_everything(reopen, new_job):
    store = reopen()
    settled = [put_into(store, new_job, state) for state in SETTLED]
    waiting = [new_job(), new_job(), new_job(due_at=NOW + 99)]
    add(store, *waiting)
    [held] = claim(store, worker=3)
    store.recover(NOW)
    store.apply(Turn(now=NOW, requests=[Request(pause={"mail": 0})], decisions=[decision(1)]))
    before = [store.get(job.id) for job in settled + waiting]
    stats, epoch, number = store.stats(), store.recover(NOW).epoch, held.number
    store = reopen()
    assert [store.get(job.id) for job in settled + waiting] == before
    assert store.stats() == stats
    assert store.decisions(9) == [decision(1)]
    assert store.recover(NOW).epoch == epoch + 1
    resumed = store.apply(Turn(now=NOW, requests=[Request(jobs=[new_job()], resume=["mail"])]))
    assert resumed.next_due == NOW + 99
    numbers = [held.number for held in claim(store, limit=9)]
    assert numbers == [number + 1, number + 2, number + 3]


def test_turns_from_several_threads_each_happen_whole(store, new_job):
    def dispatch():
        for _ in range(20):
            add(store, *batches.pop())

    jobs = [new_job() for _ in range(160)]
    batches = [jobs[n : n + 2] for n in range(0, 160, 2)]
    threads = [threading.Thread(target=dispatch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(store) == {State.PENDING: 160}
    places = {job.id: status(store, job).sequence for job in jobs}
    assert sorted(places.values()) == list(range(1, 161))
    assert all(places[a.id] + 1 == places[b.id] for a, b in list(pairwise(jobs))[::2])
