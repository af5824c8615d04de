import os
import threading
import time
import uuid

import pytest

from jobsched.job import (
    CANCELLABLE,
    CRASH_LIMIT,
    ENDED,
    INTERRUPTION_LIMIT,
    JobStatus,
    ParkedFor,
    State,
    cancelled,
    claimed,
    finished,
    format_id,
    new_id,
    parked,
    parse_id,
    part_of_id,
    put_back,
    queued,
)


def in_progress(**fields) -> JobStatus:
    given = {"sequence": 7, "attempt": 1, "claim": 5, "worker": 3, "started_at": 100, **fields}
    return JobStatus(State.IN_PROGRESS, "mail", 0, **given)


def fields_of(status: JobStatus) -> dict[str, int]:
    """What a status says beside state, category and priority."""
    return {name: getattr(status, name) for name in status.__struct_fields__[3:]}


# Ids.


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front():
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(bytes=new_id())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 >= before


def test_ids_grow_within_a_millisecond():
    made = [new_id() for _ in range(5000)]
    assert made == sorted(set(made))


def test_ids_grow_while_the_clock_stands_still_or_steps_back(monkeypatch):
    first = new_id()
    now = time.time_ns()
    moments = iter([now, now, now - 3600 * 10**9, 0, now])
    monkeypatch.setattr("jobsched.job.time.time_ns", lambda: next(moments))
    made = [first, *(new_id() for _ in range(5))]
    assert made == sorted(set(made))


def test_each_thread_sees_its_ids_grow_and_none_twice():
    made: list[list[bytes]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def make(own: list[bytes]) -> None:
        start.wait()
        own += [new_id() for _ in range(500)]

    threads = [threading.Thread(target=make, args=(own,)) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in made)
    assert len({job_id for own in made for job_id in own}) == 8 * 500


def test_parent_and_child_of_a_fork_make_different_ids():
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"".join(new_id() for _ in range(50)))
        os._exit(0)
    own = {new_id() for _ in range(50)}
    os.waitpid(pid, 0)
    theirs = os.read(reader, 4096)
    os.close(reader)
    os.close(writer)
    assert len(theirs) == 50 * 16
    assert not own & {theirs[at : at + 16] for at in range(0, len(theirs), 16)}


def test_the_text_form_sorts_like_the_bytes_and_reads_back():
    made = [new_id() for _ in range(100)]
    texts = [format_id(job_id) for job_id in made]
    assert texts == sorted(texts)
    assert [parse_id(text) for text in texts] == made


@pytest.mark.parametrize("text", ["", "0198", "z" * 32, "0" * 31, "0" * 33])
def test_what_is_no_id_is_refused(text):
    with pytest.raises(ValueError, match=r"hexadecimal|invalid literal"):
        parse_id(text)


@pytest.mark.parametrize(
    ("text", "digits"),
    [("0198e0", "0198e0"), ("0198E0A0-00", "0198e0a000"), ("-abc-def-", "abcdef"), ("f" * 32, "f" * 32)],
)
def test_a_part_of_an_id_is_its_digits(text, digits):
    assert part_of_id(text) == digits


@pytest.mark.parametrize(
    "text", ["", "01234", "0-1-2-3-4", "0123456g", "012345 ", "\N{FULLWIDTH DIGIT ONE}" * 6]
)
def test_too_few_digits_or_other_characters_are_no_part_of_an_id(text):
    with pytest.raises(ValueError, match="is no part of a job id"):
        part_of_id(text)


# Transitions.


@pytest.mark.parametrize(
    ("state", "number"),
    [
        (State.SCHEDULED, 0),
        (State.PENDING, 1),
        (State.IN_PROGRESS, 2),
        (State.COMPLETED, 3),
        (State.FAILED, 4),
        (State.CANCELLED, 5),
        (State.PARKED, 6),
        (State.QUARANTINED, 7),
    ],
)
def test_the_numbers_of_the_states_are_those_on_disk(state, number):
    assert state == number
    assert len(State) == 8


def test_a_state_is_written_in_lower_case():
    assert f"{State.IN_PROGRESS}" == "in_progress"
    assert {str(state) for state in ENDED} == {"completed", "failed", "cancelled"}


def test_what_nobody_runs_can_be_cancelled():
    assert {str(state) for state in CANCELLABLE} == {"scheduled", "pending", "parked", "quarantined"}


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
