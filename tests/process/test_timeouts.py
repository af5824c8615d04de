"""A run whose time is up: ended by an exception, or by force where it does not obey."""

import time
from typing import NamedTuple

import pytest
from nodes import Run, eventually, is_running, serving

from jobsched import JobFailed
from jobsched.job import State
from jobsched.store.base import StoredJob

STUBBORN = {
    "swallow": 1,
    "compute": 0,
    "block_signals": 0,
    "block_loop": 0,
    "leave_children": 0,
    "fork_back": 0,
}
"""Tasks that survive their time's end, and how often they are tried again."""
ORPHANS = ("session-leave_children", "orphan-leave_children")
LIMIT_S = 1.0
CATEGORIES = {name: {"max_workers": 1} for name in STUBBORN} | {
    "plain": {},
    "limited": {"timeout": "1h"},
    "hasty": {"kill_after": "250ms"},
}
THREAD = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
"""A module that has workers started as programs of their own: nobody forks beside a thread."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timeouts")
    with serving(folder, "stubborn_tasks", categories=CATEGORIES, workers=7) as served:
        yield served


def pid_in(project, name):
    """Return the pid that a task has written to a file, 0 before it is there."""
    file = project.folder / name
    return int(file.read_text()) if file.exists() else 0


class Overstayed(NamedTuple):
    """What became of a run that obeys nothing, and of the job behind it in its category."""

    run: Run
    gone_after_s: float
    stored: StoredJob
    next_run: Run


@pytest.fixture(scope="module")
def overstayed(served):
    """A job for each way to overstay, all at the same time, each with another one behind it."""
    project, jobs = served
    late = [
        jobs.dispatch(f"stubborn_tasks:{name}", name, args=(name,), timeout=LIMIT_S, max_retries=retries)
        for name, retries in STUBBORN.items()
    ]
    behind = [jobs.dispatch("tasks:mark", name, args=(f"behind-{name}",)) for name in STUBBORN]
    runs = [eventually(lambda name=name: project.started(name))[0] for name in STUBBORN]
    assert all(eventually(lambda kind=kind: pid_in(project, kind)) for kind in ORPHANS)  # they ran
    gone_after_s: dict[str, float] = {}

    def are_gone():
        for run in runs:
            if run.label not in gone_after_s and not is_running(run.pid):
                gone_after_s[run.label] = time.monotonic() - run.start / 1e9
        return len(gone_after_s) == len(runs)

    eventually(are_gone)
    for job in behind:
        job.result(20)
    eventually(project.is_settled)
    return {
        run.label: Overstayed(
            run, gone_after_s[run.label], project.stored(job.id), project.started(f"behind-{run.label}")[0]
        )
        for run, job in zip(runs, late, strict=True)
    }


# By an exception.


@pytest.mark.parametrize("task", ["sleep", "lock", "sleep_async", "catch_exceptions"])
def test_a_run_is_ended_by_an_exception_where_it_stands(served, task):
    project, jobs = served
    job = jobs.dispatch(f"stubborn_tasks:{task}", "plain", args=(task,), timeout=0.5)
    with pytest.raises(JobFailed, match=r"JobTimeout: timed out after 0\.5 s") as failure:
        job.result(20)
    assert f"in {task}" in failure.value.traceback
    assert "asyncio/runners.py" not in failure.value.traceback.partition("direct cause")[2]
    (run,) = project.started(task)
    assert run.end is not None
    assert (run.end - run.start) / 1e9 >= 0.4
    eventually(lambda: not is_running(run.pid))  # its worker may be in any state
    assert project.status(job.id).crashes == 0


@pytest.mark.parametrize("at_import", ["", THREAD], ids=["forked", "spawned"])
def test_a_thread_that_a_run_has_left_holds_up_no_other_job(project, at_import):
    project.bring("stubborn_tasks")
    (project.folder / "more_tasks.py").write_text(at_import)
    project.configure({"mail": {}}, workers=1, tasks=["tasks", "stubborn_tasks", "more_tasks"])
    project.start()
    jobs = project.dispatcher()
    job = jobs.dispatch("stubborn_tasks:leave_a_thread_async", "mail", args=("left",), timeout=0.1)
    behind = jobs.dispatch("tasks:mark", "mail", args=("behind",))
    with pytest.raises(JobFailed, match="timed out"):
        job.result(20)
    assert behind.result(10) == "behind"


def test_a_timeout_is_a_failed_attempt(served):
    project, jobs = served
    job = jobs.dispatch("stubborn_tasks:sleep", "plain", args=("twice",), timeout=0.5, max_retries=1)
    with pytest.raises(JobFailed):
        job.result(20)
    assert [run.attempt for run in project.started("twice")] == [1, 2]
    states = [attempt.state for attempt in project.stored(job.id).attempts]
    assert states == [State.SCHEDULED, State.FAILED]


# By force.


@pytest.mark.parametrize("task", STUBBORN)
def test_a_run_that_obeys_nothing_is_gone_within_a_second_of_its_limit(overstayed, task):
    assert LIMIT_S < overstayed[task].gone_after_s < LIMIT_S + 1


@pytest.mark.parametrize("task", STUBBORN)
def test_a_run_that_is_killed_for_its_time_is_a_failed_attempt_and_no_crash(overstayed, task):
    stored = overstayed[task].stored
    failed = stored.attempts[0]
    assert failed.error.cause == "timed out after 1 s, and was killed 0.5 s later"
    assert failed.error.crash is None
    assert (stored.status.crashes, stored.status.interruptions) == (0, 0)
    assert LIMIT_S <= (failed.ended_at - failed.started_at) / 1e6 < LIMIT_S + 1


def test_a_run_that_is_killed_for_its_time_is_tried_again_by_the_rule_of_its_task(overstayed):
    retried, spent = overstayed["swallow"].stored, overstayed["compute"].stored
    assert (retried.status.state, retried.status.attempt) == (State.COMPLETED, 2)
    assert (spent.status.state, spent.status.attempt) == (State.FAILED, 1)
    assert retried.attempts[0].state is State.SCHEDULED
    assert retried.status.due_at - retried.attempts[0].ended_at == 10_000


@pytest.mark.parametrize("task", STUBBORN)
def test_the_next_job_of_the_category_runs_at_once_in_another_worker(overstayed, task):
    late = overstayed[task]
    assert late.next_run.pid != late.run.pid
    assert (late.next_run.start - late.run.start) / 1e9 < LIMIT_S + 1.5


def test_processes_that_a_killed_run_has_left_are_gone_too(served, overstayed):
    orphans = [pid_in(served[0], kind) for kind in ORPHANS]
    eventually(lambda: not any(map(is_running, orphans)), 2)


# Who says how long.


@pytest.mark.parametrize(
    ("task", "category", "options", "limit_s"),
    [
        ("tell_rest", "plain", {}, None),
        ("tell_rest", "limited", {}, 3600),
        ("tell_rest_of_300", "limited", {}, 300),
        ("tell_rest_of_300", "limited", {"timeout": 20}, 20),
        ("tell_rest_of_300_async", "plain", {"timeout": 20}, 20),
    ],
)
def test_the_dispatch_over_the_task_over_the_category_says_how_long(served, task, category, options, limit_s):
    _, jobs = served
    rest_s = jobs.dispatch(f"stubborn_tasks:{task}", category, **options).result(20)
    assert rest_s == limit_s or limit_s - 2 < rest_s <= limit_s


@pytest.mark.parametrize(
    ("task", "category", "killed_after_s"),
    [
        ("swallow_for_long", "plain", 0.5),
        ("swallow_for_long", "hasty", 0.25),
        ("swallow_not_a_moment", "hasty", 0.02),
    ],
)
def test_the_task_over_the_category_says_how_long_after_its_limit_a_run_is_killed(
    served, task, category, killed_after_s
):
    project, jobs = served
    job = jobs.dispatch(f"stubborn_tasks:{task}", category, args=("x",))
    with pytest.raises(JobFailed, match="timed out"):
        job.result(20)
    assert project.cause(job.id) == f"timed out after 0.125 s, and was killed {killed_after_s:g} s later"
