import pytest

from jobsched.job import JobStatus, ParkedFor, State
from jobsched.transitions import (
    CRASH_LIMIT,
    INTERRUPTION_LIMIT,
    cancelled,
    claimed,
    finished,
    parked,
    put_back,
    queued,
)


def in_progress(**fields) -> JobStatus:
    given = {"sequence": 7, "attempt": 1, "claim": 5, "worker": 3, "started_at": 100, **fields}
    return JobStatus(State.IN_PROGRESS, "mail", 0, **given)


def fields_of(status: JobStatus) -> dict[str, int]:
    """What a status says beside state, category and priority."""
    return {name: getattr(status, name) for name in status.__struct_fields__[3:]}


def test_a_queued_job_gets_its_place_and_a_claim_does_not_take_it():
    status = JobStatus(State.SCHEDULED, "mail", 0, due_at=5)
    queued(status, sequence=7)
    assert status == JobStatus(State.PENDING, "mail", 0, sequence=7, due_at=5)
    claimed(status, claim=9, worker=4, now=200)
    assert (status.state, status.sequence) == (State.IN_PROGRESS, 7)


def test_a_claim_counts_an_attempt_and_takes_the_new_claim_number():
    status = JobStatus(State.PENDING, "mail", 0, sequence=7, attempt=1, claim=5, worker=3, ended_at=50)
    claimed(status, claim=9, worker=4, now=200)
    assert status == in_progress(attempt=2, claim=9, worker=4, started_at=200)


@pytest.mark.parametrize(
    ("before", "interrupted", "after"),
    [
        (0, False, (State.PENDING, 0, 0)),
        (0, True, (State.PENDING, 1, 0)),
        (INTERRUPTION_LIMIT - 2, True, (State.PENDING, INTERRUPTION_LIMIT - 1, 0)),
        (INTERRUPTION_LIMIT - 1, False, (State.PENDING, INTERRUPTION_LIMIT - 1, 0)),
        (INTERRUPTION_LIMIT - 1, True, (State.PARKED, INTERRUPTION_LIMIT, 300)),
    ],
)
def test_a_job_put_back_keeps_its_place_and_its_attempts(before, interrupted, after):
    status = in_progress(attempt=3, interruptions=before)
    put_back(status, now=300, interrupted=interrupted)
    assert (status.state, status.interruptions, status.ended_at) == after
    assert (status.attempt, status.sequence, status.started_at, status.crashes) == (2, 7, 0, 0)


def test_a_parked_job_notes_when_and_why():
    status = in_progress()
    parked(status, now=300, reason=ParkedFor.HELD)
    expected = fields_of(in_progress(ended_at=300, parked_for=ParkedFor.HELD))
    assert status == JobStatus(State.PARKED, "mail", 0, **expected)


def test_a_cancelled_job_notes_when():
    status = in_progress()
    cancelled(status, now=300)
    assert status == JobStatus(State.CANCELLED, "mail", 0, **fields_of(in_progress(ended_at=300)))


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.PARKED, State.SCHEDULED])
def test_a_run_that_ends_goes_where_its_outcome_says(state):
    status = in_progress(attempt=2, due_at=3)
    finished(status, state=state, started_at=110, ended_at=120, due_at=500)
    due_at = 500 if state is State.SCHEDULED else 3
    expected = in_progress(attempt=2, started_at=110, ended_at=120, due_at=due_at)
    assert (status.state, fields_of(status)) == (state, fields_of(expected))


@pytest.mark.parametrize(
    ("crashes", "state"),
    [(0, State.PENDING), (CRASH_LIMIT - 2, State.PENDING), (CRASH_LIMIT - 1, State.QUARANTINED)],
)
def test_a_crash_spends_no_attempt_keeps_the_place_and_the_third_one_quarantines(crashes, state):
    status = in_progress(attempt=2, crashes=crashes)
    finished(status, state=State.PENDING, started_at=110, ended_at=120, due_at=0)
    assert (status.state, status.crashes) == (state, crashes + 1)
    assert (status.attempt, status.sequence, status.interruptions, status.ended_at) == (1, 7, 0, 120)
