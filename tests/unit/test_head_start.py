"""Which jobs start before their claims are committed."""

import os

import pytest
from crews import NOW, job_id

from jobsched.head_start import HeadStart
from jobsched.job import JobError, State, Terms
from jobsched.store.base import (
    CategoryStats,
    Claim,
    GiveBack,
    NewJob,
    Outcome,
    Request,
    Slot,
    Turn,
    TurnResult,
)
from jobsched.store.journal_marks import Span

EMPTY = CategoryStats([0] * len(State))


def committed(*claims, lost=(), last=10):
    return TurnResult(
        replies=[], lost=list(lost), claims=list(claims), released=0, next_due=None, stats={}, last_claim=last
    )


def come(*numbers, category="mail", due_at=0):
    jobs = [NewJob(job_id(number), "m:f", category, 0, due_at, b"record") for number in numbers]
    return Request(jobs=jobs, taken=[Span("1a" * 16, 1, len(jobs))])


def waiting(count, *, paused=False):
    return CategoryStats([count if state is State.PENDING else 0 for state in State], paused)


def ended(state, carried=None):
    error = None if state is State.COMPLETED else JobError("no")
    return Outcome(job_id(9), 9, state, 1, 2, None, error, carried=carried)


@pytest.fixture
def begin(crew):
    """A function that makes a head start after a committed turn, with one worker at home in each category,
    and begins; it returns the claims, the head start and the crew.
    """

    def make(
        request,
        stats=None,
        *,
        categories="[categories.mail]\n[categories.reports]\n",
        known=frozenset(),
        **crew_has,
    ):
        made = crew(categories)
        made.target(**dict.fromkeys(made.supervisors, 1))
        for name, value in crew_has.items():
            setattr(made, name, value)
        head_start = HeadStart(made, made.supervisors, dict.fromkeys(known, True).get)
        head_start.hand_out(Turn(now=1), committed(), NOW)
        head_start.begin(request, stats or {}, NOW)
        return head_start.begun, head_start, made

    return make


def test_a_job_starts_at_an_idle_worker_of_its_category(begin):
    claims, head_start, crew = begin(come(1), {"mail": EMPTY})
    [worker] = [worker for worker in crew.pool.workers.values() if worker.home == "mail"]
    assert claims == [Claim(11, worker.number, 1, job_id(1), b"record")]
    assert head_start.slots == [Slot("mail", worker.number, 0)]
    assert [held.claim for held in worker.held] == [11]
    assert os.read(crew.preloader.tokens[worker.number], 9)


def test_each_category_has_its_own(begin):
    request = Request(jobs=[*come(1).jobs, *come(2, category="reports").jobs], taken=come(1).taken)
    claims, _, crew = begin(request)
    assert [(claim.number, crew.pool.workers[claim.worker].home) for claim in claims] == [
        (11, "mail"),
        (12, "reports"),
    ]


@pytest.mark.parametrize("stats", [waiting(1), waiting(0, paused=True)], ids=["others wait", "paused"])
def test_none_starts_where_another_job_may_come_first(begin, stats):
    assert begin(come(1), {"mail": stats})[0] == []


def test_none_starts_where_not_all_find_a_worker(begin):
    assert begin(come(1, 2))[0] == []


def test_a_delayed_job_does_not_start_and_keeps_none_from_it(begin):
    request = Request(jobs=[*come(1, due_at=5).jobs, *come(2).jobs], taken=come(1).taken)
    assert [claim.job for claim in begin(request)[0]] == [job_id(2)]


@pytest.mark.parametrize(
    "news",
    [
        {"give_back": [GiveBack(job_id(9), 9)]},
        {"outcomes": [ended(State.PENDING)]},
        {"outcomes": [ended(State.SCHEDULED)]},
        {"outcomes": [ended(State.COMPLETED, carried=come(5))]},
    ],
    ids=["given back", "crashed", "tried again", "dispatches"],
)
def test_none_starts_in_a_turn_that_puts_other_jobs_into_queues(begin, news):
    assert begin(come(1), **news)[0] == []


def test_none_starts_that_is_known_or_comes_twice(begin):
    assert begin(come(1), known={job_id(1)})[0] == []
    twice = Request(jobs=[*come(1).jobs, *come(1, category="reports").jobs], taken=come(1).taken)
    assert len(begin(twice)[0]) == 1


def test_none_starts_that_has_terms_or_a_category_that_is_not_configured(begin):
    limited = [NewJob(job_id(1), "m:f", "mail", 0, 0, b"record", Terms(at_most_once=True))]
    assert begin(Request(jobs=limited, taken=come(1).taken))[0] == []
    assert begin(come(1, category="gone"))[0] == []


def test_the_end_of_another_job_hinders_nothing(begin):
    assert len(begin(come(1), outcomes=[ended(State.COMPLETED)])[0]) == 1


def test_no_more_start_than_the_category_may_run_and_its_rate_allows(begin):
    none = "[categories.mail]\nmax_workers = 1\n[categories.reports]\n"
    claims, head_start, crew = begin(come(1), categories=none)
    assert len(claims) == 1
    crew.target(mail=2)
    head_start.hand_out(Turn(now=1), committed(*claims, last=11), NOW)
    head_start.begin(come(2), {}, NOW)
    assert head_start.begun == []
    rated = "[categories.mail]\nrate = '1/h'\n"
    claims, head_start, crew = begin(come(1), categories=rated)
    crew.target(mail=2)
    head_start.hand_out(Turn(now=1), committed(*claims, last=11), NOW)
    head_start.begin(come(2), {}, NOW)
    assert head_start.begun == []


def test_none_starts_before_a_turn_is_committed_nor_after_one_that_was_not(begin, crew):
    made = crew()
    made.target(mail=1)
    first = HeadStart(made, made.supervisors, {}.get)
    first.begin(come(1), {}, NOW)
    assert first.begun == []
    _, later, made = begin(come(1))
    later.undo()
    made.target(mail=2)
    later.begin(come(2), {}, NOW)
    assert later.begun == []


def test_what_was_begun_is_not_handed_out_again_and_the_rest_is(begin):
    claims, head_start, crew = begin(come(1))
    [other] = [worker for worker in crew.pool.workers.values() if worker.home == "reports"]
    rest = Claim(12, other.number, 1, job_id(2), b"record")
    turn = Turn(now=1, slots=[*head_start.slots, Slot("reports", other.number, 1)])
    head_start.hand_out(turn, committed(*claims, rest, last=12), NOW)
    assert [len(worker.held) for worker in crew.pool.workers.values()] == [1, 1]
    assert (head_start.begun, head_start.slots, crew.preloader.killed) == ([], [], [])
    assert not head_start.is_undoing


def test_another_claim_may_have_the_number_of_one_that_was_begun_in_vain(begin):
    claims, head_start, crew = begin(come(1))
    take_token(crew, claims)
    [other] = [worker for worker in crew.pool.workers.values() if worker.home == "reports"]
    made = Claim(11, other.number, 1, job_id(2), b"record")
    turn = Turn(now=1, slots=[*head_start.slots, Slot("reports", other.number, 1)])
    head_start.hand_out(turn, committed(made, lost=[11], last=11), NOW)
    assert [held.job for held in other.held] == [job_id(2)]
    assert crew.preloader.killed == [claims[0].worker]


def test_a_late_outcome_of_the_same_number_undoes_nothing(begin):
    claims, head_start, crew = begin(come(1))
    take_token(crew, claims)
    head_start.hand_out(Turn(now=1, slots=head_start.slots), committed(*claims, lost=[11], last=11), NOW)
    assert crew.preloader.killed == []


def take_token(crew, claims):
    os.read(crew.preloader.tokens[claims[0].worker], 1)


@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "not committed"])
def test_a_worker_that_has_started_in_vain_is_killed_and_nothing_is_claimed_until_it_is_gone(begin, is_lost):
    claims, head_start, crew = begin(come(1))
    take_token(crew, claims)
    if is_lost:
        head_start.hand_out(Turn(now=1, slots=head_start.slots), committed(lost=[11], last=10), NOW)
    else:
        head_start.undo()
    assert crew.preloader.killed == [claims[0].worker]
    assert head_start.is_undoing
    worker = crew.pool.workers.pop(claims[0].worker)
    assert not head_start.is_undoing
    worker.close()


def test_one_that_has_not_started_is_taken_back(begin):
    claims, head_start, crew = begin(come(1))
    head_start.undo()
    assert (crew.preloader.killed, crew.give_back) == ([], [])
    assert crew.pool.workers[claims[0].worker].is_idle
    assert not head_start.is_undoing
