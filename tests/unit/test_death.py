import os
import signal

import pytest

from jobsched import outbox
from jobsched.death import cause_of_death, crash_outcome, is_bystander
from jobsched.job import Crash, State
from jobsched.preloader import Exited
from jobsched.worker_link import Doom, Held, WorkerLink

JOB = bytes(16)
HELD = Held(JOB, 5)


def left(code: int) -> Exited:
    return Exited(7, code << 8, 4096)


def killed(number: int, *, out_of_memory: bool = False) -> Exited:
    return Exited(7, number, 4096, out_of_memory)


@pytest.fixture
def worker():
    link = WorkerLink(7, "mail", 100.0, lambda _: None)
    link.let_go_of_far_ends()
    link.board.post(5, 0)
    yield link
    link.close()


def fault(link: WorkerLink, text: str) -> None:
    """Write where Python was, as a dying worker does."""
    os.pwrite(link.board.handle, text.encode(), 64 + (16 << 10) + outbox.SIZE)


@pytest.mark.parametrize(
    ("exited", "cause"),
    [
        (left(0), "left with exit code 0"),
        (left(3), "left with exit code 3"),
        (killed(signal.SIGKILL), "killed by SIGKILL"),
        (killed(signal.SIGKILL, out_of_memory=True), "killed by SIGKILL for want of memory"),
        (killed(signal.SIGSEGV | 0x80), "killed by SIGSEGV"),
        (killed(40), "killed by signal 40"),
    ],
)
def test_how_a_worker_ended(exited, cause):
    assert cause_of_death(exited) == cause


@pytest.mark.parametrize(
    ("exited", "cause", "crash"),
    [
        (left(0), "its worker left with exit code 0 while it ran", Crash(None, 0, 4096, False)),
        (
            killed(signal.SIGSEGV | 0x80),
            "its worker was killed by SIGSEGV while it ran",
            Crash("SIGSEGV", None, 4096, False),
        ),
        (
            killed(signal.SIGKILL, out_of_memory=True),
            "its worker was killed by SIGKILL for want of memory while it ran",
            Crash("SIGKILL", None, 4096, True),
        ),
    ],
)
def test_the_job_that_a_dead_worker_ran_is_to_run_again_and_knows_the_cause(worker, exited, cause, crash):
    outcome = crash_outcome(HELD, worker, exited, 10, 20)
    assert (outcome.job, outcome.claim, outcome.state) == (JOB, 5, State.PENDING)
    assert (outcome.started_at, outcome.ended_at, outcome.due_at) == (10, 20, 0)
    assert (outcome.error.cause, outcome.error.crash) == (cause, crash)
    assert (outcome.error.traceback, outcome.log) == ("", "")


@pytest.mark.parametrize(
    ("doom", "state", "due_at", "crash"),
    [
        (Doom(5, State.FAILED, "timed out"), State.FAILED, 0, None),
        (Doom(5, State.CANCELLED, "cancelled", 99), State.CANCELLED, 0, None),
        (Doom(5, State.SCHEDULED, "timed out", 300), State.SCHEDULED, 320, None),
        (
            Doom(5, State.PENDING, "fat", out_of_memory=True),
            State.PENDING,
            0,
            Crash("SIGKILL", None, 4096, True),
        ),
    ],
)
def test_a_job_whose_worker_was_killed_for_it_goes_where_that_said(worker, doom, state, due_at, crash):
    worker.doom = doom
    outcome = crash_outcome(HELD, worker, killed(signal.SIGKILL), 10, 20)
    assert (outcome.state, outcome.due_at) == (state, due_at)
    assert (outcome.error.cause, outcome.error.crash) == (doom.cause, crash)


@pytest.mark.parametrize(
    ("doom", "stopping", "innocent"),
    [
        (None, False, False),
        (None, True, True),
        (Doom(5, State.FAILED, "timed out"), False, False),
        (Doom(5, State.FAILED, "timed out"), True, False),
        (Doom(4, State.FAILED, "the job before timed out"), False, True),
        (Doom(4, State.PENDING, "the job before was fat", out_of_memory=True), True, True),
    ],
)
def test_a_job_is_charged_only_with_a_death_that_is_its_own(doom, stopping, innocent):
    assert is_bystander(HELD, doom, stopping=stopping) == innocent


def test_what_it_had_written_and_where_it_was_are_kept_without_secrets(worker):
    worker.board.write(b"begun\npassword=hunter2\n")
    fault(worker, 'Fatal Python error: Segmentation fault\n  File "x.py", line 3 in api_key=hunter2\n')
    outcome = crash_outcome(HELD, worker, killed(signal.SIGSEGV), 10, 20)
    assert outcome.log == "begun\npassword=***\n"
    assert outcome.error.traceback.startswith("Fatal Python error: Segmentation fault\n")
    assert "hunter2" not in outcome.error.traceback
