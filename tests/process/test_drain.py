"""What a drain says of each running job, how it ends, and what it costs to kill it."""

import pytest
from nodes import eventually, is_running

from jobsched.job import State
from jobsched.node import JOBS_PUT_BACK


@pytest.fixture
def draining(project):
    """Return a node that drains while jobs run, and these jobs by their labels."""

    def start(grace, **tasks):
        project.bring("stubborn_tasks")
        project.configure({"mail": {}}, workers=4, tasks=["tasks", "stubborn_tasks"])
        node = project.start("--grace", grace)
        jobs = project.dispatcher()
        started = {}
        for label, task in tasks.items():
            args = (label, "gate") if task == "tasks:until" else (label,)
            started[label] = jobs.dispatch(task, "mail", args=args)
        eventually(lambda: {run.label for run in project.runs()} == set(tasks))
        node.terminate()
        eventually(
            lambda: node.says(f"draining: {len(tasks)} jobs run, {grace.removesuffix('s')} s of grace")
        )
        return node, started

    return start


def test_a_drain_says_what_became_of_each_running_job(project, draining):
    node, jobs = draining(
        "2s", ends="tasks:until", lasts="stubborn_tasks:sleep", stuck="stubborn_tasks:compute",
        cancelled="stubborn_tasks:sleep",
    )  # fmt: skip
    assert jobs["cancelled"].cancel(timeout=20)
    project.open("gate")
    eventually(lambda: node.says(f"job={jobs['ends'].id} completed"))
    assert node.wait() == JOBS_PUT_BACK
    assert node.says(f"job={jobs['cancelled'].id} cancelled")
    for label in ("lasts", "stuck"):
        assert node.says(f"job={jobs[label].id} put back: it outlasted the stop")
        status = project.status(jobs[label].id)
        assert (status.state, status.attempt, status.crashes) == (State.PENDING, 0, 0)
        assert status.interruptions == 1
    assert project.left_behind() == []


def test_a_drain_in_which_all_jobs_end_is_a_success(project, draining):
    node, jobs = draining("20s", first="tasks:until", second="tasks:until")
    project.open("gate")
    assert node.wait() == 0
    for job in jobs.values():
        assert node.says(f"job={job.id} completed")
    assert not node.says("put back")


def test_a_job_that_is_killed_for_its_time_during_a_drain_has_failed_and_is_not_put_back(project):
    project.bring("stubborn_tasks")
    project.configure({"mail": {"timeout": "1s"}}, workers=2, tasks=["tasks", "stubborn_tasks"])
    node = project.start("--grace", "20s")
    job = project.dispatcher().dispatch("stubborn_tasks:swallow", "mail", args=("late",))
    eventually(lambda: project.started("late"))
    node.terminate()
    assert node.wait() == 0
    assert node.says(f"job={job.id} failed")
    assert project.status(job.id).state is State.FAILED


def test_a_node_killed_while_it_drains_loses_nothing_and_charges_nobody(project, draining):
    node, jobs = draining("20s", first="tasks:until", second="stubborn_tasks:compute")
    waiting = project.dispatcher().dispatch("tasks:mark", "mail", args=("waiting",))
    pids = [run.pid for run in project.runs()]
    node.kill()
    eventually(lambda: not any(map(is_running, pids)))
    project.start()
    eventually(lambda: len(project.started("first")) == len(project.started("second")) == 2)
    project.open("gate")
    assert (jobs["first"].result(20), waiting.result(20)) == ("first", "waiting")
    for job in jobs.values():
        status = project.status(job.id)
        assert (status.attempt, status.crashes, status.interruptions) == (1, 0, 1)
    assert {run.attempt for run in project.runs()} == {1}
