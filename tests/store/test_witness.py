"""Each transition gives its event, through real turns of every store."""

import pytest
from turns import BROKEN, NOW, outcome

from jobsched import event as events
from jobsched.job import ParkedFor, State, Terms
from jobsched.job_id import format_id, new_id
from jobsched.report import Decision
from jobsched.schedule import (
    FiringKind,
    FiringRecord,
    PutSchedule,
    RemoveSchedule,
    RunSchedule,
    Schedule,
    SwitchSchedule,
)
from jobsched.store.base import Claim, Firing, GiveBack, Outcome, Request, Slot, Turn
from jobsched.store.journal_marks import Span
from jobsched.store.moves import Watch
from jobsched.store.retention import Prune
from jobsched.witness import Witness

KEY = Terms(unique=b"k" * 16)
ABOUT = {"at": NOW, "task": "shop.tasks:send", "category": "mail"}
WHY = BROKEN.cause


class Watched:
    """A store whose turns are turned into events."""

    def __init__(self, store) -> None:
        self.store = store
        self.witness = Witness(store.get)

    def turn(self, *, now=NOW, watch=Watch.ALL, **parts):
        """Apply a turn; return its events."""
        turn = Turn(now=now, watch=watch, **parts)
        self.result = self.store.apply(turn)
        return list(self.witness.events(turn, self.result))

    def ask(self, **changes):
        return self.turn(requests=[Request(**changes)])

    def claim(self, limit=1, **parts):
        """Claim jobs; return the claims."""
        self.turn(slots=[Slot("mail", WORKER, limit)], **parts)
        return self.result.claims

    def end(self, state, job, **parts):
        """Have a job run and end; return the events of its end."""
        self.ask(jobs=[job])
        [held] = self.claim()
        return self.turn(outcomes=[outcome(held, state, **parts)])


WORKER = (3 << 32) + 7  # as a node numbers them


@pytest.fixture
def watched(store):
    return Watched(store)


def about(job):
    return ABOUT | {"job": format_id(job.id)}


def test_a_dispatched_job_is_claimed_in_the_same_turn(watched, new_job):
    job = new_job()
    assert watched.turn(requests=[Request(jobs=[job])], slots=[Slot("mail", WORKER, 1)]) == [
        events.JobDispatched(**about(job), priority=0, due_at=0),
        events.JobStarted(**about(job), attempt=1, worker=7),
    ]


def test_a_job_that_runs_before_its_claim_is_told_of_once_and_one_begun_in_vain_not_at_all(watched, new_job):
    job, gone = new_job(), new_job()
    entries = Request(jobs=[job], taken=[Span("1a" * 16, 1, 1)])
    begun = [Claim(1, WORKER, 1, job.id, job.record), Claim(2, WORKER + 1, 1, gone.id, gone.record)]
    slots = [Slot("mail", WORKER, 0), Slot("mail", WORKER + 1, 0)]
    assert watched.turn(requests=[entries], begun=begun, slots=slots) == [
        events.JobDispatched(**about(job), priority=0, due_at=0),
        events.JobStarted(**about(job), attempt=1, worker=7),
    ]
    [done] = watched.turn(outcomes=[outcome(begun[0]), outcome(begun[1])])
    assert (done.kind, done.job) == ("job.completed", format_id(job.id))


def test_many_dispatched_jobs_are_told_one_by_one_and_a_repeated_one_is_not(watched, new_job):
    jobs = [new_job(priority=3) for _ in range(20)]
    told = watched.ask(jobs=jobs)
    assert told == [events.JobDispatched(**about(job), priority=3, due_at=0) for job in jobs]
    assert watched.ask(jobs=jobs) == []


def test_a_delayed_job_is_queued_when_it_is_due(watched, new_job):
    job = new_job(due_at=NOW + 5)
    assert watched.ask(jobs=[job]) == [events.JobDispatched(**about(job), priority=0, due_at=NOW + 5)]
    due = about(job) | {"at": NOW + 5}
    assert watched.turn(now=NOW + 5, release=9) == [events.JobQueued(**due, was="scheduled")]


def test_a_job_stands_for_one_with_the_same_key(watched, new_job):
    job = new_job(terms=KEY)
    watched.ask(jobs=[job])
    assert watched.ask(jobs=[new_job(terms=KEY)]) == [events.JobKept(**about(job))]


def test_a_refused_request_tells_nothing(watched, new_job):
    watched.ask(jobs=[new_job(terms=KEY)])
    assert watched.ask(jobs=[new_job(), new_job(terms=KEY, on_conflict="refuse")]) == []


def test_a_job_completes(watched, new_job):
    job = new_job()
    ran = {"attempt": 1, "worker": 7, "started_at": NOW + 3, "ended_at": NOW + 5}
    assert watched.end(State.COMPLETED, job) == [events.JobCompleted(**about(job), **ran)]


def test_a_job_that_was_claimed_unwatched_completes(watched, new_job):
    job = new_job()
    [held] = watched.claim(requests=[Request(jobs=[job])], watch=Watch.NOTHING)
    [told] = watched.turn(outcomes=[outcome(held)])
    assert (told.task, told.category, told.attempt, told.worker) == ("shop.tasks:send", "mail", 1, 7)


def test_a_run_that_completes_with_what_it_dispatches_has_failed_where_that_is_refused(watched, new_job):
    parent, child = new_job(), new_job()
    [held] = watched.claim(requests=[Request(jobs=[parent])])
    ran = {"attempt": 1, "worker": 7}
    told = watched.turn(outcomes=[outcome(held, carried=Request(jobs=[child]))])
    assert {event.kind for event in told} == {"job.completed", "job.dispatched"}
    [held] = watched.claim(requests=[Request(jobs=[new_job(terms=KEY)])])
    refused = Request(jobs=[new_job(terms=KEY, on_conflict="refuse")])
    [claimed] = watched.claim()
    assert claimed.job != held.job
    [told] = watched.turn(outcomes=[outcome(claimed, carried=refused)])
    assert (told.kind, told.attempt, told.worker) == ("job.failed", *ran.values())


def test_an_outcome_that_came_too_late_tells_nothing(watched, new_job):
    [held] = watched.claim(requests=[Request(jobs=[new_job()])])
    watched.turn(give_back=[GiveBack(held.job, held.number)])
    assert watched.turn(outcomes=[outcome(held), outcome(held, State.FAILED)]) == []


RUN = {"worker": 7, "cause": WHY}
WRONG = {
    State.FAILED: ({}, events.JobFailed, RUN | {"attempt": 1}),
    State.SCHEDULED: (
        {"due_at": NOW + 9},
        events.JobRetried,
        RUN | {"attempt": 1, "due_at": NOW + 9},
    ),
    State.PENDING: ({}, events.JobRetried, RUN | {"attempt": 0, "due_at": 0}),
    State.CANCELLED: ({}, events.JobCancelled, {"was": "in_progress", "cause": WHY}),
    State.PARKED: (
        {"parked_for": ParkedFor.UNKNOWN_TASK},
        events.JobParked,
        {"reason": "unknown_task", "cause": WHY},
    ),
}


@pytest.mark.parametrize("watch", [Watch.ALL, Watch.TROUBLE])
@pytest.mark.parametrize("state", WRONG)
def test_a_run_that_went_wrong_is_told_with_its_cause_also_unwatched(watched, new_job, state, watch):
    parts, kind, more = WRONG[state]
    job = new_job()
    [held] = watched.claim(requests=[Request(jobs=[job])])
    told = watched.turn(outcomes=[outcome(held, state, **parts)], watch=watch)
    if watch is Watch.TROUBLE and state is State.PENDING:  # it runs again, and may be quarantined
        assert told == []
    else:
        assert told == [kind(**about(job), **more)]


def test_a_job_that_kills_its_workers_is_quarantined(watched, new_job):
    job = new_job()
    told = watched.end(State.PENDING, job)
    for _ in range(2):
        assert told[0].kind == "job.retried"
        [held] = watched.claim()
        told = watched.turn(outcomes=[outcome(held, State.PENDING)])
    assert told == [events.JobQuarantined(**about(job), crashes=3, cause=WHY)]


def test_the_store_may_know_better_than_the_outcome_what_became_of_a_job(watched, new_job):
    job = new_job()
    [held] = watched.claim(requests=[Request(jobs=[job])])
    assert watched.ask(cancel=[job.id]) == []  # it runs, and is asked to end
    [told] = watched.turn(outcomes=[outcome(held, State.SCHEDULED, due_at=NOW + 9)])
    assert told == events.JobCancelled(
        **about(job), was="in_progress", cause="cancelled: instead of being tried again"
    )


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_claim_is_given_back(watched, new_job, interrupted):
    job = new_job()
    [held] = watched.claim(requests=[Request(jobs=[job])])
    told = watched.turn(give_back=[GiveBack(held.job, held.number, interrupted)])
    assert told == [events.JobGivenBack(**about(job), interrupted=interrupted)]


def test_terms_that_a_worker_has_found_give_the_claim_back(watched, new_job):
    job = new_job()
    [held] = watched.claim(requests=[Request(jobs=[job])])
    found = Outcome(held.job, held.number, State.PENDING, NOW, NOW, error=BROKEN, terms=Terms())
    assert watched.turn(outcomes=[found]) == [events.JobGivenBack(**about(job), interrupted=False)]


def test_an_expired_job_is_told_as_one(watched, new_job):
    job = new_job(terms=Terms(expires_at=NOW))
    watched.ask(jobs=[job])
    assert watched.turn(slots=[Slot("mail", WORKER, 1)]) == [events.JobExpired(**about(job))]


def test_what_an_operator_does_to_jobs_is_told(watched, new_job):
    job, other = new_job(), new_job()
    watched.ask(jobs=[job, other])
    cancelled = events.JobCancelled(**about(job), was="pending", cause="")
    assert watched.ask(cancel=[job.id, new_id()]) == [cancelled]
    assert watched.ask(cancel=[job.id]) == []
    assert watched.ask(retry=[job.id]) == [events.JobQueued(**about(job), was="cancelled")]
    assert watched.ask(delete=[other.id]) == [events.JobDeleted(**about(other), was="pending")]
    assert watched.ask(delete=[other.id]) == []


def test_a_job_whose_key_another_takes_over_is_told_as_cancelled(watched, new_job):
    old, new = new_job(terms=KEY), new_job(terms=KEY, on_conflict="replace")
    watched.ask(jobs=[old])
    assert watched.ask(jobs=[new]) == [
        events.JobCancelled(**about(old), was="pending", cause=f"replaced by job {new.id.hex()}"),
        events.JobDispatched(**about(new), priority=0, due_at=0),
    ]


def test_pruning_is_told_in_summary(watched, new_job):
    for _ in range(3):
        watched.end(State.COMPLETED, new_job())
    order = Prune(state=State.COMPLETED, before=NOW + 99, keep=None, settled=0, limit=9)
    assert watched.turn(prune=[order], watch=Watch.TROUBLE) == [events.JobsPruned(at=NOW, count=3)]


def test_a_damaged_record_has_no_task(watched, new_job):
    job = new_job()
    watched.ask(jobs=[type(job)(job.id, job.task, job.category, 0, 0, b"nonsense")])
    [told] = watched.ask(cancel=[job.id])
    assert (told.task, told.category) == ("", "mail")


def test_the_moves_of_a_turn_are_bounded_and_those_left_out_are_counted(watched, new_job, monkeypatch):
    monkeypatch.setattr("jobsched.store.moves._MOST", 30)
    jobs = [new_job() for _ in range(40)]
    assert len(watched.ask(jobs=jobs)) == 30
    assert watched.result.untold == 10


def test_unwatched_nothing_is_told_of_jobs_that_fare_well(watched, new_job):
    jobs = [new_job() for _ in range(20)]
    for watch in (Watch.NOTHING, Watch.TROUBLE):
        assert watched.turn(requests=[Request(jobs=jobs)], watch=watch) == []
        assert watched.turn(slots=[Slot("mail", 1, 10)], watch=watch) == []
        held = watched.result.claims
        ends = [outcome(one) for one in held[:5]]
        assert (
            watched.turn(outcomes=ends, give_back=[GiveBack(held[9].job, held[9].number)], watch=watch) == []
        )


def test_a_decision_is_told(watched):
    decision = Decision(
        at=5, budget=2, backlog={"mail": 3}, before={}, after={"mail": 2}, ideal={"mail": 2.0},
        reasons={"mail": "most"},
    )  # fmt: skip
    assert watched.turn(decisions=[decision], watch=Watch.TROUBLE) == [
        events.BalanceDecided(
            at=5, budget=2, backlog={"mail": 3}, before={}, after={"mail": 2}, reasons={"mail": "most"}
        )
    ]


# Schedules.


def put(priority=0, **rest):
    every = ["every", 1]
    schedule = Schedule(
        name="nightly", task="shop.tasks:send", category="mail", trigger=every, priority=priority
    )
    return PutSchedule(schedule, next_at=NOW, fire_at=NOW, **rest)


def test_what_is_done_to_a_schedule_is_told(watched, new_job):
    of_it = {"at": NOW, "schedule": "nightly"}
    job = new_job()
    by_hand = {"due_at": NOW, "until_at": NOW, "count": 1, "by_hand": True}
    for changes, jobs, told in [
        (put(), (), events.ScheduleAdded(**of_it)),
        (put(priority=1), (), events.ScheduleChanged(**of_it)),
        (SwitchSchedule("nightly", False, 0, 0), (), events.ScheduleDeactivated(**of_it)),
        (SwitchSchedule("nightly", True, NOW, NOW), (), events.ScheduleActivated(**of_it)),
        (
            RunSchedule("nightly", job.id),
            [job],
            events.ScheduleFired(**of_it, job=format_id(job.id), **by_hand),
        ),
        (RemoveSchedule("nightly"), (), events.ScheduleRemoved(**of_it)),
    ]:
        assert watched.ask(schedules=[changes], jobs=jobs)[0] == told
    assert watched.ask(schedules=[RemoveSchedule("nightly")]) == []


def test_a_change_that_is_made_again_is_told_once(watched):
    change = put(expects=0)
    assert len(watched.ask(schedules=[change])) == 1
    assert watched.ask(schedules=[change]) == []


def test_what_became_of_due_times_is_told(watched, new_job):
    watched.ask(schedules=[put()])
    job = new_job()
    records = [
        FiringRecord(NOW, NOW + 2, 3, NOW + 9, FiringKind.FIRED, job.id),
        FiringRecord(NOW + 3, NOW + 3, 1, NOW + 9, FiringKind.SKIPPED, why="too late"),
        FiringRecord(NOW + 4, NOW + 4, 0, NOW + 9, FiringKind.NOTED, why="the clock was set"),
    ]
    firing = Firing(
        name="nightly",
        revision=1,
        due_at=NOW,
        records=records,
        jobs=[job],
        next_at=NOW + 20,
        fire_at=NOW + 20,
    )
    of_it = {"at": NOW, "schedule": "nightly"}
    assert watched.turn(firings=[firing], watch=Watch.TROUBLE) == [
        events.ScheduleFired(
            **of_it, job=format_id(job.id), due_at=NOW, until_at=NOW + 2, count=3, by_hand=False
        ),
        events.ScheduleSkipped(**of_it, due_at=NOW + 3, until_at=NOW + 3, count=1, cause="too late"),
        events.ScheduleNoted(**of_it, cause="the clock was set"),
    ]
