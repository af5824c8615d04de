"""Cancelling a job that runs: kindly, by an exception, by force; and what its end says."""

import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from nodes import eventually, is_running, serving

from jobsched import JobCancelled
from jobsched.job import State
from jobsched.job_id import format_id, new_id, parse_id
from jobsched.node_connection import NodeConnection
from jobsched.store.base import Request
from jobsched.wire import Look, ask_frames, frame

CATEGORIES = {
    "mail": {},
    "patient": {"kill_after": "60s"},
    "hasty": {"kill_after": "300ms"},
    "ahead": {"max_workers": 1},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cancel")
    with serving(folder, "stubborn_tasks", categories=CATEGORIES, workers=4) as served:
        yield served


def running(served, task, category, label=None):
    """Dispatch a job; return it and its run once it has started."""
    project, jobs = served
    label = label or task
    job = jobs.dispatch(f"stubborn_tasks:{task}", category, args=(label,))
    (run,) = eventually(lambda: project.started(label))
    return job, run


@pytest.mark.parametrize("task", ["ask_whether_cancelled", "ask_whether_cancelled_async"])
def test_a_job_that_asks_whether_it_is_cancelled_ends_by_itself(served, task):
    project, _ = served
    job, run = running(served, task, "patient")
    began = time.monotonic()
    assert job.cancel(timeout=20)
    assert time.monotonic() - began < 1.5
    assert project.cause(job.id) == "cancelled: it stopped by itself"
    assert project.started(task)[0].end is not None
    assert is_running(run.pid)  # it left nothing half done


def test_a_job_that_has_asked_and_goes_on_is_ended_by_an_exception_after_two_seconds(served):
    project, _ = served
    job, run = running(served, "ask_once", "patient")
    began = time.monotonic()
    assert job.cancel(timeout=20)
    assert 1.9 < time.monotonic() - began < 3.5
    assert project.cause(job.id) == "cancelled: by an exception raised in it"
    eventually(lambda: not is_running(run.pid))


@pytest.mark.parametrize("task", ["sleep", "lock", "sleep_async", "catch_exceptions"])
def test_a_job_that_does_not_ask_is_ended_by_an_exception_where_it_stands(served, task):
    project, _ = served
    job, run = running(served, task, "patient")
    began = time.monotonic()
    assert job.cancel(timeout=20)
    assert time.monotonic() - began < 1.5
    stored = project.stored(job.id)
    assert stored.error.cause == "cancelled: by an exception raised in it"
    assert f"in {task}" in stored.error.traceback
    assert project.started(task)[0].end is not None
    eventually(lambda: not is_running(run.pid))  # its worker may be in any state
    with pytest.raises(JobCancelled):
        job.result(20)


@pytest.mark.parametrize("task", ["swallow", "compute", "block_signals", "block_loop"])
def test_a_job_that_goes_on_is_killed_and_its_worker_replaced(served, task):
    project, jobs = served
    job, run = running(served, task, "hasty")
    began = time.monotonic()
    assert job.cancel(timeout=20)
    assert 0.25 < time.monotonic() - began < 1.5
    stored = project.stored(job.id)
    assert stored.error.cause == "cancelled: killed, as it went on for 0.3 s"
    assert (stored.status.attempt, stored.status.crashes) == (1, 0)
    assert not is_running(run.pid)
    jobs.dispatch("tasks:mark", "hasty", args=(f"behind-{task}",)).result(20)
    assert len(project.started(task)) == 1
    eventually(lambda: len(project.nodes[0].workers()) == 4)


def test_a_job_that_fails_when_it_is_cancelled_is_not_tried_again(served):
    """Who waits for it is told at once: the connection has asked before it ends."""
    project, jobs = served
    job = jobs.dispatch("stubborn_tasks:fail_when_cancelled", "patient", args=("failing", "gate-failing"))
    eventually(lambda: project.started("failing"))
    assert not job.cancel()
    with contextlib.closing(NodeConnection(project.store_path)) as waiting:
        waiting._socket.sendall(frame(Look(1000, parse_id(job.id), ended=True)))
        waiting.exchange([Request(resume=["mail"])])
        project.open("gate-failing")
        waiting._socket.settimeout(5)
        assert waiting._receive().job.status.state is State.CANCELLED
    assert project.cause(job.id) == "cancelled: instead of being tried again"
    assert project.stored(job.id).attempts[0].error.cause == "RuntimeError: cannot clean up"
    assert len(project.started("failing")) == 1


def test_a_job_that_finishes_nevertheless_is_completed(served):
    job, _ = running(served, "finish_when_cancelled", "patient")
    assert not job.cancel(timeout=20)
    assert job.state() == "completed"
    assert job.result(0) == "finished after all"


def test_a_cancellation_that_comes_with_the_end_of_the_job_changes_nothing(served):
    """The node is stopped meanwhile, so it finds both at once."""
    project, jobs = served
    job = jobs.dispatch("tasks:until", "mail", args=("ends-first", "gate-ends-first"))
    (run,) = eventually(lambda: project.started("ends-first"))
    with contextlib.closing(NodeConnection(project.store_path)) as cancelling:
        with project.nodes[0].stopped():
            project.open("gate-ends-first")
            eventually(lambda: project.started("ends-first")[0].end)
            for part in ask_frames(1, Request(cancel=[parse_id(job.id)])):
                cancelling._socket.sendall(part)
        assert cancelling._receive().reply.states == [State.IN_PROGRESS]
    assert job.result(20) == "ends-first"
    assert job.state() == "completed"
    assert is_running(run.pid)


def test_a_cancellation_without_a_wait_says_that_the_job_still_runs(served):
    job, _ = running(served, "sleep", "patient", "not-waited-for")
    assert not job.cancel()
    with pytest.raises(JobCancelled):
        job.result(20)
    assert job.cancel()


def test_a_job_that_its_worker_holds_ahead_is_cancelled_without_having_run(served):
    """It is cancelled by the job before it, at the moment when that one starts."""
    project, jobs = served
    jobs.dispatch_many(jobs.prepare("tasks:mark", "ahead", args=("short",)) for _ in range(300))
    eventually(project.is_settled)

    def cancelled_ahead(number):
        """Return why, which is the word of the worker's link only where the worker had the job."""
        other, label = format_id(new_id()), f"cancels-{number}"
        gate = f"gate-{label}"
        first = jobs.prepare("stubborn_tasks:cancel_other", "ahead", args=(label, other, gate))
        second = jobs.prepare("tasks:mark", "ahead", args=(f"ahead-{number}",), id=other)
        canceller, job = jobs.dispatch_many([first, second])
        eventually(lambda: job.state() == "cancelled")
        project.open(gate)
        assert canceller.result(20) in ("in_progress", "cancelled")
        assert project.started(f"ahead-{number}") == []
        return project.cause(other)

    causes = {cancelled_ahead(number) for number in range(10)}
    assert "cancelled: before it had started" in causes


def test_a_job_is_cancelled_though_its_worker_has_not_told_of_the_end_of_the_one_before(served):
    """The node is stopped by the first of three jobs, so it finds the cancellation with their ends."""
    project, jobs = served
    node = project.nodes[0]
    jobs.dispatch_many(jobs.prepare("tasks:mark", "ahead", args=("short",)) for _ in range(300))
    eventually(project.is_settled)
    other = format_id(new_id())
    three = [
        jobs.prepare("stubborn_tasks:stop_process", "ahead", args=(node.pid,)),
        jobs.prepare("tasks:mark", "ahead", args=("before",)),
        jobs.prepare("stubborn_tasks:sleep", "ahead", args=("behind",), id=other),
    ]
    with contextlib.closing(NodeConnection(project.store_path)) as cancelling, ThreadPoolExecutor(1) as pool:
        try:
            dispatched = pool.submit(jobs.dispatch_many, three)
            eventually(lambda: project.started("behind"))
            for part in ask_frames(1, Request(cancel=[parse_id(other)])):
                cancelling._socket.sendall(part)
        finally:
            os.kill(node.pid, signal.SIGCONT)
        *_, job = dispatched.result(20)
        assert cancelling._receive().reply.states == [State.IN_PROGRESS]
    eventually(lambda: job.state() == "cancelled")
    assert len(project.started("behind")) == 1


def test_jobs_cancelled_around_the_death_of_their_node_do_not_run_again(project):
    project.bring("stubborn_tasks")
    project.configure({"mail": {"kill_after": "60s"}}, tasks=["tasks", "stubborn_tasks"], workers=2)
    node = project.start()
    served = project, project.dispatcher()
    before, first_run = running(served, "swallow", "mail", "before")
    after, second_run = running(served, "swallow", "mail", "after")
    assert not before.cancel()
    node.kill()
    assert not project.dispatcher().job(after.id).cancel()
    assert project.states([before.id, after.id]) == ["in_progress"] * 2
    assert project.run_until_idle() == 0
    for job, run in ((before, first_run), (after, second_run)):
        assert project.status(job.id).state is State.CANCELLED
        assert project.cause(job.id) == "cancelled: while it ran, by the end of its node or worker"
        assert len(project.started(run.label)) == 1
        assert not is_running(run.pid)
