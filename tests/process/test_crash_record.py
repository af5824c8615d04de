"""What is recorded of a worker's death, and what workers are replaced for."""

import os
import re
import signal

import pytest
from nodes import Run, eventually, is_running, serving

from jobsched import JobFailed
from jobsched.job import State

SMALL_MIB = 64
CATEGORIES = {
    "mail": {},
    "small": {"max_memory": f"{SMALL_MIB}MiB", "max_workers": 1},
    "three": {"max_jobs_per_worker": 3, "max_workers": 1},
    "young": {"max_worker_age": "1s", "max_workers": 1},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crashes")
    with serving(folder, "deadly_tasks", categories=CATEGORIES, workers=4) as served:
        yield served


# Deaths.


@pytest.mark.parametrize(
    ("way", "cause", "signal_name", "exit_code"),
    [
        ("fault", "its worker was killed by SIGSEGV while it ran", "SIGSEGV", None),
        ("kill", "its worker was killed by SIGKILL while it ran", "SIGKILL", None),
        ("leave-0", "its worker left with exit code 0 while it ran", None, 0),
        ("leave-7", "its worker left with exit code 7 while it ran", None, 7),
    ],
)
def test_the_record_says_how_a_worker_died_and_what_its_job_had_said(
    served, way, cause, signal_name, exit_code
):
    project, jobs = served
    job = jobs.dispatch("deadly_tasks:die", "mail", args=(way, way))
    assert job.result(20) == way
    stored = project.stored(job.id)
    assert (stored.status.attempt, stored.status.crashes) == (1, 1)
    (attempt,) = stored.attempts
    assert (attempt.attempt, attempt.state) == (1, State.PENDING)
    assert attempt.started_at < attempt.ended_at
    assert attempt.error.cause == cause
    crash = attempt.error.crash
    assert (crash.signal, crash.exit_code, crash.out_of_memory) == (signal_name, exit_code, False)
    assert crash.peak_kib > 1 << 10
    assert attempt.log == f"last words of {way}, with password=***\n"
    assert stored.error is None  # it has completed since


def test_the_record_of_a_fault_says_where_python_was(served):
    project, jobs = served
    job = jobs.dispatch("deadly_tasks:die", "mail", args=("where", "fault"))
    job.result(20)
    traceback = project.stored(job.id).attempts[0].error.traceback
    assert traceback.startswith("Fatal Python error: Segmentation fault")
    assert re.search(r'deadly_tasks\.py", line \d+ in fault\n', traceback)
    other = jobs.dispatch("deadly_tasks:die", "mail", args=("nowhere", "kill"))
    other.result(20)
    assert project.stored(other.id).attempts[0].error.traceback == ""


def test_a_job_that_killed_three_workers_is_quarantined_until_its_operator_retries_it(served):
    project, jobs = served
    job = jobs.dispatch("deadly_tasks:die", "mail", args=("deadly", "kill", 9))
    with pytest.raises(JobFailed, match="quarantined"):
        job.result(20)
    stored = project.stored(job.id)
    assert (stored.status.state, stored.status.crashes) == (State.QUARANTINED, 3)
    assert [attempt.error.crash.signal for attempt in stored.attempts] == ["SIGKILL"] * 3
    assert stored.error.cause == "its worker was killed by SIGKILL while it ran"
    project.open("mended-deadly")
    assert jobs.retry([job.id]) in ([State.PENDING], [State.IN_PROGRESS])
    assert job.result(20) == "deadly"
    assert project.status(job.id).crashes == 0
    assert len(project.started("deadly")) == 4


# Memory.


def test_a_job_that_asks_for_more_memory_than_allowed_gets_a_memory_error(served):
    project, jobs = served
    fits = jobs.dispatch("deadly_tasks:ask_for_much", "small", args=("fits", SMALL_MIB // 4))
    assert fits.result(20) == SMALL_MIB << 18
    job = jobs.dispatch("deadly_tasks:ask_for_much", "small", args=("much", 4 * SMALL_MIB))
    with pytest.raises(JobFailed, match="MemoryError"):
        job.result(20)
    status = project.status(job.id)
    assert (status.state, status.crashes, len(project.started("much"))) == (State.FAILED, 0, 1)


def test_memory_is_limited_in_its_category_only(served):
    _, jobs = served
    jobs.dispatch("deadly_tasks:ask_for_much", "small", args=("first", 1)).result(20)
    much = [
        jobs.prepare("deadly_tasks:ask_for_much", "mail", args=("elsewhere", 4 * SMALL_MIB))
        for _ in range(40)
    ]
    sizes = {job.result(20) for job in jobs.dispatch_many(much)}  # some in the worker that was limited
    assert sizes == {4 * SMALL_MIB << 20}


def test_a_worker_that_grows_over_its_limit_is_killed_and_the_record_says_so(served):
    project, jobs = served
    job = jobs.dispatch("deadly_tasks:grow", "small", args=("glutton", 8 * SMALL_MIB))
    assert job.result(20) == 0
    stored = project.stored(job.id)
    (attempt,) = stored.attempts
    assert stored.status.crashes == 1
    found = re.fullmatch(r"out of memory: it held (\d+) MiB, max_memory is 64 MiB", attempt.error.cause)
    assert SMALL_MIB <= int(found[1]) < 8 * SMALL_MIB
    assert (attempt.error.crash.signal, attempt.error.crash.out_of_memory) == ("SIGKILL", True)
    assert attempt.error.crash.peak_kib >> 10 >= int(found[1])
    assert attempt.log == "glutton grows\n"
    first, second = project.started("glutton")
    assert first.pid != second.pid


# Workers that are replaced in good time.


def test_a_worker_is_replaced_after_so_many_jobs(served):
    project, _ = served
    labels = [f"third-{number:02}" for number in range(20)]
    ids = project.dispatch_marks("three", labels)
    eventually(lambda: set(project.states(ids)) == {"completed"})
    runs = [run for run in project.runs() if run.label.startswith("third")]
    assert [run.label for run in runs] == labels
    pids = [run.pid for run in runs]
    assert max(pids.count(pid) for pid in pids) == 3
    assert len(set(pids)) >= len(labels) // 3


def test_a_worker_is_replaced_when_it_is_old(served):
    project, _ = served
    labels = [f"aged-{number:02}" for number in range(40)]
    ids = project.dispatch_marks("young", labels, 0.05)
    eventually(lambda: set(project.states(ids)) == {"completed"})
    runs = [run for run in project.runs() if run.label.startswith("aged")]
    assert [run.label for run in runs] == labels
    by_worker: dict[int, list[Run]] = {}
    for run in runs:
        by_worker.setdefault(run.pid, []).append(run)
    assert len(by_worker) >= 2
    for own in by_worker.values():  # after each run but the last one it was younger than that
        assert all((run.end - own[0].start) / 1e9 < 1 for run in own[:-1])


# Workers that cannot start.


def test_workers_that_cannot_start_are_tried_ever_less_often_and_the_others_go_on(project):
    project.bring("unforkable_tasks")
    lane = {"min_workers": 1, "max_workers": 1}
    project.configure({"broken": lane, "whole": lane}, tasks=["tasks", "unforkable_tasks"], workers=2)
    node = project.start()
    jobs = project.dispatcher()
    for category in ("broken", "whole"):
        jobs.dispatch("tasks:mark", category, args=(category,)).result(20)
    project.open("unforkable")
    os.kill(project.started("broken")[0].pid, signal.SIGKILL)
    eventually(lambda: not is_running(project.started("broken")[0].pid))
    job = jobs.dispatch("tasks:mark", "broken", args=("patient",))
    for wait in ("0.1", "0.2", "0.4"):
        told = f"category=broken was left with exit code 5; replaced in {wait} s"
        eventually(lambda told=told: node.says(told))
    assert not node.says("category=whole was")
    assert jobs.dispatch("tasks:mark", "whole", args=("goes-on",)).result(20) == "goes-on"
    assert job.state() == "pending"
    (project.folder / "unforkable").unlink()
    assert job.result(20) == "patient"
    status = project.status(job.id)
    assert (status.attempt, status.crashes, status.interruptions) == (1, 0, 0)
