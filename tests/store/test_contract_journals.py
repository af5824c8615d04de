"""What every store does with the entries of journals, each of which it takes in once."""

import pytest
from turns import NOW, add, ask, claim, counts, finish, give_back, ids, outcome, status

from jobsched.job import State, Terms
from jobsched.schedule import PutSchedule, Schedule
from jobsched.store.base import Accepted, Claim, Refused, Request, Slot, Turn
from jobsched.store.journal_marks import Span

ONE, OTHER = "1a" * 16, "2b" * 16
NIGHTLY = Schedule(name="nightly", task="t:t", category="mail", trigger=["once", NOW])


def take_in(store, spans, *jobs, **rest):
    """Have jobs taken in that are in these entries: journal, first, last. Return the reply."""
    request = Request(jobs=jobs, taken=[Span(*span) for span in spans])
    return store.apply(Turn(now=NOW, requests=[request], **rest)).replies[-1]


def waiting(store, limit=99):
    """Return the jobs in the order in which they are claimed."""
    return [held.job for held in claim(store, limit)]


def test_a_store_has_no_journals_at_first(store):
    assert store.journals() == {}


def test_jobs_of_entries_are_added_in_order_and_the_last_number_is_kept(store, new_job):
    jobs = [new_job() for _ in range(40)]
    assert take_in(store, [(ONE, 1, 3), (OTHER, 1, 5)], *jobs) == Accepted()
    assert store.journals() == {ONE: 3, OTHER: 5}
    assert waiting(store) == ids(jobs)
    more = new_job()
    assert take_in(store, [(ONE, 4, 4)], more) == Accepted()
    assert store.journals() == {ONE: 4, OTHER: 5}
    assert status(store, more).state is State.PENDING


@pytest.mark.parametrize("spans", [[(ONE, 1, 3)], [(ONE, 2, 3)], [(ONE, 3, 3), (OTHER, 1, 1)]])
def test_entries_that_the_store_has_are_not_taken_in_again_though_their_jobs_are_gone(store, new_job, spans):
    job = new_job()
    take_in(store, [(ONE, 1, 3), (OTHER, 1, 1)], job)
    ask(store, delete=[job.id])
    assert take_in(store, spans, job) == Accepted()
    assert store.get(job.id) is None
    assert store.journals() == {ONE: 3, OTHER: 1}


@pytest.mark.parametrize(
    "spans",
    [[(ONE, 5, 5)], [(ONE, 3, 4)], [(ONE, 4, 4), (OTHER, 2, 2)], [(ONE, 1, 3), (OTHER, 1, 1)]],
    ids=["one is missing", "one is known", "one is missing in another", "another is known"],
)
def test_entries_that_are_not_the_next_ones_are_refused_whole(store, new_job, spans):
    take_in(store, [(ONE, 1, 3)])
    reply = take_in(store, spans, job := new_job())
    assert isinstance(reply, Refused)
    assert reply.kind == "StoreError"
    assert "cannot be taken in" in reply.reason
    assert store.get(job.id) is None
    assert store.journals() == {ONE: 3}


def test_a_job_that_its_client_has_asked_for_as_well_is_one_job(store, new_job):
    """Its answer got lost after the entry was written."""
    job, other = new_job(), new_job()
    add(store, job)
    assert take_in(store, [(ONE, 1, 2)], job, other) == Accepted()
    assert waiting(store) == [job.id, other.id]
    assert counts(store) == {State.IN_PROGRESS: 2}


def test_entries_come_before_the_other_requests_of_their_turn_wherever_they_stand(store, new_job):
    job, cancelled, later = new_job(), new_job(), new_job()
    result = store.apply(
        Turn(
            now=NOW,
            requests=[
                Request(jobs=[later]),
                Request(cancel=[cancelled.id]),
                Request(jobs=[job, cancelled], taken=[Span(ONE, 1, 2)]),
            ],
            slots=[Slot("mail", 1, 9)],
        )
    )
    assert result.replies == [Accepted(), Accepted([State.CANCELLED]), Accepted()]
    assert [held.job for held in result.claims] == [job.id, later.id]


def test_entries_come_before_what_an_outcome_carries(store, new_job):
    add(store, new_job())
    [held] = claim(store)
    job, carried = new_job(), new_job()
    done = outcome(held, carried=Request(jobs=[carried]))
    take_in(store, [(ONE, 1, 1)], job, outcomes=[done])
    assert waiting(store) == [job.id, carried.id]


def test_a_due_time_is_kept(store, new_job):
    take_in(store, [(ONE, 1, 1)], job := new_job(due_at=NOW + 5))
    assert status(store, job).state is State.SCHEDULED


def test_a_refused_request_beside_them_changes_nothing_for_entries(store, new_job):
    job, refused = new_job(), new_job()
    result = store.apply(
        Turn(
            now=NOW,
            requests=[
                Request(jobs=[refused], max_pending={"mail": 1}),
                Request(jobs=[job], taken=[Span(ONE, 1, 1)]),
            ],
        )
    )
    assert [type(reply) for reply in result.replies] == [Refused, Accepted]
    assert waiting(store) == [job.id]


def test_schedules_of_the_same_turn_are_put(store, new_job):
    put = Request(schedules=[PutSchedule(NIGHTLY, NOW + 9, NOW + 9, 0)])
    request = Request(jobs=[new_job()], taken=[Span(ONE, 1, 1)])
    assert store.apply(Turn(now=NOW, requests=[put, request])).replies == [Accepted(), Accepted()]
    assert store.schedule("nightly").state.next_at == NOW + 9


def test_a_forgotten_journal_begins_anew(store, new_job):
    take_in(store, [(ONE, 1, 3), (OTHER, 1, 1)], new_job())
    store.apply(Turn(now=NOW, forget_journals=[ONE, "3c" * 16]))
    assert store.journals() == {OTHER: 1}
    assert take_in(store, [(ONE, 1, 1)], new_job()) == Accepted()


def test_entries_are_known_after_a_finish_and_an_empty_turn(store, new_job):
    take_in(store, [(ONE, 1, 1)], new_job())
    finish(store, outcome(*claim(store)))
    store.apply(Turn(now=NOW))
    assert store.journals() == {ONE: 1}


def test_the_marks_outlive_the_store_and_a_new_node(reopen, new_job):
    take_in(reopen(), [(ONE, 1, 7)], new_job())
    store = reopen()
    store.recover(NOW)
    assert store.journals() == {ONE: 7}
    assert isinstance(take_in(store, [(ONE, 9, 9)], new_job()), Refused)


def test_entries_come_in_over_the_quota_and_leave_no_room_for_what_was_dispatched_later(
    tmp_path, open_durable, new_job
):
    """They were accepted; and they come first, though they stand behind the others."""
    store = open_durable(tmp_path / "small", 1 << 20)
    entries = Request(jobs=[new_job(argument=bytes(900_000))], taken=[Span(ONE, 1, 1)])
    later = Request(jobs=[new_job()])
    pause = Request(pause={"mail": 0})
    result = store.apply(Turn(now=NOW, requests=[later, pause, entries]))
    assert [type(reply) for reply in result.replies] == [Refused, Accepted, Accepted]
    assert result.replies[0].kind == "StoreFull"
    assert result.is_over
    assert not store.apply(Turn(now=NOW, requests=[later])).is_over
    store.close()


def begin(store, number, *jobs, **rest):
    """Take jobs in that run already, from a number of claims on."""
    claims = [Claim(number + place, 8, 1, job.id, job.record) for place, job in enumerate(jobs)]
    request = Request(jobs=jobs, taken=[Span(ONE, 1, 1)])
    return store.apply(Turn(now=NOW, requests=[request], begun=claims, **rest))


def test_a_job_that_runs_already_is_in_progress_and_the_next_claims_come_behind_it(store, new_job):
    add(store, new_job())
    [earlier] = claim(store)
    jobs = [new_job(), new_job(category="reports")]
    result = begin(store, earlier.number + 1, *jobs, slots=[Slot("mail", 1, 9)])
    assert [(held.job, held.number) for held in result.claims] == [
        (job.id, earlier.number + 1 + place) for place, job in enumerate(jobs)
    ]
    assert (result.last_claim, result.lost) == (earlier.number + 2, [])
    found = status(store, jobs[0])
    assert (found.state, found.attempt, found.worker) == (State.IN_PROGRESS, 1, 8)
    assert counts(store, "reports") == {State.IN_PROGRESS: 1}
    assert store.in_progress()[8] == [job.id for job in jobs]
    assert finish(store, *map(outcome, result.claims)).lost == []
    add(store, new_job())
    assert [held.number for held in claim(store)] == [earlier.number + 3]


def test_a_job_that_is_begun_twice_or_is_not_there_is_lost(store, new_job):
    job, missing = new_job(), new_job()
    begin(store, 1, job)
    again = [Claim(2, 8, 1, job.id, job.record), Claim(3, 8, 1, missing.id, missing.record)]
    result = store.apply(Turn(now=NOW, begun=again))
    assert (result.claims, result.lost, result.last_claim) == ([], [2, 3], 1)
    assert status(store, job).claim == 1


def test_a_number_that_is_not_behind_the_last_is_lost(store, new_job):
    add(store, new_job())
    [earlier] = claim(store)
    result = begin(store, earlier.number, job := new_job())
    assert (result.claims, result.lost) == ([], [earlier.number])
    assert status(store, job).state is State.PENDING


def test_a_job_with_terms_or_of_earlier_claims_does_not_begin(store, new_job):
    job, limited = new_job(), new_job(terms=Terms(at_most_once=True))
    add(store, job)
    [held] = claim(store)
    give_back(store, held)
    result = begin(store, held.number + 1, job, limited)
    assert (result.claims, len(result.lost)) == ([], 2)
    assert counts(store) == {State.PENDING: 2}


def test_a_job_of_entries_that_are_refused_does_not_begin(store, new_job):
    claims = [Claim(1, 8, 1, (job := new_job()).id, job.record)]
    request = Request(jobs=[job], taken=[Span(ONE, 7, 7)])
    result = store.apply(Turn(now=NOW, requests=[request], begun=claims))
    assert (result.claims, result.lost) == ([], [1])
