"""What becomes of a run that fails, and what is remembered of it."""

import pytest
from nodes import eventually, serving

from jobsched import JobCancelled, JobFailed
from jobsched.job import KEPT_ATTEMPTS, State

CAPTURED = 16 << 10


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(
        tmp_path_factory.mktemp("retries"), "failing_tasks", categories={"mail": {}}, workers=2
    ) as served:
        yield served


def failure_of(served, task, *args):
    """Dispatch a job that fails; return what is stored of it."""
    project, jobs = served
    job = jobs.dispatch(f"failing_tasks:{task}", "mail", args=args)
    with pytest.raises(JobFailed):
        job.result(20)
    return project.stored(job.id)


def last_wait_us(stored):
    """Return how long the last try had to wait, by its due time; it did not start before."""
    failed, last = stored.attempts[-2:]
    assert last.started_at >= stored.status.due_at
    return stored.status.due_at - failed.ended_at


@pytest.mark.parametrize(
    ("error", "runs"),
    [
        ("RuntimeError", 4),  # no rule: the task's own
        ("OSError", 2),
        ("FileNotFoundError", 2),
        ("ConnectionError", 3),
        ("ConnectionResetError", 3),  # is an OSError too, but ConnectionError is nearer
        ("ValueError", 1),
        ("UnicodeError", 1),
        ("KeyError", 2),
        ("ZeroDivisionError", 4),  # a rule of other waits alone
    ],
)
def test_the_rule_of_the_nearest_class_says_how_often_an_error_is_tried_again(served, error, runs):
    stored = failure_of(served, "raise_one", error, error)
    assert [run.attempt for run in served[0].started(error)] == list(range(1, runs + 1))
    assert (stored.status.state, stored.status.attempt) == (State.FAILED, runs)


@pytest.mark.parametrize(
    ("error", "wait_us"), [("ConnectionError", 20_000), ("IndexError", 400_000), ("OverflowError", 280_000)]
)
def test_a_rule_may_have_waits_of_its_own(served, error, wait_us):
    stored = failure_of(served, "raise_one", f"waits-{error}", error)
    assert last_wait_us(stored) == wait_us


@pytest.mark.parametrize("precise", [False, True])
def test_a_job_may_say_itself_after_how_long_it_is_tried_again(served, precise):
    project, jobs = served
    job = jobs.dispatch(
        "failing_tasks:ask_again", "mail", args=(f"later-{precise}", 0.125, 1), kwargs={"precise": precise}
    )
    with pytest.raises(JobFailed, match="not yet"):
        job.result(20)
    assert last_wait_us(project.stored(job.id)) == 125_000


@pytest.mark.parametrize(("most", "runs"), [(None, 4), (0, 1), (2, 3), (5, 6)])
def test_a_retry_that_a_job_asks_for_spends_attempts_up_to_its_own_limit(served, most, runs):
    failure_of(served, "ask_again", f"most-{most}", 0.01, most)
    assert [run.attempt for run in served[0].started(f"most-{most}")] == list(range(1, runs + 1))


def test_a_snooze_spends_no_attempt_however_often(served):
    project, jobs = served
    job = jobs.dispatch("failing_tasks:snooze", "mail", args=("sleepy", 25), max_retries=0)
    assert job.result(20) == 1
    assert [run.attempt for run in project.started("sleepy")] == [1] * 26
    stored = project.stored(job.id)
    assert (stored.status.state, stored.status.attempt) == (State.COMPLETED, 1)
    assert (stored.error, stored.attempts) == (None, [])


def test_a_discarded_job_is_cancelled_for_its_reason_and_not_tried_again(served):
    project, jobs = served
    job = jobs.dispatch("failing_tasks:discard", "mail", args=("useless",))
    with pytest.raises(JobCancelled):
        job.result(20)
    assert job.state() == "cancelled"
    assert project.cause(job.id) == "discarded: nobody wants it, and password=*** is no reason"
    assert len(project.started("useless")) == 1


def test_each_attempt_is_remembered_with_what_it_wrote(served):
    project, jobs = served
    job = jobs.dispatch("failing_tasks:tell_everything", "mail", args=("chatty",))
    assert job.result(20) is None
    first, second = project.stored(job.id).attempts
    runs = project.started("chatty")
    for attempt, run in zip((first, second), runs, strict=True):
        number = attempt.attempt
        assert number == run.attempt
        assert attempt.log.splitlines() == [
            f"chatty: {how} at {number}" for how in ("printed", "logged", "stderr", "kept")
        ]
        assert attempt.started_at < attempt.ended_at
        assert attempt.worker & 0xFFFFFFFF > 0
    assert (first.worker == second.worker) == (runs[0].pid == runs[1].pid)
    assert first.claim < second.claim
    assert first.ended_at < second.started_at
    assert (first.state, first.error.cause) == (State.SCHEDULED, "RuntimeError: chatty")
    assert "in tell_everything" in first.error.traceback
    assert "jobsched/runner.py" not in first.error.traceback
    assert (second.state, second.error) == (State.COMPLETED, None)  # kept, as it wrote something


def test_a_success_that_wrote_nothing_leaves_no_attempt(served):
    project, jobs = served
    job = jobs.dispatch("tasks:mark", "mail", args=("quiet",))
    job.result(20)
    assert project.stored(job.id).attempts == []


def test_what_an_attempt_wrote_and_raised_is_kept_without_secrets(served):
    stored = failure_of(served, "tell_secrets")
    (attempt,) = stored.attempts
    kept = [attempt.log, attempt.error.cause, attempt.error.traceback, stored.error.cause]
    assert "hunter2" not in "".join(kept)
    assert attempt.log == "connecting with password=***\napi_key: ***\n"
    assert all("***" in text for text in kept)


def test_of_a_long_output_the_end_is_kept(served):
    project, jobs = served
    job = jobs.dispatch("failing_tasks:pour", "mail", args=(5000,))
    job.result(20)
    log = project.stored(job.id).attempts[0].log
    told, _, rest = log.partition("\n")
    assert told == f"… {5000 * 12 - CAPTURED:,} bytes left out …"
    assert len(rest) == CAPTURED
    assert rest.endswith("line 004998\nline 004999\n")


def test_what_one_job_wrote_is_not_kept_with_the_next(served):
    project, jobs = served
    turns = [("failing_tasks:pour", 1), ("tasks:mark", "quiet")] * 50
    prepared = [jobs.prepare(task, "mail", args=(argument,)) for task, argument in turns]
    ids = [job.id for job in jobs.dispatch_many(prepared)]
    eventually(lambda: set(project.states(ids)) == {"completed"})
    logs = [[attempt.log for attempt in project.stored(job_id).attempts] for job_id in ids]
    assert logs == [["line 000000\n"], []] * 50


def test_the_latest_attempts_are_remembered(served):
    stored = failure_of(served, "fail_always", "hopeless")
    assert stored.status.attempt == 25
    assert [attempt.attempt for attempt in stored.attempts] == list(range(26 - KEPT_ATTEMPTS, 26))
