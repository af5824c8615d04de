"""Stopping: what runs may finish, what waits keeps its place, and nothing is charged."""

import fcntl
import os
import signal
import time

import pytest
from nodes import eventually, is_running

from jobsched.job import State
from jobsched.node import JOBS_PUT_BACK


def dispatch(project, task, category, *args, **options):
    return project.dispatcher().dispatch(f"tasks:{task}", category, args=args, **options)


def test_sigterm_lets_the_running_job_finish_and_starts_no_other(project):
    project.configure({"mail": {}}, workers=1)
    node = project.start()
    running = dispatch(project, "until", "mail", "running", "gate")
    waiting = dispatch(project, "mark", "mail", "waiting")
    eventually(lambda: project.started("running"))
    node.terminate()
    eventually(lambda: node.says("draining"))
    project.open("gate")
    assert node.wait() == 0
    assert project.states([running.id, waiting.id]) == ["completed", "pending"]
    assert [run.label for run in project.runs()] == ["running"]
    assert project.left_behind() == []


def test_short_jobs_handed_ahead_go_back_to_their_places_at_a_stop(project):
    project.configure({"mail": {}}, workers=1)
    labels = [f"{n:04}" for n in range(2000)]
    project.dispatch_marks("mail", labels)
    node = project.start()
    eventually(lambda: project.count(State.COMPLETED) > 200)
    node.terminate()
    assert node.wait() == 0
    done = project.count(State.COMPLETED)
    assert project.count(State.PENDING) == len(labels) - done > 0
    assert [run.label for run in project.runs()] == labels[:done]
    assert project.run_until_idle() == 0
    assert [run.label for run in project.runs()] == labels
    assert {run.attempt for run in project.runs()} == {1}


def test_a_job_longer_than_the_grace_goes_back_unspent_and_runs_first_again(project):
    project.configure({"mail": {}}, workers=1)
    limit_s = project.limit_s(1)
    node = project.start("--grace", "300ms")
    long = dispatch(project, "until", "mail", "long", "gate")
    behind = dispatch(project, "mark", "mail", "behind")
    eventually(lambda: project.started("long"))
    began = time.monotonic()
    node.terminate()
    assert node.wait() == JOBS_PUT_BACK
    assert 0.3 <= time.monotonic() - began < 0.3 + limit_s
    status = project.status(long.id)
    assert (status.state, status.attempt, status.interruptions) == (State.PENDING, 0, 1)
    assert status.sequence < project.status(behind.id).sequence
    project.open("gate")
    assert project.run_until_idle() == 0
    assert [(run.label, run.attempt) for run in project.runs()] == [("long", 1), ("long", 1), ("behind", 1)]


def test_a_second_sigterm_does_not_wait_for_running_jobs(project):
    limit_s = project.limit_s(1)
    node = project.start()
    job = dispatch(project, "until", "mail", "long", "gate")
    (run,) = eventually(lambda: project.started("long"))
    node.terminate()
    eventually(lambda: node.says("draining"))
    began = time.monotonic()
    node.terminate()
    assert node.wait() == JOBS_PUT_BACK
    assert time.monotonic() - began < limit_s
    assert not is_running(run.pid)
    assert project.status(job.id).attempt == 0


@pytest.mark.parametrize("moment", ["socket", "preloader", "workers"])
def test_a_signal_to_the_whole_group_while_the_node_starts_is_a_clean_stop(project, moment):
    """As Ctrl-C at a terminal and systemd send it."""
    job = dispatch(project, "mark", "mail", "later")
    node = project.launch()
    reached = {
        "socket": project.answers,
        "preloader": node.preloader,
        "workers": node.workers,
    }
    eventually(reached[moment])
    os.killpg(node.pid, signal.SIGINT)
    assert node.wait(10) == 0, node.end_of_log
    assert "Traceback" not in node.log.read_text()
    assert job.state() in ("pending", "completed")
    assert project.left_behind() == []


def test_a_stop_does_not_wait_for_modules_that_are_slow_to_import(project):
    limit_s = project.limit_s(1)
    tasks = project.folder / "tasks.py"
    tasks.write_text(f"import time\ntime.sleep(60)\n{tasks.read_text()}")
    node = project.start("--grace", "100ms")
    eventually(node.preloader)
    began = time.monotonic()
    node.terminate()
    assert node.wait() == 0
    assert time.monotonic() - began < 0.1 + limit_s
    assert project.left_behind() == []


def test_what_is_dispatched_while_the_node_drains_is_kept(project):
    project.configure({"mail": {}}, workers=1)
    node = project.start()
    dispatch(project, "until", "mail", "running", "gate")
    eventually(lambda: project.started("running"))
    node.terminate()
    eventually(lambda: node.says("draining"))
    late = dispatch(project, "mark", "mail", "late")
    assert node.is_alive
    project.open("gate")
    assert node.wait() == 0
    assert late.state() == "pending"
    assert project.run_until_idle() == 0
    assert late.state() == "completed"


def test_until_idle_waits_for_delayed_jobs_and_retries_and_tells_of_failures(project):
    dispatch(project, "mark", "mail", "delayed", delay=0.4)
    retried = dispatch(project, "fail_until", "reports", "retried", 3, max_retries=2)
    assert project.run_until_idle() == 0
    assert retried.result() == 3
    assert {run.label: run.attempt for run in project.runs()} == {"delayed": 1, "retried": 3}
    failed = dispatch(project, "fail_until", "reports", "failed", 9, max_retries=1)
    assert project.run_until_idle() == 1
    assert failed.state() == "failed"
    assert [run.attempt for run in project.started("failed")] == [1, 2]
    assert project.run_until_idle() == 0  # an old failure is not this node's


def test_until_idle_leaves_paused_categories_alone(project):
    project.dispatcher().pause("mail")
    kept = dispatch(project, "mark", "mail", "paused")
    done = dispatch(project, "mark", "reports", "done")
    assert project.run_until_idle() == 0
    assert [kept.state(), done.state()] == ["pending", "completed"]


@pytest.mark.parametrize("options", [(), ("--until-idle",)])
def test_a_stop_is_obeyed_while_a_client_holds_up_the_start(project, options):
    project.dispatcher().dispatch("tasks:mark", "mail", args=("waits",))
    with (project.store_path / "writers.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        node = project.launch(*options)
        eventually(lambda: node.says("waiting for a client that writes"))
        node.terminate()
        assert node.wait() == 0, node.end_of_log
