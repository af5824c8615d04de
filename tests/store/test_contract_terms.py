"""What every store does with a job's terms: unique keys, limits, expiry, at most once, alone."""

import pytest
from turns import (
    BROKEN,
    NOW,
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

from jobsched.job import JobError, Limit, State, Terms
from jobsched.store.base import Accepted, Outcome, Refused, Request, Slot, Turn
from jobsched.store.reasons import key_is_taken, queue_is_full, replaced_by
from jobsched.transitions import EXPIRED

KEY = b"u" * 16
UNIQUE = Terms(unique=KEY)
TILL_START = Terms(unique=KEY, frees_at_start=True)
ONCE = Terms(at_most_once=True)
L, M = b"l" * 16, b"m" * 16


def limited(most, *others):
    return Terms(limits=(Limit(L, most), *others))


def work(store, *, workers=9, category="mail", now=NOW):
    """Claim one job for each of so many workers that hold nothing, and return the ids."""
    slots = [Slot(category, worker, 1) for worker in range(1, workers + 1)]
    return [held.job for held in store.apply(Turn(now=now, slots=slots)).claims]


def refusal(store, *jobs, **rest):
    """Add jobs, and return why the store refused them."""
    reply = ask(store, jobs=jobs, **rest)
    assert isinstance(reply, Refused)
    return reply


# Unique keys


def test_a_job_whose_key_is_taken_is_kept_from_the_store_and_its_holder_named(store, new_job):
    holder, other, free = new_job(terms=UNIQUE), new_job("other", terms=UNIQUE), new_job()
    add(store, holder)
    assert ask(store, jobs=[free, other]) == Accepted(kept={1: holder.id})
    assert store.get(other.id) is None
    assert store.stats().keys() == {"mail"}
    assert status(store, free).state is State.PENDING


def test_a_job_given_twice_in_a_request_has_the_same_holder_both_times(store, new_job):
    holder, other = new_job(terms=UNIQUE), new_job(terms=UNIQUE)
    add(store, holder)
    assert ask(store, jobs=[other, other]) == Accepted(kept={0: holder.id, 1: holder.id})


def test_a_repeated_dispatch_of_the_holder_is_not_kept_from_itself(store, new_job):
    job = new_job(terms=UNIQUE, on_conflict="refuse")
    add(store, job)
    assert ask(store, jobs=[job]) == Accepted()


def test_a_refused_key_refuses_the_whole_request(store, new_job):
    holder, free = new_job(terms=UNIQUE), new_job()
    add(store, holder)
    other = new_job(terms=UNIQUE, on_conflict="refuse")
    assert refusal(store, free, other) == key_is_taken(other, holder.id)
    assert store.get(free.id) is None


@pytest.mark.parametrize("on_conflict", ["keep", "refuse", "replace"])
def test_a_key_twice_in_one_request(store, new_job, on_conflict):
    first, second = new_job(terms=UNIQUE), new_job(terms=UNIQUE, on_conflict=on_conflict)
    reply = ask(store, jobs=[first, second])
    found = [store.get(job.id) and status(store, job).state for job in (first, second)]
    expected = {
        "keep": (Accepted(kept={1: first.id}), [State.PENDING, None]),
        "refuse": (key_is_taken(second, first.id), [None, None]),
        "replace": (Accepted(), [State.CANCELLED, State.PENDING]),
    }
    assert (reply, found) == expected[on_conflict]


@pytest.mark.parametrize("due_at", [0, NOW + 9])
def test_a_waiting_job_is_replaced_and_says_by_which(store, new_job, due_at):
    old, new = new_job(terms=UNIQUE, due_at=due_at), new_job(terms=UNIQUE, on_conflict="replace")
    add(store, old)
    assert ask(store, jobs=[new]) == Accepted()
    assert (status(store, old).state, store.get(old.id).error) == (State.CANCELLED, replaced_by(new.id))
    assert work(store) == [new.id]


def test_a_running_job_is_not_replaced(store, new_job):
    old, new = new_job(terms=UNIQUE), new_job(terms=UNIQUE, on_conflict="replace")
    add(store, old)
    work(store)
    assert ask(store, jobs=[new]) == Accepted(kept={0: old.id})
    assert store.get(new.id) is None


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.CANCELLED])
def test_a_key_is_free_in_the_turn_that_ends_its_job(store, new_job, state):
    old, new = new_job(terms=UNIQUE), new_job(terms=UNIQUE, on_conflict="refuse")
    add(store, old)
    [held] = claim(store)
    turn = Turn(now=NOW, outcomes=[outcome(held, state)], requests=[Request(jobs=[new])])
    assert store.apply(turn).replies == [Accepted()]
    assert status(store, new).state is State.PENDING


@pytest.mark.parametrize("change", ["cancel", "delete"])
def test_a_key_is_free_in_the_turn_that_cancels_or_deletes_its_job(store, new_job, change):
    old, new = new_job(terms=UNIQUE), new_job(terms=UNIQUE, on_conflict="refuse")
    add(store, old)
    requests = [Request(jobs=[new]), Request(**{change: [old.id]})]
    assert store.apply(Turn(now=NOW, requests=requests)).replies[0] == Accepted()


@pytest.mark.parametrize("state", [State.SCHEDULED, State.PENDING, State.PARKED])
def test_a_job_that_did_not_end_keeps_its_key(store, new_job, state):
    old = new_job(terms=UNIQUE)
    add(store, old)
    finish(store, outcome(claim(store)[0], state, due_at=NOW + 9))
    assert refusal(store, new_job(terms=UNIQUE, on_conflict="refuse")).kind == "DuplicateJob"


def test_a_key_until_the_start_is_free_in_the_turn_after_its_job_started(store, new_job):
    old, new = (new_job(terms=TILL_START, on_conflict="refuse") for _ in range(2))
    add(store, old)
    work(store)
    assert ask(store, jobs=[new]) == Accepted()


def test_a_job_that_comes_back_does_not_take_its_key_from_another(store, new_job):
    old, new = (new_job(terms=TILL_START) for _ in range(2))
    add(store, old)
    [held] = claim(store)
    add(store, new)
    give_back(store, held)
    third = new_job(terms=TILL_START)
    assert ask(store, jobs=[third]) == Accepted(kept={0: new.id})
    cancel(store, new.id)
    assert work(store) == [old.id]


def test_a_retry_waits_for_nobody_but_is_refused_while_another_job_has_its_key(store, new_job):
    old = put_into(store, new_job, State.FAILED, terms=UNIQUE)
    new = new_job(terms=UNIQUE)
    add(store, new)
    before = store.get(old.id)
    assert ask(store, retry=[old.id]).states == [State.FAILED]
    assert store.get(old.id) == before
    cancel(store, new.id)
    assert ask(store, retry=[old.id]).states == [State.PENDING]
    assert ask(store, retry=[new.id]).states == [State.CANCELLED]


def test_an_id_twice_in_one_request_does_not_conflict_with_itself(store, new_job):
    job = new_job(terms=UNIQUE, on_conflict="refuse")
    assert add(store, job, job).replies == [Accepted()]
    other = new_job(terms=UNIQUE, on_conflict="refuse")
    assert add(store, other).replies[0].kind == "DuplicateJob"


# max_pending


def test_a_request_over_max_pending_is_refused_whole(store, new_job):
    add(store, new_job(), new_job(due_at=NOW + 9))
    jobs = [new_job(), new_job("other"), new_job()]
    assert refusal(store, *jobs, max_pending={"mail": 3}) == queue_is_full("mail", 3, 2)
    assert all(store.get(job.id) is None for job in jobs)
    assert isinstance(ask(store, jobs=jobs, max_pending={"mail": 4}), Accepted)


def test_what_runs_or_ended_or_is_known_does_not_count(store, new_job):
    known = [new_job() for _ in range(3)]
    add(store, *known)
    held = claim(store, limit=2)
    finish(store, outcome(held[0]))
    assert isinstance(ask(store, jobs=[*known, new_job()], max_pending={"mail": 2}), Accepted)
    assert isinstance(ask(store, jobs=known, max_pending={"mail": 0}), Accepted)
    assert refusal(store, new_job(), max_pending={"mail": 2}).kind == "QueueFull"


def test_the_requests_of_a_turn_count_one_after_the_other(store, new_job):
    requests = [Request(jobs=[new_job()], max_pending={"mail": 1}) for _ in range(2)]
    first, second = store.apply(Turn(now=NOW, requests=requests)).replies
    assert (first, second) == (Accepted(), queue_is_full("mail", 1, 1))


# Limits


def test_no_more_than_the_limit_run_and_the_rest_keeps_its_place(store, new_job):
    jobs = [new_job(terms=limited(2)) for _ in range(4)]
    free = new_job()
    add(store, *jobs, free)
    held = store.apply(Turn(now=NOW, slots=[Slot("mail", n, 1) for n in range(9)])).claims
    assert [one.job for one in held] == [jobs[0].id, jobs[1].id, free.id]
    assert counts(store) == {State.PENDING: 2, State.IN_PROGRESS: 3}
    assert store.stats()["mail"].ready <= 0
    late = new_job()
    add(store, late)
    finish(store, outcome(held[1]))
    assert work(store) == [jobs[2].id, late.id]


def test_jobs_at_a_limit_go_on_in_the_order_of_their_queue(store, new_job):
    low, first, second, high = (new_job(terms=limited(1), priority=p) for p in (-1, 0, 0, 5))
    running = new_job(terms=limited(1), priority=9)
    add(store, low, first, second, high, running)
    found = []
    for _ in range(5):
        [held] = store.apply(Turn(now=NOW, slots=[Slot("mail", n, 1) for n in range(3)])).claims
        found.append(held.job)
        finish(store, outcome(held))
    assert found == ids([running, high, first, second, low])


def test_a_limit_holds_over_categories(store, new_job):
    add(store, *(new_job(category, terms=limited(1)) for category in ("a", "b", "a")))
    slots = [Slot(category, n, 1) for n, category in enumerate("abab")]
    for _ in range(3):
        [held] = store.apply(Turn(now=NOW, slots=slots)).claims
        finish(store, outcome(held))
    assert work(store, category="a") == work(store, category="b") == []


def test_a_job_with_several_limits_waits_for_all_of_them(store, new_job):
    one, other = new_job(terms=limited(1)), new_job(terms=Terms(limits=(Limit(M, 1),)))
    both = new_job(terms=limited(1, Limit(M, 1)))
    add(store, one, other, both)
    held = store.apply(Turn(now=NOW, slots=[Slot("mail", n, 1) for n in range(9)])).claims
    assert [found.job for found in held] == ids([one, other])
    finish(store, outcome(held[0]))
    assert work(store) == []
    finish(store, outcome(held[1]))
    assert work(store) == [both.id]


def test_jobs_that_name_two_limits_in_different_orders_both_wait(store, new_job):
    add(store, new_job(terms=limited(1)), new_job(terms=Terms(limits=(Limit(M, 1),))))
    running = [held for _ in range(2) for held in claim(store)]
    first = new_job(terms=limited(1, Limit(M, 1)))
    second = new_job(terms=Terms(limits=(Limit(M, 1), Limit(L, 1))))
    add(store, first, second)
    assert work(store) == []
    finish(store, outcome(running[0]))
    assert work(store) == []
    finish(store, outcome(running[1]))
    assert work(store) == [first.id]


@pytest.mark.parametrize("is_woken", [True, False])
@pytest.mark.parametrize("way", ["cancel", "delete", "expire"])
def test_a_job_at_a_limit_that_never_starts_lets_the_next_go_on(store, new_job, way, is_woken):
    running = new_job(terms=limited(1))
    doomed = new_job(terms=Terms(limits=limited(1).limits, expires_at=NOW + 40))
    after = new_job(terms=limited(1))
    add(store, running, doomed, after)
    [held] = claim(store)
    assert work(store) == []
    if is_woken:
        finish(store, outcome(held))
    if way != "expire":
        ask(store, **{way: [doomed.id]})
    if not is_woken:
        finish(store, outcome(held))
    assert work(store, now=NOW + 50) == [after.id]
    assert (store.get(doomed.id) is None) == (way == "delete")
    if way == "expire":
        assert store.get(doomed.id).error == EXPIRED


@pytest.mark.parametrize("state", [State.SCHEDULED, State.PENDING, State.FAILED, State.PARKED])
def test_however_a_run_ends_its_limit_is_free_again(store, new_job, state):
    first, second = (new_job(terms=limited(1)) for _ in range(2))
    add(store, first, second)
    [held] = claim(store)
    assert work(store) == []
    finish(store, outcome(held, state, due_at=NOW + 99))
    assert work(store) == [first.id if state is State.PENDING else second.id]


def test_a_raised_limit_lets_waiting_jobs_go_on(store, new_job):
    add(store, *(new_job(terms=limited(1)) for _ in range(5)))
    assert len(work(store)) == 1
    assert work(store) == []
    add(store, new_job(terms=limited(3)))
    assert len(work(store)) == 2


def test_a_lowered_limit_holds_from_then_on(store, new_job):
    add(store, *(new_job(terms=limited(3)) for _ in range(4)))
    held = store.apply(Turn(now=NOW, slots=[Slot("mail", n, 1) for n in range(9)])).claims
    add(store, new_job(terms=limited(1)))
    finish(store, outcome(held[0]), outcome(held[1]))
    assert work(store) == []
    finish(store, outcome(held[2]))
    assert len(work(store)) == 1


@pytest.mark.parametrize(("words", "count"), [((2, 1), 1), ((1, 2), 2), ((3, 1, 2), 2)])
def test_the_job_added_last_says_how_many_run_before_the_first_one_started(store, new_job, words, count):
    add(store, *(new_job(terms=limited(most)) for most in words))
    assert len(work(store)) == count


def test_a_woken_job_that_waits_at_another_limit_lets_the_next_go_on(store, new_job):
    one, other = new_job(terms=limited(1)), new_job(terms=Terms(limits=(Limit(M, 1),)))
    both, after = new_job(terms=limited(1, Limit(M, 1))), new_job(terms=limited(1))
    add(store, one, other, both, after)
    held = store.apply(Turn(now=NOW, slots=[Slot("mail", n, 1) for n in range(9)])).claims
    assert [found.job for found in held] == ids([one, other])
    finish(store, outcome(held[0]))
    assert work(store) == [after.id]


def test_recover_begins_all_limits_anew(store, new_job):
    jobs = [new_job(terms=limited(2)) for _ in range(4)]
    add(store, *jobs)
    assert work(store) == ids(jobs[:2])
    assert work(store) == []
    store.recover(NOW)
    assert work(store) == ids(jobs[:2])
    assert work(store) == []


def test_a_job_that_ends_does_not_bring_back_an_older_word_on_its_limit(store, new_job):
    add(store, new_job(terms=limited(3)))
    [held] = claim(store)
    add(store, *(new_job(terms=limited(1)) for _ in range(3)))
    finish(store, outcome(held))
    found = [claim(store, worker=worker) for worker in (1, 2, 3)]
    assert [len(claims) for claims in found] == [1, 0, 0]


# At most once


@pytest.mark.parametrize(
    "end",
    [
        lambda store, held: finish(store, outcome(held, State.PENDING)),
        lambda store, held: finish(store, outcome(held, State.SCHEDULED, due_at=NOW)),
        lambda store, held: give_back(store, held, interrupted=True),
        lambda store, _held: store.recover(NOW),
    ],
    ids=["crashed", "to be retried", "interrupted", "recovered"],
)
def test_a_job_that_runs_at_most_once_has_failed_when_it_did_not_complete(store, new_job, end):
    job = new_job(terms=ONCE)
    add(store, job)
    [held] = claim(store)
    end(store, held)
    now = status(store, job)
    assert (now.state, now.attempt) == (State.FAILED, 1)
    assert store.get(job.id).error is not None
    store.apply(Turn(now=NOW + 9, release=9))
    assert work(store) == []


def test_a_job_that_runs_at_most_once_and_had_not_started_goes_back_to_its_place(store, new_job):
    job, other = new_job(terms=ONCE), new_job()
    add(store, job, other)
    [held] = claim(store)
    give_back(store, held)
    assert (status(store, job).state, status(store, job).attempt) == (State.PENDING, 0)
    assert work(store) == ids([job, other])


def test_a_job_that_runs_at_most_once_may_be_snoozed(store, new_job):
    job = new_job(terms=ONCE)
    add(store, job)
    finish(store, outcome(claim(store)[0], State.SCHEDULED, due_at=NOW + 9, unspent=True))
    assert (status(store, job).state, status(store, job).attempt) == (State.SCHEDULED, 0)


# Alone


@pytest.mark.parametrize("terms", [ONCE, limited(3)], ids=["at most once", "limited"])
def test_a_job_that_is_to_be_alone_goes_to_a_worker_that_holds_nothing(store, new_job, terms):
    first, alone, last = new_job(), new_job(terms=terms), new_job()
    add(store, first, alone, last)
    slots = [Slot("mail", 1, 9, is_busy=True), Slot("mail", 2, 9)]
    result = store.apply(Turn(now=NOW, slots=slots))
    assert [(held.worker, held.job) for held in result.claims] == [(1, first.id), (2, alone.id), (1, last.id)]
    assert result.blocked == []


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_job_that_is_to_be_alone_blocks_its_category_where_no_worker_is_free(store, new_job, is_busy):
    first, alone, last, elsewhere = new_job(), new_job(terms=ONCE), new_job(), new_job("other")
    add(store, first, alone, last, elsewhere)
    slots = [Slot("mail", 1, 9, is_busy=is_busy), Slot("other", 2, 9, is_busy=True)]
    result = store.apply(Turn(now=NOW, slots=slots))
    assert [held.job for held in result.claims] == ids([first, elsewhere])
    assert result.blocked == ["mail"]
    assert work(store) == ids([alone, last])


def test_a_category_without_room_is_not_blocked(store, new_job):
    add(store, new_job(), new_job(terms=ONCE))
    assert store.apply(Turn(now=NOW, slots=[Slot("mail", 1, 1), Slot("mail", 2, 0)])).blocked == []


def test_a_worker_gets_nothing_beside_a_job_that_is_alone(store, new_job):
    alone, other = new_job(terms=ONCE), new_job()
    add(store, alone, other)
    assert [held.job for held in claim(store, limit=9)] == [alone.id]


# Expiry


def test_a_job_expires_at_the_claim_and_no_earlier_one_does(store, new_job):
    late, in_time = (new_job(terms=Terms(expires_at=NOW + n)) for n in (5, 6))
    add(store, late, in_time)
    assert store.apply(Turn(now=NOW + 99)).stats["mail"][State.PENDING] == 2
    assert work(store, now=NOW + 5) == [in_time.id]
    stored = store.get(late.id)
    assert (stored.status.state, stored.status.ended_at, stored.error) == (State.CANCELLED, NOW + 5, EXPIRED)
    assert listed(store, State.CANCELLED) == [late.id]


@pytest.mark.parametrize("was_seen", [True, False])
def test_a_job_expires_when_its_turn_comes_not_while_it_waits_at_a_limit(store, new_job, was_seen):
    add(store, new_job(terms=limited(1)))
    [held] = claim(store)
    late = new_job(terms=Terms(limits=limited(1).limits, expires_at=NOW + 5))
    add(store, late)
    for now in (NOW + 1, NOW + 9)[not was_seen :]:
        assert work(store, now=now) == []
        assert status(store, late).state is State.PENDING
    finish(store, outcome(held))
    assert work(store, now=NOW + 9) == []
    assert status(store, late).state is State.CANCELLED


def test_a_job_that_started_in_time_may_end_and_crash_later(store, new_job):
    job = new_job(terms=Terms(expires_at=NOW + 5))
    add(store, job)
    [held] = claim(store)
    finish(store, outcome(held, State.PENDING), now=NOW + 9)
    assert status(store, job).state is State.PENDING
    assert work(store, now=NOW + 9) == []
    assert status(store, job).state is State.CANCELLED


def test_an_expired_job_frees_its_key(store, new_job):
    add(store, new_job(terms=Terms(unique=KEY, expires_at=NOW + 1)))
    assert work(store, now=NOW + 1) == []
    assert ask(store, jobs=[new_job(terms=UNIQUE, on_conflict="refuse")]) == Accepted()


# Terms that a worker found


def found_terms(held, terms):
    return Outcome(
        held.job, held.number, State.PENDING, NOW, NOW, None, JobError("its terms"), unspent=True, terms=terms
    )


def test_a_job_whose_terms_were_found_is_claimed_again_under_them_at_its_place(store, new_job):
    job, other = new_job(), new_job()
    add(store, job, other)
    [held] = claim(store)
    assert not held.has_terms
    finish(store, found_terms(held, ONCE))
    now = status(store, job)
    assert (now.state, now.terms, now.attempt, now.crashes, now.sequence) == (State.PENDING, ONCE, 0, 0, 1)
    [held] = claim(store, limit=9)
    assert (held.job, held.attempt, held.has_terms) == (job.id, 1, True)
    finish(store, outcome(held, State.PENDING))
    assert status(store, job).state is State.FAILED


def test_limits_that_were_found_hold_at_once(store, new_job):
    running, unknown, known = new_job(terms=limited(2), priority=1), new_job(), new_job(terms=limited(2))
    add(store, running, unknown, known)
    claim(store)
    [held] = claim(store)
    finish(store, found_terms(held, limited(1)))
    assert work(store) == []


def test_a_cancelled_job_whose_terms_were_found_had_not_started(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    cancel(store, job.id)
    finish(store, found_terms(held, ONCE))
    assert status(store, job).state is State.CANCELLED
    assert store.get(job.id).error == JobError("cancelled: before it had started")


def test_a_job_whose_terms_were_found_completes_without_the_error_that_said_so(store, new_job):
    job = new_job()
    add(store, job)
    finish(store, found_terms(claim(store)[0], ONCE))
    [held] = claim(store)
    finish(store, Outcome(job.id, held.number, State.COMPLETED, NOW, NOW))
    assert (store.get(job.id).result, store.get(job.id).error) == (None, None)


# Snoozing


def test_a_snoozed_job_that_completes_without_a_result_keeps_no_error(store, new_job):
    job = new_job()
    add(store, job)
    [held] = claim(store)
    snooze = Outcome(job.id, held.number, State.SCHEDULED, NOW, NOW, None, BROKEN, NOW, unspent=True)
    finish(store, snooze)
    [held] = store.apply(Turn(now=NOW, release=1, slots=[Slot("mail", 1, 1)])).claims
    assert held.attempt == 1
    finish(store, Outcome(job.id, held.number, State.COMPLETED, NOW, NOW))
    assert (store.get(job.id).result, store.get(job.id).error) == (None, None)


def test_terms_that_were_found_come_beside_those_that_a_job_has(store, new_job):
    own = Terms(unique=KEY, limits=(Limit(L, 1),), is_partial=True)
    job = new_job(terms=own)
    add(store, job)
    [held] = claim(store)
    assert not held.has_terms
    finish(store, found_terms(held, Terms(at_most_once=True, limits=(Limit(M, 2),))))
    both = Terms(at_most_once=True, unique=KEY, limits=(Limit(L, 1), Limit(M, 2)))
    assert status(store, job).terms == both
    [held] = claim(store)
    assert (held.job, held.has_terms) == (job.id, True)
    add(store, new_job(terms=limited(1)))
    assert work(store) == []
    finish(store, outcome(held, State.PENDING))
    assert status(store, job).state is State.FAILED
    assert len(work(store)) == 1
